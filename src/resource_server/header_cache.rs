//! Headers that came with good signatures lately. The tokens of an issuer mostly share theirs.

use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};

use crate::jwt::{CachedHeader, Header};

/// An issuer has one header for each key in use; each of them is compared with.
const MOST: usize = 32;

/// Read without a lock; what is noted beyond the most takes the place of the oldest.
#[derive(Debug, Default)]
pub(super) struct HeaderCache(ArcSwap<Known>);

/// Those that are known at a time, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Known(Box<[Arc<CachedHeader>]>);

impl Known {
    /// The header of these bytes, if it is known.
    pub(super) fn find(&self, encoded: &[u8]) -> Option<&CachedHeader> {
        self.0
            .iter()
            .map(|seen| &**seen)
            .find(|seen| seen.is(encoded))
    }
}

impl HeaderCache {
    pub(super) fn load(&self) -> Guard<Arc<Known>> {
        self.0.load()
    }

    /// Notes a header whose token had a good signature.
    pub(super) fn note(&self, encoded: &[u8], header: &Header<'_>) {
        let Some(seen) = CachedHeader::new(encoded, header).map(Arc::new) else {
            return;
        };
        self.0.rcu(|known| {
            // Another request may have been first.
            if known.find(encoded).is_some() {
                return Arc::clone(known);
            }
            let kept = known
                .0
                .iter()
                .skip((known.0.len() + 1).saturating_sub(MOST));
            Arc::new(Known(kept.chain([&seen]).cloned().collect()))
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_headers_are_known_and_each_takes_one_place() {
        let headers = HeaderCache::default();
        let note = |encoded: &str| {
            headers.note(
                encoded.as_bytes(),
                &Header::parse(br#"{"alg":"RS256"}"#).unwrap(),
            )
        };
        let known = |number: usize| {
            headers
                .load()
                .find(format!("header-{number}").as_bytes())
                .is_some()
        };
        assert!(!known(0));
        for number in 0..40 {
            note(&format!("header-{number}"));
            note(&format!("header-{number}"));
        }
        assert!((8..40).all(known));
        assert!(!(0..8).any(known));
        note(&"x".repeat(513));
        assert!(
            headers.load().find("x".repeat(513).as_bytes()).is_none(),
            "it is too long to keep"
        );
        assert!(known(8));
    }
}
