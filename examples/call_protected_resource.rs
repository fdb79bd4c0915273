//! The calling application: obtains a token and calls a protected resource with it.
//!
//! ```console
//! $ export APPID_SERVICE_BINDING='{"tenantId":"…", "clientId":"…", "secret":"…", "oauthServerUrl":"…"}'
//! $ cargo run --release --example call_protected_resource -- http://localhost:8081/protected_resource
//! Hello from protected resource
//! ```
//!
//! With another issuer than App ID: `OAUTH_SERVER_URL`, `CLIENT_ID`, `CLIENT_SECRET`, and
//! `SCOPE` (several with spaces between them). The URL is an issuer whose metadata is discovered,
//! or an App ID base of version 3 (`…/oauth/v3/{tenant}`), whose token endpoint is `{base}/token`.
//! `REPEAT` requests, `CONCURRENCY` at a time.

#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a program, not a library"
)]

#[path = "common/mod.rs"]
mod common;

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use common::{Unusable, from_variable, parsed, variable};
use http::{Request, Response, StatusCode, Uri};
use http_body_util::BodyExt as _;
use serde_json::json;
use tokio::task::JoinSet;
use tower::{Service, ServiceBuilder, ServiceExt as _, service_fn};
use tower_oauth::app_id::{Binding, Version};
use tower_oauth::{
    BoxError, ClientCredentials, Endpoint, Error, Issuer, Scope, TokenManager, TokenManagerBuilder,
};

fn main() -> ExitCode {
    common::log_to_stderr();
    let outcome = match tokio::runtime::Runtime::new() {
        // The runtime ends with this line, and with it the last that connections have to log.
        Ok(runtime) => runtime.block_on(run()),
        Err(error) => Err(Unusable::new("runtime", error)),
    };
    match outcome {
        Ok(Outcome { requests, failed }) => {
            eprintln!("{}", json!({ "requests": requests, "failed": failed }));
            if failed == 0 {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        Err(unusable) => unusable.exit(),
    }
}

struct Outcome {
    requests: u64,
    failed: u64,
}

async fn run() -> Result<Outcome, Unusable> {
    let url = std::env::args()
        .nth(1)
        .ok_or_else(|| Unusable::new("URL", "is the argument, and missing"))?;
    let origin = Endpoint::new(&url).map_err(from_variable("URL"))?;
    let uri: Uri = origin
        .as_str()
        .parse()
        .map_err(|error| Unusable::new("URL", error))?;
    let repeat: u64 = parsed("REPEAT", 1)?;
    let concurrency: u64 = parsed("CONCURRENCY", 1)?;
    if repeat == 0 || concurrency == 0 {
        let name = if repeat == 0 { "REPEAT" } else { "CONCURRENCY" };
        return Err(Unusable::new(name, "must be at least 1"));
    }
    // Each caller may wait for the first token.
    let waiters = usize::try_from(concurrency).unwrap_or(usize::MAX);
    let tokens = settings()?
        .max_waiters(waiters.max(1024))
        .allow_loopback_http()
        .start()?;
    let client = ServiceBuilder::new()
        .layer(tokens.layer([origin]))
        .service(client(&uri)?);

    let tally = Arc::new(Tally::default());
    let mut callers = JoinSet::new();
    for _ in 0..concurrency.min(repeat) {
        callers.spawn(call(
            client.clone(),
            uri.clone(),
            repeat,
            Arc::clone(&tally),
        ));
    }
    callers.join_all().await;

    if let Some(body) = tally
        .last_body
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take()
    {
        println!("{}", String::from_utf8_lossy(&body));
    }
    Ok(Outcome {
        requests: repeat,
        failed: repeat - tally.succeeded.load(Ordering::Relaxed),
    })
}

/// The credentials: an App ID binding, or three variables.
fn settings() -> Result<TokenManagerBuilder, Unusable> {
    let scopes = variable("SCOPE")?.unwrap_or_default();
    let scopes: Result<Vec<Scope>, _> = scopes.split_whitespace().map(Scope::new).collect();
    let scopes = scopes.map_err(from_variable("SCOPE"))?;
    let builder = match (Binding::from_env()?, variable("OAUTH_SERVER_URL")?) {
        (Some(_), Some(_)) => {
            return Err(Unusable::new(
                "OAUTH_SERVER_URL",
                "is set beside an App ID binding; use one of them",
            ));
        }
        (None, None) => return Err(common::no_issuer("OAUTH_SERVER_URL")),
        (Some(binding), None) => {
            let source = binding.source().unwrap_or("App ID binding").to_owned();
            binding.token_manager().map_err(from_variable(&source))?
        }
        (None, Some(url)) => {
            let required =
                |name: &str| variable(name)?.ok_or_else(|| Unusable::new(name, "is not set"));
            let credentials =
                ClientCredentials::new(required("CLIENT_ID")?, required("CLIENT_SECRET")?);
            match app_id_v3(&url) {
                Some(binding) => {
                    TokenManager::builder(binding.token_endpoint().clone(), credentials)
                }
                None => {
                    let issuer = Issuer::new(url).map_err(from_variable("OAUTH_SERVER_URL"))?;
                    TokenManager::for_issuer(issuer, credentials)
                        .map_err(from_variable("OAUTH_SERVER_URL"))?
                }
            }
        }
    };
    Ok(builder.scopes(scopes))
}

/// App ID at a base of version 3, which is no issuer identifier and is not discovered.
fn app_id_v3(url: &str) -> Option<Binding> {
    let binding = Binding::builder()
        .oauth_server_url(Endpoint::new(url).ok()?)
        .build()
        .ok()?;
    Some(binding).filter(|binding| binding.version() == Version::V3)
}

/// A reqwest client as a tower service of plain `http` requests. It follows no redirect: an
/// answer that is not 200 is a failure.
fn client(uri: &Uri) -> Result<impl Caller + use<>, Unusable> {
    let mut builder = reqwest::Client::builder();
    if uri.scheme_str() == Some("http") {
        // Plain http is for loopback only: no proxy of the environment gets to see the token.
        builder = builder.no_proxy();
    }
    let client = builder
        .redirect(reqwest::redirect::Policy::none())
        .timeout(Duration::from_secs(30))
        .build()
        .map_err(|error| Unusable::new("HTTP client", error))?;
    Ok(service_fn(move |request: Request<reqwest::Body>| {
        let client = client.clone();
        async move {
            let response = client.execute(reqwest::Request::try_from(request)?).await?;
            Ok::<_, reqwest::Error>(Response::<reqwest::Body>::from(response))
        }
    }))
}

trait Caller:
    Service<
        Request<reqwest::Body>,
        Response = Response<reqwest::Body>,
        Error = reqwest::Error,
        Future: Send,
    > + Clone
    + Send
    + 'static
{
}

impl<S> Caller for S where
    S: Service<
            Request<reqwest::Body>,
            Response = Response<reqwest::Body>,
            Error = reqwest::Error,
            Future: Send,
        > + Clone
        + Send
        + 'static
{
}

/// How the calls went.
#[derive(Default)]
struct Tally {
    started: AtomicU64,
    succeeded: AtomicU64,
    without_token: AtomicBool,
    last_body: Mutex<Option<Bytes>>,
}

/// Calls until all callers together have made `repeat` requests, or no token can be had.
async fn call<S>(client: S, uri: Uri, repeat: u64, tally: Arc<Tally>)
where
    S: Service<Request<reqwest::Body>, Response = Response<reqwest::Body>, Error = BoxError>
        + Clone,
{
    while !tally.without_token.load(Ordering::Relaxed)
        && tally.started.fetch_add(1, Ordering::Relaxed) < repeat
    {
        match once(client.clone(), uri.clone()).await {
            Ok((status, body)) => {
                if status == StatusCode::OK {
                    tally.succeeded.fetch_add(1, Ordering::Relaxed);
                } else {
                    tracing::warn!(status = status.as_u16(), "the resource did not answer 200");
                }
                *tally
                    .last_body
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner) = Some(body);
            }
            Err(error) => {
                eprintln!("{}", chain(&*error));
                if error.is::<Error>() {
                    // It was retried for as long as that makes sense: the next call would fare no
                    // better.
                    tally.without_token.store(true, Ordering::Relaxed);
                }
            }
        }
    }
}

async fn once<S>(client: S, uri: Uri) -> Result<(StatusCode, Bytes), BoxError>
where
    S: Service<Request<reqwest::Body>, Response = Response<reqwest::Body>, Error = BoxError>,
{
    let response = client
        .oneshot(Request::get(uri).body(reqwest::Body::default())?)
        .await?;
    let status = response.status();
    Ok((status, response.into_body().collect().await?.to_bytes()))
}

/// An error and what caused it, on one line.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text.replace(['\n', '\r'], " ")
}
