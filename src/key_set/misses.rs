//! The `kid`s that were not found lately, in a fixed amount of memory.
//!
//! A caller that goes on sending one unknown `kid` is refused at once, without a wait and
//! without a place among those who wait. Random `kid`s only overwrite each other.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::clock::UnixTime;

const SLOTS: usize = 1024;

/// For so long, in seconds, a miss is remembered: the time in which the budget of unknown keys
/// gains one refresh.
const LIFETIME: u64 = 15;

/// The lower bits of a slot are a time in seconds, the upper ones of a keyed hash.
const TIME: u64 = (1 << 24) - 1;

#[derive(Debug)]
pub(super) struct Misses {
    slots: Box<[AtomicU64]>,
    hasher: RandomState,
}

impl Misses {
    pub(super) fn new() -> Self {
        Self {
            slots: (0..SLOTS).map(|_| AtomicU64::new(0)).collect(),
            hasher: RandomState::new(),
        }
    }

    /// Notes that the set of this generation does not have the `kid`.
    pub(super) fn note(&self, kid: &str, generation: u64, now: UnixTime) {
        let (slot, hash) = self.place(kid, generation);
        if let Some(slot) = slot {
            slot.store(hash | (now.as_secs() & TIME), Ordering::Relaxed);
        }
    }

    /// Whether that was noted lately. Another generation has forgotten it.
    pub(super) fn knows(&self, kid: &str, generation: u64, now: UnixTime) -> bool {
        let (slot, hash) = self.place(kid, generation);
        let noted = slot.map_or(0, |slot| slot.load(Ordering::Relaxed));
        let age = now.as_secs().wrapping_sub(noted) & TIME;
        noted != 0 && noted & !TIME == hash && age < LIFETIME
    }

    fn place(&self, kid: &str, generation: u64) -> (Option<&AtomicU64>, u64) {
        let hash = self.hasher.hash_one((generation, kid));
        let slots = u64::try_from(SLOTS).unwrap_or(1);
        let slot = usize::try_from(hash % slots)
            .ok()
            .and_then(|slot| self.slots.get(slot));
        (slot, hash & !TIME)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixTime = UnixTime::from_secs(1_700_000_000);

    #[test]
    fn a_miss_is_known_for_fifteen_seconds_and_to_its_generation() {
        let misses = Misses::new();
        assert!(!misses.knows("a", 1, NOW));
        misses.note("a", 1, NOW);
        assert!(misses.knows("a", 1, NOW));
        assert!(misses.knows("a", 1, UnixTime::from_secs(NOW.as_secs() + 14)));
        assert!(!misses.knows("a", 1, UnixTime::from_secs(NOW.as_secs() + 15)));
        assert!(!misses.knows("a", 2, NOW));
        assert!(!misses.knows("b", 1, NOW));
    }

    #[test]
    fn a_hundred_thousand_kids_take_no_more_memory_and_are_mistaken_for_no_other() {
        let misses = Misses::new();
        for kid in 0..100_000 {
            misses.note(&format!("flood-{kid}"), 1, NOW);
        }
        assert!((0..100_000).all(|kid| !misses.knows(&format!("good-{kid}"), 1, NOW)));
    }
}
