//! How many refreshes tokens may cause: pure, with time passed in.

use std::time::{Duration, Instant};

use super::policy::RefreshPolicy;
use super::schedule::RefreshCause;

/// The least time between two refreshes that bad signatures cause.
const BETWEEN_DOUBTS: Duration = Duration::from_secs(300);

/// What tokens may cause: a budget for each cause, and none while the issuer wants to be left
/// alone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    burst: u32,
    period: Duration,
    /// The bucket of unknown keys, as the time at which it will be full again.
    full_at: Instant,
    refresh_on_invalid_signature: bool,
    /// Before then no bad signature is a reason to ask.
    no_doubt_before: Instant,
    /// The issuer asked to be left alone until then.
    pub(super) not_before: Option<Instant>,
}

impl Budget {
    pub(super) fn new(policy: &RefreshPolicy, now: Instant) -> Self {
        Self {
            burst: policy.demand_burst,
            period: policy.demand_period,
            full_at: now,
            refresh_on_invalid_signature: policy.refresh_on_invalid_signature,
            no_doubt_before: now,
            not_before: None,
        }
    }

    /// Whether a token may cause a refresh now, for this reason.
    pub(super) fn allows(&self, cause: RefreshCause, now: Instant) -> bool {
        let is_left = match cause {
            // A bucket of n tokens that refills one each period is spent when it would take more
            // than n-1 periods to fill what is missing.
            RefreshCause::UnknownKey => {
                self.full_at.max(now) + self.period <= now + self.period * self.burst
            }
            RefreshCause::InvalidSignature => {
                self.refresh_on_invalid_signature && now >= self.no_doubt_before
            }
            RefreshCause::Manual | RefreshCause::ClockJump | RefreshCause::Timer => true,
        };
        is_left && self.not_before.is_none_or(|at| now >= at)
    }

    /// Takes one refresh; `false` if the budget of this cause is spent.
    pub(super) fn take(&mut self, cause: RefreshCause, now: Instant) -> bool {
        let allowed = self.allows(cause, now);
        match cause {
            RefreshCause::UnknownKey if allowed => {
                self.full_at = self.full_at.max(now) + self.period
            }
            RefreshCause::InvalidSignature if allowed => {
                self.no_doubt_before = now + BETWEEN_DOUBTS
            }
            _ => {}
        }
        allowed
    }
}

/// What a request sees of the budget before it waits for anything.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Gate {
    /// `None` before the first fetch has begun.
    pub(super) budget: Option<Budget>,
    pub(super) is_fetching: bool,
}

impl Gate {
    /// Whether it is of any use to wait, for this reason. A fetch that is under way may bring a
    /// missing key, too, and costs nothing more.
    pub(super) fn is_open(&self, cause: RefreshCause, now: Instant) -> bool {
        let joins = cause == RefreshCause::UnknownKey && self.is_fetching;
        joins || self.budget.is_none_or(|budget| budget.allows(cause, now))
    }
}
