//! What each thread remembers for itself: the few verdicts that it uses again and again.
//!
//! The verdict cache is shared, and so are the reference counts of its contexts and the queue in
//! which it notes what was used. Threads that serve the same caller would pass these to and
//! fro, and be hardly faster together than one alone. So a token that a thread meets often is
//! copied, with its context, to where no other thread looks. It is found by its whole bytes, and
//! judged at each hit, like any other.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};

use zeroize::Zeroizing;

use super::AuthContext;

/// For each thread.
const SLOTS: usize = 8;

/// So often in a row has a token to come to its slot before it is worth a copy.
const WORTH_A_COPY: u8 = 8;

/// After so many uses the shared cache is told, so that it knows what is in use.
const USES: u8 = 64;

/// Tells the caches of one process apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CacheId(u64);

impl CacheId {
    pub(super) fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// The end of a token, which is that of its signature: as good as random.
type End = [u8; 32];

struct Slot {
    /// The token that came last, by its end, and how often in a row.
    last: End,
    in_a_row: u8,
    kept: Option<Kept>,
}

struct Kept {
    cache: CacheId,
    end: End,
    /// Wiped when it is dropped.
    token: Zeroizing<Box<[u8]>>,
    context: AuthContext,
    uses: u8,
}

impl Kept {
    /// The end first: whoever does not know it learns nothing from how long the rest takes.
    fn is(&self, cache: CacheId, token: &[u8], end: &End) -> bool {
        self.end == *end && self.cache == cache && **self.token == *token
    }
}

thread_local! {
    static AT_HAND: RefCell<[Slot; SLOTS]> =
        const { RefCell::new([const { Slot { last: [0; 32], in_a_row: 0, kept: None } }; SLOTS]) };
}

/// The slot of a token.
fn with_slot<T>(token: &[u8], look: impl FnOnce(&mut Slot, &End) -> Option<T>) -> Option<T> {
    let end = token.last_chunk::<32>()?;
    let sum = end.iter().rev().take(8).fold(0_usize, |sum, byte| sum.wrapping_add(usize::from(*byte)));
    // A thread that ends has nothing at hand any more.
    AT_HAND.try_with(|slots| look(slots.try_borrow_mut().ok()?.get_mut(sum % SLOTS)?, end)).ok().flatten()
}

/// What a thread has at hand on a token.
pub(super) struct AtHand {
    pub(super) context: AuthContext,
    /// Whether it is time to tell the shared cache that the token is in use.
    pub(super) is_due: bool,
}

/// The verdict on this very token.
pub(super) fn find(cache: CacheId, token: &[u8]) -> Option<AtHand> {
    with_slot(token, |slot, end| {
        let kept = slot.kept.as_mut().filter(|kept| kept.is(cache, token, end))?;
        kept.uses = (kept.uses + 1) % USES;
        Some(AtHand { context: kept.context.clone(), is_due: kept.uses == 0 })
    })
}

/// Takes what the shared cache knows to hand, if it was wanted often.
pub(super) fn offer(cache: CacheId, token: &[u8], context: &AuthContext) {
    with_slot(token, |slot, end| {
        if slot.kept.as_ref().is_some_and(|kept| kept.is(cache, token, end)) {
            return None::<()>;
        }
        slot.in_a_row = if slot.last == *end { slot.in_a_row.saturating_add(1) } else { 1 };
        slot.last = *end;
        if slot.in_a_row >= WORTH_A_COPY {
            let (token, context) = (Zeroizing::new(token.into()), context.copied());
            slot.kept = Some(Kept { cache, end: *end, token, context, uses: 0 });
            slot.in_a_row = 0;
        }
        None
    });
}

/// Lets go of a token that is no longer good.
pub(super) fn forget(cache: CacheId, token: &[u8]) {
    with_slot(token, |slot, end| slot.kept.take_if(|kept| kept.is(cache, token, end)));
}
