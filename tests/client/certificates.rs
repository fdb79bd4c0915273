//! Servers with an untrusted certificate: no retry, and the log names the cause.

#![allow(clippy::as_conversions, reason = "tests")]
#![allow(
    clippy::print_stdout,
    reason = "read by the test that starts the process"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
#[cfg(target_os = "linux")]
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tower_oauth::error::ErrorKind;
use tower_oauth::resource_server::Startup;
use tower_oauth::transport::ReqwestTransport;
use tower_oauth::{Audience, ClientCredentials, Endpoint, Issuer, ResourceServer, TokenManager};

#[cfg(target_os = "linux")]
use crate::support::child_process::{is_child, run_again_async, test_name};
use crate::support::log;
#[cfg(target_os = "linux")]
use crate::support::pem;

/// One DER value (X.690 §8.1) of fewer than 64 KiB.
fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let length = match content.len() {
        short @ 0..0x80 => vec![short as u8],
        longer @ 0x80..0x100 => vec![0x81, longer as u8],
        long => vec![0x82, (long >> 8) as u8, long as u8],
    };
    [&[tag], length.as_slice(), &content].concat()
}

const SEQUENCE: u8 = 0x30;
const ECDSA_WITH_SHA256: &[u8] = &[0x06, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2];
const EC_PUBLIC_KEY: &[u8] = &[0x06, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1];
const PRIME256V1: &[u8] = &[0x06, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
const COMMON_NAME: &[u8] = &[0x06, 3, 0x55, 4, 3];
const SUBJECT_ALTERNATIVE_NAME: &[u8] = &[0x06, 3, 0x55, 0x1d, 0x11];
const BASIC_CONSTRAINTS: &[u8] = &[0x06, 3, 0x55, 0x1d, 0x13];

/// A certificate for `localhost`, signed with its own key (RFC 5280 §4.1).
pub(super) fn self_signed(key: &EcdsaKeyPair, name: &str, is_ca: bool) -> Vec<u8> {
    let algorithm = der(SEQUENCE, &[ECDSA_WITH_SHA256]);
    let common_name = der(SEQUENCE, &[COMMON_NAME, &der(0x0c, &[name.as_bytes()])]);
    let name = der(SEQUENCE, &[&der(0x31, &[&common_name])]);
    let validity = der(
        SEQUENCE,
        &[
            &der(0x17, &[b"200101000000Z"]),
            &der(0x17, &[b"491231235959Z"]),
        ],
    );
    let public_key = der(
        SEQUENCE,
        &[
            &der(SEQUENCE, &[EC_PUBLIC_KEY, PRIME256V1]),
            &der(0x03, &[&[0], key.public_key().as_ref()]),
        ],
    );
    let extension = |id: &[u8], value: &[u8]| der(SEQUENCE, &[id, &der(0x04, &[value])]);
    let names = extension(
        SUBJECT_ALTERNATIVE_NAME,
        &der(SEQUENCE, &[&der(0x82, &[b"localhost"])]),
    );
    let constraints = if is_ca {
        der(SEQUENCE, &[&[0x01, 1, 0xff]])
    } else {
        der(SEQUENCE, &[])
    };
    let constraints = extension(BASIC_CONSTRAINTS, &constraints);
    let extensions = der(0xa3, &[&der(SEQUENCE, &[&names, &constraints])]);
    let version = der(0xa0, &[&[0x02, 1, 2]]);
    let serial: &[u8] = &[0x02, 1, 1];
    let signed = der(
        SEQUENCE,
        &[
            &version,
            serial,
            &algorithm,
            &name,
            &validity,
            &name,
            &public_key,
            &extensions,
        ],
    );
    let signature = key.sign(&SystemRandom::new(), &signed).unwrap();
    der(
        SEQUENCE,
        &[&signed, &algorithm, &der(0x03, &[&[0], signature.as_ref()])],
    )
}

/// A TLS server with such a certificate. Counts the connections.
pub(super) async fn server(is_ca: bool) -> (String, Arc<AtomicUsize>) {
    let (url, connections, _) = server_with_certificate(is_ca).await;
    (url, connections)
}

/// Accepts TLS with such a certificate, which is the second value.
pub(super) fn acceptor(is_ca: bool) -> (TlsAcceptor, Vec<u8>) {
    let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
    let der = self_signed(&key, "an issuer that no store has", is_ca);
    let certificate = CertificateDer::from(der.clone());
    let private = PrivatePkcs8KeyDer::from(key.to_pkcs8v1().unwrap().as_ref().to_vec());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap();
    let config = config
        .with_no_client_auth()
        .with_single_cert(vec![certificate], private.into())
        .unwrap();
    (TlsAcceptor::from(Arc::new(config)), der)
}

pub(super) async fn server_with_certificate(is_ca: bool) -> (String, Arc<AtomicUsize>, Vec<u8>) {
    let (acceptor, der) = acceptor(is_ca);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!(
        "https://localhost:{}",
        listener.local_addr().unwrap().port()
    );
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            counted.fetch_add(1, Ordering::SeqCst);
            let acceptor = acceptor.clone();
            tokio::spawn(async move { acceptor.accept(stream).await.map(drop) });
        }
    });
    (url, connections, der)
}

pub(super) fn transport() -> ReqwestTransport {
    ReqwestTransport::from_builder(reqwest::Client::builder().no_proxy()).unwrap()
}

#[tokio::test]
async fn a_certificate_error_fails_at_once_and_is_logged() {
    for (is_ca, cause) in [(false, "UnknownIssuer"), (true, "CaUsedAsEndEntity")] {
        let (url, connections) = server(is_ca).await;
        let credentials = || ClientCredentials::new("orders", "secret");
        let token_endpoint = Endpoint::new(format!("{url}/token")).unwrap();
        let fixed = TokenManager::builder(token_endpoint, credentials());
        let discovered =
            TokenManager::for_issuer(Issuer::new(&url).unwrap(), credentials()).unwrap();
        for (builder, sent) in [(fixed, 1), (discovered, 2)] {
            log::clear_log();
            let tokens = builder.transport(transport()).start().unwrap();
            let error = tokens.access_token().await.unwrap_err();
            assert_eq!(
                (error.kind(), error.kind().as_str()),
                (ErrorKind::Certificate, "certificate")
            );
            assert!(error.to_string().contains("certificate"), "{error}");
            assert_eq!(connections.load(Ordering::SeqCst), sent, "no retry");
            let logged = log::logged(cause);
            assert!(
                log::logged("no access token could be obtained") && logged,
                "{cause} is not logged"
            );
            assert!(log::logged("manager=orders"), "the manager is not logged");
        }
    }
}

/// The error of a refresh of the keys.
async fn refresh_error(url: &str, transport: ReqwestTransport) -> ErrorKind {
    let builder =
        ResourceServer::builder(Issuer::new(url).unwrap(), Audience::new("orders").unwrap());
    let server = builder
        .transport(transport)
        .startup(Startup::Background)
        .start()
        .await
        .unwrap();
    server.refresh_keys().await.unwrap_err().kind()
}

#[tokio::test]
async fn a_certificate_error_of_a_jwks_fetch_is_distinct_from_an_outage() {
    let (url, _) = server(false).await;
    log::clear_log();
    assert_eq!(
        refresh_error(&url, transport()).await,
        ErrorKind::Certificate
    );
    assert!(log::logged("UnknownIssuer"));
}

/// The server closes each connection after the handshake, which is another error.
#[tokio::test]
async fn a_certificate_is_trusted_if_it_is_added_to_the_client() {
    let (url, _, certificate) = server_with_certificate(false).await;
    let certificate = reqwest::Certificate::from_der(&certificate).unwrap();
    let client = reqwest::Client::builder().no_proxy();
    let client = client.tls_certs_merge([certificate]);
    let transport = ReqwestTransport::from_builder(client).unwrap();
    assert_eq!(refresh_error(&url, transport).await, ErrorKind::Transport);
}

/// The variable of a child process.
#[cfg(target_os = "linux")]
const URL_OF_TEST_SERVER: &str = "URL_OF_TEST_SERVER";

/// The child: fetches keys and prints the error.
#[cfg(target_os = "linux")]
async fn print_refresh_error() {
    log::clear_log();
    let url = std::env::var(URL_OF_TEST_SERVER).unwrap();
    let kind = refresh_error(&url, transport()).await;
    let causes = ["UnknownIssuer", "BadSignature"];
    let cause = causes.into_iter().find(|cause| log::logged(cause));
    println!("\nerror: {kind:?} {}", cause.unwrap_or("-"));
}

/// A self-signed certificate of this name, with a new key.
#[cfg(target_os = "linux")]
fn another_certificate(name: &str) -> String {
    let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
    pem("CERTIFICATE", &self_signed(&key, name, true))
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_certificate_is_trusted_if_ssl_cert_file_or_ssl_cert_dir_has_it() {
    if is_child() {
        return print_refresh_error().await;
    }
    let (url, connections, certificate) = server_with_certificate(false).await;
    let [with, without, other] = [(); 3].map(|()| TempDir::new().unwrap());
    let file = with.path().join("as.pem");
    std::fs::write(&file, pem("CERTIFICATE", &certificate)).unwrap();
    let other_file = without.path().join("other.pem");
    std::fs::write(&other_file, another_certificate("another issuer")).unwrap();
    // A certificate with the subject of the server's, and another key.
    let same_subject = other.path().join("same_subject.pem");
    let forged = another_certificate("an issuer that no store has");
    std::fs::write(&same_subject, forged).unwrap();

    // The server closes each connection after the handshake, which is another error.
    let trusted = "Transport -";
    let untrusted = "Certificate UnknownIssuer";
    for (file, folder, expected) in [
        (None, None, untrusted),
        (Some(&file), None, trusted),
        (None, Some(&with), trusted),
        // Both are read.
        (Some(&file), Some(&without), trusted),
        (Some(&other_file), Some(&with), trusted),
        (Some(&other_file), Some(&without), untrusted),
        (Some(&same_subject), None, "Certificate BadSignature"),
    ] {
        let file = file.map(|file| ("SSL_CERT_FILE", file.to_str().unwrap()));
        let folder = folder.map(|folder| ("SSL_CERT_DIR", folder.path().to_str().unwrap()));
        let mut variables = vec![(URL_OF_TEST_SERVER, url.as_str())];
        variables.extend(file.into_iter().chain(folder));
        let before = connections.load(Ordering::SeqCst);
        let printed = run_again_async(test_name!(), &variables).await;
        let error = printed
            .lines()
            .find_map(|line| line.strip_prefix("error: "));
        assert_eq!(error, Some(expected), "{variables:?}");
        assert!(connections.load(Ordering::SeqCst) > before);
    }
}

/// Other TLS failures may be transient: a proxy that responds in plain text, a broken connection.
#[tokio::test]
async fn other_tls_failures_are_no_certificate_errors() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!(
        "https://localhost:{}/token",
        listener.local_addr().unwrap().port()
    );
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::io::AsyncWriteExt::write_all(&mut stream, b"HTTP/1.1 400 Bad Request\r\n\r\n")
                .await
                .unwrap();
        }
    });
    let tokens = TokenManager::builder(
        Endpoint::new(url).unwrap(),
        ClientCredentials::new("orders", "secret"),
    );
    let tokens = tokens
        .transport(transport())
        .acquire_timeout(std::time::Duration::from_secs(2));
    let error = tokens.start().unwrap().access_token().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Transport);
}
