//! How many refreshes tokens may cause: pure, with time passed in.

use std::time::{Duration, Instant};

use super::policy::RefreshPolicy;
use super::schedule::RefreshCause;

/// The least time between two refreshes that bad signatures cause.
const MIN_INVALID_SIGNATURE_INTERVAL: Duration = Duration::from_secs(300);

/// What tokens may cause: a budget for each cause, and none while the issuer wants to be left
/// alone.
#[derive(Clone, Copy, Debug)]
pub(super) struct OnDemandLimits {
    burst: u32,
    period: Duration,
    /// The bucket of unknown keys, as the time at which it will be full again.
    theoretical_arrival: Instant,
    refresh_on_invalid_signature: bool,
    /// Before then no bad signature is a reason to ask.
    invalid_signature_after: Instant,
    /// The issuer asked to be left alone until then.
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

    /// Whether a token may cause a refresh now, for this reason.
    pub(super) fn allows(&self, cause: RefreshCause, now: Instant) -> bool {
        let within_limit = match cause {
            // A bucket of n tokens that refills one each period is spent when it would take more
            // than n-1 periods to fill what is missing.
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

    /// Takes one refresh; `false` if the budget of this cause is spent.
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

/// What a request sees of the budget before it waits for anything.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RateLimitView {
    /// `None` before the first fetch has begun.
    pub(super) limits: Option<OnDemandLimits>,
    pub(super) is_fetching: bool,
}

impl RateLimitView {
    /// Whether it is of any use to wait, for this reason. A fetch that is under way may bring a
    /// missing key, too, and costs nothing more.
    pub(super) fn allows(&self, cause: RefreshCause, now: Instant) -> bool {
        let joins_fetch = cause == RefreshCause::UnknownKey && self.is_fetching;
        joins_fetch || self.limits.is_none_or(|limits| limits.allows(cause, now))
    }
}
