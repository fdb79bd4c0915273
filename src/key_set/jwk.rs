//! Parses a JWK Set document (RFC 7517) into verification keys.
//!
//! The members are converted one at a time, because jsonwebtoken's `JwkSet` fails as a whole on one
//! invalid member, and does not report private and duplicate members.

use std::borrow::Cow;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::compromised::CompromisedKeys;
use super::set::{Inner, KeySet};
use super::skip_reason::SkipReason;
use crate::error::{Error, ErrorKind, Operation};
use crate::jwt::{
    Algorithm, Fingerprint, InvalidKey, KeyMaterial, StrKey, VerificationKey, decode_base64url,
    valid_key_id,
};

/// The largest number of members, which bounds the work for one document.
const MAX_KEYS: usize = 100;

/// The deepest nesting. A JWK is an object that contains at most arrays of strings.
const MAX_DEPTH: u32 = 16;

/// The DER tag of an INTEGER.
const INTEGER: u8 = 0x02;

impl From<InvalidKey> for SkipReason {
    fn from(reason: InvalidKey) -> Self {
        match reason {
            InvalidKey::AlgorithmMismatch => Self::Algorithm,
            InvalidKey::Invalid => Self::Invalid,
            InvalidKey::Weak => Self::Weak,
        }
    }
}

#[derive(Deserialize)]
struct Document<'a> {
    #[serde(borrow)]
    keys: Vec<&'a RawValue>,
}

impl KeySet {
    /// Parses a JWK Set document.
    ///
    /// An unusable member is skipped and reported by [`skipped`](Self::skipped). It does not
    /// affect the others.
    ///
    /// ```
    /// use tower_oauth::error::ErrorKind;
    /// use tower_oauth::key_set::KeySet;
    ///
    /// let error = KeySet::from_json(br#"{"keys":[]}"#).unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::NoUsableKey);
    /// let error = KeySet::from_json(b"<html>").unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::Malformed);
    /// ```
    ///
    /// # Errors
    ///
    /// If the document is not a JWK Set, has more than 100 members, or has no usable key. Keys that
    /// share a `kid` are not usable here, whatever
    /// [`max_candidate_keys`](crate::TrustedIssuer::max_candidate_keys) is.
    pub fn from_json(document: &[u8]) -> Result<Self, Error> {
        parse_set(document, 1)
    }
}

/// Parses a document. Keys that share a `kid` are used only if `max_candidate_keys` is above 1.
pub(super) fn parse_set(document: &[u8], max_candidate_keys: usize) -> Result<KeySet, Error> {
    let error = |kind| Error::new(Operation::JwksFetch, kind);
    if deeper_than(document, MAX_DEPTH) {
        return Err(error(ErrorKind::Malformed));
    }
    // RFC 8259 §8.1: the whole document is UTF-8, ignored members included.
    let text = std::str::from_utf8(document)
        .map_err(|source| error(ErrorKind::Malformed).with_source(source))?;
    let document: Document<'_> = serde_json::from_str(text)
        .map_err(|source| error(ErrorKind::Malformed).with_source(source))?;
    if document.keys.len() > MAX_KEYS {
        return Err(error(ErrorKind::TooLarge));
    }
    let mut by_kid = HashMap::new();
    let mut without_kid = Vec::new();
    let mut skipped = Vec::new();
    let mut duplicates: HashMap<Box<str>, Vec<VerificationKey>> = HashMap::new();
    let members: Vec<Member> = document
        .keys
        .iter()
        .map(|member| parse_member(member.get()))
        .collect();
    let mut compromised = CompromisedKeys::default();
    for Member { kid, key, private } in &members {
        if matches!(key, Err(SkipReason::PrivateKey)) {
            compromised.insert(kid.as_deref(), *private);
        }
    }
    // A private key without a readable public key is identified by the public key with its `kid`.
    for Member { kid, key, .. } in &members {
        if let Some(key) = key
            .as_ref()
            .ok()
            .filter(|key| compromised.contains(kid.as_deref(), key))
        {
            compromised.insert(None, Some(key.public_key_digest()));
        }
    }
    for Member { kid, key, .. } in members {
        match (kid, key) {
            // Another member publishes its private part.
            (kid, Ok(key)) if compromised.contains(kid.as_deref(), &key) => {
                skipped.push((kid, SkipReason::PrivateKey));
            }
            (Some(kid), Ok(key)) => match by_kid.entry(kid) {
                Entry::Vacant(entry) => {
                    let key = key.with_kid(entry.key());
                    entry.insert(key);
                }
                Entry::Occupied(entry) => {
                    duplicates.entry(entry.key().clone()).or_default().push(key)
                }
            },
            (None, Ok(key)) => without_kid.push(key),
            (kid, Err(reason)) => skipped.push((kid, reason)),
        }
    }
    let use_duplicates = max_candidate_keys > 1;
    for (kid, keys) in &mut duplicates {
        keys.extend(by_kid.remove(kid));
        if !use_duplicates {
            skipped.extend(
                keys.iter()
                    .map(|_| (Some(kid.clone()), SkipReason::DuplicateKeyId)),
            );
        }
    }
    let inner = Inner {
        by_kid,
        without_kid,
        duplicates,
        use_duplicates,
        skipped,
        compromised,
    };
    let keys = KeySet(Arc::new(inner));
    if keys.len() == 0 {
        return Err(error(ErrorKind::NoUsableKey).with_source(NoUsableKeys { keys }));
    }
    Ok(keys)
}

/// Whether brackets nest deeper than `limit`. Checked without recursion, before parsing.
fn deeper_than(json: &[u8], limit: u32) -> bool {
    let (mut depth, mut in_string, mut escaped) = (0_u32, false, false);
    json.iter().any(|&byte| {
        match (in_string, byte) {
            (true, _) if escaped => escaped = false,
            (true, b'\\') => escaped = true,
            (_, b'"') => in_string = !in_string,
            (false, b'{' | b'[') => depth += 1,
            (false, b'}' | b']') => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth > limit
    })
}

/// A parsed member.
struct Member {
    /// Set even if the key is unusable.
    kid: Option<Box<str>>,
    key: Result<VerificationKey, SkipReason>,
    /// The public-key digest of a private key.
    private: Option<Fingerprint>,
}

impl Member {
    fn malformed() -> Self {
        Self {
            kid: None,
            key: Err(SkipReason::Malformed),
            private: None,
        }
    }
}

fn parse_member(json: &str) -> Member {
    let Ok(members) = serde_json::from_str::<JwkParameters<'_>>(json) else {
        return malformed_private_key(json).unwrap_or_else(Member::malformed);
    };
    let has_kid = members.kid.is_some();
    let kid = members.kid.and_then(valid_key_id);
    let key = match members.secrets {
        Secrets::Private => {
            return Member {
                kid,
                key: Err(SkipReason::PrivateKey),
                private: public_key_digest(json),
            };
        }
        _ if members.has_duplicates => return Member::malformed(),
        _ if has_kid && kid.is_none() => return Member::malformed(),
        Secrets::Symmetric => Err(SkipReason::Symmetric),
        Secrets::None => parse_key(json, members.alg.as_deref()),
    };
    Member {
        kid,
        key,
        private: None,
    }
}

/// A private key in a member that is not a JWK. It is compromised as well.
fn malformed_private_key(json: &str) -> Option<Member> {
    let members: serde_json::Map<String, serde_json::Value> = serde_json::from_str(json).ok()?;
    let has_value = |name: &&str| {
        members
            .get(*name)
            .is_some_and(|value| is_present(&value.to_string()))
    };
    PRIVATE.iter().find(|name| has_value(name))?;
    let kid = members
        .get("kid")
        .and_then(serde_json::Value::as_str)
        .map(Cow::from)
        .and_then(valid_key_id);
    Some(Member {
        kid,
        key: Err(SkipReason::PrivateKey),
        private: public_key_digest(json),
    })
}

/// The public-key digest of a private key. `use`, `key_ops` and `alg` are ignored, because they
/// describe signing.
fn public_key_digest(json: &str) -> Option<Fingerprint> {
    let mut members: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(json).ok()?;
    members.retain(|name, _| ["kty", "crv", "n", "e", "x", "y"].contains(&name.as_str()));
    let parameters = serde_json::to_string(&members).ok()?;
    parse_key(&parameters, None)
        .ok()
        .map(|key| key.public_key_digest())
}

/// Parses a public key.
fn parse_key(json: &str, alg: Option<&str>) -> Result<VerificationKey, SkipReason> {
    // Parsed here because jsonwebtoken knows neither `Ed25519` (RFC 9864) nor which algorithms
    // are supported.
    let algorithm = match alg {
        None => None,
        Some(alg) => Some(Algorithm::from_name(alg).ok_or(SkipReason::Algorithm)?),
    };
    let jwk: Jwk = serde_json::from_str(json).map_err(|_| SkipReason::Malformed)?;
    let for_signatures = matches!(
        jwk.common.public_key_use,
        None | Some(PublicKeyUse::Signature)
    );
    let for_verifying = jwk
        .common
        .key_operations
        .as_ref()
        .is_none_or(|operations| operations.contains(&KeyOperations::Verify));
    if !for_signatures || !for_verifying {
        return Err(SkipReason::NotForSignatures);
    }
    let chain = jwk.common.x509_chain.as_deref();
    let key = match &jwk.algorithm {
        AlgorithmParameters::RSA(rsa) => {
            let (n, e) = (&decode_number(&rsa.n)?, &decode_number(&rsa.e)?);
            // In a certificate the exponent follows the modulus, as a short DER INTEGER.
            let sign = e.first().filter(|&&first| first >= 0x80).map(|_| 0);
            let exponent: Vec<u8> = sign.into_iter().chain(e.iter().copied()).collect();
            let length = u8::try_from(exponent.len()).map_err(|_| SkipReason::Weak)?;
            check_certificate(chain, &[n, &[INTEGER, length][..], &exponent].concat())?;
            VerificationKey::new(&KeyMaterial::Rsa { n, e }, algorithm)
        }
        AlgorithmParameters::EllipticCurve(ec) => {
            let point = |len| {
                let x = decode_coordinate(&ec.x, len)?;
                check_certificate(chain, &x)?;
                Ok::<_, SkipReason>((x, decode_coordinate(&ec.y, len)?))
            };
            match ec.curve {
                EllipticCurve::P256 => {
                    let (x, y) = &point(32)?;
                    VerificationKey::new(&KeyMaterial::P256 { x, y }, algorithm)
                }
                EllipticCurve::P384 => {
                    let (x, y) = &point(48)?;
                    VerificationKey::new(&KeyMaterial::P384 { x, y }, algorithm)
                }
                EllipticCurve::P521 => {
                    let (x, y) = &point(66)?;
                    VerificationKey::new(&KeyMaterial::P521 { x, y }, algorithm)
                }
                _ => return Err(SkipReason::UnsupportedType),
            }
        }
        AlgorithmParameters::OctetKeyPair(okp) if matches!(okp.curve, EllipticCurve::Ed25519) => {
            let x = &decode_octets(&okp.x)?;
            check_certificate(chain, x)?;
            VerificationKey::new(&KeyMaterial::Ed25519 { x }, algorithm)
        }
        AlgorithmParameters::OctetKey(_) => return Err(SkipReason::Symmetric),
        _ => return Err(SkipReason::UnsupportedType),
    };
    Ok(key?)
}

/// Checks that the first certificate contains the same key (RFC 7517 §4.7).
///
/// The certificate is searched for the bytes of the key, which it contains unchanged, and is not
/// parsed. It adds no trust; a value that is not a certificate is ignored.
fn check_certificate(chain: Option<&[String]>, number: &[u8]) -> Result<(), SkipReason> {
    const SEQUENCE: u8 = 0x30;
    let certificate = chain
        .and_then(<[String]>::first)
        .and_then(|first| STANDARD.decode(first).ok());
    match certificate {
        Some(der) if der.first() == Some(&SEQUENCE) && der.len() > number.len() => {
            if der.windows(number.len().max(1)).any(|part| part == number) {
                Ok(())
            } else {
                Err(SkipReason::Invalid)
            }
        }
        _ => Ok(()),
    }
}

/// Decodes base64url, also with padding or in the standard alphabet, as issuers have published it.
fn decode_octets(encoded: &str) -> Result<Vec<u8>, SkipReason> {
    let encoded = encoded.trim_end_matches('=');
    let encoded = encoded.replace('+', "-").replace('/', "_");
    decode_base64url(encoded).map_err(|_| SkipReason::Invalid)
}

/// Decodes a number (RFC 7518 §2), without leading zeros. A key is its numbers, in any spelling:
/// issuers publish moduli with the sign byte of DER.
fn decode_number(encoded: &str) -> Result<Vec<u8>, SkipReason> {
    let mut number = decode_octets(encoded)?;
    let zeros = number.iter().take_while(|&&byte| byte == 0).count();
    number.drain(..zeros);
    Ok(number)
}

/// Decodes a coordinate into the `len` bytes of its curve's field elements (RFC 7518 §6.2.1.2).
fn decode_coordinate(encoded: &str, len: usize) -> Result<Vec<u8>, SkipReason> {
    let number = decode_number(encoded)?;
    let zeros = len.checked_sub(number.len()).ok_or(SkipReason::Invalid)?;
    Ok([vec![0; zeros], number].concat())
}

/// The members of private keys (RFC 7518 §6.2.2, §6.3.2).
const PRIVATE: [&str; 7] = ["d", "p", "q", "dp", "dq", "qi", "oth"];

/// Whether a JSON value is neither `null` nor an empty string nor an empty array.
fn is_present(json: &str) -> bool {
    let array = json
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    !matches!(json, "null" | "\"\"") && array.is_none_or(|elements| !elements.trim().is_empty())
}

/// The members of a JWK that jsonwebtoken does not report.
struct JwkParameters<'a> {
    kid: Option<Cow<'a, str>>,
    alg: Option<Cow<'a, str>>,
    secrets: Secrets,
    /// RFC 7517 §4: names must be unique.
    has_duplicates: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Secrets {
    None,
    Private,
    Symmetric,
}

impl<'de> Deserialize<'de> for JwkParameters<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct JwkParametersVisitor;

        impl<'de> Visitor<'de> for JwkParametersVisitor {
            type Value = JwkParameters<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JWK")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = JwkParameters {
                    kid: None,
                    alg: None,
                    secrets: Secrets::None,
                    has_duplicates: false,
                };
                let mut names: Vec<Cow<'de, str>> = Vec::new();
                while let Some(StrKey(name)) = map.next_key()? {
                    match &*name {
                        "kid" => {
                            members.kid = map.next_value::<Option<StrKey<'de>>>()?.map(|kid| kid.0)
                        }
                        "alg" => {
                            members.alg = map.next_value::<Option<StrKey<'de>>>()?.map(|alg| alg.0)
                        }
                        other if other == "k" || PRIVATE.contains(&other) => {
                            if is_present(map.next_value::<&RawValue>()?.get()) {
                                members.secrets = match members.secrets {
                                    // A private key with `k` remains a private key.
                                    Secrets::None if other == "k" => Secrets::Symmetric,
                                    secrets if other == "k" => secrets,
                                    _ => Secrets::Private,
                                };
                            }
                        }
                        _ => {
                            map.next_value::<serde::de::IgnoredAny>()?;
                        }
                    }
                    if names.len() > 64 {
                        return Err(A::Error::custom("too many members"));
                    }
                    members.has_duplicates |= names.contains(&name);
                    names.push(name);
                }
                Ok(members)
            }
        }

        deserializer.deserialize_map(JwkParametersVisitor)
    }
}

/// The source of an [`ErrorKind::NoUsableKey`] error: the reasons why every member was skipped.
#[derive(Debug)]
pub(super) struct NoUsableKeys {
    /// A set whose members were all skipped.
    pub(super) keys: KeySet,
}

impl NoUsableKeys {
    /// The source of `error`, if it is a `NoUsableKeys`.
    pub(super) fn downcast_source(error: &Error) -> Option<&Self> {
        std::error::Error::source(error)?.downcast_ref()
    }
}

impl fmt::Display for NoUsableKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut counts = BTreeMap::new();
        for reason in self
            .keys
            .skipped()
            .map(|(_, reason)| SkipReason::as_str(reason))
        {
            *counts.entry(reason).or_insert(0_u32) += 1;
        }
        f.write_str("members that cannot be used:")?;
        if counts.is_empty() {
            f.write_str(" none, the set is empty")?;
        }
        for (reason, count) in counts {
            write!(f, " {count} {reason}")?;
        }
        Ok(())
    }
}

impl std::error::Error for NoUsableKeys {}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8037 appendix A.2.
    const ED25519: &str =
        r#""kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo""#;
    /// RFC 7515 appendix A.2.
    const N: &str = "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ";

    /// A JWK Set document of these members, each without its braces.
    fn document<const N: usize>(members: [String; N]) -> String {
        format!(
            r#"{{"keys":[{}]}}"#,
            members.map(|member| format!("{{{member}}}")).join(",")
        )
    }

    fn skip_reason(member: &str) -> SkipReason {
        // Another key than those of the members, so that none of them compromises it.
        let good = format!(r#"{{"kty":"RSA","n":"{N}","e":"AQAB","kid":"good"}}"#);
        let document = format!(r#"{{"keys":[{good},{member}]}}"#);
        let keys = parse_set(document.as_bytes(), 1).unwrap();
        assert_eq!(keys.len(), 1, "{member}");
        keys.0.skipped.first().expect(member).1
    }

    #[test]
    fn one_unusable_member_does_not_affect_the_others() {
        for (member, reason) in [
            (
                r#"{"kty":"unknown","kid":"a"}"#.to_owned(),
                SkipReason::UnsupportedType,
            ),
            (
                r#"{"kty":"oct","k":"AAAA","kid":"a"}"#.to_owned(),
                SkipReason::Symmetric,
            ),
            (format!(r#"{{{ED25519},"kid":7}}"#), SkipReason::Malformed),
            (
                format!(r#"{{{ED25519},"kid":"a","kid":"a"}}"#),
                SkipReason::Malformed,
            ),
            (
                format!(r#"{{{ED25519},"d":"AAAA"}}"#),
                SkipReason::PrivateKey,
            ),
            (
                format!(r#"{{{ED25519},"use":"enc"}}"#),
                SkipReason::NotForSignatures,
            ),
            (
                format!(r#"{{{ED25519},"key_ops":["sign"]}}"#),
                SkipReason::NotForSignatures,
            ),
            (
                format!(r#"{{{ED25519},"alg":"RS256"}}"#),
                SkipReason::Algorithm,
            ),
            (
                format!(r#"{{{ED25519},"alg":"HS256"}}"#),
                SkipReason::Algorithm,
            ),
            (
                r#"{"kty":"OKP","crv":"Ed25519","x":"AAAA"}"#.to_owned(),
                SkipReason::Invalid,
            ),
            (
                r#"{"kty":"RSA","n":"AQAB","e":"AQAB"}"#.to_owned(),
                SkipReason::Weak,
            ),
            (
                format!(r#"{{"kty":"RSA","n":"{N}","e":"AQ"}}"#),
                SkipReason::Weak,
            ),
            ("7".to_owned(), SkipReason::Malformed),
            ("null".to_owned(), SkipReason::Malformed),
        ] {
            assert_eq!(skip_reason(&member), reason, "{member}");
        }
    }

    #[test]
    fn keys_that_share_a_kid_are_skipped_and_the_others_are_used() {
        let [a, b, without] = [r#","kid":"a""#, r#","kid":"b""#, ""];
        let document = document([a, a, b, without, without].map(|kid| format!("{ED25519}{kid}")));
        let keys = parse_set(document.as_bytes(), 1).unwrap();
        assert_eq!(keys.key_ids().collect::<Vec<_>>(), ["b"]);
        assert_eq!(keys.len(), 3, "both keys without `kid` are used");
        assert_eq!(
            keys.skipped()
                .filter(|(_, reason)| *reason == SkipReason::DuplicateKeyId)
                .count(),
            2
        );
    }

    #[test]
    fn a_private_key_is_reported_as_private_whatever_else_it_has_and_once_per_member() {
        assert_eq!(
            skip_reason(r#"{"kty":"oct","d":"AAAA","k":"AAAA"}"#),
            SkipReason::PrivateKey
        );
        let document = document([
            format!(r#"{ED25519},"kid":"a""#),
            format!(r#"{ED25519},"kid":"a""#),
            format!(r#"{ED25519},"kid":"a","d":"AAAA""#),
            format!(r#""kty":"RSA","n":"{N}","e":"AQAB","kid":"b""#),
        ]);
        let keys = parse_set(document.as_bytes(), 1).unwrap();
        assert_eq!(keys.key_ids().collect::<Vec<_>>(), ["b"]);
        assert_eq!(
            keys.skipped().collect::<Vec<_>>(),
            [(Some("a"), SkipReason::PrivateKey); 3]
        );
    }

    #[test]
    fn a_private_key_is_identified_by_its_public_key_whatever_its_other_members() {
        for other in [
            r#""key_ops":["sign"]"#,
            r#""use":"enc""#,
            r#""alg":"RSA-OAEP""#,
            r#""alg":"ES256","x5c":["AAAA"]"#,
            r#""kid":"b""#,
        ] {
            let document = document([
                format!(r#"{ED25519},"d":"AAAA",{other}"#),
                format!(r#"{ED25519},"kid":"a""#),
                ED25519.to_owned(),
                format!(r#""kty":"RSA","n":"{N}","e":"AQAB","kid":"good""#),
            ]);
            let keys = parse_set(document.as_bytes(), 1).unwrap();
            assert_eq!(
                (keys.len(), keys.key_ids().next()),
                (1, Some("good")),
                "{other}"
            );
            assert!(
                keys.skipped()
                    .all(|(_, reason)| reason == SkipReason::PrivateKey),
                "{other}"
            );
        }
        let long_kid = format!(r#"{{{ED25519},"d":"AAAA","kid":"{}"}}"#, "x".repeat(300));
        assert_eq!(
            skip_reason(&long_kid),
            SkipReason::PrivateKey,
            "also with an invalid `kid`"
        );
    }

    #[test]
    fn a_document_without_a_usable_key_is_an_error() {
        let kind = |document: &str| parse_set(document.as_bytes(), 1).unwrap_err().kind();
        assert_eq!(kind(r#"{"keys":[]}"#), ErrorKind::NoUsableKey);
        assert_eq!(
            kind(r#"{"keys":[{"kty":"oct","k":"AAAA"}]}"#),
            ErrorKind::NoUsableKey
        );
        for document in [
            "",
            "[]",
            "{}",
            "<html>",
            r#"{"keys":{}}"#,
            r#"{"keys":[],"keys":[]}"#,
        ] {
            assert_eq!(kind(document), ErrorKind::Malformed, "{document:?}");
        }
        let many = vec!["{}"; 101].join(",");
        assert_eq!(
            kind(&format!(r#"{{"keys":[{many}]}}"#)),
            ErrorKind::TooLarge
        );
        let deep = format!(
            r#"{{"keys":[{}{}]}}"#,
            "[".repeat(100_000),
            "]".repeat(100_000)
        );
        assert_eq!(kind(&deep), ErrorKind::Malformed);
    }

    /// The digest of a key, given without its braces.
    fn digest(member: &str) -> Option<Fingerprint> {
        parse_key(&format!("{{{member}}}"), None)
            .ok()
            .map(|key| key.public_key_digest())
    }

    fn encode(bytes: &[u8]) -> String {
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
    }

    #[test]
    fn an_rsa_key_is_the_same_in_every_spelling_of_its_numbers() {
        let rsa = |n: &str, e: &str| digest(&format!(r#""kty":"RSA","n":"{n}","e":"{e}""#));
        let key = rsa(N, "AQAB").expect("a valid key");
        let with_zeros = |count: usize| {
            let modulus = decode_base64url(N).unwrap();
            encode(&[vec![0; count], modulus].concat())
        };
        let standard = N.replace('-', "+").replace('_', "/");
        for (n, e) in [
            (standard.clone(), "AQAB"),
            (format!("{standard}=="), "AQAB"),
            (format!("{N}=="), "AQAB"),
            (with_zeros(1), "AQAB"),
            (with_zeros(3), "AAEAAQ"),
            (N.to_owned(), "AAAAAAEAAQ=="),
        ] {
            assert_eq!(rsa(&n, e), Some(key), "{n} {e}");
        }
        // Not base64 of these bytes: bits after the last byte, white space, padding inside.
        let other_bits = N.strip_suffix('Q').map(|rest| format!("{rest}R"));
        assert_eq!(rsa(&other_bits.unwrap(), "AQAB"), None);
        for (n, e) in [(N, "AQ AB"), (N, "AQ=B"), (N, "=AQAB"), ("", "AQAB")] {
            assert_eq!(rsa(n, e), None, "{e}");
        }
    }

    #[test]
    fn a_point_is_the_same_in_every_spelling_of_its_coordinates() {
        // RFC 7515 appendix A.3.
        let x = "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU";
        let y = "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0";
        let point =
            |x: &str, y: &str| digest(&format!(r#""kty":"EC","crv":"P-256","x":"{x}","y":"{y}""#));
        let key = point(x, y).expect("a valid key");
        let with_zero =
            |number: &str| encode(&[vec![0], decode_base64url(number).unwrap()].concat());
        assert_eq!(point(&with_zero(x), &with_zero(y)), Some(key));
        assert_eq!(point(&format!("{x}="), &y.replace('_', "/")), Some(key));
        assert_ne!(point(y, x), Some(key));
        // A byte more that is not zero makes another number.
        let longer = encode(&[vec![1], decode_base64url(x).unwrap()].concat());
        assert_eq!(point(&longer, y), None);
    }
}
