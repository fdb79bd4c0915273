//! The admission filter of the token cache.

use std::hash::BuildHasher as _;
use std::sync::atomic::{AtomicU64, Ordering};

use super::key::Wanted;

/// Good tokens that came lately, one bit for each: a Bloom filter with one hash, emptied before it
/// is full. What is mistaken for another is kept one request too early.
pub(super) struct SeenOnce {
    bits: Box<[AtomicU64]>,
    hasher: foldhash::fast::RandomState,
    noted: AtomicU64,
    /// An eighth of the bits.
    most: u64,
}

impl SeenOnce {
    /// For several times as many tokens as are kept.
    pub(super) fn new(entries: u64) -> Self {
        let words = entries.saturating_div(2).clamp(1 << 10, 1 << 24);
        let bits = (0..words).map(|_| AtomicU64::new(0)).collect();
        Self {
            bits,
            hasher: Default::default(),
            noted: AtomicU64::new(0),
            most: words * 8,
        }
    }

    /// Whether the token was seen before; it is now.
    pub(super) fn comes_again(&self, token: &[u8]) -> bool {
        let hash = self.hasher.hash_one(Wanted(token));
        let words = u64::try_from(self.bits.len()).unwrap_or(1);
        let word = usize::try_from(hash % words)
            .ok()
            .and_then(|word| self.bits.get(word));
        // The first six bits of the hash, which decide least about the word.
        let bit = 1 << (hash >> 58);
        let known = word.is_some_and(|word| word.fetch_or(bit, Ordering::Relaxed) & bit != 0);
        if !known && self.noted.fetch_add(1, Ordering::Relaxed) >= self.most {
            self.noted.store(0, Ordering::Relaxed);
            self.bits
                .iter()
                .for_each(|word| word.store(0, Ordering::Relaxed));
        }
        known
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_comes_again_when_it_was_there_before_and_seldom_else() {
        let seen = SeenOnce::new(1000);
        let named = |number: usize| format!("a.b.{number:032}");
        let came_again = |numbers: std::ops::Range<usize>| {
            numbers
                .filter(|number| seen.comes_again(named(*number).as_bytes()))
                .count()
        };
        assert!(came_again(0..1000) < 100);
        assert_eq!(came_again(0..1000), 1000);
        // However many come, it does not fill up.
        for from in 1..50 {
            assert!(came_again(from * 1000..(from + 1) * 1000) < 250);
        }
    }
}
