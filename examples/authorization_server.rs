//! The embedded development authorization server. Not for production.
//!
//! ```console
//! $ cargo run --release --example authorization_server
//! ```
//!
//! It prints the App ID service credentials of a first application as one line of JSON, which
//! the other examples take as `APPID_SERVICE_BINDING`. Its address, opened in a browser, is a
//! dashboard: applications and their credentials, tokens to try, keys, activity, faults.
//!
//! | variable | default | meaning |
//! | --- | --- | --- |
//! | `PORT` | 6002 | loopback port; 0 takes a free one |
//! | `TENANT_ID` | that of App ID's guide | the tenant it serves |
//! | `TOKEN_LIFETIME` | 3600 | seconds an access token lives |
//! | `ALGORITHM` | RS256 | what its keys are for |
//! | `STATE_FILE` | none | keeps applications and keys over restarts; the same as `--state FILE` |

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

use common::{Unusable, from_variable, parsed, variable};
use secrecy::ExposeSecret as _;
use serde_json::json;
use tower_oauth::Algorithm;
use tower_oauth::authorization_server::{AuthorizationServer, RegisteredApplication};

#[tokio::main]
async fn main() -> ExitCode {
    common::log_to_stderr();
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(unusable) => unusable.exit(),
    }
}

async fn run() -> Result<(), Unusable> {
    let port = parsed("PORT", 6002)?;
    let lifetime = Duration::from_secs(parsed("TOKEN_LIFETIME", 3600)?);
    let mut builder = AuthorizationServer::builder().token_lifetime(lifetime);
    if let Some(tenant_id) = variable("TENANT_ID")? {
        builder = builder.tenant_id(tenant_id);
    }
    if let Some(name) = variable("ALGORITHM")? {
        let algorithm = Algorithm::from_name(&name)
            .ok_or_else(|| Unusable::new("ALGORITHM", "is not known"))?;
        builder = builder.algorithm(algorithm);
    }
    let (state_file, state_setting) = match argument()? {
        Some(path) => (Some(path), "--state"),
        None => (variable("STATE_FILE")?.map(PathBuf::from), "STATE_FILE"),
    };
    if let Some(path) = state_file {
        builder = builder.state_file(path);
    }
    let listening = builder.bind(port).await.map_err(|error| {
        let variable = match error.setting() {
            "port" => "PORT",
            "tenant id" => "TENANT_ID",
            "token lifetime" => "TOKEN_LIFETIME",
            "state file" => state_setting,
            other => other,
        };
        from_variable(variable)(error.clone())
    })?;
    let server = listening.server();
    let application = match server.applications().into_iter().next() {
        Some(application) => application,
        None => server
            .register("First application")
            .map_err(from_variable(state_setting))?,
    };
    println!("{}", credentials(server, &application));
    eprintln!(
        "Development authorization server at {0}. Not for production. Its dashboard: {0}/",
        server.base_url()
    );
    listening.serve(common::asked_to_end()).await;
    Ok(())
}

/// The file after `--state`, the only argument that there is.
fn argument() -> Result<Option<PathBuf>, Unusable> {
    let mut arguments = std::env::args_os().skip(1);
    let Some(name) = arguments.next() else {
        return Ok(None);
    };
    match (name.to_str(), arguments.next(), arguments.next()) {
        (Some("--state"), Some(path), None) if !path.is_empty() => Ok(Some(path.into())),
        (Some("--state"), ..) => Err(Unusable::new("--state", "takes one file")),
        _ => Err(Unusable::new(
            &name.to_string_lossy(),
            "is not known; there is `--state FILE`",
        )),
    }
}

/// Everything that a caller, a protected resource and an administrator need.
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
