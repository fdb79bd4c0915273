//! Clients without a shared secret: assertions that the client signs, those of a platform, and
//! assertions as grants. Here: the helpers.

mod platform_assertions;
mod signed_assertions;
mod signing_keys;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lc_rs::signature::{ECDSA_P521_SHA512_FIXED, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use jsonwebtoken::{DecodingKey, Validation};
use proptest::prelude::*;
use secrecy::SecretString;
use serde_json::{Value, json};
use tempfile::TempDir;
use tower_oauth::client::{
    AssertionAudience, AssertionFile, AssertionSource, BoxFuture, ClientAuthentication,
    ClientSettings, JwtBearerGrant, NoAuthentication, SigningKey, TokenManagerBuilder,
    TokenSource as _,
};
use tower_oauth::clock::{Clock as _, ManualClock, UnixTime};
use tower_oauth::error::{ConfigErrorKind, ErrorKind};
use tower_oauth::resource_server::Algorithm;
use tower_oauth::transport::{SendFuture, Transport};
use tower_oauth::{
    BoxError, ClientAssertion, ClientCredentials, ConfigError, Endpoint, Error, Issuer,
    PrivateKeyJwt, Scope, TlsClientAuth, TokenManager,
};

use crate::support::jwt::{self, decode};
use crate::support::log;
use crate::support::mount::Mount;
use crate::support::token_endpoint::{Reply, TokenEndpoint, TokioClock};
use crate::support::{chain, create_pipe, decoded};

const ISSUER: &str = "https://as.example";
const TOKEN_URL: &str = "https://as.example/token";
const NOW: u64 = 1_700_000_000;
const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// A file with a key or certificate. They were made with openssl, for these tests.
fn pem(name: &str) -> String {
    let folder =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/client/client_authentication/keys");
    fs::read_to_string(folder.join(format!("{name}.pem"))).unwrap()
}

fn parse(pem: &str, algorithm: Algorithm) -> Result<SigningKey, ConfigError> {
    SigningKey::from_pem(pem, algorithm)
}

/// The fastest one.
fn ed25519() -> SigningKey {
    parse(&pem("ed25519"), Algorithm::EdDsa).unwrap()
}

fn orders() -> PrivateKeyJwt {
    PrivateKeyJwt::new("orders", ed25519())
}

/// A manager whose token endpoint is configured.
fn at_endpoint(endpoint: &TokenEndpoint, client: impl ClientAuthentication) -> TokenManagerBuilder {
    TokenManager::builder(Endpoint::new(TOKEN_URL).unwrap(), client)
        .transport(endpoint.clone())
        .clock(TokioClock::new())
}

/// A manager that discovers its token endpoint.
fn at_issuer(endpoint: &TokenEndpoint, client: impl ClientAuthentication) -> TokenManagerBuilder {
    TokenManager::for_issuer(Issuer::new(ISSUER).unwrap(), client)
        .unwrap()
        .transport(endpoint.clone())
        .clock(TokioClock::new())
}

/// Metadata of this issuer that name this token endpoint.
fn metadata(issuer: &str, token_endpoint: &str) -> Reply {
    let document = json!({
        "issuer": issuer,
        "token_endpoint": token_endpoint,
        "jwks_uri": "https://as.example/keys",
    });
    Reply::Json(200, document)
}

fn tokens() -> TokenEndpoint {
    TokenEndpoint::with_reply(Reply::Token(60))
}

fn refusal(code: &str) -> Reply {
    Reply::Json(401, json!({ "error": code }))
}

/// The forms of all token requests.
fn forms(endpoint: &TokenEndpoint) -> Vec<BTreeMap<String, String>> {
    let requests = endpoint.token_requests().into_iter();
    let forms = requests.map(|request| {
        assert_eq!(request.authorization, None, "one method for each request");
        let names = request.form.len();
        let form: BTreeMap<_, _> = request.form.into_iter().collect();
        assert_eq!(form.len(), names, "no parameter is repeated");
        form
    });
    forms.collect()
}

/// The client assertions of all token requests.
fn assertions(endpoint: &TokenEndpoint) -> Vec<String> {
    let forms = forms(endpoint).into_iter();
    forms.map(|form| form["client_assertion"].clone()).collect()
}

fn claims(jwt: &str) -> Value {
    decode(jwt).1
}

/// A JWT of a platform, which only the server verifies. It expires this many seconds after the
/// start of the test.
fn platform_jwt_until(seconds: u64) -> String {
    let name = format!("system:serviceaccount:shop:orders-{seconds}");
    jwt::unsigned(&json!({ "iss": "https://k8s.example", "sub": name, "exp": NOW + seconds }))
}

async fn fetch(builder: TokenManagerBuilder) -> Result<(), Error> {
    builder.build_source().unwrap().fetch().await.map(drop)
}

/// Verifies a signature without this crate.
fn verify(jwt: &str, public_key: &str, algorithm: Algorithm) -> bool {
    if algorithm == Algorithm::Es512 {
        // jsonwebtoken does not know it. The point is at the end of the public key.
        let der = pem(public_key)
            .lines()
            .filter(|l| !l.starts_with('-'))
            .collect::<String>();
        let der = STANDARD.decode(der).unwrap();
        let point = &der[der.len() - 133..];
        let (input, signature) = jwt.rsplit_once('.').unwrap();
        let signature = decoded(signature);
        let key = UnparsedPublicKey::new(&ECDSA_P521_SHA512_FIXED, point);
        return key.verify(input.as_bytes(), &signature).is_ok();
    }
    let pem = pem(public_key);
    let key = match algorithm {
        Algorithm::Es256 | Algorithm::Es384 => DecodingKey::from_ec_pem(pem.as_bytes()),
        Algorithm::EdDsa => DecodingKey::from_ed_pem(pem.as_bytes()),
        _ => DecodingKey::from_rsa_pem(pem.as_bytes()),
    };
    let mut validation = Validation::new(algorithm.name().parse().unwrap());
    // The clock of the tests is another one.
    validation.validate_exp = false;
    validation.set_audience(&[TOKEN_URL]);
    validation.set_issuer(&["orders"]);
    jsonwebtoken::decode::<Value>(jwt, &key.unwrap(), &validation).is_ok()
}

type Source = Arc<dyn AssertionSource>;

/// A source that records the audiences that it is asked for, and numbers its assertions.
#[derive(Clone, Debug, Default)]
struct Recording {
    audiences: Arc<Mutex<Vec<String>>>,
    fails: Option<&'static str>,
}

impl Recording {
    fn audiences(&self) -> Vec<String> {
        self.audiences.lock().unwrap().clone()
    }
}

impl AssertionSource for Recording {
    fn assertion<'a>(&'a self, audience: &'a str) -> BoxFuture<'a, Result<SecretString, BoxError>> {
        let mut audiences = self.audiences.lock().unwrap();
        audiences.push(audience.to_owned());
        let number = audiences.len();
        let result = match self.fails {
            Some(error) => Err(error.into()),
            None => Ok(format!("s3cr3t-assertion-{number}").into()),
        };
        Box::pin(async { result })
    }
}

/// A token endpoint that runs a hook before each response, and accepts one assertion.
#[derive(Clone)]
struct Server {
    sent: Arc<Mutex<Vec<String>>>,
    respond: Arc<dyn Fn(&str, usize) -> bool + Send + Sync>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Server")
    }
}

impl Server {
    fn new(respond: impl Fn(&str, usize) -> bool + Send + Sync + 'static) -> Self {
        Self {
            sent: Arc::default(),
            respond: Arc::new(respond),
        }
    }

    fn sent(&self) -> Vec<String> {
        self.sent.lock().unwrap().clone()
    }
}

impl Transport for Server {
    fn send(&self, request: Request<Bytes>, _max_body: usize) -> SendFuture<'_> {
        let form: BTreeMap<_, _> = url::form_urlencoded::parse(request.body())
            .into_owned()
            .collect();
        let assertion = form
            .get("client_assertion")
            .or_else(|| form.get("assertion"));
        let assertion = assertion.unwrap().clone();
        let mut sent = self.sent.lock().unwrap();
        let is_accepted = (self.respond)(&assertion, sent.len());
        sent.push(assertion);
        let (status, body) = if is_accepted {
            (
                200,
                json!({ "access_token": "t", "token_type": "Bearer", "expires_in": 60 }),
            )
        } else {
            (401, json!({ "error": "invalid_client" }))
        };
        let mut response = Response::new(Bytes::from(body.to_string()));
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        Box::pin(async { Ok(response) })
    }
}
