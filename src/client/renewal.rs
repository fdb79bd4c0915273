//! When a token request is sent: pure, so that every rule can be proven without waiting.
//!
//! | what | rule |
//! | --- | --- |
//! | a call waits for a token | at once, or when the backoff ends |
//! | there is a token | well before it expires, if it was used |
//! | a resource server refused it | at once, or when the backoff ends |
//! | transport error, 429, 5xx | full-jitter backoff, not before `Retry-After`; those who wait are answered when the next attempt would come too late for them |
//! | any other failure, a certificate error included | the calls that wait are answered, and no request is sent for a second |

use std::time::{Duration, Instant};

use crate::backoff::Backoff;

/// For so long after a refusal the answer to a new caller is the same refusal.
const COOLDOWN: Duration = Duration::from_secs(1);

/// A renewal that was refused is not tried again before this: the token in hand is still good,
/// and a refusal will hardly change soon.
const REFUSED_RENEWAL: Duration = Duration::from_secs(30);

/// What a server may ask for by `Retry-After`. More is a mistake, and would be no recovery.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// A renewal is so long ahead of expiry whatever is set: tokens are not handed out in their
/// last ten seconds.
const MARGIN_AHEAD: Duration = Duration::from_secs(15);

/// The least time that a renewal is ahead of expiry, where the token lives long enough.
const LEAST_AHEAD: Duration = Duration::from_secs(30);

/// The numbers.
#[derive(Clone, Debug)]
pub(super) struct RenewalPolicy {
    /// Time limit of one attempt.
    pub(super) attempt: Duration,
    /// How long a caller waits at most.
    pub(super) acquire_timeout: Duration,
    /// How long before expiry a token is renewed; `None` for a fifth of its life.
    pub(super) ahead: Option<Duration>,
    pub(super) backoff: Backoff,
}

impl Default for RenewalPolicy {
    fn default() -> Self {
        Self {
            attempt: Duration::from_secs(10),
            acquire_timeout: Duration::from_secs(40),
            ahead: None,
            backoff: Backoff {
                base: Duration::from_millis(500),
                cap: Duration::from_secs(10),
            },
        }
    }
}

/// What a failure means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// It may go better in a moment, but not before this long.
    Transient(Option<Duration>),
    /// The same request would be refused again.
    Final,
}

#[derive(Debug)]
pub(super) struct Renewal {
    policy: RenewalPolicy,
    /// Since when somebody has been waiting.
    waiting: Option<Instant>,
    /// When the token in hand is to be renewed.
    renew_at: Option<Instant>,
    /// No request before this.
    not_before: Option<Instant>,
    /// Until then a demand is refused.
    refused_until: Option<Instant>,
    /// No renewal before this, because one was refused. A call that needs a token does not wait
    /// for it.
    no_renewal_before: Option<Instant>,
    failures: u32,
}

impl Renewal {
    pub(super) fn new(policy: RenewalPolicy) -> Self {
        Self {
            policy,
            waiting: None,
            renew_at: None,
            not_before: None,
            refused_until: None,
            no_renewal_before: None,
            failures: 0,
        }
    }

    /// Somebody needs a token. Returns whether to wait for it; if not, the last error stands.
    pub(super) fn demand(&mut self, now: Instant) -> bool {
        let refused = self.refused_until.is_some_and(|until| now < until);
        let too_long = self
            .not_before
            .is_some_and(|at| at >= now + self.policy.acquire_timeout);
        if refused || too_long {
            return false;
        }
        self.waiting.get_or_insert(now);
        true
    }

    /// When the next request is due, if any is.
    pub(super) fn next(&self) -> Option<Instant> {
        let wanted = self.waiting.or(self.renew_at)?;
        Some(
            self.not_before
                .map_or(wanted, |not_before| wanted.max(not_before)),
        )
    }

    pub(super) fn somebody_waits(&self) -> bool {
        self.waiting.is_some()
    }

    /// The token in hand is not used: it is renewed when it is.
    pub(super) fn rest(&mut self) {
        self.renew_at = None;
    }

    /// The token in hand is used after all: if its time to renew has passed, that is now.
    pub(super) fn wake(&mut self, now: Instant) {
        self.renew_at.get_or_insert(now);
    }

    /// A resource server refused the token: it is renewed now, or as soon as the attempts that
    /// failed before allow it. Returns whether that is within `soon`.
    pub(super) fn replace(&mut self, now: Instant, soon: Duration) -> bool {
        let at = self.no_renewal_before.map_or(now, |before| before.max(now));
        self.renew_at = Some(self.renew_at.map_or(at, |renew_at| renew_at.min(at)));
        self.next().is_some_and(|next| next <= now + soon)
    }

    /// The time that an attempt may take.
    pub(super) fn attempt_limit(&self, now: Instant) -> Duration {
        let left = self
            .waiting
            .map(|since| (since + self.policy.acquire_timeout).saturating_duration_since(now));
        left.map_or(self.policy.attempt, |left| left.min(self.policy.attempt))
    }

    /// A token came; it lives this long from `now`. `random` is drawn from 0.0 to 1.0.
    pub(super) fn succeeded(&mut self, now: Instant, lifetime: Option<Duration>, random: f64) {
        self.waiting = None;
        self.not_before = None;
        self.refused_until = None;
        self.no_renewal_before = None;
        self.failures = 0;
        self.renew_at = lifetime.map(|lifetime| now + self.renew_after(lifetime, random));
    }

    /// No token came. Returns whether those who wait are to be told so.
    pub(super) fn failed(&mut self, now: Instant, failure: Failure, random: f64) -> bool {
        self.failures = self.failures.saturating_add(1);
        let wait = self.policy.backoff.wait(self.failures, random);
        let wait = match failure {
            Failure::Transient(retry_after) => {
                wait.max(retry_after.unwrap_or_default().min(LONGEST_WAIT))
            }
            Failure::Final => {
                self.waiting = None;
                self.not_before = None;
                self.refused_until = Some(now + COOLDOWN);
                let again = now + wait.max(REFUSED_RENEWAL);
                self.no_renewal_before = Some(again);
                self.renew_at = self.renew_at.map(|_| again);
                return true;
            }
        };
        let at = now.checked_add(wait).unwrap_or(now + REFUSED_RENEWAL);
        self.not_before = Some(at);
        let hopeless = self
            .waiting
            .is_some_and(|since| at >= since + self.policy.acquire_timeout);
        if hopeless {
            self.waiting = None;
        }
        hopeless
    }

    /// A fifth of its life ahead, at least half a minute where that is at most half of it, and
    /// somewhat earlier at random, so that many instances do not ask together.
    fn renew_after(&self, lifetime: Duration, random: f64) -> Duration {
        let ahead = self.policy.ahead.map_or_else(
            || (lifetime / 5).max(LEAST_AHEAD),
            |ahead| ahead.max(MARGIN_AHEAD),
        );
        let latest = lifetime.saturating_sub(ahead).max(lifetime / 2);
        latest.saturating_sub(lifetime.mul_f64(0.05 * random.clamp(0.0, 1.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn renewal() -> (Renewal, Instant) {
        (Renewal::new(RenewalPolicy::default()), Instant::now())
    }

    #[test]
    fn nothing_is_asked_before_somebody_needs_it() {
        let (mut renewal, start) = renewal();
        assert_eq!(renewal.next(), None);
        assert!(renewal.demand(start));
        assert_eq!(renewal.next(), Some(start));
    }

    #[test]
    fn a_token_is_renewed_after_about_four_fifths_of_its_life() {
        let (mut renewal, start) = renewal();
        let after = |renewal: &mut Renewal, lifetime: u64, random| {
            renewal.succeeded(
                start,
                Some(SECOND * u32::try_from(lifetime).unwrap()),
                random,
            );
            renewal.next().unwrap() - start
        };
        assert_eq!(after(&mut renewal, 3600, 0.0), SECOND * 2880);
        assert_eq!(after(&mut renewal, 3600, 1.0), SECOND * 2700);
        assert_eq!(
            after(&mut renewal, 120, 0.0),
            SECOND * 90,
            "half a minute ahead"
        );
        assert_eq!(
            after(&mut renewal, 40, 0.0),
            SECOND * 20,
            "half a life where it is short"
        );
        assert_eq!(after(&mut renewal, 1, 0.0), SECOND / 2);
        renewal.succeeded(start, None, 0.0);
        assert_eq!(
            renewal.next(),
            None,
            "of unknown life: not kept, so not renewed"
        );
    }

    #[test]
    fn attempts_back_off_and_end_in_time() {
        let (mut renewal, start) = renewal();
        renewal.demand(start);
        let mut now = start;
        let mut attempts = 0;
        loop {
            now = renewal.next().unwrap().max(now);
            attempts += 1;
            let limit = renewal.attempt_limit(now);
            assert!(
                now + limit <= start + SECOND * 40,
                "no attempt outlasts its caller"
            );
            now += Duration::from_millis(10);
            if renewal.failed(now, Failure::Transient(None), 1.0) {
                break;
            }
        }
        assert!((5..=9).contains(&attempts), "{attempts} attempts");
        assert_eq!(renewal.next(), None, "nobody waits any more");
        assert!(now < start + SECOND * 40);
    }

    #[test]
    fn retry_after_is_honoured_and_a_long_one_answered_at_once() {
        let (mut renewal, start) = renewal();
        renewal.demand(start);
        assert!(!renewal.failed(start, Failure::Transient(Some(SECOND * 7)), 0.0));
        assert_eq!(renewal.next(), Some(start + SECOND * 7));
        assert!(renewal.failed(
            start + SECOND * 7,
            Failure::Transient(Some(SECOND * 120)),
            0.0
        ));
        assert!(
            !renewal.demand(start + SECOND * 8),
            "the next attempt is too far off"
        );
        assert!(renewal.demand(start + SECOND * 100));
        assert_eq!(
            renewal.next(),
            Some(start + SECOND * 127),
            "and not before the server said"
        );
    }

    #[test]
    fn a_retry_after_that_is_a_mistake_does_not_end_the_manager() {
        let (mut renewal, start) = renewal();
        renewal.demand(start);
        assert!(renewal.failed(start, Failure::Transient(Some(Duration::MAX)), 0.0));
        assert!(renewal.demand(start + SECOND * 299));
        assert_eq!(renewal.next(), Some(start + SECOND * 300));
    }

    #[test]
    fn a_refusal_is_final_for_a_second() {
        let (mut renewal, start) = renewal();
        renewal.demand(start);
        assert!(renewal.failed(start, Failure::Final, 0.5));
        assert_eq!(renewal.next(), None);
        assert!(!renewal.demand(start + SECOND / 2));
        assert!(renewal.demand(start + SECOND));
        assert_eq!(renewal.next(), Some(start + SECOND));
    }

    #[test]
    fn a_refused_token_is_renewed_at_once_but_not_sooner_than_failures_allow() {
        let soon = SECOND * 5;
        let (mut renewal, start) = renewal();
        renewal.succeeded(start, Some(SECOND * 3600), 0.0);
        assert!(renewal.replace(start + SECOND, soon));
        assert_eq!(renewal.next(), Some(start + SECOND));
        // A refusal of the resource server does not shorten the backoff.
        let mut now = start + SECOND;
        for failures in 1..20 {
            assert!(
                !renewal.failed(now, Failure::Transient(None), 1.0),
                "no call waits for it"
            );
            let next = renewal.next().unwrap();
            assert!(renewal.replace(now, soon) == (next <= now + soon));
            assert_eq!(renewal.next(), Some(next), "after {failures} failures");
            now = next;
        }
        renewal.failed(now, Failure::Transient(Some(SECOND * 120)), 0.0);
        assert!(!renewal.replace(now, soon));
        assert_eq!(
            renewal.next(),
            Some(now + SECOND * 120),
            "nor what the server asked for"
        );
        now += SECOND * 120;
        renewal.failed(now, Failure::Final, 0.0);
        assert!(
            !renewal.replace(now + SECOND, soon),
            "nor the pause after a refusal"
        );
        assert_eq!(renewal.next(), Some(now + SECOND * 30));
        assert!(
            renewal.demand(now + SECOND * 2),
            "a call that needs a token does not wait for that"
        );
        assert_eq!(renewal.next(), Some(now + SECOND * 2));
    }

    #[test]
    fn a_renewal_that_fails_is_tried_again_while_nobody_waits() {
        let (mut renewal, start) = renewal();
        renewal.succeeded(start, Some(SECOND * 3600), 0.0);
        let due = renewal.next().unwrap();
        assert!(
            !renewal.failed(due, Failure::Transient(None), 1.0),
            "nobody to tell"
        );
        assert_eq!(renewal.next(), Some(due + SECOND / 2));
        renewal.failed(due, Failure::Final, 1.0);
        assert_eq!(renewal.next(), Some(due + SECOND * 30));
    }
}
