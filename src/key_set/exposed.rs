//! Keys whose private half the issuer published: whoever read it can sign by them.

use super::{KeySet, Revoked, SkipReason};
use crate::jwt::{Fingerprint, VerificationKey};

/// By name, and by what they are: the public half may stand under another name, or without one.
#[derive(Debug, Default)]
pub(super) struct Exposed {
    kids: Revoked,
    materials: Vec<Fingerprint>,
}

impl Exposed {
    /// Notes a member that was published with its private half; `material` where that could be read.
    pub(super) fn note(&mut self, kid: Option<&str>, material: Option<Fingerprint>) {
        self.kids.extend(kid.map(Box::from));
        self.materials.extend(material);
    }

    /// Whether everybody can sign as this key.
    pub(super) fn concerns(&self, kid: Option<&str>, key: &VerificationKey) -> bool {
        kid.is_some_and(|kid| self.kids.contains(kid)) || self.materials.contains(&key.material())
    }

    /// The names that count for nothing where `keys` are in use.
    pub(super) fn kids_among(&self, keys: &KeySet) -> Revoked {
        let shared = keys.0.ambiguous.iter().flat_map(|(kid, keys)| keys.iter().map(move |key| (kid, key)));
        let concerned = keys.0.by_id.iter().chain(shared).filter(|(kid, key)| self.concerns(Some(kid), key));
        concerned.map(|(kid, _)| kid.clone()).chain(self.kids.iter().cloned()).collect()
    }

    /// Whether one of `keys` has no name by which it could be put aside.
    pub(super) fn is_nameless_among(&self, keys: &KeySet) -> bool {
        keys.0.without_id.iter().any(|key| self.concerns(None, key))
    }
}

impl KeySet {
    /// Whether the issuer publishes the private half of a key.
    pub(super) fn holds_private_keys(&self) -> bool {
        self.0.skipped.iter().any(|(_, why)| *why == SkipReason::PrivateKey)
    }
}
