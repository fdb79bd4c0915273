//! The settings of the example program that restrict tokens, choose keys and describe the resource.

use reqwest::StatusCode;
use serde_json::{Value, json};
use tower_oauth::clock::{Clock as _, SystemClock};

use crate::support::issuer::{set, with_claims};
use crate::support::program::{Serving, example, get};
use crate::support::raw_issuer::{Behavior, RawIssuer, ok_response};
use crate::support::{AUDIENCE, ISSUER, claims_with, compact, rsa};

fn serve(keys: &Value) -> Behavior {
    Behavior::Respond(ok_response(keys.to_string().as_bytes()))
}

/// The program with these variables, when it has the keys of the issuer.
async fn start(issuer: &RawIssuer, variables: &[(&str, &str)]) -> Serving {
    start_for_resource(issuer, &[&[("AUDIENCE", AUDIENCE)], variables].concat()).await
}

/// The same, without an audience unless the variables have one.
async fn start_for_resource(issuer: &RawIssuer, variables: &[(&str, &str)]) -> Serving {
    let mut command = example("protected_resource");
    command
        .env("ISSUER", ISSUER)
        .env("JWKS_URI", format!("http://{}/keys", issuer.address))
        .envs(variables.iter().copied());
    let serving = Serving::start(command).await;
    serving.wait_until_ready().await;
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

#[tokio::test]
async fn the_strict_profile_of_tokens_applies_only_with_the_setting() {
    let issuer = RawIssuer::start(serve(&set(&[("a", rsa(0))]))).await;
    let strict = start(&issuer, &[("TOKEN_PROFILE", "rfc9068")]).await;
    let named = start(&issuer, &[("TOKEN_PROFILE", "jwt")]).await;
    let default = start(&issuer, &[]).await;
    let now = SystemClock.now().as_secs();
    let token = |typ: &str, changes: Value| {
        let mut claims = claims_with(json!({ "iat": now, "exp": now + 600 }));
        claims["client_id"] = json!("shop");
        claims["jti"] = json!("1");
        for (name, value) in changes.as_object().unwrap() {
            claims[name] = value.clone();
        }
        let header = json!({ "alg": "RS256", "kid": "a", "typ": typ }).to_string();
        let claims = claims.to_string();
        compact(rsa(0), "RS256", &header, claims.as_bytes())
    };
    let (ok, unauthorized) = (StatusCode::OK, StatusCode::UNAUTHORIZED);
    for (token, expected) in [
        (token("at+jwt", json!({})), ok),
        (token("application/at+jwt", json!({})), ok),
        (token("JWT", json!({})), unauthorized),
        (token("at+jwt", json!({ "jti": null })), unauthorized),
    ] {
        assert_eq!(status(&strict, &token).await, expected);
        assert_eq!(status(&named, &token).await, ok);
        assert_eq!(status(&default, &token).await, ok);
    }
}

/// The response to a GET, and its challenge.
async fn response(program: &Serving, target: &str, token: Option<&str>) -> (u16, String, String) {
    let url = format!("{}{target}", program.text("listening"));
    let mut request = reqwest::Client::new().get(url);
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    let response = request.send().await.unwrap();
    let challenge = response.headers().get("www-authenticate");
    let challenge = challenge.map_or("", |value| value.to_str().unwrap());
    let (status, challenge) = (response.status().as_u16(), challenge.to_owned());
    (status, challenge, response.text().await.unwrap())
}

const WELL_KNOWN: &str = "/.well-known/oauth-protected-resource";

#[tokio::test]
async fn a_resource_is_its_audience_and_its_document_is_open() {
    let issuer = RawIssuer::start(serve(&set(&[("a", rsa(0))]))).await;
    // Plain http is for loopback. axum takes a segment such as `:orders` for a mistake.
    for resource in [
        "https://api.example/orders",
        "http://127.0.0.1:1",
        "https://api.example/:orders/*all",
    ] {
        let suffix = resource.splitn(4, '/').nth(3);
        let suffix = suffix.map_or(String::new(), |path| format!("/{path}"));
        let place = format!("{WELL_KNOWN}{suffix}");
        let url = format!("{}{place}", &resource[..resource.len() - suffix.len()]);
        let scope = "orders.read  orders.list ";
        let variables = [("RESOURCE", resource), ("RESOURCE_SCOPE", scope)];
        let program = start_for_resource(&issuer, &variables).await;

        let expired = token(0, json!({ "aud": "other" }));
        for bad_or_none in [None, Some("x"), Some(expired.as_str())] {
            let (status, challenge, body) = response(&program, &place, bad_or_none).await;
            assert_eq!((status, challenge.as_str()), (200, ""), "{resource}");
            let document: Value = serde_json::from_str(&body).unwrap();
            let expected = json!({
                "resource": resource,
                "authorization_servers": [ISSUER],
                "bearer_methods_supported": ["header"],
            });
            assert_eq!(document, expected);
        }
        let metadata = format!(r#"resource_metadata="{url}""#);
        let scope = r#"scope="orders.read orders.list""#;
        for (target, expected) in [
            ("/protected_resource", format!("{scope}, {metadata}")),
            ("/context", metadata.clone()),
            ("/reports", metadata.clone()),
        ] {
            let (status, challenge, _) = response(&program, target, None).await;
            let expected = format!(r#"Bearer realm="resource", {expected}"#);
            assert_eq!((status, challenge), (401, expected), "{target}");
        }
        let own = token(0, json!({ "aud": resource }));
        assert_eq!(status(&program, &own).await, StatusCode::OK);
        let (status_code, challenge, _) = response(&program, "/reports", Some(&own)).await;
        assert!(status_code == 403 && challenge.ends_with(&metadata));
        assert!(challenge.contains(r#"scope="reports.read""#), "{challenge}");
        let other = token(0, json!({ "aud": format!("{resource}/") }));
        assert_eq!(status(&program, &other).await, StatusCode::UNAUTHORIZED);

        let elsewhere = format!("{WELL_KNOWN}/elsewhere");
        for target in [elsewhere.as_str(), "/nowhere", &format!("{place}/x")] {
            for token in [None, Some(own.as_str())] {
                assert_eq!(response(&program, target, token).await.0, 404, "{target}");
            }
        }
    }
}

#[tokio::test]
async fn an_audience_replaces_that_of_the_resource_and_scopes_need_no_resource() {
    let issuer = RawIssuer::start(serve(&set(&[("a", rsa(0))]))).await;
    let resource = "https://api.example/orders";
    let program = start(&issuer, &[("RESOURCE", resource)]).await;
    assert_eq!(status(&program, &token(0, json!({}))).await, StatusCode::OK);
    let for_resource = token(0, json!({ "aud": resource }));
    let unauthorized = StatusCode::UNAUTHORIZED;
    assert_eq!(status(&program, &for_resource).await, unauthorized);
    let (status, challenge, _) = response(&program, "/protected_resource", None).await;
    let url = "https://api.example/.well-known/oauth-protected-resource/orders";
    let expected = format!(r#"Bearer realm="resource", resource_metadata="{url}""#);
    assert_eq!((status, challenge), (401, expected));

    let program = start(&issuer, &[("RESOURCE_SCOPE", "orders.read")]).await;
    let (status, challenge, _) = response(&program, "/protected_resource", None).await;
    let expected = r#"Bearer realm="resource", scope="orders.read""#;
    assert_eq!((status, challenge.as_str()), (401, expected));
    assert_eq!(response(&program, WELL_KNOWN, None).await.0, 404);
}
