//! Keys whose private part the issuer published, so that anyone can sign with them.

use super::{KeySet, RevokedKeys};
use crate::jwt::{Fingerprint, VerificationKey};

/// The private keys of one document, indexed by `kid` and by public-key digest: the public part
/// may be published under another `kid`, or without one.
#[derive(Clone, Debug, Default)]
pub(super) struct CompromisedKeys(Vec<Compromised>);

#[derive(Clone, Debug)]
struct Compromised {
    kid: Option<Box<str>>,
    /// `None` if the member has no readable public key.
    public_key: Option<Fingerprint>,
}

impl CompromisedKeys {
    /// Adds a member that was published with its private part.
    pub(super) fn insert(&mut self, kid: Option<&str>, public_key: Option<Fingerprint>) {
        self.0.push(Compromised {
            kid: kid.map(Box::from),
            public_key,
        });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this key is one of them.
    pub(super) fn contains(&self, kid: Option<&str>, key: &VerificationKey) -> bool {
        self.0.iter().any(|entry| {
            let same_kid = kid.is_some() && entry.kid.as_deref() == kid;
            same_kid || entry.public_key == Some(key.public_key_digest())
        })
    }

    /// Whether a compromised key of `keys` has no `kid` by which it could be revoked.
    pub(super) fn contains_without_kid(&self, keys: &KeySet) -> bool {
        keys.0
            .without_kid
            .iter()
            .any(|key| self.contains(None, key))
    }

    /// Revokes their public keys. For a member without a readable public key these are the keys
    /// of `keys` with its `kid`.
    pub(super) fn revoke_public_keys(&self, keys: Option<&KeySet>, revoked: &mut RevokedKeys) {
        for Compromised { kid, public_key } in &self.0 {
            match (public_key, kid, keys) {
                (Some(public_key), ..) => revoked.insert_public_key(*public_key),
                (None, Some(kid), Some(keys)) => {
                    keys.all_for_kid(kid).for_each(|key| revoked.insert(key))
                }
                (None, ..) => {}
            }
        }
    }

    /// Revokes their `kid`s, and the `kid`s under which `keys` has them.
    pub(super) fn revoke_kids(&self, keys: Option<&KeySet>, revoked: &mut RevokedKeys) {
        let published = keys.into_iter().flat_map(KeySet::all_with_kid);
        let published = published
            .filter(|(kid, key)| self.contains(Some(kid), key))
            .map(|(kid, _)| kid);
        let own = self.0.iter().filter_map(|entry| entry.kid.as_deref());
        published.chain(own).for_each(|kid| revoked.insert_kid(kid));
    }
}

impl KeySet {
    /// Whether the document has a private key.
    pub(super) fn has_private_keys(&self) -> bool {
        !self.0.compromised.is_empty()
    }
}
