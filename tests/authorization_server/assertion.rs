//! Assertions as a client makes them, signed with `jsonwebtoken`, and a server that gets them.

use std::sync::LazyLock;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING,
    ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair,
    KeyPair as _, RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use jsonwebtoken::EncodingKey;
use jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER;
use pem_rfc7468::LineEnding;
use secrecy::ExposeSecret as _;
use serde_json::{Map, Value, json};
use tower_oauth::authorization_server::{AuthorizationServer, RegisteredApplication};
use tower_oauth::clock::{ManualClock, UnixTime};
use tower_oauth::resource_server::Algorithm;
use tower_oauth::transport::Transport as _;

pub(crate) const NOW: u64 = 1_800_000_000;

pub(crate) const JWT_BEARER_ASSERTION: &str =
    "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
pub(crate) const SPIFFE_ASSERTION: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe";
pub(crate) const JWT_BEARER_GRANT: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

/// RFC 8693 §2.1 and §3
pub(crate) const TOKEN_EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
pub(crate) const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";

/// A platform that issues tokens, and a workload on it.
pub(crate) const CLUSTER: &str = "https://kubernetes.default.svc.cluster.local";
pub(crate) const SERVICE_ACCOUNT: &str = "system:serviceaccount:shop:default";

/// A private key, with its public key as a JWK.
#[derive(Clone)]
pub(crate) struct Signer {
    algorithm: Algorithm,
    pkcs8: Vec<u8>,
    jwk: Map<String, Value>,
}

static RSA: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    AsDer::<Pkcs8V1Der<'_>>::as_der(&pair)
        .unwrap()
        .as_ref()
        .to_vec()
});

impl Signer {
    /// RSA keys are one key; other keys are new.
    pub(crate) fn new(algorithm: Algorithm) -> Self {
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let ec = |curve: &'static EcdsaSigningAlgorithm, name: &str| {
            let pair = EcdsaKeyPair::generate(curve).unwrap();
            let point = &pair.public_key().as_ref()[1..];
            let (x, y) = point.split_at(point.len() / 2);
            let jwk = json!({ "kty": "EC", "crv": name, "x": encode(x), "y": encode(y) });
            (pair.to_pkcs8v1().unwrap().as_ref().to_vec(), jwk)
        };
        let (pkcs8, jwk) = match algorithm {
            Algorithm::Es256 => ec(&ECDSA_P256_SHA256_FIXED_SIGNING, "P-256"),
            Algorithm::Es384 => ec(&ECDSA_P384_SHA384_FIXED_SIGNING, "P-384"),
            Algorithm::Es512 => ec(&ECDSA_P521_SHA512_FIXED_SIGNING, "P-521"),
            Algorithm::EdDsa => {
                let pair = Ed25519KeyPair::generate().unwrap();
                let x = encode(pair.public_key().as_ref());
                let pkcs8 = pair.to_pkcs8v1().unwrap().as_ref().to_vec();
                (pkcs8, json!({ "kty": "OKP", "crv": "Ed25519", "x": x }))
            }
            _ => {
                let pair = RsaKeyPair::from_pkcs8(&RSA).unwrap();
                let public = pair.public_key();
                let n = encode(public.modulus().big_endian_without_leading_zero());
                let e = encode(public.exponent().big_endian_without_leading_zero());
                (RSA.clone(), json!({ "kty": "RSA", "n": n, "e": e }))
            }
        };
        let jwk = jwk.as_object().unwrap().clone();
        Self {
            algorithm,
            pkcs8,
            jwk,
        }
    }

    /// Sets a member of the JWK, such as `kid`.
    pub(crate) fn with(mut self, member: &str, value: &str) -> Self {
        self.jwk.insert(member.to_owned(), json!(value));
        self
    }

    pub(crate) fn jwk(&self) -> Value {
        json!(self.jwk)
    }

    pub(crate) fn jwks(&self) -> Value {
        json!({ "keys": [self.jwk] })
    }

    /// A JWT with `alg`, and `kid` if the JWK has one, unless `header` has others.
    pub(crate) fn sign(&self, header: &Value, claims: &Value) -> String {
        let mut all = Map::from_iter([("alg".to_owned(), json!(self.algorithm.name()))]);
        all.extend(
            self.jwk
                .get("kid")
                .map(|kid| ("kid".to_owned(), kid.clone())),
        );
        all.extend(header.as_object().unwrap().clone());
        self.sign_text(&json!(all).to_string(), &claims.to_string())
    }

    /// A JWT of these documents.
    pub(crate) fn sign_text(&self, header: &str, claims: &str) -> String {
        let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
        let input = format!("{}.{}", encode(header), encode(claims));
        let signature = URL_SAFE_NO_PAD.encode(self.signature(input.as_bytes()));
        format!("{input}.{signature}")
    }

    /// The private key in PKCS#8.
    pub(crate) fn pem(&self) -> String {
        pem_rfc7468::encode_string("PRIVATE KEY", LineEnding::LF, &self.pkcs8).unwrap()
    }

    fn signature(&self, message: &[u8]) -> Vec<u8> {
        // jsonwebtoken does not know ES512.
        if self.algorithm == Algorithm::Es512 {
            let curve = &ECDSA_P521_SHA512_FIXED_SIGNING;
            let pair = EcdsaKeyPair::from_pkcs8(curve, &self.pkcs8).unwrap();
            let signature = pair.sign(&SystemRandom::new(), message).unwrap();
            return signature.as_ref().to_vec();
        }
        let pem = self.pem();
        let key = match self.algorithm {
            Algorithm::Es256 | Algorithm::Es384 => EncodingKey::from_ec_pem(pem.as_bytes()),
            Algorithm::EdDsa => EncodingKey::from_ed_pem(pem.as_bytes()),
            _ => EncodingKey::from_rsa_pem(pem.as_bytes()),
        };
        sign_with(self.algorithm.name(), &key.unwrap(), message)
    }
}

/// A signature of jsonwebtoken.
pub(crate) fn sign_with(algorithm: &str, key: &EncodingKey, message: &[u8]) -> Vec<u8> {
    let algorithm = algorithm.parse().unwrap();
    let signer = (DEFAULT_PROVIDER.signer_factory)(&algorithm, key).unwrap();
    signer.try_sign(message).unwrap()
}

/// A server with one application and a clock.
pub(crate) struct Fixture {
    pub(crate) clock: ManualClock,
    pub(crate) server: AuthorizationServer,
    pub(crate) shop: RegisteredApplication,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        let clock = ManualClock::at(UnixTime::from_secs(NOW));
        let server = AuthorizationServer::builder()
            .algorithm(Algorithm::Es256)
            .clock(clock.clone())
            .build()
            .unwrap();
        let shop = server.register("shop").unwrap();
        Self {
            clock,
            server,
            shop,
        }
    }

    /// With the key of the application.
    pub(crate) fn with_key(algorithm: Algorithm) -> (Self, Signer) {
        let (fixture, signer) = (Self::new(), Signer::new(algorithm).with("kid", "shop-1"));
        fixture.shop.set_jwks(signer.jwks()).unwrap();
        (fixture, signer)
    }

    /// Valid claims of an assertion of the application, with a new `jti`.
    pub(crate) fn claims(&self) -> Value {
        json!({
            "iss": self.shop.client_id(),
            "sub": self.shop.client_id(),
            "aud": self.server.issuer().as_str(),
            "exp": NOW + 60,
            "iat": NOW,
            "nbf": NOW,
            "jti": new_id(),
        })
    }

    pub(crate) async fn send(&self, request: Request<Bytes>) -> Response<Bytes> {
        self.server
            .transport()
            .send(request, 1 << 20)
            .await
            .unwrap()
    }

    /// Posts a form to an endpoint of version 4, without other credentials.
    pub(crate) async fn post(&self, endpoint: &str, form: &[(&str, &str)]) -> Response<Bytes> {
        self.send(self.request(endpoint, form)).await
    }

    pub(crate) fn request(&self, endpoint: &str, form: &[(&str, &str)]) -> Request<Bytes> {
        let mut body = url::form_urlencoded::Serializer::new(String::new());
        let body = body.extend_pairs(form).finish();
        Request::post(format!("{}/{endpoint}", self.server.issuer()))
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(body.into())
            .unwrap()
    }

    /// A request with the client credentials grant and an assertion.
    pub(crate) async fn token(&self, assertion: &str) -> (StatusCode, Value) {
        self.token_with(assertion, &[]).await
    }

    pub(crate) async fn token_with(
        &self,
        assertion: &str,
        more: &[(&str, &str)],
    ) -> (StatusCode, Value) {
        let mut form = vec![
            ("grant_type", "client_credentials"),
            ("client_assertion_type", JWT_BEARER_ASSERTION),
            ("client_assertion", assertion),
        ];
        form.retain(|(name, _)| !more.iter().any(|(other, _)| name == other));
        form.extend(more);
        answer(&self.post("token", &form).await)
    }

    /// A request with the credentials of an application.
    pub(crate) async fn token_as(
        &self,
        client: &RegisteredApplication,
        form: &[(&str, &str)],
    ) -> (StatusCode, Value) {
        let mut all = vec![
            ("client_id", client.client_id()),
            ("client_secret", client.secret().expose_secret()),
        ];
        all.extend(form);
        answer(&self.post("token", &all).await)
    }
}

/// Status and body of a response.
pub(crate) fn answer(response: &Response<Bytes>) -> (StatusCode, Value) {
    assert_eq!(response.headers()["cache-control"], "no-store");
    let body = serde_json::from_slice(response.body()).unwrap();
    (response.status(), body)
}

/// The header and the claims of a JWT.
pub(crate) fn decode(token: &str) -> (Value, Value) {
    let mut parts = token.split('.');
    let mut next = || {
        let part = URL_SAFE_NO_PAD.decode(parts.next().unwrap()).unwrap();
        serde_json::from_slice(&part).unwrap()
    };
    (next(), next())
}

/// The claims of the token in a successful response.
#[track_caller]
pub(crate) fn issued((status, body): (StatusCode, Value)) -> Value {
    assert_eq!(status, StatusCode::OK, "{body}");
    decode(body["access_token"].as_str().unwrap()).1
}

#[track_caller]
pub(crate) fn assert_refused(answer: &(StatusCode, Value), status: u16, error: &str, what: &str) {
    let (found, body) = answer;
    assert_eq!(
        (found.as_u16(), body["error"].as_str()),
        (status, Some(error)),
        "{what}: {body}"
    );
    assert_eq!(body.get("access_token"), None, "{what}");
}

/// A copy with another value of a member; without the member if the value is `null`.
pub(crate) fn with(document: &Value, member: &str, value: impl Into<Value>) -> Value {
    let mut document = document.clone();
    let members = document.as_object_mut().unwrap();
    match value.into() {
        Value::Null => drop(members.remove(member)),
        value => drop(members.insert(member.to_owned(), value)),
    }
    document
}

/// A new `jti`.
pub(crate) fn new_id() -> String {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).unwrap();
    URL_SAFE_NO_PAD.encode(bytes)
}
