//! Tokens that were verified before, so that they need not be verified again.
//!
//! Only successes are kept, from the second one of a token on: to keep a token costs a tenth of its
//! signature, which is too much for those that never come again. A token is found by its very
//! bytes: the last of them are hashed with a random key, and the whole is compared, so no entry is
//! ever returned for another token, whatever collides. Whether the verdict still holds is judged at
//! each hit, by [`AuthContext::is_current`]; moka's own expiry would judge less, and read a clock
//! of its own.

mod doorkeeper;
mod key;
mod thread_local;

use std::fmt;
use std::hash::BuildHasher as _;

use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use zeroize::Zeroizing;

use self::doorkeeper::SeenOnce;
use self::key::{Token, Wanted};
use self::thread_local::{AtHand, CacheId};
use super::AuthContext;
use crate::clock::UnixTime;

/// Longer tokens are verified each time: they would crowd out many others.
const MAX_TOKEN: usize = 8 * 1024;

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
        Self {
            entries: 10_000,
            bytes: 32 * 1024 * 1024,
        }
    }
}

pub(super) struct VerdictCache(Option<Kept>);

struct Kept {
    id: CacheId,
    tokens: Cache<Token, AuthContext, foldhash::fast::RandomState>,
    hasher: foldhash::fast::RandomState,
    seen_once: SeenOnce,
}

impl Kept {
    /// Eight characters are enough to find one of the few that are at hand; the whole is compared.
    fn wanted<'t>(&self, token: &'t [u8]) -> thread_local::Wanted<'t> {
        let end = token.last_chunk().map_or(0, |end| u64::from_le_bytes(*end));
        thread_local::Wanted {
            cache: self.id,
            token,
            hash: self.hasher.hash_one(end),
        }
    }

    /// Tells the shared cache that a token is in use. What had to make room all the same comes
    /// back.
    #[cold]
    fn tell(&self, token: &[u8], context: &AuthContext) {
        if self.tokens.get(&Wanted(token)).is_none() {
            self.tokens
                .insert(Token(Zeroizing::new(token.into())), context.copied());
        }
    }

    /// What the shared cache knows.
    fn shared(&self, wanted: thread_local::Wanted<'_>, now: UnixTime) -> Option<AuthContext> {
        let context = self.tokens.get(&Wanted(wanted.token))?;
        thread_local::offer(wanted, &context, now);
        Some(context)
    }
}

impl VerdictCache {
    /// Without entries or bytes nothing is kept.
    pub(super) fn new(Limits { entries, bytes }: Limits) -> Self {
        if entries == 0 || bytes == 0 {
            return Self(None);
        }
        // One bound for both: an entry never weighs less than its share of the bytes.
        let share = u32::try_from(bytes / entries).unwrap_or(u32::MAX).max(1);
        let capacity = bytes.min(entries.saturating_mul(share.into()));
        let weigh = move |token: &Token, context: &AuthContext| {
            let bytes = token.0.len() + context.claims_json().len() + OVERHEAD;
            u32::try_from(bytes).unwrap_or(u32::MAX).max(share)
        };
        let cache = Cache::builder().max_capacity(capacity).weigher(weigh);
        // The least recently used one goes. By how often they were used, the tokens of the last
        // hour would keep out those of the next; one that came once is kept out already.
        let cache = cache.eviction_policy(EvictionPolicy::lru());
        let tokens = cache.build_with_hasher(foldhash::fast::RandomState::default());
        Self(Some(Kept {
            id: CacheId::new(),
            tokens,
            hasher: foldhash::fast::RandomState::default(),
            seen_once: SeenOnce::new(
                entries.min(bytes.div_ceil(u64::try_from(OVERHEAD).unwrap_or(1))),
            ),
        }))
    }

    pub(super) fn get(&self, token: &[u8], now: UnixTime) -> Option<AuthContext> {
        let kept = self.0.as_ref()?;
        let wanted = kept.wanted(token);
        match thread_local::find(wanted, now) {
            Some(AtHand {
                context,
                is_due: false,
            }) => Some(context),
            Some(AtHand {
                context,
                is_due: true,
            }) => {
                kept.tell(token, &context);
                Some(context)
            }
            None => kept.shared(wanted, now),
        }
    }

    /// Keeps a verdict, if the token was seen before, or `at_once`.
    pub(super) fn offer(&self, token: &[u8], context: &AuthContext, at_once: bool) {
        let Some(Kept {
            tokens, seen_once, ..
        }) = &self.0
        else {
            return;
        };
        if token.len() <= MAX_TOKEN && (at_once || seen_once.comes_again(token)) {
            tokens.insert(Token(Zeroizing::new(token.into())), context.clone());
        }
    }

    pub(super) fn remove(&self, token: &[u8]) {
        if let Some(kept) = &self.0 {
            thread_local::forget(kept.wanted(token));
            kept.tokens.invalidate(&Wanted(token));
        }
    }

    /// How many tokens are kept; exact once nothing is going on.
    pub(super) fn len(&self) -> u64 {
        self.0.as_ref().map_or(0, |Kept { tokens, .. }| {
            tokens.run_pending_tasks();
            tokens.entry_count()
        })
    }
}

impl fmt::Debug for VerdictCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerdictCache").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_that_end_alike_collide_and_are_told_apart_all_the_same() {
        let end = "x".repeat(32);
        let (one, other) = (format!("a.b.{end}"), format!("c.d.{end}"));
        let hasher = foldhash::fast::RandomState::default();
        assert_eq!(
            hasher.hash_one(Wanted(one.as_bytes())),
            hasher.hash_one(Wanted(other.as_bytes()))
        );
        let cache: Cache<Token, u8, _> = Cache::builder().build_with_hasher(hasher);
        cache.insert(Token(Zeroizing::new(one.as_bytes().into())), 1);
        assert_eq!(cache.get(&Wanted(one.as_bytes())), Some(1));
        assert_eq!(cache.get(&Wanted(other.as_bytes())), None);
        assert_eq!(cache.get(&Wanted(one.as_bytes().get(1..).unwrap())), None);
        assert_eq!(cache.get(&Wanted(b"")), None);
    }
}
