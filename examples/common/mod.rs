//! What the example programs share: settings from the environment, logging, serving.
#![allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    reason = "each example uses a part of it"
)]

mod serve;

use std::env::VarError;
use std::fmt::Display;
use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::process::ExitCode;

use tokio::net::TcpListener;
use tower_oauth::ConfigError;

pub use self::serve::serve;

/// The exit code of a program whose settings cannot be used.
pub const BAD_SETTING: u8 = 2;

/// A variable that is set.
///
/// # Errors
///
/// If it is no text: it must not count as unset.
pub fn text(name: &str) -> Result<Option<String>, Unusable> {
    match std::env::var(name) {
        Ok(value) => Ok(Some(value)),
        Err(VarError::NotPresent) => Ok(None),
        Err(VarError::NotUnicode(_)) => Err(Unusable::new(name, "is not UTF-8")),
    }
}

/// A variable that is set and not empty, without white space around it.
///
/// # Errors
///
/// As [`text`].
pub fn variable(name: &str) -> Result<Option<String>, Unusable> {
    let trimmed = text(name)?.map(|value| value.trim().to_owned());
    Ok(trimmed.filter(|value| !value.is_empty()))
}

/// A setting with a default.
///
/// # Errors
///
/// If the variable holds something else.
pub fn parsed<T: std::str::FromStr>(name: &str, default: T) -> Result<T, Unusable> {
    match variable(name)? {
        None => Ok(default),
        Some(value) => value
            .parse()
            .map_err(|_| Unusable::new(name, "is not usable")),
    }
}

/// A setting that cannot be used: one line that names it.
#[derive(Debug)]
pub struct Unusable(String);

impl Unusable {
    pub fn new(name: &str, reason: impl Display) -> Self {
        Self(format!("{name}: {reason}"))
    }

    /// Ends the program.
    pub fn exit(&self) -> ExitCode {
        eprintln!("{}", self.0.replace(['\n', '\r'], " "));
        ExitCode::from(BAD_SETTING)
    }
}

/// Nothing says who the issuer is: neither this variable nor an App ID binding. Platforms set the
/// variables of bindings for other services, too.
pub fn no_issuer(name: &str) -> Unusable {
    let services = ["VCAP_SERVICES", "CE_SERVICES"].into_iter();
    let set: Vec<&str> = services
        .filter(|services| matches!(variable(services), Ok(Some(_))))
        .collect();
    match set.as_slice() {
        [] => Unusable::new(name, "is not set, and there is no App ID binding"),
        set => {
            let reason = format!(
                "holds no App ID service, and {name} is not set; bind App ID or set {name}"
            );
            Unusable::new(&set.join(" and "), reason)
        }
    }
}

/// A configuration error names the variable that it came from.
pub fn from_variable(name: &str) -> impl Fn(ConfigError) -> Unusable + '_ {
    move |error| Unusable(error.for_setting(name).to_string())
}

impl From<ConfigError> for Unusable {
    fn from(error: ConfigError) -> Self {
        Self(error.to_string())
    }
}

/// Logs to stderr as `RUST_LOG` says; `info` unless it says anything.
pub fn log_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| "info".parse().unwrap_or_default());
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(colours)
        .with_writer(std::io::stderr)
        .init();
}

/// Listens on loopback.
///
/// # Errors
///
/// If the port is taken.
pub async fn listen(port: u16) -> Result<TcpListener, Unusable> {
    TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], port)))
        .await
        .map_err(|error| Unusable::new("PORT", error))
}

/// The end of a program that is asked to end: SIGTERM or Ctrl-C.
pub async fn asked_to_end() {
    let term = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate());
    let Ok(mut term) = term else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}
