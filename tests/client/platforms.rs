//! Clients whose credentials come from a platform: Azure, GitHub Actions, Google.

use std::sync::{Arc, Mutex};

use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    KeyPair as _, RSA_PKCS1_2048_8192_SHA256, RsaKeyPair, UnparsedPublicKey,
};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use secrecy::SecretString;
use serde_json::{Value, json};
use tempfile::NamedTempFile;
use tower::service_fn;
use tower_oauth::client::{
    AssertionAudience, AssertionSource as _, GitHubActionsAssertion, TokenManagerBuilder,
    TokenSource,
};
use tower_oauth::error::{ConfigErrorKind, ErrorKind};
use tower_oauth::transport::{SendFuture, ServiceTransport, Transport};
use tower_oauth::{BoxError, ClientAssertion, Endpoint, Error, TokenManager};

use crate::support::child_process::{is_child, run_again, test_name};
use crate::support::token_endpoint::{Reply, TokenEndpoint, TokioClock};
use crate::support::{chain, decoded, jwt, log, pem};

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

async fn fetch(source: &impl TokenSource) -> Result<(), Error> {
    source.fetch().await.map(drop)
}

/// An assertion that does not expire soon.
fn assertion(id: &str) -> String {
    jwt::unsigned(&json!({ "sub": id, "exp": 4_000_000_000_u64 }))
}

const TENANT: &str = "8c0ba5b5-3d2a-4ee0-a9d9-3a0d8c1b6d2a";
const CLIENT: &str = "9d1a6b9f-0c0d-4a39-8d57-4a8d2a4a0c11";

/// The parameters of each token request so far.
fn forms(endpoint: &TokenEndpoint) -> Vec<Vec<(String, String)>> {
    let requests = endpoint.token_requests().into_iter();
    requests.map(|request| request.form).collect()
}

fn parameters(form: &[(&str, &str)]) -> Vec<(String, String)> {
    let parameters = form.iter();
    parameters
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

#[tokio::test]
async fn azure_workload_identity_sends_the_token_of_the_file_to_the_tenant() {
    if !is_child() {
        let file = NamedTempFile::new().unwrap();
        let variables = [
            ("AZURE_CLIENT_ID", CLIENT),
            ("AZURE_TENANT_ID", TENANT),
            ("AZURE_FEDERATED_TOKEN_FILE", file.path().to_str().unwrap()),
        ];
        for (host, issuer) in [
            (None, "https://login.microsoftonline.com"),
            (Some(""), "https://login.microsoftonline.com"),
            (
                Some("https://login.microsoftonline.com/"),
                "https://login.microsoftonline.com",
            ),
            (
                Some("https://login.microsoftonline.us"),
                "https://login.microsoftonline.us",
            ),
            (
                Some("https://login.chinacloudapi.cn/"),
                "https://login.partner.microsoftonline.cn",
            ),
        ] {
            let mut variables = variables.to_vec();
            variables.extend(host.map(|host| ("AZURE_AUTHORITY_HOST", host)));
            variables.push(("ISSUER", issuer));
            run_again(test_name!(), &variables);
        }
        return;
    }
    let authority = variable("ISSUER").unwrap();
    let token_endpoint = format!("{authority}/{TENANT}/oauth2/v2.0/token");
    let metadata = json!({
        "issuer": format!("{authority}/{TENANT}/v2.0"),
        "token_endpoint": token_endpoint,
    });
    let endpoint = TokenEndpoint::with_reply(Reply::Token(60)).metadata(Reply::Json(200, metadata));
    let source = TokenManager::azure_workload_identity()
        .unwrap()
        .scope("api://orders/.default")
        .transport(endpoint.clone())
        .build_source()
        .unwrap();
    let file = variable("AZURE_FEDERATED_TOKEN_FILE").unwrap();
    for id in ["first", "second"] {
        std::fs::write(&file, assertion(id)).unwrap();
        fetch(&source).await.unwrap();
    }
    let expected = ["first", "second"].map(|id| {
        parameters(&[
            ("grant_type", "client_credentials"),
            ("scope", "api://orders/.default"),
            ("client_id", CLIENT),
            (
                "client_assertion_type",
                "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
            ),
            ("client_assertion", &assertion(id)),
        ])
    });
    assert_eq!(forms(&endpoint), expected);
    let urls = endpoint.token_requests().into_iter();
    assert!(
        urls.map(|request| request.url)
            .all(|url| url == token_endpoint)
    );
}

#[test]
fn each_azure_variable_that_is_absent_or_invalid_is_named() {
    if !is_child() {
        let variables = [
            ("AZURE_CLIENT_ID", CLIENT),
            ("AZURE_TENANT_ID", TENANT),
            ("AZURE_FEDERATED_TOKEN_FILE", "/var/run/secrets/token"),
        ];
        for (name, value, kind) in [
            ("AZURE_CLIENT_ID", None, "missing"),
            ("AZURE_CLIENT_ID", Some(""), "missing"),
            ("AZURE_TENANT_ID", None, "missing"),
            ("AZURE_TENANT_ID", Some("shop.onmicrosoft.com"), "invalid"),
            ("AZURE_TENANT_ID", Some("common"), "invalid"),
            ("AZURE_FEDERATED_TOKEN_FILE", None, "missing"),
            ("AZURE_AUTHORITY_HOST", Some("login.example"), "invalid"),
            (
                "AZURE_AUTHORITY_HOST",
                Some("https://a.example/b"),
                "invalid",
            ),
        ] {
            let mut variables = variables.to_vec();
            variables.retain(|(other, _)| *other != name);
            variables.extend(value.map(|value| (name, value)));
            variables.extend([("NAME", name), ("KIND", kind)]);
            run_again(test_name!(), &variables);
        }
        // The same rule as for other issuers.
        let mut variables = variables.to_vec();
        variables.extend([
            ("AZURE_AUTHORITY_HOST", "http://a.example/"),
            ("NAME", "issuer"),
            ("KIND", "plain_http"),
        ]);
        run_again(test_name!(), &variables);
        return;
    }
    let manager = TokenManager::azure_workload_identity();
    let manager = manager.and_then(|manager| manager.build().map(drop));
    let error = manager.unwrap_err();
    assert_eq!(error.setting(), variable("NAME").unwrap(), "{error}");
    assert_eq!(error.kind().as_str(), variable("KIND").unwrap(), "{error}");
    if error.kind() == ConfigErrorKind::Missing {
        assert!(error.to_string().contains("workload identity"), "{error}");
    }
}

/// The endpoint of GitHub Actions for id tokens.
#[derive(Clone, Debug, Default)]
struct GitHub(Arc<Mutex<Exchange>>);

#[derive(Debug, Default)]
struct Exchange {
    status: u16,
    body: String,
    /// URL and `Authorization` of each request.
    received: Vec<(String, String)>,
}

impl GitHub {
    fn with_reply(status: u16, body: &impl std::fmt::Display) -> Self {
        let github = Self::default();
        github.set_reply(status, body);
        github
    }

    fn set_reply(&self, status: u16, body: &impl std::fmt::Display) {
        let mut exchange = self.0.lock().unwrap();
        (exchange.status, exchange.body) = (status, body.to_string());
    }

    fn received(&self) -> Vec<(String, String)> {
        self.0.lock().unwrap().received.clone()
    }
}

impl Transport for GitHub {
    fn send(&self, request: Request<Bytes>, _max_body: usize) -> SendFuture<'_> {
        let mut exchange = self.0.lock().unwrap();
        let field = &request.headers()["authorization"];
        assert!(field.is_sensitive());
        let field = field.to_str().unwrap().to_owned();
        exchange.received.push((request.uri().to_string(), field));
        let response = Response::builder().status(exchange.status);
        let response = response.body(Bytes::from(exchange.body.clone()));
        Box::pin(async { Ok(response.unwrap()) })
    }
}

const REQUEST_TOKEN: &str = "a-request-token-of-the-job";

const GITHUB: [(&str, &str); 2] = [
    (
        "ACTIONS_ID_TOKEN_REQUEST_URL",
        "https://pipelines.example/idtoken/job?api-version=2.0",
    ),
    ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", REQUEST_TOKEN),
];

async fn id_token(github: &GitHub, audience: &str) -> Result<SecretString, BoxError> {
    let source = GitHubActionsAssertion::from_env().unwrap();
    let source = source.transport(github.clone());
    source.assertion(audience).await
}

#[tokio::test]
async fn a_job_of_github_actions_gets_a_new_id_token_for_each_token_request() {
    if !is_child() {
        run_again(test_name!(), &GITHUB);
        return;
    }
    let github = GitHub::default();
    let source = GitHubActionsAssertion::from_env().unwrap();
    let client = ClientAssertion::new(source.transport(github.clone()))
        .with_client_id(CLIENT)
        .audience(AssertionAudience::Other("api://Azure AD&c=ü".to_owned()));
    let endpoint = TokenEndpoint::with_reply(Reply::Token(60));
    let url = Endpoint::new("https://as.example/token").unwrap();
    let tokens = TokenManager::builder(url, client)
        .transport(endpoint.clone())
        .build_source()
        .unwrap();
    for id in ["first", "second"] {
        github.set_reply(200, &json!({ "count": 1, "value": assertion(id) }));
        fetch(&tokens).await.unwrap();
    }
    let sent: Vec<String> = forms(&endpoint)
        .into_iter()
        .flatten()
        .filter(|(name, _)| name == "client_assertion")
        .map(|(_, value)| value)
        .collect();
    assert_eq!(sent, [assertion("first"), assertion("second")]);
    let url = "https://pipelines.example/idtoken/job?api-version=2.0\
               &audience=api%3A%2F%2FAzure+AD%26c%3D%C3%BC";
    let request = (url.to_owned(), format!("bearer {REQUEST_TOKEN}"));
    assert_eq!(github.received(), [request.clone(), request]);
}

#[tokio::test]
async fn a_response_of_github_without_an_id_token_is_an_error_without_its_text() {
    if !is_child() {
        run_again(test_name!(), &GITHUB);
        return;
    }
    log::clear_log();
    let secret = assertion("secret");
    for (status, body, reason) in [
        (200, json!({ "value": "not a JWT" }), "is not a JWT"),
        (200, json!({ "value": "" }), "is not a JWT"),
        (200, json!({ "value": 5 }), "as `value`"),
        (200, json!({ "token": secret }), "as `value`"),
        (200, json!(secret), "as `value`"),
        (200, json!({ "value": "e".repeat(70_000) }), "65536 bytes"),
        (401, json!({ "message": secret }), "`id-token: write`"),
        (
            403,
            json!({ "message": secret }),
            "valid during its job only",
        ),
        (503, Value::Null, "503"),
    ] {
        let github = GitHub::with_reply(status, &body);
        let error = id_token(&github, "orders").await.unwrap_err();
        let text = chain(&*error);
        assert!(text.contains(reason), "{body}: {text}");
        for text in [&text, &format!("{error:?}")] {
            assert!(
                !text.contains("eyJ") && !text.contains(REQUEST_TOKEN),
                "{text}"
            );
        }
        assert_eq!(github.received().len(), 1);
    }
    log::assert_not_logged(REQUEST_TOKEN);
    log::assert_not_logged(&secret);
}

#[tokio::test]
async fn a_failure_of_github_is_an_error_of_the_credentials_and_is_retried() {
    if !is_child() {
        run_again(test_name!(), &GITHUB);
        return;
    }
    let github = GitHub::with_reply(503, &"");
    let source = GitHubActionsAssertion::from_env().unwrap();
    let client = ClientAssertion::new(source.transport(github.clone()));
    let endpoint = TokenEndpoint::with_reply(Reply::Token(60));
    let url = Endpoint::new("https://as.example/token").unwrap();
    let builder = TokenManager::builder(url, client).transport(endpoint.clone());
    let source = builder.build_source().unwrap();
    let error = source.fetch().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Credentials, "{error}");
    assert!(forms(&endpoint).is_empty());
    github.set_reply(200, &json!({ "value": assertion("orders") }));
    fetch(&source).await.unwrap();
}

#[tokio::test]
async fn the_request_token_of_github_is_sent_over_https_only_and_not_shown() {
    if !is_child() {
        for url in ["http://pipelines.example/id", "http://127.0.0.1:9/id"] {
            let mut variables = GITHUB;
            variables[0].1 = url;
            run_again(test_name!(), &variables);
        }
        return;
    }
    let github = GitHub::with_reply(200, &json!({ "value": assertion("orders") }));
    let error = id_token(&github, "orders").await.unwrap_err();
    let text = chain(&*error);
    assert!(text.contains("is plain http: use https"), "{text}");
    assert!(github.received().is_empty());
    let source = GitHubActionsAssertion::from_env().unwrap();
    let source = source.transport(github.clone()).allow_loopback_http();
    let is_loopback = variable("ACTIONS_ID_TOKEN_REQUEST_URL")
        .unwrap()
        .contains("127.0.0.1");
    assert_eq!(source.assertion("orders").await.is_ok(), is_loopback);
    assert_eq!(github.received().len(), usize::from(is_loopback));
    let shown = format!("{source:?}");
    assert!(
        shown.contains("http://") && !shown.contains(REQUEST_TOKEN),
        "{shown}"
    );
}

#[test]
fn without_the_permission_for_id_tokens_the_error_names_it() {
    if !is_child() {
        run_again(test_name!(), &[("NAME", GITHUB[0].0)]);
        run_again(test_name!(), &[GITHUB[1], ("NAME", GITHUB[0].0)]);
        run_again(test_name!(), &[GITHUB[0], ("NAME", GITHUB[1].0)]);
        return;
    }
    let error = GitHubActionsAssertion::from_env().unwrap_err();
    assert_eq!(error.kind(), ConfigErrorKind::Missing);
    assert_eq!(error.setting(), variable("NAME").unwrap());
    let text = error.to_string();
    assert!(text.contains("the permission `id-token: write`"), "{text}");
    assert!(!format!("{error:?}").contains(REQUEST_TOKEN));
}

const EMAIL: &str = "orders@shop.iam.gserviceaccount.com";

/// A key, with its PEM text.
fn google_key() -> (RsaKeyPair, String) {
    let key = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let der: Pkcs8V1Der<'_> = key.as_der().unwrap();
    let pem = pem("PRIVATE KEY", der.as_ref());
    (key, pem)
}

/// The JSON of a key, as the console writes it.
fn service_account(key: &str) -> Value {
    json!({
        "type": "service_account",
        "project_id": "shop",
        "private_key_id": "0123abcd",
        "private_key": key,
        "client_email": EMAIL,
        "client_id": "1234567890",
        "auth_uri": "https://accounts.google.com/o/oauth2/auth",
        "token_uri": "https://oauth2.googleapis.com/token",
        "universe_domain": "googleapis.com",
    })
}

fn google(json: &Value) -> TokenManagerBuilder {
    TokenManager::google_service_account(json.to_string()).unwrap()
}

/// Header and claims of the only assertion of a request, whose signature is verified.
fn verified(form: &[(String, String)], key: &RsaKeyPair) -> (Value, Value) {
    let [(grant, jwt_bearer), (name, jwt)] = form else {
        panic!("{form:?}");
    };
    let names = [grant.as_str(), jwt_bearer, name];
    let grant = "urn:ietf:params:oauth:grant-type:jwt-bearer";
    assert_eq!(names, ["grant_type", grant, "assertion"]);
    let (signed, signature) = jwt.rsplit_once('.').unwrap();
    let signature = decoded(signature);
    let public = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key.public_key().as_ref());
    public.verify(signed.as_bytes(), &signature).unwrap();
    jwt::decode(jwt)
}

#[tokio::test(start_paused = true)]
async fn a_google_service_account_signs_an_assertion_with_its_scopes_for_each_request() {
    let (key, pem) = google_key();
    let endpoint = TokenEndpoint::with_reply(Reply::Token(3599));
    let builder = google(&service_account(&pem))
        .scope("https://www.googleapis.com/auth/pubsub")
        .scope("https://www.googleapis.com/auth/cloud-platform")
        .clock(TokioClock::new())
        .transport(endpoint.clone());
    assert!(!format!("{builder:?}").contains(pem.lines().nth(1).unwrap()));
    let source = builder.build_source().unwrap();
    fetch(&source).await.unwrap();
    tokio::time::sleep(std::time::Duration::from_secs(60)).await;
    fetch(&source).await.unwrap();
    let requests = endpoint.token_requests();
    let mut ids = Vec::new();
    for (request, now) in requests.iter().zip([1_700_000_000_u64, 1_700_000_060]) {
        assert_eq!(request.url, "https://oauth2.googleapis.com/token");
        assert_eq!(request.authorization, None);
        let (header, mut claims) = verified(&request.form, &key);
        let expected = json!({ "alg": "RS256", "typ": "JWT", "kid": "0123abcd" });
        assert_eq!(header, expected);
        ids.push(claims.as_object_mut().unwrap().remove("jti").unwrap());
        assert_eq!(
            claims,
            json!({
                "iss": EMAIL,
                "aud": "https://oauth2.googleapis.com/token",
                "iat": now - 10,
                "exp": now - 10 + 3600,
                "scope": "https://www.googleapis.com/auth/pubsub \
                          https://www.googleapis.com/auth/cloud-platform",
            })
        );
    }
    assert_eq!(ids.len(), 2);
    assert_ne!(ids[0], ids[1]);
}

#[tokio::test]
async fn a_key_without_token_uri_and_id_is_for_google_and_has_no_kid() {
    let (key, pem) = google_key();
    let mut json = service_account(&pem);
    for name in ["token_uri", "private_key_id"] {
        json.as_object_mut().unwrap().remove(name);
    }
    let endpoint = TokenEndpoint::with_reply(Reply::Token(3599));
    let builder = google(&json).transport(endpoint.clone());
    fetch(&builder.build_source().unwrap()).await.unwrap();
    let [request] = &endpoint.token_requests()[..] else {
        panic!("one request");
    };
    assert_eq!(request.url, "https://oauth2.googleapis.com/token");
    let (header, claims) = verified(&request.form, &key);
    assert_eq!(header, json!({ "alg": "RS256", "typ": "JWT" }));
    assert_eq!(claims["aud"], "https://oauth2.googleapis.com/token");
    assert_eq!(claims.get("scope"), None);
}

#[tokio::test]
async fn a_refusal_of_google_has_a_hint_and_not_the_assertion() {
    let (_, pem) = google_key();
    let endpoint = TokenEndpoint::with_reply(Reply::Json(
        400,
        json!({ "error": "invalid_grant", "error_description": "Invalid JWT Signature." }),
    ));
    let builder = google(&service_account(&pem)).transport(endpoint.clone());
    let tokens = builder.start().unwrap();
    log::clear_log();
    let error = tokens.access_token().await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("Invalid JWT Signature."), "{text}");
    assert!(text.contains("the key may have been deleted"), "{text}");
    assert!(log::logged(&format!("manager={EMAIL}")));
    log::assert_not_logged(&forms(&endpoint)[0][1].1);
}

#[tokio::test]
async fn an_assertion_that_google_quotes_is_redacted() {
    let (_, pem) = google_key();
    let quoting = service_fn(async |request: Request<Full<Bytes>>| {
        let form = request.into_body().collect().await?.to_bytes();
        let mut form = url::form_urlencoded::parse(&form);
        let (_, assertion) = form.find(|(name, _)| name == "assertion").unwrap();
        let body = json!({
            "error": "invalid_grant",
            "error_description": format!("the assertion {assertion} is invalid"),
        });
        Ok::<_, BoxError>(Response::builder().status(400).body(body.to_string())?)
    });
    let transport = ServiceTransport::new(quoting);
    let builder = google(&service_account(&pem)).transport(transport);
    let source = builder.build_source().unwrap();
    let error = source.fetch().await.unwrap_err();
    let description = error.oauth_error().unwrap().description().unwrap();
    assert_eq!(description, "the assertion [redacted] is invalid");
    assert!(!format!("{error:?}").contains("eyJ"), "{error:?}");
}

#[test]
fn what_is_no_key_of_a_service_account_is_an_error_without_it() {
    let (_, pem) = google_key();
    let with = |name: &str, value: Value| {
        let mut json = service_account(&pem);
        json[name] = value;
        json.to_string()
    };
    for (json, reason) in [
        (String::new(), "is not the JSON of a service account key"),
        (pem.clone(), "is not the JSON of a service account key"),
        (
            json!(pem).to_string(),
            "is not the JSON of a service account key",
        ),
        (
            with("client_email", json!([pem])),
            "is not the JSON of a service account key",
        ),
        (with("type", Value::Null), "`type` `service_account`"),
        (with("type", json!("authorized_user")), "other credentials"),
        (with("client_email", Value::Null), "has no `client_email`"),
        (with("client_email", json!("")), "has no `client_email`"),
        (with("private_key", Value::Null), "has no `private_key`"),
        (
            with("private_key", json!("")),
            "`private_key` of the service account key is not PEM",
        ),
        (
            with("private_key", json!(pem.replace('\n', "\\n"))),
            "`private_key` of the service account key is not valid PEM",
        ),
        (
            with("token_uri", json!("http://oauth2.googleapis.com/token")),
            "must be https",
        ),
        (
            with("token_uri", json!("http://127.0.0.1/token")),
            "must be https",
        ),
        (
            with("token_uri", json!("oauth2.googleapis.com")),
            "token_uri",
        ),
    ] {
        let error = TokenManager::google_service_account(json).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("service account key"), "{text}");
        assert!(text.contains(reason), "{reason}: {text}");
        let secret = pem.lines().nth(1).unwrap();
        assert!(!format!("{error:?}").contains(secret), "{error:?}");
    }
}

#[test]
fn a_google_service_account_takes_no_other_grant() {
    let (_, pem) = google_key();
    let assertion = tower_oauth::client::AssertionFile::new("/run/assertion");
    let grant = tower_oauth::client::JwtBearerGrant::new(assertion);
    let error = google(&service_account(&pem))
        .grant(grant)
        .build()
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "grant must not be set: a service account of Google has its own"
    );
    assert_eq!(error.kind(), ConfigErrorKind::Conflict);
}
