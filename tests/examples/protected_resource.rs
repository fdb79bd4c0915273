//! The settings of the example program that restrict tokens and choose keys.

use std::time::Duration;

use reqwest::StatusCode;
use serde_json::{Value, json};
use tower_oauth::clock::{Clock as _, SystemClock};

use crate::support::issuer::{set, with_claims};
use crate::support::program::{Serving, example, get};
use crate::support::raw_issuer::{Behavior, RawIssuer, ok_response};
use crate::support::{AUDIENCE, ISSUER, claims_with, rsa};

fn serve(keys: &Value) -> Behavior {
    Behavior::Respond(ok_response(keys.to_string().as_bytes()))
}

/// The program with these variables, when it has the keys of the issuer.
async fn start(issuer: &RawIssuer, variables: &[(&str, &str)]) -> Serving {
    let mut command = example("protected_resource");
    command
        .env("ISSUER", ISSUER)
        .env("JWKS_URI", format!("http://{}/keys", issuer.address))
        .env("AUDIENCE", AUDIENCE)
        .envs(variables.iter().copied());
    let serving = Serving::start(command).await;
    let ready = format!("{}/readyz", serving.text("listening"));
    let became_ready = async {
        while get(&ready, None).await.0 != StatusCode::OK {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), became_ready)
        .await
        .expect("ready within 20 seconds");
    serving
}

/// A token of now with these changes, with a key under the `kid` "a".
fn token(key: usize, mut changes: Value) -> String {
    let now = SystemClock.now().as_secs();
    changes["iat"] = json!(now);
    changes["exp"] = json!(now + 600);
    with_claims("a", rsa(key), &claims_with(changes))
}

async fn status(program: &Serving, token: &str) -> StatusCode {
    let url = format!("{}/protected_resource", program.text("listening"));
    get(&url, Some(token)).await.0
}

#[tokio::test]
async fn tokens_are_restricted_to_clients_and_claims() {
    let issuer = RawIssuer::start(serve(&set(&[("a", rsa(0))]))).await;
    let program = start(
        &issuer,
        &[
            ("CLIENTS", "shop, warehouse"),
            ("AUDIENCE_OPTIONAL", "true"),
            (
                "REQUIRED_CLAIMS",
                r#"{"token_use":"access","tier":[1,"gold"]}"#,
            ),
        ],
    )
    .await;
    for (changes, expected) in [
        (json!({}), StatusCode::OK),
        (json!({ "aud": null }), StatusCode::OK),
        (
            json!({ "client_id": null, "azp": "warehouse" }),
            StatusCode::OK,
        ),
        (json!({ "tier": "gold" }), StatusCode::OK),
        (json!({ "aud": "other" }), StatusCode::UNAUTHORIZED),
        (json!({ "client_id": "other" }), StatusCode::UNAUTHORIZED),
        (json!({ "client_id": null }), StatusCode::UNAUTHORIZED),
        (
            json!({ "aud": null, "client_id": "other" }),
            StatusCode::UNAUTHORIZED,
        ),
        (json!({ "appid": 7 }), StatusCode::UNAUTHORIZED),
        (json!({ "token_use": "id" }), StatusCode::UNAUTHORIZED),
        (json!({ "token_use": null }), StatusCode::UNAUTHORIZED),
        (json!({ "tier": "1" }), StatusCode::UNAUTHORIZED),
        (json!({ "tier": ["gold"] }), StatusCode::UNAUTHORIZED),
    ] {
        let mut all = json!({ "client_id": "shop", "token_use": "access", "tier": 1 });
        for (name, value) in changes.as_object().unwrap() {
            all[name] = value.clone();
        }
        for _ in 0..3 {
            assert_eq!(
                status(&program, &token(0, all.clone())).await,
                expected,
                "{changes}"
            );
        }
    }
    // Without the settings, the audience is required, and nothing else.
    let program = start(&issuer, &[]).await;
    assert_eq!(status(&program, &token(0, json!({}))).await, StatusCode::OK);
    let without = token(0, json!({ "aud": null, "client_id": "shop" }));
    assert_eq!(status(&program, &without).await, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_reused_kid_is_refreshed_only_with_the_setting() {
    let issuer = RawIssuer::start(serve(&set(&[("a", rsa(0))]))).await;
    let reused = start(&issuer, &[("REUSED_KEY_IDS", "true")]).await;
    let default = start(&issuer, &[("REUSED_KEY_IDS", "false")]).await;
    for program in [&reused, &default] {
        assert_eq!(status(program, &token(0, json!({}))).await, StatusCode::OK);
    }
    issuer.set_behavior(serve(&set(&[("a", rsa(1))]))).await;
    let new = token(1, json!({}));
    assert_eq!(status(&reused, &new).await, StatusCode::OK);
    assert_eq!(status(&default, &new).await, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn keys_that_share_a_kid_are_tried_only_with_the_setting() {
    let keys = set(&[("a", rsa(0)), ("a", rsa(1)), ("b", rsa(2))]);
    let issuer = RawIssuer::start(serve(&keys)).await;
    let several = start(&issuer, &[("CANDIDATE_KEYS", "2")]).await;
    let default = start(&issuer, &[]).await;
    for key in [0, 1] {
        let token = token(key, json!({}));
        assert_eq!(status(&several, &token).await, StatusCode::OK);
        assert_eq!(status(&default, &token).await, StatusCode::UNAUTHORIZED);
    }
}
