//! An axum service behind the layer.
//!
//! ```console
//! $ cargo run --release --example authorization_server          # prints credentials; then, elsewhere:
//! $ export APPID_SERVICE_BINDING='{"tenantId":"…", "clientId":"…", "secret":"…", "oauthServerUrl":"…"}'
//! $ cargo run --release --example protected_resource
//! $ curl -i http://localhost:8081/protected_resource -H "Authorization: Bearer $TOKEN"
//! ```
//!
//! With another issuer than App ID: `ISSUER=https://as.example AUDIENCE=orders`.

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
use common::{Unusable, from_variable, parsed, text, variable};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use serde_json::{Value, json};
use tower::Layer;
use tower_oauth::app_id::Binding;
use tower_oauth::{
    Audience, AuthContext, Endpoint, Issuer, RefreshPolicy, RequireScopeLayer, ResourceServer,
    ResourceServerBuilder, Startup, TokenProfile,
};

#[tokio::main]
async fn main() -> ExitCode {
    common::log_to_stderr();
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(unusable) => unusable.exit(),
    }
}

async fn run() -> Result<(), Unusable> {
    let port = parsed("PORT", 8081)?;
    // Before the resource server is made: its counters are those of the recorder it finds.
    let recorded = PrometheusBuilder::new()
        .install_recorder()
        .map_err(|error| Unusable::new("metrics", error))?;
    let resource = settings()?
        .startup(Startup::Background)
        .start()
        .await
        .map_err(|error| Unusable::new("ISSUER", error))?;
    let listener = common::listen(port).await?;
    let address = listener
        .local_addr()
        .map_err(|error| Unusable::new("PORT", error))?;
    println!("{}", json!({ "listening": format!("http://{address}") }));
    common::serve(
        listener,
        router(&resource, recorded),
        common::asked_to_end(),
    )
    .await;
    Ok(())
}

/// The routes. The layer stands before each protected handler, so that a wrong method is
/// answered 405 whoever asks. As services they are layered once; of a handler with a layer axum
/// would make a service for each request.
fn router(resource: &ResourceServer, recorded: PrometheusHandle) -> Router {
    let protected = resource.layer();
    let reader = RequireScopeLayer::all(["reports.read"]);
    let hello = (async || "Hello from protected resource").into_service();
    let reports = (async || "Hello from reports").into_service();
    Router::new()
        .route("/protected_resource", get_service(protected.layer(hello)))
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
        .route("/metrics", get(metrics).with_state(recorded))
}

/// Who calls, as the token says.
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

/// What a readiness probe asks, with the reasons for whoever reads along.
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

/// Everything that was recorded, in Prometheus' text format.
async fn metrics(State(recorded): State<PrometheusHandle>) -> impl IntoResponse {
    (
        [(header::CONTENT_TYPE, "text/plain; version=0.0.4")],
        recorded.render(),
    )
}

/// The resource server that the environment describes.
fn settings() -> Result<ResourceServerBuilder, Unusable> {
    let max_stale: u64 = parsed("MAX_STALE", 86_400)?;
    let min_refresh: u64 = parsed("MIN_REFRESH", 60)?;
    if max_stale == 0 {
        return Err(Unusable::new("MAX_STALE", "must be at least 1"));
    }
    if min_refresh == 0 {
        return Err(Unusable::new("MIN_REFRESH", "must be at least 1"));
    }
    let profile = match variable("TOKEN_PROFILE")?.as_deref() {
        None | Some("jwt") => TokenProfile::Jwt,
        Some("rfc9068") => TokenProfile::Rfc9068,
        Some(_) => return Err(Unusable::new("TOKEN_PROFILE", "must be `jwt` or `rfc9068`")),
    };
    // Set and empty is a mistake, too: it must not mean the default.
    let audiences = match text("AUDIENCE")? {
        None => Vec::new(),
        Some(list) => {
            let audiences: Result<Vec<_>, _> = list
                .split(',')
                .map(|audience| Audience::new(audience.trim()).map_err(from_variable("AUDIENCE")))
                .collect();
            audiences?
        }
    };
    let policy = RefreshPolicy::new()
        .max_stale(Duration::from_secs(max_stale))
        .min_interval(Duration::from_secs(min_refresh));
    Ok(issuer(audiences)?
        .issuer(|issuer| issuer.profile(profile))
        .refresh(policy)
        .allow_loopback_http())
}

/// The issuer: an App ID binding or `ISSUER`, and not both.
fn issuer(audiences: Vec<Audience>) -> Result<ResourceServerBuilder, Unusable> {
    let binding = Binding::from_env()?;
    let jwks_uri = match variable("JWKS_URI")? {
        None => None,
        Some(url) => Some(Endpoint::new(url).map_err(from_variable("JWKS_URI"))?),
    };
    let builder = match (binding, variable("ISSUER")?) {
        (Some(_), Some(_)) => {
            return Err(Unusable::new(
                "ISSUER",
                "is set beside an App ID binding; use one of them",
            ));
        }
        (None, None) => return Err(common::no_issuer("ISSUER")),
        (Some(_), None) if jwks_uri.is_some() => {
            return Err(Unusable::new(
                "JWKS_URI",
                "is for ISSUER; an App ID binding has its own",
            ));
        }
        (Some(binding), None) => return resource_server(&binding, audiences),
        (None, Some(issuer)) => {
            let issuer = Issuer::new(issuer).map_err(from_variable("ISSUER"))?;
            Endpoint::new(issuer.as_str()).map_err(from_variable("ISSUER"))?;
            let mut audiences = audiences.into_iter();
            let first = audiences
                .next()
                .ok_or_else(|| Unusable::new("AUDIENCE", "is required with ISSUER"))?;
            let builder = ResourceServer::builder(issuer, first);
            audiences.fold(builder, add_audience)
        }
    };
    Ok(match jwks_uri {
        Some(jwks_uri) => builder.jwks_uri(jwks_uri),
        None => builder,
    })
}

fn add_audience(builder: ResourceServerBuilder, audience: Audience) -> ResourceServerBuilder {
    builder.issuer(|issuer| issuer.add_audience(audience))
}

fn resource_server(
    binding: &Binding,
    audiences: Vec<Audience>,
) -> Result<ResourceServerBuilder, Unusable> {
    let mut audiences = audiences.into_iter();
    let builder = match audiences.next() {
        Some(audience) => binding.resource_server_for(audience),
        None => binding
            .resource_server()
            .map_err(from_variable("AUDIENCE"))?,
    };
    Ok(audiences.fold(builder, add_audience))
}
