//! Floors: the minimum work of a layer that caches tokens, and of one that verifies them.

use std::sync::Arc;

use aws_lc_rs::signature::ParsedPublicKey;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{Request, header};
use serde::Deserialize;

use crate::tokens::{AUDIENCE, ISSUER, NOW};

/// The claims that a handler needs.
#[allow(dead_code, reason = "constructed, not read")]
#[derive(Debug)]
pub struct Caller {
    pub subject: Box<str>,
    pub scope: Box<str>,
    pub expires_at: u64,
}

fn token<B>(request: &Request<B>) -> &[u8] {
    request
        .headers()
        .get(header::AUTHORIZATION)
        .unwrap()
        .as_bytes()
        .strip_prefix(b"Bearer ")
        .unwrap()
}

fn caller() -> Arc<Caller> {
    Arc::new(Caller {
        subject: AUDIENCE.into(),
        scope: "orders.read".into(),
        expires_at: NOW,
    })
}

/// Hashes the whole token with a random key, compares it, and clones one `Arc`.
#[allow(dead_code, reason = "some benchmarks use one floor")]
pub struct Map(hashbrown::HashMap<Box<[u8]>, Arc<Caller>, foldhash::fast::RandomState>);

#[allow(dead_code, reason = "some benchmarks use one floor")]
impl Map {
    pub fn new(tokens: &[String]) -> Self {
        Self(
            tokens
                .iter()
                .map(|token| (token.as_bytes().into(), caller()))
                .collect(),
        )
    }

    pub fn check<B>(&self, request: &mut Request<B>) {
        let caller = Arc::clone(self.0.get(token(request)).unwrap());
        request.extensions_mut().insert(caller);
    }
}

/// The same as [`Map`] with moka, filled on the first request of each token.
pub struct Moka(moka::sync::Cache<Box<[u8]>, Arc<Caller>, foldhash::fast::RandomState>);

impl Default for Moka {
    fn default() -> Self {
        Self(
            moka::sync::Cache::builder()
                .max_capacity(1 << 21)
                .build_with_hasher(Default::default()),
        )
    }
}

impl Moka {
    /// Runs the maintenance that is due after a while, so that no request of a measurement does.
    #[allow(dead_code, reason = "some benchmarks do not need it")]
    pub fn maintain(&self) {
        self.0.run_pending_tasks();
    }

    pub fn check<B>(&self, request: &mut Request<B>) {
        let token = token(request);
        let cached = self.0.get(token).unwrap_or_else(|| {
            let caller = caller();
            self.0.insert(token.into(), Arc::clone(&caller));
            caller
        });
        request.extensions_mut().insert(cached);
    }
}

/// Decodes base64, reads borrowed claims in one pass of serde, verifies with a parsed key.
#[allow(dead_code, reason = "some benchmarks use one floor")]
pub struct Miss(pub ParsedPublicKey);

#[derive(Deserialize)]
struct Header<'a> {
    alg: &'a str,
    kid: &'a str,
}

#[derive(Deserialize)]
struct Claims<'a> {
    iss: &'a str,
    sub: &'a str,
    #[serde(borrow)]
    aud: Vec<&'a str>,
    exp: u64,
    scope: &'a str,
}

#[allow(dead_code, reason = "some benchmarks use one floor")]
impl Miss {
    pub fn check<B>(&self, request: &mut Request<B>) {
        let caller = self.validate(token(request)).unwrap();
        request.extensions_mut().insert(caller);
    }

    fn validate(&self, token: &[u8]) -> Option<Arc<Caller>> {
        let token = std::str::from_utf8(token).ok()?;
        let (input, signature) = token.rsplit_once('.')?;
        let (header, payload) = input.split_once('.')?;
        let header = URL_SAFE_NO_PAD.decode(header).ok()?;
        let header: Header<'_> = serde_json::from_slice(&header).ok()?;
        if header.alg.is_empty() || header.kid.is_empty() {
            return None;
        }
        let mut bytes = [0; 1024];
        let len = URL_SAFE_NO_PAD.decode_slice(signature, &mut bytes).ok()?;
        self.0.verify_sig(input.as_bytes(), &bytes[..len]).ok()?;
        let payload = URL_SAFE_NO_PAD.decode(payload).ok()?;
        let claims: Claims<'_> = serde_json::from_slice(&payload).ok()?;
        let good = claims.iss == ISSUER && claims.aud.contains(&AUDIENCE) && claims.exp > NOW;
        good.then(|| {
            Arc::new(Caller {
                subject: claims.sub.into(),
                scope: claims.scope.into(),
                expires_at: claims.exp,
            })
        })
    }
}
