//! A negative cache of unknown `kid`s, in a fixed amount of memory.
//!
//! Requests that repeat an unknown `kid` are rejected at once and take no waiter permit. Random
//! `kid`s only overwrite each other.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::clock::UnixTime;

const SLOTS: usize = 1024;

/// Seconds until an entry expires: the default period of the rate limit for unknown keys.
const TTL: u64 = 15;

/// The bits of a slot that hold the insertion time in seconds. The others hold a keyed hash.
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

    /// Records that the set of this generation has no key with this `kid`.
    pub(super) fn insert(&self, kid: &str, generation: u64, now: UnixTime) {
        let (slot, hash) = self.slot(kid, generation);
        if let Some(slot) = slot {
            slot.store(hash | (now.as_secs() & TIME_MASK), Ordering::Relaxed);
        }
    }

    /// Whether an entry for this `kid` and generation has not expired.
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
    fn entries_expire_after_fifteen_seconds_and_with_their_generation() {
        let cache = NegativeCache::new();
        assert!(!cache.contains("a", 1, NOW));
        cache.insert("a", 1, NOW);
        assert!(cache.contains("a", 1, NOW));
        assert!(cache.contains("a", 1, UnixTime::from_secs(NOW.as_secs() + 14)));
        assert!(!cache.contains("a", 1, UnixTime::from_secs(NOW.as_secs() + 15)));
        assert!(!cache.contains("a", 2, NOW));
        assert!(!cache.contains("b", 1, NOW));
    }

    #[test]
    fn a_hundred_thousand_kids_take_fixed_memory_and_cause_no_false_hits() {
        let cache = NegativeCache::new();
        for kid in 0..100_000 {
            cache.insert(&format!("flood-{kid}"), 1, NOW);
        }
        assert!((0..100_000).all(|kid| !cache.contains(&format!("good-{kid}"), 1, NOW)));
    }
}
