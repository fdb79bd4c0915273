//! The token endpoint (RFC 6749 §3.2).
//!
//! It issues access tokens only, no id tokens and no refresh tokens.

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::{Map, Value, json};

use super::error_response::ErrorResponse;
use super::extractor::{RequestBody, parse_version};
use super::grants::{GrantRequest, GrantedToken};
use super::parameters::Parameters;
use super::{AuthorizationServer, issuance};

pub(super) async fn token(
    State(server): State<AuthorizationServer>,
    Path(path): Path<Vec<(String, String)>>,
    headers: HeaderMap,
    RequestBody(body): RequestBody,
) -> Result<Response, ErrorResponse> {
    let version = parse_version(&path)?;
    let parameters = Parameters::from_request(&headers, &body)?;
    let request = GrantRequest {
        server: &server.0,
        version,
        headers: &headers,
        parameters: &parameters,
    };
    let GrantedToken {
        claims,
        scope,
        lifetime,
        client_id,
        issued_token_type,
    } = request.grant()?;
    let key = std::sync::Arc::clone(server.0.state().keys.current());
    let token = issuance::encode(&issuance::header(version, &key), &claims, |input| {
        key.sign(input)
    })
    .map_err(|_| {
        ErrorResponse::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "server_error",
            "the token could not be signed",
        )
    })?;
    let mut body = Map::from_iter([
        ("access_token".to_owned(), json!(token)),
        ("expires_in".to_owned(), json!(lifetime.as_secs())),
        ("token_type".to_owned(), json!("Bearer")),
    ]);
    // RFC 6749 §3.3: a scope has at least one token.
    if !scope.is_empty() {
        body.insert("scope".to_owned(), json!(scope));
    }
    if let Some(kind) = issued_token_type {
        body.insert("issued_token_type".to_owned(), json!(kind));
    }
    // RFC 6749 §5.1
    let headers = [
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (header::PRAGMA, HeaderValue::from_static("no-cache")),
    ];
    let issued_to = IssuedTo(client_id);
    Ok((headers, Extension(issued_to), Json(Value::Object(body))).into_response())
}

/// The client id that a token was issued to, as a response extension.
#[derive(Clone, Debug)]
pub(super) struct IssuedTo(pub(super) String);
