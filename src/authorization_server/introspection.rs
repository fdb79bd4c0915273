//! Token introspection ([RFC 7662](https://www.rfc-editor.org/rfc/rfc7662)).

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderValue, header};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::error_response::ErrorResponse;
use super::extractor::RequestBody;
use super::token_endpoint::{Parameters, authenticate};
use super::{AuthorizationServer, Inner, Version};

pub(super) async fn introspect(
    State(server): State<AuthorizationServer>,
    headers: HeaderMap,
    RequestBody(body): RequestBody,
) -> Result<Response, ErrorResponse> {
    let parameters = Parameters::from_request(&headers, &body)?;
    authenticate(&server.0.state(), &headers, &parameters)?;
    let token = parameters
        .get("token")
        .ok_or_else(|| ErrorResponse::bad_request("invalid_request", "token is missing"))?;
    // RFC 7662 §2.2: the response does not say why a token is inactive.
    let no_store = [(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))];
    Ok(match active_token(&server.0, token) {
        Some(active) => (no_store, Json(active)).into_response(),
        None => (no_store, Json(json!({ "active": false }))).into_response(),
    })
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: String,
}

/// The claims that introspection returns.
#[derive(Deserialize, Serialize)]
struct Claims {
    iss: String,
    sub: String,
    aud: Value,
    exp: u64,
    iat: u64,
    #[serde(default, skip_serializing_if = "Value::is_null")]
    scope: Value,
}

#[derive(Serialize)]
struct ActiveToken {
    active: bool,
    token_type: &'static str,
    client_id: String,
    #[serde(flatten)]
    claims: Claims,
}

/// The response for an active token; `None` for any other.
fn active_token(server: &Inner, token: &str) -> Option<ActiveToken> {
    let (input, signature) = token.rsplit_once('.')?;
    let (header, payload) = input.split_once('.')?;
    let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).ok();
    let header: Header = serde_json::from_slice(&decode(header)?).ok()?;
    let claims: Claims = serde_json::from_slice(&decode(payload)?).ok()?;
    let now = server.clock.now();
    let key = {
        let state = server.state();
        // Tokens of a deleted application are inactive.
        state.application(&claims.sub)?;
        let mut keys = state.keys.published(now).map(|ring_key| &ring_key.key);
        Arc::clone(
            keys.find(|key| header.kid == key.kid() && header.alg == key.algorithm().name())?,
        )
    };
    let is_own_issuer = [Version::V3, Version::V4]
        .iter()
        .any(|version| claims.iss == server.issuer(*version));
    let is_active = is_own_issuer
        && now.as_secs() < claims.exp
        && key.verify(input.as_bytes(), &decode(signature)?);
    is_active.then(|| ActiveToken {
        active: true,
        token_type: "Bearer",
        client_id: claims.sub.clone(),
        claims,
    })
}
