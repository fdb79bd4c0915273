//! The routes, the documents that need no credentials, and the shape of errors.

use axum::extract::{FromRequest, Path, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use super::{
    AuthorizationServer, Version, activity, dashboard, faults, introspection, management,
    token_endpoint,
};

/// A request's body is not larger, in bytes.
pub(super) const MAX_BODY: usize = 64 * 1024;

/// For how long keys and metadata may be kept.
const CACHED: HeaderValue = HeaderValue::from_static("public, max-age=300");

/// The endpoints, and the dashboard beside them: no fault spoils it, as that is where faults end.
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
    // RFC 8414 §3.1 places the metadata before the issuer's path, OpenID Connect Discovery §4
    // behind it.
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
        .fallback(async || Refusal::not_found())
        .layer(from_fn_with_state(server.clone(), faults::inject))
        .layer(from_fn_with_state(server.clone(), activity::record))
        .with_state(server)
}

/// The whole body of a request. A larger one is refused before all of it is read.
pub(super) struct Whole(pub(super) Bytes);

impl<S: Sync> FromRequest<S> for Whole {
    type Rejection = Refusal;

    async fn from_request(request: Request, _: &S) -> Result<Self, Refusal> {
        // A body that breaks off gets this answer, too; its sender is gone.
        let too_large = |_| {
            Refusal::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "invalid_request",
                "the body is too large",
            )
        };
        axum::body::to_bytes(request.into_body(), MAX_BODY)
            .await
            .map(Self)
            .map_err(too_large)
    }
}

/// The error code of a refusal, as an extension of the response.
#[derive(Clone, Copy, Debug)]
pub(super) struct ErrorCode(pub(super) &'static str);

/// Whatever an endpoint refuses: RFC 6749 §5.2, which App ID uses all over.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    code: &'static str,
    description: String,
    challenge: Option<&'static str>,
}

impl Refusal {
    pub(super) fn new(
        status: StatusCode,
        code: &'static str,
        description: impl Into<String>,
    ) -> Self {
        Self {
            status,
            code,
            description: description.into(),
            challenge: None,
        }
    }

    pub(super) fn bad_request(code: &'static str, description: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, description)
    }

    pub(super) fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", "there is nothing here")
    }

    pub(super) fn challenging(mut self, challenge: &'static str) -> Self {
        self.challenge = Some(challenge);
        self
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = json!({ "error": self.code, "error_description": self.description });
        let mut response = (self.status, Json(body)).into_response();
        response.extensions_mut().insert(ErrorCode(self.code));
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(challenge) = self.challenge {
            headers.insert(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static(challenge),
            );
        }
        response
    }
}

/// The version in a path.
pub(super) fn version(path: &[(String, String)]) -> Result<Version, Refusal> {
    match path
        .iter()
        .find(|(name, _)| name == "version")
        .map(|(_, value)| value.as_str())
    {
        Some("v3") => Ok(Version::V3),
        Some("v4") | None => Ok(Version::V4),
        Some(_) => Err(Refusal::not_found()),
    }
}

/// Everything is below a tenant, and there is one.
async fn check_tenant(
    State(server): State<AuthorizationServer>,
    Path(path): Path<Vec<(String, String)>>,
    request: Request,
    next: Next,
) -> Response {
    let is_ours = path
        .iter()
        .any(|(name, value)| name == "tenant" && value == server.tenant_id());
    match version(&path) {
        Ok(_) if is_ours => next.run(request).await,
        _ => Refusal::not_found().into_response(),
    }
}

/// The key set (RFC 7517 §5).
async fn keys(State(server): State<AuthorizationServer>, headers: HeaderMap) -> Response {
    let now = server.0.clock.now();
    let jwks: Vec<Value> = server
        .0
        .state()
        .keys
        .published(now)
        .map(|one| one.key.jwk().clone())
        .collect();
    cacheable(&headers, &json!({ "keys": jwks }))
}

/// Version 3 also publishes the current key by itself.
async fn current_key(
    State(server): State<AuthorizationServer>,
    Path(path): Path<Vec<(String, String)>>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    if version(&path)? != Version::V3 {
        return Err(Refusal::not_found());
    }
    let jwk = server.0.state().keys.current().jwk().clone();
    Ok(cacheable(&headers, &jwk))
}

/// The metadata (OpenID Connect Discovery §3, RFC 8414 §2), as App ID fills it.
async fn metadata(
    State(server): State<AuthorizationServer>,
    Path(path): Path<Vec<(String, String)>>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let version = version(&path)?;
    let inner = &server.0;
    let url = inner.oauth_url(version);
    let document = json!({
        "issuer": inner.issuer(version),
        "authorization_endpoint": format!("{url}/authorization"),
        "token_endpoint": format!("{url}/token"),
        "jwks_uri": format!("{url}/publickeys"),
        "introspection_endpoint": format!("{url}/introspect"),
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": [inner.state().keys.current().algorithm().name()],
        "response_types_supported": [],
        "grant_types_supported": ["client_credentials"],
        "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
        "scopes_supported": [super::applications::DEFAULT_SCOPE],
        "management_endpoint": server.management_url(),
    });
    Ok(cacheable(&headers, &document))
}

/// The metadata of the issuer whose identifier has this path: that of version 4. Version 3 has a
/// bare host as its issuer, so that no document may be here (RFC 8414 §3.3).
async fn metadata_of_issuer(
    server: State<AuthorizationServer>,
    Path(path): Path<Vec<(String, String)>>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    match version(&path)? {
        Version::V3 => Err(Refusal::not_found()),
        Version::V4 => metadata(server, Path(path), headers).await,
    }
}

/// A document with its validator (RFC 9110 §8.8.3), or 304 to who has it already.
fn cacheable(asked: &HeaderMap, document: &Value) -> Response {
    let body = document.to_string();
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, body.as_bytes());
    let tag: String = digest
        .as_ref()
        .iter()
        .take(16)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let tag = format!("\"{tag}\"");
    let known = asked.get_all(header::IF_NONE_MATCH).iter().any(|value| {
        value.to_str().is_ok_and(|tags| {
            tags.split(',')
                .any(|one| one.trim().trim_start_matches("W/") == tag)
        })
    });
    let headers = [
        (header::CACHE_CONTROL, CACHED),
        (
            header::ETAG,
            HeaderValue::try_from(tag).unwrap_or(HeaderValue::from_static("\"\"")),
        ),
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        ),
    ];
    if known {
        (StatusCode::NOT_MODIFIED, headers).into_response()
    } else {
        (headers, body).into_response()
    }
}
