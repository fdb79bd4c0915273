//! Private keys: parsing, and signatures of JWTs (RFC 7515 §5.1, RFC 7518 §3.1).

use std::fmt;

use aws_lc_rs::error::KeyRejected;
use aws_lc_rs::rand::{self, SystemRandom};
use aws_lc_rs::signature::{
    self, ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING,
    ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair,
    KeyPair as _, RsaEncoding, RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::SecretString;
use serde_json::Value;
use zeroize::Zeroizing;

use super::algorithm::Algorithm;
use crate::pem::{self, InvalidPem};

/// A private key that signs with one algorithm. aws-lc zeroizes its memory on drop.
pub(crate) struct PrivateKey {
    algorithm: Algorithm,
    pair: KeyPair,
}

enum KeyPair {
    Rsa(RsaKeyPair, &'static dyn RsaEncoding),
    Ec(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

/// The type of key that an algorithm needs.
#[derive(Clone, Copy)]
pub(crate) enum KeyType {
    Rsa(&'static dyn RsaEncoding),
    Ec(&'static EcdsaSigningAlgorithm),
    Ed25519,
}

/// The structure of a key in DER.
#[derive(Clone, Copy)]
enum Format {
    /// Any type of key (RFC 5958).
    Pkcs8,
    /// RSA (RFC 8017 §A.1.2).
    Pkcs1,
    /// An elliptic curve (RFC 5915).
    Sec1,
}

/// Why a private key cannot be used. The text follows the name of the setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InvalidPrivateKey {
    Pem(InvalidPem),
    Certificate,
    Encrypted,
    OpenSsh,
    PublicKey,
    /// There are several, so it is not clear which one signs.
    Several,
    /// RSA with fewer than 2048 bits (RFC 7518 §3.3).
    TooShort,
    /// RSA with more than 8192 bits.
    TooLong,
    /// It is not the type of key that the algorithm needs, but this one.
    OtherType(Algorithm, &'static str),
    /// It is no key of a supported type.
    Unsupported,
}

impl fmt::Display for InvalidPrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pem(error) => return error.fmt(f),
            Self::OtherType(algorithm, found) => {
                return write!(f, "does not sign with {algorithm}: it is {found}");
            }
            Self::Certificate => "is a certificate: the private key that belongs to it is needed",
            Self::Encrypted => {
                "is encrypted: decrypt it, for example with `openssl pkey -in KEY -out NEW_KEY`"
            }
            Self::OpenSsh => {
                "has the format of OpenSSH: convert it with `ssh-keygen -p -m PKCS8 -f KEY`"
            }
            Self::PublicKey => "is a public key: the private key that belongs to it is needed",
            Self::Several => "has several private keys: only the one that signs may be there",
            Self::TooShort => {
                "is an RSA key of fewer than 2048 bits, which is not safe: make a new one"
            }
            Self::TooLong => "is an RSA key of more than 8192 bits",
            Self::Unsupported => {
                "is not a supported private key: use RSA, P-256, P-384, P-521 or Ed25519"
            }
        })
    }
}

/// The system has no random numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoRandomNumbers;

impl fmt::Display for NoRandomNumbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no random numbers are available")
    }
}

/// A key that could not sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SigningFailed;

impl fmt::Display for SigningFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("could not sign")
    }
}

impl PrivateKey {
    /// The only private key of a PEM text: PKCS#8, PKCS#1 or SEC 1. Certificates beside it are
    /// ignored. Without an algorithm, an RSA key signs with RS256, which each server knows.
    pub(crate) fn from_pem(
        text: &str,
        algorithm: Option<Algorithm>,
    ) -> Result<Self, InvalidPrivateKey> {
        let blocks = pem::blocks(text).map_err(InvalidPrivateKey::Pem)?;
        let mut keys = blocks.iter().filter(|block| block.is_private_key());
        let (first, second) = (keys.next(), keys.next());
        if second.is_some() {
            return Err(InvalidPrivateKey::Several);
        }
        let Some(block) = first else {
            let has = |end: &str| blocks.iter().any(|block| block.label.ends_with(end));
            return Err(if has("PUBLIC KEY") {
                InvalidPrivateKey::PublicKey
            } else if has("CERTIFICATE") {
                InvalidPrivateKey::Certificate
            } else {
                InvalidPrivateKey::Unsupported
            });
        };
        let format = match block.label {
            _ if block.is_encrypted() => return Err(InvalidPrivateKey::Encrypted),
            "PRIVATE KEY" => Format::Pkcs8,
            "RSA PRIVATE KEY" => Format::Pkcs1,
            "EC PRIVATE KEY" => Format::Sec1,
            "OPENSSH PRIVATE KEY" => return Err(InvalidPrivateKey::OpenSsh),
            _ => return Err(InvalidPrivateKey::Unsupported),
        };
        let der = block.decode().map_err(InvalidPrivateKey::Pem)?;
        match algorithm {
            Some(algorithm) => Self::from_der(&der, format, algorithm),
            None => Self::from_der_of_any_type(&der, format),
        }
    }

    fn from_der_of_any_type(der: &[u8], format: Format) -> Result<Self, InvalidPrivateKey> {
        for (algorithm, _) in TYPES {
            match KeyType::for_algorithm(algorithm).load(der, format) {
                Ok(pair) => return Ok(Self { algorithm, pair }),
                Err(error) => wrong_length(&error).map_or(Ok(()), Err)?,
            }
        }
        Err(InvalidPrivateKey::Unsupported)
    }

    /// A key in PKCS#8.
    #[cfg(feature = "authorization-server")]
    pub(crate) fn from_pkcs8(der: &[u8], algorithm: Algorithm) -> Result<Self, InvalidPrivateKey> {
        Self::from_der(der, Format::Pkcs8, algorithm)
    }

    fn from_der(
        der: &[u8],
        format: Format,
        algorithm: Algorithm,
    ) -> Result<Self, InvalidPrivateKey> {
        match KeyType::for_algorithm(algorithm).load(der, format) {
            Ok(pair) => Ok(Self { algorithm, pair }),
            Err(error) => Err(rejection_reason(&error, der, format, algorithm)),
        }
    }

    pub(crate) fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The public key as it is in a certificate: `RSAPublicKey` (RFC 8017), an uncompressed point,
    /// or 32 bytes.
    pub(crate) fn public_key(&self) -> &[u8] {
        match &self.pair {
            KeyPair::Rsa(pair, _) => pair.public_key().as_ref(),
            KeyPair::Ec(pair) => pair.public_key().as_ref(),
            KeyPair::Ed25519(pair) => pair.public_key().as_ref(),
        }
    }

    /// Signs a message.
    pub(crate) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SigningFailed> {
        let random = &SystemRandom::new();
        match &self.pair {
            KeyPair::Rsa(pair, encoding) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(*encoding, random, message, &mut signature)
                    .map(|()| signature)
            }
            KeyPair::Ec(pair) => pair
                .sign(random, message)
                .map(|signature| signature.as_ref().to_vec()),
            KeyPair::Ed25519(pair) => pair
                .try_sign(message)
                .map(|signature| signature.as_ref().to_vec()),
        }
        .map_err(|_| SigningFailed)
    }

    /// A signed JWT in compact serialization (RFC 7515 §7.1). `header` must have the `alg` of this
    /// key.
    pub(crate) fn sign_jwt(
        &self,
        header: &Value,
        claims: &Value,
    ) -> Result<SecretString, SigningFailed> {
        let encode = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
        let input = format!("{}.{}", encode(header), encode(claims));
        let signature = Zeroizing::new(self.sign(input.as_bytes())?);
        // Without the signature the input is no secret.
        let length = base64::encoded_len(signature.len(), false).ok_or(SigningFailed)?;
        let mut encoded = Zeroizing::new(vec![0; length]);
        let encoding = URL_SAFE_NO_PAD.encode_slice(&*signature, &mut encoded);
        encoding.map_err(|_| SigningFailed)?;
        let encoded = str::from_utf8(&encoded).map_err(|_| SigningFailed)?;
        // The exact size: a copy would be left behind by a buffer that grows or shrinks.
        let mut jwt = String::with_capacity(input.len() + 1 + encoded.len());
        jwt.push_str(&input);
        jwt.push('.');
        jwt.push_str(encoded);
        Ok(jwt.into())
    }
}

/// A new `jti`: 128 random bits in base64url, so that no two are equal.
pub(crate) fn new_token_id() -> Result<String, NoRandomNumbers> {
    let mut bytes = [0; 16];
    rand::fill(&mut bytes).map_err(|_| NoRandomNumbers)?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

impl KeyType {
    pub(crate) fn for_algorithm(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Es256 => Self::Ec(&ECDSA_P256_SHA256_FIXED_SIGNING),
            Algorithm::Es384 => Self::Ec(&ECDSA_P384_SHA384_FIXED_SIGNING),
            Algorithm::Es512 => Self::Ec(&ECDSA_P521_SHA512_FIXED_SIGNING),
            Algorithm::EdDsa => Self::Ed25519,
            Algorithm::Ps256 => Self::Rsa(&signature::RSA_PSS_SHA256),
            Algorithm::Ps384 => Self::Rsa(&signature::RSA_PSS_SHA384),
            Algorithm::Ps512 => Self::Rsa(&signature::RSA_PSS_SHA512),
            Algorithm::Rs256 => Self::Rsa(&signature::RSA_PKCS1_SHA256),
            Algorithm::Rs384 => Self::Rsa(&signature::RSA_PKCS1_SHA384),
            Algorithm::Rs512 => Self::Rsa(&signature::RSA_PKCS1_SHA512),
        }
    }

    fn load(self, der: &[u8], format: Format) -> Result<KeyPair, KeyRejected> {
        match (self, format) {
            (Self::Rsa(encoding), Format::Pkcs1) => {
                RsaKeyPair::from_der(der).map(|pair| KeyPair::Rsa(pair, encoding))
            }
            (Self::Rsa(encoding), _) => {
                RsaKeyPair::from_pkcs8(der).map(|pair| KeyPair::Rsa(pair, encoding))
            }
            (Self::Ec(curve), Format::Sec1) => {
                EcdsaKeyPair::from_private_key_der(curve, der).map(KeyPair::Ec)
            }
            (Self::Ec(curve), _) => EcdsaKeyPair::from_pkcs8(curve, der).map(KeyPair::Ec),
            (Self::Ed25519, _) => Ed25519KeyPair::from_pkcs8(der).map(KeyPair::Ed25519),
        }
    }
}

/// The types of keys, with the default algorithm of each.
const TYPES: [(Algorithm, &str); 5] = [
    (
        Algorithm::Rs256,
        "an RSA key, for PS256, PS384, PS512, RS256, RS384 or RS512",
    ),
    (Algorithm::Es256, "a key on P-256, for ES256"),
    (Algorithm::Es384, "a key on P-384, for ES384"),
    (Algorithm::Es512, "a key on P-521, for ES512"),
    (Algorithm::EdDsa, "an Ed25519 key, for EdDSA"),
];

/// Finds out why a key was rejected.
fn rejection_reason(
    error: &KeyRejected,
    der: &[u8],
    format: Format,
    algorithm: Algorithm,
) -> InvalidPrivateKey {
    if let Some(reason) = wrong_length(error) {
        return reason;
    }
    match PrivateKey::from_der_of_any_type(der, format) {
        Ok(key) => {
            let found = TYPES.into_iter().find(|(other, _)| *other == key.algorithm);
            let name = found.map_or("another key", |(_, name)| name);
            InvalidPrivateKey::OtherType(algorithm, name)
        }
        Err(reason) => reason,
    }
}

/// Whether a key was rejected for its length.
fn wrong_length(error: &KeyRejected) -> Option<InvalidPrivateKey> {
    match error.description_() {
        "TooSmall" => Some(InvalidPrivateKey::TooShort),
        "TooLarge" => Some(InvalidPrivateKey::TooLong),
        _ => None,
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrivateKey")
            .field("algorithm", &self.algorithm)
            .finish_non_exhaustive()
    }
}
