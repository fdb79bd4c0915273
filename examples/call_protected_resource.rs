//! The calling application: obtains a token and calls a protected resource with it.
//!
//! ```console
//! $ export APPID_SERVICE_BINDING='…the credentials of the authorization_server example…'
//! $ cargo run --release --example call_protected_resource -- \
//!     http://localhost:8081/protected_resource
//! Hello from protected resource
//! ```
//!
//! For other issuers than App ID: `ISSUER`, `CLIENT_ID`, and `CLIENT_SECRET` or
//! `CLIENT_SECRET_FILE`. The token endpoint is that of the issuer's metadata. `OAUTH_SERVER_URL`
//! stands for `ISSUER`; it may be an App ID base of version 3 (`…/oauth/v3/{tenant}`), whose token
//! endpoint is `{base}/token`. The program sends `REPEAT` requests, `CONCURRENCY` at a time. Each of
//! these callers waits `INTERVAL_MS` milliseconds between its requests. With `METRICS_PORT` the
//! program serves its metrics at `/metrics` on this loopback port while it runs; 0 takes a free one.
//!
//! `SCOPE` (several separated by spaces), `AUDIENCE`, `RESOURCE` and `PARAMETERS` (form-urlencoded)
//! go into the token request. `CLIENT_AUTHENTICATION` is `client_secret_basic`,
//! `client_secret_post` or `basic_unencoded`. `ASSUMED_LIFETIME` is the lifetime in seconds of a
//! token without `expires_in`. With `RENEW_ON_401=any` each 401 of the resource replaces the token.
//! `ALLOW_HTTP` names the hosts to which plain http is allowed besides loopback, for the server and
//! for the resource.

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
use common::{SettingError, invalid_variable, parse_variable, prometheus, variable};
use http::{Request, Response, StatusCode, Uri};
use http_body_util::BodyExt as _;
use serde_json::json;
use tokio::task::JoinSet;
use tower::{Service, ServiceBuilder, ServiceExt as _, service_fn};
use tower_oauth::app_id::{Binding, Version};
use tower_oauth::client::{TokenManagerBuilder, Unauthorized};
use tower_oauth::{
    Audience, BoxError, ClientCredentials, ConfigError, Endpoint, Error, Issuer, Scope,
    TokenManager,
};

fn main() -> ExitCode {
    common::log_to_stderr();
    let outcome = match tokio::runtime::Runtime::new() {
        // Dropping the runtime here ends all connections, so their log lines come before the
        // summary.
        Ok(runtime) => runtime.block_on(run()),
        Err(error) => Err(SettingError::new("runtime", error)),
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
        Err(error) => error.exit(),
    }
}

struct Outcome {
    requests: u64,
    failed: u64,
}

async fn run() -> Result<Outcome, SettingError> {
    let url = std::env::args()
        .nth(1)
        .ok_or_else(|| SettingError::new("URL", "is missing: pass it as the argument"))?;
    let origin = common::endpoint("URL", &url)?;
    let uri: Uri = origin
        .as_str()
        .parse()
        .map_err(|error| SettingError::new("URL", error))?;
    let repeat: u64 = parse_variable("REPEAT", 1)?;
    let concurrency: u64 = parse_variable("CONCURRENCY", 1)?;
    if repeat == 0 || concurrency == 0 {
        let name = if repeat == 0 { "REPEAT" } else { "CONCURRENCY" };
        return Err(SettingError::new(name, "must be at least 1"));
    }
    let interval = Duration::from_millis(parse_variable("INTERVAL_MS", 0)?);
    serve_metrics().await?;
    // All callers may wait for the first token.
    let waiters = usize::try_from(concurrency).unwrap_or(usize::MAX);
    let tokens = token_parameters(token_endpoint()?)?
        .max_waiters(waiters.max(1024))
        .allow_loopback_http()
        .allow_http(common::allowed_hosts()?)
        .start()
        .map_err(name_variable)?;
    let client = ServiceBuilder::new()
        .layer(tokens.layer([origin]).renew_on(renew_on()?))
        .service(client(&uri)?);

    let results = Arc::new(Results::default());
    let mut callers = JoinSet::new();
    for _ in 0..concurrency.min(repeat) {
        callers.spawn(run_caller(
            client.clone(),
            uri.clone(),
            repeat,
            interval,
            Arc::clone(&results),
        ));
    }
    callers.join_all().await;

    if let Some(body) = results
        .last_body
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take()
    {
        println!("{}", String::from_utf8_lossy(&body));
    }
    Ok(Outcome {
        requests: repeat,
        failed: repeat - results.succeeded.load(Ordering::Relaxed),
    })
}

/// Serves the metrics, if `METRICS_PORT` is set.
async fn serve_metrics() -> Result<(), SettingError> {
    const NAME: &str = "METRICS_PORT";
    if variable(NAME)?.is_some() {
        let port = parse_variable(NAME, 0)?;
        let address = prometheus::listen(NAME, port, prometheus::install_recorder()?).await?;
        tracing::info!("metrics are served at http://{address}/metrics");
    }
    Ok(())
}

/// The token endpoint and the credentials, from an App ID binding or from variables.
fn token_endpoint() -> Result<TokenManagerBuilder, SettingError> {
    let is_set =
        |name| -> Result<_, SettingError> { Ok(variable(name)?.map(|value| (name, value))) };
    let (issuer, url) = (is_set("ISSUER")?, is_set("OAUTH_SERVER_URL")?);
    if issuer.is_some() && url.is_some() {
        let reason = "is set and so is OAUTH_SERVER_URL: use one of them";
        return Err(SettingError::new("ISSUER", reason));
    }
    match (Binding::from_env()?, issuer.or(url)) {
        (Some(_), Some((name, _))) => {
            let reason = "is set and there is an App ID binding: use one of them";
            Err(SettingError::new(name, reason))
        }
        (None, None) => Err(common::missing_issuer("ISSUER or OAUTH_SERVER_URL")),
        (Some(binding), None) => {
            if variable("CLIENT_SECRET_FILE")?.is_some() {
                let reason = "is set and there is an App ID binding: use one of them";
                return Err(SettingError::new("CLIENT_SECRET_FILE", reason));
            }
            common::check_binding(&binding)?;
            let source = binding.source().unwrap_or("App ID binding").to_owned();
            let credentials = binding.credentials().map_err(invalid_variable(&source))?;
            Ok(TokenManager::builder(
                binding.token_endpoint().clone(),
                with_method(credentials)?,
            ))
        }
        (None, Some((name, url))) => {
            common::endpoint(name, &url)?;
            let credentials = with_method(credentials()?)?;
            match app_id_v3(&url) {
                Some(binding) => Ok(TokenManager::builder(
                    binding.token_endpoint().clone(),
                    credentials,
                )),
                None => {
                    let issuer = Issuer::new(url).map_err(invalid_variable(name))?;
                    TokenManager::for_issuer(issuer, credentials).map_err(invalid_variable(name))
                }
            }
        }
    }
}

/// The credentials without an App ID binding.
fn credentials() -> Result<ClientCredentials, SettingError> {
    let not_set = |name: &str| SettingError::new(name, "is not set");
    let id = variable("CLIENT_ID")?.ok_or_else(|| not_set("CLIENT_ID"))?;
    match (variable("CLIENT_SECRET")?, variable("CLIENT_SECRET_FILE")?) {
        (Some(_), Some(_)) => {
            let reason = "is set and so is CLIENT_SECRET: use one of them";
            Err(SettingError::new("CLIENT_SECRET_FILE", reason))
        }
        (None, None) => Err(not_set("CLIENT_SECRET or CLIENT_SECRET_FILE")),
        (Some(secret), None) => Ok(ClientCredentials::new(id, secret)),
        (None, Some(path)) => {
            let credentials = ClientCredentials::from_secret_file(id, path);
            // It is read again for each token request; a wrong path is an error now.
            let checked = credentials.check_secret();
            checked.map_err(invalid_variable("CLIENT_SECRET_FILE"))?;
            Ok(credentials)
        }
    }
}

/// Sets the method of client authentication; the default is that of the credentials.
fn with_method(credentials: ClientCredentials) -> Result<ClientCredentials, SettingError> {
    match variable("CLIENT_AUTHENTICATION")?.as_deref() {
        None => Ok(credentials),
        Some("client_secret_basic") => Ok(credentials.client_secret_basic()),
        Some("client_secret_post") => Ok(credentials.client_secret_post()),
        Some("basic_unencoded") => Ok(credentials.client_secret_basic_raw()),
        Some(_) => Err(SettingError::new(
            "CLIENT_AUTHENTICATION",
            "must be client_secret_basic, client_secret_post or basic_unencoded",
        )),
    }
}

/// Adds the parameters of the token request, and the lifetime of a token without one.
fn token_parameters(mut builder: TokenManagerBuilder) -> Result<TokenManagerBuilder, SettingError> {
    let scopes = variable("SCOPE")?.unwrap_or_default();
    let scopes: Result<Vec<Scope>, _> = scopes.split_whitespace().map(Scope::new).collect();
    builder = builder.scopes(scopes.map_err(invalid_variable("SCOPE"))?);
    if let Some(audience) = variable("AUDIENCE")? {
        let audience = Audience::new(audience).map_err(invalid_variable("AUDIENCE"))?;
        builder = builder.audience(audience);
    }
    if let Some(resource) = variable("RESOURCE")? {
        builder = builder.resource(resource);
    }
    let parameters = variable("PARAMETERS")?.unwrap_or_default();
    if parameters.split('&').any(|pair| !pair.contains('=')) && !parameters.is_empty() {
        let reason = "must be form-urlencoded: name=value&name=value";
        return Err(SettingError::new("PARAMETERS", reason));
    }
    for (name, value) in url::form_urlencoded::parse(parameters.as_bytes()) {
        builder = builder.parameter(name, value);
    }
    let seconds: u64 = parse_variable("ASSUMED_LIFETIME", 300)?;
    if seconds == 0 {
        return Err(SettingError::new("ASSUMED_LIFETIME", "must be at least 1"));
    }
    Ok(builder.assumed_lifetime(Duration::from_secs(seconds)))
}

/// Which responses of the resource replace the token.
fn renew_on() -> Result<Unauthorized, SettingError> {
    match variable("RENEW_ON_401")?.as_deref() {
        None | Some("invalid_token") => Ok(Unauthorized::InvalidToken),
        Some("any") => Ok(Unauthorized::Any),
        Some(_) => Err(SettingError::new(
            "RENEW_ON_401",
            "must be invalid_token or any",
        )),
    }
}

/// Names the variable of a setting that the builder refuses.
fn name_variable(error: ConfigError) -> SettingError {
    let variable = match error.setting() {
        "parameter" => "PARAMETERS",
        "resource" => "RESOURCE",
        "client id" => "CLIENT_ID",
        "client secret" => "CLIENT_SECRET",
        "issuer" if matches!(variable("ISSUER"), Ok(Some(_))) => "ISSUER",
        "issuer" => "OAUTH_SERVER_URL",
        _ => return error.into(),
    };
    SettingError::new(variable, error)
}

/// An App ID base of version 3. It is not an issuer identifier and is not discovered.
fn app_id_v3(url: &str) -> Option<Binding> {
    let binding = Binding::builder()
        .oauth_server_url(Endpoint::new(url).ok()?)
        .build()
        .ok()?;
    Some(binding).filter(|binding| binding.version() == Version::V3)
}

/// A reqwest client as a tower service. It follows no redirects: a response other than 200 is a
/// failure.
fn client(uri: &Uri) -> Result<impl HttpService + use<>, SettingError> {
    let mut builder = reqwest::Client::builder();
    if uri.scheme_str() == Some("http") {
        // A proxy of the environment would read the token.
        builder = builder.no_proxy();
    }
    let client = builder
        .redirect(reqwest::redirect::Policy::none())
        .timeout(Duration::from_secs(30))
        .build()
        .map_err(|error| SettingError::new("HTTP client", error))?;
    Ok(service_fn(move |request: Request<reqwest::Body>| {
        let client = client.clone();
        async move {
            let response = client.execute(reqwest::Request::try_from(request)?).await?;
            Ok::<_, reqwest::Error>(Response::<reqwest::Body>::from(response))
        }
    }))
}

trait HttpService:
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

impl<S> HttpService for S where
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

/// Results of all callers.
#[derive(Default)]
struct Results {
    started: AtomicU64,
    succeeded: AtomicU64,
    without_token: AtomicBool,
    last_body: Mutex<Option<Bytes>>,
}

/// Sends requests until all callers together have sent `repeat`, or no token is available.
async fn run_caller<S>(client: S, uri: Uri, repeat: u64, interval: Duration, results: Arc<Results>)
where
    S: Service<Request<reqwest::Body>, Response = Response<reqwest::Body>, Error = BoxError>
        + Clone,
{
    let mut is_first = true;
    while !results.without_token.load(Ordering::Relaxed)
        && results.started.fetch_add(1, Ordering::Relaxed) < repeat
    {
        if !std::mem::take(&mut is_first) && !interval.is_zero() {
            tokio::time::sleep(interval).await;
        }
        match send_request(client.clone(), uri.clone()).await {
            Ok((status, body)) => {
                if status == StatusCode::OK {
                    results.succeeded.fetch_add(1, Ordering::Relaxed);
                } else {
                    tracing::warn!(status = status.as_u16(), "response status is not 200");
                }
                *results
                    .last_body
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner) = Some(body);
            }
            Err(error) => {
                eprintln!("{}{}", error_chain(&*error), hint(&*error));
                if error.is::<Error>() {
                    // The token manager has already retried. The next request would also fail.
                    results.without_token.store(true, Ordering::Relaxed);
                }
            }
        }
    }
}

async fn send_request<S>(client: S, uri: Uri) -> Result<(StatusCode, Bytes), BoxError>
where
    S: Service<Request<reqwest::Body>, Response = Response<reqwest::Body>, Error = BoxError>,
{
    let response = client
        .oneshot(Request::get(uri).body(reqwest::Body::default())?)
        .await?;
    let status = response.status();
    Ok((status, response.into_body().collect().await?.to_bytes()))
}

/// The variable that may help.
fn hint(error: &(dyn std::error::Error + 'static)) -> &'static str {
    if error.to_string().contains("client_secret_basic_raw") {
        ", here CLIENT_AUTHENTICATION=basic_unencoded"
    } else {
        ""
    }
}

/// An error with its sources on one line.
fn error_chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text.replace(['\n', '\r'], " ")
}
