//! The keys of the token cache: whole tokens, hashed by their last bytes.

use std::hash::{Hash, Hasher};

use zeroize::Zeroizing;

/// The bytes of a token, wiped when the entry is dropped.
#[derive(PartialEq, Eq)]
pub(super) struct TokenKey(pub(super) Zeroizing<Box<[u8]>>);

/// A token to look for.
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
    /// The end of a token is the end of its signature: as good as random, and nobody but the issuer
    /// can choose it. The rest need not be hashed to tell tokens apart quickly, and all of it is
    /// compared to tell them apart for certain.
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(
            self.0
                .last_chunk::<32>()
                .map_or(self.0, <[u8; 32]>::as_slice),
        );
    }
}
