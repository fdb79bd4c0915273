//! The keys of one issuer, and the selection of a key for a token.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use super::compromised::CompromisedKeys;
use super::revoked::RevokedKeys;
use super::skipped_key::SkippedKey;
use crate::jwt::{Fingerprint, Header, VerificationKey};

/// The public keys of an issuer, parsed and checked
/// ([RFC 7517 §5](https://www.rfc-editor.org/rfc/rfc7517#section-5)).
///
/// Cheap to clone.
///
/// ```
/// use tower_oauth::key_set::KeySet;
///
/// // RFC 8037 appendix A.2; the type of the second member is not supported.
/// let keys = KeySet::from_json(br#"{"keys":[
///     {"kty":"OKP","crv":"Ed25519","kid":"2026-11",
///      "x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"},
///     {"kty":"OKP","crv":"X25519","kid":"for-encryption",
///      "x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}
/// ]}"#)?;
/// assert_eq!(keys.len(), 1);
/// assert_eq!(keys.skipped().count(), 1);
/// # Ok::<(), tower_oauth::Error>(())
/// ```
#[derive(Clone)]
pub struct KeySet(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub(super) by_kid: HashMap<Box<str>, VerificationKey>,
    pub(super) without_kid: Vec<VerificationKey>,
    /// Keys that share a `kid`. They are used only with `use_duplicates`.
    pub(super) duplicates: HashMap<Box<str>, Vec<VerificationKey>>,
    /// Whether `max_candidate_keys` allows more than one key for a `kid`.
    pub(super) use_duplicates: bool,
    pub(super) skipped: Vec<SkippedKey>,
    /// The private keys among the skipped members.
    pub(super) compromised: CompromisedKeys,
}

/// Why no key was selected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SelectError {
    /// The key with this `kid` is revoked, or every matching key is.
    Revoked,
    /// The key with this `kid` is for another algorithm, or the token has no `kid` and no key
    /// matches. A refresh would not help.
    NoMatch,
    /// More keys match than may be tried. A refresh would not help.
    Ambiguous,
    /// The matching key is for the tokens of another issuer. A refresh would not help.
    OtherIssuer,
    /// No key has this `kid`. It may have been published since the last refresh.
    UnknownKid,
}

impl KeySet {
    /// The number of usable keys. Never zero.
    #[must_use]
    #[expect(
        clippy::len_without_is_empty,
        reason = "a set without keys cannot be constructed"
    )]
    pub fn len(&self) -> usize {
        self.0.by_kid.len()
            + self.0.without_kid.len()
            + self
                .used_duplicates()
                .map(|(_, keys)| keys.len())
                .sum::<usize>()
    }

    /// The `kid`s of the usable keys that have one, in no particular order.
    ///
    /// ```
    /// use tower_oauth::key_set::KeySet;
    ///
    /// let keys = KeySet::from_json(br#"{"keys":[
    ///     {"kty":"OKP","crv":"Ed25519","kid":"2026-11",
    ///      "x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}
    /// ]}"#)?;
    /// assert_eq!(keys.key_ids().collect::<Vec<_>>(), ["2026-11"]);
    /// # Ok::<(), tower_oauth::Error>(())
    /// ```
    pub fn key_ids(&self) -> impl Iterator<Item = &str> {
        self.0
            .by_kid
            .keys()
            .chain(self.used_duplicates().map(|(kid, _)| kid))
            .map(|kid| &**kid)
    }

    /// The usable keys with their `kid`s, in no particular order.
    pub(crate) fn used_keys(&self) -> impl Iterator<Item = (Option<&str>, &VerificationKey)> {
        let duplicates = self.used_duplicates();
        let duplicates = duplicates.flat_map(|(kid, keys)| keys.iter().map(move |key| (kid, key)));
        let with_kid = self.0.by_kid.iter().chain(duplicates);
        let without_kid = self.0.without_kid.iter().map(|key| (None, key));
        with_kid
            .map(|(kid, key)| (Some(&**kid), key))
            .chain(without_kid)
    }

    /// The keys that share a `kid`, if they are used.
    fn used_duplicates(&self) -> impl Iterator<Item = (&Box<str>, &Vec<VerificationKey>)> {
        self.0.duplicates.iter().filter(|_| self.0.use_duplicates)
    }

    /// The skipped members, each with its reason.
    pub fn skipped(&self) -> impl Iterator<Item = &SkippedKey> {
        self.0.skipped.iter()
    }

    /// Whether the document has a private key.
    pub(super) fn has_private_keys(&self) -> bool {
        !self.0.compromised.is_empty()
    }

    /// Whether one of the keys is not revoked.
    pub(super) fn has_unrevoked(&self, revoked: &RevokedKeys) -> bool {
        let without_kid = self
            .0
            .without_kid
            .iter()
            .any(|key| !revoked.contains(None, key));
        without_kid
            || self
                .all_with_kid()
                .any(|(kid, key)| !revoked.contains(Some(kid), key))
    }

    /// Whether the set has a usable key with this `kid`.
    pub(super) fn has_kid(&self, kid: &str) -> bool {
        let Inner {
            by_kid,
            duplicates,
            use_duplicates,
            ..
        } = &*self.0;
        by_kid.contains_key(kid) || *use_duplicates && duplicates.contains_key(kid)
    }

    /// Every key with a `kid`, usable or not.
    pub(super) fn all_with_kid(&self) -> impl Iterator<Item = (&str, &VerificationKey)> {
        let shared = self
            .0
            .duplicates
            .iter()
            .flat_map(|(kid, keys)| keys.iter().map(move |key| (kid, key)));
        self.0
            .by_kid
            .iter()
            .chain(shared)
            .map(|(kid, key)| (&**kid, key))
    }

    /// The keys with this `kid`, usable or not.
    pub(super) fn all_for_kid(&self, kid: &str) -> impl Iterator<Item = &VerificationKey> {
        let shared = self.0.duplicates.get(kid).into_iter().flatten();
        self.0.by_kid.get(kid).into_iter().chain(shared)
    }

    /// Whether the set has this very key under a unique `kid` and it is not revoked.
    pub(super) fn contains_key(&self, key: Fingerprint, revoked: &RevokedKeys) -> bool {
        self.0
            .by_kid
            .iter()
            .any(|(kid, own)| own.fingerprint() == key && !revoked.contains(Some(kid), own))
    }

    /// Selects the key that may have signed a token with this header. If several match, all of
    /// them are returned, unless they are more than `limit`.
    pub(crate) fn select(
        &self,
        header: &Header,
        revoked: &RevokedKeys,
        limit: usize,
    ) -> Result<Candidates<'_>, SelectError> {
        let Inner {
            by_kid,
            without_kid,
            duplicates,
            ..
        } = &*self.0;
        let matches = |key: &&VerificationKey| key.supports(header.algorithm);
        let Some(kid) = header.key_id.as_deref() else {
            let with_kid = by_kid.iter().map(|(kid, key)| (Some(&**kid), key));
            let all = with_kid.chain(without_kid.iter().map(|key| (None, key)));
            return Candidates::unrevoked(all.filter(|(_, key)| matches(key)), revoked, limit);
        };
        let with_kid = |key| (Some(kid), key);
        match (by_kid.get(kid), duplicates.get(kid)) {
            _ if revoked.contains_kid(kid) => Err(SelectError::Revoked),
            (Some(key), _) => {
                let key = std::iter::once(key).filter(matches).map(with_kid);
                Candidates::unrevoked(key, revoked, 1)
            }
            (None, Some(keys)) if limit > 1 => {
                let keys = keys.iter().filter(matches).map(with_kid);
                Candidates::unrevoked(keys, revoked, limit)
            }
            (None, _) => Err(SelectError::UnknownKid),
        }
    }
}

/// The keys that a signature is checked against: one, unless `max_candidate_keys` allows more.
#[derive(Debug)]
pub(crate) enum Candidates<'k> {
    One([&'k VerificationKey; 1]),
    Many(Vec<&'k VerificationKey>),
}

impl<'k> Candidates<'k> {
    /// The unrevoked ones of `keys`, unless they are more than `limit`.
    fn unrevoked<'i>(
        keys: impl Iterator<Item = (Option<&'i str>, &'k VerificationKey)>,
        revoked: &RevokedKeys,
        limit: usize,
    ) -> Result<Self, SelectError> {
        let mut has_revoked = false;
        let usable = keys.filter(|(kid, key)| {
            let is_revoked = revoked.contains(*kid, key);
            has_revoked |= is_revoked;
            !is_revoked
        });
        let mut usable = usable.map(|(_, key)| key).peekable();
        let has_usable = usable.peek().is_some();
        let candidates = Self::collect(usable, limit);
        if has_revoked && !has_usable {
            Err(SelectError::Revoked)
        } else {
            candidates
        }
    }

    /// Collects `keys`, unless they are more than `limit`. The same public key under two `kid`s is
    /// one key.
    fn collect(
        mut keys: impl Iterator<Item = &'k VerificationKey>,
        limit: usize,
    ) -> Result<Self, SelectError> {
        let is_same = |one: &VerificationKey, other: &VerificationKey| {
            one.public_key_digest() == other.public_key_digest()
        };
        let first = keys.next().ok_or(SelectError::NoMatch)?;
        let Some(second) = keys.find(|key| !is_same(first, key)) else {
            return Ok(Self::One([first]));
        };
        let mut many = vec![first, second];
        for key in keys {
            if many.len() > limit {
                break;
            }
            if !many.iter().any(|known| is_same(known, key)) {
                many.push(key);
            }
        }
        if many.len() <= limit {
            Ok(Self::Many(many))
        } else {
            Err(SelectError::Ambiguous)
        }
    }

    /// Those of the keys that are accepted.
    pub(crate) fn accepted(
        self,
        is_accepted: impl Fn(&VerificationKey) -> bool,
    ) -> Result<Self, SelectError> {
        let keys = match self {
            Self::One([key]) if is_accepted(key) => Self::One([key]),
            Self::One(_) => return Err(SelectError::OtherIssuer),
            Self::Many(mut keys) => {
                keys.retain(|key| is_accepted(key));
                Self::Many(keys)
            }
        };
        match keys.as_slice().is_empty() {
            true => Err(SelectError::OtherIssuer),
            false => Ok(keys),
        }
    }

    pub(crate) fn as_slice(&self) -> &[&'k VerificationKey] {
        match self {
            Self::One(key) => key,
            Self::Many(keys) => keys,
        }
    }
}

impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeySet")
            .field("keys", &self.0.by_kid)
            .field("skipped", &self.0.skipped)
            .finish_non_exhaustive()
    }
}
