//! Why a set is none: what its members are.

use std::collections::BTreeMap;
use std::fmt;

use super::{KeySet, SkipReason};
use crate::error::Error;

/// The source of an error about a set without a usable key.
#[derive(Debug)]
pub(super) struct NothingUsable {
    /// All of its members are skipped.
    pub(super) keys: KeySet,
}

impl NothingUsable {
    /// What `error` says of the members, if it is about that.
    pub(super) fn of(error: &Error) -> Option<&Self> {
        std::error::Error::source(error)?.downcast_ref()
    }
}

impl fmt::Display for NothingUsable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut counts = BTreeMap::new();
        for reason in self
            .keys
            .skipped()
            .map(|(_, reason)| SkipReason::as_str(reason))
        {
            *counts.entry(reason).or_insert(0_u32) += 1;
        }
        f.write_str("members that cannot be used:")?;
        if counts.is_empty() {
            f.write_str(" none, the set is empty")?;
        }
        for (reason, count) in counts {
            write!(f, " {count} {reason}")?;
        }
        Ok(())
    }
}

impl std::error::Error for NothingUsable {}
