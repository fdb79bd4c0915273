//! Keys whose private part the issuer published: anyone who read it can sign with them.

use super::{KeySet, RevokedKeys};
use crate::jwt::{Fingerprint, VerificationKey};

/// The private keys of one document, by `kid` and by public key: the public part may be published
/// under another `kid`, or without one.
#[derive(Clone, Debug, Default)]
pub(super) struct CompromisedKeys(Vec<Compromised>);

#[derive(Clone, Debug)]
struct Compromised {
    kid: Option<Box<str>>,
    /// `None` if the member's public numbers could not be read.
    material: Option<Fingerprint>,
}

impl CompromisedKeys {
    /// Adds a member that was published with its private part.
    pub(super) fn insert(&mut self, kid: Option<&str>, material: Option<Fingerprint>) {
        self.0.push(Compromised {
            kid: kid.map(Box::from),
            material,
        });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this key is one of them.
    pub(super) fn contains(&self, kid: Option<&str>, key: &VerificationKey) -> bool {
        self.0.iter().any(|one| {
            let same_kid = kid.is_some() && one.kid.as_deref() == kid;
            same_kid || one.material == Some(key.material())
        })
    }

    /// Whether one of `keys` has no `kid` by which it could be revoked.
    pub(super) fn contains_unnamed(&self, keys: &KeySet) -> bool {
        keys.0.without_id.iter().any(|key| self.contains(None, key))
    }

    /// Revokes their public keys. A member without readable numbers stands for the keys
    /// that its `kid` names in `keys`.
    pub(super) fn revoke_materials(&self, keys: Option<&KeySet>, revoked: &mut RevokedKeys) {
        for Compromised { kid, material } in &self.0 {
            match (material, kid, keys) {
                (Some(material), ..) => revoked.insert_material(*material),
                (None, Some(kid), Some(keys)) => {
                    keys.named(kid).for_each(|key| revoked.insert(key))
                }
                (None, ..) => {}
            }
        }
    }

    /// Revokes their `kid`s, and those by which `keys` names them.
    pub(super) fn revoke_kids(&self, keys: Option<&KeySet>, revoked: &mut RevokedKeys) {
        let named = keys.into_iter().flat_map(KeySet::all_named);
        let named = named
            .filter(|(kid, key)| self.contains(Some(kid), key))
            .map(|(kid, _)| kid);
        let own = self.0.iter().filter_map(|one| one.kid.as_deref());
        named.chain(own).for_each(|kid| revoked.insert_kid(kid));
    }
}

impl KeySet {
    /// Whether the issuer publishes the private part of a key.
    pub(super) fn has_private_keys(&self) -> bool {
        !self.0.compromised.is_empty()
    }
}
