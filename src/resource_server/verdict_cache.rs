//! Tokens that were verified before, so that each is verified once.
//!
//! Only successes are kept. A token is found by its very bytes: the last of them are hashed with a
//! random key, and the whole is compared, so no entry is ever returned for another token, whatever
//! collides. Whether the verdict still holds is judged at each hit, by
//! [`AuthContext::is_current`].

use std::fmt;
use std::hash::{Hash, Hasher};
use std::time::Duration;

use moka::sync::Cache;
use zeroize::Zeroizing;

use super::AuthContext;

/// Longer tokens are verified each time: they would crowd out many others.
const MAX_TOKEN: usize = 8 * 1024;

/// After this an entry goes, however often it is used, so that what has expired does not linger.
const LIFETIME: Duration = Duration::from_secs(3600);

/// What an entry takes beside the token and its payload: the context, and what the cache keeps.
const OVERHEAD: usize = 512;

/// Bounds of the verdict cache, as the builder takes them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) entries: u64,
    pub(super) bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { entries: 10_000, bytes: 32 * 1024 * 1024 }
    }
}

pub(super) struct VerdictCache(Option<Cache<Token, AuthContext, foldhash::fast::RandomState>>);

impl VerdictCache {
    /// Without entries or bytes nothing is kept.
    pub(super) fn new(Limits { entries, bytes }: Limits) -> Self {
        if entries == 0 || bytes == 0 {
            return Self(None);
        }
        // One bound for both: an entry never weighs less than its share of the bytes.
        let share = u32::try_from(bytes / entries).unwrap_or(u32::MAX).max(1);
        let weigh = move |token: &Token, context: &AuthContext| {
            let bytes = token.0.len() + context.claims_json().len() + OVERHEAD;
            u32::try_from(bytes).unwrap_or(u32::MAX).max(share)
        };
        let cache = Cache::builder().max_capacity(bytes).weigher(weigh).time_to_live(LIFETIME);
        Self(Some(cache.build_with_hasher(foldhash::fast::RandomState::default())))
    }

    pub(super) fn get(&self, token: &[u8]) -> Option<AuthContext> {
        self.0.as_ref()?.get(&Wanted(token))
    }

    pub(super) fn insert(&self, token: &[u8], context: &AuthContext) {
        if let Some(cache) = self.0.as_ref().filter(|_| token.len() <= MAX_TOKEN) {
            cache.insert(Token(Zeroizing::new(token.into())), context.clone());
        }
    }

    pub(super) fn remove(&self, token: &[u8]) {
        if let Some(cache) = &self.0 {
            cache.invalidate(&Wanted(token));
        }
    }

    /// How many tokens are kept; exact once nothing is going on.
    pub(super) fn len(&self) -> u64 {
        self.0.as_ref().map_or(0, |cache| {
            cache.run_pending_tasks();
            cache.entry_count()
        })
    }
}

impl fmt::Debug for VerdictCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerdictCache").finish_non_exhaustive()
    }
}

/// The bytes of a token, wiped when the entry is dropped.
#[derive(PartialEq, Eq)]
struct Token(Zeroizing<Box<[u8]>>);

/// A token to look for.
struct Wanted<'t>(&'t [u8]);

impl equivalent::Equivalent<Token> for Wanted<'_> {
    fn equivalent(&self, token: &Token) -> bool {
        *self.0 == **token.0
    }
}

impl Hash for Token {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Wanted(&self.0).hash(state);
    }
}

impl Hash for Wanted<'_> {
    /// The end of a token is the end of its signature: as good as random, and nobody but the issuer
    /// can choose it. The rest need not be hashed to tell tokens apart quickly, and all of it is
    /// compared to tell them apart for certain.
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(self.0.last_chunk::<32>().map_or(self.0, <[u8; 32]>::as_slice));
    }
}

#[cfg(test)]
mod tests {
    use std::hash::BuildHasher;

    use super::*;

    #[test]
    fn tokens_that_end_alike_collide_and_are_told_apart_all_the_same() {
        let end = "x".repeat(32);
        let (one, other) = (format!("a.b.{end}"), format!("c.d.{end}"));
        let hasher = foldhash::fast::RandomState::default();
        assert_eq!(hasher.hash_one(Wanted(one.as_bytes())), hasher.hash_one(Wanted(other.as_bytes())));
        let cache: Cache<Token, u8, _> = Cache::builder().build_with_hasher(hasher);
        cache.insert(Token(Zeroizing::new(one.as_bytes().into())), 1);
        assert_eq!(cache.get(&Wanted(one.as_bytes())), Some(1));
        assert_eq!(cache.get(&Wanted(other.as_bytes())), None);
        assert_eq!(cache.get(&Wanted(one.as_bytes().get(1..).unwrap())), None);
        assert_eq!(cache.get(&Wanted(b"")), None);
    }
}
