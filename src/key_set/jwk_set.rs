//! Parses a JWK Set document (RFC 7517 §5) into a key set.
//!
//! The members are parsed one at a time, so that an unusable one does not affect the others.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::compromised::{Compromised, CompromisedKeys};
use super::jwk::Member;
use super::set::{Inner, KeySet};
use super::skip_reason::SkipReason;
use super::skipped_key::{Skip, SkippedKey};
use crate::error::{Error, ErrorKind, Operation};
use crate::jwt::VerificationKey;

/// The largest number of members, which bounds the work for one document.
const MAX_KEYS: usize = 100;

/// The deepest nesting. A JWK is an object that contains at most arrays of strings.
const MAX_DEPTH: u32 = 16;

/// RFC 8259 §8.1: a parser may ignore it.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

#[derive(Deserialize)]
struct Document<'a> {
    #[serde(borrow)]
    keys: Vec<&'a RawValue>,
}

impl KeySet {
    /// Parses a JWK Set document.
    ///
    /// An unusable member is skipped and reported by [`skipped`](Self::skipped). It does
    /// not affect the others. [`guide::published_documents`](mod@crate::guide::published_documents)
    /// says what is used in which form.
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
    /// If the document is not a JWK Set, has more than 100 members, or has no usable key. Different
    /// keys that share a `kid` do not count as usable here, and are listed as skipped. Tokens are
    /// verified with them if [`max_candidate_keys`](crate::TrustedIssuer::max_candidate_keys) is
    /// above 1.
    pub fn from_json(document: &[u8]) -> Result<Self, Error> {
        parse_set(document, 1)
    }
}

/// Parses a document. Different keys that share a `kid` are used only if `max_candidate_keys` is
/// above 1.
pub(super) fn parse_set(document: &[u8], max_candidate_keys: usize) -> Result<KeySet, Error> {
    let error = |kind| Error::new(Operation::JwksFetch, kind);
    let document = document.strip_prefix(BYTE_ORDER_MARK).unwrap_or(document);
    if deeper_than(document, MAX_DEPTH) {
        let detail = format!("it nests deeper than {MAX_DEPTH} levels");
        return Err(error(ErrorKind::Malformed).with_detail(detail));
    }
    // RFC 8259 §8.1: the whole document is UTF-8, ignored members included.
    let text = std::str::from_utf8(document)
        .map_err(|source| error(ErrorKind::Malformed).with_source(source))?;
    if !text.trim_start().starts_with('{') {
        let detail = "expected a JSON object with an array `keys`";
        return Err(error(ErrorKind::Malformed).with_detail(detail));
    }
    let document: Document<'_> = serde_json::from_str(text)
        .map_err(|source| error(ErrorKind::Malformed).with_source(source))?;
    if document.keys.len() > MAX_KEYS {
        return Err(error(ErrorKind::TooLarge));
    }
    let members = document
        .keys
        .iter()
        .map(|member| Member::parse(member.get()));
    let members: Vec<Member> = members.collect();
    let compromised = compromised(&members);
    let mut skipped = Vec::new();
    let mut all_by_kid: BTreeMap<Box<str>, Vec<VerificationKey>> = BTreeMap::new();
    let mut without_kid = Vec::new();
    for Member { kid, key, .. } in members {
        match (kid, key) {
            (kid, Ok(key)) if compromised.contains(kid.as_deref(), &key) => {
                let detail = "its private part is published by another member";
                let skip = Skip::new(SkipReason::PrivateKey, detail);
                skipped.push(SkippedKey::new(kid, skip));
            }
            (Some(kid), Ok(key)) => add(all_by_kid.entry(kid).or_default(), key),
            (None, Ok(key)) => add(&mut without_kid, key),
            (kid, Err(skip)) => skipped.push(SkippedKey::new(kid, skip)),
        }
    }
    let use_duplicates = max_candidate_keys > 1;
    let (mut by_kid, mut duplicates) = (HashMap::new(), HashMap::new());
    for (kid, mut keys) in all_by_kid {
        match keys.pop() {
            Some(key) if keys.is_empty() => {
                let key = key.with_kid(&kid);
                by_kid.insert(kid, key);
            }
            last => {
                keys.extend(last);
                if !use_duplicates {
                    let detail = "another member has the same kid and another key";
                    let skip = Skip::new(SkipReason::DuplicateKeyId, detail);
                    let skip = SkippedKey::new(Some(kid.clone()), skip);
                    skipped.extend(keys.iter().map(|_| skip.clone()));
                }
                duplicates.insert(kid, keys);
            }
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

/// Adds a key. The same public key listed twice, or for two algorithms, is one key.
fn add(keys: &mut Vec<VerificationKey>, key: VerificationKey) {
    let mut known = keys.iter_mut();
    match known.find(|known| known.public_key_digest() == key.public_key_digest()) {
        Some(known) => known.merge(key),
        None => keys.push(key),
    }
}

/// The private keys among these members.
fn compromised(members: &[Member]) -> CompromisedKeys {
    let mut compromised = CompromisedKeys::default();
    for Compromised { kid, public_key } in members.iter().flat_map(|member| &member.disclosed) {
        compromised.insert(kid.as_deref(), *public_key);
    }
    // A private key without a readable public key is identified by the public key with its `kid`.
    for Member { kid, key, .. } in members {
        if let Ok(key) = key
            && compromised.contains(kid.as_deref(), key)
        {
            compromised.insert(None, Some(key.public_key_digest()));
        }
    }
    compromised
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
        /// The longest list of reasons.
        const MOST: usize = 5;
        let mut counts = BTreeMap::new();
        for skipped in self.keys.skipped() {
            let reason = (skipped.reason().as_str(), skipped.detail());
            *counts.entry(reason).or_insert(0_u32) += 1;
        }
        f.write_str("members that cannot be used:")?;
        if counts.is_empty() {
            f.write_str(" none, the set is empty")?;
        }
        for (number, ((code, detail), count)) in counts.iter().take(MOST).enumerate() {
            let separator = if number == 0 { "" } else { ";" };
            write!(f, "{separator} {count} {code} ({detail})")?;
        }
        if counts.len() > MOST {
            f.write_str("; …")?;
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

    fn kid_and_reason(skipped: &SkippedKey) -> (Option<&str>, SkipReason) {
        (skipped.kid(), skipped.reason())
    }

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
        keys.0.skipped.first().expect(member).reason()
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
            (
                format!(r#"{{{ED25519},"kid":["a"]}}"#),
                SkipReason::Malformed,
            ),
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
    fn different_keys_that_share_a_kid_are_skipped_and_the_others_are_used() {
        let rsa = format!(r#""kty":"RSA","n":"{N}","e":"AQAB""#);
        let document = document([
            format!(r#"{ED25519},"kid":"a""#),
            format!(r#"{rsa},"kid":"a""#),
            format!(r#"{ED25519},"kid":"b""#),
            ED25519.to_owned(),
            rsa,
        ]);
        let keys = parse_set(document.as_bytes(), 1).unwrap();
        assert_eq!(keys.key_ids().collect::<Vec<_>>(), ["b"]);
        assert_eq!(keys.len(), 3, "both keys without `kid` are used");
        assert_eq!(
            keys.skipped().map(kid_and_reason).collect::<Vec<_>>(),
            [(Some("a"), SkipReason::DuplicateKeyId); 2]
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
            keys.skipped().map(kid_and_reason).collect::<Vec<_>>(),
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
                    .all(|skipped| skipped.reason() == SkipReason::PrivateKey),
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
}
