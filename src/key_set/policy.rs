//! The numbers of a key set's life, with defaults for production.

use std::time::Duration;

/// How a key set is refreshed, how long it is trusted, and what unknown keys may cost.
///
/// Every default is right for production; change one when your issuer differs. What has no setting:
/// failures are followed by waits that double from 1 second to 1 minute, each drawn by chance, or
/// that last as long as the issuer's `Retry-After` says, from 1 second to 5 minutes. Without any
/// set no wait is longer than 5 seconds, `Retry-After` or not.
///
/// ```
/// use std::time::Duration;
/// use tower_oauth::RefreshPolicy;
///
/// // Trust keys for at most an hour without hearing from the issuer.
/// let policy = RefreshPolicy::new().max_stale(Duration::from_secs(3600));
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct RefreshPolicy {
    pub(crate) interval: Duration,
    pub(crate) min_interval: Duration,
    pub(crate) max_interval: Duration,
    pub(crate) max_stale: Duration,
    pub(crate) fetch_timeout: Duration,
    pub(crate) max_body: usize,
    pub(crate) unknown_key_burst: u32,
    pub(crate) unknown_key_period: Duration,
    pub(crate) unknown_key_timeout: Duration,
    pub(crate) max_waiters: usize,
    pub(crate) refresh_on_invalid_signature: bool,
}

impl Default for RefreshPolicy {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(300),
            min_interval: Duration::from_secs(60),
            max_interval: Duration::from_secs(600),
            max_stale: Duration::from_secs(86_400),
            fetch_timeout: Duration::from_secs(5),
            max_body: 256 * 1024,
            unknown_key_burst: 2,
            unknown_key_period: Duration::from_secs(15),
            unknown_key_timeout: Duration::from_secs(1),
            max_waiters: 1024,
            refresh_on_invalid_signature: false,
        }
    }
}

impl RefreshPolicy {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// For those who would rather refuse than trust old keys: at most an hour without hearing
    /// from the issuer.
    pub fn strict() -> Self {
        Self::new().max_stale(Duration::from_secs(3600))
    }

    /// Time between refreshes where the issuer's `Cache-Control` says nothing. Default: 5 minutes.
    ///
    /// Each refresh comes somewhat earlier, at a random 70 to 95 % of it, so that many
    /// instances do not ask together. It bounds how long a withdrawn key is trusted.
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = bounded(interval);
        self
    }

    /// The shortest interval that `Cache-Control` can ask for, and what `no-store` means.
    /// Default: 1 minute.
    pub fn min_interval(mut self, floor: Duration) -> Self {
        self.min_interval = bounded(floor);
        self
    }

    /// The longest interval that `Cache-Control` can ask for. Default: 10 minutes.
    pub fn max_interval(mut self, ceiling: Duration) -> Self {
        self.max_interval = bounded(ceiling);
        self
    }

    /// How long the last good set is trusted while the issuer cannot be reached. After it
    /// requests are answered 503. Default: 24 hours.
    pub fn max_stale(mut self, limit: Duration) -> Self {
        self.max_stale = bounded(limit);
        self
    }

    /// Time limit of one fetch. Default: 5 seconds.
    pub fn fetch_timeout(mut self, limit: Duration) -> Self {
        self.fetch_timeout = bounded(limit);
        self
    }

    /// Largest document that is read, in bytes after decompression. Default: 256 KiB.
    pub fn max_document_size(mut self, bytes: usize) -> Self {
        self.max_body = bytes;
        self
    }

    /// OnDemandLimits of refreshes that tokens with an unknown `kid` can cause: `burst` at once, then
    /// one each `period`. Default: 2, then one each 15 seconds. The timer has no part in it,
    /// so a flood of forged tokens cannot delay a rotation.
    pub fn unknown_key_rate_limit(mut self, burst: u32, period: Duration) -> Self {
        self.unknown_key_period = bounded(period);
        self.unknown_key_burst = burst.min(1000);
        self
    }

    /// How long a request with an unknown `kid` waits for that refresh. Default: 1 second.
    pub fn unknown_key_timeout(mut self, limit: Duration) -> Self {
        self.unknown_key_timeout = bounded(limit);
        self
    }

    /// For an issuer that gives the same `kid` to new keys: a token that would pass but for its
    /// signature waits for a refresh, too. One such refresh in 5 minutes at most, because anybody
    /// can send a bad signature. Default: off, a bad signature fetches nothing.
    pub fn refresh_on_invalid_signature(mut self) -> Self {
        self.refresh_on_invalid_signature = true;
        self
    }

    /// How many requests may wait at the same time; further ones are refused at once.
    /// Default: 1024.
    pub fn max_waiters(mut self, limit: usize) -> Self {
        self.max_waiters = limit;
        self
    }
}

/// Longer than a program runs is all the same, and can be added to any moment.
fn bounded(duration: Duration) -> Duration {
    duration.min(Duration::from_secs(10 * 365 * 86_400))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_good_set_is_trusted_for_a_day_and_strictly_for_an_hour() {
        assert_eq!(
            RefreshPolicy::new().max_stale,
            Duration::from_secs(24 * 3600)
        );
        assert_eq!(RefreshPolicy::strict().max_stale, Duration::from_secs(3600));
    }
}
