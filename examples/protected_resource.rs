//! An axum service behind the layer.
//!
//! ```console
//! $ cargo run --release --example authorization_server     # prints credentials
//! $ # In a second shell:
//! $ export APPID_SERVICE_BINDING='…the credentials…'
//! $ cargo run --release --example protected_resource
//! $ curl -i http://localhost:8081/protected_resource -H "Authorization: Bearer $TOKEN"
//! ```
//!
//! For other issuers than App ID: `ISSUER=https://as.example AUDIENCE=orders`. With plain http in a
//! service mesh: `ISSUER=http://keycloak.sso.svc/realms/shop ALLOW_HTTP=keycloak.sso.svc`.
//!
//! For Cognito, whose access tokens name a client instead of an audience:
//! `CLIENTS=… AUDIENCE_OPTIONAL=true REQUIRED_CLAIMS='{"token_use":"access"}'` in addition.
//!
//! For clients that know nothing but the URL of the service (RFC 9728):
//! `ISSUER=https://as.example RESOURCE=https://orders.example RESOURCE_SCOPE=orders.read`.

#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a program, not a library"
)]

#[path = "common/mod.rs"]
mod common;

use std::process::ExitCode;

use axum::extract::State;
use axum::handler::HandlerWithoutStateExt;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, get_service};
use axum::{Json, Router};
use common::settings::{Field, Settings, rule_variable, text_variable, url_variable};
use common::{SettingError, invalid_variable, parse_variable, prometheus, variable};
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::{Value, json};
use tower::Layer;
use tower_oauth::app_id::Binding;
use tower_oauth::resource_server::{ResourceServerBuilder, ResourceServerSettings, Startup};
use tower_oauth::{AuthContext, RequireScopeLayer, ResourceServer, Scope};

#[tokio::main]
async fn main() -> ExitCode {
    common::log_to_stderr();
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => error.exit(),
    }
}

async fn run() -> Result<(), SettingError> {
    let port = parse_variable("PORT", 8081)?;
    let scopes = resource_scope()?;
    // Before the resource server is built, because it uses the recorder installed at that time.
    let recorder = prometheus::install_recorder()?;
    let resource = settings()?
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
    common::serve(listener, router(&resource, &scopes, recorder), shutdown).await;
    Ok(())
}

/// The routes. The layer wraps each protected handler rather than the router, so that a wrong
/// method gets 405 even without a token. The handlers are converted to services first, because axum
/// builds a service per request for a handler with a layer.
fn router(resource: &ResourceServer, scopes: &[Scope], recorder: PrometheusHandle) -> Router {
    let protected = resource.layer();
    let hello_protected = protected.clone().scope(scopes);
    let reader = RequireScopeLayer::all(["reports.read"]);
    let hello = (async || "Hello from protected resource").into_service();
    let reports = (async || "Hello from reports").into_service();
    let router = Router::new()
        .route(
            "/protected_resource",
            get_service(hello_protected.layer(hello)),
        )
        .route(
            "/context",
            get_service(protected.layer(context.into_service())),
        )
        .route(
            "/reports",
            get_service(protected.layer(reader.layer(reports))),
        )
        .route("/healthz", get(async || "ok"))
        .route("/readyz", get(ready).with_state(resource.clone()))
        .merge(prometheus::router(recorder));
    match resource.resource_metadata() {
        // Open to everyone: no layer is around it. An identifier may have a path such as `/:a`.
        Some(metadata) => router
            .without_v07_checks()
            .route_service(metadata.path(), metadata.service()),
        None => router,
    }
}

/// The auth context as JSON.
async fn context(context: AuthContext) -> Json<Value> {
    Json(json!({
        "issuer": context.issuer().as_str(),
        "subject": context.subject(),
        "client_id": context.client_id(),
        "audience": context.audience().collect::<Vec<_>>(),
        "scopes": context.scopes().collect::<Vec<_>>(),
        "expires_at": context.expires_at().as_secs(),
        "claims": context.claims::<Value>().unwrap_or_default(),
    }))
}

/// The readiness probe: 200 or 503, with the state of each key set.
async fn ready(State(resource): State<ResourceServer>) -> Response {
    let body = Json(json!({ "key_sets": resource.key_sets() }));
    if resource.keys_available() {
        body.into_response()
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            [(header::RETRY_AFTER, "5")],
            body,
        )
            .into_response()
    }
}

/// Each variable, and the field that it is in `tower_oauth::guide::settings`.
const VARIABLES: [Field; 12] = [
    url_variable("ISSUER", "issuers.main.issuer"),
    url_variable("JWKS_URI", "issuers.main.jwks_uri"),
    rule_variable("AUDIENCE", "issuers.main.audience"),
    text_variable("AUDIENCE_OPTIONAL", "issuers.main.audience_optional"),
    rule_variable("CLIENTS", "issuers.main.allowed_clients"),
    rule_variable("REQUIRED_CLAIMS", "issuers.main.required_claims"),
    text_variable("TOKEN_PROFILE", "issuers.main.profile"),
    text_variable("CANDIDATE_KEYS", "issuers.main.max_candidate_keys"),
    text_variable("MAX_STALE", "refresh.max_stale_seconds"),
    text_variable("MIN_REFRESH", "refresh.min_interval_seconds"),
    text_variable("REUSED_KEY_IDS", "refresh.refresh_on_invalid_signature"),
    url_variable("RESOURCE", "resource"),
];

/// Configures the resource server from the environment.
pub(crate) fn settings() -> Result<ResourceServerBuilder, SettingError> {
    let mut settings = Settings::from_env(VARIABLES)?;
    let binding = Binding::from_env()?;
    if let Some(binding) = &binding {
        common::check_binding(binding, &["ISSUER", "JWKS_URI"])?;
        settings = settings.set("issuers.main.issuer", binding.issuer());
    } else if !settings.has("issuers.main.issuer") {
        return Err(common::missing_issuer("ISSUER"));
    }
    if !settings.has("issuers.main.audience") && !settings.has("resource") {
        let client_id = binding.as_ref().and_then(Binding::client_id);
        let client_id = client_id.ok_or_else(|| {
            let reason = "is required with ISSUER, unless RESOURCE is set, and with an App ID \
                binding that has no client id";
            SettingError::new("AUDIENCE", reason)
        })?;
        settings = settings.set("issuers.main.audience", [client_id]);
    }
    let server = settings.builder(|settings: &ResourceServerSettings| {
        settings.to_builder_with(|_name, issuer| match &binding {
            Some(binding) => binding.apply_to(issuer),
            None => issuer,
        })
    })?;
    // Read by hand, because the URLs are checked with them, too.
    Ok(server
        .allow_loopback_http()
        .allow_http(common::allowed_hosts()?))
}

/// The scopes that a 401 of `/protected_resource` names.
fn resource_scope() -> Result<Vec<Scope>, SettingError> {
    let scopes = variable("RESOURCE_SCOPE")?.unwrap_or_default();
    let scopes = scopes.split(' ').filter(|scope| !scope.is_empty());
    scopes
        .map(|scope| Scope::new(scope).map_err(invalid_variable("RESOURCE_SCOPE")))
        .collect()
}
