//! Cache of parsed token headers. Most tokens of an issuer have the same one.

use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};

use crate::jwt::{CachedHeader, Header};

/// A lookup compares with each entry. An issuer has about one header for each key in use.
const CAPACITY: usize = 32;

/// The most recent headers of tokens with a valid signature. Reads take no lock; an insertion
/// beyond [`CAPACITY`] replaces the oldest entry.
#[derive(Debug, Default)]
pub(super) struct HeaderCache(ArcSwap<Headers>);

/// An immutable version of the cache, oldest header first.
#[derive(Debug, Default)]
pub(super) struct Headers(Box<[Arc<CachedHeader>]>);

impl Headers {
    /// Returns the parsed header of these base64url bytes.
    pub(super) fn get(&self, encoded: &[u8]) -> Option<&CachedHeader> {
        self.0
            .iter()
            .map(|cached| &**cached)
            .find(|cached| cached.is(encoded))
    }
}

impl HeaderCache {
    pub(super) fn load(&self) -> Guard<Arc<Headers>> {
        self.0.load()
    }

    /// Adds the header of a token whose signature is valid.
    pub(super) fn insert(&self, encoded: &[u8], header: &Header<'_>) {
        let Some(cached) = CachedHeader::new(encoded, header).map(Arc::new) else {
            return;
        };
        self.0.rcu(|headers| {
            // Another request may have inserted it meanwhile.
            if headers.get(encoded).is_some() {
                return Arc::clone(headers);
            }
            let newest = headers
                .0
                .iter()
                .skip((headers.0.len() + 1).saturating_sub(CAPACITY));
            Arc::new(Headers(newest.chain([&cached]).cloned().collect()))
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_headers_are_cached_once_each() {
        let headers = HeaderCache::default();
        let insert = |encoded: &str| {
            headers.insert(
                encoded.as_bytes(),
                &Header::parse(br#"{"alg":"RS256"}"#).unwrap(),
            )
        };
        let is_cached = |number: usize| {
            headers
                .load()
                .get(format!("header-{number}").as_bytes())
                .is_some()
        };
        assert!(!is_cached(0));
        for number in 0..40 {
            insert(&format!("header-{number}"));
            insert(&format!("header-{number}"));
        }
        assert!((8..40).all(is_cached));
        assert!(!(0..8).any(is_cached));
        insert(&"x".repeat(513));
        assert!(
            headers.load().get("x".repeat(513).as_bytes()).is_none(),
            "longer than the limit"
        );
        assert!(is_cached(8));
    }
}
