//! Tokens like those of App ID, about 900 bytes long, and their signers.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING,
    ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256,
    RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512,
    RsaEncoding, RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tower_oauth::clock::{Clock as _, SystemClock};

pub const TENANT: &str = "39a37f57-a227-4bfe-a044-93b6e6060b61";
pub const ISSUER: &str =
    "https://eu-de.appid.cloud.ibm.com/oauth/v4/39a37f57-a227-4bfe-a044-93b6e6060b61";
pub const AUDIENCE: &str = "7d3c52b2-6b5f-4f3e-9b50-0d1c1a3f9a11";
pub const NOW: u64 = 1_795_000_000;

pub fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A private key for one algorithm.
pub enum Signer {
    Rsa(RsaKeyPair, &'static dyn RsaEncoding),
    Ec(EcdsaKeyPair, &'static str),
    Ed25519(Ed25519KeyPair),
}

impl Signer {
    pub fn new(algorithm: &str) -> Self {
        let encoding: &'static dyn RsaEncoding = match algorithm {
            "ES256" => {
                return Self::Ec(
                    EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap(),
                    "P-256",
                );
            }
            "ES384" => {
                return Self::Ec(
                    EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap(),
                    "P-384",
                );
            }
            "ES512" => {
                return Self::Ec(
                    EcdsaKeyPair::generate(&ECDSA_P521_SHA512_FIXED_SIGNING).unwrap(),
                    "P-521",
                );
            }
            "EdDSA" => return Self::Ed25519(Ed25519KeyPair::generate().unwrap()),
            "RS384" => &RSA_PKCS1_SHA384,
            "RS512" => &RSA_PKCS1_SHA512,
            "PS256" => &RSA_PSS_SHA256,
            "PS384" => &RSA_PSS_SHA384,
            "PS512" => &RSA_PSS_SHA512,
            _ => &RSA_PKCS1_SHA256,
        };
        Self::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).unwrap(), encoding)
    }

    /// A JWK set with this key only.
    pub fn jwks(&self) -> String {
        let members = match self {
            Self::Rsa(pair, _) => format!(
                r#""kty":"RSA","n":"{}","e":"{}""#,
                encode(
                    pair.public_key()
                        .modulus()
                        .big_endian_without_leading_zero()
                ),
                encode(
                    pair.public_key()
                        .exponent()
                        .big_endian_without_leading_zero()
                )
            ),
            Self::Ec(pair, curve) => {
                let point = &pair.public_key().as_ref()[1..];
                let (x, y) = point.split_at(point.len() / 2);
                format!(
                    r#""kty":"EC","crv":"{curve}","x":"{}","y":"{}""#,
                    encode(x),
                    encode(y)
                )
            }
            Self::Ed25519(pair) => {
                format!(
                    r#""kty":"OKP","crv":"Ed25519","x":"{}""#,
                    encode(pair.public_key())
                )
            }
        };
        format!(
            r#"{{"keys":[{{{members},"kid":"{}","use":"sig"}}]}}"#,
            kid()
        )
    }

    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        match self {
            Self::Rsa(pair, encoding) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(*encoding, &SystemRandom::new(), message, &mut signature)
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

    /// Signs a token with this header and these claims.
    pub fn token(&self, header: &str, claims: &str) -> String {
        let input = format!("{}.{}", encode(header), encode(claims));
        let signature = self.sign(input.as_bytes());
        format!("{input}.{}", encode(signature))
    }

    /// Like [`good`](Self::good), issued at the current system time.
    pub fn fresh(&self, algorithm: &str, number: usize) -> String {
        self.token(&header(algorithm), &claims_at(now(), number))
    }

    /// Like [`fresh`](Self::fresh), of `len` bytes or a few more.
    pub fn fresh_of_len(&self, algorithm: &str, number: usize, len: usize) -> String {
        let bare = self.fresh(algorithm, number);
        let padding = "x".repeat(len.saturating_sub(bare.len()) * 3 / 4);
        let claims =
            claims_at(now(), number).replace(r#""jti""#, &format!(r#""pad":"{padding}","jti""#));
        self.token(&header(algorithm), &claims)
    }

    /// Token `number`, valid for an hour from [`NOW`].
    pub fn good(&self, algorithm: &str, number: usize) -> String {
        self.token(&header(algorithm), &claims(number))
    }
}

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemClock.now().as_secs()
}

pub fn kid() -> String {
    format!("appId-{TENANT}-2026-11-20T08:01:14.270")
}

pub fn header(algorithm: &str) -> String {
    format!(
        r#"{{"alg":"{algorithm}","typ":"JWT","kid":"{}","ver":4}}"#,
        kid()
    )
}

pub fn claims(number: usize) -> String {
    claims_at(NOW, number)
}

/// Claims issued at `now`, in seconds since 1970.
pub fn claims_at(now: u64, number: usize) -> String {
    format!(
        r#"{{"iss":"{ISSUER}","exp":{},"aud":["{AUDIENCE}"],"sub":"{AUDIENCE}","amr":["appid_client_credentials"],"iat":{now},"tenant":"{TENANT}","scope":"appid_default orders.read","jti":"{number:08}"}}"#,
        now + 3600
    )
}
