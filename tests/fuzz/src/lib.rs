//! Shared by the fuzz targets: an issuer that signs any input, and a resource server that validates
//! it, through the public API alone.
//!
//! Ed25519 signs in microseconds and its signatures are unique: an accepted token is byte for byte
//! one that was signed here.

use std::convert::Infallible;
use std::fmt;
use std::sync::{Arc, Mutex};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tower::{Layer as _, ServiceExt as _, service_fn};
use tower_oauth::clock::{ManualClock, UnixTime};
use tower_oauth::key_set::KeySet;
use tower_oauth::resource_server::{Refresher, RejectionKind};
use tower_oauth::transport::{SendFuture, Transport};
use tower_oauth::{Audience, AuthContext, Issuer, Rejection, ResourceServer, TrustedIssuer};

pub const ISSUER: &str = "https://as.example";
pub const AUDIENCE: &str = "orders";
pub const NOW: u64 = 1_700_000_000;

/// The claims of a valid token.
pub const CLAIMS: &str = r#"{"iss":"https://as.example","aud":"orders","exp":1700003600}"#;

/// The header of a valid token.
pub const HEADER: &str = r#"{"alg":"EdDSA","kid":"k"}"#;

pub fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// An issuer with one key, and a resource server that trusts it.
pub struct Fixture {
    key: Ed25519KeyPair,
    server: ResourceServer,
}

impl Default for Fixture {
    fn default() -> Self {
        Self::new()
    }
}

impl Fixture {
    pub fn new() -> Self {
        Self::at(NOW)
    }

    /// A fixture with this time on its clock.
    pub fn at(now: u64) -> Self {
        let key = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).expect("any 32 bytes are a seed");
        let set = format!(
            r#"{{"keys":[{{"kty":"OKP","crv":"Ed25519","kid":"k","x":"{}"}}]}}"#,
            encode(key.public_key())
        );
        let (server, _refresher) = ResourceServer::from_issuer(
            trusted().keys(KeySet::from_json(set.as_bytes()).expect("one good key")),
        )
        .clock(ManualClock::at(UnixTime::from_secs(now)))
        .build()
        .expect("good settings");
        Self { key, server }
    }

    pub fn public_key(&self) -> &[u8] {
        self.key.public_key().as_ref()
    }

    /// A token with this header and payload, and a valid signature.
    pub fn sign(&self, header: impl AsRef<[u8]>, payload: impl AsRef<[u8]>) -> String {
        let input = format!("{}.{}", encode(header), encode(payload));
        format!("{input}.{}", encode(self.key.sign(input.as_bytes())))
    }

    /// Sends a token through the layer.
    pub fn validate(&self, token: &str) -> Result<AuthContext, RejectionKind> {
        match HeaderValue::try_from(format!("Bearer {token}")) {
            Ok(field) => self.send(
                Request::builder()
                    .header(header::AUTHORIZATION, field)
                    .body(())
                    .unwrap(),
            ),
            Err(_) => Err(RejectionKind::InvalidRequest),
        }
    }

    /// Sends a request through the layer. Also checks the response to a rejected one.
    pub fn send(&self, request: Request<()>) -> Result<AuthContext, RejectionKind> {
        let service = self
            .server
            .layer()
            .layer(service_fn(async |request: Request<()>| {
                let mut response = Response::new(());
                let context = AuthContext::from_request(&request)
                    .expect("an accepted request has a context")
                    .clone();
                response.extensions_mut().insert(context);
                Ok::<_, Infallible>(response)
            }));
        let response = poll_once_or_panic(service.oneshot(request)).expect("infallible");
        if let Some(context) = response.extensions().get::<AuthContext>() {
            assert_eq!(response.status(), 200);
            return Ok(context.clone());
        }
        let kind = response
            .extensions()
            .get::<Rejection>()
            .expect("accepted or rejected")
            .kind();
        assert!(matches!(response.status().as_u16(), 400 | 401), "{kind}");
        assert!(response.headers().contains_key(header::WWW_AUTHENTICATE));
        Err(kind)
    }
}

fn trusted() -> TrustedIssuer {
    TrustedIssuer::new(
        Issuer::new(ISSUER).expect("a URL"),
        Audience::new(AUDIENCE).expect("a name"),
    )
}

/// Polls a future once. Without a fetch, every request completes in its first poll.
fn poll_once_or_panic<F: Future>(future: F) -> F::Output {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::pin!(future).poll(&mut context) {
        std::task::Poll::Ready(output) => output,
        std::task::Poll::Pending => panic!("the request did not complete in its first poll"),
    }
}

/// Parses an object with serde_json alone; the last of duplicate names wins.
pub fn plain(json: &[u8]) -> serde_json::Map<String, Value> {
    match serde_json::from_slice(json) {
        Ok(Value::Object(object)) => object,
        other => panic!("accepted, but not an object: {other:?}"),
    }
}

/// Parses a published document with serde_json alone: a UTF-8 text with an object. Only the members
/// of `T` are read: an ignored one may contain a number that is out of range, or nest deeply.
pub fn published<T: DeserializeOwned>(document: &[u8]) -> T {
    let text = std::str::from_utf8(document).expect("an accepted document is UTF-8");
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    assert!(text.trim_start().starts_with('{'), "an object: {text}");
    serde_json::from_str(text).expect("an accepted document has these members")
}

/// A transport that returns the same response to every request.
#[derive(Clone)]
pub struct ConstantTransport(Arc<ConstantTransportInner>);

struct ConstantTransportInner {
    answer: Response<Bytes>,
    requested: Mutex<Vec<String>>,
}

impl ConstantTransport {
    pub fn new(answer: Response<Bytes>) -> Self {
        Self(Arc::new(ConstantTransportInner {
            answer,
            requested: Mutex::default(),
        }))
    }

    /// The requested URLs.
    pub fn requested(&self) -> Vec<String> {
        self.0.requested.lock().expect("not poisoned").clone()
    }

    /// A resource server that uses it, with discovery or a given `jwks_uri`.
    pub fn server(&self, jwks_uri: Option<&str>) -> (ResourceServer, Refresher) {
        let issuer = match jwks_uri {
            Some(uri) => trusted().jwks_uri(tower_oauth::Endpoint::new(uri).expect("a URL")),
            None => trusted(),
        };
        let builder = ResourceServer::from_issuer(issuer).transport(self.clone());
        builder
            .clock(ManualClock::at(UnixTime::from_secs(NOW)))
            .build()
            .expect("good settings")
    }
}

impl fmt::Debug for ConstantTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConstantTransport").finish_non_exhaustive()
    }
}

impl Transport for ConstantTransport {
    fn send(&self, request: Request<Bytes>, _max_body: usize) -> SendFuture<'_> {
        self.0
            .requested
            .lock()
            .expect("not poisoned")
            .push(request.uri().to_string());
        let mut answer = Response::new(self.0.answer.body().clone());
        *answer.status_mut() = self.0.answer.status();
        *answer.headers_mut() = self.0.answer.headers().clone();
        Box::pin(std::future::ready(Ok(answer)))
    }
}

/// Runs the refresher for this many seconds of paused time.
pub fn run_for(seconds: u64, refresher: Refresher) {
    thread_local!(static RUNTIME: tokio::runtime::Runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime"));
    RUNTIME.with(|runtime| {
        runtime.block_on(async {
            let _elapsed =
                tokio::time::timeout(std::time::Duration::from_secs(seconds), refresher).await;
        });
    });
}
