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
//! go into the token request. `ASSUMED_LIFETIME` is the lifetime in seconds of a token without
//! `expires_in`. With `RENEW_ON_401=any` each 401 of the resource replaces the token. `ALLOW_HTTP`
//! names the hosts to which plain http is allowed besides loopback, for the server and for the
//! resource.
//!
//! `CLIENT_AUTHENTICATION` is `client_secret_basic`, `client_secret_post`, `basic_unencoded`, or a
//! method without a secret:
//!
//! - `private_key_jwt` signs an assertion with the key in `CLIENT_KEY_FILE` (PEM). The server may
//!   need `CLIENT_KEY_ID`, or `CLIENT_CERTIFICATE_FILE` with the certificate of the key (Microsoft
//!   Entra ID). An RSA key signs with RS256, unless `CLIENT_KEY_ALGORITHM` is another algorithm,
//!   such as PS256. The audience is the issuer, unless `CLIENT_ASSERTION_AUDIENCE` is
//!   `token_endpoint` or another audience.
//! - `client_assertion` sends the assertion in `CLIENT_ASSERTION_FILE`, which the platform writes.
//!   If there is none yet, the token request is retried for 40 s. `CLIENT_ID` is optional.
//! - `tls_client_auth` shows the certificate in `CLIENT_CERTIFICATE_FILE`, with the key in
//!   `CLIENT_KEY_FILE`, to the authorization server (https), not to the resource.
//!
//! `GRANT_ASSERTION_FILE` is an assertion that is the grant (RFC 7523 §2.1), in place of client
//! credentials. The client authenticates beside it.
//!
//! The files are read again for each token request. Those of keys, certificates and secrets must be
//! there at the start.

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
use common::settings::{Field, Settings, single_variable, text_variable, url_variable};
use common::{SettingError, invalid_variable, parse_variable, prometheus, variable};
use http::{Request, Response, StatusCode, Uri};
use http_body_util::BodyExt as _;
use serde_json::json;
use tokio::task::JoinSet;
use tower::{Service, ServiceBuilder, ServiceExt as _, service_fn};
use tower_oauth::app_id::{Binding, Version};
use tower_oauth::client::{
    AssertionFile, ClientSettings, JwtBearerGrant, TokenManagerBuilder, Unauthorized,
};
use tower_oauth::{BoxError, Endpoint, Error};

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
    let (settings, builder) = token_manager()?;
    let tokens = builder
        .max_waiters(waiters.max(1024))
        .allow_loopback_http()
        .allow_http(common::allowed_hosts()?)
        .start()
        .map_err(|error| match error.setting() {
            "parameter" => invalid_variable("PARAMETERS")(error),
            _ => settings.error(error),
        })?;
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

/// What is requested: each variable, and the field that it is in `tower_oauth::guide::settings`.
const REQUEST: [Field; 11] = [
    text_variable("CLIENT_AUTHENTICATION", "client_authentication"),
    text_variable("CLIENT_KEY_FILE", "client_key_file"),
    text_variable("CLIENT_KEY_ALGORITHM", "client_key_algorithm"),
    text_variable("CLIENT_KEY_ID", "client_key_id"),
    text_variable("CLIENT_CERTIFICATE_FILE", "client_certificate_file"),
    text_variable("CLIENT_ASSERTION_FILE", "client_assertion_file"),
    text_variable("CLIENT_ASSERTION_AUDIENCE", "client_assertion_audience"),
    text_variable("SCOPE", "scopes"),
    text_variable("AUDIENCE", "audience"),
    single_variable("RESOURCE", "resource"),
    text_variable("ASSUMED_LIFETIME", "assumed_lifetime_seconds"),
];

/// Configures the token manager from the environment.
fn token_manager() -> Result<(Settings, TokenManagerBuilder), SettingError> {
    let (settings, builder) = match Binding::from_env()? {
        Some(binding) => of_binding(&binding)?,
        None => of_variables()?,
    };
    let builder = match variable("GRANT_ASSERTION_FILE")? {
        Some(path) => builder.grant(JwtBearerGrant::new(AssertionFile::new(path))),
        None => builder,
    };
    // They are form-urlencoded, and no table.
    let parameters = variable("PARAMETERS")?.unwrap_or_default();
    if parameters.split('&').any(|pair| !pair.contains('=')) && !parameters.is_empty() {
        let reason = "must be form-urlencoded: name=value&name=value";
        return Err(SettingError::new("PARAMETERS", reason));
    }
    let parameters = url::form_urlencoded::parse(parameters.as_bytes());
    let builder = parameters.fold(builder, |builder, (name, value)| {
        builder.parameter(name, value)
    });
    Ok((settings, builder))
}

/// With the credentials of an App ID binding.
fn of_binding(binding: &Binding) -> Result<(Settings, TokenManagerBuilder), SettingError> {
    let others = [
        "ISSUER",
        "OAUTH_SERVER_URL",
        "CLIENT_SECRET_FILE",
        "CLIENT_KEY_FILE",
        "CLIENT_CERTIFICATE_FILE",
        "CLIENT_ASSERTION_FILE",
        "GRANT_ASSERTION_FILE",
    ];
    common::check_binding(binding, &others)?;
    let source = binding.source().unwrap_or("App ID binding");
    let credentials = binding.credentials().map_err(invalid_variable(source))?;
    let settings = settings(&[])?.set("token_endpoint", binding.token_endpoint());
    let builder = settings
        .builder(|settings: &ClientSettings| settings.to_builder_with_credentials(credentials))?;
    Ok((settings, builder))
}

/// With the issuer and the credentials that variables name.
fn of_variables() -> Result<(Settings, TokenManagerBuilder), SettingError> {
    let (name, url) = match (variable("ISSUER")?, variable("OAUTH_SERVER_URL")?) {
        (Some(url), None) => ("ISSUER", url),
        (None, Some(url)) => ("OAUTH_SERVER_URL", url),
        (None, None) => return Err(common::missing_issuer("ISSUER or OAUTH_SERVER_URL")),
        (Some(_), Some(_)) => {
            let reason = "is set and so is OAUTH_SERVER_URL: use one of them";
            return Err(SettingError::new("ISSUER", reason));
        }
    };
    let base = app_id_v3(&url);
    let path = base.as_ref().map_or("issuer", |_| "token_endpoint");
    let mut settings = settings(&[
        url_variable(name, path),
        text_variable("CLIENT_ID", "client_id"),
        text_variable("CLIENT_SECRET", "client_secret"),
        text_variable("CLIENT_SECRET_FILE", "client_secret_file"),
    ])?;
    if let Some(base) = base {
        settings = settings.set("token_endpoint", base.token_endpoint());
    }
    if variable("CLIENT_AUTHENTICATION")?.as_deref() == Some("tls_client_auth") {
        // Without them, settings leave the transport to code.
        settings = settings.required(&["CLIENT_CERTIFICATE_FILE", "CLIENT_KEY_FILE"])?;
    }
    let builder = settings.builder(|settings: &ClientSettings| {
        let builder = settings.to_builder()?;
        // They are read again for each token request; a wrong path is an error now.
        settings.check_files()?;
        Ok(builder)
    })?;
    Ok((settings, builder))
}

/// Reads what is requested, and these variables.
fn settings(others: &[Field]) -> Result<Settings, SettingError> {
    let settings = Settings::from_env([REQUEST.as_slice(), others].concat())?;
    Ok(match variable("CLIENT_AUTHENTICATION")?.as_deref() {
        // Settings have the name of the method in `ClientCredentials`.
        Some("basic_unencoded") => settings.set("client_authentication", "client_secret_basic_raw"),
        _ => settings,
    })
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
    let text = error.to_string();
    let method = variable("CLIENT_AUTHENTICATION").ok().flatten();
    let is_signed = method.as_deref() == Some("private_key_jwt");
    if text.contains("client_secret_basic_raw") {
        ", here CLIENT_AUTHENTICATION=basic_unencoded"
    } else if !text.contains("AssertionAudience::TokenEndpoint") {
        ""
    } else if is_signed && text.contains("invalid_client") {
        ", here CLIENT_ASSERTION_AUDIENCE=token_endpoint"
    } else {
        ", here where the assertion is issued"
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
