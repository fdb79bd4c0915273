//! Decides when a token request is sent. Does no I/O and reads no clock.
//!
//! | event | next token request |
//! | --- | --- |
//! | a call waits for a token | at once, or when the backoff ends |
//! | a token was issued and used | well before it expires, or when the source says so |
//! | a resource server rejected the token | at once, or when the backoff ends |
//! | transport, credentials, 429, 5xx | after full-jitter backoff, not before `Retry-After` |
//! | any other failure, certificate errors included | not within a second |
//!
//! Waiting calls fail when the next attempt would exceed their time limit, and after a permanent
//! failure.

use std::time::{Duration, Instant};

use crate::backoff::Backoff;

/// For this long after a permanent failure, new calls fail with the same error.
const REFUSAL_COOLDOWN: Duration = Duration::from_secs(1);

/// Minimum time between a permanent failure of a renewal and the next attempt. The current token
/// is still valid, and the server is unlikely to change its response soon.
const RETRY_AFTER_REFUSAL: Duration = Duration::from_secs(30);

/// Longer values of `Retry-After` are cut to this.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(300);

/// Minimum lead of an explicit `renew_before_expiry`: tokens are not handed out in their last ten
/// seconds.
const MIN_LEAD: Duration = Duration::from_secs(15);

/// Minimum lead of the default, for tokens that live long enough.
const DEFAULT_LEAD: Duration = Duration::from_secs(30);

/// The longest that a call waits for the successor of a rejected token.
const SUCCESSOR_TIMEOUT: Duration = Duration::from_secs(5);

/// The settings of the schedule.
#[derive(Clone, Debug)]
pub(in crate::client) struct RenewalPolicy {
    /// Time limit of one attempt.
    pub(in crate::client) request_timeout: Duration,
    /// The longest that a call waits for a token.
    pub(in crate::client) acquire_timeout: Duration,
    /// How long before expiry a token is renewed; `None` for a fifth of its lifetime.
    pub(in crate::client) lead: Option<Duration>,
    /// The lifetime of a token whose lifetime is unknown.
    pub(in crate::client) assumed_lifetime: Duration,
    pub(in crate::client) backoff: Backoff,
}

impl RenewalPolicy {
    /// The longest that a call waits for the successor of a rejected token.
    pub(in crate::client) fn successor_timeout(&self) -> Duration {
        self.request_timeout.min(SUCCESSOR_TIMEOUT)
    }
}

impl Default for RenewalPolicy {
    fn default() -> Self {
        Self {
            request_timeout: Duration::from_secs(10),
            acquire_timeout: Duration::from_secs(40),
            lead: None,
            assumed_lifetime: Duration::from_secs(300),
            backoff: Backoff {
                base: Duration::from_millis(500),
                cap: Duration::from_secs(10),
            },
        }
    }
}

/// Whether a failed request is retried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// Retried with backoff, and not before this `Retry-After`.
    Transient(Option<Duration>),
    /// Not retried: the same request would fail again.
    Permanent,
}

/// The state that determines when the next token request is sent.
#[derive(Debug)]
pub(super) struct RenewalSchedule {
    policy: RenewalPolicy,
    /// When the first waiting call began to wait.
    waiting_since: Option<Instant>,
    /// When the current token is renewed.
    renew_at: Option<Instant>,
    /// No request before this.
    not_before: Option<Instant>,
    /// New calls fail until then.
    cooldown_until: Option<Instant>,
    /// No renewal before this, because one failed permanently. Calls without a token do not wait
    /// for it.
    renewal_not_before: Option<Instant>,
    failures: u32,
}

impl RenewalSchedule {
    pub(super) fn new(policy: RenewalPolicy) -> Self {
        Self {
            policy,
            waiting_since: None,
            renew_at: None,
            not_before: None,
            cooldown_until: None,
            renewal_not_before: None,
            failures: 0,
        }
    }

    /// A call needs a token. Returns whether it may wait for one; if not, it fails with the last
    /// error.
    pub(super) fn register_waiter(&mut self, now: Instant) -> bool {
        let is_refused = self.cooldown_until.is_some_and(|until| now < until);
        let is_too_long = self
            .not_before
            .is_some_and(|at| at >= now + self.policy.acquire_timeout);
        if is_refused || is_too_long {
            return false;
        }
        self.waiting_since.get_or_insert(now);
        true
    }

    /// When the next request is due, if one is scheduled.
    pub(super) fn next_attempt(&self) -> Option<Instant> {
        let due = self.waiting_since.or(self.renew_at)?;
        Some(
            self.not_before
                .map_or(due, |not_before| due.max(not_before)),
        )
    }

    /// Whether an earlier failure delays the next request.
    pub(super) fn is_backing_off(&self, now: Instant) -> bool {
        let delays = [
            self.not_before,
            self.cooldown_until,
            self.renewal_not_before,
        ];
        delays.into_iter().flatten().any(|at| now < at)
    }

    pub(super) fn has_waiters(&self) -> bool {
        self.waiting_since.is_some()
    }

    /// Cancels the renewal of a token that is not used.
    pub(super) fn pause(&mut self) {
        self.renew_at = None;
    }

    /// The current token is used again: renews it now if its renewal was cancelled.
    pub(super) fn resume(&mut self, now: Instant) {
        self.renew_at.get_or_insert(now);
    }

    /// A resource server rejected the token: renews it now, or as soon as the backoff of earlier
    /// failures allows. Returns whether that is within `limit`.
    pub(super) fn request_replacement(&mut self, now: Instant, limit: Duration) -> bool {
        let at = self
            .renewal_not_before
            .map_or(now, |before| before.max(now));
        self.renew_at = Some(self.renew_at.map_or(at, |renew_at| renew_at.min(at)));
        self.next_attempt().is_some_and(|next| next <= now + limit)
    }

    /// The time limit of the next attempt: no attempt outlasts the first waiting call.
    pub(super) fn attempt_timeout(&self, now: Instant) -> Duration {
        let left = self
            .waiting_since
            .map(|since| (since + self.policy.acquire_timeout).saturating_duration_since(now));
        left.map_or(self.policy.request_timeout, |left| {
            left.min(self.policy.request_timeout)
        })
    }

    /// A token was issued that expires `lifetime` after `now`. `random` is between 0.0 and 1.0.
    pub(super) fn succeeded(&mut self, now: Instant, lifetime: Option<Duration>, random: f64) {
        self.waiting_since = None;
        self.not_before = None;
        self.cooldown_until = None;
        self.renewal_not_before = None;
        self.failures = 0;
        self.renew_at = lifetime.map(|lifetime| now + self.renew_after(lifetime, random));
    }

    /// Renews the token that was issued at `now` no later than `after` that.
    pub(super) fn renew_within(&mut self, now: Instant, after: Duration) {
        let latest = now.checked_add(after);
        self.renew_at = self
            .renew_at
            .map(|at| latest.map_or(at, |latest| latest.min(at)));
    }

    /// The attempt failed. Returns whether the waiting calls fail with it.
    pub(super) fn failed(&mut self, now: Instant, failure: Failure, random: f64) -> bool {
        self.failures = self.failures.saturating_add(1);
        let wait = self.policy.backoff.wait(self.failures, random);
        let wait = match failure {
            Failure::Transient(retry_after) => {
                wait.max(retry_after.unwrap_or_default().min(MAX_RETRY_AFTER))
            }
            Failure::Permanent => {
                self.waiting_since = None;
                self.not_before = None;
                self.cooldown_until = Some(now + REFUSAL_COOLDOWN);
                let again = now + wait.max(RETRY_AFTER_REFUSAL);
                self.renewal_not_before = Some(again);
                self.renew_at = self.renew_at.map(|_| again);
                return true;
            }
        };
        let at = now.checked_add(wait).unwrap_or(now + RETRY_AFTER_REFUSAL);
        self.not_before = Some(at);
        let is_too_late = self
            .waiting_since
            .is_some_and(|since| at >= since + self.policy.acquire_timeout);
        if is_too_late {
            self.waiting_since = None;
        }
        is_too_late
    }

    /// When a token is renewed, counted from its issuance. Default: a fifth of the lifetime before
    /// it expires, at least 30 seconds before, but not in the first half of the lifetime. Up to
    /// 5 % of the lifetime earlier at random, so that many instances do not renew together.
    fn renew_after(&self, lifetime: Duration, random: f64) -> Duration {
        let lead = self.policy.lead.map_or_else(
            || (lifetime / 5).max(DEFAULT_LEAD),
            |lead| lead.max(MIN_LEAD),
        );
        let latest = lifetime.saturating_sub(lead).max(lifetime / 2);
        latest.saturating_sub(lifetime.mul_f64(0.05 * random.clamp(0.0, 1.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn schedule() -> (RenewalSchedule, Instant) {
        (
            RenewalSchedule::new(RenewalPolicy::default()),
            Instant::now(),
        )
    }

    #[test]
    fn no_request_is_sent_before_a_call_needs_a_token() {
        let (mut schedule, start) = schedule();
        assert_eq!(schedule.next_attempt(), None);
        assert!(schedule.register_waiter(start));
        assert_eq!(schedule.next_attempt(), Some(start));
    }

    #[test]
    fn a_token_is_renewed_after_about_four_fifths_of_its_life() {
        let (mut schedule, start) = schedule();
        let after = |schedule: &mut RenewalSchedule, lifetime: u64, random| {
            schedule.succeeded(
                start,
                Some(SECOND * u32::try_from(lifetime).unwrap()),
                random,
            );
            schedule.next_attempt().unwrap() - start
        };
        assert_eq!(after(&mut schedule, 3600, 0.0), SECOND * 2880);
        assert_eq!(after(&mut schedule, 3600, 1.0), SECOND * 2700);
        assert_eq!(
            after(&mut schedule, 120, 0.0),
            SECOND * 90,
            "30 seconds ahead"
        );
        assert_eq!(
            after(&mut schedule, 40, 0.0),
            SECOND * 20,
            "at half of a short lifetime"
        );
        assert_eq!(after(&mut schedule, 1, 0.0), SECOND / 2);
        schedule.succeeded(start, None, 0.0);
        assert_eq!(
            schedule.next_attempt(),
            None,
            "a token that is not stored is not renewed"
        );
    }

    #[test]
    fn a_source_can_have_its_token_renewed_earlier_but_not_later() {
        let (mut schedule, start) = schedule();
        for (after, expected) in [(60, 60), (3000, 2880), (u64::MAX, 2880)] {
            schedule.succeeded(start, Some(SECOND * 3600), 0.0);
            schedule.renew_within(start, Duration::from_secs(after));
            assert_eq!(schedule.next_attempt(), Some(start + SECOND * expected));
        }
        schedule.succeeded(start, None, 0.0);
        schedule.renew_within(start, SECOND);
        assert_eq!(schedule.next_attempt(), None, "a token that is not stored");
    }

    #[test]
    fn attempts_back_off_and_stop_at_the_acquire_timeout() {
        let (mut schedule, start) = schedule();
        schedule.register_waiter(start);
        let mut now = start;
        let mut attempts = 0;
        loop {
            now = schedule.next_attempt().unwrap().max(now);
            attempts += 1;
            let limit = schedule.attempt_timeout(now);
            assert!(
                now + limit <= start + SECOND * 40,
                "no attempt outlasts the waiting call"
            );
            now += Duration::from_millis(10);
            if schedule.failed(now, Failure::Transient(None), 1.0) {
                break;
            }
        }
        assert!((5..=9).contains(&attempts), "{attempts} attempts");
        assert_eq!(schedule.next_attempt(), None, "no call waits any more");
        assert!(now < start + SECOND * 40);
    }

    #[test]
    fn retry_after_is_honored_and_a_long_one_fails_waiting_calls_at_once() {
        let (mut schedule, start) = schedule();
        schedule.register_waiter(start);
        assert!(!schedule.failed(start, Failure::Transient(Some(SECOND * 7)), 0.0));
        assert_eq!(schedule.next_attempt(), Some(start + SECOND * 7));
        assert!(schedule.failed(
            start + SECOND * 7,
            Failure::Transient(Some(SECOND * 120)),
            0.0
        ));
        assert!(
            !schedule.register_waiter(start + SECOND * 8),
            "the next attempt exceeds the acquire timeout"
        );
        assert!(schedule.register_waiter(start + SECOND * 100));
        assert_eq!(
            schedule.next_attempt(),
            Some(start + SECOND * 127),
            "not before the `Retry-After`"
        );
    }

    #[test]
    fn retry_after_is_capped_at_five_minutes() {
        let (mut schedule, start) = schedule();
        schedule.register_waiter(start);
        assert!(schedule.failed(start, Failure::Transient(Some(Duration::MAX)), 0.0));
        assert!(schedule.register_waiter(start + SECOND * 299));
        assert_eq!(schedule.next_attempt(), Some(start + SECOND * 300));
    }

    #[test]
    fn calls_fail_for_a_second_after_a_permanent_failure() {
        let (mut schedule, start) = schedule();
        schedule.register_waiter(start);
        assert!(schedule.failed(start, Failure::Permanent, 0.5));
        assert_eq!(schedule.next_attempt(), None);
        assert!(!schedule.register_waiter(start + SECOND / 2));
        assert!(schedule.register_waiter(start + SECOND));
        assert_eq!(schedule.next_attempt(), Some(start + SECOND));
    }

    #[test]
    fn a_rejected_token_is_renewed_at_once_but_not_before_the_backoff_ends() {
        let limit = SECOND * 5;
        let (mut schedule, start) = schedule();
        schedule.succeeded(start, Some(SECOND * 3600), 0.0);
        assert!(schedule.request_replacement(start + SECOND, limit));
        assert_eq!(schedule.next_attempt(), Some(start + SECOND));
        // Another invalidation does not shorten the backoff.
        let mut now = start + SECOND;
        for failures in 1..20 {
            assert!(
                !schedule.failed(now, Failure::Transient(None), 1.0),
                "no call waits for it"
            );
            let next = schedule.next_attempt().unwrap();
            assert!(schedule.request_replacement(now, limit) == (next <= now + limit));
            assert_eq!(
                schedule.next_attempt(),
                Some(next),
                "after {failures} failures"
            );
            now = next;
        }
        schedule.failed(now, Failure::Transient(Some(SECOND * 120)), 0.0);
        assert!(!schedule.request_replacement(now, limit));
        assert_eq!(
            schedule.next_attempt(),
            Some(now + SECOND * 120),
            "nor the `Retry-After`"
        );
        now += SECOND * 120;
        schedule.failed(now, Failure::Permanent, 0.0);
        assert!(
            !schedule.request_replacement(now + SECOND, limit),
            "nor the pause after a permanent failure"
        );
        assert_eq!(schedule.next_attempt(), Some(now + SECOND * 30));
        assert!(
            schedule.register_waiter(now + SECOND * 2),
            "a call without a token does not wait for that"
        );
        assert_eq!(schedule.next_attempt(), Some(now + SECOND * 2));
    }

    #[test]
    fn a_failed_renewal_is_retried_without_waiting_calls() {
        let (mut schedule, start) = schedule();
        schedule.succeeded(start, Some(SECOND * 3600), 0.0);
        let due = schedule.next_attempt().unwrap();
        assert!(
            !schedule.failed(due, Failure::Transient(None), 1.0),
            "no call waits"
        );
        assert_eq!(schedule.next_attempt(), Some(due + SECOND / 2));
        schedule.failed(due, Failure::Permanent, 1.0);
        assert_eq!(schedule.next_attempt(), Some(due + SECOND * 30));
    }
}
