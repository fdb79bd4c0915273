//! A rate limit on events above `debug` that requests can cause.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::clock::UnixTime;

/// Allows one event a minute, over all requests.
#[derive(Debug)]
pub(crate) struct LogLimit {
    /// Unix time of the last event in seconds; 0 before the first.
    last: AtomicU64,
}

impl LogLimit {
    const INTERVAL: u64 = 60;

    pub(crate) const fn new() -> Self {
        Self {
            last: AtomicU64::new(0),
        }
    }

    /// Whether an event may be logged now. Of several concurrent callers, one may.
    pub(crate) fn allows(&self, now: UnixTime) -> bool {
        let (now, last) = (now.as_secs(), self.last.load(Ordering::Relaxed));
        // A clock that was set back by more than a minute ends the wait. A smaller step back is
        // the reading of another thread.
        let is_due = last == 0 || now.abs_diff(last) >= Self::INTERVAL;
        is_due
            && self
                .last
                .compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_event_a_minute_is_allowed() {
        let limit = LogLimit::new();
        let allows = |second: u64| limit.allows(UnixTime::from_secs(1_700_000_000 + second));
        assert!(allows(0));
        assert!(!allows(0) && !allows(59));
        assert!(allows(60) && !allows(61));
        assert!(!allows(59), "another thread read the clock a moment before");
        assert!(allows(0), "the clock was set back");
    }
}
