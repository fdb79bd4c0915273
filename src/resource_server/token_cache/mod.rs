//! The token cache: validated tokens with their [`AuthContext`].
//!
//! Only valid tokens are cached, from their second request on: an insertion costs a tenth of a
//! signature verification, too much for tokens that are used once. The hash of an entry covers
//! the last bytes of the token and has a random key; equality compares the whole token, so a
//! collision never returns the entry of another token. [`AuthContext::is_still_valid`] checks each
//! hit. It checks more than moka's own expiry could, and needs no second clock.

mod doorkeeper;
mod key;
mod thread_local;

use std::fmt;
use std::hash::BuildHasher as _;

use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use zeroize::Zeroizing;

use self::doorkeeper::Doorkeeper;
use self::key::{TokenKey, TokenRef};
use self::thread_local::{CacheId, Hit, Lookup};
use super::AuthContext;
use crate::clock::UnixTime;

/// Longer tokens are not cached, because each would evict many others.
const MAX_TOKEN: usize = 8 * 1024;

/// Estimated bytes of an entry beside token and payload: the context and moka's bookkeeping.
const OVERHEAD: usize = 512;

/// Bounds of the cache, as set on the builder.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) entries: u64,
    pub(super) bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            entries: 10_000,
            bytes: 32 * 1024 * 1024,
        }
    }
}

/// The shared cache and its thread-local part; `None` if caching is off.
pub(super) struct TokenCache(Option<Inner>);

struct Inner {
    id: CacheId,
    tokens: Cache<TokenKey, AuthContext, foldhash::fast::RandomState>,
    hasher: foldhash::fast::RandomState,
    doorkeeper: Doorkeeper,
}

impl Inner {
    /// The lookup key for the thread-local cache. It has few entries, so a hash of the last eight
    /// bytes is enough; the whole token is compared.
    fn lookup<'t>(&self, token: &'t [u8]) -> Lookup<'t> {
        let end = token.last_chunk().map_or(0, |end| u64::from_le_bytes(*end));
        Lookup {
            cache: self.id,
            token,
            hash: self.hasher.hash_one(end),
        }
    }

    /// Marks the entry as recently used in the shared cache, and re-inserts it if it was evicted.
    #[cold]
    fn touch_shared(&self, token: &[u8], context: &AuthContext) {
        if self.tokens.get(&TokenRef(token)).is_none() {
            self.tokens
                .insert(TokenKey(Zeroizing::new(token.into())), context.deep_clone());
        }
    }

    /// Looks up the shared cache, and counts a hit for the thread-local admission.
    fn get_shared(&self, lookup: Lookup<'_>, now: UnixTime) -> Option<AuthContext> {
        let context = self.tokens.get(&TokenRef(lookup.token))?;
        thread_local::admit(lookup, &context, now);
        Some(context)
    }
}

impl TokenCache {
    /// Creates a cache; with a bound of zero it caches nothing.
    pub(super) fn new(Limits { entries, bytes }: Limits) -> Self {
        if entries == 0 || bytes == 0 {
            return Self(None);
        }
        // One weight enforces both bounds: each entry weighs at least `bytes / entries`.
        let min_weight = u32::try_from(bytes / entries).unwrap_or(u32::MAX).max(1);
        let capacity = bytes.min(entries.saturating_mul(min_weight.into()));
        let weight = move |token: &TokenKey, context: &AuthContext| {
            let bytes = token.0.len() + context.claims_json().len() + OVERHEAD;
            u32::try_from(bytes).unwrap_or(u32::MAX).max(min_weight)
        };
        let cache = Cache::builder().max_capacity(capacity).weigher(weight);
        // Evict the least recently used token. With eviction by frequency, the expired tokens of
        // the last hour would keep out those of the next; the doorkeeper keeps one-off tokens out.
        let cache = cache.eviction_policy(EvictionPolicy::lru());
        let tokens = cache.build_with_hasher(foldhash::fast::RandomState::default());
        Self(Some(Inner {
            id: CacheId::new(),
            tokens,
            hasher: foldhash::fast::RandomState::default(),
            doorkeeper: Doorkeeper::new(
                entries.min(bytes.div_ceil(u64::try_from(OVERHEAD).unwrap_or(1))),
            ),
        }))
    }

    /// Looks up a token. The caller checks whether the entry is still valid.
    pub(super) fn get(&self, token: &[u8], now: UnixTime) -> Option<AuthContext> {
        let inner = self.0.as_ref()?;
        let lookup = inner.lookup(token);
        match thread_local::get(lookup, now) {
            Some(Hit {
                context,
                needs_report: false,
            }) => Some(context),
            Some(Hit {
                context,
                needs_report: true,
            }) => {
                inner.touch_shared(token, &context);
                Some(context)
            }
            None => inner.get_shared(lookup, now),
        }
    }

    /// Caches a validated token that the doorkeeper admits, or any with `bypass_admission`.
    pub(super) fn insert(&self, token: &[u8], context: &AuthContext, bypass_admission: bool) {
        let Some(Inner {
            tokens, doorkeeper, ..
        }) = &self.0
        else {
            return;
        };
        if token.len() <= MAX_TOKEN && (bypass_admission || doorkeeper.contains_or_insert(token)) {
            tokens.insert(TokenKey(Zeroizing::new(token.into())), context.clone());
        }
    }

    pub(super) fn remove(&self, token: &[u8]) {
        if let Some(inner) = &self.0 {
            thread_local::remove(inner.lookup(token));
            inner.tokens.invalidate(&TokenRef(token));
        }
    }

    /// The number of entries in the shared cache; exact while it is idle.
    pub(super) fn len(&self) -> u64 {
        self.0.as_ref().map_or(0, |Inner { tokens, .. }| {
            tokens.run_pending_tasks();
            tokens.entry_count()
        })
    }
}

impl fmt::Debug for TokenCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenCache").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_with_the_same_end_share_a_hash_and_no_entry() {
        let end = "x".repeat(32);
        let (one, other) = (format!("a.b.{end}"), format!("c.d.{end}"));
        let hasher = foldhash::fast::RandomState::default();
        assert_eq!(
            hasher.hash_one(TokenRef(one.as_bytes())),
            hasher.hash_one(TokenRef(other.as_bytes()))
        );
        let cache: Cache<TokenKey, u8, _> = Cache::builder().build_with_hasher(hasher);
        cache.insert(TokenKey(Zeroizing::new(one.as_bytes().into())), 1);
        assert_eq!(cache.get(&TokenRef(one.as_bytes())), Some(1));
        assert_eq!(cache.get(&TokenRef(other.as_bytes())), None);
        assert_eq!(cache.get(&TokenRef(one.as_bytes().get(1..).unwrap())), None);
        assert_eq!(cache.get(&TokenRef(b"")), None);
    }
}
