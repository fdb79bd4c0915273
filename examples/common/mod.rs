//! Shared by the example programs: settings from the environment, logging, metrics, serving.
#![allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    reason = "each example uses a part of this module"
)]

pub mod prometheus;
mod serve;
pub mod settings;

use std::env::VarError;
use std::fmt::Display;
use std::io::IsTerminal as _;
use std::net::{Ipv6Addr, SocketAddr};
use std::process::ExitCode;

use tokio::net::TcpListener;
use tower_oauth::app_id::Binding;
use tower_oauth::{ConfigError, Endpoint, Error};

pub use self::serve::serve;

/// The exit code for an invalid setting.
pub const EXIT_BAD_SETTING: u8 = 2;

/// Reads an environment variable.
///
/// # Errors
///
/// If the value is not UTF-8. It must not count as unset.
pub fn raw_variable(name: &str) -> Result<Option<String>, SettingError> {
    match std::env::var(name) {
        Ok(value) => Ok(Some(value)),
        Err(VarError::NotPresent) => Ok(None),
        Err(VarError::NotUnicode(_)) => Err(SettingError::new(name, "is not UTF-8")),
    }
}

/// Reads an environment variable and trims white space. An empty value counts as unset.
///
/// # Errors
///
/// As [`raw_variable`].
pub fn variable(name: &str) -> Result<Option<String>, SettingError> {
    let trimmed = raw_variable(name)?.map(|value| value.trim().to_owned());
    Ok(trimmed.filter(|value| !value.is_empty()))
}

/// Reads and parses an environment variable, or returns the default.
///
/// # Errors
///
/// If the value cannot be parsed.
pub fn parse_variable<T: std::str::FromStr>(name: &str, default: T) -> Result<T, SettingError> {
    match variable(name)? {
        None => Ok(default),
        Some(value) => value
            .parse()
            .map_err(|_| SettingError::new(name, "cannot be parsed")),
    }
}

/// Reads the hosts of `ALLOW_HTTP`, to which plain http is allowed besides loopback.
///
/// They are checked where they are used: a builder returns an error of the setting `allow_http`.
///
/// # Errors
///
/// As [`variable`].
pub fn allowed_hosts() -> Result<Vec<String>, SettingError> {
    let hosts = variable("ALLOW_HTTP")?;
    let hosts = hosts
        .iter()
        .flat_map(|list| list.split(','))
        .map(|host| host.trim().to_owned());
    Ok(hosts.collect())
}

/// Parses a URL. Plain http is for loopback and the hosts of `ALLOW_HTTP`.
///
/// # Errors
///
/// If it is no URL, or plain http elsewhere.
pub fn endpoint(name: &str, url: &str) -> Result<Endpoint, SettingError> {
    let endpoint = Endpoint::new(url).map_err(invalid_variable(name))?;
    let host = host_of(&endpoint);
    let is_host = |allowed: &String| {
        // An IPv6 address has brackets in a URL.
        let is_ipv6 = allowed.parse::<Ipv6Addr>().is_ok();
        let url = if is_ipv6 {
            format!("http://[{allowed}]/")
        } else {
            format!("http://{allowed}/")
        };
        Endpoint::new(url).is_ok_and(|url| host_of(&url) == host)
    };
    if endpoint.is_plain_http() && !endpoint.is_loopback() && !allowed_hosts()?.iter().any(is_host)
    {
        let reason = format!("is plain http: use https, or set ALLOW_HTTP={host}");
        return Err(SettingError::new(name, reason));
    }
    Ok(endpoint)
}

/// The host in the one spelling of a parsed URL.
fn host_of(url: &Endpoint) -> String {
    let uri = url.as_str().parse::<http::Uri>().ok();
    let host = uri.as_ref().and_then(http::Uri::host);
    host.unwrap_or_default().to_owned()
}

/// Checks that none of these variables is set besides an App ID binding, and that its server is
/// https, or plain http where it is allowed.
///
/// # Errors
///
/// As [`endpoint`], and if one of the variables is set.
pub fn check_binding(binding: &Binding, variables: &[&str]) -> Result<(), SettingError> {
    for name in variables {
        if variable(name)?.is_some() {
            let reason = "is set and there is an App ID binding: use one of them";
            return Err(SettingError::new(name, reason));
        }
    }
    let name = binding.source().unwrap_or("oauthServerUrl");
    endpoint(name, binding.oauth_server_url().as_str()).map(drop)
}

/// An invalid setting, displayed on one line that names it.
#[derive(Debug)]
pub struct SettingError(String);

impl SettingError {
    pub fn new(name: &str, reason: impl Display) -> Self {
        Self(format!("{name}: {reason}"))
    }

    /// Prints the error and returns the exit code.
    pub fn exit(&self) -> ExitCode {
        eprintln!("{}", self.0.replace(['\n', '\r'], " "));
        ExitCode::from(EXIT_BAD_SETTING)
    }
}

/// The error if neither this variable nor an App ID binding names the issuer. It names the binding
/// variables that are set, because platforms also set them for other services.
pub fn missing_issuer(name: &str) -> SettingError {
    let services = ["VCAP_SERVICES", "CE_SERVICES"].into_iter();
    let set: Vec<&str> = services
        .filter(|services| matches!(variable(services), Ok(Some(_))))
        .collect();
    match set.as_slice() {
        [] => SettingError::new(
            name,
            "is not set and there is no App ID binding: set one of them",
        ),
        set => {
            let reason = format!(
                "contains no App ID service and {name} is not set: bind App ID or set {name}"
            );
            SettingError::new(&set.join(" and "), reason)
        }
    }
}

/// Converts a configuration error and names the environment variable that caused it.
pub fn invalid_variable(name: &str) -> impl Fn(ConfigError) -> SettingError + '_ {
    move |error| SettingError(error.with_setting(name).to_string())
}

impl From<ConfigError> for SettingError {
    fn from(error: ConfigError) -> Self {
        let error = match error.setting() {
            "allow_http" => error.with_setting("ALLOW_HTTP"),
            _ => error,
        };
        Self(error.to_string())
    }
}

/// Converts the error of a resource server that cannot start.
pub fn start_error(error: Error) -> SettingError {
    let source = std::error::Error::source(&error);
    let setting = source.and_then(|source| source.downcast_ref::<ConfigError>());
    match setting {
        Some(setting) if setting.setting() == "allow_http" => setting.clone().into(),
        Some(setting) if setting.setting() == "resource metadata" => {
            invalid_variable("RESOURCE")(setting.clone())
        }
        _ => SettingError::new("ISSUER", error),
    }
}

/// Logs to stderr, filtered by `RUST_LOG`; the default is `info`.
pub fn log_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| "info".parse().unwrap_or_default());
    let colors = std::io::stderr().is_terminal();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(colors)
        .with_writer(std::io::stderr)
        .init();
}

/// Binds a loopback port.
///
/// # Errors
///
/// If the port cannot be bound.
pub async fn listen(port: u16) -> Result<TcpListener, SettingError> {
    TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], port)))
        .await
        .map_err(|error| SettingError::new("PORT", error))
}

/// Completes on SIGTERM or Ctrl-C. From the call on, SIGTERM no longer kills the process.
pub fn shutdown_signal() -> impl Future<Output = ()> + Send {
    let sigterm = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate());
    async move {
        let Ok(mut sigterm) = sigterm else {
            return std::future::pending().await;
        };
        tokio::select! {
            _ = sigterm.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
    }
}
