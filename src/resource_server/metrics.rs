//! How many requests were granted, and refused for what reason.

use super::RejectionKind;
use crate::metrics::{Counter, REQUESTS, TOKEN_CACHE_HITS};

/// Looked up once, when the resource server is made: counting a request is one addition.
// In this order: those that good requests need first, for where they stand in the resource server.
#[derive(Clone, Debug)]
#[repr(C)]
pub(super) struct Counters {
    granted: Counter,
    remembered: Counter,
    /// In the order of [`RejectionKind::ALL`].
    refused: [Counter; RejectionKind::ALL.len()],
}

impl Counters {
    pub(super) fn new() -> Self {
        let counter = |verdict| Counter::new(REQUESTS, ("result", verdict));
        Self {
            granted: counter("granted"),
            refused: RejectionKind::ALL.map(|kind| counter(kind.as_str())),
            remembered: Counter::without_label(TOKEN_CACHE_HITS),
        }
    }

    pub(super) fn granted(&self) {
        self.granted.increment();
    }

    /// A verdict came from the cache.
    pub(super) fn remembered(&self) {
        self.remembered.increment();
    }

    pub(super) fn refused(&self, kind: RejectionKind) {
        let counter = RejectionKind::ALL
            .iter()
            .zip(&self.refused)
            .find(|(own, _)| **own == kind);
        if let Some((_, counter)) = counter {
            counter.increment();
        }
    }
}
