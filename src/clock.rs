//! Wall-clock time. No other module reads it.

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

    /// This time plus the whole seconds of `duration`; saturates at the maximum.
    #[must_use]
    pub const fn saturating_add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration.as_secs()))
    }

    /// This time minus the whole seconds of `duration`; saturates at the epoch.
    #[must_use]
    pub const fn saturating_sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(duration.as_secs()))
    }

    /// The time elapsed since `earlier`; zero if `earlier` is later.
    #[must_use]
    pub const fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_secs(self.0.saturating_sub(earlier.0))
    }
}

/// A source of wall-clock time.
///
/// It decides whether tokens have expired (`exp`, `nbf`). Timers use [`tokio::time`] instead, so
/// that intervals are unaffected when the wall clock jumps.
pub trait Clock: Debug + Send + Sync + 'static {
    /// The current time.
    fn now(&self) -> UnixTime;
}

/// The clock of the operating system.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct SystemClock;

impl Clock for SystemClock {
    // The coarse clock is a few milliseconds late, which does not matter for whole seconds, and
    // takes a fraction of the time to read.
    #[cfg(target_os = "linux")]
    fn now(&self) -> UnixTime {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
        // A time before 1970 counts as zero: see below.
        UnixTime(u64::try_from(time.tv_sec).unwrap_or(0))
    }

    #[cfg(not(target_os = "linux"))]
    #[expect(
        clippy::disallowed_methods,
        reason = "the only code that reads wall-clock time"
    )]
    fn now(&self) -> UnixTime {
        let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        // A time before 1970 is a broken clock. At zero, every token with `nbf` or `iat` is
        // rejected as not yet valid.
        UnixTime(since_epoch.map_or(0, |elapsed| elapsed.as_secs()))
    }
}

/// A clock that only moves when a test moves it.
///
/// Clones share their time.
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
    /// Creates a clock with the time `now`.
    #[must_use]
    pub fn at(now: UnixTime) -> Self {
        Self(std::sync::Arc::new(now.as_secs().into()))
    }

    /// Moves the clock forward by the whole seconds of `by`, but no timers.
    ///
    /// For timers this looks like a suspended machine.
    pub fn advance(&self, by: Duration) {
        self.0
            .fetch_add(by.as_secs(), std::sync::atomic::Ordering::SeqCst);
    }

    /// Moves this clock and timers forward together, second by second.
    ///
    /// Refreshes, renewals and retries that become due run meanwhile. Use it in tests with paused
    /// tokio time (`#[tokio::test(start_paused = true)]`): there an hour takes some milliseconds,
    /// plus the work that becomes due. Elsewhere it takes the whole seconds of `by`.
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
