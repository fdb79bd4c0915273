//! `ALLOW_HTTP` of the example programs.

use std::io::Write as _;
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
    let https_client = &[client, &[("OAUTH_SERVER_URL", "https://as.example")]].concat();
    let binding =
        r#"{"clientId":"a","secret":"s3cret","oauthServerUrl":"http://appid/oauth/v4/t"}"#;
    let binding: &[(&str, &str)] = &[("APPID_SERVICE_BINDING", binding)];
    let binding_hint = "APPID_SERVICE_BINDING: is plain http: use https, or set ALLOW_HTTP=appid";
    let jwks_uri = &[https, &[("JWKS_URI", MESH)]].concat();
    let hint = "ISSUER: is plain http: use https, or set ALLOW_HTTP=keycloak.sso.svc";
    let url_hint = "URL: is plain http: use https, or set ALLOW_HTTP=orders";
    let wildcard = "ALLOW_HTTP must contain each host by its name: wildcards are not supported";
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
        ("protected_resource", "", https, "*", wildcard),
        ("protected_resource", "", https, "*.sso.svc", wildcard),
        (
            "protected_resource",
            "",
            https,
            MESH,
            "ALLOW_HTTP must contain host names only: remove scheme",
        ),
        (
            "protected_resource",
            "",
            https,
            "keycloak:8080",
            "ALLOW_HTTP must contain host names only: remove the port",
        ),
        (
            "protected_resource",
            "",
            https,
            "keycloak,,orders",
            "ALLOW_HTTP must not contain an empty host name",
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
            "ALLOW_HTTP must contain valid host names",
        ),
        (
            "call_protected_resource",
            "https://orders",
            https_client,
            "*",
            wildcard,
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

#[tokio::test]
async fn a_host_of_allow_http_may_be_written_in_each_form_that_urls_have() {
    // In `ISSUER`, in `ALLOW_HTTP`, and as it is suggested.
    for (host, allowed, suggested) in [
        ("[fd12::1]:8080", "[fd12::1]", "[fd12::1]"),
        ("[fd12:0::1]:8080", "fd12::1", "[fd12::1]"),
        ("bücher.svc", "bücher.svc", "xn--bcher-kva.svc"),
        ("B\u{fc}cher.svc", "xn--bcher-kva.svc", "xn--bcher-kva.svc"),
        ("0x0a010203", "10.1.2.3", "10.1.2.3"),
    ] {
        let log_with = async |allowed: &str| {
            let mut command = example("call_protected_resource");
            command
                .arg(format!("http://{host}/"))
                .env("ISSUER", format!("http://{host}/realms/shop"))
                .env("CLIENT_ID", "shop")
                .env("CLIENT_SECRET", "s3cret")
                .env("ALLOW_HTTP", allowed)
                .env("RENEW_ON_401", "other"); // ends the program after the token manager is built
            let output = command.output().await.unwrap();
            assert_eq!(output.status.code(), Some(2), "{host} {allowed}");
            String::from_utf8(output.stderr).unwrap()
        };
        let log = log_with("").await;
        let hint = format!("use https, or set ALLOW_HTTP={suggested}\n");
        assert!(log.ends_with(&hint), "{log}");
        for allowed in [allowed, suggested] {
            let log = log_with(allowed).await;
            assert!(log.contains("RENEW_ON_401: must be"), "{host}: {log}");
        }
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
        let reason = "no name but localhost is one of loopback in /etc/hosts";
        assert!(std::env::var_os("REQUIRE_HOSTS").is_none(), "{reason}");
        // Not `eprintln!`, whose text the test program hides.
        writeln!(std::io::stderr(), "skipped plain http: {reason}").unwrap();
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
            "/keys" | "/oauth/v4/t/publickeys" => json!({ "keys": [{
                "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
            }] }),
            "/token" | "/oauth/v4/t/token" | "/oauth/v3/t/token" => {
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
    let binding = json!({
        "clientId": "shop", "secret": "s3cret", "oauthServerUrl": format!("{issuer}/oauth/v4/t"),
    })
    .to_string();
    let v3 = format!("{issuer}/oauth/v3/t");
    let by_binding = [("APPID_SERVICE_BINDING", binding.as_str())];

    for variables in [
        &[("ISSUER", issuer.as_str()), ("AUDIENCE", "orders")][..],
        &by_binding,
    ] {
        let mut command = example("protected_resource");
        command.envs(variables.iter().copied());
        command.env("ALLOW_HTTP", &allowed);
        let resource = Serving::start(command).await;
        resource.wait_until_ready().await;
        let (code, log) = resource.terminate().await;
        assert_eq!(code, Some(0));
        for host in [host.as_str(), "orders"] {
            assert_eq!(log.matches(&format!("host={host}")).count(), 1, "{log}");
        }
    }

    let client = [("CLIENT_ID", "shop"), ("CLIENT_SECRET", "s3cret")];
    let by_url = |url| [&client[..], &[("OAUTH_SERVER_URL", url)]].concat();
    for variables in [by_url(&issuer), by_url(&v3), by_binding.to_vec()] {
        let output = example("call_protected_resource")
            .arg(format!("{issuer}/echo"))
            .envs(variables)
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
}
