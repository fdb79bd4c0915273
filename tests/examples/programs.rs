//! The example programs: outputs, exit codes, signals, and no secrets in the output. Scripts rely
//! on them.

#[allow(
    clippy::duplicate_mod,
    reason = "the example `forward_auth` includes it, too"
)]
#[path = "../../examples/common/mod.rs"]
mod common;

use std::net::SocketAddr;
use std::pin::Pin;
use std::process::{Output, Stdio};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tempfile::{NamedTempFile, TempDir};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::sync::mpsc;

use crate::support::jwt;
use crate::support::program::{Serving, example, get, token};

async fn authorization_server() -> Serving {
    let mut command = example("authorization_server");
    command.env("RUST_LOG", "trace");
    Serving::start(command).await
}

pub(super) async fn protected_resource(binding: &Value) -> Serving {
    let mut command = example("protected_resource");
    command
        .env("APPID_SERVICE_BINDING", binding.to_string())
        .env("RUST_LOG", "trace");
    Serving::start(command).await
}

/// Runs a caller until it exits; its last line on stderr is the summary.
pub(super) async fn call(url: &str, variables: &[(&str, &str)]) -> (Output, Value) {
    let mut command = example("call_protected_resource");
    command
        .arg(url)
        .envs(variables.iter().copied())
        .env("RUST_LOG", "trace");
    let output = command.output().await.unwrap();
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    let tally = serde_json::from_str(log.lines().last().unwrap_or_default()).unwrap_or_default();
    (output, tally)
}

#[tokio::test]
async fn the_guides_flow_works_and_survives_the_authorization_server() {
    let issuer = authorization_server().await;
    let resource = protected_resource(&issuer.printed).await;
    let listening = resource.text("listening");
    let v4 = issuer.text("oauthServerUrl");
    let v3 = v4.replace("/v4/", "/v3/");
    let mut secrets = vec![issuer.text("secret"), issuer.text("managementToken")];

    for base in [&v3, &v4] {
        let token = token(&issuer, base).await;
        let url = format!("{listening}/protected_resource");
        assert_eq!(
            get(&url, Some(&token)).await,
            (StatusCode::OK, "Hello from protected resource".to_owned())
        );
        secrets.push(token);
    }
    assert_eq!(
        get(&format!("{listening}/protected_resource"), None)
            .await
            .0,
        StatusCode::UNAUTHORIZED
    );
    assert_eq!(
        get(
            &format!("{listening}/reports"),
            secrets.last().map(String::as_str)
        )
        .await
        .0,
        StatusCode::FORBIDDEN
    );
    let (_, context) = get(
        &format!("{listening}/context"),
        secrets.last().map(String::as_str),
    )
    .await;
    let context: Value = serde_json::from_str(&context).unwrap();
    assert_eq!(context["client_id"], issuer.text("clientId"));
    assert_eq!(context["issuer"], v4);
    assert_eq!(context["claims"]["tenant"], issuer.text("tenantId"));
    for (path, text) in [
        ("healthz", "ok"),
        ("readyz", "healthy"),
        ("metrics", "result=\"granted\""),
        (
            "metrics",
            "tower_oauth_verification_duration_seconds_bucket",
        ),
    ] {
        let (status, body) = get(&format!("{listening}/{path}"), None).await;
        assert!(
            status == StatusCode::OK && body.contains(text),
            "{path}: {body}"
        );
    }

    let binding = issuer.printed.to_string();
    let url = format!("{listening}/protected_resource");
    let variables = [
        ("APPID_SERVICE_BINDING", binding.as_str()),
        ("REPEAT", "200"),
        ("CONCURRENCY", "10"),
    ];
    let (output, tally) = call(&url, &variables).await;
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(output.stdout, b"Hello from protected resource\n");
    assert_eq!(tally, json!({ "requests": 200, "failed": 0 }));
    let mut logs = String::from_utf8_lossy(&output.stderr).into_owned();

    let (code, log) = issuer.terminate().await;
    assert_eq!(code, Some(0));
    logs += &log;
    let served = get(&url, secrets.last().map(String::as_str)).await;
    assert_eq!(
        served.0,
        StatusCode::OK,
        "tokens with known keys are accepted"
    );
    let (code, log) = resource.terminate().await;
    assert_eq!(code, Some(0));
    assert!(log.contains("tower_oauth"), "the log is not empty");
    logs += &log;
    for secret in secrets {
        assert!(!logs.contains(&secret), "a secret or token is in a log");
    }
    assert!(!logs.contains("eyJ"), "a token is in a log");
}

#[tokio::test]
async fn a_caller_serves_its_metrics_while_it_runs() {
    let issuer = authorization_server().await;
    let resource = protected_resource(&issuer.printed).await;
    let mut caller = example("call_protected_resource");
    caller
        .arg(format!("{}/protected_resource", resource.text("listening")))
        .env("APPID_SERVICE_BINDING", issuer.printed.to_string())
        .env("METRICS_PORT", "0")
        .env("REPEAT", "1000000")
        .env("INTERVAL_MS", "20");
    let mut caller = caller.spawn().unwrap();
    let mut log = BufReader::new(caller.stderr.take().unwrap()).lines();
    let address = async {
        loop {
            let line = log.next_line().await.unwrap().expect("it logs the address");
            if let Some((_, url)) = line.split_once("metrics are served at ") {
                return url.to_owned();
            }
        }
    };
    let url = tokio::time::timeout(Duration::from_secs(20), address).await;
    let url = url.expect("the program logs the address in time");
    let counted = async {
        while !get(&url, None).await.1.contains(r#"outcome="success""#) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let counted = tokio::time::timeout(Duration::from_secs(10), counted).await;
    counted.expect("the token request is counted");
    assert_eq!(caller.try_wait().unwrap(), None, "it still runs");
}

#[tokio::test]
async fn protected_routes_allow_get_and_head_and_return_405_for_other_methods() {
    let issuer = authorization_server().await;
    let resource = protected_resource(&issuer.printed).await;
    let token = token(&issuer, &issuer.text("oauthServerUrl")).await;
    let client = reqwest::Client::new();
    for (path, good) in [
        ("protected_resource", 200),
        ("context", 200),
        ("reports", 403),
    ] {
        let url = format!("{}/{path}", resource.text("listening"));
        for (method, anonymous, known) in [
            (Method::GET, 401, good),
            (Method::HEAD, 401, good),
            (Method::POST, 405, 405),
            (Method::PUT, 405, 405),
            (Method::DELETE, 405, 405),
        ] {
            let request = client.request(method.clone(), &url);
            let without = request.try_clone().unwrap().send().await.unwrap().status();
            let with = request.bearer_auth(&token).send().await.unwrap().status();
            assert_eq!(
                (without.as_u16(), with.as_u16()),
                (anonymous, known),
                "{method} {path}"
            );
        }
    }
}

#[tokio::test]
async fn the_protected_resource_started_before_its_issuer_becomes_ready() {
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
        .to_string();
    let url = format!("http://127.0.0.1:{port}/oauth/v4/39a37f57-a227-4bfe-a044-93b6e6060b61");
    let resource = protected_resource(&json!({ "clientId": "shop", "oauthServerUrl": url })).await;
    let ready = format!("{}/readyz", resource.text("listening"));
    assert_eq!(get(&ready, None).await.0, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(
        get(&ready.replace("readyz", "healthz"), None).await.0,
        StatusCode::OK
    );
    let mut issuer = example("authorization_server");
    issuer.env("PORT", &port);
    let _issuer = Serving::start(issuer).await;
    resource.wait_until_ready().await;
}

#[tokio::test]
async fn a_rejected_caller_prints_the_servers_message() {
    let issuer = authorization_server().await;
    let (url, id) = (issuer.text("oauthServerUrl"), issuer.text("clientId"));
    let variables = [
        ("OAUTH_SERVER_URL", url.as_str()),
        ("CLIENT_ID", &id),
        ("CLIENT_SECRET", "wrong-one"),
    ];
    let (output, tally) = call("http://127.0.0.1:9/", &variables).await;
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(tally, json!({ "requests": 1, "failed": 1 }));
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(
        log.contains("invalid_client") && !log.contains("wrong-one"),
        "{log}"
    );

    let secret = issuer.text("secret");
    let good = [
        ("OAUTH_SERVER_URL", url.as_str()),
        ("CLIENT_ID", &id),
        ("CLIENT_SECRET", &secret),
    ];
    let resource = protected_resource(&issuer.printed).await;
    let (output, _) = call(&format!("{}/context", resource.text("listening")), &good).await;
    assert_eq!(
        output.status.code(),
        Some(0),
        "by discovery, form-urlencoded"
    );
    let (output, tally) = call(&format!("{}/reports", resource.text("listening")), &good).await;
    assert_eq!(
        (output.status.code(), &tally["failed"]),
        (Some(1), &json!(1)),
        "403 is a failure"
    );
}

/// A server that records the request lines. It responds to a token request with a token, to
/// anything below `/.well-known/` with 404, and to the rest with 200.
async fn recording_server(lines: Arc<Mutex<Vec<String>>>) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let router = axum::Router::new().fallback(async move |request: axum::extract::Request| {
        let header = |name: &str| {
            request
                .headers()
                .get(name)
                .map(|value| value.to_str().unwrap().to_owned())
        };
        let authorization = header("authorization").unwrap_or_default();
        let path = request.uri().path().to_owned();
        lines
            .lock()
            .unwrap()
            .push(format!("{} {path} {authorization}", request.method()));
        let token =
            json!({ "access_token": "a-token", "token_type": "Bearer", "expires_in": 3600 });
        if path.contains("/.well-known/") {
            (StatusCode::NOT_FOUND, axum::Json(Value::Null))
        } else {
            (
                StatusCode::OK,
                axum::Json(if path.ends_with("/token") {
                    token
                } else {
                    json!("served")
                }),
            )
        }
    });
    tokio::spawn(async move { axum::serve(listener, router).await });
    base
}

#[tokio::test]
async fn an_app_id_version_3_base_url_is_used_without_discovery() {
    for (path, discovered) in [
        ("oauth/v3/t", 0),
        ("oauth/v3/t/", 0),
        ("oauth/v4/t/", 3),
        ("realms/t", 3),
    ] {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let base = recording_server(Arc::clone(&lines)).await;
        let url = format!("{base}/{path}");
        let variables = [
            ("OAUTH_SERVER_URL", url.as_str()),
            ("CLIENT_ID", "a"),
            ("CLIENT_SECRET", "+/="),
        ];
        let (output, _) = call(&format!("{base}/served"), &variables).await;
        assert_eq!(output.status.code(), Some(0), "{path}");
        let lines = lines.lock().unwrap();
        assert_eq!(lines.len(), discovered + 2, "{lines:?}");
        // "a:%2B%2F%3D": form-urlencoded.
        let token = format!(
            "POST /{}/token Basic YTolMkIlMkYlM0Q=",
            path.trim_end_matches('/')
        );
        assert_eq!(
            lines[discovered..],
            [token, "GET /served Bearer a-token".to_owned()]
        );
    }
}

/// A request that a [`server`] received.
#[derive(Clone, Debug)]
pub(super) struct Received {
    pub(super) path: String,
    /// The decoded pair of Basic authentication, or the field as it is.
    pub(super) authorization: String,
    pub(super) form: Vec<(String, String)>,
}

/// A server whose responses are those of a function. Publishes the metadata of its base URL.
pub(super) async fn server(
    respond: impl Fn(&Received) -> (StatusCode, Value) + Clone + Send + Sync + 'static,
) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let issuer = base.clone();
    let router = axum::Router::new().fallback(async move |request: axum::extract::Request| {
        let path = request.uri().path().to_owned();
        if path.contains("/.well-known/") {
            let metadata = json!({ "issuer": issuer, "token_endpoint": format!("{issuer}/issue") });
            return (StatusCode::OK, axum::Json(metadata));
        }
        let field = request.headers().get("authorization");
        let field = field.map_or("", |field| field.to_str().unwrap()).to_owned();
        let pair = field
            .strip_prefix("Basic ")
            .map(|pair| STANDARD.decode(pair).unwrap());
        let body = axum::body::to_bytes(request.into_body(), 65_536)
            .await
            .unwrap();
        let received = Received {
            path,
            authorization: pair.map_or(field, |pair| String::from_utf8(pair).unwrap()),
            form: url::form_urlencoded::parse(&body).into_owned().collect(),
        };
        let (status, body) = respond(&received);
        if received.path == "/slow" {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        (status, axum::Json(body))
    });
    tokio::spawn(async move { axum::serve(listener, router).await });
    base
}

/// A response of the token endpoint; `None` for a path of the resource.
pub(super) fn token_for(received: &Received, members: Value) -> Option<(StatusCode, Value)> {
    (received.path == "/issue").then_some((StatusCode::OK, members))
}

#[tokio::test]
async fn the_caller_sends_the_parameters_and_the_authentication_that_variables_name() {
    let file = NamedTempFile::new().unwrap();
    std::fs::write(&file, "s+/=\n").unwrap();
    for (method, from_file, authorization, in_body) in [
        (None, false, "shop:s%2B%2F%3D", false),
        (Some("client_secret_basic"), true, "shop:s%2B%2F%3D", false),
        (Some("basic_unencoded"), true, "shop:s+/=", false),
        (Some("client_secret_post"), true, "", true),
    ] {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let base = server({
            let seen = Arc::clone(&seen);
            move |received| {
                seen.lock().unwrap().push(received.clone());
                let token = json!({ "access_token": "t", "token_type": "bearer" });
                token_for(received, token).unwrap_or_else(|| (StatusCode::OK, json!("served")))
            }
        })
        .await;
        let secret = if from_file {
            ("CLIENT_SECRET_FILE", file.path().to_str().unwrap())
        } else {
            ("CLIENT_SECRET", "s+/=")
        };
        let mut variables = vec![
            ("ISSUER", base.as_str()),
            ("CLIENT_ID", "shop"),
            secret,
            ("SCOPE", "a b"),
            ("AUDIENCE", "orders"),
            ("RESOURCE", "the orders"),
            ("PARAMETERS", "organization=a+%26+b&x="),
            ("REPEAT", "20"),
        ];
        variables.extend(method.map(|method| ("CLIENT_AUTHENTICATION", method)));
        let (output, tally) = call(&format!("{base}/resource"), &variables).await;
        assert_eq!(tally, json!({ "requests": 20, "failed": 0 }));
        assert!(!String::from_utf8_lossy(&output.stderr).contains("s+/="));
        let seen = seen.lock().unwrap();
        let (tokens, calls): (Vec<_>, Vec<_>) =
            seen.iter().partition(|received| received.path == "/issue");
        // One token for all, although it has no `expires_in`.
        assert_eq!((tokens.len(), calls.len()), (1, 20));
        assert!(calls.iter().all(|call| call.authorization == "Bearer t"));
        assert_eq!(tokens[0].authorization, authorization, "{method:?}");
        let mut form: Vec<(&str, &str)> = vec![
            ("grant_type", "client_credentials"),
            ("scope", "a b"),
            ("audience", "orders"),
            ("resource", "the orders"),
            ("organization", "a & b"),
            ("x", ""),
        ];
        if in_body {
            form.extend([("client_id", "shop"), ("client_secret", "s+/=")]);
        }
        let sent = tokens[0].form.iter();
        let sent: Vec<(&str, &str)> = sent.map(|(n, v)| (n.as_str(), v.as_str())).collect();
        assert_eq!(sent, form, "{method:?}");
    }
}

/// Configuration libraries read such texts as other types, and quotes as not being part of them.
#[tokio::test]
async fn texts_that_look_like_other_types_are_sent_as_they_are() {
    for (id, secret, text) in [
        ("007", "1.10", "[orders]"),
        ("1e3", "\"quoted\"", "urn:a, urn:b"),
        ("true", "{s=1}", "'orders'"),
        ("-0", "0x10", "null"),
    ] {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let base = server({
            let seen = Arc::clone(&seen);
            move |received| {
                seen.lock().unwrap().push(received.clone());
                let token =
                    json!({ "access_token": "t", "token_type": "Bearer", "expires_in": 60 });
                token_for(received, token).unwrap_or_else(|| (StatusCode::OK, json!("served")))
            }
        })
        .await;
        let variables = [
            ("ISSUER", base.as_str()),
            ("CLIENT_ID", id),
            ("CLIENT_SECRET", secret),
            ("CLIENT_AUTHENTICATION", "basic_unencoded"),
            ("AUDIENCE", text),
            ("RESOURCE", text),
        ];
        let (output, _) = call(&format!("{base}/resource"), &variables).await;
        let log = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{log}");
        let seen = seen.lock().unwrap();
        assert_eq!(seen[0].authorization, format!("{id}:{secret}"));
        let sent = seen[0].form.iter();
        let sent: Vec<(&str, &str)> = sent.map(|(n, v)| (n.as_str(), v.as_str())).collect();
        assert_eq!(sent[1..], [("audience", text), ("resource", text)]);
    }
}

#[tokio::test]
async fn settings_apply_beside_the_rules_of_a_binding() {
    let issuer = authorization_server().await;
    let (base, id) = (issuer.text("oauthServerUrl"), issuer.text("clientId"));
    let token = token(&issuer, &base).await;
    for (variable, value, expected) in [
        ("CLIENTS", id.as_str(), 200),
        ("CLIENTS", "another", 401),
        ("AUDIENCE", "another", 401),
        ("RESOURCE", "https://api.example", 401),
        ("REQUIRED_CLAIMS", r#"{"amr":"another"}"#, 401),
        ("MAX_STALE", "60", 200),
    ] {
        let mut command = example("protected_resource");
        command
            .env("APPID_SERVICE_BINDING", issuer.printed.to_string())
            .env(variable, value);
        let resource = Serving::start(command).await;
        let url = format!("{}/protected_resource", resource.text("listening"));
        resource.wait_until_ready().await;
        let status = get(&url, Some(&token)).await.0;
        assert_eq!(status.as_u16(), expected, "{variable}={value}");
    }
    let binding = issuer.printed.to_string();
    let listening = protected_resource(&issuer.printed).await;
    let url = format!("{}/context", listening.text("listening"));
    for (method, code) in [("client_secret_post", 0), ("client_secret_basic", 0)] {
        // Those of the binding are used.
        let variables = [
            ("APPID_SERVICE_BINDING", binding.as_str()),
            ("CLIENT_ID", "another"),
            ("CLIENT_SECRET", "another"),
            ("CLIENT_AUTHENTICATION", method),
        ];
        let (output, _) = call(&url, &variables).await;
        assert_eq!(output.status.code(), Some(code), "{method}");
    }
    let mut command = example("protected_resource");
    command
        .env("APPID_SERVICE_BINDING", &binding)
        .env("JWKS_URI", "https://as.example/keys");
    let output = command.output().await.unwrap();
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{log}");
    assert!(
        log.starts_with("JWKS_URI: ") && log.lines().count() == 1,
        "{log}"
    );
}

/// The fields of settings have other names than the variables.
#[tokio::test]
async fn an_error_of_settings_that_do_not_fit_together_names_variables_alone() {
    let resource = [("ISSUER", "https://as.example"), ("AUDIENCE", "a")];
    let caller = [("ISSUER", "https://as.example"), ("CLIENT_ID", "a")];
    for (program, variables, more, line) in [
        (
            "protected_resource",
            &resource,
            &[("AUDIENCE_OPTIONAL", "true")][..],
            "AUDIENCE_OPTIONAL requires CLIENTS",
        ),
        (
            "protected_resource",
            &resource,
            &[("CANDIDATE_KEYS", "5")],
            "invalid CANDIDATE_KEYS \"5\": must be 1 to 4",
        ),
        (
            "protected_resource",
            &resource,
            &[("MAX_STALE", "0")],
            "MAX_STALE: must be at least 1",
        ),
        (
            "protected_resource",
            &resource,
            &[("REQUIRED_CLAIMS", r#"{"token_use":[]}"#)],
            r#"REQUIRED_CLAIMS: must be a JSON object, such as {"token_use":"access"}, with each claim once, and neither null nor an empty array"#,
        ),
        (
            "call_protected_resource",
            &caller,
            &[("CLIENT_SECRET", "s"), ("CLIENT_SECRET_FILE", "/s")],
            "CLIENT_SECRET cannot be set with CLIENT_SECRET_FILE",
        ),
        (
            "call_protected_resource",
            &caller,
            &[],
            "CLIENT_SECRET or CLIENT_SECRET_FILE is required",
        ),
        (
            "call_protected_resource",
            &[caller[0], ("CLIENT_ID", "a:b")],
            &[
                ("CLIENT_SECRET", "s"),
                ("CLIENT_AUTHENTICATION", "basic_unencoded"),
            ],
            "invalid CLIENT_ID \"a:b\": must not contain a colon",
        ),
    ] {
        let mut command = example(program);
        command.args((program == "call_protected_resource").then_some("http://127.0.0.1:9/"));
        command.envs(variables.iter().copied());
        let output = command.envs(more.iter().copied()).output().await.unwrap();
        let log = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{log}");
        assert_eq!(log, format!("{line}\n"));
    }
}

#[tokio::test]
async fn assumed_lifetime_is_that_of_a_token_without_expires_in() {
    let issued = Arc::new(Mutex::new(0));
    let base = server({
        let issued = Arc::clone(&issued);
        move |received| {
            let token = json!({ "access_token": "t", "token_type": "bearer" });
            let token = token_for(received, token);
            *issued.lock().unwrap() += usize::from(token.is_some());
            token.unwrap_or_else(|| (StatusCode::OK, json!("served")))
        }
    })
    .await;
    let variables = |lifetime| {
        [
            ("ISSUER", base.as_str()),
            ("CLIENT_ID", "shop"),
            ("CLIENT_SECRET", "s"),
            ("REPEAT", "15"),
            ("ASSUMED_LIFETIME", lifetime),
        ]
    };
    let url = format!("{base}/slow");
    let (_, tally) = call(&url, &variables("600")).await;
    assert_eq!(tally["failed"], 0);
    assert_eq!(std::mem::take(&mut *issued.lock().unwrap()), 1);
    let (_, tally) = call(&url, &variables("1")).await;
    assert_eq!(tally["failed"], 0);
    assert!(
        *issued.lock().unwrap() > 2,
        "it ends within the three seconds"
    );
}

#[tokio::test]
async fn renew_on_401_says_whether_a_bare_401_replaces_the_token() {
    for (renew_on, failed) in [(None, 1), (Some("invalid_token"), 1), (Some("any"), 0)] {
        let issued = Mutex::new(0);
        let issued = Arc::new(issued);
        let base = server(move |received| {
            let mut issued = issued.lock().unwrap();
            let name = format!("t{}", *issued + 1);
            let token = json!({ "access_token": name, "token_type": "Bearer", "expires_in": 60 });
            let token = token_for(received, token);
            *issued += usize::from(token.is_some());
            let is_first = received.authorization == "Bearer t1";
            token.unwrap_or_else(|| match is_first {
                true => (StatusCode::UNAUTHORIZED, json!("no")),
                false => (StatusCode::OK, json!("served")),
            })
        })
        .await;
        let mut variables = vec![
            ("ISSUER", base.as_str()),
            ("CLIENT_ID", "shop"),
            ("CLIENT_SECRET", "s"),
        ];
        variables.extend(renew_on.map(|value| ("RENEW_ON_401", value)));
        let (output, tally) = call(&format!("{base}/resource"), &variables).await;
        assert_eq!(
            tally,
            json!({ "requests": 1, "failed": failed }),
            "{renew_on:?}"
        );
        assert_eq!(output.status.code(), Some(failed), "{renew_on:?}");
    }
}

/// The token endpoint accepts each secret once, and replaces the file with every token.
#[tokio::test]
async fn a_secret_file_that_is_replaced_fails_no_call() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("secret");
    std::fs::write(&file, "secret-0\n").unwrap();
    let issued = Arc::new(Mutex::new(0));
    let base = server({
        let (issued, file) = (Arc::clone(&issued), file.clone());
        move |received| {
            if received.path != "/issue" {
                return (StatusCode::OK, json!("served"));
            }
            let mut issued = issued.lock().unwrap();
            if received.authorization != format!("shop:secret-{issued}") {
                return (
                    StatusCode::UNAUTHORIZED,
                    json!({ "error": "invalid_client" }),
                );
            }
            *issued += 1;
            let next = file.with_extension("next");
            std::fs::write(&next, format!("secret-{issued}\n")).unwrap();
            std::fs::rename(&next, &file).unwrap();
            let token = json!({ "access_token": "t", "token_type": "Bearer", "expires_in": 1 });
            (StatusCode::OK, token)
        }
    })
    .await;
    let path = file.display().to_string();
    let variables = [
        ("ISSUER", base.as_str()),
        ("CLIENT_ID", "shop"),
        ("CLIENT_SECRET_FILE", path.as_str()),
        ("REPEAT", "15"),
    ];
    let (output, tally) = call(&format!("{base}/slow"), &variables).await;
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!(tally, json!({ "requests": 15, "failed": 0 }), "{log}");
    assert!(*issued.lock().unwrap() > 2, "the secret was replaced");
    assert!(!log.contains("secret-0"), "{log}");
}

#[tokio::test]
async fn invalid_client_names_the_variable_for_unencoded_credentials() {
    let refusal = (
        StatusCode::UNAUTHORIZED,
        json!({ "error": "invalid_client" }),
    );
    let base = server(move |_| refusal.clone()).await;
    for (secret, method, is_hinted) in [
        ("a+b", None, true),
        ("ab", None, false),
        ("a+b", Some("basic_unencoded"), false),
    ] {
        let mut variables = vec![
            ("ISSUER", base.as_str()),
            ("CLIENT_ID", "shop"),
            ("CLIENT_SECRET", secret),
        ];
        variables.extend(method.map(|method| ("CLIENT_AUTHENTICATION", method)));
        let (output, _) = call(&format!("{base}/resource"), &variables).await;
        let log = String::from_utf8_lossy(&output.stderr);
        let hint = "CLIENT_AUTHENTICATION=basic_unencoded";
        assert_eq!(log.contains(hint), is_hinted, "{secret}: {log}");
        assert!(
            !log.contains("a+b") && output.status.code() == Some(1),
            "{log}"
        );
    }
}

#[tokio::test]
async fn an_issuer_mismatch_is_printed_with_both_names_and_no_secret_is_sent() {
    let issuer = authorization_server().await;
    let (url, id, secret) = (
        issuer.text("oauthServerUrl"),
        issuer.text("clientId"),
        issuer.text("secret"),
    );
    let other = format!("{url}/");
    for variable in ["OAUTH_SERVER_URL", "ISSUER"] {
        let variables = [
            (variable, other.as_str()),
            ("CLIENT_ID", &id),
            ("CLIENT_SECRET", &secret),
        ];
        let (output, tally) = call("http://127.0.0.1:9/", &variables).await;
        assert_eq!(
            (output.status.code(), &tally["failed"]),
            (Some(1), &json!(1))
        );
        let log = String::from_utf8_lossy(&output.stderr);
        assert!(
            log.contains(&format!("expected \"{other}\", found \"{url}\"")),
            "{log}"
        );
        assert!(!log.contains("/token"), "{log}");
    }
}

#[tokio::test]
async fn an_invalid_setting_exits_with_2_and_names_the_setting() {
    let binding =
        r#"{"clientId":"a","secret":"s","oauthServerUrl":"http://127.0.0.1:1/oauth/v4/t"}"#;
    let issuer = ("ISSUER", "https://as.example");
    let long = format!("https://api.example/{}", "x".repeat(16 * 1024));
    let long = [issuer, ("RESOURCE", long.as_str())];
    let cases: [(&str, &[(&str, &str)], &str); 42] = [
        ("protected_resource", &[], "ISSUER"),
        (
            "protected_resource",
            &[issuer, ("RESOURCE", "https://api.example/#a")],
            "RESOURCE",
        ),
        (
            "protected_resource",
            &[issuer, ("RESOURCE", "https://API.example")],
            "RESOURCE",
        ),
        (
            "protected_resource",
            &[issuer, ("AUDIENCE", "a"), ("RESOURCE", "api.example")],
            "RESOURCE",
        ),
        (
            "protected_resource",
            &[issuer, ("RESOURCE", "http://api.example")],
            "RESOURCE: is plain http: use https, or set ALLOW_HTTP=api.example",
        ),
        ("protected_resource", &long, "RESOURCE"),
        (
            "protected_resource",
            &[
                issuer,
                ("AUDIENCE", "a"),
                ("RESOURCE_SCOPE", "orders.read a\"b"),
            ],
            "RESOURCE_SCOPE",
        ),
        (
            "protected_resource",
            &[issuer, ("RESOURCE_SCOPE", "orders.read")],
            "AUDIENCE",
        ),
        (
            "explain",
            &[issuer, ("RESOURCE", "https://api.example/a/../b")],
            "RESOURCE",
        ),
        (
            "protected_resource",
            &[("ISSUER", "http://as.example"), ("AUDIENCE", "a")],
            "ISSUER",
        ),
        (
            "protected_resource",
            &[("ISSUER", "as.example"), ("AUDIENCE", "a")],
            "ISSUER",
        ),
        ("protected_resource", &[issuer], "AUDIENCE"),
        (
            "protected_resource",
            &[issuer, ("AUDIENCE", "a,,b")],
            "AUDIENCE",
        ),
        (
            "protected_resource",
            &[
                issuer,
                ("AUDIENCE", "a"),
                ("JWKS_URI", "http://as.example/k"),
            ],
            "JWKS_URI",
        ),
        (
            "protected_resource",
            &[issuer, ("AUDIENCE", "a"), ("MAX_STALE", "0")],
            "MAX_STALE",
        ),
        (
            "protected_resource",
            &[issuer, ("AUDIENCE", "a"), ("MIN_REFRESH", "soon")],
            "MIN_REFRESH",
        ),
        (
            "protected_resource",
            &[issuer, ("AUDIENCE", "a"), ("TOKEN_PROFILE", "saml")],
            "TOKEN_PROFILE",
        ),
        (
            "protected_resource",
            &[issuer, ("AUDIENCE", "a"), ("PORT", "70000")],
            "PORT",
        ),
        (
            "protected_resource",
            &[issuer, ("AUDIENCE", "a"), ("CLIENTS", "")],
            "CLIENTS",
        ),
        (
            "protected_resource",
            &[issuer, ("AUDIENCE", "a"), ("CLIENTS", "shop,,warehouse")],
            "CLIENTS",
        ),
        (
            "protected_resource",
            &[issuer, ("AUDIENCE", "a"), ("AUDIENCE_OPTIONAL", "true")],
            "AUDIENCE_OPTIONAL",
        ),
        (
            "protected_resource",
            &[issuer, ("AUDIENCE", "a"), ("AUDIENCE_OPTIONAL", "yes")],
            "AUDIENCE_OPTIONAL",
        ),
        (
            "protected_resource",
            &[issuer, ("AUDIENCE", "a"), ("REQUIRED_CLAIMS", "")],
            "REQUIRED_CLAIMS",
        ),
        (
            "protected_resource",
            &[
                issuer,
                ("AUDIENCE", "a"),
                ("REQUIRED_CLAIMS", "token_use=access"),
            ],
            "REQUIRED_CLAIMS",
        ),
        (
            "protected_resource",
            &[
                issuer,
                ("AUDIENCE", "a"),
                ("REQUIRED_CLAIMS", r#"["access"]"#),
            ],
            "REQUIRED_CLAIMS",
        ),
        (
            "protected_resource",
            &[
                issuer,
                ("AUDIENCE", "a"),
                ("REQUIRED_CLAIMS", r#"{"token_use":[]}"#),
            ],
            "REQUIRED_CLAIMS",
        ),
        (
            "protected_resource",
            &[issuer, ("AUDIENCE", "a"), ("REUSED_KEY_IDS", "1")],
            "REUSED_KEY_IDS",
        ),
        (
            "protected_resource",
            &[issuer, ("AUDIENCE", "a"), ("CANDIDATE_KEYS", "0")],
            "CANDIDATE_KEYS",
        ),
        (
            "protected_resource",
            &[issuer, ("AUDIENCE", "a"), ("CANDIDATE_KEYS", "5")],
            "CANDIDATE_KEYS",
        ),
        (
            "protected_resource",
            &[issuer, ("AUDIENCE", "a"), ("CANDIDATE_KEYS", "two")],
            "CANDIDATE_KEYS",
        ),
        (
            "protected_resource",
            &[
                issuer,
                ("AUDIENCE", "a"),
                ("CLIENTS", "shop"),
                ("TOKEN_PROFILE", "rfc9068"),
                ("AUDIENCE_OPTIONAL", "true"),
            ],
            "AUDIENCE_OPTIONAL",
        ),
        (
            "protected_resource",
            &[issuer, ("APPID_SERVICE_BINDING", binding)],
            "ISSUER",
        ),
        (
            "protected_resource",
            &[("APPID_SERVICE_BINDING", "{")],
            "APPID_SERVICE_BINDING",
        ),
        (
            "protected_resource",
            &[("APPID_BINDING_FILE", "/does/not/exist")],
            "APPID_BINDING_FILE",
        ),
        ("authorization_server", &[("PORT", "http")], "PORT"),
        ("authorization_server", &[("TENANT_ID", "a/b")], "TENANT_ID"),
        (
            "authorization_server",
            &[("TOKEN_LIFETIME", "0")],
            "TOKEN_LIFETIME",
        ),
        (
            "call_protected_resource",
            &[("OAUTH_SERVER_URL", "https://as.example")],
            "CLIENT_ID",
        ),
        ("call_protected_resource", &[], "OAUTH_SERVER_URL"),
        (
            "call_protected_resource",
            &[
                ("OAUTH_SERVER_URL", "http://as.example"),
                ("CLIENT_ID", "a"),
                ("CLIENT_SECRET", "s"),
            ],
            "OAUTH_SERVER_URL",
        ),
        (
            "call_protected_resource",
            &[("APPID_SERVICE_BINDING", binding), ("REPEAT", "0")],
            "REPEAT",
        ),
        (
            "call_protected_resource",
            &[("APPID_SERVICE_BINDING", binding), ("SCOPE", "a\"b")],
            "SCOPE",
        ),
    ];
    for (program, variables, named) in cases {
        let mut command = example(program);
        if program == "call_protected_resource" {
            command.arg("http://127.0.0.1:9/");
        }
        let output = command.envs(variables.iter().copied()).output();
        let output = tokio::time::timeout(Duration::from_secs(20), output)
            .await
            .expect(named)
            .unwrap();
        let log = String::from_utf8_lossy(&output.stderr);
        assert_eq!(
            output.status.code(),
            Some(2),
            "{program} {variables:?}: {log}"
        );
        assert!(
            log.contains(named) && log.lines().count() == 1,
            "{program} {variables:?}: {log}"
        );
    }
    let no_text = std::os::unix::ffi::OsStringExt::from_vec(vec![0xff]);
    let no_text: std::ffi::OsString = no_text;
    let output = example("protected_resource")
        .env("ISSUER", "https://as.example")
        .env("AUDIENCE", no_text)
        .output();
    let output = output.await.unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("AUDIENCE"));
    for url in ["http://orders.example/", "orders"] {
        let output = example("call_protected_resource")
            .arg(url)
            .env("APPID_SERVICE_BINDING", binding)
            .output();
        assert_eq!(output.await.unwrap().status.code(), Some(2), "{url}");
    }
}

#[tokio::test]
async fn an_invalid_setting_of_the_caller_exits_with_2_and_names_the_setting() {
    let binding =
        r#"{"clientId":"a","secret":"s","oauthServerUrl":"http://127.0.0.1:1/oauth/v4/t"}"#;
    let binding = ("APPID_SERVICE_BINDING", binding);
    let good = [
        ("ISSUER", "http://127.0.0.1:9"),
        ("CLIENT_ID", "a"),
        ("CLIENT_SECRET", "s"),
    ];
    let issuer_alone = &good[..1];
    let without_secret = &good[..2];
    let [empty, too_long] = [(); 2].map(|()| NamedTempFile::new().unwrap());
    std::fs::write(&empty, "\n").unwrap();
    std::fs::write(&too_long, "x".repeat(64 * 1024 + 1)).unwrap();
    let [empty_path, too_long_path] = [&empty, &too_long].map(|file| file.path().to_str().unwrap());
    let cases: [(&[(&str, &str)], (&str, &str), &str); 28] = [
        (&[], ("ISSUER", "as.example"), "ISSUER"),
        (&[], ("ISSUER", "http://as.example"), "ISSUER"),
        (&[], ("ISSUER", "https://as.example/?tenant=1"), "CLIENT_ID"),
        (&good, ("ISSUER", "https://as.example/?tenant=1"), "ISSUER"),
        (
            &good,
            ("OAUTH_SERVER_URL", "https://as.example"),
            "OAUTH_SERVER_URL",
        ),
        (&good, binding, "ISSUER"),
        (issuer_alone, ("CLIENT_SECRET", "s"), "CLIENT_ID"),
        (without_secret, ("CLIENT_SECRET", " "), "CLIENT_SECRET_FILE"),
        (
            &good,
            ("CLIENT_SECRET_FILE", "/does/not/exist"),
            "CLIENT_SECRET_FILE",
        ),
        (
            without_secret,
            ("CLIENT_SECRET_FILE", "/does/not/exist"),
            "CLIENT_SECRET_FILE",
        ),
        (
            without_secret,
            ("CLIENT_SECRET_FILE", "/"),
            "CLIENT_SECRET_FILE",
        ),
        (
            without_secret,
            ("CLIENT_SECRET_FILE", empty_path),
            "CLIENT_SECRET_FILE",
        ),
        (
            without_secret,
            ("CLIENT_SECRET_FILE", too_long_path),
            "CLIENT_SECRET_FILE",
        ),
        (
            &[binding],
            ("CLIENT_SECRET_FILE", "/does/not/exist"),
            "CLIENT_SECRET_FILE",
        ),
        (
            &good,
            ("CLIENT_AUTHENTICATION", "basic"),
            "CLIENT_AUTHENTICATION",
        ),
        (
            &[binding],
            ("CLIENT_AUTHENTICATION", "none"),
            "CLIENT_AUTHENTICATION",
        ),
        (&good, ("RESOURCE", "a\u{7f}b"), "RESOURCE"),
        (&good, ("PARAMETERS", "organization"), "PARAMETERS"),
        (&good, ("PARAMETERS", "a=1&b"), "PARAMETERS"),
        (&good, ("PARAMETERS", "a=1&a=2"), "PARAMETERS"),
        (&good, ("PARAMETERS", "=1"), "PARAMETERS"),
        (&good, ("PARAMETERS", "scope=x"), "PARAMETERS"),
        (&good, ("PARAMETERS", "a=1&"), "PARAMETERS"),
        (&good, ("ASSUMED_LIFETIME", "0"), "ASSUMED_LIFETIME"),
        (&good, ("ASSUMED_LIFETIME", "-5"), "ASSUMED_LIFETIME"),
        (&good, ("ASSUMED_LIFETIME", "5m"), "ASSUMED_LIFETIME"),
        (&good, ("RENEW_ON_401", "true"), "RENEW_ON_401"),
        (&good, ("RENEW_ON_401", "Any"), "RENEW_ON_401"),
    ];
    for (others, (variable, value), named) in cases {
        let mut variables = others.to_vec();
        variables.retain(|(name, _)| *name != variable);
        variables.push((variable, value));
        let mut command = example("call_protected_resource");
        command.arg("http://127.0.0.1:9/").envs(variables);
        let output = tokio::time::timeout(Duration::from_secs(20), command.output());
        let output = output.await.expect(named).unwrap();
        let log = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{variable}={value}: {log}");
        assert!(
            log.contains(named) && log.lines().count() == 1,
            "{variable}={value}: {log}"
        );
    }
}

/// Every setting that is a URL, and the position of its value.
#[tokio::test]
async fn a_url_without_a_scheme_exits_with_a_hint() {
    let issuer = ("ISSUER", "https://as.example");
    let binding =
        |url: &str| json!({ "clientId": "a", "secret": "s", "oauthServerUrl": url }).to_string();
    for url in [
        "orders:8080",
        "as.example",
        "localhost:6002/oauth/v4/t",
        "//as.example/",
        "me:secret@as.example",
    ] {
        let binding = binding(url);
        let cases: [(&str, &str, &[(&str, &str)], &str); 6] = [
            (
                "protected_resource",
                "",
                &[("ISSUER", url), ("AUDIENCE", "a")],
                "ISSUER",
            ),
            (
                "protected_resource",
                "",
                &[issuer, ("AUDIENCE", "a"), ("JWKS_URI", url)],
                "JWKS_URI",
            ),
            (
                "protected_resource",
                "",
                &[("APPID_SERVICE_BINDING", &binding)],
                "APPID_SERVICE_BINDING",
            ),
            (
                "call_protected_resource",
                "http://127.0.0.1:9/",
                &[
                    ("OAUTH_SERVER_URL", url),
                    ("CLIENT_ID", "a"),
                    ("CLIENT_SECRET", "s"),
                ],
                "OAUTH_SERVER_URL",
            ),
            (
                "call_protected_resource",
                url,
                &[("APPID_SERVICE_BINDING", &binding)],
                "URL",
            ),
            (
                "call_protected_resource",
                "http://127.0.0.1:9/",
                &[("oauthServerUrl", url)],
                "oauthServerUrl",
            ),
        ];
        for (program, argument, variables, named) in cases {
            let mut command = example(program);
            command.args(Some(argument).filter(|argument| !argument.is_empty()));
            let output = command
                .envs(variables.iter().copied())
                .output()
                .await
                .unwrap();
            let log = String::from_utf8_lossy(&output.stderr);
            assert_eq!(
                output.status.code(),
                Some(2),
                "{program} {variables:?}: {log}"
            );
            assert!(
                log.contains(named) && log.contains("`https://`"),
                "{program} {variables:?}: {log}"
            );
            assert!(
                log.lines().count() == 1 && !log.contains("null") && !log.contains("secret"),
                "{log}"
            );
        }
    }
}

/// Cloud Foundry sets `VCAP_SERVICES` for every application.
#[tokio::test]
async fn services_without_app_id_are_named_when_no_issuer_is_set() {
    let others = r#"{"databases-for-postgresql":
        [{"credentials":{"uri":"postgres://u:secret@db.example"}}]}"#;
    let unusable = [
        ("VCAP_SERVICES", others, "App ID service"),
        ("VCAP_SERVICES", "{}", "App ID service"),
        ("CE_SERVICES", others, "App ID service"),
        (
            "VCAP_SERVICES",
            r#"{"AppID":[{"credentials":null}]}"#,
            "credentials",
        ),
        ("VCAP_SERVICES", r#"{"AppID":[]}"#, "credentials"),
        ("CE_SERVICES", r#"{"appid":{}}"#, "credentials"),
        ("VCAP_SERVICES", "appid", "JSON"),
        ("CE_SERVICES", "[]", "JSON"),
    ];
    for program in ["protected_resource", "call_protected_resource"] {
        for (variable, services, reason) in unusable {
            let mut command = example(program);
            command.args((program == "call_protected_resource").then_some("http://127.0.0.1:9/"));
            let output = command.env(variable, services).output().await.unwrap();
            let log = String::from_utf8_lossy(&output.stderr);
            assert_eq!(
                output.status.code(),
                Some(2),
                "{program} {variable} {services}: {log}"
            );
            assert!(
                log.contains(variable) && log.contains(reason),
                "{program} {services}: {log}"
            );
            assert!(log.lines().count() == 1 && !log.contains("secret"), "{log}");
        }
    }
    let mut resource = example("protected_resource");
    resource
        .env("VCAP_SERVICES", others)
        .env("ISSUER", "http://127.0.0.1:1")
        .env("AUDIENCE", "a");
    let resource = Serving::start(resource).await;
    assert_eq!(resource.terminate().await.0, Some(0), "it served");
    let mut caller = example("call_protected_resource");
    caller
        .arg("http://127.0.0.1:9/")
        .env("VCAP_SERVICES", others)
        .env("OAUTH_SERVER_URL", "https://as.example");
    let output = caller.output().await.unwrap();
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.code() == Some(2) && log.contains("CLIENT_ID"),
        "{log}"
    );
}

/// The limit of `examples/common`.
const MAX_CONNECTIONS: usize = 512;

/// A resource whose issuer is unreachable, and its address.
async fn resource_without_issuer(mut command: Command) -> (Serving, SocketAddr) {
    command
        .env("ISSUER", "http://127.0.0.1:1")
        .env("AUDIENCE", "a");
    let resource = Serving::start(command).await;
    let address = resource
        .text("listening")
        .strip_prefix("http://")
        .unwrap()
        .parse()
        .unwrap();
    (resource, address)
}

/// A connection on which the server waits for the rest of the first request, or for all of it.
async fn open_idle_connection(address: SocketAddr, sent: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(sent.as_bytes()).await.unwrap();
    stream
}

/// Requests `/healthz` on a connection and leaves it open.
async fn healthz(stream: &mut TcpStream) -> std::io::Result<String> {
    stream
        .write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n")
        .await?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\nok") {
        if stream.read_buf(&mut answer).await? == 0 {
            break;
        }
    }
    Ok(String::from_utf8(answer).unwrap())
}

/// A generous bound: without room, a connection waits for the ten seconds in which others may send
/// the head of a request.
async fn within_timeout<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(5), what)
        .await
        .expect("idle connections are closed")
}

#[tokio::test]
async fn the_longest_idle_connection_is_closed_for_a_new_one() {
    let (resource, address) = resource_without_issuer(example("protected_resource")).await;
    let mut connections = Vec::new();
    for n in 0..MAX_CONNECTIONS {
        let sent = if n % 2 == 0 {
            ""
        } else {
            "GET /healthz HTTP/1.1\r\nhost: local"
        };
        connections.push(open_idle_connection(address, sent).await);
    }
    let (status, body) = within_timeout(get(&format!("http://{address}/healthz"), None)).await;
    assert_eq!((status, body.as_str()), (StatusCode::OK, "ok"));
    let closed = within_timeout(connections[0].read(&mut [0])).await;
    assert!(
        closed.is_err() || closed.is_ok_and(|read| read == 0),
        "the first connection is closed"
    );

    let answer = within_timeout(healthz(&mut connections[2])).await.unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 200"),
        "the third connection stays open: {answer}"
    );
    // Now it is the one with the shortest idle time.
    for _ in 0..4 {
        within_timeout(healthz(&mut open_idle_connection(address, "").await))
            .await
            .unwrap();
    }
    let answer = within_timeout(healthz(&mut connections[2])).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(resource.terminate().await.0, Some(0));
}

/// A body that arrives frame by frame.
struct Frames(mpsc::Receiver<Bytes>);

impl http_body::Body for Frames {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
        self.0
            .poll_recv(cx)
            .map(|data| data.map(|data| Ok(http_body::Frame::data(data))))
    }
}

/// In flight: a request without a response, and one whose response is sent in part.
#[tokio::test]
async fn a_request_in_flight_survives_a_connection_flood() {
    let (frames, body) = mpsc::channel(1);
    let body = Arc::new(Mutex::new(Some(body)));
    let answer = move || {
        let body = body.lock().unwrap().take().unwrap();
        async { axum::body::Body::new(Frames(body)) }
    };
    let (began, mut has_begun) = mpsc::channel(1);
    let (release, released) = tokio::sync::watch::channel(false);
    let wait = async move || {
        began.send(()).await.unwrap();
        released
            .clone()
            .wait_for(|released| *released)
            .await
            .unwrap();
        "the end"
    };
    let router = axum::Router::new()
        .route("/healthz", axum::routing::get(async || "ok"))
        .route("/wait", axum::routing::get(wait))
        .route("/frames", axum::routing::get(answer));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(common::serve(listener, router, std::future::pending()));

    let request =
        |path| format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    let mut without_answer = open_idle_connection(address, &request("/wait")).await;
    has_begun.recv().await.unwrap();
    let mut half_sent = open_idle_connection(address, &request("/frames")).await;
    frames.send(Bytes::from_static(b"first")).await.unwrap();
    let mut seen = Vec::new();
    while !seen.ends_with(b"first\r\n") {
        half_sent.read_buf(&mut seen).await.unwrap();
    }

    let mut connections = Vec::new();
    for _ in 0..MAX_CONNECTIONS + 100 {
        connections.push(open_idle_connection(address, "").await);
    }
    within_timeout(healthz(&mut open_idle_connection(address, "").await))
        .await
        .unwrap();
    release.send(true).unwrap();
    frames.send(Bytes::from_static(b"last")).await.unwrap();
    drop(frames);
    for (connection, end) in [
        (&mut without_answer, "the end"),
        (&mut half_sent, "last\r\n0\r\n\r\n"),
    ] {
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await.unwrap();
        assert!(answer.ends_with(end), "{answer}");
    }
}

#[tokio::test]
async fn idle_connections_are_closed_when_file_descriptors_run_out() {
    let example = example("protected_resource");
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", "ulimit -n 100 && exec \"$0\""])
        .arg(example.as_std().get_program());
    command
        .env_clear()
        .env("PORT", "0")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let (_resource, address) = resource_without_issuer(command).await;
    let mut connections = Vec::new();
    for _ in 0..120 {
        connections.push(open_idle_connection(address, "").await);
    }
    let (status, body) = within_timeout(get(&format!("http://{address}/healthz"), None)).await;
    assert_eq!((status, body.as_str()), (StatusCode::OK, "ok"));
}

#[tokio::test]
async fn the_state_file_survives_a_restart_and_damage_is_reported() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("state.json");
    let with_state = || {
        let mut command = example("authorization_server");
        command.arg("--state").arg(&file);
        command
    };
    let first = Serving::start(with_state()).await;
    let keys = |serving: &Serving| format!("{}/publickeys", serving.text("oauthServerUrl"));
    let (client_id, secret) = (first.text("clientId"), first.text("secret"));
    let published = get(&keys(&first), None).await.1;
    assert_eq!(first.terminate().await.0, Some(0));
    let second = Serving::start(with_state()).await;
    assert_eq!(
        (second.text("clientId"), second.text("secret")),
        (client_id, secret)
    );
    assert_eq!(get(&keys(&second), None).await.1, published);
    assert_eq!(second.terminate().await.0, Some(0));

    std::fs::write(&file, "{").unwrap();
    for (mut command, named) in [
        (with_state(), "--state"),
        (example("authorization_server"), "STATE_FILE"),
    ] {
        if named == "STATE_FILE" {
            command.env("STATE_FILE", &file);
        }
        let output = command.output().await.unwrap();
        let log = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{log}");
        assert!(
            log.contains(named) && log.contains("damaged") && log.lines().count() == 1,
            "{log}"
        );
    }
    assert_eq!(
        std::fs::read_to_string(&file).unwrap(),
        "{",
        "a damaged file is unchanged"
    );
    for arguments in [
        &["--state"][..],
        &["--sate", "file"],
        &["--state", "a", "b"],
    ] {
        let output = example("authorization_server")
            .args(arguments)
            .output()
            .await
            .unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    }
}

/// The header of a token of the program, its `exp - iat`, and `expires_in` of its response.
async fn algorithm_and_lifetimes(issuer: &Serving) -> (Value, i64, Value) {
    let request = reqwest::Client::new()
        .post(format!("{}/token", issuer.text("oauthServerUrl")))
        .basic_auth(issuer.text("clientId"), Some(issuer.text("secret")))
        .header("content-type", "application/x-www-form-urlencoded")
        .body("grant_type=client_credentials");
    let body = request.send().await.unwrap().bytes().await.unwrap();
    let body: Value = serde_json::from_slice(&body).unwrap();
    let (header, claims) = jwt::decode(body["access_token"].as_str().unwrap());
    let second = |name: &str| claims[name].as_i64().unwrap();
    let lifetime = second("exp") - second("iat");
    (header["alg"].clone(), lifetime, body["expires_in"].clone())
}

#[tokio::test]
async fn the_variables_of_the_authorization_server_change_its_tokens_and_what_it_stores() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("state.json");
    let default = Serving::start(example("authorization_server")).await;
    let tokens = algorithm_and_lifetimes(&default).await;
    assert_eq!(tokens, (json!("RS256"), 3600, json!(3600)));
    let tenant = "39a37f57-a227-4bfe-a044-93b6e6060b61";
    assert_eq!(default.text("tenantId"), tenant);

    let mut credentials = Vec::new();
    for _ in 0..2 {
        let mut command = example("authorization_server");
        command
            .env("ALGORITHM", "ES256")
            .env("TOKEN_LIFETIME", "60")
            .env("TENANT_ID", "shop")
            .env("STATE_FILE", &file);
        let program = Serving::start(command).await;
        let tokens = algorithm_and_lifetimes(&program).await;
        assert_eq!(tokens, (json!("ES256"), 60, json!(60)));
        assert_eq!(program.text("tenantId"), "shop");
        let url = program.text("oauthServerUrl");
        assert!(url.ends_with("/oauth/v4/shop"), "{url}");
        credentials.push((program.text("clientId"), program.text("secret")));
        assert_eq!(program.terminate().await.0, Some(0));
    }
    assert_eq!(credentials[0], credentials[1]);
    assert_ne!(credentials[0].0, default.text("clientId"));
}

#[tokio::test]
async fn with_stay_the_example_runs_until_terminated() {
    let mut child = example("app_to_app").arg("--stay").spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let last = async {
        loop {
            let line = lines
                .next_line()
                .await
                .unwrap()
                .expect("the program keeps running");
            if line.contains("stay until") {
                return line;
            }
        }
    };
    let last = tokio::time::timeout(Duration::from_secs(60), last)
        .await
        .unwrap();
    let dashboard = last
        .split(' ')
        .find(|text| text.starts_with("http://"))
        .unwrap();
    let (status, page) = get(dashboard, None).await;
    assert_eq!(status, StatusCode::OK);
    assert!(page.contains("orders") && page.contains("shop"), "{page}");
    assert_eq!(child.try_wait().unwrap(), None);
}

#[tokio::test]
async fn app_to_app_runs_the_whole_flow_in_one_command() {
    let output = example("app_to_app").output().await.unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{stdout}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    for text in [
        "Hello from protected resource",
        "1 token request",
        "401",
        "403",
        "invalid_token",
        "failed: 0",
        "dashboard",
    ] {
        assert!(stdout.contains(text), "{text} is missing:\n{stdout}");
    }
}

#[tokio::test]
async fn validate_message_handles_valid_messages_and_refuses_others_with_the_reason() {
    let output = example("validate_message").output().await.unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{stdout}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let outcomes: Vec<(&str, &str)> = stdout
        .lines()
        .take_while(|line| !line.is_empty())
        .map(|line| line.split_once(": ").unwrap())
        .collect();
    let refusals = [
        ("postponed  sent during an outage", "keys_unavailable"),
        ("refused    without a token", "missing_token"),
        ("refused    with a forged token", "invalid_signature"),
        ("refused    for another audience", "invalid_audience"),
        ("refused    in the queue for too long", "expired"),
    ];
    for refusal in refusals {
        assert!(outcomes.contains(&refusal), "{refusal:?}:\n{stdout}");
    }
    let (_, sender) = outcomes[1];
    for handled in ["handled    valid", "handled    sent during an outage"] {
        assert!(
            outcomes.contains(&(handled, sender)),
            "{handled}:\n{stdout}"
        );
    }
    assert!(sender.starts_with("sent by ") && sender != "sent by an unnamed client");
    assert_eq!(outcomes.len(), 7, "{stdout}");
    assert!(!stdout.contains("eyJ"), "a token is printed:\n{stdout}");
}
