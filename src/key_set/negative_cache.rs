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
const TTL: u64 = 15;

/// The lower bits of a slot are a time in seconds, the upper ones of a keyed hash.
const TIME_MASK: u64 = (1 << 24) - 1;

#[derive(Debug)]
pub(super) struct NegativeCache {
    slots: Box<[AtomicU64]>,
    hasher: RandomState,
}

impl NegativeCache {
    pub(super) fn new() -> Self {
        Self {
            slots: (0..SLOTS).map(|_| AtomicU64::new(0)).collect(),
            hasher: RandomState::new(),
        }
    }

    /// Notes that the set of this generation does not have the `kid`.
    pub(super) fn insert(&self, kid: &str, generation: u64, now: UnixTime) {
        let (slot, hash) = self.slot(kid, generation);
        if let Some(slot) = slot {
            slot.store(hash | (now.as_secs() & TIME_MASK), Ordering::Relaxed);
        }
    }

    /// Whether that was noted lately. Another generation has forgotten it.
    pub(super) fn contains(&self, kid: &str, generation: u64, now: UnixTime) -> bool {
        let (slot, hash) = self.slot(kid, generation);
        let entry = slot.map_or(0, |slot| slot.load(Ordering::Relaxed));
        let age = now.as_secs().wrapping_sub(entry) & TIME_MASK;
        entry != 0 && entry & !TIME_MASK == hash && age < TTL
    }

    fn slot(&self, kid: &str, generation: u64) -> (Option<&AtomicU64>, u64) {
        let hash = self.hasher.hash_one((generation, kid));
        let slots = u64::try_from(SLOTS).unwrap_or(1);
        let slot = usize::try_from(hash % slots)
            .ok()
            .and_then(|slot| self.slots.get(slot));
        (slot, hash & !TIME_MASK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixTime = UnixTime::from_secs(1_700_000_000);

    #[test]
    fn a_miss_is_known_for_fifteen_seconds_and_to_its_generation() {
        let negative_cache = NegativeCache::new();
        assert!(!negative_cache.contains("a", 1, NOW));
        negative_cache.insert("a", 1, NOW);
        assert!(negative_cache.contains("a", 1, NOW));
        assert!(negative_cache.contains("a", 1, UnixTime::from_secs(NOW.as_secs() + 14)));
        assert!(!negative_cache.contains("a", 1, UnixTime::from_secs(NOW.as_secs() + 15)));
        assert!(!negative_cache.contains("a", 2, NOW));
        assert!(!negative_cache.contains("b", 1, NOW));
    }

    #[test]
    fn a_hundred_thousand_kids_take_no_more_memory_and_are_mistaken_for_no_other() {
        let negative_cache = NegativeCache::new();
        for kid in 0..100_000 {
            negative_cache.insert(&format!("flood-{kid}"), 1, NOW);
        }
        assert!((0..100_000).all(|kid| !negative_cache.contains(&format!("good-{kid}"), 1, NOW)));
    }
}
