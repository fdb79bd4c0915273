//! Revoked keys, which are not used even if the issuer still publishes them.

use std::collections::HashSet;
use std::sync::Arc;

use crate::jwt::{Fingerprint, VerificationKey};

/// Revoked keys by `kid` and by public key, because a key may return under another `kid`.
#[derive(Clone, Debug, Default)]
pub(crate) struct RevokedKeys {
    kids: HashSet<Box<str>>,
    public_keys: HashSet<Fingerprint>,
}

impl RevokedKeys {
    /// Returns a changed copy.
    pub(super) fn with(self: &Arc<Self>, change: impl FnOnce(&mut Self)) -> Arc<Self> {
        let mut copy = Self::clone(self);
        change(&mut copy);
        Arc::new(copy)
    }

    pub(super) fn insert_kid(&mut self, kid: &str) {
        self.kids.insert(kid.into());
    }

    pub(super) fn insert_public_key(&mut self, public_key: Fingerprint) {
        self.public_keys.insert(public_key);
    }

    /// Revokes a key under any `kid`.
    pub(super) fn insert(&mut self, key: &VerificationKey) {
        self.insert_public_key(key.public_key_digest());
    }

    pub(super) fn contains_kid(&self, kid: &str) -> bool {
        self.kids.contains(kid)
    }

    /// Whether this key is revoked, by its `kid` or by its public key.
    pub(super) fn contains(&self, kid: Option<&str>, key: &VerificationKey) -> bool {
        kid.is_some_and(|kid| self.contains_kid(kid))
            || self.public_keys.contains(&key.public_key_digest())
    }
}
