//! From a JWK Set document to prepared keys (RFC 7517), one member at a time.
//!
//! The members are converted one by one because jsonwebtoken's `JwkSet` fails as a whole on
//! one odd member, and drops private and duplicate members without a word.

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
use super::{Inner, KeySet};
use crate::error::{Error, ErrorKind, Operation};
use crate::jwt::{
    Algorithm, Fingerprint, InvalidKey, KeyId, KeyMaterial, StrKey, VerificationKey,
    decode_base64url,
};

/// More members than this are no key set but a load.
const MAX_KEYS: usize = 100;

/// A JWK is an object with at most arrays of strings in it.
const MAX_DEPTH: u32 = 16;

/// DER's tag of an integer.
const INTEGER: u8 = 0x02;

/// Departures from the standard that one provider's keys need.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Quirks {
    /// RFC 7518 to the letter.
    #[default]
    None,
    /// App ID: `n` and `e` may have leading zero bytes and be in standard base64.
    AppId,
}

/// Why a member of a key set is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SkipReason {
    /// Its `alg` does not fit its type, or is not supported.
    Algorithm,
    /// Another usable member has the same `kid`, and one cannot tell which is meant.
    DuplicateKeyId,
    /// Its numbers are no public key.
    Invalid,
    /// It is no JWK: no object, duplicate members, values of the wrong type.
    Malformed,
    /// `use` or `key_ops` say that it is not for verifying signatures.
    NotForSignatures,
    /// It holds private members, and so is compromised.
    PrivateKey,
    /// A symmetric key (`oct`): who can verify with it can sign with it.
    Symmetric,
    /// A `kty` or `crv` that is not supported.
    UnsupportedType,
    /// Too short, or otherwise known to be breakable.
    Weak,
}

impl SkipReason {
    /// A stable name for logs and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Algorithm => "algorithm",
            Self::DuplicateKeyId => "duplicate_key_id",
            Self::Invalid => "invalid",
            Self::Malformed => "malformed",
            Self::NotForSignatures => "not_for_signatures",
            Self::PrivateKey => "private_key",
            Self::Symmetric => "symmetric",
            Self::UnsupportedType => "unsupported_type",
            Self::Weak => "weak",
        }
    }
}

impl fmt::Display for SkipReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

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

/// Reads a whole document. Keys that share a `kid` are of use only if more than one is tried for
/// it.
pub(super) fn parse_set(
    document: &[u8],
    quirks: Quirks,
    max_candidate_keys: usize,
) -> Result<KeySet, Error> {
    let error = |kind| Error::new(Operation::JwksFetch, kind);
    if deeper_than(document, MAX_DEPTH) {
        return Err(error(ErrorKind::Malformed));
    }
    // RFC 8259 §8.1: all of it, also what is read over.
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
        .map(|member| parse_member(member.get(), quirks))
        .collect();
    let mut compromised = CompromisedKeys::default();
    for Member { kid, key, private } in &members {
        if matches!(key, Err(SkipReason::PrivateKey)) {
            compromised.insert(kid.as_deref(), *private);
        }
    }
    // What the numbers of a private key are, a public key of its `kid` says, if it does not.
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
            // Its private part stands elsewhere in the set.
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

/// Whether brackets nest deeper than `limit`, found without recursion and before any parsing.
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

/// A member that was looked at.
struct Member {
    /// Told even where the key is unusable.
    kid: Option<Box<str>>,
    key: Result<VerificationKey, SkipReason>,
    /// The public key of a private one.
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

fn parse_member(json: &str, quirks: Quirks) -> Member {
    let Ok(members) = serde_json::from_str::<Members<'_>>(json) else {
        return private_if_anything(json).unwrap_or_else(Member::malformed);
    };
    let has_kid = members.kid.is_some();
    let kid: Option<Box<str>> = members
        .kid
        .and_then(KeyId::new)
        .map(|kid| kid.as_str().into());
    let key = match members.secrets {
        Secrets::Private => {
            return Member {
                kid,
                key: Err(SkipReason::PrivateKey),
                private: material(json),
            };
        }
        _ if members.has_duplicates => return Member::malformed(),
        _ if has_kid && kid.is_none() => return Member::malformed(),
        Secrets::Symmetric => Err(SkipReason::Symmetric),
        Secrets::None => prepare(json, members.alg.as_deref(), quirks),
    };
    Member {
        kid,
        key,
        private: None,
    }
}

/// A member that is no JWK, and a private key all the same: that is compromised, too.
fn private_if_anything(json: &str) -> Option<Member> {
    let members: serde_json::Map<String, serde_json::Value> = serde_json::from_str(json).ok()?;
    let is_material = |name: &&str| {
        members
            .get(*name)
            .is_some_and(|value| is_present(&value.to_string()))
    };
    PRIVATE.iter().find(|name| is_material(name))?;
    let kid = members
        .get("kid")
        .and_then(serde_json::Value::as_str)
        .map(Cow::from)
        .and_then(KeyId::new);
    let kid = kid.map(|kid| kid.as_str().into());
    Some(Member {
        kid,
        key: Err(SkipReason::PrivateKey),
        private: material(json),
    })
}

/// What a key is, whatever it says that it is for: a private one is for signing, and says so. Its
/// numbers may be spelled in any way that is read anywhere: this only leads to a refusal.
fn material(json: &str) -> Option<Fingerprint> {
    let mut members: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(json).ok()?;
    members.retain(|name, _| ["kty", "crv", "n", "e", "x", "y"].contains(&name.as_str()));
    let numbers = serde_json::to_string(&members).ok()?;
    prepare(&numbers, None, Quirks::AppId)
        .ok()
        .map(|key| key.public_key_digest())
}

fn prepare(json: &str, alg: Option<&str>, quirks: Quirks) -> Result<VerificationKey, SkipReason> {
    // Read here because jsonwebtoken knows neither `Ed25519` (RFC 9864) nor our limits.
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
    let number = |encoded: &str| decode_number(encoded, quirks);
    let exact = |encoded: &str| decode_base64url(encoded).map_err(|_| SkipReason::Invalid);
    let key = match &jwk.algorithm {
        AlgorithmParameters::RSA(rsa) => {
            let (n, e) = (&number(&rsa.n)?, &number(&rsa.e)?);
            // In a certificate the exponent follows the modulus: a DER INTEGER of a few bytes.
            let sign = e.first().filter(|&&first| first >= 0x80).map(|_| 0);
            let exponent: Vec<u8> = sign.into_iter().chain(e.iter().copied()).collect();
            let length = u8::try_from(exponent.len()).map_err(|_| SkipReason::Weak)?;
            check_certificate(chain, &[n, &[INTEGER, length][..], &exponent].concat())?;
            VerificationKey::new(&KeyMaterial::Rsa { n, e }, algorithm)
        }
        AlgorithmParameters::EllipticCurve(ec) => {
            let (x, y) = (&exact(&ec.x)?, &exact(&ec.y)?);
            check_certificate(chain, x)?;
            match ec.curve {
                EllipticCurve::P256 => VerificationKey::new(&KeyMaterial::P256 { x, y }, algorithm),
                EllipticCurve::P384 => VerificationKey::new(&KeyMaterial::P384 { x, y }, algorithm),
                _ => return Err(SkipReason::UnsupportedType),
            }
        }
        AlgorithmParameters::OctetKeyPair(okp) if matches!(okp.curve, EllipticCurve::Ed25519) => {
            let x = &exact(&okp.x)?;
            check_certificate(chain, x)?;
            VerificationKey::new(&KeyMaterial::Ed25519 { x }, algorithm)
        }
        AlgorithmParameters::OctetKey(_) => return Err(SkipReason::Symmetric),
        _ => return Err(SkipReason::UnsupportedType),
    };
    Ok(key?)
}

/// RFC 7517 §4.7: the first certificate has to be of the same key, or one of the two is not what
/// the issuer meant to publish.
///
/// A certificate holds the numbers of its key as they are, so it need not be understood to tell.
/// It gives no trust; what is no certificate says nothing.
fn check_certificate(chain: Option<&[String]>, number: &[u8]) -> Result<(), SkipReason> {
    const SEQUENCE: u8 = 0x30;
    let certificate = chain
        .and_then(<[String]>::first)
        .and_then(|first| STANDARD.decode(first).ok());
    match certificate {
        Some(der) if der.first() == Some(&SEQUENCE) && der.len() > number.len() => {
            let of_this_key = der.windows(number.len().max(1)).any(|part| part == number);
            if of_this_key {
                Ok(())
            } else {
                Err(SkipReason::Invalid)
            }
        }
        _ => Ok(()),
    }
}

/// Base64urlUInt (RFC 7518 §2), or what App ID has published in its place.
fn decode_number(encoded: &str, quirks: Quirks) -> Result<Vec<u8>, SkipReason> {
    let encoded = match quirks {
        Quirks::None => Cow::Borrowed(encoded),
        Quirks::AppId => Cow::Owned(
            encoded
                .trim_end_matches('=')
                .replace('+', "-")
                .replace('/', "_"),
        ),
    };
    let mut number = decode_base64url(&*encoded).map_err(|_| SkipReason::Invalid)?;
    if quirks == Quirks::AppId {
        let zeros = number.iter().take_while(|&&byte| byte == 0).count();
        number.drain(..zeros);
    }
    Ok(number)
}

/// The members that hold private material (RFC 7518 §6.2.2, §6.3.2).
const PRIVATE: [&str; 7] = ["d", "p", "q", "dp", "dq", "qi", "oth"];

/// Whether the JSON value of a member holds anything: not `null`, an empty string or an empty
/// array.
fn is_present(json: &str) -> bool {
    let array = json
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    !matches!(json, "null" | "\"\"") && array.is_none_or(|elements| !elements.trim().is_empty())
}

/// The members of a JWK that jsonwebtoken would not tell us about.
struct Members<'a> {
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

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MembersVisitor;

        impl<'de> Visitor<'de> for MembersVisitor {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JWK")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Members {
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
                                    // A private key stays one, whatever else is there.
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

        deserializer.deserialize_map(MembersVisitor)
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
    pub(super) fn from_error(error: &Error) -> Option<&Self> {
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

    fn skip_reason(member: &str) -> SkipReason {
        // A key of its own: no member's private half is that of it.
        let good = format!(r#"{{"kty":"RSA","n":"{N}","e":"AQAB","kid":"good"}}"#);
        let document = format!(r#"{{"keys":[{good},{member}]}}"#);
        let keys = parse_set(document.as_bytes(), Quirks::None, 1).unwrap();
        assert_eq!(keys.len(), 1, "{member}");
        keys.0.skipped.first().expect(member).1
    }

    #[test]
    fn one_unusable_key_does_no_harm_to_its_siblings() {
        for (member, reason) in [
            (
                r#"{"kty":"unheard-of","kid":"a"}"#.to_owned(),
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
            (
                format!(r#"{{"kty":"RSA","n":"AA{N}","e":"AQAB"}}"#),
                SkipReason::Invalid,
            ),
            ("7".to_owned(), SkipReason::Malformed),
            ("null".to_owned(), SkipReason::Malformed),
        ] {
            assert_eq!(skip_reason(&member), reason, "{member}");
        }
    }

    #[test]
    fn a_kid_that_two_keys_share_is_refused_and_the_others_stay() {
        let document = format!(
            r#"{{"keys":[{{{ED25519},"kid":"a"}},{{{ED25519},"kid":"a"}},{{{ED25519},"kid":"b"}},{{{ED25519}}},{{{ED25519}}}]}}"#
        );
        let keys = parse_set(document.as_bytes(), Quirks::None, 1).unwrap();
        assert_eq!(keys.key_ids().collect::<Vec<_>>(), ["b"]);
        assert_eq!(keys.len(), 3, "two keys without `kid` both survive");
        assert_eq!(
            keys.skipped()
                .filter(|(_, reason)| *reason == SkipReason::DuplicateKeyId)
                .count(),
            2
        );
    }

    #[test]
    fn what_is_private_is_told_as_such_whatever_else_is_there_and_each_member_once() {
        assert_eq!(
            skip_reason(r#"{"kty":"oct","d":"AAAA","k":"AAAA"}"#),
            SkipReason::PrivateKey
        );
        let document = format!(
            r#"{{"keys":[{{{ED25519},"kid":"a"}},{{{ED25519},"kid":"a"}},{{{ED25519},"kid":"a","d":"AAAA"}},{{"kty":"RSA","n":"{N}","e":"AQAB","kid":"b"}}]}}"#
        );
        let keys = parse_set(document.as_bytes(), Quirks::None, 1).unwrap();
        assert_eq!(keys.key_ids().collect::<Vec<_>>(), ["b"]);
        assert_eq!(
            keys.skipped().collect::<Vec<_>>(),
            [(Some("a"), SkipReason::PrivateKey); 3]
        );
    }

    #[test]
    fn a_private_key_is_known_by_its_numbers_whatever_it_says_that_it_is_for() {
        let good = format!(r#"{{"kty":"RSA","n":"{N}","e":"AQAB","kid":"good"}}"#);
        for says in [
            r#""key_ops":["sign"]"#,
            r#""use":"enc""#,
            r#""alg":"RSA-OAEP""#,
            r#""alg":"ES256","x5c":["AAAA"]"#,
            r#""kid":"b""#,
        ] {
            let document = format!(
                r#"{{"keys":[{{{ED25519},"d":"AAAA",{says}}},{{{ED25519},"kid":"a"}},{{{ED25519}}},{good}]}}"#
            );
            let keys = parse_set(document.as_bytes(), Quirks::None, 1).unwrap();
            assert_eq!(
                (keys.len(), keys.key_ids().next()),
                (1, Some("good")),
                "{says}"
            );
            assert!(
                keys.skipped()
                    .all(|(_, reason)| reason == SkipReason::PrivateKey),
                "{says}"
            );
        }
        let odd = format!(r#"{{{ED25519},"d":"AAAA","kid":"{}"}}"#, "x".repeat(300));
        assert_eq!(
            skip_reason(&odd),
            SkipReason::PrivateKey,
            "no legal name, and an alarm all the same"
        );
    }

    #[test]
    fn a_document_without_a_usable_key_is_no_key_set() {
        let kind = |document: &str| {
            parse_set(document.as_bytes(), Quirks::None, 1)
                .unwrap_err()
                .kind()
        };
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

    #[test]
    fn app_ids_leading_zero_and_standard_base64_are_normalised_only_for_app_id() {
        let quirky = N.replace('-', "+").replace('_', "/");
        // 257 bytes: the modulus behind a zero byte.
        let mut bytes = vec![0];
        bytes.extend(decode_base64url(N).unwrap());
        let with_zero =
            base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, &bytes);
        for n in [format!("{quirky}=="), with_zero] {
            let document =
                format!(r#"{{"keys":[{{"kty":"RSA","kid":"a","n":"{n}","e":"AQAB"}}]}}"#);
            assert!(
                parse_set(document.as_bytes(), Quirks::AppId, 1).is_ok(),
                "{n}"
            );
            let error = parse_set(document.as_bytes(), Quirks::None, 1).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NoUsableKey);
        }
    }
}
