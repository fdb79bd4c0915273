//! Token introspection ([RFC 7662](https://www.rfc-editor.org/rfc/rfc7662)).

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, header};
use serde_json::{Map, Value, json};

use super::active_token::ActiveToken;
use super::client_authentication::authenticate;
use super::error_response::ErrorResponse;
use super::extractor::{RequestBody, parse_version};
use super::parameters::Parameters;
use super::{AuthorizationServer, Inner};

/// The claims that an active token has, and introspection returns.
const REQUIRED: [&str; 5] = ["aud", "exp", "iat", "iss", "sub"];

/// The claims that are returned if the token has them.
const OPTIONAL: [&str; 2] = ["act", "scope"];

pub(super) async fn introspect(
    State(server): State<AuthorizationServer>,
    Path(path): Path<Vec<(String, String)>>,
    headers: HeaderMap,
    RequestBody(body): RequestBody,
) -> Result<Response, ErrorResponse> {
    let version = parse_version(&path)?;
    let parameters = Parameters::from_request(&headers, &body)?;
    authenticate(&server.0, version, &headers, &parameters)?;
    let token = parameters.require("token")?;
    // RFC 7662 §2.2: the response does not say why a token is inactive.
    let no_store = [(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))];
    let active = active_response(&server.0, token);
    let body = active.unwrap_or_else(|| Map::from_iter([("active".to_owned(), json!(false))]));
    Ok((no_store, Json(Value::Object(body))).into_response())
}

/// The response for an active token; `None` for any other.
fn active_response(server: &Inner, token: &str) -> Option<Map<String, Value>> {
    let token = ActiveToken::verify(server, token)?;
    let mut response = Map::new();
    for name in REQUIRED {
        response.insert(name.to_owned(), token.claim(name)?.clone());
    }
    for name in OPTIONAL {
        if let Some(value) = token.claim(name) {
            response.insert(name.to_owned(), value.clone());
        }
    }
    response.insert("active".to_owned(), json!(true));
    response.insert("token_type".to_owned(), json!("Bearer"));
    response.insert("client_id".to_owned(), json!(token.client_id()));
    Some(response)
}
