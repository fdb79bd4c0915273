//! Explains why a token is accepted or rejected, for the operator of a service.
//!
//! ```console
//! $ export ISSUER=https://as.example AUDIENCE=orders
//! $ cargo run --example explain < token.txt
//! rejected: invalid_audience (401)
//! failed   aud is ["account"], trusted: ["orders"]. Keycloak: add an audience mapper to the client …
//! passed   length: 959 bytes, expected: 1 to 16384 bytes
//! …
//! ```
//!
//! The settings are those of `protected_resource`: an App ID binding, or `ISSUER` and `AUDIENCE`,
//! and `JWKS_URI`, `TOKEN_PROFILE`, `CLIENTS`, `REQUIRED_CLAIMS`. The keys are fetched first. With
//! the argument `--json` the explanation is one line of JSON.
//!
//! The token is read from standard input: as an argument it would be in the history of the shell,
//! and in the list of processes. A line may be a whole header field, `Authorization: Bearer …`.
//!
//! Exit codes: 0 for an accepted token, 1 for a rejected one, 2 for a bad setting.

#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::duplicate_mod,
    reason = "a program, not a library"
)]

#[path = "common/mod.rs"]
mod common;
#[allow(dead_code, reason = "its settings, not its routes")]
#[path = "protected_resource.rs"]
mod protected_resource;

use std::io::{IsTerminal as _, Read as _};
use std::process::ExitCode;

use common::SettingError;

/// The longest input in bytes.
const MAX_INPUT: u64 = 1024 * 1024;

#[tokio::main]
async fn main() -> ExitCode {
    common::log_to_stderr();
    let server = match protected_resource::settings() {
        Ok(settings) => settings.start().await,
        Err(error) => return error.exit(),
    };
    let server = match server {
        Ok(server) => server,
        Err(error) => return common::start_error(error).exit(),
    };
    let is_json = match std::env::args().nth(1).as_deref() {
        None => false,
        Some("--json") => true,
        Some(_) => return SettingError::new("argument", "must be `--json`").exit(),
    };
    let input = match read_input() {
        Ok(input) => input,
        Err(error) => return SettingError::new("standard input", error).exit(),
    };
    let explanation = server.explain(token(&input));
    match serde_json::to_string(&explanation) {
        Ok(json) if is_json => println!("{json}"),
        _ => println!("{explanation}"),
    }
    match explanation.is_accepted() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

fn read_input() -> std::io::Result<String> {
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        eprintln!("Paste the token, then press Enter and Ctrl-D.");
    }
    let mut input = Vec::new();
    stdin.lock().take(MAX_INPUT).read_to_end(&mut input)?;
    Ok(String::from_utf8_lossy(&input).into_owned())
}

/// The token in the input, without white space around it, field name and scheme.
fn token(input: &str) -> &str {
    let without = |text: &'_ str, start: &str| match text.split_at_checked(start.len()) {
        Some((found, _)) if found.eq_ignore_ascii_case(start) => start.len(),
        _ => 0,
    };
    let input = input.trim();
    let field = input.get(without(input, "authorization:")..);
    let value = field.unwrap_or_default().trim_start();
    let token = value.get(without(value, "bearer ")..);
    token.unwrap_or_default().trim_start()
}
