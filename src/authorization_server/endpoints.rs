//! The routes, and the documents that need no credentials.

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use super::error_response::ErrorResponse;
use super::extractor::parse_version;
use super::sha256::sha256;
use super::{
    AuthorizationServer, Version, activity, client_authentication, dashboard, faults, grants,
    introspection, management, token_endpoint,
};
use crate::jwt::Algorithm;

/// `Cache-Control` of the key set and the metadata.
const DOCUMENT_CACHE_CONTROL: HeaderValue = HeaderValue::from_static("public, max-age=300");

/// The endpoints and the dashboard. Faults do not apply to the dashboard, where they are removed.
pub(super) fn router_with_dashboard(server: AuthorizationServer) -> Router {
    router(server.clone()).merge(dashboard::router(&server).with_state(server))
}

pub(super) fn router(server: AuthorizationServer) -> Router {
    let oauth = Router::new()
        .route("/token", post(token_endpoint::token))
        .route("/introspect", post(introspection::introspect))
        .route("/publickeys", get(keys))
        .route("/publickey", get(current_key))
        .route("/.well-known/openid-configuration", get(metadata));
    // RFC 8414 §3.1 inserts the well-known path before the issuer's path, OpenID Connect
    // Discovery §4 appends it.
    let well_known = Router::new()
        .route(
            "/oauth-authorization-server/oauth/{version}/{tenant}",
            get(metadata_of_issuer),
        )
        .route(
            "/openid-configuration/oauth/{version}/{tenant}",
            get(metadata_of_issuer),
        );
    let tenant = from_fn_with_state(server.clone(), check_tenant);
    Router::new()
        .nest(
            "/oauth/{version}/{tenant}",
            oauth.route_layer(tenant.clone()),
        )
        .nest("/.well-known", well_known.route_layer(tenant.clone()))
        .nest(
            "/management/v4/{tenant}",
            management::router(server.clone()).route_layer(tenant),
        )
        .fallback(async || ErrorResponse::not_found())
        .layer(from_fn_with_state(server.clone(), faults::inject))
        .layer(from_fn_with_state(server.clone(), activity::record))
        .with_state(server)
}

/// Rejects requests for another tenant or API version.
async fn check_tenant(
    State(server): State<AuthorizationServer>,
    Path(path): Path<Vec<(String, String)>>,
    request: Request,
    next: Next,
) -> Response {
    let is_own_tenant = path
        .iter()
        .any(|(name, value)| name == "tenant" && value == server.tenant_id());
    match parse_version(&path) {
        Ok(_) if is_own_tenant => next.run(request).await,
        _ => ErrorResponse::not_found().into_response(),
    }
}

/// The key set (RFC 7517 §5).
async fn keys(State(server): State<AuthorizationServer>, headers: HeaderMap) -> Response {
    cacheable_json(&headers, &server.jwks())
}

/// The current key alone, which only version 3 publishes.
async fn current_key(
    State(server): State<AuthorizationServer>,
    Path(path): Path<Vec<(String, String)>>,
    headers: HeaderMap,
) -> Result<Response, ErrorResponse> {
    if parse_version(&path)? != Version::V3 {
        return Err(ErrorResponse::not_found());
    }
    let jwk = server.0.state().keys.current().jwk().clone();
    Ok(cacheable_json(&headers, &jwk))
}

/// The metadata (OpenID Connect Discovery §3, RFC 8414 §2) with App ID's members.
async fn metadata(
    State(server): State<AuthorizationServer>,
    Path(path): Path<Vec<(String, String)>>,
    headers: HeaderMap,
) -> Result<Response, ErrorResponse> {
    let version = parse_version(&path)?;
    let inner = &server.0;
    let url = inner.oauth_url(version);
    let client_authentication = client_authentication::METHODS;
    // RFC 9864 §2.2: `EdDSA` has the second name `Ed25519`.
    let assertion_algorithms: Vec<&str> = Algorithm::ALL
        .iter()
        .map(|algorithm| algorithm.name())
        .chain(["Ed25519"])
        .collect();
    let (algorithm, scopes) = {
        let state = inner.state();
        (
            state.keys.current().algorithm().name(),
            state.known_scopes(),
        )
    };
    let document = json!({
        "issuer": inner.issuer(version),
        "authorization_endpoint": format!("{url}/authorization"),
        "token_endpoint": format!("{url}/token"),
        "jwks_uri": format!("{url}/publickeys"),
        "introspection_endpoint": format!("{url}/introspect"),
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": [algorithm],
        "response_types_supported": [],
        "grant_types_supported": grants::ALL,
        "token_endpoint_auth_methods_supported": client_authentication,
        "token_endpoint_auth_signing_alg_values_supported": assertion_algorithms,
        "introspection_endpoint_auth_methods_supported": client_authentication,
        "introspection_endpoint_auth_signing_alg_values_supported": assertion_algorithms,
        "scopes_supported": scopes,
        "management_endpoint": server.management_url(),
    });
    Ok(cacheable_json(&headers, &document))
}

/// The metadata at a path that is derived from the issuer identifier. Only version 4 has one: the
/// issuer of version 3 is a bare host, which no document here may name (RFC 8414 §3.3).
async fn metadata_of_issuer(
    server: State<AuthorizationServer>,
    Path(path): Path<Vec<(String, String)>>,
    headers: HeaderMap,
) -> Result<Response, ErrorResponse> {
    match parse_version(&path)? {
        Version::V3 => Err(ErrorResponse::not_found()),
        Version::V4 => metadata(server, Path(path), headers).await,
    }
}

/// A document with an `ETag` (RFC 9110 §8.8.3), or 304 if `If-None-Match` contains it.
fn cacheable_json(request_headers: &HeaderMap, document: &Value) -> Response {
    let body = document.to_string();
    let tag: String = sha256(body.as_bytes())
        .iter()
        .take(16)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let tag = format!("\"{tag}\"");
    let is_not_modified = request_headers
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .any(|value| {
            value.to_str().is_ok_and(|tags| {
                tags.split(',')
                    .any(|candidate| candidate.trim().trim_start_matches("W/") == tag)
            })
        });
    let headers = [
        (header::CACHE_CONTROL, DOCUMENT_CACHE_CONTROL),
        (
            header::ETAG,
            HeaderValue::try_from(tag).unwrap_or(HeaderValue::from_static("\"\"")),
        ),
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        ),
    ];
    if is_not_modified {
        (StatusCode::NOT_MODIFIED, headers).into_response()
    } else {
        (headers, body).into_response()
    }
}
