//! The keys of one issuer, and how they are kept fresh.
//!
//! ```text
//! source ──fetch──▶ bytes ──jwk──▶ KeySet ──publish──▶ snapshot ◀──load── requests
//!    ▲                                                    │
//!    └──────────── schedule ◀── refresher ◀── demand ─────┘ (unknown `kid`)
//! ```
//!
//! Requests read an immutable snapshot; only the refresher fetches, one at a time.

mod cache_control;
mod compromised;
mod config;
mod fetcher;
mod handle;
pub(crate) mod initial_keys;
mod jwk;
mod negative_cache;
mod on_demand;
mod policy;
mod rate_limit;
mod refresher;
mod revoked;
mod schedule;
mod snapshot;
mod state;
mod status;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use self::compromised::CompromisedKeys;
pub(crate) use self::config::Refresh;
pub(crate) use self::fetcher::Source;
pub(crate) use self::handle::KeySetHandle;
pub(crate) use self::jwk::Quirks;
pub use self::jwk::SkipReason;
pub(crate) use self::on_demand::{Demand, Wait};
pub use self::policy::RefreshPolicy;
pub(crate) use self::revoked::RevokedKeys;
pub use self::schedule::RefreshCause;
pub(crate) use self::snapshot::Snapshot;
pub use self::status::{KeySetState, KeySetStatus, RefreshCounts};
use crate::error::Error;
use crate::jwt::{Fingerprint, Header, KeyId, VerificationKey};

/// The public keys of an issuer, parsed and checked
/// ([RFC 7517 §5](https://www.rfc-editor.org/rfc/rfc7517#section-5)).
///
/// Cheap to clone.
///
/// ```
/// use tower_oauth::KeySet;
///
/// // RFC 8037 appendix A.2; the second member is of a type that is not supported.
/// let keys = KeySet::from_json(br#"{"keys":[
///     {"kty":"OKP","crv":"Ed25519","kid":"2026-11","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"},
///     {"kty":"OKP","crv":"X25519","kid":"for-encryption","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}
/// ]}"#)?;
/// assert_eq!(keys.len(), 1);
/// assert_eq!(keys.skipped().count(), 1);
/// # Ok::<(), tower_oauth::Error>(())
/// ```
#[derive(Clone)]
pub struct KeySet(Arc<Inner>);

struct Inner {
    by_kid: HashMap<Box<str>, VerificationKey>,
    without_kid: Vec<VerificationKey>,
    /// Keys that share a `kid`, which is why none of them is used unless that was opted into.
    duplicates: HashMap<Box<str>, Vec<VerificationKey>>,
    /// It was, for the issuer whose set this is: they count like the others.
    use_duplicates: bool,
    skipped: Vec<(Option<Box<str>>, SkipReason)>,
    /// Those of the skipped members that are private keys.
    compromised: CompromisedKeys,
}

/// Why no key was selected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SelectError {
    /// The named key was revoked, or every key that fits was.
    Revoked,
    /// The named key is for another algorithm, or a token without `kid` fits not exactly one key.
    /// Fetching again would not help.
    NoMatch,
    /// No key has this `kid`. It may be newer than the set.
    UnknownKid,
}

impl KeySet {
    /// Reads a JWK Set document.
    ///
    /// A member that cannot be used is skipped and reported by [`skipped`](Self::skipped); it
    /// does no harm to the others.
    ///
    /// # Errors
    ///
    /// If the document is no JWK Set, has more than 100 members, or holds no usable key. Keys that
    /// share a `kid` are none here, whatever
    /// [`max_candidate_keys`](crate::TrustedIssuer::max_candidate_keys) says.
    pub fn from_json(document: &[u8]) -> Result<Self, Error> {
        jwk::parse_set(document, Quirks::None, 1)
    }

    /// The number of usable keys; at least one.
    #[must_use]
    #[expect(
        clippy::len_without_is_empty,
        reason = "a set without keys cannot be made"
    )]
    pub fn len(&self) -> usize {
        self.0.by_kid.len()
            + self.0.without_kid.len()
            + self
                .used_duplicates()
                .map(|(_, keys)| keys.len())
                .sum::<usize>()
    }

    /// The identifiers (`kid`) of the usable keys that have one, in no particular order.
    pub fn key_ids(&self) -> impl Iterator<Item = &str> {
        self.0
            .by_kid
            .keys()
            .chain(self.used_duplicates().map(|(kid, _)| kid))
            .map(|kid| &**kid)
    }

    /// The keys that share a `kid`, if they are used all the same.
    fn used_duplicates(&self) -> impl Iterator<Item = (&Box<str>, &Vec<VerificationKey>)> {
        self.0.duplicates.iter().filter(|_| self.0.use_duplicates)
    }

    /// The members that were skipped: `kid` where it could be read, and the reason.
    pub fn skipped(&self) -> impl Iterator<Item = (Option<&str>, SkipReason)> {
        self.0
            .skipped
            .iter()
            .map(|(kid, reason)| (kid.as_deref(), *reason))
    }

    /// Whether one of the keys is not revoked.
    fn has_unrevoked(&self, revoked: &RevokedKeys) -> bool {
        let unnamed = self
            .0
            .without_kid
            .iter()
            .any(|key| !revoked.contains(None, key));
        unnamed
            || self
                .all_with_kid()
                .any(|(kid, key)| !revoked.contains(Some(kid), key))
    }

    /// Whether a usable key has this `kid`.
    fn has_kid(&self, kid: &str) -> bool {
        let Inner {
            by_kid,
            duplicates,
            use_duplicates,
            ..
        } = &*self.0;
        by_kid.contains_key(kid) || *use_duplicates && duplicates.contains_key(kid)
    }

    /// Every key that has a `kid`, with it, of use or not.
    fn all_with_kid(&self) -> impl Iterator<Item = (&str, &VerificationKey)> {
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

    /// The keys that this `kid` names, of use or not.
    fn all_for_kid(&self, kid: &str) -> impl Iterator<Item = &VerificationKey> {
        let shared = self.0.duplicates.get(kid).into_iter().flatten();
        self.0.by_kid.get(kid).into_iter().chain(shared)
    }

    /// Whether this key, with its `kid`, is one of those that have a `kid` of their own.
    fn contains_key(&self, key: Fingerprint, revoked: &RevokedKeys) -> bool {
        self.0
            .by_kid
            .iter()
            .any(|(kid, own)| own.fingerprint() == key && !revoked.contains(Some(kid), own))
    }

    /// The key that may have signed a token with this header. Where the header does not say which,
    /// those that may, if they are no more than `limit`.
    pub(crate) fn select(
        &self,
        header: &Header<'_>,
        revoked: &RevokedKeys,
        limit: usize,
    ) -> Result<Candidates<'_>, SelectError> {
        let Inner {
            by_kid,
            without_kid,
            duplicates,
            ..
        } = &*self.0;
        let fits = |key: &&VerificationKey| key.supports(header.algorithm);
        let Some(kid) = header.key_id.as_ref().map(KeyId::as_str) else {
            let named = by_kid.iter().map(|(kid, key)| (Some(&**kid), key));
            let all = named.chain(without_kid.iter().map(|key| (None, key)));
            return Candidates::unrevoked(all.filter(|(_, key)| fits(key)), revoked, limit);
        };
        let named = |key| (Some(kid), key);
        match (by_kid.get(kid), duplicates.get(kid)) {
            _ if revoked.contains_kid(kid) => Err(SelectError::Revoked),
            (Some(key), _) => {
                Candidates::unrevoked(std::iter::once(key).filter(fits).map(named), revoked, 1)
            }
            (None, Some(keys)) if limit > 1 => {
                Candidates::unrevoked(keys.iter().filter(fits).map(named), revoked, limit)
            }
            (None, _) => Err(SelectError::UnknownKid),
        }
    }
}

/// The keys that a signature is tried with: one, unless more was opted into.
#[derive(Debug)]
pub(crate) enum Candidates<'k> {
    One([&'k VerificationKey; 1]),
    Many(Vec<&'k VerificationKey>),
}

impl<'k> Candidates<'k> {
    /// Those of `keys`, each with its `kid`, that are not revoked, if they are no more than
    /// `limit`.
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

    fn collect(
        mut keys: impl Iterator<Item = &'k VerificationKey>,
        limit: usize,
    ) -> Result<Self, SelectError> {
        let first = keys.next().ok_or(SelectError::NoMatch)?;
        let Some(second) = keys.next() else {
            return Ok(Self::One([first]));
        };
        let more: Vec<_> = [first, second]
            .into_iter()
            .chain(keys)
            .take(limit.saturating_add(1))
            .collect();
        if more.len() <= limit {
            Ok(Self::Many(more))
        } else {
            Err(SelectError::NoMatch)
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
