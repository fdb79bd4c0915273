//! How many requests were granted, and rejected for what reason.

use super::RejectionKind;
use crate::metrics::{Counter, REQUESTS, TOKEN_CACHE_HITS};

/// Looked up once, when the resource server is made: counting a request is one addition.
// In this order: those that good requests need first, for where they stand in the resource server.
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

    /// A verdict came from the cache.
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
