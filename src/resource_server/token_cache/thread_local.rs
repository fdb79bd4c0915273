//! The per-thread part of the token cache: copies of the tokens that a thread sees most often.
//!
//! A hit in the shared cache writes to shared memory: to the reference count of the context, and
//! to the queue in which moka records accesses. Threads that serve the same tokens would bounce
//! these cache lines between cores and hardly scale. A token that is frequent on a thread is
//! therefore copied, with its context, into memory of that thread. Entries are compared by the
//! whole token and checked for validity at each hit, as in the shared cache.
//!
//! The cache is set-associative. Admission uses the Misra–Gries heavy-hitters scheme: a hit
//! increments a slot's counter; a lookup that finds no free slot decrements one at random.
//! Frequent tokens stay, one-off tokens are never copied, and a token that stops coming loses its
//! slot over time. Where many tokens are equally frequent, none is copied.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};

use zeroize::Zeroizing;

use crate::clock::UnixTime;
use crate::resource_server::AuthContext;

/// Binary logarithm of the number of sets. The hash of a token selects its set.
const SET_BITS: u32 = 5;

/// Slots in each set.
const WAYS: usize = 4;

/// The frequency from which on a token is copied.
const ADMIT_AT: u8 = 8;

/// Upper bound of the frequency, so that a token that stops coming loses its slot soon.
const MAX_FREQUENCY: u8 = 15;

/// Identifies a token cache within the process; all of them share the thread-local part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CacheId(u64);

impl CacheId {
    pub(super) fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
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
    cache: CacheId,
    /// Zeroized on drop.
    token: Zeroizing<Box<[u8]>>,
    context: AuthContext,
    /// When a hit was last reported to the shared cache.
    reported_at: UnixTime,
}

impl Entry {
    /// Compares the end of the signature first. A caller who does not know it learns nothing from
    /// the time that the rest takes.
    fn matches(&self, lookup: Lookup<'_>) -> bool {
        let same_end = self.token.last_chunk::<32>() == lookup.token.last_chunk();
        same_end && self.cache == lookup.cache && **self.token == *lookup.token
    }
}

impl Slot {
    fn increment_frequency(&mut self) {
        self.frequency = (self.frequency + 1).min(MAX_FREQUENCY);
    }
}

thread_local! {
    static CACHE: RefCell<Box<[Set]>> =
        RefCell::new((0..1 << SET_BITS).map(|_| Set::default()).collect());
}

/// A lookup key: the cache, the token, and a keyed hash of the end of the token.
#[derive(Clone, Copy)]
pub(super) struct Lookup<'t> {
    pub(super) cache: CacheId,
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

/// A hit in the thread-local cache.
pub(super) struct Hit {
    pub(super) context: AuthContext,
    /// Whether the shared cache should record this hit.
    pub(super) needs_report: bool,
}

/// Looks up the token. The first hit in each second needs a report to the shared cache.
pub(super) fn get(lookup: Lookup<'_>, now: UnixTime) -> Option<Hit> {
    lookup.with_set(|Set(slots), tag| {
        let slot = slots.iter_mut().find(|slot| slot.tag == tag)?;
        let entry = slot.entry.as_mut().filter(|entry| entry.matches(lookup))?;
        let hit = Hit {
            context: entry.context.clone(),
            needs_report: entry.reported_at != now,
        };
        entry.reported_at = now;
        slot.increment_frequency();
        Some(hit)
    })
}

/// Counts a hit in the shared cache, and copies the entry if the token is frequent.
pub(super) fn admit(lookup: Lookup<'_>, context: &AuthContext, now: UnixTime) {
    lookup.with_set(|Set(slots), tag| {
        if let Some(own) = slots.iter_mut().find(|slot| slot.tag == tag) {
            own.increment_frequency();
            if own.frequency >= ADMIT_AT {
                let Lookup { cache, token, .. } = lookup;
                let (token, context) = (Zeroizing::new(token.into()), context.deep_clone());
                own.entry = Some(Box::new(Entry {
                    cache,
                    token,
                    context,
                    reported_at: now,
                }));
            }
        } else if let Some(free) = slots.iter_mut().find(|slot| slot.frequency == 0) {
            *free = Slot {
                tag,
                frequency: 1,
                entry: None,
            };
        } else {
            // Decrement a random slot. Always taking the minimum would pin the others for ever;
            // decrementing all would evict everything as soon as five tokens share a 4-way set.
            slots.get_mut(fastrand::usize(..WAYS))?.frequency -= 1;
        }
        None::<()>
    });
}

/// Removes a token that is no longer valid.
pub(super) fn remove(lookup: Lookup<'_>) {
    lookup.with_set(|Set(slots), tag| {
        let slot = slots.iter_mut().find(|slot| slot.tag == tag)?;
        *slot = Slot::default();
        Some(())
    });
}
