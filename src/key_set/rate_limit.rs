//! The rate limit of on-demand refreshes (GCRA). Pure: time is passed in.

use std::time::{Duration, Instant};

use super::policy::RefreshPolicy;
use super::refresh_cause::RefreshCause;

/// The shortest time between two refreshes that invalid signatures cause.
const MIN_INVALID_SIGNATURE_INTERVAL: Duration = Duration::from_secs(300);

/// The rate limits of on-demand refreshes by cause, and the issuer's `Retry-After`.
#[derive(Clone, Copy, Debug)]
pub(super) struct OnDemandLimits {
    burst: u32,
    period: Duration,
    /// GCRA's theoretical arrival time, for unknown keys.
    theoretical_arrival: Instant,
    refresh_on_invalid_signature: bool,
    /// Time from which an invalid signature may cause a refresh again.
    invalid_signature_after: Instant,
    /// The end of the issuer's `Retry-After`.
    pub(super) not_before: Option<Instant>,
}

impl OnDemandLimits {
    pub(super) fn new(policy: &RefreshPolicy, now: Instant) -> Self {
        Self {
            burst: policy.unknown_key_burst,
            period: policy.unknown_key_period,
            theoretical_arrival: now,
            refresh_on_invalid_signature: policy.refresh_on_invalid_signature,
            invalid_signature_after: now,
            not_before: None,
        }
    }

    /// Whether the limits allow a refresh for this cause now.
    pub(super) fn allows(&self, cause: RefreshCause, now: Instant) -> bool {
        let within_limit = match cause {
            // GCRA: with burst n, the arrival time may run ahead of `now` by n-1 periods.
            RefreshCause::UnknownKey => {
                self.theoretical_arrival.max(now) + self.period <= now + self.period * self.burst
            }
            RefreshCause::InvalidSignature => {
                self.refresh_on_invalid_signature && now >= self.invalid_signature_after
            }
            RefreshCause::Manual | RefreshCause::ClockJump | RefreshCause::Timer => true,
        };
        within_limit && self.not_before.is_none_or(|at| now >= at)
    }

    /// Counts one refresh against its limit. `false` if the limit does not allow it.
    pub(super) fn try_acquire(&mut self, cause: RefreshCause, now: Instant) -> bool {
        let allowed = self.allows(cause, now);
        match cause {
            RefreshCause::UnknownKey if allowed => {
                self.theoretical_arrival = self.theoretical_arrival.max(now) + self.period
            }
            RefreshCause::InvalidSignature if allowed => {
                self.invalid_signature_after = now + MIN_INVALID_SIGNATURE_INTERVAL
            }
            _ => {}
        }
        allowed
    }
}

/// The limits as requests see them, updated when a fetch begins and ends.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RateLimitView {
    /// `None` until the first fetch begins.
    pub(super) limits: Option<OnDemandLimits>,
    pub(super) is_fetching: bool,
}

impl RateLimitView {
    /// Whether a request may wait for a refresh. For an unknown key it may always join a running
    /// fetch, which costs nothing more.
    pub(super) fn allows(&self, cause: RefreshCause, now: Instant) -> bool {
        let joins_fetch = cause == RefreshCause::UnknownKey && self.is_fetching;
        joins_fetch || self.limits.is_none_or(|limits| limits.allows(cause, now))
    }
}
