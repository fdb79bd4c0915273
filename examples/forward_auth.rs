//! Authenticates requests for nginx (`auth_request`), Caddy (`forward_auth`) and Traefik
//! (`forwardAuth`), with [`ResourceServer::authenticate`].
//!
//! ```console
//! $ ISSUER=https://as.example AUDIENCE=orders cargo run --release --example forward_auth
//! {"listening":"http://127.0.0.1:8082"}
//! $ curl -i http://127.0.0.1:8082/auth -H "Authorization: Bearer $TOKEN"
//! HTTP/1.1 204 No Content
//! x-auth-client-id: shop
//! ```
//!
//! `AUDIENCE` may be several, separated by commas. `JWKS_URI` replaces discovery. `SCOPE` is a list
//! of scopes separated by spaces: a token that lacks one gets 403. `ALLOW_HTTP` names the hosts to
//! which plain http is allowed besides loopback.
//!
//! `/auth` answers any method. 204 means "forward the request" and has the fields `X-Auth-Subject`,
//! `X-Auth-Client-Id` and `X-Auth-Scope` for the upstream. Any other status is the response for the
//! client: 400, 401 and 403 with `WWW-Authenticate`, 503 with `Retry-After`.
//!
//! The proxy must replace the `X-Auth-*` fields of the client, as the configurations below do. The
//! upstream must accept requests from the proxy only, and must grant nothing for an empty or absent
//! field: a client can remove a field, for example with `Connection: X-Auth-Scope` behind Caddy.
//! An upstream that reads `X_Auth_Subject` as `X-Auth-Subject` (CGI, WSGI) depends on the proxy to
//! drop that name as well.
//!
//! # nginx
//!
//! `auth_request` passes on 401, with `WWW-Authenticate`, and 403, without. It turns 400, 503 and a
//! failure of this program into 500. The two named locations restore the status and the fields.
//! `proxy_set_header` replaces the three fields only; no other `X-Auth-*` field means anything. By
//! default nginx drops fields with an underscore in the name. The fields of the response must fit
//! into `proxy_buffer_size`, else the request is rejected.
//!
//! ```nginx
//! server {
//!     listen 8080;
//!
//!     location / {
//!         auth_request /_auth;
//!         auth_request_set $auth_subject $upstream_http_x_auth_subject;
//!         auth_request_set $auth_client_id $upstream_http_x_auth_client_id;
//!         auth_request_set $auth_scope $upstream_http_x_auth_scope;
//!         auth_request_set $auth_status $upstream_status;
//!         auth_request_set $auth_challenge $upstream_http_www_authenticate;
//!         auth_request_set $auth_retry_after $upstream_http_retry_after;
//!         error_page 403 = @auth_forbidden;
//!         error_page 500 = @auth_failed;
//!
//!         # Each one replaces the client's field, and removes it if the value is empty.
//!         proxy_set_header X-Auth-Subject $auth_subject;
//!         proxy_set_header X-Auth-Client-Id $auth_client_id;
//!         proxy_set_header X-Auth-Scope $auth_scope;
//!         proxy_pass http://127.0.0.1:3000;
//!     }
//!
//!     location = /_auth {
//!         internal;
//!         proxy_pass http://127.0.0.1:8082/auth;
//!         proxy_pass_request_body off;
//!         proxy_set_header Content-Length "";
//!     }
//!
//!     location @auth_forbidden {
//!         add_header WWW-Authenticate $auth_challenge always;
//!         return 403;
//!     }
//!
//!     location @auth_failed {
//!         add_header WWW-Authenticate $auth_challenge always;
//!         add_header Retry-After $auth_retry_after always;
//!         if ($auth_status = 400) {
//!             return 400;
//!         }
//!         return 503;
//!     }
//! }
//! ```
//!
//! # Caddy
//!
//! `forward_auth` passes every response but 2xx on to the client as it is. `request_header` removes
//! the client's fields first, because some versions of `copy_headers` keep them if the new value is
//! empty (GHSA-7r4p-vjf4-gxv4). `route` keeps this order; else `forward_auth` runs first.
//!
//! ```caddyfile
//! api.example {
//!     route {
//!         request_header -X-Auth*
//!         request_header -X_Auth*
//!         forward_auth 127.0.0.1:8082 {
//!             uri /auth
//!             copy_headers X-Auth-Subject X-Auth-Client-Id X-Auth-Scope
//!         }
//!         reverse_proxy 127.0.0.1:3000
//!     }
//! }
//! ```
//!
//! # Traefik
//!
//! Not tested. `forwardAuth` passes every response but 2xx on to the client as it is.
//! `authResponseHeadersRegex` removes the client's fields that match, then copies those of the
//! response.
//!
//! ```yaml
//! http:
//!   middlewares:
//!     oauth:
//!       forwardAuth:
//!         address: http://127.0.0.1:8082/auth
//!         authResponseHeadersRegex: '(?i)^X[-_]Auth[-_]'
//! ```

#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a program, not a library"
)]

#[path = "common/mod.rs"]
mod common;

use std::process::ExitCode;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use common::settings::{Field, Settings, rule_variable, text_variable, url_variable};
use common::{SettingError, parse_variable};
use serde_json::json;
use tower_oauth::resource_server::{ResourceServerSettings, Startup};
use tower_oauth::{AuthContext, Rejection, ResourceServer, Scope};

const SUBJECT: HeaderName = HeaderName::from_static("x-auth-subject");
const CLIENT_ID: HeaderName = HeaderName::from_static("x-auth-client-id");
const SCOPE: HeaderName = HeaderName::from_static("x-auth-scope");
const NO_STORE: (HeaderName, HeaderValue) =
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store"));

/// Each variable, and the field that it is in `tower_oauth::guide::settings`.
const VARIABLES: [Field; 4] = [
    url_variable("ISSUER", "issuers.main.issuer"),
    url_variable("JWKS_URI", "issuers.main.jwks_uri"),
    rule_variable("AUDIENCE", "issuers.main.audience"),
    text_variable("SCOPE", "issuers.main.required_scopes"),
];

#[tokio::main]
async fn main() -> ExitCode {
    common::log_to_stderr();
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => error.exit(),
    }
}

async fn run() -> Result<(), SettingError> {
    let port = parse_variable("PORT", 8082)?;
    let settings = Settings::from_env(VARIABLES)?.required(&["ISSUER", "AUDIENCE"])?;
    // Until the keys are there, requests are rejected with 503.
    let server = settings
        .builder(ResourceServerSettings::to_builder)?
        .allow_loopback_http()
        .allow_http(common::allowed_hosts()?)
        .startup(Startup::Background)
        .start()
        .await
        .map_err(common::start_error)?;
    let listener = common::listen(port).await?;
    let address = listener
        .local_addr()
        .map_err(|error| SettingError::new("PORT", error))?;
    let shutdown = common::shutdown_signal();
    println!("{}", json!({ "listening": format!("http://{address}") }));
    common::serve(listener, router(server), shutdown).await;
    Ok(())
}

/// Answers `/auth` for any method, because some proxies keep the method of the client.
pub fn router(server: ResourceServer) -> Router {
    Router::new()
        .route("/auth", any(authenticate))
        .with_state(server)
}

async fn authenticate(State(server): State<ResourceServer>, request: Request<Body>) -> Response {
    let (head, _body) = request.into_parts();
    match server.authenticate(&head).await {
        Err(rejection) => response_to(&rejection),
        Ok(context) => allow(&context),
    }
}

/// 204 with the fields for the upstream.
///
/// A field without a value is empty, not absent: Caddy 2.6 sets the upstream's field to the text of
/// its own placeholder if this one is absent.
fn allow(context: &AuthContext) -> Response {
    let scopes: Vec<&str> = context
        .scopes()
        .filter(|scope| Scope::new(scope).is_ok())
        .collect();
    let fields = [
        NO_STORE,
        (SUBJECT, field_value(context.subject())),
        (CLIENT_ID, field_value(context.client_id())),
        (SCOPE, field_value(Some(&scopes.join(" ")))),
    ];
    (StatusCode::NO_CONTENT, HeaderMap::from_iter(fields)).into_response()
}

/// Returns the text as a field value. It is empty if a proxy or the upstream could read it as a
/// different text: it has other characters than printable ASCII, or spaces at an end.
fn field_value(text: Option<&str>) -> HeaderValue {
    let is_unambiguous = |text: &&str| {
        text.bytes().all(|byte| matches!(byte, b' '..=b'~')) && text.trim_matches(' ') == *text
    };
    text.filter(is_unambiguous)
        .and_then(|text| HeaderValue::from_str(text).ok())
        .unwrap_or(HeaderValue::from_static(""))
}

/// The status is that of the rejection for every request. `DefaultRejectionResponse` rejects a gRPC
/// call with HTTP status 200, which a proxy reads as permission. gRPC clients read 401 as
/// unauthenticated, 403 as permission denied and 503 as unavailable.
fn response_to(rejection: &Rejection) -> Response {
    (rejection.status(), rejection.headers().clone()).into_response()
}
