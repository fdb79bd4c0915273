//! The assertions of an application in the management API, which App ID does not have.

use axum::Json;
use axum::extract::State;
use serde_json::{Map, Value};

use super::super::Inner;
use super::super::assertion_settings::{AssertionSettings, AssertionsDocument};
use super::super::error_response::ErrorResponse;
use super::super::extractor::RequestBody;
use super::{PathParameters, Server, error_response, parse_json, path_parameter, unexpected_json};
use crate::error::ConfigError;

pub(super) async fn show(
    State(server): Server,
    path: PathParameters,
) -> Result<Json<AssertionsDocument>, ErrorResponse> {
    let client_id = path_parameter(&path, "client_id")?;
    let state = server.0.state();
    let application = state.application(client_id);
    let application = application.ok_or_else(ErrorResponse::not_found)?;
    Ok(Json(AssertionsDocument::from(&application.assertions)))
}

/// Replaces all of them.
pub(super) async fn replace(
    State(server): Server,
    path: PathParameters,
    RequestBody(body): RequestBody,
) -> Result<Json<AssertionsDocument>, ErrorResponse> {
    let client_id = path_parameter(&path, "client_id")?;
    // Not an array, which a struct can be read from as well.
    let body: Map<String, Value> = parse_json(&body)?;
    let document = serde_json::from_value(Value::Object(body)).map_err(unexpected_json)?;
    let changed = update(&server.0, client_id, document).map_err(|error| error_response(&error))?;
    changed.map(Json).ok_or_else(ErrorResponse::not_found)
}

fn update(
    server: &Inner,
    client_id: &str,
    document: AssertionsDocument,
) -> Result<Option<AssertionsDocument>, ConfigError> {
    let settings = AssertionSettings::try_from(document)?;
    let changed = server
        .update(|state| state.update_assertions(client_id, |assertions| *assertions = settings))?;
    Ok(changed.map(|application| AssertionsDocument::from(&application.assertions)))
}
