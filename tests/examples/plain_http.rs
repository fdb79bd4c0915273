//! `ALLOW_HTTP` of the example programs.

use std::net::IpAddr;

use reqwest::StatusCode;
use serde_json::json;
use tokio::net::TcpListener;

use crate::support::program::{Serving, example};

const MESH: &str = "http://keycloak.sso.svc/realms/shop";

#[tokio::test]
async fn plain_http_exits_with_2_unless_its_host_is_allowed() {
    let resource: &[(&str, &str)] = &[("ISSUER", MESH), ("AUDIENCE", "orders")];
    let https: &[(&str, &str)] = &[("ISSUER", "https://as.example"), ("AUDIENCE", "orders")];
    let client: &[(&str, &str)] = &[
        ("OAUTH_SERVER_URL", MESH),
        ("CLIENT_ID", "shop"),
        ("CLIENT_SECRET", "s3cret"),
    ];
    let binding =
        r#"{"clientId":"a","secret":"s3cret","oauthServerUrl":"http://appid/oauth/v4/t"}"#;
    let binding: &[(&str, &str)] = &[("APPID_SERVICE_BINDING", binding)];
    let binding_hint = "APPID_SERVICE_BINDING: is plain http: use https, or set ALLOW_HTTP=appid";
    let jwks_uri = &[https, &[("JWKS_URI", MESH)]].concat();
    let hint = "ISSUER: is plain http: use https, or set ALLOW_HTTP=keycloak.sso.svc";
    let url_hint = "URL: is plain http: use https, or set ALLOW_HTTP=orders";
    for (program, url, variables, allowed, expected) in [
        ("protected_resource", "", resource, "", hint),
        ("protected_resource", "", resource, " ", hint),
        ("protected_resource", "", resource, "sso.svc", hint),
        (
            "protected_resource",
            "",
            resource,
            "keycloak,localhost",
            hint,
        ),
        (
            "protected_resource",
            "",
            jwks_uri,
            "keycloak",
            "JWKS_URI: is plain http",
        ),
        ("forward_auth", "", resource, "keycloak", hint),
        ("protected_resource", "", binding, "keycloak", binding_hint),
        (
            "call_protected_resource",
            "https://orders",
            binding,
            "orders",
            binding_hint,
        ),
        (
            "call_protected_resource",
            "https://orders",
            client,
            "orders",
            "OAUTH_SERVER_URL: is",
        ),
        (
            "call_protected_resource",
            "http://orders:80/",
            client,
            "keycloak.sso.svc",
            url_hint,
        ),
        (
            "protected_resource",
            "",
            https,
            "*",
            "ALLOW_HTTP: must be host names",
        ),
        (
            "protected_resource",
            "",
            https,
            "*.sso.svc",
            "ALLOW_HTTP: must be host names",
        ),
        (
            "protected_resource",
            "",
            https,
            MESH,
            "ALLOW_HTTP: must be host names",
        ),
        (
            "protected_resource",
            "",
            https,
            "keycloak:8080",
            "ALLOW_HTTP: must be host names",
        ),
        (
            "protected_resource",
            "",
            https,
            "keycloak,,orders",
            "ALLOW_HTTP: must be host names",
        ),
        (
            "protected_resource",
            "",
            https,
            "169.254.169.254",
            "invalid ALLOW_HTTP",
        ),
        (
            "forward_auth",
            "",
            https,
            "a b",
            "ALLOW_HTTP: must be host names",
        ),
        (
            "call_protected_resource",
            "https://orders",
            client,
            "*",
            "ALLOW_HTTP: must be",
        ),
    ] {
        let mut command = example(program);
        command.args(Some(url).filter(|url| !url.is_empty()));
        command.envs(variables.iter().copied());
        let output = command.env("ALLOW_HTTP", allowed).output().await.unwrap();
        let log = String::from_utf8_lossy(&output.stderr);
        let context = format!("{program} {variables:?} {allowed:?}: {log}");
        assert_eq!(output.status.code(), Some(2), "{context}");
        assert!(
            log.contains(expected) && log.lines().count() == 1,
            "{context}"
        );
    }
}

/// A name other than `localhost` of a loopback address of this machine.
fn loopback_name() -> Option<(String, IpAddr)> {
    let hosts = std::fs::read_to_string("/etc/hosts").ok()?;
    hosts.lines().find_map(|line| {
        let mut words = line.split('#').next()?.split_whitespace();
        let address: IpAddr = words.next()?.parse().ok()?;
        let is_name = |name: &&str| !name.eq_ignore_ascii_case("localhost");
        let name = words
            .find(is_name)
            .filter(|_| address.is_ipv4() && address.is_loopback())?;
        Some((name.to_owned(), address))
    })
}

#[tokio::test]
async fn keys_tokens_and_calls_use_plain_http_to_the_allowed_host() {
    let Some((host, address)) = loopback_name() else {
        eprintln!("skipped: /etc/hosts has no second name of loopback");
        return;
    };
    let listener = TcpListener::bind((address, 0)).await.unwrap();
    let issuer = format!("http://{host}:{}", listener.local_addr().unwrap().port());
    let base = issuer.clone();
    let router = axum::Router::new().fallback(async move |request: axum::extract::Request| {
        let header = |name| {
            request
                .headers()
                .get(name)
                .map(|value| value.to_str().unwrap())
        };
        let user_agent = header("user-agent").unwrap_or_default();
        let body = match request.uri().path() {
            "/.well-known/openid-configuration" => json!({
                "issuer": base, "jwks_uri": format!("{base}/keys"),
                "token_endpoint": format!("{base}/token"),
            }),
            "/keys" => json!({ "keys": [{
                "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
            }] }),
            "/token" => {
                json!({ "access_token": "a-token", "token_type": "Bearer", "expires_in": 3600 })
            }
            _ => {
                return (
                    StatusCode::OK,
                    header("authorization").unwrap_or("none").to_owned(),
                );
            }
        };
        assert!(user_agent.starts_with("tower-oauth/"), "{user_agent}");
        (StatusCode::OK, body.to_string())
    });
    tokio::spawn(async move { axum::serve(listener, router).await });

    let allowed = format!(" orders , {host} ");
    let mut command = example("protected_resource");
    command
        .env("ISSUER", &issuer)
        .env("AUDIENCE", "orders")
        .env("ALLOW_HTTP", &allowed);
    let resource = Serving::start(command).await;
    let ready = format!("{}/readyz", resource.text("listening"));
    let became_ready = async {
        while crate::support::program::get(&ready, None).await.0 != StatusCode::OK {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    let limit = std::time::Duration::from_secs(20);
    tokio::time::timeout(limit, became_ready)
        .await
        .expect("ready");
    let (code, log) = resource.terminate().await;
    assert_eq!(code, Some(0));
    for host in [host.as_str(), "orders"] {
        assert_eq!(log.matches(&format!("host={host}")).count(), 1, "{log}");
    }

    let output = example("call_protected_resource")
        .arg(format!("{issuer}/echo"))
        .env("OAUTH_SERVER_URL", &issuer)
        .env("CLIENT_ID", "shop")
        .env("CLIENT_SECRET", "s3cret")
        .env("ALLOW_HTTP", &allowed)
        .env("HTTP_PROXY", "http://127.0.0.1:9") // not used
        .output()
        .await
        .unwrap();
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{log}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "Bearer a-token\n");
    assert_eq!(log.matches(&format!("host={host}")).count(), 1, "{log}");
}
