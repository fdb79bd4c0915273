//! The revocation of compromised keys.

use super::compromised::{Compromised, CompromisedKeys};
use super::revoked::RevokedKeys;
use super::set::KeySet;

impl CompromisedKeys {
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
        let kids = self.0.iter().filter_map(|entry| entry.kid.as_deref());
        published
            .chain(kids)
            .for_each(|kid| revoked.insert_kid(kid));
    }
}
