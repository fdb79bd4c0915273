//! Headers that came with good signatures lately. The tokens of an issuer mostly share theirs.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arc_swap::{ArcSwapOption, Guard};

use crate::jwt::{Header, SeenHeader};

/// A few, because each is compared with: an issuer has one header for each key in use.
const SLOTS: usize = 8;

/// Read without a lock; what is noted takes the place of the oldest.
#[derive(Debug, Default)]
pub(super) struct SeenHeaders {
    slots: [ArcSwapOption<SeenHeader>; SLOTS],
    next: AtomicUsize,
}

impl SeenHeaders {
    /// The header of these bytes, if it is known.
    pub(super) fn find(&self, encoded: &str) -> Option<Guard<Option<Arc<SeenHeader>>>> {
        let loaded = self.slots.iter().map(ArcSwapOption::load);
        loaded.into_iter().find(|slot| slot.as_ref().is_some_and(|seen| seen.is(encoded)))
    }

    /// Notes a header whose token had a good signature.
    pub(super) fn note(&self, encoded: &str, header: &Header<'_>) {
        // Another request may have been first.
        if self.find(encoded).is_some() {
            return;
        }
        let Some(seen) = SeenHeader::new(encoded, header) else { return };
        let next = self.next.fetch_add(1, Ordering::Relaxed) % SLOTS;
        if let Some(slot) = self.slots.get(next) {
            slot.store(Some(Arc::new(seen)));
        }
    }
}
