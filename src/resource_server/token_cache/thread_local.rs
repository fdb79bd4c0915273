//! What each thread remembers for itself: the verdicts that it uses again and again.
//!
//! The verdict cache is shared, and so are the reference counts of its contexts and the queue in
//! which it notes what was used. Threads that serve the same callers would pass these to and
//! fro, and be hardly faster together than one alone. So a token that a thread meets often is
//! copied, with its context, to where no other thread looks. It is found by its whole bytes, and
//! judged at each hit, like any other.
//!
//! What is met often is found out much as Misra and Gries count frequent items: a token earns
//! credit when it comes, and others take it away that come and find no place. So those that come
//! often stay, whatever else comes; where there are many and all are alike, none is worth a copy;
//! and one that comes no more loses its place, in time, to those that do.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};

use zeroize::Zeroizing;

use crate::clock::UnixTime;
use crate::resource_server::AuthContext;

/// Each token belongs to one of so many sets, by its hash: two to the power of this.
const SET_BITS: u32 = 5;

/// Places in each set.
const PLACES: usize = 4;

/// A token with so much credit is worth a copy.
const WORTH_A_COPY: u8 = 8;

/// No token has more: one that comes no more should not keep its place for long.
const MOST_CREDIT: u8 = 15;

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
struct Set([Place; PLACES]);

/// For one token.
#[derive(Default)]
struct Place {
    /// Tells tokens apart, nearly always.
    tag: u32,
    credit: u8,
    kept: Option<Box<Kept>>,
}

struct Kept {
    cache: CacheId,
    /// Wiped when it is dropped.
    token: Zeroizing<Box<[u8]>>,
    context: AuthContext,
    /// When the shared cache last heard that the token is in use.
    told: UnixTime,
}

impl Kept {
    /// The end first: whoever does not know it learns nothing from how long the rest takes.
    fn is(&self, wanted: Wanted<'_>) -> bool {
        let ends_alike = self.token.last_chunk::<32>() == wanted.token.last_chunk();
        ends_alike && self.cache == wanted.cache && **self.token == *wanted.token
    }
}

impl Place {
    fn earn(&mut self) {
        self.credit = (self.credit + 1).min(MOST_CREDIT);
    }
}

thread_local! {
    static AT_HAND: RefCell<Box<[Set]>> = RefCell::new((0..1 << SET_BITS).map(|_| Set::default()).collect());
}

/// What a token is looked for by: the cache, its bytes, and a keyed hash of their end.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'t> {
    pub(super) cache: CacheId,
    pub(super) token: &'t [u8],
    pub(super) hash: u64,
}

impl Wanted<'_> {
    /// The set of the token, and the tag that it has there.
    fn with_set<T>(self, look: impl FnOnce(&mut Set, u32) -> Option<T>) -> Option<T> {
        let set = usize::try_from(self.hash >> (u64::BITS - SET_BITS)).ok()?;
        let tag = u32::try_from(self.hash & u64::from(u32::MAX)).ok()?;
        // A thread that ends has nothing at hand any more.
        AT_HAND
            .try_with(|sets| look(sets.try_borrow_mut().ok()?.get_mut(set)?, tag))
            .ok()
            .flatten()
    }
}

/// What a thread has at hand on a token.
pub(super) struct AtHand {
    pub(super) context: AuthContext,
    /// Whether it is time to tell the shared cache that the token is in use.
    pub(super) is_due: bool,
}

/// The verdict on this very token. Once a second it is time to tell the shared cache.
pub(super) fn find(wanted: Wanted<'_>, now: UnixTime) -> Option<AtHand> {
    wanted.with_set(|Set(places), tag| {
        let place = places.iter_mut().find(|place| place.tag == tag)?;
        let kept = place.kept.as_mut().filter(|kept| kept.is(wanted))?;
        let at_hand = AtHand {
            context: kept.context.clone(),
            is_due: kept.told != now,
        };
        kept.told = now;
        place.earn();
        Some(at_hand)
    })
}

/// Takes what the shared cache knows to hand, if it is wanted often.
pub(super) fn offer(wanted: Wanted<'_>, context: &AuthContext, now: UnixTime) {
    wanted.with_set(|Set(places), tag| {
        if let Some(own) = places.iter_mut().find(|place| place.tag == tag) {
            own.earn();
            if own.credit >= WORTH_A_COPY {
                let Wanted { cache, token, .. } = wanted;
                let (token, context) = (Zeroizing::new(token.into()), context.copied());
                own.kept = Some(Box::new(Kept {
                    cache,
                    token,
                    context,
                    told: now,
                }));
            }
        } else if let Some(free) = places.iter_mut().find(|place| place.credit == 0) {
            *free = Place {
                tag,
                credit: 1,
                kept: None,
            };
        } else {
            // From any of them. Were it the poorest, the others would never lose theirs; were it
            // all of them, five tokens in a set of four would leave none.
            places.get_mut(fastrand::usize(..PLACES))?.credit -= 1;
        }
        None::<()>
    });
}

/// Lets go of a token that is no longer good.
pub(super) fn forget(wanted: Wanted<'_>) {
    wanted.with_set(|Set(places), tag| {
        let place = places.iter_mut().find(|place| place.tag == tag)?;
        *place = Place::default();
        Some(())
    });
}
