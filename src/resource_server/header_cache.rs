//! Cache of parsed token headers. Most tokens of an issuer have the same one.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::jwt::{Header, TokenError, decode_base64url};

/// A lookup compares with each entry. An issuer has about one header for each key in use.
const CAPACITY: usize = 32;

/// The longest encoded header that is cached, in bytes.
const MAX_LEN: usize = 512;

/// The most recent headers of tokens with a valid signature, the oldest first, by their base64url
/// bytes. Reads take no lock.
#[derive(Debug, Default)]
pub(super) struct HeaderCache(ArcSwap<Vec<(Arc<[u8]>, Arc<Header>)>>);

impl HeaderCache {
    /// Returns the header with these base64url bytes. It is parsed only if it is not cached.
    pub(super) fn parse(&self, encoded: &[u8]) -> Result<Arc<Header>, TokenError> {
        if let Some(cached) = self.get(encoded) {
            return Ok(cached);
        }
        Header::parse(&decode_base64url(encoded)?).map(Arc::new)
    }

    /// Adds the header of a token whose signature is valid, if it is new. Replaces the oldest one
    /// of a full cache.
    pub(super) fn insert(&self, encoded: &[u8], header: &Arc<Header>) {
        if encoded.len() > MAX_LEN || self.get(encoded).is_some() {
            return;
        }
        let new = (Arc::from(encoded), Arc::clone(header));
        self.0.rcu(|entries| {
            // Another request may have added it meanwhile.
            let others = entries.iter().filter(|(bytes, _)| **bytes != *encoded);
            let kept = others.skip((entries.len() + 1).saturating_sub(CAPACITY));
            kept.chain([&new]).cloned().collect::<Vec<_>>()
        });
    }

    fn get(&self, encoded: &[u8]) -> Option<Arc<Header>> {
        let entries = self.0.load();
        let found = entries.iter().find(|(bytes, _)| **bytes == *encoded);
        found.map(|(_, header)| Arc::clone(header))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_headers_are_cached_once_each() {
        let headers = HeaderCache::default();
        let header = Arc::new(Header::parse(br#"{"alg":"RS256"}"#).unwrap());
        let name = |number: usize| format!("header-{number}");
        let is_cached = |number: usize| headers.get(name(number).as_bytes()).is_some();
        assert!(!is_cached(0));
        for number in 0..40 {
            headers.insert(name(number).as_bytes(), &header);
            headers.insert(name(number).as_bytes(), &header);
        }
        assert!((8..40).all(is_cached));
        assert!(!(0..8).any(is_cached));
        for (len, fits) in [(513, false), (512, true)] {
            let encoded = "x".repeat(len);
            headers.insert(encoded.as_bytes(), &header);
            assert_eq!(headers.get(encoded.as_bytes()).is_some(), fits, "{len}");
            assert_eq!(is_cached(8), !fits, "{len}");
        }
    }

    #[test]
    fn a_parsed_header_is_cached_only_when_it_is_inserted() {
        let headers = HeaderCache::default();
        let encoded = b"eyJhbGciOiJSUzI1NiJ9"; // {"alg":"RS256"}
        let header = headers.parse(encoded).unwrap();
        assert!(headers.get(encoded).is_none());
        headers.insert(encoded, &header);
        assert!(Arc::ptr_eq(&headers.parse(encoded).unwrap(), &header));
        assert_eq!(
            headers.parse(b"e30").unwrap_err(),
            TokenError::UnsupportedAlgorithm
        );
        assert_eq!(headers.parse(b"*").unwrap_err(), TokenError::Malformed);
    }
}
