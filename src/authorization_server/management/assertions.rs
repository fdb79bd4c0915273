//! The assertions of an application in the management API, which App ID does not have.

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::super::Inner;
use super::super::assertion_settings::{
    AssertionSettings, ExpectedAudience, FederatedCredential, JwkSet,
};
use super::super::error_response::ErrorResponse;
use super::super::extractor::RequestBody;
use super::{PathParameters, Server, error_response, parse_json, path_parameter};
use crate::error::ConfigError;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    #[serde(default)]
    jwks: Option<Value>,
    #[serde(default)]
    federated_credentials: Vec<Credential>,
    #[serde(default)]
    assertion_audience: ExpectedAudience,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Credential {
    issuer: String,
    subject: String,
    jwks: Value,
}

impl Body {
    fn into_settings(self) -> Result<AssertionSettings, ConfigError> {
        let credentials = self.federated_credentials.into_iter();
        let credentials = credentials.map(|credential| {
            Ok(FederatedCredential {
                issuer: credential.issuer,
                subject: credential.subject,
                jwks: JwkSet::from_value(&credential.jwks)?,
            })
        });
        Ok(AssertionSettings {
            jwks: self.jwks.as_ref().map(JwkSet::from_value).transpose()?,
            federated_credentials: credentials.collect::<Result<_, ConfigError>>()?,
            audience: self.assertion_audience,
        })
    }
}

pub(super) async fn show(
    State(server): Server,
    path: PathParameters,
) -> Result<Json<Value>, ErrorResponse> {
    let client_id = path_parameter(&path, "client_id")?;
    let state = server.0.state();
    let application = state.application(client_id);
    let application = application.ok_or_else(ErrorResponse::not_found)?;
    Ok(Json(settings_json(&application.assertions)))
}

/// Replaces all of them.
pub(super) async fn replace(
    State(server): Server,
    path: PathParameters,
    RequestBody(body): RequestBody,
) -> Result<Json<Value>, ErrorResponse> {
    let client_id = path_parameter(&path, "client_id")?;
    // Not an array, which a struct can be read from as well.
    let body: Map<String, Value> = parse_json(&body)?;
    let body = parse_json(json!(body).to_string().as_bytes())?;
    let changed = update(&server.0, client_id, body).map_err(|error| error_response(&error))?;
    changed.map(Json).ok_or_else(ErrorResponse::not_found)
}

fn update(server: &Inner, client_id: &str, body: Body) -> Result<Option<Value>, ConfigError> {
    let settings = body.into_settings()?;
    let changed = server.update(|state| {
        state.update_assertions(client_id, |assertions| *assertions = settings)
    })?;
    Ok(changed.map(|application| settings_json(&application.assertions)))
}

fn settings_json(settings: &AssertionSettings) -> Value {
    let AssertionSettings {
        jwks,
        federated_credentials,
        audience,
    } = settings;
    let credential = |credential: &FederatedCredential| {
        json!({
            "issuer": credential.issuer,
            "subject": credential.subject,
            "jwks": credential.jwks.document(),
        })
    };
    let credentials: Vec<Value> = federated_credentials.iter().map(credential).collect();
    json!({
        "jwks": jwks.as_ref().map(JwkSet::document),
        "federated_credentials": credentials,
        "assertion_audience": audience,
    })
}
