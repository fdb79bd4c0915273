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
use std::time::Duration;

use axum::extract::State;
use axum::handler::HandlerWithoutStateExt;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, get_service};
use axum::{Json, Router};
use common::{
    SettingError, invalid_variable, list, parse_variable, prometheus, raw_variable, variable,
};
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::{Map, Value, json};
use tower::Layer;
use tower_oauth::app_id::Binding;
use tower_oauth::key_set::RefreshPolicy;
use tower_oauth::resource_server::{
    ProtectedResource, ResourceServerBuilder, Startup, TokenProfile,
};
use tower_oauth::{
    Audience, AuthContext, Issuer, RequireScopeLayer, ResourceServer, Scope, TrustedIssuer,
};

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

/// Configures the resource server from the environment.
pub(crate) fn settings() -> Result<ResourceServerBuilder, SettingError> {
    let max_stale: u64 = parse_variable("MAX_STALE", 86_400)?;
    let min_refresh: u64 = parse_variable("MIN_REFRESH", 60)?;
    if max_stale == 0 {
        return Err(SettingError::new("MAX_STALE", "must be at least 1"));
    }
    if min_refresh == 0 {
        return Err(SettingError::new("MIN_REFRESH", "must be at least 1"));
    }
    let profile = match variable("TOKEN_PROFILE")?.as_deref() {
        None | Some("jwt") => TokenProfile::Jwt,
        Some("rfc9068") => TokenProfile::Rfc9068,
        Some(_) => {
            return Err(SettingError::new(
                "TOKEN_PROFILE",
                "must be `jwt` or `rfc9068`",
            ));
        }
    };
    let resource = protected_resource()?;
    let identifier = resource.as_ref().map(ProtectedResource::identifier);
    let audiences: Result<Vec<_>, _> = list("AUDIENCE")?
        .unwrap_or_else(|| identifier.map(str::to_owned).into_iter().collect())
        .iter()
        .map(|audience| Audience::new(audience).map_err(invalid_variable("AUDIENCE")))
        .collect();
    let mut policy = RefreshPolicy::new()
        .max_stale(Duration::from_secs(max_stale))
        .min_interval(Duration::from_secs(min_refresh));
    if parse_variable("REUSED_KEY_IDS", false)? {
        policy = policy.refresh_on_invalid_signature();
    }
    let candidate_keys: usize = parse_variable("CANDIDATE_KEYS", 1)?;
    if !(1..=4).contains(&candidate_keys) {
        return Err(SettingError::new("CANDIDATE_KEYS", "must be 1 to 4"));
    }
    let issuer = issuer(audiences?)?
        .profile(profile)
        .max_candidate_keys(candidate_keys);
    let server = ResourceServer::from_issuer(restrict(issuer, profile)?)
        .refresh(policy)
        .allow_loopback_http()
        .allow_http(common::allowed_hosts()?);
    Ok(match resource {
        Some(resource) => server.protected_resource(resource),
        None => server,
    })
}

/// The resource that the metadata document describes.
fn protected_resource() -> Result<Option<ProtectedResource>, SettingError> {
    let Some(identifier) = variable("RESOURCE")? else {
        return Ok(None);
    };
    common::endpoint("RESOURCE", &identifier)?;
    let resource = ProtectedResource::new(identifier).map_err(invalid_variable("RESOURCE"))?;
    Ok(Some(resource))
}

/// The scopes that a 401 of `/protected_resource` names.
fn resource_scope() -> Result<Vec<Scope>, SettingError> {
    let scopes = variable("RESOURCE_SCOPE")?.unwrap_or_default();
    let scopes = scopes.split(' ').filter(|scope| !scope.is_empty());
    scopes
        .map(|scope| Scope::new(scope).map_err(invalid_variable("RESOURCE_SCOPE")))
        .collect()
}

/// Restricts the tokens of the issuer to certain clients and claims.
fn restrict(
    mut issuer: TrustedIssuer,
    profile: TokenProfile,
) -> Result<TrustedIssuer, SettingError> {
    let clients = list("CLIENTS")?;
    if parse_variable("AUDIENCE_OPTIONAL", false)? {
        if clients.is_none() {
            return Err(SettingError::new(
                "AUDIENCE_OPTIONAL",
                "requires CLIENTS: without an audience only the client shows who may call",
            ));
        }
        if profile == TokenProfile::Rfc9068 {
            return Err(SettingError::new(
                "AUDIENCE_OPTIONAL",
                "cannot be used with TOKEN_PROFILE=rfc9068, which requires `aud`",
            ));
        }
        issuer = issuer.audience_optional();
    }
    if let Some(clients) = clients {
        if clients.iter().any(String::is_empty) {
            return Err(SettingError::new("CLIENTS", "has an empty client id"));
        }
        issuer = issuer.allowed_clients(clients);
    }
    for (claim, accepted) in required_claims()? {
        issuer = issuer.require_claim(claim, accepted);
    }
    Ok(issuer)
}

/// The claims of `REQUIRED_CLAIMS`, each with its accepted values.
fn required_claims() -> Result<Vec<(String, Vec<Value>)>, SettingError> {
    let Some(text) = raw_variable("REQUIRED_CLAIMS")? else {
        return Ok(Vec::new());
    };
    let Ok(claims) = serde_json::from_str::<Map<String, Value>>(&text) else {
        return Err(SettingError::new(
            "REQUIRED_CLAIMS",
            r#"must be a JSON object, such as {"token_use":"access"}"#,
        ));
    };
    let mut required = Vec::new();
    for (claim, values) in claims {
        let accepted = match values {
            Value::Array(accepted) => accepted,
            single => vec![single],
        };
        if accepted.is_empty() {
            let reason = format!("must have at least one accepted value for {claim:?}");
            return Err(SettingError::new("REQUIRED_CLAIMS", reason));
        }
        required.push((claim, accepted));
    }
    Ok(required)
}

/// Configures the issuer from an App ID binding or from `ISSUER`, not from both.
fn issuer(audiences: Vec<Audience>) -> Result<TrustedIssuer, SettingError> {
    let binding = Binding::from_env()?;
    let jwks_uri = match variable("JWKS_URI")? {
        None => None,
        Some(url) => Some(common::endpoint("JWKS_URI", &url)?),
    };
    let mut audiences = audiences.into_iter();
    let issuer = match (binding, variable("ISSUER")?) {
        (Some(_), Some(_)) => {
            return Err(SettingError::new(
                "ISSUER",
                "is set and there is an App ID binding: use one of them",
            ));
        }
        (None, None) => return Err(common::missing_issuer("ISSUER")),
        (Some(_), None) if jwks_uri.is_some() => {
            return Err(SettingError::new(
                "JWKS_URI",
                "cannot be used with an App ID binding: remove it",
            ));
        }
        (Some(binding), None) => {
            common::check_binding(&binding)?;
            let first = match (audiences.next(), binding.client_id()) {
                (Some(audience), _) => audience,
                (None, Some(client_id)) => {
                    Audience::new(client_id).map_err(invalid_variable("AUDIENCE"))?
                }
                (None, None) => {
                    return Err(SettingError::new(
                        "AUDIENCE",
                        "must be set: the App ID binding has no client id",
                    ));
                }
            };
            binding.trusted_issuer(first)
        }
        (None, Some(issuer)) => {
            let issuer = Issuer::new(issuer).map_err(invalid_variable("ISSUER"))?;
            common::endpoint("ISSUER", issuer.as_str())?;
            let first = audiences.next().ok_or_else(|| {
                let reason = "is required with ISSUER, unless RESOURCE is set";
                SettingError::new("AUDIENCE", reason)
            })?;
            TrustedIssuer::new(issuer, first)
        }
    };
    let issuer = audiences.fold(issuer, TrustedIssuer::add_audience);
    Ok(match jwks_uri {
        Some(jwks_uri) => issuer.jwks_uri(jwks_uri),
        None => issuer,
    })
}
