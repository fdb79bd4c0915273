//! Counters of granted and rejected requests.

use super::RejectionKind;
use crate::metrics::{Counter, REQUESTS, TOKEN_CACHE_HITS};

/// Handles of the counters, registered once, so that counting a request is one addition.
// The field order is deliberate: a cache hit uses the first two, which lie next to the other fields
// of the resource server that it reads.
#[derive(Clone, Debug)]
#[repr(C)]
pub(super) struct Metrics {
    granted: Counter,
    cache_hit: Counter,
    /// In the order of [`RejectionKind::ALL`].
    rejected: [Counter; RejectionKind::ALL.len()],
}

impl Metrics {
    pub(super) fn new() -> Self {
        let counter = |result| Counter::new(REQUESTS, ("result", result));
        Self {
            granted: counter("granted"),
            rejected: RejectionKind::ALL.map(|kind| counter(kind.as_str())),
            cache_hit: Counter::without_label(TOKEN_CACHE_HITS),
        }
    }

    pub(super) fn record_granted(&self) {
        self.granted.increment();
    }

    /// Counts a request whose token was found in the token cache.
    pub(super) fn record_cache_hit(&self) {
        self.cache_hit.increment();
    }

    pub(super) fn record_rejection(&self, kind: RejectionKind) {
        let counter = RejectionKind::ALL
            .iter()
            .zip(&self.rejected)
            .find(|(own, _)| **own == kind);
        if let Some((_, counter)) = counter {
            counter.increment();
        }
    }
}
