//! When to fetch: pure, with time and chance passed in.
//!
//! ```text
//!            success ─▶ timer at 70-95 % of the interval
//! fetch ─┤
//!            failure ─▶ timer at full-jitter backoff, or Retry-After
//!
//! unknown kid ─▶ token bucket ─▶ fetch (never moves the timer back)
//! ```

use std::time::{Duration, Instant};

use super::freshness::Freshness;
use super::policy::RefreshPolicy;
use crate::backoff::Backoff;

/// Before there is a first set, nobody can be served, and it is asked for more often.
const MAX_WAIT_WHILE_EMPTY: Duration = Duration::from_secs(5);

/// What a server may ask for by `Retry-After`.
const RETRY_AFTER: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));

const BACKOFF: Backoff = Backoff { base: Duration::from_secs(1), cap: Duration::from_secs(60) };

/// What made a fetch happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// It was asked for by the program.
    Asked,
    /// The wall clock ran ahead of ours: the machine slept, or its clock was set.
    ClockJump,
    /// Its time had come.
    Timer,
    /// A token named a key that the set does not have.
    UnknownKey,
}

#[derive(Debug)]
pub(super) struct Schedule {
    policy: RefreshPolicy,
    next: Instant,
    failures: u32,
    last_success: Option<Instant>,
    /// The bucket of the unknown-key budget, as the time at which it will be full again.
    bucket_full_at: Instant,
    /// The issuer asked to be left alone until then.
    not_before: Option<Instant>,
}

impl Schedule {
    /// A schedule whose first fetch is due now.
    pub(super) fn new(policy: RefreshPolicy, now: Instant) -> Self {
        Self { policy, next: now, failures: 0, last_success: None, bucket_full_at: now, not_before: None }
    }

    /// The same with a set in hand from elsewhere: no hurry, and not all replicas at once.
    /// `random` is drawn from 0.0 to 1.0.
    pub(super) fn seeded(mut self, random: f64) -> Self {
        self.next += Duration::from_secs(1).mul_f64(random.clamp(0.0, 1.0));
        self
    }

    /// When the timer fires.
    pub(super) fn next(&self) -> Instant {
        self.next
    }

    /// How often in a row the last fetches failed.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    /// When the set in hand is too old to be trusted; `None` without one.
    pub(super) fn stale_at(&self) -> Option<Instant> {
        self.last_success.and_then(|at| at.checked_add(self.policy.max_stale))
    }

    /// The set in hand was given up: fetch soon and often.
    pub(super) fn gave_up(&mut self, now: Instant) {
        self.last_success = None;
        self.next = self.next.min(now + MAX_WAIT_WHILE_EMPTY);
    }

    /// Takes one refresh from the unknown-key budget; `false` if it is spent.
    pub(super) fn take_demand(&mut self, now: Instant) -> bool {
        if self.not_before.is_some_and(|at| now < at) {
            return false;
        }
        // A bucket of n tokens that refills one each period is spent when it would take more
        // than n-1 periods to fill what is missing.
        let full_at = self.bucket_full_at.max(now) + self.policy.demand_period;
        if full_at > now + self.policy.demand_period * self.policy.demand_burst {
            return false;
        }
        self.bucket_full_at = full_at;
        true
    }

    /// A fetch brought a set; `random` is drawn from 0.0 to 1.0.
    pub(super) fn succeeded(&mut self, now: Instant, freshness: Freshness, random: f64) {
        let policy = &self.policy;
        let ceiling = policy.max_interval.max(policy.min_interval);
        let interval = match freshness {
            Freshness::Unsaid => policy.interval,
            Freshness::MaxAge(max_age) => max_age.clamp(policy.min_interval, ceiling),
            Freshness::NoStore => policy.min_interval,
        };
        // With a healthy issuer the set never gets too old, even if `max_stale` is the shorter.
        let interval = interval.min(policy.max_stale / 2).max(Duration::from_millis(100));
        self.next = now + interval.mul_f64(0.70 + 0.25 * random.clamp(0.0, 1.0));
        self.failures = 0;
        self.not_before = None;
        self.last_success = Some(now);
    }

    /// A fetch failed.
    pub(super) fn failed(&mut self, now: Instant, cause: Cause, retry_after: Option<Duration>, random: f64) {
        self.failures = self.failures.saturating_add(1);
        let mut wait = BACKOFF.wait(self.failures, random);
        if let Some(asked) = retry_after {
            wait = wait.max(asked.clamp(RETRY_AFTER.0, RETRY_AFTER.1));
        }
        if self.last_success.is_none() {
            wait = wait.min(MAX_WAIT_WHILE_EMPTY);
        }
        if retry_after.is_some() {
            self.not_before = Some(now + wait);
        }
        self.next = match cause {
            Cause::Timer => now + wait,
            // Forged tokens must not be able to put the timer off.
            Cause::Asked | Cause::ClockJump | Cause::UnknownKey => self.next.min(now + wait),
        };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seconds(value: u64) -> Duration {
        Duration::from_secs(value)
    }

    fn waited(schedule: &Schedule, now: Instant) -> Duration {
        schedule.next().saturating_duration_since(now)
    }

    #[test]
    fn the_timer_fires_before_the_interval_ends_and_follows_cache_control_within_bounds() {
        let now = Instant::now();
        let mut schedule = Schedule::new(RefreshPolicy::new(), now);
        assert_eq!(schedule.next(), now);
        for (freshness, interval) in [
            (Freshness::Unsaid, 300),
            (Freshness::MaxAge(seconds(1)), 60),
            (Freshness::MaxAge(seconds(120)), 120),
            (Freshness::MaxAge(seconds(86_400)), 600),
            (Freshness::NoStore, 60),
        ] {
            schedule.succeeded(now, freshness, 0.0);
            assert_eq!(waited(&schedule, now), seconds(interval).mul_f64(0.70));
            schedule.succeeded(now, freshness, 1.0);
            assert_eq!(waited(&schedule, now), seconds(interval).mul_f64(0.95));
        }
    }

    #[test]
    fn a_short_max_stale_makes_refreshes_more_frequent() {
        let now = Instant::now();
        let mut schedule = Schedule::new(RefreshPolicy::new().max_stale(seconds(10)), now);
        schedule.succeeded(now, Freshness::Unsaid, 1.0);
        assert!(schedule.next() < schedule.stale_at().unwrap());
    }

    #[test]
    fn until_the_first_set_no_wait_is_longer_than_five_seconds() {
        let now = Instant::now();
        let mut schedule = Schedule::new(RefreshPolicy::new(), now);
        for _ in 0..20 {
            schedule.failed(now, Cause::Timer, Some(seconds(3600)), 1.0);
            assert!(waited(&schedule, now) <= seconds(5));
        }
        schedule.succeeded(now, Freshness::Unsaid, 0.5);
        schedule.failed(now, Cause::Timer, Some(seconds(3600)), 1.0);
        assert_eq!(waited(&schedule, now), seconds(300));
    }

    #[test]
    fn an_issuer_that_asked_to_be_left_alone_is_not_asked_for_an_unknown_key_either() {
        let now = Instant::now();
        let mut schedule = Schedule::new(RefreshPolicy::new(), now);
        schedule.succeeded(now, Freshness::Unsaid, 0.5);
        schedule.failed(now, Cause::Timer, Some(seconds(120)), 0.0);
        assert!(!schedule.take_demand(now + seconds(119)));
        assert!(schedule.take_demand(now + seconds(120)));
    }

    #[test]
    fn no_setting_however_long_overflows() {
        let now = Instant::now();
        let policy = RefreshPolicy::new()
            .interval(Duration::MAX)
            .min_interval(Duration::MAX)
            .max_interval(Duration::MAX)
            .max_stale(Duration::MAX)
            .unknown_key_budget(u32::MAX, Duration::MAX);
        let mut schedule = Schedule::new(policy, now);
        assert!(schedule.take_demand(now));
        schedule.succeeded(now, Freshness::MaxAge(Duration::MAX), 1.0);
        assert!(schedule.next() > now && schedule.stale_at().is_some());
    }

    #[test]
    fn the_budget_is_a_burst_of_two_and_then_one_each_fifteen_seconds() {
        let now = Instant::now();
        let mut schedule = Schedule::new(RefreshPolicy::new(), now);
        let mut take = |second: u64| schedule.take_demand(now + seconds(second));
        assert!(take(0) && take(0) && !take(0));
        assert!(!take(14));
        assert!(take(15) && !take(15));
        assert!(take(30) && !take(30));
        assert!(take(100) && take(100) && !take(100));
    }

    proptest! {
        #[test]
        fn demands_never_cost_more_than_the_budget_and_never_delay_the_timer(
            steps in proptest::collection::vec((0_u64..20_000, any::<bool>()), 1..200)
        ) {
            let start = Instant::now();
            let mut now = start;
            let mut schedule = Schedule::new(RefreshPolicy::new(), start);
            schedule.succeeded(now, Freshness::Unsaid, 0.5);
            let mut taken: Vec<Instant> = Vec::new();
            for (millis, fails) in steps {
                now += Duration::from_millis(millis);
                let before = schedule.next();
                if schedule.take_demand(now) {
                    taken.push(now);
                    if fails {
                        schedule.failed(now, Cause::UnknownKey, None, 1.0);
                        prop_assert!(schedule.next() <= before);
                    }
                }
            }
            for (i, first) in taken.iter().enumerate() {
                for (count, later) in (0_u32..).zip(&taken[i..]) {
                    let window = later.duration_since(*first).as_secs_f64();
                    prop_assert!(f64::from(count) <= 1.0 + window / 15.0 + 1e-6);
                }
            }
        }
    }
}
