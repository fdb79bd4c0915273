//! Wall-clock time. No other module reads it.

use std::fmt::{self, Debug};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Seconds since 1970-01-01T00:00:00Z, the `NumericDate` of
/// [RFC 7519 §2](https://www.rfc-editor.org/rfc/rfc7519#section-2) without its fraction.
///
/// Displayed as in [RFC 3339](https://www.rfc-editor.org/rfc/rfc3339#section-5.6), in UTC. Years
/// after 9999, for which RFC 3339 has no form, have a plus sign and more digits (ISO 8601).
///
/// ```
/// use std::time::SystemTime;
/// use tower_oauth::clock::UnixTime;
///
/// let time = UnixTime::from_secs(1_700_000_000);
/// assert_eq!(time.to_string(), "2023-11-14T22:13:20Z");
/// assert_eq!(UnixTime::from(SystemTime::from(time)), time);
/// ```
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
    ///
    /// ```
    /// use std::time::Duration;
    /// use tower_oauth::clock::UnixTime;
    ///
    /// let issued = UnixTime::from_secs(1_800_000_000);
    /// let expires = issued.saturating_add(Duration::from_secs(3600));
    /// assert_eq!(expires.saturating_since(issued), Duration::from_secs(3600));
    /// assert_eq!(issued.saturating_since(expires), Duration::ZERO);
    /// ```
    #[must_use]
    pub const fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_secs(self.0.saturating_sub(earlier.0))
    }
}

/// Drops the fraction of the second. A time before 1970 becomes 1970-01-01T00:00:00Z, at which
/// every token with `nbf` or `iat` is rejected as not yet valid.
impl From<SystemTime> for UnixTime {
    fn from(time: SystemTime) -> Self {
        let since_epoch = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(since_epoch.as_secs())
    }
}

/// A time after 9999-12-31T23:59:59Z becomes that time: not every platform has later ones.
impl From<UnixTime> for SystemTime {
    fn from(time: UnixTime) -> Self {
        const END_OF_9999: u64 = 253_402_300_799;
        UNIX_EPOCH + Duration::from_secs(time.0.min(END_OF_9999))
    }
}

impl fmt::Display for UnixTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, second_of_day) = (self.0 / 86_400, self.0 % 86_400);
        let (year, month, day) = civil_from_days(days);
        let (hour, minute, second) = (
            second_of_day / 3600,
            second_of_day / 60 % 60,
            second_of_day % 60,
        );
        let sign = if year > 9999 { "+" } else { "" };
        write!(
            f,
            "{sign}{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z"
        )
    }
}

/// The year, month and day that are `days` after 1970-01-01, in the Gregorian calendar.
///
/// Counts in years that begin in March, so that the leap day is the last day of a year, and in
/// periods of 400 years, which have 146,097 days
/// (<https://howardhinnant.github.io/date_algorithms.html#civil_from_days>).
fn civil_from_days(days: u64) -> (u64, u64, u64) {
    /// From 0000-03-01 to 1970-01-01.
    const DAYS_BEFORE_1970: u64 = 719_468;
    let days = days + DAYS_BEFORE_1970;
    let (period, day_of_period) = (days / 146_097, days % 146_097);
    let year_of_period = (day_of_period - day_of_period / 1460 + day_of_period / 36_524
        - day_of_period / 146_096)
        / 365;
    let day_of_year =
        day_of_period - (365 * year_of_period + year_of_period / 4 - year_of_period / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let (month, is_next_year) = if month_from_march < 10 {
        (month_from_march + 3, 0)
    } else {
        (month_from_march - 9, 1)
    };
    (period * 400 + year_of_period + is_next_year, month, day)
}

/// A source of wall-clock time.
///
/// It decides whether tokens have expired (`exp`, `nbf`) and how old keys are (`max_stale`). Timers
/// use [`tokio::time`] instead. After a jump of the clock, keys are refreshed within 10 seconds.
///
/// ```
/// use std::time::Duration;
/// use tower_oauth::ResourceServer;
/// use tower_oauth::clock::{Clock, SystemClock, UnixTime};
///
/// /// The clock of a staging system, which lives a day ahead.
/// #[derive(Debug)]
/// struct Tomorrow;
///
/// impl Clock for Tomorrow {
///     fn now(&self) -> UnixTime {
///         SystemClock.now().saturating_add(Duration::from_secs(86_400))
///     }
/// }
///
/// assert!(Tomorrow.now() > SystemClock.now());
/// ResourceServer::builder("https://as.example", "orders").clock(Tomorrow).build()?;
/// # Ok::<(), tower_oauth::ConfigError>(())
/// ```
pub trait Clock: Debug + Send + Sync + 'static {
    /// The current time.
    fn now(&self) -> UnixTime;
}

impl<C: Clock + ?Sized> Clock for Arc<C> {
    fn now(&self) -> UnixTime {
        (**self).now()
    }
}

/// The clock of the operating system.
///
/// ```
/// use tower_oauth::clock::{Clock, SystemClock, UnixTime};
///
/// let now = SystemClock.now();
/// assert!(now > UnixTime::from_secs(1_700_000_000));
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[expect(
    clippy::exhaustive_structs,
    reason = "users name it as a value: `builder.clock(SystemClock)`"
)]
pub struct SystemClock;

impl Clock for SystemClock {
    // The coarse clock is a few milliseconds late, which does not matter for whole seconds, and
    // takes a fraction of the time to read.
    #[cfg(target_os = "linux")]
    fn now(&self) -> UnixTime {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
        // A time before 1970 is a broken clock. It counts as zero, as in the conversion above.
        UnixTime(u64::try_from(time.tv_sec).unwrap_or(0))
    }

    #[cfg(not(target_os = "linux"))]
    #[expect(
        clippy::disallowed_methods,
        reason = "the only code that reads wall-clock time"
    )]
    fn now(&self) -> UnixTime {
        SystemTime::now().into()
    }
}

/// A clock that only moves when a test moves it.
///
/// Clones share their time.
///
/// ```
/// use std::time::Duration;
/// use tower_oauth::clock::{Clock, ManualClock, UnixTime};
///
/// let clock = ManualClock::at(UnixTime::from_secs(1_700_000_000));
/// clock.advance(Duration::from_secs(30));
/// assert_eq!(clock.now().as_secs(), 1_700_000_030);
/// ```
#[cfg(any(test, feature = "test-util"))]
#[cfg_attr(docsrs, doc(cfg(feature = "test-util")))]
#[derive(Clone, Debug)]
pub struct ManualClock(Arc<std::sync::atomic::AtomicU64>);

#[cfg(any(test, feature = "test-util"))]
impl ManualClock {
    /// Creates a clock with the time `now`.
    #[must_use]
    pub fn at(now: UnixTime) -> Self {
        Self(Arc::new(now.as_secs().into()))
    }

    /// Moves the clock forward by the whole seconds of `by`, but no timers.
    ///
    /// For timers this looks like a suspended machine. Beyond `max_stale`, 24 hours by default,
    /// tokens get a 503 until the keys are refreshed:
    /// [`advance_with_timers`](Self::advance_with_timers) lets that happen.
    pub fn advance(&self, by: Duration) {
        self.0
            .fetch_add(by.as_secs(), std::sync::atomic::Ordering::SeqCst);
    }

    /// Moves this clock and timers forward together, second by second.
    ///
    /// Refreshes, renewals and retries that become due run meanwhile. Use it in tests with paused
    /// tokio time (`#[tokio::test(start_paused = true)]`): there an hour takes some milliseconds,
    /// plus the work that becomes due. Elsewhere it takes the whole seconds of `by`.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use tower_oauth::authorization_server::AuthorizationServer;
    /// # use tower_oauth::clock::{ManualClock, UnixTime};
    /// # use tower_oauth::resource_server::Algorithm;
    /// # let clock = ManualClock::at(UnixTime::from_secs(1_800_000_000));
    /// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256);
    /// # let issuer = issuer.clock(clock.clone()).build()?;
    /// # let shop = issuer.register("shop")?;
    /// use std::time::Duration;
    /// use tower_oauth::ResourceServer;
    /// use tower_oauth::authorization_server::EndpointKind;
    ///
    /// let orders = ResourceServer::builder(issuer.issuer(), "orders")
    /// #   .transport(issuer.transport())
    ///     .clock(clock.clone())
    ///     .start()
    ///     .await?;
    /// clock.advance_with_timers(Duration::from_secs(3600)).await;
    /// assert!(orders.keys_available());
    /// assert!(issuer.requests(EndpointKind::Keys) > 5); // refreshed meanwhile
    /// # Ok(())
    /// # }
    /// ```
    pub async fn advance_with_timers(&self, by: Duration) {
        const SECOND: Duration = Duration::from_secs(1);
        for _ in 0..by.as_secs() {
            self.advance(SECOND);
            tokio::time::sleep(SECOND).await;
        }
    }

    /// Sets the clock, forward or back.
    ///
    /// ```
    /// use tower_oauth::clock::{Clock, ManualClock, UnixTime};
    ///
    /// let clock = ManualClock::at(UnixTime::from_secs(1_800_000_000));
    /// let shared = clock.clone();
    /// clock.set(UnixTime::from_secs(1_700_000_000));
    /// assert_eq!(shared.now(), UnixTime::from_secs(1_700_000_000));
    /// ```
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The dates that GNU `date --utc --iso-8601=seconds` prints.
    #[test]
    fn a_time_is_displayed_as_in_rfc_3339() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_704_067_199, "2023-12-31T23:59:59Z"),
            (1_704_067_200, "2024-01-01T00:00:00Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (253_402_300_799, "9999-12-31T23:59:59Z"),
            (253_402_300_800, "+10000-01-01T00:00:00Z"),
        ] {
            assert_eq!(UnixTime(seconds).to_string(), text);
        }
        // The last one does not overflow.
        assert!(UnixTime(u64::MAX).to_string().starts_with("+5845"));
    }

    /// The calendar repeats after 400 years. `httpdate` has another implementation of it.
    #[test]
    fn each_day_of_400_years_has_the_date_of_httpdate() {
        const MONTHS: [&str; 12] = [
            "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
        ];
        for days in 0..146_097 {
            let (year, month, day) = civil_from_days(days);
            let month = MONTHS[usize::try_from(month).unwrap() - 1];
            let date = httpdate::fmt_http_date(UnixTime(days * 86_400).into());
            let expected = format!("{day:02} {month} {year:04} 00:00:00 GMT");
            assert_eq!(&date[5..], expected);
        }
    }
}
