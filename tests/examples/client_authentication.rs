//! A caller without a client secret: its key, assertion or certificate is in a file.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::StatusCode;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tower_oauth::authorization_server::{
    AuthorizationServer, EndpointKind, ExpectedAudience, RegisteredApplication,
};
use tower_oauth::clock::{Clock as _, SystemClock};
use tower_oauth::resource_server::Algorithm;

use super::assertion::{CLUSTER, JWT_BEARER_ASSERTION, JWT_BEARER_GRANT, Signer, new_id};
use super::programs::{Received, call, protected_resource, server, token_for};
use crate::support::program::{Serving, example};
use crate::support::{encode, jwt};

const KEYS: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/client/client_authentication/keys"
);
const TLS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/examples/mtls_keys");

/// The development authorization server, over http.
async fn authorization_server(token_lifetime: Duration) -> AuthorizationServer {
    let builder = AuthorizationServer::builder().algorithm(Algorithm::Es256);
    let bound = builder.token_lifetime(token_lifetime).bind(0).await;
    let bound = bound.unwrap();
    let server = bound.server().clone();
    tokio::spawn(bound.serve(std::future::pending()));
    server
}

/// The same with an application, and a resource that accepts the tokens of the application.
async fn application_and_resource() -> (AuthorizationServer, RegisteredApplication, Serving) {
    let server = authorization_server(Duration::from_secs(3600)).await;
    let shop = server.register("shop").unwrap();
    let resource = protected_resource(&shop.service_credentials()).await;
    (server, shop, resource)
}

/// A file of this test.
struct File {
    path: PathBuf,
    _folder: TempDir,
}

impl File {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        Self {
            path: folder.path().join("file"),
            _folder: folder,
        }
    }

    fn path(&self) -> &str {
        self.path.to_str().unwrap()
    }

    /// Replaces the file at once.
    fn write(&self, text: &str) {
        let new = self.path.with_extension("new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, &self.path).unwrap();
    }
}

/// The token that the platform issues to a workload.
fn platform_token(signer: &Signer, audience: &str, subject: &str) -> String {
    let now = SystemClock.now().as_secs();
    let claims = json!({
        "iss": CLUSTER,
        "sub": subject,
        "aud": audience,
        "iat": now,
        "exp": now + 3600,
        "jti": new_id(),
    });
    signer.sign(&json!({}), &claims)
}

/// Neither a line of the key nor a JWT is in the log, which is that of `RUST_LOG=trace`.
#[track_caller]
fn assert_no_secret(log: &[u8], key: &str) {
    let log = String::from_utf8_lossy(log);
    assert!(log.contains("TRACE"), "all levels are logged: {log}");
    assert!(!log.contains("eyJ"), "a JWT is in the log");
    let lines = key.lines().filter(|line| !line.starts_with('-'));
    for line in lines {
        assert!(!log.contains(line), "the key is in the log");
    }
}

#[tokio::test]
async fn a_key_of_each_type_signs_the_assertions_of_the_caller() {
    let (server, shop, resource) = application_and_resource().await;
    let url = format!("{}/protected_resource", resource.text("listening"));
    let (issuer, key) = (server.issuer(), File::new());
    for (algorithm, named) in [
        (Algorithm::Rs256, None),
        (Algorithm::Ps384, Some("PS384")),
        (Algorithm::Es256, None),
        (Algorithm::Es384, Some("ES384")),
        (Algorithm::EdDsa, None),
    ] {
        let signer = Signer::new(algorithm)
            .with("kid", "shop-1")
            .with("alg", algorithm.name());
        shop.set_jwks(signer.jwks()).unwrap();
        key.write(&signer.pem());
        let mut variables = vec![
            ("ISSUER", issuer.as_str()),
            ("CLIENT_ID", shop.client_id()),
            ("CLIENT_AUTHENTICATION", "private_key_jwt"),
            ("CLIENT_KEY_FILE", key.path()),
            ("CLIENT_KEY_ID", "shop-1"),
            ("REPEAT", "20"),
            ("CONCURRENCY", "4"),
        ];
        variables.extend(named.map(|name| ("CLIENT_KEY_ALGORITHM", name)));
        let before = server.requests(EndpointKind::Token);
        let (output, tally) = call(&url, &variables).await;
        let log = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{algorithm}: {log}");
        assert_eq!(output.stdout, b"Hello from protected resource\n");
        assert_eq!(tally, json!({ "requests": 20, "failed": 0 }));
        assert_eq!(server.requests(EndpointKind::Token), before + 1);
        assert_no_secret(&output.stderr, &signer.pem());
    }
    let (_, log) = resource.terminate().await;
    assert!(!log.contains("eyJ"), "a token is in the log");
}

#[tokio::test]
async fn the_error_for_another_audience_names_the_variable_that_sets_it() {
    let (server, shop, resource) = application_and_resource().await;
    let url = format!("{}/protected_resource", resource.text("listening"));
    let signer = Signer::new(Algorithm::Es256);
    shop.set_jwks(signer.jwks()).unwrap();
    shop.set_assertion_audience(ExpectedAudience::TokenEndpoint)
        .unwrap();
    let (issuer, key) = (server.issuer(), File::new());
    key.write(&signer.pem());
    let variables = [
        ("ISSUER", issuer.as_str()),
        ("CLIENT_ID", shop.client_id()),
        ("CLIENT_AUTHENTICATION", "private_key_jwt"),
        ("CLIENT_KEY_FILE", key.path()),
    ];
    let (output, tally) = call(&url, &variables).await;
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(tally, json!({ "requests": 1, "failed": 1 }));
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(log.contains("invalid_client"), "{log}");
    let hint = "here CLIENT_ASSERTION_AUDIENCE=token_endpoint";
    assert!(log.contains(hint), "{log}");
    assert_no_secret(&output.stderr, &signer.pem());

    let endpoint = server.token_endpoint();
    for audience in ["token_endpoint", endpoint.as_str()] {
        let variables = [&variables[..], &[("CLIENT_ASSERTION_AUDIENCE", audience)]].concat();
        let (output, _) = call(&url, &variables).await;
        let log = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{log}");
    }
}

/// A server that records what it receives, and the records.
async fn recording_server() -> (String, Arc<Mutex<Vec<Received>>>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let records = Arc::clone(&seen);
    let base = server(move |received| {
        records.lock().unwrap().push(received.clone());
        let token = json!({ "access_token": "t", "token_type": "Bearer", "expires_in": 60 });
        token_for(received, token).unwrap_or_else(|| (StatusCode::OK, json!("served")))
    });
    (base.await, seen)
}

/// The value of a parameter in the only token request.
fn parameter(seen: &Mutex<Vec<Received>>, name: &str) -> Option<String> {
    let seen = seen.lock().unwrap();
    let mut requests = seen.iter().filter(|received| received.path == "/issue");
    let request = requests.next().unwrap();
    assert!(requests.next().is_none(), "one token request");
    let mut values = request.form.iter().filter(|(found, _)| found == name);
    values.next().map(|(_, value)| value.clone())
}

#[tokio::test]
async fn the_certificate_of_the_key_is_named_in_the_assertion() {
    let (base, seen) = recording_server().await;
    let (key, certificate) = (
        format!("{KEYS}/rsa.pem"),
        format!("{KEYS}/rsa_certificate.pem"),
    );
    let variables = [
        ("ISSUER", base.as_str()),
        ("CLIENT_ID", "shop"),
        ("CLIENT_AUTHENTICATION", "private_key_jwt"),
        ("CLIENT_KEY_FILE", &key),
        ("CLIENT_KEY_ALGORITHM", "PS256"),
        ("CLIENT_CERTIFICATE_FILE", &certificate),
    ];
    let (output, _) = call(&format!("{base}/resource"), &variables).await;
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{log}");
    let assertion = parameter(&seen, "client_assertion").unwrap();
    let (header, _) = jwt::decode(&assertion);
    let certificate = CertificateDer::from_pem_file(&certificate).unwrap();
    let thumbprint = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &certificate);
    assert_eq!(header["x5t#S256"], encode(thumbprint));
    assert_eq!(header["alg"], "PS256");
    assert_no_secret(&output.stderr, &std::fs::read_to_string(key).unwrap());
}

/// A sidecar may write it after the start of the program.
#[tokio::test]
async fn an_assertion_that_is_written_after_the_start_is_sent() {
    let (server, shop, resource) = application_and_resource().await;
    let url = format!("{}/protected_resource", resource.text("listening"));
    let signer = Signer::new(Algorithm::Rs256).with("kid", "cluster-1");
    let subject = "system:serviceaccount:shop:default";
    shop.add_federated_credential(CLUSTER, subject, signer.jwks())
        .unwrap();
    let (issuer, file) = (server.issuer(), File::new());
    let assertion = platform_token(&signer, issuer.as_str(), subject);
    let variables = [
        ("ISSUER", issuer.as_str()),
        ("CLIENT_ID", shop.client_id()),
        ("CLIENT_AUTHENTICATION", "client_assertion"),
        ("CLIENT_ASSERTION_FILE", file.path()),
        ("REPEAT", "5"),
    ];
    let written = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(server.requests(EndpointKind::Token), 0);
        file.write(&assertion);
    };
    let ((output, tally), ()) = tokio::join!(call(&url, &variables), written);
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{log}");
    assert_eq!(tally, json!({ "requests": 5, "failed": 0 }));
    assert!(log.contains(file.path()), "the missing file is logged");
    assert_no_secret(&output.stderr, "");
}

#[tokio::test]
async fn an_assertion_that_is_replaced_while_the_caller_runs_is_sent() {
    let server = authorization_server(Duration::from_secs(2)).await;
    let [shop, bills] = ["shop", "bills"].map(|name| server.register(name).unwrap());
    let signer = Signer::new(Algorithm::Es256);
    for (application, subject) in [(&shop, "first"), (&bills, "second")] {
        application
            .add_federated_credential(CLUSTER, subject, signer.jwks())
            .unwrap();
    }
    let issuer = server.issuer();
    let mut resource = example("protected_resource");
    resource.env("ISSUER", issuer.as_str()).env(
        "AUDIENCE",
        format!("{},{}", shop.client_id(), bills.client_id()),
    );
    let resource = Serving::start(resource).await;
    let file = File::new();
    file.write(&platform_token(&signer, issuer.as_str(), "first"));
    let variables = [
        ("ISSUER", issuer.as_str()),
        ("CLIENT_AUTHENTICATION", "client_assertion"),
        ("CLIENT_ASSERTION_FILE", file.path()),
        ("REPEAT", "60"),
        ("INTERVAL_MS", "100"),
    ];
    let replaced = async {
        while server.requests(EndpointKind::Token) == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        file.write(&platform_token(&signer, issuer.as_str(), "second"));
    };
    let url = format!("{}/context", resource.text("listening"));
    let ((output, tally), ()) = tokio::join!(call(&url, &variables), replaced);
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!(tally, json!({ "requests": 60, "failed": 0 }), "{log}");
    let context: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(context["subject"], bills.client_id());
    assert_no_secret(&output.stderr, "");
}

#[tokio::test]
async fn an_assertion_is_the_grant_beside_the_authentication_of_the_client() {
    let (base, seen) = recording_server().await;
    let signer = Signer::new(Algorithm::Es256);
    let (grant, key) = (File::new(), File::new());
    let assertion = platform_token(&signer, &base, "a user");
    grant.write(&format!("{assertion}\n"));
    key.write(&signer.pem());
    let variables = [
        ("ISSUER", base.as_str()),
        ("CLIENT_ID", "shop"),
        ("CLIENT_AUTHENTICATION", "private_key_jwt"),
        ("CLIENT_KEY_FILE", key.path()),
        ("GRANT_ASSERTION_FILE", grant.path()),
    ];
    let (output, _) = call(&format!("{base}/resource"), &variables).await;
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{log}");
    let sent = |name| parameter(&seen, name);
    assert_eq!(sent("grant_type").as_deref(), Some(JWT_BEARER_GRANT));
    assert_eq!(sent("assertion"), Some(assertion));
    assert_eq!(
        sent("client_assertion_type").as_deref(),
        Some(JWT_BEARER_ASSERTION)
    );
    assert_no_secret(&output.stderr, &signer.pem());
}

/// An authorization server that requires the client certificate of these tests, which is also its
/// server certificate. Its URL, and the forms of the token requests.
async fn mtls_server() -> (String, Arc<Mutex<Vec<String>>>) {
    let certificate = CertificateDer::from_pem_file(format!("{TLS}/certificate.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(format!("{TLS}/key.pem")).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!(
        "https://localhost:{}",
        listener.local_addr().unwrap().port()
    );
    let (issuer, forms) = (url.clone(), Arc::new(Mutex::new(Vec::new())));
    let records = Arc::clone(&forms);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(stream) = acceptor.accept(stream).await else {
                continue;
            };
            let (issuer, records) = (issuer.clone(), Arc::clone(&records));
            let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
                let (issuer, records) = (issuer.clone(), Arc::clone(&records));
                async move {
                    use http_body_util::BodyExt as _;

                    let is_metadata = request.uri().path().contains("/.well-known/");
                    let body = if is_metadata {
                        json!({ "issuer": issuer, "token_endpoint": format!("{issuer}/token") })
                    } else {
                        let form = request.into_body().collect().await?.to_bytes();
                        let form = String::from_utf8(form.to_vec()).unwrap();
                        records.lock().unwrap().push(form);
                        json!({ "access_token": "t", "token_type": "Bearer", "expires_in": 60 })
                    };
                    Ok::<_, hyper::Error>(http::Response::new(body.to_string()))
                }
            });
            tokio::spawn(
                hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service),
            );
        }
    });
    (url, forms)
}

#[tokio::test]
async fn the_caller_shows_its_certificate_to_the_authorization_server() {
    let (issuer, forms) = mtls_server().await;
    let (base, seen) = recording_server().await;
    let (key, certificate) = (format!("{TLS}/key.pem"), format!("{TLS}/certificate.pem"));
    let variables = [
        ("ISSUER", issuer.as_str()),
        ("CLIENT_ID", "orders"),
        ("CLIENT_AUTHENTICATION", "tls_client_auth"),
        ("CLIENT_KEY_FILE", &key),
        ("CLIENT_CERTIFICATE_FILE", &certificate),
        ("SSL_CERT_FILE", &certificate),
    ];
    let (output, tally) = call(&format!("{base}/resource"), &variables).await;
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{log}");
    assert_eq!(tally, json!({ "requests": 1, "failed": 0 }));
    assert_eq!(
        *forms.lock().unwrap(),
        ["grant_type=client_credentials&client_id=orders"]
    );
    assert_eq!(seen.lock().unwrap()[0].authorization, "Bearer t");
    assert_no_secret(&output.stderr, &std::fs::read_to_string(key).unwrap());
}

/// Exit code 2, and a line that begins with the variable.
#[tokio::test]
async fn an_unusable_setting_of_a_caller_without_a_secret_exits_with_2_and_names_it() {
    let key = |name: &str| format!("{KEYS}/{name}");
    let (rsa, p256, public) = (key("rsa.pem"), key("p256.pem"), key("rsa_public.pem"));
    let (short, encrypted) = (key("rsa_1024.pem"), key("rsa_encrypted.pem"));
    let (of_rsa, of_p256) = (key("rsa_certificate.pem"), key("p256_certificate.pem"));
    let text = File::new();
    text.write("no key\n");
    let binding =
        r#"{"clientId":"a","secret":"s","oauthServerUrl":"http://127.0.0.1:1/oauth/v4/t"}"#;
    let signs = ("CLIENT_AUTHENTICATION", "private_key_jwt");
    let sends = ("CLIENT_AUTHENTICATION", "client_assertion");
    let shows = ("CLIENT_AUTHENTICATION", "tls_client_auth");
    let with_key = ("CLIENT_KEY_FILE", rsa.as_str());
    let cases: &[(&[(&str, &str)], &str)] = &[
        (&[signs], "CLIENT_KEY_FILE is required"),
        (
            &[signs, ("CLIENT_KEY_FILE", "/no/such/key")],
            "CLIENT_KEY_FILE cannot be read: ",
        ),
        (
            &[signs, ("CLIENT_KEY_FILE", "/")],
            "CLIENT_KEY_FILE cannot be read: ",
        ),
        (
            &[signs, ("CLIENT_KEY_FILE", text.path())],
            "CLIENT_KEY_FILE ",
        ),
        (&[signs, ("CLIENT_KEY_FILE", &public)], "CLIENT_KEY_FILE "),
        (&[signs, ("CLIENT_KEY_FILE", &short)], "CLIENT_KEY_FILE "),
        (
            &[signs, ("CLIENT_KEY_FILE", &encrypted)],
            "CLIENT_KEY_FILE ",
        ),
        (
            &[signs, with_key, ("CLIENT_KEY_ALGORITHM", "ES256")],
            "CLIENT_KEY_FILE does not sign with ES256",
        ),
        (
            &[signs, with_key, ("CLIENT_KEY_ALGORITHM", "HS256")],
            "CLIENT_KEY_ALGORITHM: ",
        ),
        (
            &[signs, with_key, ("CLIENT_SECRET", "s")],
            "CLIENT_SECRET is not used with CLIENT_AUTHENTICATION `private_key_jwt`",
        ),
        (
            &[signs, with_key, ("CLIENT_SECRET_FILE", "/s")],
            "CLIENT_SECRET_FILE is not used with CLIENT_AUTHENTICATION `private_key_jwt`",
        ),
        (
            &[signs, with_key, ("CLIENT_ASSERTION_FILE", "/a")],
            "CLIENT_ASSERTION_FILE is not used with ",
        ),
        (
            &[signs, with_key, ("CLIENT_CERTIFICATE_FILE", &of_p256)],
            "CLIENT_CERTIFICATE_FILE is of another key than the signing key",
        ),
        (
            &[signs, with_key, ("CLIENT_CERTIFICATE_FILE", "/no/such")],
            "CLIENT_CERTIFICATE_FILE cannot be read: ",
        ),
        (
            &[("CLIENT_SECRET", "s"), with_key],
            "CLIENT_KEY_FILE is not used with CLIENT_AUTHENTICATION `client_secret_basic`",
        ),
        (&[sends], "CLIENT_ASSERTION_FILE is required"),
        (
            &[sends, ("CLIENT_ASSERTION_FILE", "/a"), with_key],
            "CLIENT_KEY_FILE is not used with ",
        ),
        (
            &[
                sends,
                ("CLIENT_ASSERTION_FILE", "/a"),
                ("CLIENT_ASSERTION_AUDIENCE", "token_endpoint"),
            ],
            "CLIENT_ASSERTION_AUDIENCE is not used with ",
        ),
        (&[shows], "CLIENT_KEY_FILE: is not set"),
        (&[shows, with_key], "CLIENT_CERTIFICATE_FILE: is not set"),
        (
            &[shows, ("CLIENT_CERTIFICATE_FILE", &of_rsa)],
            "CLIENT_KEY_FILE: is not set",
        ),
        (
            &[shows, with_key, ("CLIENT_CERTIFICATE_FILE", "/no/such")],
            "CLIENT_CERTIFICATE_FILE cannot be read: ",
        ),
        (
            &[
                shows,
                ("CLIENT_KEY_FILE", "no/such"),
                ("CLIENT_CERTIFICATE_FILE", &of_rsa),
            ],
            "CLIENT_KEY_FILE cannot be read: ",
        ),
        (
            &[
                shows,
                ("CLIENT_KEY_FILE", &p256),
                ("CLIENT_CERTIFICATE_FILE", &of_rsa),
            ],
            "CLIENT_KEY_FILE ",
        ),
        (
            &[("APPID_SERVICE_BINDING", binding), signs],
            "CLIENT_AUTHENTICATION must be a method with a client secret",
        ),
        (
            &[("APPID_SERVICE_BINDING", binding), signs, with_key],
            "CLIENT_KEY_FILE: is set and there is an App ID binding",
        ),
        (
            &[
                ("APPID_SERVICE_BINDING", binding),
                ("GRANT_ASSERTION_FILE", "/a"),
            ],
            "GRANT_ASSERTION_FILE: is set and there is an App ID binding",
        ),
    ];
    for (variables, line) in cases {
        let mut command = example("call_protected_resource");
        command.arg("http://127.0.0.1:9/");
        if !variables.contains(&("APPID_SERVICE_BINDING", binding)) {
            command.envs([("ISSUER", "https://as.example"), ("CLIENT_ID", "a")]);
        }
        command.envs(variables.iter().copied());
        let output = tokio::time::timeout(Duration::from_secs(20), command.output());
        let output = output.await.expect(line).unwrap();
        let log = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{variables:?}: {log}");
        assert!(
            log.starts_with(line) && log.lines().count() == 1,
            "{variables:?}: {log}"
        );
    }
    // Those that name one thing need the client id as well, but for an assertion.
    let mut command = example("call_protected_resource");
    command
        .arg("http://127.0.0.1:9/")
        .envs([("ISSUER", "https://as.example"), signs, with_key]);
    let output = command.output().await.unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(output.stderr, b"CLIENT_ID is required\n");
}
