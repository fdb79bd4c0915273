//! The embedded development authorization server. Not for production.
//!
//! ```console
//! $ cargo run --release --example authorization_server
//! ```
//!
//! It prints the App ID service credentials of its first application as one line of JSON, which the
//! other examples accept as `APPID_SERVICE_BINDING`. Its address serves a dashboard: applications
//! and their credentials, test tokens, keys, activity, faults.
//!
//! | variable | default | meaning |
//! | --- | --- | --- |
//! | `PORT` | 6002 | loopback port; 0 selects a free one |
//! | `TENANT_ID` | the tenant of App ID's guide | the tenant |
//! | `TOKEN_LIFETIME` | 3600 | lifetime of access tokens in seconds |
//! | `ALGORITHM` | RS256 | algorithm of the signing keys |
//! | `STATE_FILE` | none | file that stores applications and keys; the same as `--state FILE` |

#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a program, not a library"
)]

#[path = "common/mod.rs"]
mod common;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use common::{SettingError, invalid_variable, parse_variable, variable};
use secrecy::ExposeSecret as _;
use serde_json::json;
use tower_oauth::authorization_server::{AuthorizationServer, RegisteredApplication};
use tower_oauth::resource_server::Algorithm;

#[tokio::main]
async fn main() -> ExitCode {
    common::log_to_stderr();
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => error.exit(),
    }
}

async fn run() -> Result<(), SettingError> {
    let port = parse_variable("PORT", 6002)?;
    let lifetime = Duration::from_secs(parse_variable("TOKEN_LIFETIME", 3600)?);
    let mut builder = AuthorizationServer::builder().token_lifetime(lifetime);
    if let Some(tenant_id) = variable("TENANT_ID")? {
        builder = builder.tenant_id(tenant_id);
    }
    if let Some(name) = variable("ALGORITHM")? {
        let algorithm = Algorithm::from_name(&name)
            .ok_or_else(|| SettingError::new("ALGORITHM", "is not an algorithm of this server"))?;
        builder = builder.algorithm(algorithm);
    }
    let (state_file, state_setting) = match state_argument()? {
        Some(path) => (Some(path), "--state"),
        None => (variable("STATE_FILE")?.map(PathBuf::from), "STATE_FILE"),
    };
    if let Some(path) = state_file {
        builder = builder.state_file(path);
    }
    let bound = builder.bind(port).await.map_err(|error| {
        let variable = match error.setting() {
            "port" => "PORT",
            "tenant id" => "TENANT_ID",
            "token lifetime" => "TOKEN_LIFETIME",
            "state file" => state_setting,
            other => other,
        };
        invalid_variable(variable)(error.clone())
    })?;
    let server = bound.server();
    let application = match server.applications().into_iter().next() {
        Some(application) => application,
        None => server
            .register("First application")
            .map_err(invalid_variable(state_setting))?,
    };
    let shutdown = common::shutdown_signal();
    println!("{}", credentials(server, &application));
    eprintln!(
        "Development authorization server at {0}. Not for production. Its dashboard: {0}/",
        server.base_url()
    );
    bound.serve(shutdown).await;
    Ok(())
}

/// Parses `--state FILE`, the only argument.
fn state_argument() -> Result<Option<PathBuf>, SettingError> {
    let mut arguments = std::env::args_os().skip(1);
    let Some(name) = arguments.next() else {
        return Ok(None);
    };
    match (name.to_str(), arguments.next(), arguments.next()) {
        (Some("--state"), Some(path), None) if !path.is_empty() => Ok(Some(path.into())),
        (Some("--state"), ..) => Err(SettingError::new("--state", "needs exactly one file")),
        _ => Err(SettingError::new(
            &name.to_string_lossy(),
            "is not an argument: use `--state FILE`",
        )),
    }
}

/// The service credentials with the management token.
fn credentials(
    server: &AuthorizationServer,
    application: &RegisteredApplication,
) -> serde_json::Value {
    let mut credentials = application.service_credentials();
    if let Some(members) = credentials.as_object_mut() {
        members.insert(
            "managementToken".to_owned(),
            json!(server.management_token().expose_secret()),
        );
    }
    credentials
}
