//! Wall time, read in this one place.

use std::fmt::Debug;
use std::time::Duration;

/// Seconds since 1970-01-01T00:00:00Z, the `NumericDate` of
/// [RFC 7519 §2](https://www.rfc-editor.org/rfc/rfc7519#section-2) without its fraction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixTime(u64);

impl UnixTime {
    /// The time `seconds` after the epoch.
    #[must_use]
    pub const fn from_secs(seconds: u64) -> Self {
        Self(seconds)
    }

    /// Whole seconds since the epoch.
    #[must_use]
    pub const fn as_secs(self) -> u64 {
        self.0
    }

    /// This time plus the whole seconds of `duration`; stops at the end of time.
    #[must_use]
    pub const fn saturating_add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration.as_secs()))
    }

    /// This time minus the whole seconds of `duration`; stops at the epoch.
    #[must_use]
    pub const fn saturating_sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(duration.as_secs()))
    }

    /// The time that has passed since `earlier`; zero if `earlier` is later.
    #[must_use]
    pub const fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_secs(self.0.saturating_sub(earlier.0))
    }
}

/// Tells the wall time.
///
/// Expiry (`exp`, `nbf`) is judged by it. Timers do not use it: they run on
/// [`tokio::time`], so that a wall clock that jumps disturbs no interval.
pub trait Clock: Debug + Send + Sync + 'static {
    /// The time now.
    fn now(&self) -> UnixTime;
}

/// The clock of the operating system.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct SystemClock;

impl Clock for SystemClock {
    // The time of the last tick, a few milliseconds ago: whole seconds are all that tokens have,
    // and it is read in a fraction of the time.
    #[cfg(target_os = "linux")]
    fn now(&self) -> UnixTime {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
        // A clock before 1970 is a broken clock: see below.
        UnixTime(u64::try_from(time.tv_sec).unwrap_or(0))
    }

    #[cfg(not(target_os = "linux"))]
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that reads wall time"
    )]
    fn now(&self) -> UnixTime {
        let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        // A clock before 1970 is a broken clock: at zero every token with `nbf` or `iat`
        // is refused as not yet valid.
        UnixTime(since_epoch.map_or(0, |elapsed| elapsed.as_secs()))
    }
}

/// A clock that stands still until a test moves it.
///
/// Clones share one time.
///
/// ```
/// use std::time::Duration;
/// use tower_oauth::{Clock, ManualClock, UnixTime};
///
/// let clock = ManualClock::at(UnixTime::from_secs(1_700_000_000));
/// clock.advance(Duration::from_secs(30));
/// assert_eq!(clock.now().as_secs(), 1_700_000_030);
/// ```
#[cfg(any(test, feature = "test-util"))]
#[cfg_attr(docsrs, doc(cfg(feature = "test-util")))]
#[derive(Clone, Debug)]
pub struct ManualClock(std::sync::Arc<std::sync::atomic::AtomicU64>);

#[cfg(any(test, feature = "test-util"))]
impl ManualClock {
    /// A clock that shows `now`.
    #[must_use]
    pub fn at(now: UnixTime) -> Self {
        Self(std::sync::Arc::new(now.as_secs().into()))
    }

    /// Moves the clock forward by the whole seconds of `by`, and no timer: to those it is as if the
    /// machine had slept.
    pub fn advance(&self, by: Duration) {
        self.0
            .fetch_add(by.as_secs(), std::sync::atomic::Ordering::SeqCst);
    }

    /// Lets time pass, for this clock and for timers: refreshes, renewals and retries that become
    /// due on the way happen on the way. For tests whose tokio time is paused
    /// (`#[tokio::test(start_paused = true)]`), where it takes as long as what is done on the way,
    /// and some milliseconds for an hour; elsewhere it takes `by`, in whole seconds.
    pub async fn advance_with_timers(&self, by: Duration) {
        const SECOND: Duration = Duration::from_secs(1);
        for _ in 0..by.as_secs() {
            self.advance(SECOND);
            tokio::time::sleep(SECOND).await;
        }
    }

    /// Sets the clock, forward or back.
    pub fn set(&self, now: UnixTime) {
        self.0
            .store(now.as_secs(), std::sync::atomic::Ordering::SeqCst);
    }
}

#[cfg(any(test, feature = "test-util"))]
impl Clock for ManualClock {
    fn now(&self) -> UnixTime {
        UnixTime(self.0.load(std::sync::atomic::Ordering::SeqCst))
    }
}
