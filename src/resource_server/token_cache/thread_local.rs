//! What each thread remembers for itself: the verdicts that it uses again and again.
//!
//! The verdict cache is shared, and so are the reference counts of its contexts and the queue in
//! which it notes what was used. Threads that serve the same callers would pass these to and
//! fro, and be hardly faster together than one alone. So a token that a thread meets often is
//! copied, with its context, to where no other thread looks. It is found by its whole bytes, and
//! judged at each hit, like any other.
//!
//! What is met often is found out much as Misra and Gries count frequent items: a token earns
//! frequency when it comes, and others take it away that come and find no slot. So those that come
//! often stay, whatever else comes; where there are many and all are alike, none is worth a copy;
//! and one that comes no more loses its slot, in time, to those that do.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};

use zeroize::Zeroizing;

use crate::clock::UnixTime;
use crate::resource_server::AuthContext;

/// Each token belongs to one of so many sets, by its hash: two to the power of this.
const SET_BITS: u32 = 5;

/// Places in each set.
const WAYS: usize = 4;

/// A token with so much frequency is worth a copy.
const ADMIT_AT: u8 = 8;

/// No token has more: one that comes no more should not keep its slot for long.
const MAX_FREQUENCY: u8 = 15;

/// Tells the caches of one process apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CacheId(u64);

impl CacheId {
    pub(super) fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// One line of the processor's cache: what a token that is not at hand costs.
#[derive(Default)]
#[repr(align(64))]
struct Set([Slot; WAYS]);

/// For one token.
#[derive(Default)]
struct Slot {
    /// Tells tokens apart, nearly always.
    tag: u32,
    frequency: u8,
    entry: Option<Box<Entry>>,
}

struct Entry {
    cache: CacheId,
    /// Wiped when it is dropped.
    token: Zeroizing<Box<[u8]>>,
    context: AuthContext,
    /// When the shared cache last heard that the token is in use.
    reported_at: UnixTime,
}

impl Entry {
    /// The end first: whoever does not know it learns nothing from how long the rest takes.
    fn matches(&self, lookup: Lookup<'_>) -> bool {
        let same_end = self.token.last_chunk::<32>() == lookup.token.last_chunk();
        same_end && self.cache == lookup.cache && **self.token == *lookup.token
    }
}

impl Slot {
    fn touch(&mut self) {
        self.frequency = (self.frequency + 1).min(MAX_FREQUENCY);
    }
}

thread_local! {
    static CACHE: RefCell<Box<[Set]>> = RefCell::new((0..1 << SET_BITS).map(|_| Set::default()).collect());
}

/// What a token is looked for by: the cache, its bytes, and a keyed hash of their end.
#[derive(Clone, Copy)]
pub(super) struct Lookup<'t> {
    pub(super) cache: CacheId,
    pub(super) token: &'t [u8],
    pub(super) hash: u64,
}

impl Lookup<'_> {
    /// The set of the token, and the tag that it has there.
    fn with_set<T>(self, f: impl FnOnce(&mut Set, u32) -> Option<T>) -> Option<T> {
        let set = usize::try_from(self.hash >> (u64::BITS - SET_BITS)).ok()?;
        let tag = u32::try_from(self.hash & u64::from(u32::MAX)).ok()?;
        // A thread that ends has nothing at hand any more.
        CACHE
            .try_with(|sets| f(sets.try_borrow_mut().ok()?.get_mut(set)?, tag))
            .ok()
            .flatten()
    }
}

/// What a thread has at hand on a token.
pub(super) struct Hit {
    pub(super) context: AuthContext,
    /// Whether it is time to tell the shared cache that the token is in use.
    pub(super) needs_report: bool,
}

/// The verdict on this very token. Once a second it is time to tell the shared cache.
pub(super) fn get(lookup: Lookup<'_>, now: UnixTime) -> Option<Hit> {
    lookup.with_set(|Set(slots), tag| {
        let slot = slots.iter_mut().find(|slot| slot.tag == tag)?;
        let entry = slot.entry.as_mut().filter(|entry| entry.matches(lookup))?;
        let hit = Hit {
            context: entry.context.clone(),
            needs_report: entry.reported_at != now,
        };
        entry.reported_at = now;
        slot.touch();
        Some(hit)
    })
}

/// Takes what the shared cache knows to hand, if it is wanted often.
pub(super) fn admit(lookup: Lookup<'_>, context: &AuthContext, now: UnixTime) {
    lookup.with_set(|Set(slots), tag| {
        if let Some(own) = slots.iter_mut().find(|slot| slot.tag == tag) {
            own.touch();
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
            // From any of them. Were it the poorest, the others would never lose theirs; were it
            // all of them, five tokens in a set of four would leave none.
            slots.get_mut(fastrand::usize(..WAYS))?.frequency -= 1;
        }
        None::<()>
    });
}

/// Lets go of a token that is no longer good.
pub(super) fn remove(lookup: Lookup<'_>) {
    lookup.with_set(|Set(slots), tag| {
        let slot = slots.iter_mut().find(|slot| slot.tag == tag)?;
        *slot = Slot::default();
        Some(())
    });
}
