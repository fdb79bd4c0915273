//! Public keys that verify signatures, parsed once and bound to their algorithms.

use std::fmt;

use aws_lc_rs::digest::{Context, SHA256};
use aws_lc_rs::rsa::PublicKeyComponents;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED, ED25519,
    ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384,
    RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384,
    RSA_PSS_2048_8192_SHA512, RsaParameters,
};

use super::algorithm::Algorithm;
use super::error::TokenError;

/// The public parameters of a JWK (RFC 7518 §6, RFC 8037 §2).
#[derive(Debug)]
pub(crate) enum KeyMaterial<'a> {
    /// Modulus and exponent, big-endian.
    Rsa { n: &'a [u8], e: &'a [u8] },
    /// A point on P-256.
    P256 { x: &'a [u8], y: &'a [u8] },
    /// A point on P-384.
    P384 { x: &'a [u8], y: &'a [u8] },
    /// A point on P-521.
    P521 { x: &'a [u8], y: &'a [u8] },
    /// An Ed25519 public key.
    Ed25519 { x: &'a [u8] },
}

impl KeyMaterial<'_> {
    /// The algorithms that this type of key supports.
    fn algorithms(&self) -> &'static [Algorithm] {
        match self {
            Self::Rsa { .. } => &[
                Algorithm::Rs256,
                Algorithm::Rs384,
                Algorithm::Rs512,
                Algorithm::Ps256,
                Algorithm::Ps384,
                Algorithm::Ps512,
            ],
            Self::P256 { .. } => &[Algorithm::Es256],
            Self::P384 { .. } => &[Algorithm::Es384],
            Self::P521 { .. } => &[Algorithm::Es512],
            Self::Ed25519 { .. } => &[Algorithm::EdDsa],
        }
    }
}

/// Why a key cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum InvalidKey {
    /// Its `alg` does not match its type.
    AlgorithmMismatch,
    /// Its parameters are not a public key: wrong length, leading zeros, not on the curve, small
    /// order.
    Invalid,
    /// The modulus has this number of bits.
    ModulusLength(usize),
    /// The exponent is even, 1, or above 32 bits.
    Exponent,
    /// The modulus has the fingerprint of ROCA.
    Roca,
}

impl fmt::Display for InvalidKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AlgorithmMismatch => f.write_str("alg does not match the type of the key"),
            Self::Invalid => f.write_str("the parameters are not a public key"),
            Self::ModulusLength(bits) => {
                write!(
                    f,
                    "n has {bits} bits, expected {MIN_MODULUS} to {MAX_MODULUS}"
                )
            }
            Self::Exponent => f.write_str("e is even, below 3, or has more than 32 bits"),
            Self::Roca => f.write_str("n has the fingerprint of ROCA (CVE-2017-15361)"),
        }
    }
}

/// The shortest modulus in bits (RFC 7518 §3.3).
const MIN_MODULUS: usize = 2048;

/// The longest modulus in bits. Above it one verification costs milliseconds.
const MAX_MODULUS: usize = 8192;

/// A public key, prepared for each algorithm that it may verify.
///
/// This is the `alg` of the JWK, or every algorithm of its type if it has no `alg` (Entra
/// publishes such keys).
pub(crate) struct VerificationKey {
    prepared: Box<[(Algorithm, ParsedPublicKey)]>,
    fingerprint: Fingerprint,
    /// Digest of the public parameters alone.
    public_key_digest: Fingerprint,
    /// The member `issuer` of each JWK with this key; `None` for one that has none.
    issuers: Vec<Option<Box<str>>>,
}

/// A SHA-256 digest that identifies a key: its public parameters, algorithms and `kid`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Fingerprint([u8; 32]);

impl VerificationKey {
    /// Validates and prepares a key.
    pub(crate) fn new(
        material: &KeyMaterial<'_>,
        algorithm: Option<Algorithm>,
    ) -> Result<Self, InvalidKey> {
        check(material)?;
        let possible = material.algorithms();
        let prepared: Result<Box<[_]>, InvalidKey> = match &algorithm {
            Some(algorithm) if !possible.contains(algorithm) => {
                return Err(InvalidKey::AlgorithmMismatch);
            }
            Some(algorithm) => std::slice::from_ref(algorithm),
            None => possible,
        }
        .iter()
        .map(|&algorithm| Ok((algorithm, prepare(material, algorithm)?)))
        .collect();
        let prepared = prepared?;
        let public_key_digest = Fingerprint::of_public_key(material);
        Ok(Self {
            fingerprint: public_key_digest.with_algorithms(&prepared),
            prepared,
            public_key_digest,
            issuers: vec![None],
        })
    }

    /// Adds the algorithms of `other`, the same public key. To be called before
    /// [`with_kid`](Self::with_kid).
    pub(crate) fn merge(&mut self, other: Self) {
        debug_assert_eq!(self.public_key_digest, other.public_key_digest);
        let added = other.prepared.into_iter();
        let added: Vec<_> = added
            .filter(|(algorithm, _)| !self.supports(*algorithm))
            .collect();
        let own = std::mem::take(&mut self.prepared);
        self.prepared = own.into_iter().chain(added).collect();
        self.issuers.extend(other.issuers);
        self.fingerprint = self.fingerprint_without_kid();
    }

    /// Restricts the key to the tokens of an issuer, the member `issuer` of the JWK. To be called
    /// before [`merge`](Self::merge).
    pub(crate) fn with_issuer(mut self, issuer: Option<Box<str>>) -> Self {
        self.issuers = vec![issuer];
        self.fingerprint = self.fingerprint_without_kid();
        self
    }

    /// Whether one of the JWKs with this key names no issuer, or one that is accepted.
    pub(crate) fn is_for_issuer(&self, is_accepted: impl Fn(&str) -> bool) -> bool {
        let mut issuers = self.issuers.iter();
        issuers.any(|issuer| issuer.as_deref().is_none_or(&is_accepted))
    }

    /// The fingerprint of a key without `kid`.
    fn fingerprint_without_kid(&self) -> Fingerprint {
        let key = self.public_key_digest.with_algorithms(&self.prepared);
        let issuers = self.issuers.iter().flatten();
        issuers.fold(key, |fingerprint, issuer| {
            Fingerprint::digest([&fingerprint.0, issuer.as_bytes()].into_iter())
        })
    }

    /// Sets the `kid` under which the key is published.
    pub(crate) fn with_kid(mut self, kid: &str) -> Self {
        self.fingerprint = Fingerprint::digest([&self.fingerprint.0, kid.as_bytes()].into_iter());
        self
    }

    /// The digest of the key, its algorithms and its `kid`.
    pub(crate) fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// The digest of the public parameters. It does not depend on `kid` and algorithms.
    pub(crate) fn public_key_digest(&self) -> Fingerprint {
        self.public_key_digest
    }

    /// Whether this key may verify `algorithm`.
    pub(crate) fn supports(&self, algorithm: Algorithm) -> bool {
        self.prepared
            .iter()
            .any(|(supported, _)| *supported == algorithm)
    }

    /// The algorithms that it may verify.
    pub(crate) fn algorithms(&self) -> impl Iterator<Item = Algorithm> {
        self.prepared.iter().map(|(algorithm, _)| *algorithm)
    }

    /// Verifies `signature` over `message`.
    pub(crate) fn verify(
        &self,
        algorithm: Algorithm,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), TokenError> {
        let mut prepared = self.prepared.iter();
        let matching = prepared.find(|(supported, _)| *supported == algorithm);
        let (_, key) = matching.ok_or(TokenError::UnsupportedAlgorithm)?;
        // aws-lc-rs accepts a signature whose R has small order; strict verifiers reject it.
        if algorithm == Algorithm::EdDsa && signature.first_chunk::<32>().is_none_or(is_small_order)
        {
            return Err(TokenError::InvalidSignature);
        }
        key.verify_sig(message, signature)
            .map_err(|_| TokenError::InvalidSignature)
    }
}

impl Fingerprint {
    fn of_public_key(material: &KeyMaterial<'_>) -> Self {
        let (kind, first, second): (&[u8], &[u8], &[u8]) = match material {
            KeyMaterial::Rsa { n, e } => (b"RSA", n, e),
            KeyMaterial::P256 { x, y } => (b"P-256", x, y),
            KeyMaterial::P384 { x, y } => (b"P-384", x, y),
            KeyMaterial::P521 { x, y } => (b"P-521", x, y),
            KeyMaterial::Ed25519 { x } => (b"Ed25519", x, b""),
        };
        Self::digest([kind, first, second].into_iter())
    }

    /// The order of the algorithms does not matter.
    fn with_algorithms(&self, prepared: &[(Algorithm, ParsedPublicKey)]) -> Self {
        let mut names: Vec<&str> = prepared.iter().map(|(alg, _)| alg.name()).collect();
        names.sort_unstable();
        let names = names.into_iter().map(str::as_bytes);
        Self::digest(std::iter::once(&self.0[..]).chain(names))
    }

    /// Each part is prefixed by its length, so that different keys never hash the same bytes.
    fn digest<'p>(parts: impl Iterator<Item = &'p [u8]>) -> Self {
        let mut context = Context::new(&SHA256);
        for part in parts {
            context.update(&part.len().to_be_bytes());
            context.update(part);
        }
        let mut digest = [0; 32];
        for (to, from) in digest.iter_mut().zip(context.finish().as_ref()) {
            *to = *from;
        }
        Self(digest)
    }
}

impl fmt::Debug for VerificationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.algorithms()).finish()
    }
}

fn prepare(
    material: &KeyMaterial<'_>,
    algorithm: Algorithm,
) -> Result<ParsedPublicKey, InvalidKey> {
    let parsed = match material {
        KeyMaterial::Rsa { n, e } => {
            let parameters: &'static RsaParameters = match algorithm {
                Algorithm::Rs256 => &RSA_PKCS1_2048_8192_SHA256,
                Algorithm::Rs384 => &RSA_PKCS1_2048_8192_SHA384,
                Algorithm::Rs512 => &RSA_PKCS1_2048_8192_SHA512,
                Algorithm::Ps256 => &RSA_PSS_2048_8192_SHA256,
                Algorithm::Ps384 => &RSA_PSS_2048_8192_SHA384,
                Algorithm::Ps512 => &RSA_PSS_2048_8192_SHA512,
                _ => return Err(InvalidKey::AlgorithmMismatch),
            };
            PublicKeyComponents { n, e }.to_parsed_public_key(parameters)
        }
        // SEC 1 §2.3.3: an uncompressed point.
        KeyMaterial::P256 { x, y } => {
            ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, [&[0x04], *x, *y].concat())
        }
        KeyMaterial::P384 { x, y } => {
            ParsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, [&[0x04], *x, *y].concat())
        }
        KeyMaterial::P521 { x, y } => {
            ParsedPublicKey::new(&ECDSA_P521_SHA512_FIXED, [&[0x04], *x, *y].concat())
        }
        KeyMaterial::Ed25519 { x } => ParsedPublicKey::new(&ED25519, x),
    };
    parsed.map_err(|_| InvalidKey::Invalid)
}

/// The checks that aws-lc-rs makes only on use, or not at all.
fn check(material: &KeyMaterial<'_>) -> Result<(), InvalidKey> {
    let valid = match material {
        KeyMaterial::Rsa { n, e } => return check_rsa(n, e),
        KeyMaterial::P256 { x, y } => x.len() == 32 && y.len() == 32,
        KeyMaterial::P384 { x, y } => x.len() == 48 && y.len() == 48,
        KeyMaterial::P521 { x, y } => x.len() == 66 && y.len() == 66,
        KeyMaterial::Ed25519 { x } => {
            <&[u8; 32]>::try_from(*x).is_ok_and(|x| !is_small_order(x) && is_canonical(x))
        }
    };
    valid.then_some(()).ok_or(InvalidKey::Invalid)
}

fn check_rsa(n: &[u8], e: &[u8]) -> Result<(), InvalidKey> {
    // RFC 7518 §6.3.1: the minimum number of octets, so no leading zeros.
    let (Some(&first), Some(&last), Some(&first_of_e)) = (n.first(), n.last(), e.first()) else {
        return Err(InvalidKey::Invalid);
    };
    if first == 0 || first_of_e == 0 || last & 1 == 0 {
        return Err(InvalidKey::Invalid);
    }
    let bits = n.len() * 8 - usize::try_from(first.leading_zeros()).unwrap_or(8);
    if !(MIN_MODULUS..=MAX_MODULUS).contains(&bits) {
        return Err(InvalidKey::ModulusLength(bits));
    }
    let exponent = e
        .iter()
        .fold(0_u64, |value, &byte| (value << 8) | u64::from(byte));
    if e.len() > 4 || exponent < 3 || exponent & 1 == 0 {
        return Err(InvalidKey::Exponent);
    }
    if is_roca(n) {
        return Err(InvalidKey::Roca);
    }
    Ok(())
}

/// Whether a modulus has the ROCA fingerprint of Infineon's library (CVE-2017-15361): modulo each
/// of these primes it is a power of 65537. One in 2^27 sound moduli matches by chance.
fn is_roca(n: &[u8]) -> bool {
    const PRIMES: [u32; 17] = [
        11, 13, 17, 19, 37, 53, 61, 71, 73, 79, 97, 103, 107, 109, 127, 151, 157,
    ];
    PRIMES.iter().all(|&prime| {
        let residue = n
            .iter()
            .fold(0, |value, &byte| (value * 256 + u32::from(byte)) % prime);
        let mut power = 1;
        (0..prime).any(|_| {
            power = power * (65_537 % prime) % prime;
            power == residue
        })
    })
}

/// The canonical and non-canonical encodings of the eight points of small order, without sign bit
/// ("Taming the many EdDSAs", Chalkias et al. 2020, table 1).
const SMALL_ORDER: [[u8; 32]; 7] = [
    small(0),
    small(1),
    [
        0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98,
        0xf0, 0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53,
        0xfc, 0x05,
    ],
    [
        0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67,
        0x0f, 0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac,
        0x03, 0x7a,
    ],
    field_element_ending(0xec),
    field_element_ending(0xed),
    field_element_ending(0xee),
];

/// A field element below 256, little-endian.
const fn small(value: u8) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[0] = value;
    bytes
}

/// A number near p = 2^255 - 19 with this lowest byte, little-endian.
const fn field_element_ending(lowest: u8) -> [u8; 32] {
    let mut bytes = [0xff; 32];
    bytes[0] = lowest;
    bytes[31] = 0x7f;
    bytes
}

fn is_small_order(point: &[u8; 32]) -> bool {
    let mut y = *point;
    y[31] &= 0x7f;
    SMALL_ORDER.contains(&y)
}

/// Whether y is below p (RFC 8032 §5.1.3).
fn is_canonical(point: &[u8; 32]) -> bool {
    let [lowest, middle @ .., highest] = point;
    !(*lowest >= 0xed && middle.iter().all(|&byte| byte == 0xff) && highest & 0x7f == 0x7f)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CVE-2017-15361
    #[test]
    fn a_roca_modulus_is_detected_by_its_fingerprint() {
        // One more than a multiple of all the primes: modulo each it is 65537 to the power of 0.
        let primes = [
            11, 13, 17, 19, 37, 53, 61, 71, 73, 79, 97, 103, 107, 109, 127, 151, 157,
        ];
        let product: u128 = primes.iter().product();
        let leading = (product << product.leading_zeros()).to_be_bytes();
        let mut roca = [0; 256];
        roca[..16].copy_from_slice(&leading);
        roca[255] = 1;
        assert!(is_roca(&roca));
        assert_eq!(check_rsa(&roca, &[1, 0, 1]), Err(InvalidKey::Roca));
        roca[255] = 3;
        assert_eq!(check_rsa(&roca, &[1, 0, 1]), Ok(()));
    }
}
