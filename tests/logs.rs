//! Tokens, secrets and key material are never logged.
//!
//! Captures everything that this process logs at TRACE, dependencies included, during valid and
//! invalid requests, refreshes, token requests and faults of every kind. It is a binary of its own,
//! because a process has one global subscriber.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    unreachable_pub,
    reason = "tests"
)]

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use secrecy::ExposeSecret as _;
use tempfile::NamedTempFile;
use tower::{Layer, ServiceExt, service_fn};
use tower_oauth::authorization_server::{AuthorizationServer, EndpointKind, Fault};
use tower_oauth::client::SigningKey;
use tower_oauth::key_set::RefreshPolicy;
use tower_oauth::resource_server::{Algorithm, Startup};
use tower_oauth::transport::{SendFuture, Transport};
use tower_oauth::{Endpoint, ResourceServer};

/// The captured log.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A token endpoint that rejects each request and quotes all of it.
#[derive(Debug)]
struct Quoting;

impl Transport for Quoting {
    fn send(&self, request: Request<Bytes>, _max_body: usize) -> SendFuture<'_> {
        let field = request.headers()[header::AUTHORIZATION].to_str().unwrap();
        let text = format!("{field} is s3cr3t-quoted/+, or s3cr3t-quoted%2F%2B");
        let body = serde_json::json!({ "error": text, "error_description": text }).to_string();
        let answer = Response::builder().status(400).body(body.into()).unwrap();
        Box::pin(async { Ok(answer) })
    }
}

async fn send(resource: &ResourceServer, field: &str) -> StatusCode {
    let layer = resource.layer().keep_token();
    let service = layer.layer(service_fn(async |_: Request<()>| {
        Ok::<_, std::convert::Infallible>(Response::new(()))
    }));
    let request = Request::builder()
        .uri("/?access_token=s3cr3t-query")
        .header(header::AUTHORIZATION, field);
    let with_query = request.body(()).unwrap();
    let _both = service.clone().oneshot(with_query).await.unwrap();
    let bare = Request::builder()
        .uri("/?access_token=s3cr3t-query")
        .body(())
        .unwrap();
    let _none = service.clone().oneshot(bare).await.unwrap();
    let request = Request::builder()
        .header(header::AUTHORIZATION, field)
        .body(())
        .unwrap();
    service.oneshot(request).await.unwrap().status()
}

/// Whether a text has a JWT, or its first two segments. A header begins with `{"`.
fn has_jwt(text: &str) -> bool {
    let is_token = |character: char| character.is_ascii_alphanumeric() || "-_.".contains(character);
    text.split(|character| !is_token(character)).any(|word| {
        let mut pairs = word.split('.').zip(word.split('.').skip(1));
        pairs.any(|(header, payload)| header.contains("eyJ") && !payload.is_empty())
    })
}

/// CVE-2022-29266 (APISIX: a secret in an error message)
#[tokio::test]
async fn secrets_are_never_logged() {
    let log = Log::default();
    let writer = log.clone();
    tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .init();

    let listening = AuthorizationServer::builder().bind(0).await.unwrap();
    let server = listening.server().clone();
    tokio::spawn(listening.serve(std::future::pending()));
    let app = server.register("shop").unwrap();
    let binding = app.binding().unwrap();
    let resource = binding.resource_server().unwrap().allow_loopback_http();
    let resource = resource
        .refresh(RefreshPolicy::new())
        .start()
        .await
        .unwrap();
    let tokens = binding
        .token_manager()
        .unwrap()
        .allow_loopback_http()
        .start()
        .unwrap();

    let token = tokens.access_token().await.unwrap();
    let mint = || server.mint(&app);
    let mut secrets = vec![
        app.secret().expose_secret().to_owned(),
        server.management_token().expose_secret().to_owned(),
        "s3cr3t-query".to_owned(),
    ];
    let sent = [
        token.expose_secret().to_owned(),
        mint().expired().sign(),
        mint().audience(["account"]).sign(),
        mint().claim("sub", "s3cr3t-subject").sign(),
        mint().with_another_key().sign(),
        mint().with_unknown_key(Algorithm::Es256).sign(),
        mint().unsigned().sign(),
        mint().without("exp").sign(),
        mint().claim("exp", "s3cr3t-type").sign(),
        mint().header("crit", "s3cr3t-header").sign(),
        "s3cr3t.not.a-token".to_owned(),
        "s3cr3t".repeat(4000),
    ];
    let mut granted = 0;
    for token in &sent {
        granted += u32::from(send(&resource, &format!("Bearer {token}")).await == StatusCode::OK);
        // The whole token, and the parts that would be useful alone.
        secrets.push(token.clone());
        secrets.extend(
            token
                .rsplit('.')
                .next()
                .filter(|part| part.len() > 40)
                .map(str::to_owned),
        );
    }
    assert_eq!(
        granted, 2,
        "the valid token, and the one of another subject"
    );

    for fault in [
        Fault::Garbage,
        Fault::Outage(Some(1)),
        Fault::Reset,
        Fault::Truncated,
        Fault::Empty,
    ] {
        // More than one: the scheduled refresh may retry at the same moment.
        server.fail_next(EndpointKind::Keys, 3, fault.clone());
        resource.refresh_keys().await.unwrap_err();
        server.clear_faults();
        server.fail_next(EndpointKind::Token, 1, fault);
        let broken = binding.token_manager().unwrap().allow_loopback_http();
        let _either_way = broken
            .acquire_timeout(Duration::from_secs(2))
            .start()
            .unwrap()
            .access_token()
            .await;
    }
    let wrong = tower_oauth::ClientCredentials::new(app.client_id(), "s3cr3t-wrong");
    let wrong =
        tower_oauth::TokenManager::builder(server.token_endpoint(), wrong).allow_loopback_http();
    let error = wrong.start().unwrap().access_token().await.unwrap_err();
    // A server that quotes the request: the form, the header, and the secret.
    let quoting = tower_oauth::ClientCredentials::new("quoting", "s3cr3t-quoted/+");
    let url = Endpoint::new("https://as.example/token").unwrap();
    let quoting = tower_oauth::TokenManager::builder(url, quoting).transport(Quoting);
    let quoted = quoting.start().unwrap().access_token().await.unwrap_err();
    secrets.extend(["s3cr3t-quoted", "cXVvdGluZzpzM2NyM3QtcXVvdGVk"].map(str::to_owned));
    // A key that the server does not know, and an assertion that it does not take.
    let pem = include_str!("client/client_authentication/keys/ed25519.pem");
    secrets.extend(
        pem.lines()
            .filter(|line| !line.starts_with('-'))
            .map(str::to_owned),
    );
    let key = SigningKey::from_pem(pem, Algorithm::EdDsa).unwrap();
    let signing = tower_oauth::PrivateKeyJwt::new(app.client_id(), key);
    let assertion = [
        "eyJhbGciOiJFUzI1NiJ9",
        "eyJzdWIiOiJzM2NyM3Qtc3ViIn0",
        "czNjcjN0LXNpZ25hdHVyZQ",
    ];
    secrets.extend(assertion.map(str::to_owned));
    let file = NamedTempFile::new().unwrap();
    std::fs::write(&file, assertion.join(".")).unwrap();
    let platform =
        tower_oauth::ClientAssertion::from_file(file.path()).with_client_id(app.client_id());
    let [signed, presented] = [
        tower_oauth::TokenManager::builder(server.token_endpoint(), signing),
        tower_oauth::TokenManager::builder(server.token_endpoint(), platform),
    ]
    .map(|builder| builder.allow_loopback_http().start().unwrap());
    let (signing, platform) = tokio::join!(signed.access_token(), presented.access_token());
    let refused = [signing.unwrap_err(), platform.unwrap_err()];
    let shown = format!(
        "{error} {error:?} {quoted} {quoted:?} {resource:?} {tokens:?} {token:?} {refused:?} \
         {signed:?} {presented:?}"
    );
    // A query may contain a secret, too.
    let jwks_uri = Endpoint::new(format!("{}?key=s3cr3t-key", server.jwks_uri())).unwrap();
    let audience = tower_oauth::Audience::new("x").unwrap();
    let odd = tower_oauth::TrustedIssuer::new(server.issuer(), audience).jwks_uri(jwks_uri);
    server.fail_next(EndpointKind::Keys, 1, Fault::Garbage);
    let odd = ResourceServer::from_issuer(odd)
        .allow_loopback_http()
        .startup(Startup::Wait(Duration::from_secs(2)));
    let _odd = odd.start().await.unwrap();

    let logged = String::from_utf8_lossy(&log.0.lock().unwrap()).into_owned();
    assert!(
        logged.contains("tower_oauth::key_set") && logged.contains("tower_oauth::client"),
        "the log is not empty"
    );
    assert!(logged.contains("tower_oauth::resource_server"));
    // Of a token with a valid signature, what is not as expected.
    assert!(logged.contains(r#"found=aud ["account"]"#));
    for secret in secrets {
        assert!(
            !logged.contains(&secret),
            "logged: {}…",
            &secret[..secret.len().min(30)]
        );
        assert!(
            !shown.contains(&secret),
            "shown: {}…",
            &secret[..secret.len().min(30)]
        );
    }
    let ours: Vec<&str> = logged
        .lines()
        .filter(|line| line.contains("tower_oauth::"))
        .collect();
    assert!(
        ours.iter()
            .all(|line| !line.contains("s3cr3t") && !line.contains("eyJh") && !has_jwt(line)),
        "{ours:#?}"
    );
    for token in [token.expose_secret(), &assertion.join(".")] {
        let (cut, _signature) = token.rsplit_once('.').unwrap();
        for found in [token, cut] {
            assert!(has_jwt(&format!(r#"INFO client: token="Bearer {found}""#)));
        }
    }
}
