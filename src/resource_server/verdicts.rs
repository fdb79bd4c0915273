//! How many requests were granted, and refused for what reason.

use super::RejectionKind;
use crate::metrics::{Counter, REQUESTS};

/// Looked up once, when the resource server is made: counting a request is one addition.
#[derive(Clone, Debug)]
pub(super) struct Verdicts {
    granted: Counter,
    /// In the order of [`RejectionKind::ALL`].
    refused: [Counter; RejectionKind::ALL.len()],
}

impl Verdicts {
    pub(super) fn new() -> Self {
        let counter = |verdict| Counter::new(REQUESTS, ("verdict", verdict));
        Self { granted: counter("granted"), refused: RejectionKind::ALL.map(|kind| counter(kind.as_str())) }
    }

    pub(super) fn granted(&self) {
        self.granted.increment();
    }

    pub(super) fn refused(&self, kind: RejectionKind) {
        let counter = RejectionKind::ALL.iter().zip(&self.refused).find(|(own, _)| **own == kind);
        if let Some((_, counter)) = counter {
            counter.increment();
        }
    }
}
