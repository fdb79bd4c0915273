//! The errors of fetches say what is wrong and what to do, for the mistakes of first deployments.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tokio::net::TcpListener;
use tower::service_fn;
use tower_oauth::error::ErrorKind;
use tower_oauth::key_set::RefreshPolicy;
use tower_oauth::resource_server::Startup;
use tower_oauth::transport::{ReqwestTransport, SendFuture, ServiceTransport, Transport};
use tower_oauth::{
    Audience, ClientCredentials, Endpoint, Error, Issuer, ResourceServer, TokenManager,
    TrustedIssuer,
};

use super::certificates::{server, server_with_certificate, transport};
use crate::support::raw_issuer::{Behavior, RawIssuer, response};

fn trusted(issuer: &str) -> TrustedIssuer {
    let issuer = Issuer::new(issuer).unwrap();
    TrustedIssuer::new(issuer, Audience::new("orders").unwrap())
}

/// The error of a refresh of the keys.
async fn error_with(issuer: TrustedIssuer, transport: impl Transport) -> Error {
    let server = ResourceServer::from_issuer(issuer)
        .transport(transport)
        .refresh(RefreshPolicy::new().fetch_timeout(Duration::from_secs(3)))
        .allow_loopback_http()
        .startup(Startup::Background)
        .start()
        .await
        .unwrap();
    server.refresh_keys().await.unwrap_err()
}

async fn error_of(issuer: TrustedIssuer) -> Error {
    error_with(issuer, transport()).await
}

/// The errors of a discovery, of a fetch of the keys, and of a token request.
async fn texts_with(base: &str, transport: impl Transport + Clone) -> [String; 3] {
    let keys = Endpoint::new(format!("{base}/keys")).unwrap();
    let token = Endpoint::new(format!("{base}/token")).unwrap();
    let tokens = TokenManager::builder(token, ClientCredentials::new("orders", "s3cret"))
        .transport(transport.clone())
        .allow_loopback_http()
        .build_source()
        .unwrap();
    let discovery = error_with(trusted(base), transport.clone()).await;
    let keys = error_with(trusted(base).jwks_uri(keys), transport).await;
    let token = tower_oauth::client::TokenSource::fetch(&tokens)
        .await
        .unwrap_err();
    [discovery, keys, token].map(|error| error.to_string())
}

#[track_caller]
fn assert_contains(texts: &[String], expected: &str) {
    for text in texts {
        assert!(text.contains(expected), "{text}");
        assert!(!text.contains("s3cret"), "{text}");
    }
}

#[test]
fn a_missing_scheme_is_named_with_what_to_write() {
    for issuer in [
        "keycloak.example/realms/x",
        "keycloak.example:8443/realms/x",
        "localhost:1",
    ] {
        let error = ResourceServer::from_issuer(trusted(issuer)).build();
        let text = error.map(|_| ()).unwrap_err().to_string();
        assert_eq!(
            text,
            "issuer has no scheme: write `https://` before the host"
        );
        let credentials = ClientCredentials::new("orders", "s3cret");
        let error = TokenManager::for_issuer(Issuer::new(issuer).unwrap(), credentials);
        let text = error.map(|_| ()).unwrap_err().to_string();
        assert_eq!(
            text,
            "issuer has no scheme: write `https://` before the host"
        );
    }
}

#[tokio::test]
async fn a_redirect_is_named_with_its_target() {
    for (status, location) in [
        ("301 Moved Permanently", "/auth/keys?code=s3cret"),
        ("302 Found", "https://user:s3cret@login.example/keys"),
        (
            "308 Permanent Redirect",
            "https://login.example/keys#s3cret",
        ),
    ] {
        let field = format!("location: {location}\r\n");
        let issuer = RawIssuer::start(Behavior::Respond(response(status, &field, b""))).await;
        let base = format!("http://{}", issuer.address);
        let target = if location.starts_with('/') {
            format!("{base}/auth/keys")
        } else {
            "https://login.example/keys".to_owned()
        };
        let [discovery, keys, _] = texts_with(&base, transport()).await;
        assert_contains(
            &[discovery, keys],
            &format!(
                "{status}: it redirects to {target}, and redirects are not followed: configure"
            ),
        );
    }
}

#[tokio::test]
async fn the_default_transport_does_not_follow_a_redirect_with_the_secret() {
    for status in [
        "301 Moved Permanently",
        "302 Found",
        "303 See Other",
        "307 Temporary Redirect",
        "308 Permanent Redirect",
    ] {
        let other = RawIssuer::start(Behavior::Respond(response("200 OK", "", b"{}"))).await;
        let field = format!("location: http://{}/token\r\n", other.address);
        let issuer = RawIssuer::start(Behavior::Respond(response(status, &field, b""))).await;
        let base = format!("http://{}", issuer.address);
        let [_, _, token] = texts_with(&base, transport()).await;
        assert!(token.contains(status), "{token}");
        let requests = issuer.requests();
        assert!(requests.iter().any(|request| request.contains("/token")));
        assert!(other.requests().is_empty(), "{status}");
    }
}

#[tokio::test]
async fn an_untrusted_certificate_is_named_with_the_settings_that_help() {
    for is_ca in [false, true] {
        let (base, _) = server(is_ca).await;
        let texts = texts_with(&base, transport()).await;
        let authority = base.trim_start_matches("https://");
        let cause = match is_ca {
            true => "marked as an authority's (CA:TRUE): create it with CA:FALSE",
            false => "self-signed, or of an authority",
        };
        assert_contains(&texts, &format!("that of {authority} is {cause}"));
        assert_contains(&texts, "SSL_CERT_FILE");
        assert_contains(&texts, "ReqwestTransport::from_builder (tls_certs_merge)");
    }
}

#[tokio::test]
async fn a_certificate_for_another_name_is_named_with_the_host() {
    let (base, _, certificate) = server_with_certificate(false).await;
    let base = base.replace("localhost", "127.0.0.1");
    let certificate = reqwest::Certificate::from_der(&certificate).unwrap();
    let client = reqwest::Client::builder()
        .no_proxy()
        .tls_certs_merge([certificate]);
    let transport = ReqwestTransport::from_builder(client).unwrap();
    let authority = base.trim_start_matches("https://");
    let expected = format!("that of {authority} is for another name");
    assert_contains(&texts_with(&base, transport).await, &expected);
}

#[tokio::test]
async fn tls_on_a_port_for_plain_http_is_named() {
    let issuer = RawIssuer::start(Behavior::Respond(response("400 Bad Request", "", b""))).await;
    let texts = texts_with(&format!("https://{}", issuer.address), transport()).await;
    assert_contains(
        &texts,
        &format!("the response of {} is not TLS", issuer.address),
    );
    assert_contains(&texts, "if the port is one for plain http, use http");
}

#[tokio::test]
async fn plain_http_on_a_port_for_tls_is_named() {
    let (base, _) = server(false).await;
    let base = base.replace("https://", "http://");
    let texts = texts_with(&base, transport()).await;
    assert_contains(&texts, "is not HTTP: if the port is one for TLS, use https");
    // nginx answers with a page.
    let page = b"<center>The plain HTTP request was sent to HTTPS port</center>";
    let issuer = RawIssuer::start(Behavior::Respond(response("400 Bad Request", "", page))).await;
    let [discovery, keys, _] = texts_with(&format!("http://{}", issuer.address), transport()).await;
    let expected = format!(
        "400 Bad Request: {} is a port for TLS: use https",
        issuer.address
    );
    assert_contains(&[discovery, keys], &expected);
}

#[tokio::test]
async fn a_refused_connection_is_named_with_its_address() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    for scheme in ["http", "https"] {
        let texts = texts_with(&format!("{scheme}://{address}"), transport()).await;
        assert_contains(
            &texts,
            &format!("connection refused by {address}: no server listens"),
        );
    }
}

#[tokio::test]
async fn a_closed_connection_is_named_with_its_address() {
    let issuer = RawIssuer::start(Behavior::Reset).await;
    for scheme in ["http", "https"] {
        let texts = texts_with(&format!("{scheme}://{}", issuer.address), transport()).await;
        assert_contains(&texts, &format!("{} closed the connection", issuer.address));
    }
}

#[tokio::test]
async fn a_name_that_cannot_be_resolved_is_named() {
    // Too long a label for any name server, so that none is asked.
    let host = format!("{}.example", "k".repeat(64));
    let client = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new());
    let hyper = ServiceTransport::new(client.build_http::<Full<Bytes>>());
    let transports: [Arc<dyn Transport>; 2] = [Arc::new(transport()), Arc::new(hyper)];
    for transport in transports {
        let server = ResourceServer::from_issuer(trusted(&format!("http://{host}")))
            .transport(Shared(transport))
            .allow_http([&host])
            .startup(Startup::Background)
            .start()
            .await
            .unwrap();
        let text = server.refresh_keys().await.unwrap_err().to_string();
        assert_contains(&[text], &format!("the name {host} cannot be resolved"));
    }
}

#[derive(Debug)]
struct Shared(Arc<dyn Transport>);

impl Transport for Shared {
    fn send(&self, request: Request<Bytes>, max_body: usize) -> SendFuture<'_> {
        self.0.send(request, max_body)
    }
}

#[tokio::test]
async fn a_timeout_is_named_with_its_limit() {
    let issuer = RawIssuer::start(Behavior::Stall(Vec::new())).await;
    let base = format!("http://{}", issuer.address);
    let keys = Endpoint::new(format!("{base}/keys")).unwrap();
    for issuer in [trusted(&base), trusted(&base).jwks_uri(keys)] {
        let error = error_of(issuer).await;
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert_eq!(error.expected(), Some("a response within 3 s"));
        let text = error.to_string();
        let expected = "no response within the time limit: expected a response within 3 s";
        assert!(text.ends_with(expected), "{text}");
    }
}

#[tokio::test]
async fn html_instead_of_json_is_named_by_its_content_type() {
    let page = b"<!doctype html><title>s3cret</title>";
    for (field, expected) in [
        (
            "content-type: text/html; charset=utf-8\r\n",
            "the content type is text/html",
        ),
        ("", "the document is HTML or XML"),
    ] {
        let issuer = RawIssuer::start(Behavior::Respond(response("200 OK", field, page))).await;
        let base = format!("http://{}", issuer.address);
        let [discovery, keys, _] = texts_with(&base, transport()).await;
        assert_contains(
            &[discovery, keys],
            &format!("JSON is expected, and {expected}"),
        );
    }
}

#[tokio::test]
async fn missing_metadata_are_named_with_each_place() {
    let issuer = RawIssuer::start(Behavior::Respond(response("404 Not Found", "", b""))).await;
    let base = format!("http://{}", issuer.address);
    let text = error_of(trusted(&base)).await.to_string();
    let expected = format!(
        "failed at {base}/.well-known/openid-configuration: the server responded with 404 Not \
         Found: nor is it at {base}/.well-known/oauth-authorization-server: check the issuer"
    );
    assert!(text.ends_with(&expected), "{text}");
    let text = error_of(trusted(&format!("{base}/realms/x")))
        .await
        .to_string();
    for place in [
        "/realms/x/.well-known/openid-configuration",
        "/.well-known/oauth-authorization-server/realms/x",
        "/.well-known/openid-configuration/realms/x",
    ] {
        assert!(text.contains(&format!("{base}{place}")), "{text}");
    }
}

/// A server cannot write to the log of an operator what it wants.
#[tokio::test]
async fn what_a_server_sends_is_escaped_and_cut() {
    let long = "a".repeat(5000);
    for (status, fields, body) in [
        (302, vec![("location", format!("/{long}"))], String::new()),
        (
            302,
            vec![("location", "/\u{9b}31m\t".to_owned())],
            String::new(),
        ),
        (
            200,
            vec![("content-type", format!("text/{long}"))],
            String::new(),
        ),
        (
            200,
            vec![("content-type", "text/\t\u{9b}31m".to_owned())],
            "<".to_owned(),
        ),
        (400, vec![], format!("HTTPS\u{1b}[31m{long}")),
    ] {
        let server = ServiceTransport::new(service_fn(move |_: Request<Full<Bytes>>| {
            let mut response = Response::builder().status(status);
            for (name, value) in &fields {
                response = response.header(*name, value.as_bytes());
            }
            let response = response.body(body.clone()).unwrap();
            async { Ok::<_, std::convert::Infallible>(response) }
        }));
        let text = error_with(trusted("https://as.example"), server)
            .await
            .to_string();
        assert!(text.len() < 700, "{text}");
        assert!(!text.contains(|c: char| c.is_control()), "{text:?}");
    }
}
