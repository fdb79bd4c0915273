//! The admission filter of the token cache: admits a token on its second sight.
//!
//! The doorkeeper of the TinyLFU paper (Einziger, Friedman, Manes).

use std::sync::atomic::{AtomicU64, Ordering};

/// A Bloom filter with one hash function over recently validated tokens.
///
/// It is cleared before it fills up. A false positive admits a token one request too early.
pub(super) struct Doorkeeper {
    bits: Box<[AtomicU64]>,
    inserted: AtomicU64,
}

impl Doorkeeper {
    /// Sized for several times as many tokens as the cache has entries.
    pub(super) fn new(entries: u64) -> Self {
        let words = entries.saturating_div(2).clamp(1 << 10, 1 << 24);
        let bits = (0..words).map(|_| AtomicU64::new(0)).collect();
        Self {
            bits,
            inserted: AtomicU64::new(0),
        }
    }

    /// Inserts the hash of a token. Admits the token if the hash was present.
    pub(super) fn admits(&self, hash: u64) -> bool {
        let words = u64::try_from(self.bits.len()).unwrap_or(1);
        let word = usize::try_from(hash % words)
            .ok()
            .and_then(|word| self.bits.get(word));
        // The top six bits: the remainder above depends on them least.
        let bit = 1 << (hash >> 58);
        let contained = word.is_some_and(|word| word.fetch_or(bit, Ordering::Relaxed) & bit != 0);
        // The filter is cleared when an eighth of its bits may be set.
        if !contained && self.inserted.fetch_add(1, Ordering::Relaxed) >= words * 8 {
            self.inserted.store(0, Ordering::Relaxed);
            self.bits
                .iter()
                .for_each(|word| word.store(0, Ordering::Relaxed));
        }
        contained
    }
}

#[cfg(test)]
mod tests {
    use std::hash::BuildHasher as _;

    use super::*;

    #[test]
    fn doorkeeper_has_no_false_negatives_and_few_false_positives() {
        let doorkeeper = Doorkeeper::new(1000);
        let hasher = foldhash::quality::RandomState::default();
        let hits = |numbers: std::ops::Range<usize>| {
            numbers
                .filter(|number| doorkeeper.admits(hasher.hash_one(number)))
                .count()
        };
        assert!(hits(0..1000) < 100);
        assert_eq!(hits(0..1000), 1000);
        // It does not fill up under a stream of new tokens.
        for from in 1..50 {
            assert!(hits(from * 1000..(from + 1) * 1000) < 250);
        }
    }
}
