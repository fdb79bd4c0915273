//! The helpers of all integration tests. Here: an issuer of valid and invalid tokens that shares no
//! code with the crate, and a resource server that validates them.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::needless_pass_by_value,
    reason = "each test binary uses a part of it"
)]

pub mod child_process;
pub mod issuer;
pub mod jwt;
pub mod log;
#[cfg(unix)]
pub mod mount;
pub mod program;
pub mod provider;
pub mod raw_issuer;
pub mod settings;
pub mod token_endpoint;

use std::convert::Infallible;
use std::error::Error;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING,
    ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256,
    RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512, RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::Full;
use pem_rfc7468::LineEnding;
use serde_json::{Value, json};
use tower::{Layer, ServiceExt, service_fn};
use tower_oauth::clock::{ManualClock, UnixTime};
use tower_oauth::key_set::KeySet;
use tower_oauth::resource_server::{ProtectedResource, RejectionKind, ResourceServerBuilder};
use tower_oauth::{Audience, AuthContext, Issuer, Rejection, ResourceServer, TrustedIssuer};

pub const NOW: u64 = 1_700_000_000;
pub const ISSUER: &str = "https://as.example";
pub const AUDIENCE: &str = "orders";

/// The product of two primes as Infineon's library made them (CVE-2017-15361): each is a power of
/// 65537 modulo the product of the first 126 primes.
pub const ROCA_MODULUS: &str = concat!(
    "tsuuu3DIlIKlMA1nV5QcQ9RA_0Dj1_QGXf_-4eQHnwSrOQbabcl5FfBWxI2DSCbZ1iV_83uD1kD4i_odU0tORo",
    "6hCShDYeZLlleyyNt5W3UNRJ0idpEw1f7Mxi2xfDpWUytZ-uFFFaWl_TGLLHeIo6vk8vvZjf0C_tk_72A2BgLt",
    "FTQzCZIfVNf6AmuiG3ky6tjSgVaHwwh2HMWAgfKQE2cGgrUDl6oTQwXZOP_YnurVoxFPnNeVnLfx2JqwxZXJ3v",
    "nJqFhCqL2HGlUrM10EOThk7Y04EhRNkKI6lkgcwcbgyux5GLCFM2yN-yt8RK6kmxGj7xIk4x3_ZZxw0aX0QQ",
);

/// A private key of each kind.
pub enum PrivateKey {
    Rsa(RsaKeyPair),
    Ec(EcdsaKeyPair, &'static str),
    Ed25519(Ed25519KeyPair),
}

/// RSA keys are slow to generate: the tests of a file share them.
pub fn rsa(which: usize) -> &'static PrivateKey {
    static KEYS: [OnceLock<PrivateKey>; 3] = [const { OnceLock::new() }; 3];
    KEYS[which].get_or_init(|| PrivateKey::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).unwrap()))
}

pub fn p256() -> PrivateKey {
    PrivateKey::Ec(
        EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap(),
        "P-256",
    )
}

pub fn p384() -> PrivateKey {
    PrivateKey::Ec(
        EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap(),
        "P-384",
    )
}

pub fn p521() -> PrivateKey {
    PrivateKey::Ec(
        EcdsaKeyPair::generate(&ECDSA_P521_SHA512_FIXED_SIGNING).unwrap(),
        "P-521",
    )
}

pub fn ed25519() -> PrivateKey {
    PrivateKey::Ed25519(Ed25519KeyPair::generate().unwrap())
}

impl PrivateKey {
    /// The public key as a JWK.
    pub fn jwk(&self, kid: &str) -> Value {
        let mut jwk = match self {
            Self::Rsa(pair) => json!({
                "kty": "RSA",
                "n": encode(pair.public_key().modulus().big_endian_without_leading_zero()),
                "e": encode(pair.public_key().exponent().big_endian_without_leading_zero()),
            }),
            Self::Ec(pair, crv) => {
                let point = &pair.public_key().as_ref()[1..];
                let (x, y) = point.split_at(point.len() / 2);
                json!({ "kty": "EC", "crv": crv, "x": encode(x), "y": encode(y) })
            }
            Self::Ed25519(pair) => {
                json!({ "kty": "OKP", "crv": "Ed25519", "x": encode(pair.public_key()) })
            }
        };
        jwk["kid"] = json!(kid);
        jwk["use"] = json!("sig");
        jwk
    }

    pub fn sign(&self, alg: &str, message: &[u8]) -> Vec<u8> {
        match self {
            Self::Rsa(pair) => {
                let encoding: &'static dyn aws_lc_rs::signature::RsaEncoding = match alg {
                    "RS384" => &RSA_PKCS1_SHA384,
                    "RS512" => &RSA_PKCS1_SHA512,
                    "PS256" => &RSA_PSS_SHA256,
                    "PS384" => &RSA_PSS_SHA384,
                    "PS512" => &RSA_PSS_SHA512,
                    _ => &RSA_PKCS1_SHA256,
                };
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(encoding, &SystemRandom::new(), message, &mut signature)
                    .unwrap();
                signature
            }
            Self::Ec(pair, _) => pair
                .sign(&SystemRandom::new(), message)
                .unwrap()
                .as_ref()
                .to_vec(),
            Self::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
        }
    }
}

pub fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The bytes of a text that [`encode`] returns.
pub fn decoded(text: &str) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(text).unwrap()
}

/// A PEM text (RFC 7468 §2).
pub fn pem(label: &str, der: &[u8]) -> String {
    pem_rfc7468::encode_string(label, LineEnding::LF, der).unwrap()
}

/// The message of an error, with those of its sources.
pub fn chain(error: &dyn Error) -> String {
    let errors = std::iter::successors(Some(error), |&error| error.source());
    errors
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

/// A pipe without a writer: opening it waits.
#[cfg(unix)]
pub fn create_pipe(path: &std::path::Path) {
    let status = std::process::Command::new("mkfifo").arg(path).status();
    assert!(status.unwrap().success());
}

/// Signs a compact JWS with any header and payload.
pub fn compact(key: &PrivateKey, alg: &str, header: &str, payload: &[u8]) -> String {
    let input = format!("{}.{}", encode(header), encode(payload));
    let signature = key.sign(alg, input.as_bytes());
    format!("{input}.{}", encode(signature))
}

/// The claims of a valid token.
pub fn claims() -> Value {
    json!({
        "iss": ISSUER,
        "aud": [AUDIENCE],
        "exp": NOW + 3600,
        "iat": NOW,
        "sub": "app",
        "scope": "orders.read",
    })
}

/// `claims` with members replaced; `null` removes one.
pub fn claims_with(changes: Value) -> Value {
    let mut claims = claims();
    for (name, value) in changes.as_object().unwrap() {
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(name);
        } else {
            claims[name] = value.clone();
        }
    }
    claims
}

/// `claims` with members replaced, by `null` as well.
pub fn claims_and(members: &Value) -> Value {
    let mut claims = claims();
    let members = members.as_object().unwrap().clone();
    claims.as_object_mut().unwrap().extend(members);
    claims
}

/// A resource server with one issuer and fixed keys without `alg`: RSA, P-256, P-384, P-521 and
/// Ed25519.
pub struct Fixture {
    pub clock: ManualClock,
    pub rsa: &'static PrivateKey,
    pub p256: PrivateKey,
    pub p384: PrivateKey,
    pub p521: PrivateKey,
    pub ed25519: PrivateKey,
    pub server: ResourceServer,
    served: Arc<AtomicUsize>,
}

impl Fixture {
    pub fn new() -> Self {
        Self::with(|issuer| issuer)
    }

    pub fn with(change: impl Fn(TrustedIssuer) -> TrustedIssuer) -> Self {
        Self::with_server(|keys| {
            let issuer = TrustedIssuer::new(
                Issuer::new(ISSUER).unwrap(),
                Audience::new(AUDIENCE).unwrap(),
            );
            ResourceServer::from_issuer(change(issuer.keys(keys)))
        })
    }

    /// A fixture with a realm and metadata in its challenges, and the default leeway of 60 s.
    pub fn with_metadata() -> Self {
        Self::with_server(|keys| {
            let issuer = Issuer::new(ISSUER).unwrap();
            let issuer = TrustedIssuer::new(issuer, Audience::new(AUDIENCE).unwrap());
            let resource = ProtectedResource::new("https://orders.example").unwrap();
            ResourceServer::from_issuer(issuer.keys(keys))
                .realm("orders")
                .protected_resource(resource)
        })
    }

    /// A fixture with any resource server that has these keys.
    pub fn with_server(server: impl Fn(KeySet) -> ResourceServerBuilder) -> Self {
        let (p256, p384, p521, ed25519) = (p256(), p384(), p521(), ed25519());
        let keys = [
            rsa(0).jwk("rsa"),
            p256.jwk("p256"),
            p384.jwk("p384"),
            p521.jwk("p521"),
            ed25519.jwk("ed"),
        ];
        let keys = json!({ "keys": keys });
        let clock = ManualClock::at(UnixTime::from_secs(NOW));
        let keys = KeySet::from_json(keys.to_string().as_bytes()).unwrap();
        let (server, _refresher) = server(keys).clock(clock.clone()).build().unwrap();
        Self {
            clock,
            rsa: rsa(0),
            p256,
            p384,
            p521,
            ed25519,
            server,
            served: Arc::default(),
        }
    }

    /// A well-signed token with these claims.
    pub fn token(&self, claims: &Value) -> String {
        compact(
            self.rsa,
            "RS256",
            r#"{"alg":"RS256","typ":"JWT","kid":"rsa"}"#,
            claims.to_string().as_bytes(),
        )
    }

    /// A token with this header, signed as RS256.
    pub fn with_header(&self, header: &str) -> String {
        compact(self.rsa, "RS256", header, claims().to_string().as_bytes())
    }

    /// A token with this payload.
    pub fn with_payload(&self, payload: &[u8]) -> String {
        compact(self.rsa, "RS256", r#"{"alg":"RS256","kid":"rsa"}"#, payload)
    }

    /// Sends any request through the layer.
    pub async fn send(&self, request: Request<Full<Bytes>>) -> Response<Full<Bytes>> {
        log::capture();
        let fields = request
            .headers()
            .iter()
            .filter(|(name, _)| ["authorization", "dpop"].contains(&name.as_str()));
        let mut sent: Vec<String> = fields
            .map(|(_, value)| String::from_utf8_lossy(value.as_bytes()).into_owned())
            .collect();
        sent.extend(request.uri().query().map(str::to_owned));
        let served = Arc::clone(&self.served);
        let service =
            self.server
                .layer()
                .layer(service_fn(move |request: Request<Full<Bytes>>| {
                    let served = Arc::clone(&served);
                    async move {
                        served.fetch_add(1, Ordering::SeqCst);
                        let mut response = Response::new(Full::default());
                        response.extensions_mut().insert(
                            AuthContext::from_request(&request)
                                .expect("a context")
                                .clone(),
                        );
                        Ok::<_, Infallible>(response)
                    }
                }));
        let response = service.oneshot(request).await.unwrap();
        for part in sent
            .iter()
            .flat_map(|text| text.split([' ', ',', '=', '&']))
        {
            log::assert_not_logged(part);
        }
        response
    }

    /// Validates a token: returns its context, or the kind of the rejection. Also checks the
    /// response to a rejected token, everything that was logged, and that
    /// [`ResourceServer::authenticate`] and [`ResourceServer::validate`] have the same result.
    pub async fn validate(&self, token: &str) -> Result<AuthContext, RejectionKind> {
        log::clear_log();
        let result = self.validate_unchecked(token).await;
        let kind = |result: Result<_, Rejection>| result.map(|_| ()).map_err(|error| error.kind());
        let (head, ()) = bearer(token, ()).into_parts();
        let expected = result.as_ref().map(|_| ()).map_err(|kind| *kind);
        assert_eq!(kind(self.server.authenticate(&head).await), expected);
        let without_request = match expected {
            // There is no field that could be malformed.
            Err(RejectionKind::InvalidRequest) if token.is_empty() => {
                Err(RejectionKind::MissingToken)
            }
            Err(RejectionKind::InvalidRequest) => Err(RejectionKind::Malformed),
            other => other,
        };
        assert_eq!(kind(self.server.validate(token).await), without_request);
        log::register_secret(&self.rsa.jwk("rsa"));
        log::assert_not_logged(token);
        assert!(
            result.is_ok() || log::logged("reason="),
            "a rejection is logged with its reason"
        );
        result
    }

    async fn validate_unchecked(&self, token: &str) -> Result<AuthContext, RejectionKind> {
        let before = self.served.load(Ordering::SeqCst);
        let response = self.send(bearer(token, Full::default())).await;
        let Some(rejection) = response.extensions().get::<Rejection>() else {
            assert_eq!(response.status(), 200);
            return Ok(response.extensions().get::<AuthContext>().unwrap().clone());
        };
        let kind = rejection.kind();
        assert_eq!(
            self.served.load(Ordering::SeqCst),
            before,
            "a rejected request is not served"
        );
        assert_eq!(response.headers()["cache-control"], "no-store");
        if response.status() == 401 {
            let challenge = response.headers()["www-authenticate"].to_str().unwrap();
            assert!(
                challenge.contains(r#"error="invalid_token""#),
                "{challenge}"
            );
        } else {
            assert_eq!(
                (response.status().as_u16(), kind),
                (400, RejectionKind::InvalidRequest)
            );
        }
        Err(kind)
    }

    /// Asserts that a token is rejected with this kind.
    #[track_caller]
    pub fn assert_rejects(&self, token: &str, kind: RejectionKind) {
        let result = poll_once_or_panic(self.validate(token));
        assert_eq!(
            result.map(|_| ()),
            Err(kind),
            "{}",
            &token[..token.len().min(200)]
        );
    }

    /// Asserts that a token is accepted.
    #[track_caller]
    pub fn assert_accepts(&self, token: &str) -> AuthContext {
        poll_once_or_panic(self.validate(token)).expect(token)
    }
}

/// A request with a bearer token.
pub fn bearer<B>(token: &str, body: B) -> Request<B> {
    let field = http::HeaderValue::from_bytes(format!("Bearer {token}").as_bytes()).unwrap();
    let request = Request::builder().header(header::AUTHORIZATION, field);
    request.body(body).unwrap()
}

/// A handler that responds with 200.
pub async fn ok<B>(_: Request<B>) -> Result<Response<()>, Infallible> {
    Ok(Response::new(()))
}

/// Polls a future once. A request with a known key completes in its first poll.
#[track_caller]
pub fn poll_once_or_panic<F: Future>(future: F) -> F::Output {
    let mut future = std::pin::pin!(future);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match future.as_mut().poll(&mut context) {
        std::task::Poll::Ready(output) => output,
        std::task::Poll::Pending => panic!("the request did not complete in its first poll"),
    }
}
