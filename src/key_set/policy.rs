//! The settings of a key set's refreshes.

use std::time::Duration;

/// When a key set is refreshed and how long it is trusted.
///
/// The defaults are meant for production. Retries have no setting: after a failure the wait is a
/// random part of a backoff that doubles from 1 second to 1 minute, or the issuer's `Retry-After`,
/// clamped to between 1 second and 5 minutes. While there is no usable set, no wait is longer than
/// 5 seconds, for any value of `Retry-After`.
///
/// ```
/// use std::time::Duration;
/// use tower_oauth::key_set::RefreshPolicy;
///
/// // During an outage of the issuer, trust keys for at most an hour.
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
    /// Returns the default policy.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns a policy that trusts keys for at most an hour during an outage of the issuer.
    pub fn strict() -> Self {
        Self::new().max_stale(Duration::from_secs(3600))
    }

    /// Sets the refresh interval without `Cache-Control`. Default: 5 minutes.
    ///
    /// Each refresh happens at a random 70 to 95 % of the interval, so that the instances of a
    /// service do not fetch together. The interval bounds how long a withdrawn key is trusted.
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = bounded(interval);
        self
    }

    /// Sets the shortest interval for `Cache-Control`, used for `no-store`. Default: 1 minute.
    pub fn min_interval(mut self, floor: Duration) -> Self {
        self.min_interval = bounded(floor);
        self
    }

    /// Sets the longest interval for `Cache-Control`. Default: 10 minutes.
    pub fn max_interval(mut self, ceiling: Duration) -> Self {
        self.max_interval = bounded(ceiling);
        self
    }

    /// Sets how long the last good set is trusted during an outage. Default: 24 hours.
    ///
    /// After that, requests are answered 503.
    pub fn max_stale(mut self, limit: Duration) -> Self {
        self.max_stale = bounded(limit);
        self
    }

    /// Sets the time limit of one fetch. Default: 5 seconds.
    pub fn fetch_timeout(mut self, limit: Duration) -> Self {
        self.fetch_timeout = bounded(limit);
        self
    }

    /// Sets the largest accepted document, in bytes after decompression. Default: 256 KiB.
    pub fn max_document_size(mut self, bytes: usize) -> Self {
        self.max_body = bytes;
        self
    }

    /// Sets the rate limit of refreshes for unknown `kid`s.
    ///
    /// `burst` refreshes are allowed at once, then one each `period`. Default: 2, then one each
    /// 15 seconds. Scheduled refreshes do not count, so that a flood of forged tokens cannot delay
    /// a rotation.
    pub fn unknown_key_rate_limit(mut self, burst: u32, period: Duration) -> Self {
        self.unknown_key_period = bounded(period);
        self.unknown_key_burst = burst.min(1000);
        self
    }

    /// Sets how long a request with an unknown `kid` waits for a refresh. Default: 1 second.
    pub fn unknown_key_timeout(mut self, limit: Duration) -> Self {
        self.unknown_key_timeout = bounded(limit);
        self
    }

    /// Refreshes on an invalid signature, for issuers that reuse `kid`s. Default: off.
    ///
    /// A token with an invalid signature and otherwise valid claims then waits for a refresh. At
    /// most one such refresh is made in 5 minutes, because anyone can send an invalid signature.
    pub fn refresh_on_invalid_signature(mut self) -> Self {
        self.refresh_on_invalid_signature = true;
        self
    }

    /// Sets how many requests may wait for a refresh at the same time. Default: 1024.
    ///
    /// Further requests are rejected at once.
    pub fn max_waiters(mut self, limit: usize) -> Self {
        self.max_waiters = limit;
        self
    }
}

/// Limits a duration to ten years, so that it can be added to any `Instant`.
fn bounded(duration: Duration) -> Duration {
    duration.min(Duration::from_secs(10 * 365 * 86_400))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn max_stale_is_a_day_by_default_and_an_hour_when_strict() {
        assert_eq!(
            RefreshPolicy::new().max_stale,
            Duration::from_secs(24 * 3600)
        );
        assert_eq!(RefreshPolicy::strict().max_stale, Duration::from_secs(3600));
    }
}
