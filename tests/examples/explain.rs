//! The example `explain`: its output and its exit codes.

use std::process::{Output, Stdio};

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tower_oauth::clock::{Clock as _, SystemClock};

use crate::support::issuer::{set, with_claims};
use crate::support::program::example;
use crate::support::raw_issuer::{Behavior, RawIssuer, ok_response};
use crate::support::{AUDIENCE, ISSUER, claims_with, rsa};

async fn issuer() -> RawIssuer {
    let keys = set(&[("a", rsa(0))]).to_string();
    RawIssuer::start(Behavior::Respond(ok_response(keys.as_bytes()))).await
}

/// Runs the program with this input, and the keys of the issuer.
async fn explain(
    issuer: &RawIssuer,
    variables: &[(&str, &str)],
    arguments: &[&str],
    input: &str,
) -> Output {
    let mut command = example("explain");
    command
        .env("ISSUER", ISSUER)
        .env("JWKS_URI", format!("http://{}/keys", issuer.address))
        .env("AUDIENCE", AUDIENCE)
        .env("RUST_LOG", "trace")
        .envs(variables.iter().copied())
        .args(arguments)
        .stdin(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // A program with a bad setting reads nothing.
    let _closed = stdin.write_all(input.as_bytes()).await;
    drop(stdin);
    child.wait_with_output().await.unwrap()
}

/// A token of now with these changes.
fn token(mut changes: Value) -> String {
    let now = SystemClock.now().as_secs();
    changes["iat"] = json!(now);
    changes["exp"] = json!(now + 600);
    with_claims("a", rsa(0), &claims_with(changes))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[tokio::test]
async fn an_accepted_token_is_exit_code_0_and_a_rejected_one_1() {
    let issuer = issuer().await;
    let good = token(json!({}));
    let field = format!("Authorization: Bearer {good}\r\n");
    for input in [
        &good,
        &format!("{good}\n"),
        &format!("bearer {good}"),
        &field,
    ] {
        let output = explain(&issuer, &[], &[], input).await;
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stdout));
        assert!(text(&output.stdout).starts_with("accepted\n"));
        assert!(!text(&output.stderr).contains(&good));
    }
    let account = token(json!({ "aud": ["account"] }));
    let output = explain(&issuer, &[], &[], &account).await;
    assert_eq!(output.status.code(), Some(1));
    let printed = text(&output.stdout);
    let line = r#"aud is ["account"], trusted: ["orders"]. Keycloak: add an audience mapper"#;
    assert!(printed.contains(line), "{printed}");
    for printed in [printed, text(&output.stderr)] {
        assert!(!printed.contains(account.rsplit('.').next().unwrap()));
    }
}

#[tokio::test]
async fn the_explanation_is_json_on_request_and_has_the_settings_of_the_service() {
    let issuer = issuer().await;
    let variables = [
        ("CLIENTS", "shop"),
        ("REQUIRED_CLAIMS", r#"{"env":"staging"}"#),
    ];
    let token = token(json!({ "client_id": "other", "env": "test" }));
    let output = explain(&issuer, &variables, &["--json"], &token).await;
    assert_eq!(output.status.code(), Some(1));
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["rejection"], "invalid_claims");
    let failed = json["checks"].as_array().unwrap().iter();
    let failed = failed.filter(|check| check["outcome"] == "failed");
    let failed: Vec<_> = failed
        .map(|check| check["name"].as_str().unwrap())
        .collect();
    assert_eq!(failed, ["required_claims", "client"]);
    assert_eq!(json["key_set"]["state"], "healthy");
}

#[tokio::test]
async fn a_bad_setting_is_exit_code_2_and_names_itself() {
    let issuer = issuer().await;
    for (variables, arguments, named) in [
        (&[("AUDIENCE", " ")][..], &[][..], "AUDIENCE"),
        (&[("ISSUER", "http://as.example")], &[], "ISSUER"),
        (&[("TOKEN_PROFILE", "x")], &[], "TOKEN_PROFILE"),
        (&[], &["--yaml"], "argument"),
    ] {
        let output = explain(&issuer, variables, arguments, "a.b.c").await;
        assert_eq!(output.status.code(), Some(2), "{named}");
        assert!(output.stdout.is_empty());
        let last = text(&output.stderr);
        let last = last.lines().last().unwrap();
        assert!(last.contains(named), "{last}");
    }
}
