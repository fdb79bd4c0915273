//! Plain http is refused at each use of a URL unless its host is allowed, and nothing is sent there.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::Empty;
use secrecy::SecretString;
use serde_json::{Value, json};
use tower::{Layer as _, ServiceExt as _, service_fn};
use tower_oauth::app_id::{ApplicationName, Binding, IamApiKey, ManagementClient};
use tower_oauth::clock::SystemClock;
use tower_oauth::error::{ConfigErrorKind, ErrorKind};
use tower_oauth::resource_server::{ProtectedResource, Startup};
use tower_oauth::transport::{SendFuture, Transport};
use tower_oauth::{
    Audience, ClientCredentials, ConfigError, Endpoint, Issuer, Origin, ResourceServer,
    TokenManager, TrustedIssuer,
};

use crate::support::log;

const HTTP: &str = "http://as.example";
const LOOPBACK: &str = "http://127.0.0.1:6002";

/// Records the URLs of all requests, and answers each with the same document.
#[derive(Clone, Debug)]
struct Recorder {
    document: Arc<Value>,
    urls: Arc<Mutex<Vec<String>>>,
    user_agents: Arc<Mutex<Vec<String>>>,
}

impl Recorder {
    fn new(document: Value) -> Self {
        Self {
            document: Arc::new(document),
            urls: Arc::default(),
            user_agents: Arc::default(),
        }
    }

    fn urls(&self) -> Vec<String> {
        self.urls.lock().unwrap().clone()
    }
}

impl Transport for Recorder {
    fn send(&self, request: Request<Bytes>, _max_body: usize) -> SendFuture<'_> {
        self.urls.lock().unwrap().push(request.uri().to_string());
        let user_agent = request.headers()[header::USER_AGENT].to_str().unwrap();
        self.user_agents.lock().unwrap().push(user_agent.to_owned());
        let body = Bytes::from(self.document.to_string());
        Box::pin(async { Ok(Response::new(body)) })
    }
}

fn credentials() -> ClientCredentials {
    ClientCredentials::new("orders", "s3cret")
}

fn url(text: &str) -> Endpoint {
    Endpoint::new(text).unwrap()
}

fn trusted(issuer: &str) -> TrustedIssuer {
    TrustedIssuer::new(
        Issuer::new(issuer).unwrap(),
        Audience::new("orders").unwrap(),
    )
}

#[track_caller]
fn assert_plain_http<T>(result: Result<T, ConfigError>, setting: &str) {
    let error = result.map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), ConfigErrorKind::PlainHttp, "{error}");
    assert_eq!(error.setting(), setting);
    assert!(
        error
            .to_string()
            .contains("is plain http: use https, or allow_http"),
        "{error}"
    );
    assert!(!error.to_string().contains("secret"), "{error}");
}

#[test]
fn a_token_endpoint_over_plain_http_does_not_build() {
    let recorder = Recorder::new(json!({}));
    let builder = TokenManager::builder(url("http://as.example/secret"), credentials());
    let built = builder
        .transport(recorder.clone())
        .allow_loopback_http()
        .build();
    assert_plain_http(built, "token endpoint");
    let issuer = Issuer::new("http://as.example/secret").unwrap();
    let built = TokenManager::for_issuer(issuer, credentials())
        .unwrap()
        .transport(recorder.clone())
        .allow_loopback_http()
        .build();
    assert_plain_http(built, "issuer");
    assert!(recorder.urls().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_token_endpoint_over_plain_http_in_the_metadata_gets_no_secret() {
    let document = json!({ "issuer": LOOPBACK, "token_endpoint": "http://as.example/token" });
    let recorder = Recorder::new(document);
    let tokens = TokenManager::for_issuer(Issuer::new(LOOPBACK).unwrap(), credentials())
        .unwrap()
        .transport(recorder.clone())
        .allow_loopback_http()
        .start()
        .unwrap();
    let error = tokens.access_token().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Malformed, "{error}");
    assert!(
        recorder.urls().iter().all(|url| url.starts_with(LOOPBACK)),
        "{:?}",
        recorder.urls()
    );
}

#[test]
fn an_issuer_or_jwks_uri_over_plain_http_does_not_build() {
    let recorder = Recorder::new(json!({}));
    for issuer in [
        trusted("http://as.example/secret"),
        trusted(LOOPBACK).jwks_uri(url("http://as.example/secret")),
        trusted("https://as.example").jwks_uri(url("http://as.example/secret")),
    ] {
        let built = ResourceServer::from_issuer(issuer)
            .transport(recorder.clone())
            .allow_loopback_http()
            .build();
        let error = built.map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), ConfigErrorKind::PlainHttp, "{error}");
        assert_eq!(error.value(), Some(HTTP));
    }
    assert!(recorder.urls().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_jwks_uri_over_plain_http_in_the_metadata_is_not_fetched() {
    let document = json!({ "issuer": LOOPBACK, "jwks_uri": "http://as.example/keys" });
    let recorder = Recorder::new(document);
    let server = ResourceServer::from_issuer(trusted(LOOPBACK))
        .transport(recorder.clone())
        .allow_loopback_http()
        .startup(Startup::Background)
        .start()
        .await
        .unwrap();
    let error = server.refresh_keys().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Malformed, "{error}");
    assert!(!recorder.urls().is_empty());
    assert!(
        recorder.urls().iter().all(|url| url.starts_with(LOOPBACK)),
        "{:?}",
        recorder.urls()
    );
}

#[test]
fn a_resource_over_plain_http_is_not_announced() {
    let build = |resource: &str| {
        ResourceServer::from_issuer(trusted("https://as.example"))
            .transport(Recorder::new(json!({})))
            .protected_resource(ProtectedResource::new(resource).unwrap())
            .allow_loopback_http()
            .build()
            .map(|_| ())
    };
    assert_plain_http(build("http://orders.example/secret"), "resource");
    build("https://orders.example").unwrap();
    build("http://localhost:8081/orders").unwrap();
}

#[test]
fn an_app_id_binding_over_plain_http_is_usable_at_an_allowed_host_only() {
    let server = "http://as.example/oauth/v4/t";
    for (key, url) in [
        ("oauthServerUrl", server),
        ("oAuthServerUrl", server),
        ("appidServiceEndpoint", HTTP),
    ] {
        let binding = json!({
            "clientId": "a", "secret": "s3cret", "tenantId": "t", "version": "4", key: url,
        });
        let binding = Binding::from_json(&binding.to_string()).unwrap();
        let recorder = Recorder::new(json!({}));
        let server = || {
            binding
                .resource_server()
                .unwrap()
                .transport(recorder.clone())
        };
        let tokens = || binding.token_manager().unwrap().transport(recorder.clone());
        assert_plain_http(server().allow_loopback_http().build(), "jwks_uri");
        assert_plain_http(server().allow_http(["other.example"]).build(), "jwks_uri");
        drop(server().allow_http(["as.example"]).build().unwrap());
        assert_plain_http(tokens().allow_loopback_http().build(), "token endpoint");
        assert_plain_http(
            tokens().allow_http(["other.example"]).build(),
            "token endpoint",
        );
        drop(tokens().allow_http(["as.example"]).build().unwrap());
        assert!(recorder.urls().is_empty());
    }
}

#[tokio::test]
async fn a_management_api_over_plain_http_gets_no_iam_token() {
    let recorder = Recorder::new(json!({}));
    let iam = || SecretString::from("iam-token");
    let built = ManagementClient::builder(url("http://as.example/secret"), iam())
        .allow_loopback_http()
        .build_with(recorder.clone());
    assert_plain_http(built, "management URL");
    let built = IamApiKey::with_transport(
        url("http://iam.example/secret"),
        "api-key",
        recorder.clone(),
        SystemClock,
    );
    assert_plain_http(built, "IAM URL");
    assert!(recorder.urls().is_empty());

    // An application whose server is plain http: a binding of it would send its secret there.
    let recorder = Recorder::new(json!({
        "clientId": "a", "tenantId": "t", "secret": "s3cret", "name": "a",
        "oAuthServerUrl": "http://as.example/oauth/v4/t",
    }));
    let management = ManagementClient::builder(url(LOOPBACK), iam())
        .allow_loopback_http()
        .build_with(recorder.clone())
        .unwrap();
    let name = ApplicationName::new("a").unwrap();
    let error = management.register(&name).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Malformed, "{error}");
}

#[tokio::test]
async fn the_client_layer_sends_no_token_to_plain_http_and_names_the_origin_once() {
    log::clear_log();
    let token = json!({ "access_token": "t", "token_type": "Bearer", "expires_in": 3600 });
    let tokens = TokenManager::builder(url("https://as.example/token"), credentials())
        .transport(Recorder::new(token))
        .start()
        .unwrap();
    let origins = ["http://orders.example", "http://localhost:8081"];
    let layer = tokens.layer(origins.map(|origin| Origin::new(origin).unwrap()));
    assert_eq!(log::count("http://orders.example"), 1);
    assert!(!log::logged("http://localhost:8081"));

    let client = layer.layer(service_fn(async |request: Request<Empty<Bytes>>| {
        let has_token = request.headers().contains_key(header::AUTHORIZATION);
        Ok::<_, Infallible>(Response::new(has_token))
    }));
    for (url, expected) in [
        ("http://orders.example/", false),
        ("http://localhost:8081/", true),
    ] {
        let request = Request::get(url).body(Empty::new()).unwrap();
        let has_token = client.clone().oneshot(request).await.unwrap().into_body();
        assert_eq!(has_token, expected, "{url}");
    }
    assert_eq!(log::count("because it is plain http"), 1);
}

const KEYCLOAK: &str = "http://keycloak.sso.svc:8080/realms/shop";

/// The metadata of an issuer that has everything below it.
fn metadata(issuer: &str) -> Value {
    let document = json!({
        "issuer": issuer, "jwks_uri": format!("{issuer}/keys"),
        "token_endpoint": format!("{issuer}/token"),
    });
    // It is the key set and the token response as well.
    with(
        document,
        &json!({
            "keys": [{ "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" }],
            "access_token": "t", "token_type": "Bearer", "expires_in": 3600,
        }),
    )
}

fn with(mut document: Value, members: &Value) -> Value {
    let members = members.as_object().unwrap().clone();
    document.as_object_mut().unwrap().extend(members);
    document
}

#[tokio::test(start_paused = true)]
async fn keys_are_fetched_over_plain_http_from_an_allowed_host() {
    for issuer in [
        trusted(KEYCLOAK),
        trusted(KEYCLOAK).jwks_uri(url("http://KEYCLOAK.sso.svc/keys")),
        // A transport of its own has the same rule.
        trusted(KEYCLOAK).transport(Recorder::new(metadata(KEYCLOAK))),
    ] {
        log::clear_log();
        let recorder = Recorder::new(metadata(KEYCLOAK));
        let builder = || ResourceServer::from_issuer(issuer.clone()).transport(recorder.clone());
        for hosts in [&[][..], &["sso.svc"], &["keycloak"], &["localhost"]] {
            let built = builder().allow_http(hosts.iter().copied()).build();
            let error = built.map(|_| ()).unwrap_err();
            assert_eq!(error.kind(), ConfigErrorKind::PlainHttp, "{error}");
            assert!(
                error
                    .to_string()
                    .contains(r#"allow_http(["keycloak.sso.svc"])"#),
                "{error}"
            );
        }
        assert!(recorder.urls().is_empty());
        let hosts = ["orders", "Keycloak.SSO.svc", "orders"];
        let server = builder().allow_http(hosts).start().await.unwrap();
        assert!(server.keys_available());
        assert_eq!(
            log::count("host=keycloak.sso.svc"),
            1,
            "each host is named once"
        );
        assert_eq!(log::count("host=orders"), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_is_requested_over_plain_http_from_an_allowed_host() {
    let recorder = Recorder::new(metadata(KEYCLOAK));
    let endpoint = url("http://keycloak.sso.svc/token");
    let issuer = Issuer::new(KEYCLOAK).unwrap();
    for setting in ["token endpoint", "issuer"] {
        let builder = || {
            if setting == "issuer" {
                TokenManager::for_issuer(issuer.clone(), credentials()).unwrap()
            } else {
                TokenManager::builder(endpoint.clone(), credentials())
            }
        };
        log::clear_log();
        let builder = || builder().transport(recorder.clone());
        assert_plain_http(builder().build(), setting);
        assert_plain_http(builder().build_source(), setting);
        assert_plain_http(builder().allow_http(["sso.svc"]).build(), setting);
        assert!(recorder.urls().is_empty());
        assert_eq!(log::count("plain http to this host"), 0);
        let tokens = builder().allow_http(["keycloak.sso.svc"]).start().unwrap();
        assert_eq!(tokens.access_token().await.unwrap().expose_secret(), "t");
        assert_eq!(log::count("host=keycloak.sso.svc"), 1);
        let _source = builder()
            .allow_http(["keycloak.sso.svc"])
            .build_source()
            .unwrap();
        assert_eq!(log::count("host=keycloak.sso.svc"), 2);
        recorder.urls.lock().unwrap().clear();
    }
}

/// The settings allow a host; a document must not use that for another purpose.
#[tokio::test(start_paused = true)]
async fn what_the_metadata_name_over_plain_http_must_be_allowed() {
    const HTTPS: &str = "https://as.example";
    for (issuer, named) in [
        (HTTPS, "http://keycloak.sso.svc:8080/x"),
        (HTTPS, "http://as.example/x"),
        (HTTPS, "http://127.0.0.1/x"),
        (KEYCLOAK, "http://other.sso.svc/x"),
        (KEYCLOAK, "http://127.0.0.1/x"),
        (KEYCLOAK, "http://169.254.169.254/x"),
        (KEYCLOAK, "https://169.254.169.254/x"),
        (LOOPBACK, "http://other.sso.svc/x"),
    ] {
        let document = with(
            metadata(issuer),
            &json!({ "jwks_uri": named, "token_endpoint": named }),
        );
        let recorder = Recorder::new(document);
        let server = ResourceServer::from_issuer(trusted(issuer))
            .transport(recorder.clone())
            .allow_loopback_http()
            .allow_http(["keycloak.sso.svc", "as.example"])
            .startup(Startup::Background)
            .start()
            .await
            .unwrap();
        let error = server.refresh_keys().await.unwrap_err();
        assert_eq!(
            error.kind(),
            ErrorKind::Malformed,
            "{issuer}: {named}: {error}"
        );
        let tokens = TokenManager::for_issuer(Issuer::new(issuer).unwrap(), credentials())
            .unwrap()
            .transport(recorder.clone())
            .allow_loopback_http()
            .allow_http(["keycloak.sso.svc", "as.example"])
            .start()
            .unwrap();
        let error = tokens.access_token().await.unwrap_err();
        assert_eq!(
            error.kind(),
            ErrorKind::Malformed,
            "{issuer}: {named}: {error}"
        );
        assert!(!recorder.urls().is_empty());
        assert!(
            recorder
                .urls()
                .iter()
                .all(|url| url.contains("/.well-known/")),
            "{named}"
        );
    }
}

#[test]
fn an_invalid_host_does_not_build() {
    for bad in [
        "*",
        "*.svc",
        "http://keycloak",
        "keycloak:8080",
        "",
        "169.254.169.254",
    ] {
        let server = ResourceServer::from_issuer(trusted("https://as.example"))
            .transport(Recorder::new(json!({})))
            .allow_http([bad])
            .build();
        let tokens = TokenManager::builder(url("https://as.example/token"), credentials())
            .transport(Recorder::new(json!({})))
            .allow_http([bad]);
        let source = TokenManager::builder(url("https://as.example/token"), credentials())
            .transport(Recorder::new(json!({})))
            .build_source()
            .unwrap();
        let from_source = TokenManager::from_source(source).allow_http([bad]);
        for error in [
            server.map(|_| ()).unwrap_err(),
            tokens.build().map(|_| ()).unwrap_err(),
            from_source.build().map(|_| ()).unwrap_err(),
        ] {
            assert_eq!(error.setting(), "allow_http", "{bad:?}");
        }
    }
}

#[test]
fn an_invalid_user_agent_does_not_build() {
    let server = ResourceServer::from_issuer(trusted("https://as.example"))
        .transport(Recorder::new(json!({})))
        .user_agent("a\r\nb")
        .build();
    let tokens = TokenManager::builder(url("https://as.example/token"), credentials())
        .transport(Recorder::new(json!({})))
        .user_agent("")
        .build();
    for error in [
        server.map(|_| ()).unwrap_err(),
        tokens.map(|_| ()).unwrap_err(),
    ] {
        assert_eq!(error.setting(), "user_agent");
    }
}

#[tokio::test(start_paused = true)]
async fn each_request_has_the_user_agent_of_its_settings() {
    const DEFAULT: &str = concat!("tower-oauth/", env!("CARGO_PKG_VERSION"));
    const OWN: &str = "orders/1.2 tower-oauth";
    const HTTPS: &str = "https://as.example";
    for (expected, is_own) in [(DEFAULT, false), (OWN, true)] {
        let recorder = Recorder::new(metadata(HTTPS));
        let sent = |paths: &[&str]| {
            let urls = std::mem::take(&mut *recorder.urls.lock().unwrap());
            let expected: Vec<_> = paths.iter().map(|path| format!("{HTTPS}{path}")).collect();
            assert_eq!(urls, expected);
            std::mem::take(&mut *recorder.user_agents.lock().unwrap())
        };
        let builder = ResourceServer::from_issuer(trusted(HTTPS)).transport(recorder.clone());
        let builder = if is_own {
            builder.user_agent(OWN)
        } else {
            builder
        };
        let _server = builder.start().await.unwrap();
        let user_agents = sent(&["/.well-known/openid-configuration", "/keys"]);
        assert_eq!(user_agents, [expected, expected]);

        let builder = TokenManager::for_issuer(Issuer::new(HTTPS).unwrap(), credentials());
        let builder = builder.unwrap().transport(recorder.clone());
        let builder = if is_own {
            builder.user_agent(OWN)
        } else {
            builder
        };
        builder.start().unwrap().access_token().await.unwrap();
        let user_agents = sent(&["/.well-known/openid-configuration", "/token"]);
        assert_eq!(user_agents, [expected, expected]);

        let management = ManagementClient::builder(url(HTTPS), SecretString::from("iam-token"));
        let management = if is_own {
            management.user_agent(OWN)
        } else {
            management
        };
        let management = management.build_with(recorder.clone()).unwrap();
        let _response = management.scopes("a").await;
        assert_eq!(sent(&["/applications/a/scopes"]), [expected]);
    }
}

#[tokio::test(start_paused = true)]
async fn the_client_layer_sends_the_token_over_plain_http_to_allowed_hosts_only() {
    let token = json!({ "access_token": "t", "token_type": "Bearer", "expires_in": 3600 });
    let manager = || {
        TokenManager::builder(url("https://as.example/token"), credentials())
            .transport(Recorder::new(token.clone()))
    };
    let of_endpoint = manager().allow_http(["orders"]).start().unwrap();
    let source = manager().build_source().unwrap();
    let of_source = TokenManager::from_source(source)
        .allow_http(["Orders"])
        .start()
        .unwrap();
    for tokens in [of_endpoint, of_source] {
        log::clear_log();
        let origins = [
            "http://orders:8080",
            "http://orders.svc",
            "http://bills",
            "http://localhost:8081",
        ];
        let layer = tokens.layer(origins.map(|origin| Origin::new(origin).unwrap()));
        assert_eq!(log::count("get no token"), 2);
        let client = layer.layer(service_fn(async |request: Request<Empty<Bytes>>| {
            let has_token = request.headers().contains_key(header::AUTHORIZATION);
            Ok::<_, Infallible>(Response::new(has_token))
        }));
        for (url, expected) in [
            ("http://orders:8080/", true),
            ("http://orders/", false), // another origin
            ("http://orders.svc/", false),
            ("http://bills/", false),
            ("http://localhost:8081/", true),
        ] {
            let request = Request::get(url).body(Empty::new()).unwrap();
            let has_token = client.clone().oneshot(request).await.unwrap().into_body();
            assert_eq!(has_token, expected, "{url}");
        }
    }
}

#[tokio::test]
async fn a_management_api_over_plain_http_is_called_at_an_allowed_host() {
    log::clear_log();
    let recorder = Recorder::new(json!({ "scopes": [] }));
    let builder = ManagementClient::builder(url("http://appid.svc/m"), SecretString::from("token"));
    let management = builder
        .allow_http(["appid.svc"])
        .build_with(recorder.clone())
        .unwrap();
    management.scopes("a").await.unwrap();
    assert_eq!(
        recorder.urls(),
        ["http://appid.svc/m/applications/a/scopes"]
    );
    assert_eq!(log::count("host=appid.svc"), 1);
}
