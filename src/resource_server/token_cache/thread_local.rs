//! The per-thread part of the token cache: copies of the tokens that a thread sees most often.
//!
//! A hit in the shared cache writes to shared memory, the reference count of the entry. Threads that
//! serve the same tokens would bounce this cache line between cores and hardly scale. The digest
//! takes as long as the rest of a hit. A token that is frequent on a thread is therefore copied,
//! with its entry, into memory of that thread. Entries are compared by the
//! whole token and checked for validity at each hit, as in the shared cache.
//!
//! The cache is set-associative. Admission uses the Misra–Gries heavy-hitters scheme: a hit
//! increments a slot's counter; a lookup that finds no free slot decrements one at random.
//! Frequent tokens stay, one-off tokens are never copied, and a token that stops coming loses its
//! slot over time. Where many tokens are equally frequent, none is copied. A simpler rule, such as
//! two hits within a second, would copy thousands of tokens on a busy thread, one for each hit.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};

use zeroize::Zeroizing;

use crate::clock::UnixTime;
use crate::resource_server::context::CachedToken;

/// Binary logarithm of the number of sets. The hash of a token selects its set.
const SET_BITS: u32 = 5;

/// Slots in each set.
const WAYS: usize = 4;

/// The frequency from which on a token is copied.
const ADMIT_AT: u8 = 8;

/// Upper bound of the frequency, so that a token that stops coming loses its slot soon.
const MAX_FREQUENCY: u8 = 15;

/// Returns an id for a token cache; all caches of the process share the thread-local part.
pub(super) fn new_cache_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// One CPU cache line, which is the cost of a miss.
#[derive(Default)]
#[repr(align(64))]
struct Set([Slot; WAYS]);

/// Counts one token, and holds its entry once it is frequent.
#[derive(Default)]
struct Slot {
    /// Part of the hash. Different tokens rarely share it.
    tag: u32,
    frequency: u8,
    entry: Option<Box<Entry>>,
}

struct Entry {
    cache: u64,
    /// Zeroized on drop.
    token: Zeroizing<Box<[u8]>>,
    cached: CachedToken,
    /// When a hit was last reported to the shared cache.
    reported_at: UnixTime,
}

thread_local! {
    static CACHE: RefCell<Box<[Set]>> =
        RefCell::new((0..1 << SET_BITS).map(|_| Set::default()).collect());
}

/// A lookup key: the cache, the token, and a keyed hash of the end of the token.
#[derive(Clone, Copy)]
pub(super) struct Lookup<'t> {
    pub(super) cache: u64,
    pub(super) token: &'t [u8],
    pub(super) hash: u64,
}

impl Lookup<'_> {
    /// Calls `f` with the set of the token and its tag there.
    fn with_set<T>(self, f: impl FnOnce(&mut Set, u32) -> Option<T>) -> Option<T> {
        let set = usize::try_from(self.hash >> (u64::BITS - SET_BITS)).ok()?;
        let tag = u32::try_from(self.hash & u64::from(u32::MAX)).ok()?;
        // `try_with` fails while the thread is being torn down; treat that as a miss.
        CACHE
            .try_with(|sets| f(sets.try_borrow_mut().ok()?.get_mut(set)?, tag))
            .ok()
            .flatten()
    }
}

/// Looks up the token. The flag says whether this is its first hit in this second, which is to be
/// reported to the shared cache.
pub(super) fn get(lookup: Lookup<'_>, now: UnixTime) -> Option<(CachedToken, bool)> {
    lookup.with_set(|Set(slots), tag| {
        let slot = slots.iter_mut().find(|slot| slot.tag == tag)?;
        let entry = slot.entry.as_mut()?;
        // The end of the signature comes first. A caller who does not know it learns nothing from
        // the time that the rest takes.
        let is_hit = entry.token.last_chunk::<32>() == lookup.token.last_chunk()
            && entry.cache == lookup.cache
            && **entry.token == *lookup.token;
        if !is_hit {
            return None;
        }
        let needs_report = std::mem::replace(&mut entry.reported_at, now) != now;
        let cached = entry.cached.clone();
        slot.frequency = (slot.frequency + 1).min(MAX_FREQUENCY);
        Some((cached, needs_report))
    })
}

/// Counts a hit in the shared cache, and copies the entry if the token is frequent.
pub(super) fn admit(lookup: Lookup<'_>, cached: &CachedToken, now: UnixTime) {
    lookup.with_set(|Set(slots), tag| {
        let own = slots.iter().position(|slot| slot.tag == tag);
        let Some(index) = own.or_else(|| slots.iter().position(|slot| slot.frequency == 0)) else {
            // Decrement a random slot. Always taking the minimum would pin the others for ever;
            // decrementing all would evict everything as soon as five tokens share a 4-way set.
            slots.get_mut(fastrand::usize(..WAYS))?.frequency -= 1;
            return None;
        };
        let slot = slots.get_mut(index)?;
        if own.is_none() {
            *slot = Slot::default();
            slot.tag = tag;
        }
        slot.frequency = (slot.frequency + 1).min(MAX_FREQUENCY);
        if slot.frequency >= ADMIT_AT {
            slot.entry = Some(Box::new(Entry {
                cache: lookup.cache,
                token: Zeroizing::new(lookup.token.into()),
                cached: cached.deep_clone(),
                reported_at: now,
            }));
        }
        None::<()>
    });
}

/// Removes a token that is no longer valid.
pub(super) fn remove(lookup: Lookup<'_>) {
    lookup.with_set(|Set(slots), tag| {
        *slots.iter_mut().find(|slot| slot.tag == tag)? = Slot::default();
        None::<()>
    });
}

#[cfg(test)]
mod tests {
    use std::hash::BuildHasher as _;

    use super::super::tests::{NOW, context};
    use super::*;

    /// The requests of one thread.
    struct Requests {
        cache: u64,
        hasher: foldhash::quality::RandomState,
    }

    impl Requests {
        fn new() -> Self {
            Self {
                cache: new_cache_id(),
                hasher: Default::default(),
            }
        }

        /// Returns whether the request hit the thread-local cache.
        fn send(&self, token: usize) -> bool {
            let lookup = Lookup {
                cache: self.cache,
                token: &token.to_le_bytes(),
                hash: self.hasher.hash_one(token),
            };
            let is_hit = get(lookup, NOW).is_some();
            if !is_hit {
                admit(lookup, context(), NOW);
            }
            is_hit
        }
    }

    fn copies() -> usize {
        CACHE.with_borrow(|sets| {
            let slots = sets.iter().flat_map(|Set(slots)| slots);
            slots.filter(|slot| slot.entry.is_some()).count()
        })
    }

    #[test]
    fn one_token_is_copied_at_its_eighth_hit() {
        let requests = Requests::new();
        let hits = (0..20).filter(|_| requests.send(1)).count();
        assert_eq!((hits, copies()), (12, 1));
    }

    #[test]
    fn of_10_000_equally_frequent_tokens_none_is_copied() {
        let requests = Requests::new();
        for request in 0..100_000 {
            assert!(!requests.send(request % 10_000));
        }
        for _ in 0..100_000 {
            assert!(!requests.send(fastrand::usize(..10_000)));
        }
        assert_eq!(copies(), 0);
    }

    #[test]
    fn four_frequent_tokens_are_copied_among_10_000_others() {
        let requests = Requests::new();
        let send = |count: usize| {
            let hits = (0..count).filter(|request| {
                requests.send(100 + fastrand::usize(..10_000));
                requests.send(request % 4)
            });
            hits.count()
        };
        send(1_000);
        let hits = send(10_000);
        assert!(hits > 9_900, "{hits} of 10,000");
        assert_eq!(copies(), 4);
    }
}
