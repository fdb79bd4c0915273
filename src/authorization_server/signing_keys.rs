//! Signing keys: generation, rotation, withdrawal, and publication as JWKs.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rand;
use aws_lc_rs::rsa::{self, KeySize};
use aws_lc_rs::signature::{
    self, EcdsaKeyPair, Ed25519KeyPair, RsaKeyPair, UnparsedPublicKey, VerificationAlgorithm,
};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

use crate::clock::UnixTime;
use crate::error::{ConfigError, ConfigErrorKind};
use crate::jwt::{Algorithm, KeyType, PrivateKey};

/// Bounds the key set and the state file if keys are rotated often.
const MAX_KEYS: usize = 50;

/// A private key with its metadata.
pub(super) struct SigningKey {
    kid: String,
    /// PKCS#8, for the state file.
    pkcs8: SecretString,
    key: PrivateKey,
    jwk: Value,
    created_at: UnixTime,
}

impl SigningKey {
    pub(super) fn generate(
        kid: String,
        algorithm: Algorithm,
        now: UnixTime,
    ) -> Result<Self, ConfigError> {
        let pkcs8 = generate(algorithm).map_err(|()| key_error("could not be generated"))?;
        Self::from_pkcs8(kid, algorithm, &pkcs8, now)
    }

    pub(super) fn from_pkcs8(
        kid: String,
        algorithm: Algorithm,
        pkcs8: &[u8],
        created_at: UnixTime,
    ) -> Result<Self, ConfigError> {
        let key = PrivateKey::from_pkcs8(pkcs8, algorithm)
            .map_err(|error| key_error(&error.to_string()))?;
        let mut jwk =
            jwk(&key).ok_or_else(|| key_error("has a public key that could not be read"))?;
        if let Value::Object(members) = &mut jwk {
            members.insert("use".to_owned(), json!("sig"));
            members.insert("kid".to_owned(), json!(kid));
            // App ID's keys, which are all RS256, have no `alg`.
            if algorithm != Algorithm::Rs256 {
                members.insert("alg".to_owned(), json!(algorithm.name()));
            }
        }
        let pkcs8 = STANDARD.encode(pkcs8).into();
        Ok(Self {
            kid,
            pkcs8,
            key,
            jwk,
            created_at,
        })
    }

    pub(super) fn kid(&self) -> &str {
        &self.kid
    }

    pub(super) fn algorithm(&self) -> Algorithm {
        self.key.algorithm()
    }

    pub(super) fn jwk(&self) -> &Value {
        &self.jwk
    }

    pub(super) fn created_at(&self) -> UnixTime {
        self.created_at
    }

    pub(super) fn pkcs8(&self) -> &SecretString {
        &self.pkcs8
    }

    /// Signs a message.
    pub(super) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, ConfigError> {
        self.key
            .sign(message)
            .map_err(|error| key_error(&error.to_string()))
    }

    /// Verifies a signature of this key.
    pub(super) fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        let algorithm = verification_algorithm(self.algorithm());
        UnparsedPublicKey::new(algorithm, self.key.public_key())
            .verify(message, signature)
            .is_ok()
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey")
            .field("kid", &self.kid)
            .field("algorithm", &self.algorithm())
            .finish_non_exhaustive()
    }
}

/// The signing keys, the current one first. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct KeyRing(Vec<RingKey>);

#[derive(Clone, Debug)]
pub(super) struct RingKey {
    pub(super) key: Arc<SigningKey>,
    /// End of publication of a retired key; `None` for the current key.
    pub(super) published_until: Option<UnixTime>,
}

impl KeyRing {
    pub(super) fn new(current: SigningKey) -> Self {
        Self(vec![RingKey {
            key: Arc::new(current),
            published_until: None,
        }])
    }

    /// Returns `None` unless exactly the first key is current.
    pub(super) fn from_keys(keys: Vec<RingKey>) -> Option<Self> {
        let (current, retired) = keys.split_first()?;
        let is_valid = current.published_until.is_none()
            && retired.iter().all(|key| key.published_until.is_some());
        is_valid.then_some(Self(keys))
    }

    pub(super) fn all(&self) -> &[RingKey] {
        &self.0
    }

    pub(super) fn current(&self) -> &Arc<SigningKey> {
        &self
            .0
            .first()
            .expect("the current key is never withdrawn")
            .key
    }

    /// Makes `key` the current key. The old one stays published for the lifetime of its tokens,
    /// unless there are more than [`MAX_KEYS`].
    pub(super) fn rotate(&mut self, key: SigningKey, now: UnixTime, token_lifetime: Duration) {
        self.0
            .retain(|old| old.published_until.is_none_or(|until| now <= until));
        for old in &mut self.0 {
            old.published_until
                .get_or_insert_with(|| now.saturating_add(token_lifetime));
        }
        self.0.insert(
            0,
            RingKey {
                key: Arc::new(key),
                published_until: None,
            },
        );
        // The oldest is last.
        self.0.truncate(MAX_KEYS);
    }

    /// Removes a retired key and returns whether it existed.
    pub(super) fn withdraw(&mut self, kid: &str) -> bool {
        let before = self.0.len();
        self.0
            .retain(|old| old.published_until.is_none() || old.key.kid() != kid);
        self.0.len() < before
    }

    pub(super) fn published(&self, now: UnixTime) -> impl Iterator<Item = &RingKey> {
        self.0
            .iter()
            .filter(move |key| key.published_until.is_none_or(|until| now <= until))
    }
}

/// The metadata of a published key.
///
/// ```
/// # use tower_oauth::authorization_server::AuthorizationServer;
/// # use tower_oauth::resource_server::Algorithm;
/// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
///
/// let kid = issuer.rotate()?;
/// let keys = issuer.keys();
/// assert_eq!(keys[0].kid(), kid);
/// assert!(keys[0].is_current() && keys[0].published_until().is_none());
/// assert!(!keys[1].is_current() && keys[1].published_until().is_some());
/// # Ok::<(), tower_oauth::ConfigError>(())
/// ```
#[derive(Clone, Debug)]
pub struct PublishedKey {
    kid: String,
    algorithm: Algorithm,
    created_at: UnixTime,
    published_until: Option<UnixTime>,
}

impl PublishedKey {
    pub(super) fn new(key: &RingKey) -> Self {
        Self {
            kid: key.key.kid().to_owned(),
            algorithm: key.key.algorithm(),
            created_at: key.key.created_at(),
            published_until: key.published_until,
        }
    }

    /// Its `kid` in the key set.
    #[must_use]
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// Its signature algorithm.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The time of its generation.
    #[must_use]
    pub fn created_at(&self) -> UnixTime {
        self.created_at
    }

    /// Whether it signs new tokens; a retired key is only published.
    #[must_use]
    pub fn is_current(&self) -> bool {
        self.published_until.is_none()
    }

    /// When a retired key is removed from the key set; `None` for the current key.
    #[must_use]
    pub fn published_until(&self) -> Option<UnixTime> {
        self.published_until
    }
}

/// A random `kid` in App ID's format.
pub(super) fn new_kid(tenant_id: &str) -> String {
    format!("appId-{tenant_id}-{}", uuid::Uuid::new_v4())
}

/// 256 random bits in base64, the format of App ID's secrets.
pub(super) fn random_secret() -> Result<SecretString, ConfigError> {
    let mut bytes = [0; 32];
    rand::fill(&mut bytes).map_err(|_| key_error("could not be generated"))?;
    Ok(STANDARD.encode(bytes).into())
}

/// Compares in constant time.
pub(super) fn constant_time_eq(given: &str, secret: &SecretString) -> bool {
    aws_lc_rs::constant_time::verify_slices_are_equal(
        given.as_bytes(),
        secret.expose_secret().as_bytes(),
    )
    .is_ok()
}

fn key_error(reason: &str) -> ConfigError {
    ConfigError::without_value("signing key", reason).with_kind(ConfigErrorKind::Unavailable)
}

fn generate(algorithm: Algorithm) -> Result<Vec<u8>, ()> {
    Ok(match KeyType::for_algorithm(algorithm) {
        KeyType::Rsa(_) => {
            let pair = RsaKeyPair::generate(KeySize::Rsa2048).map_err(drop)?;
            AsDer::<aws_lc_rs::encoding::Pkcs8V1Der<'_>>::as_der(&pair)
                .map_err(drop)?
                .as_ref()
                .to_vec()
        }
        KeyType::Ec(curve) => {
            let pair = EcdsaKeyPair::generate(curve).map_err(drop)?;
            pair.to_pkcs8v1().map_err(drop)?.as_ref().to_vec()
        }
        KeyType::Ed25519 => {
            let pair = Ed25519KeyPair::generate().map_err(drop)?;
            pair.to_pkcs8().map_err(drop)?.as_ref().to_vec()
        }
    })
}

/// The public key as a JWK (RFC 7518 §6, RFC 8037 §2).
fn jwk(key: &PrivateKey) -> Option<Value> {
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let public = key.public_key();
    let curve = match key.algorithm() {
        Algorithm::Es256 => "P-256",
        Algorithm::Es384 => "P-384",
        Algorithm::Es512 => "P-521",
        Algorithm::EdDsa => {
            return Some(json!({ "kty": "OKP", "crv": "Ed25519", "x": encode(public) }));
        }
        Algorithm::Ps256
        | Algorithm::Ps384
        | Algorithm::Ps512
        | Algorithm::Rs256
        | Algorithm::Rs384
        | Algorithm::Rs512 => {
            let public = rsa::PublicKey::from_der(public).ok()?;
            let n = encode(public.modulus().big_endian_without_leading_zero());
            let e = encode(public.exponent().big_endian_without_leading_zero());
            return Some(json!({ "kty": "RSA", "n": n, "e": e }));
        }
    };
    // SEC 1 §2.3.3: the byte 04, then both coordinates.
    let coordinates = public.strip_prefix(&[4])?;
    let (x, y) = coordinates.split_at(coordinates.len() / 2);
    Some(json!({ "kty": "EC", "crv": curve, "x": encode(x), "y": encode(y) }))
}

fn verification_algorithm(algorithm: Algorithm) -> &'static dyn VerificationAlgorithm {
    match algorithm {
        Algorithm::Es256 => &signature::ECDSA_P256_SHA256_FIXED,
        Algorithm::Es384 => &signature::ECDSA_P384_SHA384_FIXED,
        Algorithm::Es512 => &signature::ECDSA_P521_SHA512_FIXED,
        Algorithm::EdDsa => &signature::ED25519,
        Algorithm::Ps256 => &signature::RSA_PSS_2048_8192_SHA256,
        Algorithm::Ps384 => &signature::RSA_PSS_2048_8192_SHA384,
        Algorithm::Ps512 => &signature::RSA_PSS_2048_8192_SHA512,
        Algorithm::Rs256 => &signature::RSA_PKCS1_2048_8192_SHA256,
        Algorithm::Rs384 => &signature::RSA_PKCS1_2048_8192_SHA384,
        Algorithm::Rs512 => &signature::RSA_PKCS1_2048_8192_SHA512,
    }
}
