//! A rate limit on events above `debug` that requests can cause.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::clock::UnixTime;

/// Allows one event a minute, over all requests, and counts the others. Takes no lock.
#[derive(Debug)]
pub(crate) struct LogLimit {
    /// Unix time of the last event in seconds; 0 before the first.
    last: AtomicU64,
    /// Events since the last one that was allowed.
    suppressed: AtomicU64,
}

/// The number of events that were not allowed since the last one that was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Suppressed(u64);

impl LogLimit {
    const INTERVAL: u64 = 60;

    pub(crate) const fn new() -> Self {
        Self {
            last: AtomicU64::new(0),
            suppressed: AtomicU64::new(0),
        }
    }

    /// Whether an event may be logged now, and how many were suppressed before it. Of several
    /// concurrent callers, one may.
    pub(crate) fn permit(&self, now: UnixTime) -> Option<Suppressed> {
        let (now, last) = (now.as_secs(), self.last.load(Ordering::Relaxed));
        // A clock that was set back by more than a minute ends the wait. A smaller step back is
        // the reading of another thread.
        let is_due = last == 0 || now.abs_diff(last) >= Self::INTERVAL;
        let is_allowed = is_due
            && self
                .last
                .compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        if is_allowed {
            return Some(Suppressed(self.suppressed.swap(0, Ordering::Relaxed)));
        }
        self.suppressed.fetch_add(1, Ordering::Relaxed);
        None
    }
}

/// For the middle of a sentence: nothing, or `, and 1,234 more since the last such event`.
impl fmt::Display for Suppressed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return Ok(());
        }
        f.write_str(", and ")?;
        let digits = self.0.to_string();
        for (index, digit) in digits.chars().enumerate() {
            if index > 0 && (digits.len() - index).is_multiple_of(3) {
                f.write_str(",")?;
            }
            write!(f, "{digit}")?;
        }
        f.write_str(" more since the last such event")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_event_a_minute_is_allowed() {
        let limit = LogLimit::new();
        let allows = |second: u64| {
            let now = UnixTime::from_secs(1_700_000_000 + second);
            limit.permit(now).is_some()
        };
        assert!(allows(0));
        assert!(!allows(0) && !allows(59));
        assert!(allows(60) && !allows(61));
        assert!(!allows(59), "another thread read the clock a moment before");
        assert!(allows(0), "the clock was set back");
    }

    #[test]
    fn an_event_tells_how_many_were_suppressed_before_it() {
        let limit = LogLimit::new();
        let permit = |second: u64| {
            let permit = limit.permit(UnixTime::from_secs(1_700_000_000 + second));
            permit.map(|suppressed| suppressed.to_string())
        };
        assert_eq!(permit(0).as_deref(), Some(""));
        for _ in 0..1_234 {
            assert_eq!(permit(59), None);
        }
        let more = ", and 1,234 more since the last such event";
        assert_eq!(permit(60).as_deref(), Some(more));
        assert_eq!(permit(120).as_deref(), Some(""));
        for (count, text) in [
            (1, "1 "),
            (999, "999 "),
            (1_000, "1,000 "),
            (u64::MAX, "18,446,744,073,709,551,615 "),
        ] {
            let shown = Suppressed(count).to_string();
            assert!(shown.starts_with(&format!(", and {text}more")), "{shown}");
        }
    }

    #[test]
    fn of_concurrent_events_one_is_allowed_and_none_is_lost() {
        let limit = LogLimit::new();
        let now = UnixTime::from_secs(1_700_000_000);
        let allowed: usize = std::thread::scope(|scope| {
            let ask = || (0..1_000).filter(|_| limit.permit(now).is_some()).count();
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
            threads.into_iter().map(|one| one.join().unwrap()).sum()
        });
        assert_eq!(allowed, 1);
        let later = now.saturating_add(std::time::Duration::from_secs(60));
        assert_eq!(limit.permit(later), Some(Suppressed(7_999)));
    }
}
