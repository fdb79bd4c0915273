//! The keys of the token cache: whole tokens, hashed by their last bytes.

use std::hash::{Hash, Hasher};

use zeroize::Zeroizing;

/// The bytes of a cached token, zeroized on drop.
#[derive(PartialEq, Eq)]
pub(super) struct TokenKey(pub(super) Zeroizing<Box<[u8]>>);

/// A borrowed key, for lookups.
pub(super) struct TokenRef<'t>(pub(super) &'t [u8]);

impl equivalent::Equivalent<TokenKey> for TokenRef<'_> {
    fn equivalent(&self, token: &TokenKey) -> bool {
        *self.0 == **token.0
    }
}

impl Hash for TokenKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        TokenRef(&self.0).hash(state);
    }
}

impl Hash for TokenRef<'_> {
    /// Hashes the last 32 bytes only. They are the end of the signature, which is as good as
    /// random and which only the issuer can choose. Equality compares the whole token.
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(
            self.0
                .last_chunk::<32>()
                .map_or(self.0, <[u8; 32]>::as_slice),
        );
    }
}
