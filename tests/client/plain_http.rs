//! Plain http beyond loopback is refused at each use of a URL, and nothing is sent there.

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
use tower_oauth::resource_server::Startup;
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
}

impl Recorder {
    fn new(document: Value) -> Self {
        Self {
            document: Arc::new(document),
            urls: Arc::default(),
        }
    }

    fn urls(&self) -> Vec<String> {
        self.urls.lock().unwrap().clone()
    }
}

impl Transport for Recorder {
    fn send(&self, request: Request<Bytes>, _max_body: usize) -> SendFuture<'_> {
        self.urls.lock().unwrap().push(request.uri().to_string());
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
    assert!(error.to_string().contains("must be https"), "{error}");
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
fn resource_metadata_over_plain_http_are_not_announced() {
    let build = |metadata: &str| {
        ResourceServer::from_issuer(trusted("https://as.example"))
            .transport(Recorder::new(json!({})))
            .resource_metadata(url(metadata))
            .build()
            .map(|_| ())
    };
    assert_plain_http(build("http://orders.example/secret"), "resource_metadata");
    build("https://orders.example/.well-known/oauth-protected-resource").unwrap();
    build("http://localhost:8081/.well-known/oauth-protected-resource").unwrap();
}

#[test]
fn an_app_id_binding_over_plain_http_does_not_build() {
    let binding = |key: &str, url: &str| {
        let binding = json!({
            "clientId": "a", "secret": "s3cret", "tenantId": "t", "version": "4", key: url,
        });
        Binding::from_json(&binding.to_string())
    };
    let server = "http://as.example/oauth/v4/t";
    let setting = |key: &str| format!("{key} of App ID credentials");
    for (key, url) in [
        ("oauthServerUrl", server),
        ("oAuthServerUrl", server),
        ("appidServiceEndpoint", HTTP),
    ] {
        assert_plain_http(binding(key, url), &setting(key));
    }
    let management = json!({
        "oauthServerUrl": "https://as.example/oauth/v4/t", "managementUrl": "http://as.example/secret",
    });
    assert_plain_http(
        Binding::from_json(&management.to_string()),
        &setting("managementUrl"),
    );
    let builder = || Binding::builder().tenant_id("t");
    assert_plain_http(
        builder().oauth_server_url(url(server)).build(),
        "oauth_server_url",
    );
    assert_plain_http(
        builder().service_endpoint(url(HTTP)).build(),
        "service_endpoint",
    );
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
    assert_eq!(log::count("http://orders.example"), 1);
}
