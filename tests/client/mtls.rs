//! Clients that authenticate with their TLS certificate (RFC 8705).

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use http::{Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tower_oauth::client::{
    BoxFuture, ClientAuthentication, NoAuthentication, TokenManagerBuilder, TokenRequest,
    TokenSource,
};
use tower_oauth::error::{ConfigErrorKind, ErrorKind, Operation};
use tower_oauth::transport::{ReqwestTransport, Transport as _};
use tower_oauth::{
    ClientCredentials, ConfigError, Endpoint, Error, Issuer, TlsClientAuth, TokenManager,
};

use super::certificates::self_signed;
use crate::support::child_process::{is_child, run_again_async, test_name};
use crate::support::mount::Mount;
use crate::support::token_endpoint::{Reply, TokenEndpoint};
use crate::support::{log, pem};

/// A key with its self-signed certificate.
struct Pair {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl Pair {
    fn new(name: &str) -> Self {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
        Self {
            certificate: self_signed(&key, name, false),
            key: key.to_pkcs8v1().unwrap().as_ref().to_vec(),
        }
    }

    fn certificate_pem(&self) -> String {
        pem("CERTIFICATE", &self.certificate)
    }

    fn key_pem(&self) -> String {
        pem("PRIVATE KEY", &self.key)
    }

    /// Writes both files of a mounted TLS secret.
    fn write(&self, mount: &Mount) {
        mount.write(&[
            ("tls.crt", &self.certificate_pem()),
            ("tls.key", &self.key_pem()),
        ]);
    }
}

/// A token request that the server received.
#[derive(Clone, Debug, PartialEq)]
struct Received {
    path: String,
    form: String,
    /// Of the client.
    certificate: Option<Vec<u8>>,
}

/// An authorization server on loopback, over TLS.
struct Server {
    url: String,
    certificate: Vec<u8>,
    metadata: Arc<Mutex<Value>>,
    received: Arc<Mutex<Vec<Received>>>,
}

impl Server {
    /// Requires one of these client certificates, unless there are none.
    async fn start(clients: &[&Pair]) -> Self {
        let pair = Pair::new("a server");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap();
        let config = if clients.is_empty() {
            config.with_no_client_auth()
        } else {
            let mut roots = RootCertStore::empty();
            for client in clients {
                let certificate = CertificateDer::from(client.certificate.clone());
                roots.add(certificate).unwrap();
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
            config.with_client_cert_verifier(verifier.build().unwrap())
        };
        let chain = vec![CertificateDer::from(pair.certificate.clone())];
        let key = PrivatePkcs8KeyDer::from(pair.key.clone());
        let config = config.with_single_cert(chain, key.into()).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = Self {
            url: format!("https://localhost:{port}"),
            certificate: pair.certificate,
            metadata: Arc::default(),
            received: Arc::default(),
        };
        let (metadata, received) = (Arc::clone(&server.metadata), Arc::clone(&server.received));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let acceptor = acceptor.clone();
                let (metadata, received) = (Arc::clone(&metadata), Arc::clone(&received));
                tokio::spawn(async move {
                    let stream = match acceptor.accept(stream).into_fallible().await {
                        Ok(stream) => stream,
                        Err((_, mut stream)) => {
                            // Unread bytes would reset the connection, and lose the alert.
                            let _ = stream.read_to_end(&mut Vec::new()).await;
                            return;
                        }
                    };
                    let certificate = stream.get_ref().1.peer_certificates();
                    let certificate = certificate.map(|chain| chain[0].to_vec());
                    let service = service_fn(|request| {
                        respond(request, certificate.clone(), &metadata, &received)
                    });
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        server
    }

    fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }

    /// The certificates of the clients that sent token requests.
    fn certificates(&self) -> Vec<Option<Vec<u8>>> {
        let received = self.received().into_iter();
        received.map(|request| request.certificate).collect()
    }

    fn builder(&self, transport: ReqwestTransport) -> TokenManagerBuilder {
        let endpoint = Endpoint::new(format!("{}/token", self.url)).unwrap();
        TokenManager::builder(endpoint, TlsClientAuth::new("orders")).transport(transport)
    }
}

async fn respond(
    request: Request<Incoming>,
    certificate: Option<Vec<u8>>,
    metadata: &Mutex<Value>,
    received: &Mutex<Vec<Received>>,
) -> Result<Response<String>, hyper::Error> {
    let path = request.uri().path().to_owned();
    if path.contains("/.well-known/") {
        return Ok(Response::new(metadata.lock().unwrap().to_string()));
    }
    let form = request.into_body().collect().await?.to_bytes();
    received.lock().unwrap().push(Received {
        path,
        form: String::from_utf8(form.to_vec()).unwrap(),
        certificate,
    });
    let token = json!({ "access_token": "t", "token_type": "Bearer", "expires_in": 60 });
    Ok(Response::new(token.to_string()))
}

async fn fetch(source: &impl TokenSource) -> Result<(), Error> {
    source.fetch().await.map(drop)
}

/// Trusts these servers only.
fn client_builder(
    servers: &[&Server],
) -> impl Fn() -> reqwest::ClientBuilder + Send + Sync + 'static {
    let roots = servers.iter().map(|server| server.certificate.clone());
    let roots: Vec<_> = roots
        .map(|der| reqwest::Certificate::from_der(&der).unwrap())
        .collect();
    move || {
        reqwest::Client::builder()
            .no_proxy()
            .tls_certs_only(roots.clone())
    }
}

fn with_certificate(servers: &[&Server], mount: &Mount) -> Result<ReqwestTransport, ConfigError> {
    ReqwestTransport::from_builder_with_client_certificate(
        client_builder(servers),
        mount.path("tls.crt"),
        mount.path("tls.key"),
    )
}

#[tokio::test]
async fn the_certificate_of_the_files_authenticates_the_client_whose_id_is_in_the_body() {
    let pair = Pair::new("orders");
    let server = Server::start(&[&pair]).await;
    let mount = Mount::new();
    pair.write(&mount);
    let transport = with_certificate(&[&server], &mount).unwrap();
    let tokens = server.builder(transport).start().unwrap();
    tokens.access_token().await.unwrap();
    assert_eq!(
        server.received(),
        [Received {
            path: "/token".to_owned(),
            form: "grant_type=client_credentials&client_id=orders".to_owned(),
            certificate: Some(pair.certificate),
        }]
    );
}

#[tokio::test]
async fn another_certificate_or_none_is_refused_with_what_to_do() {
    let (pair, other) = (Pair::new("orders"), Pair::new("bills"));
    let server = Server::start(&[&pair]).await;
    let mount = Mount::new();
    other.write(&mount);
    let transport = with_certificate(&[&server], &mount).unwrap();
    let source = server.builder(transport).build_source().unwrap();
    let error = source.fetch().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Transport, "{error}");
    let text = error.to_string();
    assert!(
        text.contains("refuses the client certificate, or the lack of one (alert"),
        "{text}"
    );
    assert!(text.contains("send the one that is registered"), "{text}");

    let without = ReqwestTransport::from_builder(client_builder(&[&server])()).unwrap();
    let source = server.builder(without).build_source().unwrap();
    let error = source.fetch().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Transport, "{error}");
    let text = error.to_string();
    assert!(text.contains("requires a client certificate"), "{text}");
    assert!(
        text.contains("ReqwestTransport::with_client_certificate"),
        "{text}"
    );
    assert!(server.received().is_empty());
}

#[tokio::test]
async fn invalid_client_names_what_may_hide_the_certificate() {
    let refusal = Reply::Json(401, json!({ "error": "invalid_client" }));
    let endpoint = Endpoint::new("https://as.example/token").unwrap();
    let source = TokenManager::builder(endpoint, TlsClientAuth::new("orders"))
        .transport(TokenEndpoint::with_reply(refusal))
        .build_source()
        .unwrap();
    let error = source.fetch().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    let text = error.to_string();
    assert!(
        text.contains("the server saw no client certificate"),
        "{text}"
    );
}

#[tokio::test]
async fn a_refusal_over_plain_http_says_that_it_shows_no_certificate() {
    for reply in [
        Reply::Json(401, json!({ "error": "invalid_client" })),
        Reply::Status(401, None),
    ] {
        let endpoint = Endpoint::new("http://127.0.0.1/token").unwrap();
        let source = TokenManager::builder(endpoint, TlsClientAuth::new("orders"))
            .transport(TokenEndpoint::with_reply(reply))
            .allow_loopback_http()
            .build_source()
            .unwrap();
        let text = source.fetch().await.unwrap_err().to_string();
        assert!(
            text.contains("plain http, which never shows a client certificate"),
            "{text}"
        );
        assert!(!text.contains("with_client_certificate"), "{text}");
    }
}

#[tokio::test]
async fn a_certificate_that_is_replaced_by_symlink_is_sent_with_the_next_token_request() {
    let pairs = [Pair::new("orders"), Pair::new("orders"), Pair::new("new")];
    let [first, second, third] = &pairs;
    let server = Server::start(&[first, second, third]).await;
    let mount = Mount::new();
    first.write(&mount);
    let transport = with_certificate(&[&server], &mount).unwrap();
    let source = server.builder(transport).build_source().unwrap();
    for pair in &pairs {
        pair.write(&mount);
        fetch(&source).await.unwrap();
        fetch(&source).await.unwrap();
    }
    let sent = [first, first, second, second, third, third];
    let sent = sent.map(|pair| Some(pair.certificate.clone()));
    assert_eq!(server.certificates(), sent);
}

#[tokio::test]
async fn no_token_request_fails_while_the_certificate_is_rotated_again_and_again() {
    let pairs = [Pair::new("orders"), Pair::new("orders")];
    let server = Server::start(&[&pairs[0], &pairs[1]]).await;
    let mount = Mount::new();
    pairs[0].write(&mount);
    let transport = with_certificate(&[&server], &mount).unwrap();
    let source = server.builder(transport).build_source().unwrap();
    let known = [0, 1].map(|index: usize| Some(pairs[index].certificate.clone()));
    let rotation = tokio::task::spawn_blocking(move || {
        for pair in pairs.iter().cycle().take(101) {
            pair.write(&mount);
            std::thread::sleep(Duration::from_millis(3));
        }
        mount
    });
    while !rotation.is_finished() {
        fetch(&source).await.unwrap();
    }
    let _mount = rotation.await.unwrap();
    fetch(&source).await.unwrap();
    let sent = server.certificates();
    assert!(
        known.iter().all(|pair| sent.contains(pair)),
        "both were sent"
    );
    assert_eq!(sent.last(), Some(&known[0]), "the last one is sent");
}

#[tokio::test]
async fn the_last_certificate_is_sent_while_the_new_files_cannot_be_used() {
    let (first, second) = (Pair::new("orders"), Pair::new("orders"));
    let server = Server::start(&[&first, &second]).await;
    let mount = Mount::new();
    first.write(&mount);
    let transport = with_certificate(&[&server], &mount).unwrap();
    let source = server.builder(transport).build_source().unwrap();
    fetch(&source).await.unwrap();
    let warning = "the client certificate cannot be replaced: the last usable one is sent";
    for (certificate, key, reason) in [
        (
            second.certificate_pem(),
            first.key_pem(),
            "does not have the key of the certificate in",
        ),
        (
            second.certificate_pem(),
            String::new(),
            "has no PEM private key",
        ),
        (String::new(), second.key_pem(), "has no PEM certificate"),
    ] {
        mount.write(&[("tls.crt", &certificate), ("tls.key", &key)]);
        log::clear_log();
        fetch(&source).await.unwrap();
        fetch(&source).await.unwrap();
        let lines = log::lines(warning);
        assert_eq!(lines.len(), 1, "logged once: {lines:?}");
        assert!(lines[0].contains(reason), "{}", lines[0]);
        for pair in [&first, &second] {
            log::assert_not_logged(pair.key_pem().lines().nth(1).unwrap());
        }
    }
    log::clear_log();
    second.write(&mount);
    fetch(&source).await.unwrap();
    assert!(!log::logged(warning));
    let mut sent = vec![Some(first.certificate); 7];
    sent.push(Some(second.certificate));
    assert_eq!(server.certificates(), sent);
}

#[tokio::test]
async fn a_panic_while_the_new_client_is_made_keeps_the_last_one() {
    let (first, second) = (Pair::new("orders"), Pair::new("orders"));
    let server = Server::start(&[&first, &second]).await;
    let mount = Mount::new();
    first.write(&mount);
    let make_builder = client_builder(&[&server]);
    let panics = Arc::new(AtomicBool::new(false));
    let transport = ReqwestTransport::from_builder_with_client_certificate(
        {
            let panics = Arc::clone(&panics);
            move || {
                assert!(!panics.load(Ordering::SeqCst), "a secret of the builder");
                make_builder()
            }
        },
        mount.path("tls.crt"),
        mount.path("tls.key"),
    )
    .unwrap();
    let source = server.builder(transport).build_source().unwrap();
    second.write(&mount);
    panics.store(true, Ordering::SeqCst);
    log::clear_log();
    fetch(&source).await.unwrap();
    assert!(log::logged("the client certificate cannot be replaced"));
    assert!(!log::logged("a secret of the builder"));
    panics.store(false, Ordering::SeqCst);
    fetch(&source).await.unwrap();
    let sent = [first, second].map(|pair| Some(pair.certificate));
    assert_eq!(server.certificates(), sent);
}

/// An assertion must not be sent twice.
#[tokio::test]
async fn the_http_client_repeats_no_token_request_by_itself() {
    let pair = Pair::new("orders");
    let server = Server::start(&[&pair]).await;
    let mount = Mount::new();
    pair.write(&mount);
    let make_builder = client_builder(&[&server]);
    let repeating = move || {
        let policy =
            reqwest::retry::for_host("localhost").classify_fn(|attempt| attempt.retryable());
        make_builder().retry(policy)
    };
    let transport = ReqwestTransport::from_builder_with_client_certificate(
        repeating,
        mount.path("tls.crt"),
        mount.path("tls.key"),
    );
    let source = server.builder(transport.unwrap()).build_source().unwrap();
    fetch(&source).await.unwrap();
    assert_eq!(server.received().len(), 1);
}

/// As on a file system that hangs.
#[test]
fn a_reload_that_does_not_return_takes_one_thread_and_the_requests_time_out() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(2)
        .build()
        .unwrap();
    let (first, second) = (Pair::new("orders"), Pair::new("orders"));
    let server = runtime.block_on(Server::start(&[&first, &second]));
    let mount = Mount::new();
    first.write(&mount);
    let make_builder = client_builder(&[&server]);
    let gate = Arc::new(Mutex::new(()));
    let transport = ReqwestTransport::from_builder_with_client_certificate(
        {
            let gate = Arc::clone(&gate);
            move || {
                drop(gate.lock().unwrap());
                make_builder()
            }
        },
        mount.path("tls.crt"),
        mount.path("tls.key"),
    )
    .unwrap();
    let tokens = server.builder(transport);
    let tokens = tokens.request_timeout(Duration::from_millis(200));
    let source = Arc::new(tokens.build_source().unwrap());
    second.write(&mount);
    let closed = gate.lock().unwrap();
    runtime.block_on(async {
        let mut requests = JoinSet::new();
        for _ in 0..8 {
            let source = Arc::clone(&source);
            requests.spawn(async move { fetch(&*source).await.unwrap_err().kind() });
        }
        let errors = requests.join_all().await;
        assert_eq!(errors, [ErrorKind::Timeout; 8]);
        let elsewhere = tokio::task::spawn_blocking(|| ());
        let elsewhere = tokio::time::timeout(Duration::from_secs(10), elsewhere).await;
        elsewhere.expect("a thread is free").unwrap();
    });
    drop(closed);
    runtime.block_on(fetch(&*source)).unwrap();
    assert_eq!(server.certificates(), [Some(second.certificate)]);
}

#[tokio::test]
async fn files_that_cannot_be_used_are_errors_that_name_them() {
    let (pair, other) = (Pair::new("orders"), Pair::new("bills"));
    let (certificate, key) = (pair.certificate_pem(), pair.key_pem());
    let encrypted = pem("ENCRYPTED PRIVATE KEY", b"0123456789");
    let garbled = pem("PRIVATE KEY", b"0123456789");
    for (files, file, reason) in [
        (vec![], "client certificate file", "cannot be read"),
        (
            vec![("tls.crt", &*certificate)],
            "client key file",
            "cannot be read",
        ),
        (
            vec![("tls.crt", &*certificate), ("tls.key", &*other.key_pem())],
            "client key file",
            "does not have the key of the certificate in",
        ),
        (
            vec![("tls.crt", &*certificate), ("tls.key", &*encrypted)],
            "client key file",
            "without a passphrase",
        ),
        (
            vec![("tls.crt", &*certificate), ("tls.key", &*garbled)],
            "client key file",
            "cannot be used with the certificate",
        ),
        (
            vec![("tls.crt", &*key), ("tls.key", &*certificate)],
            "client certificate file",
            "has no PEM certificate",
        ),
    ] {
        let mount = Mount::new();
        mount.write(&files);
        let error =
            ReqwestTransport::with_client_certificate(mount.path("tls.crt"), mount.path("tls.key"))
                .unwrap_err();
        let path = mount.path(match file {
            "client key file" => "tls.key",
            _ => "tls.crt",
        });
        assert_eq!(error.setting(), format!("{file} {}", path.display()));
        assert!(error.to_string().contains(reason), "{error}");
        let is_unavailable = error.kind() == ConfigErrorKind::Unavailable;
        assert_eq!(is_unavailable, reason == "cannot be read", "{error}");
        for secret in [&key, &other.key_pem()] {
            let line = secret.lines().nth(1).unwrap();
            assert!(!format!("{error:?}").contains(line), "{error:?}");
        }
    }
}

#[tokio::test]
async fn certificate_and_key_may_be_in_one_file_and_debug_shows_its_path_only() {
    let pair = Pair::new("orders");
    let server = Server::start(&[&pair]).await;
    let mount = Mount::new();
    let both = format!("{}{}", pair.key_pem(), pair.certificate_pem());
    mount.write(&[("client.pem", &both)]);
    let path = mount.path("client.pem");
    let transport = ReqwestTransport::from_builder_with_client_certificate(
        client_builder(&[&server]),
        &path,
        &path,
    )
    .unwrap();
    let shown = format!("{transport:?}");
    assert!(shown.contains("client.pem"), "{shown}");
    for line in both.lines().filter(|line| !line.starts_with('-')) {
        assert!(!shown.contains(line), "{shown}");
    }
    let source = server.builder(transport).build_source().unwrap();
    assert!(!format!("{source:?}").contains(both.lines().nth(1).unwrap()));
    fetch(&source).await.unwrap();
    assert_eq!(server.certificates(), [Some(pair.certificate)]);
}

/// Over plain http there is no handshake that could send it.
#[tokio::test]
async fn plain_http_on_loopback_neither_sends_nor_reads_the_certificate() {
    let pair = Pair::new("orders");
    let mount = Mount::new();
    pair.write(&mount);
    let transport = with_certificate(&[], &mount).unwrap();
    mount.write(&[("tls.crt", ""), ("tls.key", "")]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let endpoint = Endpoint::new(format!("http://{address}/token")).unwrap();
    let source = TokenManager::builder(endpoint, TlsClientAuth::new("orders"))
        .transport(transport)
        .allow_loopback_http()
        .build_source()
        .unwrap();
    log::clear_log();
    let (result, start) = tokio::join!(source.fetch(), async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut start = [0; 5];
        stream.read_exact(&mut start).await.unwrap();
        start
    });
    assert_eq!(&start, b"POST ");
    assert_eq!(result.unwrap_err().kind(), ErrorKind::Transport);
    assert!(!log::logged("the client certificate cannot be replaced"));
}

const ISSUER: &str = "https://as.example";

/// The metadata of the issuer, with this value of `mtls_endpoint_aliases`.
fn metadata(aliases: Value) -> Reply {
    let mut metadata = json!({
        "issuer": ISSUER,
        "token_endpoint": "https://as.example/token",
    });
    metadata["mtls_endpoint_aliases"] = aliases;
    Reply::Json(200, metadata)
}

fn discovering(endpoint: &TokenEndpoint, client: impl ClientAuthentication) -> TokenManagerBuilder {
    TokenManager::for_issuer(Issuer::new(ISSUER).unwrap(), client)
        .unwrap()
        .transport(endpoint.clone())
}

/// The URL of the token request, or the error before it.
async fn requested_url(aliases: Value, client: impl ClientAuthentication) -> Result<String, Error> {
    let endpoint = TokenEndpoint::with_reply(Reply::Token(60)).metadata(metadata(aliases));
    let source = discovering(&endpoint, client).build_source().unwrap();
    let result = source.fetch().await;
    let urls: Vec<String> = endpoint
        .token_requests()
        .into_iter()
        .map(|request| request.url)
        .collect();
    match result {
        Ok(_) => Ok(urls.concat()),
        Err(error) => {
            assert!(urls.is_empty(), "{urls:?}");
            Err(error)
        }
    }
}

#[tokio::test]
async fn the_alias_of_the_token_endpoint_is_used_by_clients_with_a_certificate_only() {
    let alias = json!({ "token_endpoint": "https://mtls.as.example/token" });
    let mtls = requested_url(alias.clone(), TlsClientAuth::new("orders")).await;
    assert_eq!(mtls.unwrap(), "https://mtls.as.example/token");
    let secret = ClientCredentials::new("orders", "s3cret");
    let other = requested_url(alias.clone(), secret).await;
    assert_eq!(other.unwrap(), "https://as.example/token");
    let none = requested_url(alias, NoAuthentication).await;
    assert_eq!(none.unwrap(), "https://as.example/token");
}

#[tokio::test]
async fn without_an_alias_the_token_endpoint_is_used() {
    for aliases in [
        Value::Null,
        json!({}),
        json!({ "token_endpoint": null }),
        json!({ "token_endpoint": "" }),
        json!({ "revocation_endpoint": "https://mtls.as.example/revoke" }),
    ] {
        let url = requested_url(aliases.clone(), TlsClientAuth::new("orders")).await;
        assert_eq!(url.unwrap(), "https://as.example/token", "{aliases}");
    }
}

#[tokio::test]
async fn an_alias_that_is_not_https_or_no_url_is_refused_before_anything_is_sent() {
    let name = "mtls_endpoint_aliases.token_endpoint";
    for (aliases, reason) in [
        (
            json!({ "token_endpoint": "http://as.example/token" }),
            "must be https",
        ),
        (
            json!({ "token_endpoint": "http://127.0.0.1/token" }),
            "must be https",
        ),
        (
            json!({ "token_endpoint": "https://user:pw@as.example/token" }),
            "user information",
        ),
        (
            json!({ "token_endpoint": "https://169.254.169.254/token" }),
            "metadata",
        ),
        (json!({ "token_endpoint": 5 }), "a number"),
        (json!(["https://as.example/token"]), "not a valid object"),
        (json!("https://as.example/token"), "not a valid object"),
    ] {
        let client = TlsClientAuth::new("orders");
        let error = requested_url(aliases.clone(), client).await.unwrap_err();
        assert_eq!(error.operation(), Operation::Discovery, "{error}");
        assert_eq!(error.kind(), ErrorKind::Malformed, "{error}");
        let text = format!("{error} {:?}", std::error::Error::source(&error));
        assert!(text.contains(name) && text.contains(reason), "{text}");
        // Other clients do not look at it.
        let secret = ClientCredentials::new("orders", "s3cret");
        assert!(requested_url(aliases, secret).await.is_ok());
    }
}

/// Keycloak behind a proxy, fetched by http, names its aliases by http.
#[tokio::test]
async fn a_plain_http_alias_of_a_plain_http_issuer_follows_the_rules_of_other_endpoints() {
    let issuer = "http://keycloak.sso.svc/realms/shop";
    for (alias, is_allowed) in [
        ("http://keycloak.sso.svc/mtls", true),
        ("https://mtls.sso.svc/mtls", true),
        ("http://mtls.sso.svc/mtls", false),
        ("http://127.0.0.1/mtls", false),
    ] {
        let metadata = json!({
            "issuer": issuer,
            "token_endpoint": "http://keycloak.sso.svc/token",
            "mtls_endpoint_aliases": { "token_endpoint": alias },
        });
        let endpoint =
            TokenEndpoint::with_reply(Reply::Token(60)).metadata(Reply::Json(200, metadata));
        let issuer = Issuer::new(issuer).unwrap();
        let source = TokenManager::for_issuer(issuer, TlsClientAuth::new("orders"))
            .unwrap()
            .transport(endpoint.clone())
            .allow_http(["keycloak.sso.svc"])
            .allow_loopback_http()
            .build_source()
            .unwrap();
        assert_eq!(source.fetch().await.is_ok(), is_allowed, "{alias}");
        assert_eq!(endpoint.count(), usize::from(is_allowed), "{alias}");
    }
}

/// A client that uses mutual TLS in some of its managers.
#[derive(Clone, Debug, Default)]
struct Sometimes(Arc<AtomicBool>);

impl ClientAuthentication for Sometimes {
    fn authenticate<'a>(
        &'a self,
        _request: &'a mut TokenRequest,
    ) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async { Ok(()) })
    }

    fn uses_mtls(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

#[tokio::test]
async fn clones_with_and_without_mutual_tls_share_the_metadata_and_select_by_themselves() {
    for (alias, is_usable) in [
        ("https://mtls.as.example/token", true),
        ("http://mtls.as.example/token", false),
    ] {
        let endpoint = TokenEndpoint::with_reply(Reply::Token(60))
            .metadata(metadata(json!({ "token_endpoint": alias })));
        let client = Sometimes::default();
        let builder = discovering(&endpoint, client.clone());
        let without = builder.clone().build_source().unwrap();
        client.0.store(true, Ordering::SeqCst);
        let with = builder.build_source().unwrap();
        fetch(&without).await.unwrap();
        assert_eq!(with.fetch().await.is_ok(), is_usable);
        fetch(&without).await.unwrap();
        let urls: Vec<String> = endpoint
            .token_requests()
            .into_iter()
            .map(|request| request.url)
            .collect();
        let usual = "https://as.example/token";
        if is_usable {
            assert_eq!(urls, [usual, alias, usual]);
            assert_eq!(endpoint.metadata_requests(), 1);
        } else {
            assert_eq!(urls, [usual, usual]);
        }
    }
}

#[tokio::test]
async fn the_discovered_alias_gets_the_certificate_and_the_other_endpoint_no_request() {
    let pair = Pair::new("orders");
    let (issuer, mtls) = (Server::start(&[]).await, Server::start(&[&pair]).await);
    *issuer.metadata.lock().unwrap() = json!({
        "issuer": issuer.url,
        "token_endpoint": format!("{}/token", issuer.url),
        "mtls_endpoint_aliases": { "token_endpoint": format!("{}/mtls/token", mtls.url) },
    });
    let mount = Mount::new();
    pair.write(&mount);
    let name = Issuer::new(&issuer.url).unwrap();
    let tokens = TokenManager::for_issuer(name, TlsClientAuth::new("orders"))
        .unwrap()
        .transport(with_certificate(&[&issuer, &mtls], &mount).unwrap())
        .start()
        .unwrap();
    tokens.access_token().await.unwrap();
    assert!(issuer.received().is_empty());
    let [request] = &mtls.received()[..] else {
        panic!("{:?}", mtls.received());
    };
    assert_eq!(request.path, "/mtls/token");
    assert_eq!(request.certificate.as_ref(), Some(&pair.certificate));
}

#[test]
fn a_client_without_an_id_is_an_error() {
    let endpoint = Endpoint::new("https://as.example/token").unwrap();
    let error = TokenManager::builder(endpoint, TlsClientAuth::new(""))
        .build()
        .map(drop)
        .unwrap_err();
    assert_eq!(error.kind(), ConfigErrorKind::Missing);
    assert_eq!(error.setting(), "client id");
}

#[tokio::test]
async fn plain_http_beside_a_client_certificate_uses_a_proxy_only_with_a_builder() {
    if is_child() {
        let mount = Mount::new();
        Pair::new("shop").write(&mount);
        let [certificate, key] = ["tls.crt", "tls.key"].map(|name| mount.path(name));
        let transport = match std::env::var("TRANSPORT_OF_TEST").as_deref() {
            Ok("builder") => {
                let builder = reqwest::Client::builder;
                ReqwestTransport::from_builder_with_client_certificate(builder, certificate, key)
            }
            Ok("default") => ReqwestTransport::with_client_certificate(certificate, key),
            other => panic!("{other:?}"),
        };
        let request = Request::get("http://as.invalid/").body(bytes::Bytes::new());
        let _ = transport.unwrap().send(request.unwrap(), 1024).await;
        return;
    }
    let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", proxy.local_addr().unwrap());
    let connections = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&connections);
    tokio::spawn(async move {
        while proxy.accept().await.is_ok() {
            seen.fetch_add(1, Ordering::SeqCst);
        }
    });
    for (transport, expected) in [("default", 0), ("builder", 1)] {
        let variables = [
            ("TRANSPORT_OF_TEST", transport),
            ("HTTP_PROXY", &url),
            ("http_proxy", &url),
        ];
        run_again_async(test_name!(), &variables).await;
        assert_eq!(
            connections.swap(0, Ordering::SeqCst),
            expected,
            "{transport}"
        );
    }
}
