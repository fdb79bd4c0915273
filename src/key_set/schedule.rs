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

/// The least time between two refreshes that bad signatures cause.
const BETWEEN_DOUBTS: Duration = Duration::from_secs(300);

const BACKOFF: Backoff = Backoff { base: Duration::from_secs(1), cap: Duration::from_secs(60) };

/// What made a refresh of a key set happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RefreshCause {
    /// The program asked for it.
    Asked,
    /// A signature was not that of the key with its `kid`, and the issuer is one that gives the same
    /// `kid` to new keys ([`RefreshPolicy::reused_key_ids`](crate::RefreshPolicy::reused_key_ids)).
    BadSignature,
    /// The wall clock ran ahead of the timers: the machine slept, or its clock was set.
    ClockJump,
    /// Its time had come.
    Timer,
    /// A token named a key that the set does not have.
    UnknownKey,
}

impl RefreshCause {
    /// Every cause, for those who count them.
    pub const ALL: [Self; 5] =
        [Self::Asked, Self::BadSignature, Self::ClockJump, Self::Timer, Self::UnknownKey];

    /// A stable name for logs and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Asked => "asked",
            Self::BadSignature => "bad_signature",
            Self::ClockJump => "clock_jump",
            Self::Timer => "timer",
            Self::UnknownKey => "unknown_key",
        }
    }
}

#[derive(Debug)]
pub(super) struct Schedule {
    policy: RefreshPolicy,
    next: Instant,
    failures: u32,
    last_success: Option<Instant>,
    /// The bucket of the unknown-key budget, as the time at which it will be full again.
    bucket_full_at: Instant,
    /// Before then no bad signature is a reason to ask.
    no_doubt_before: Instant,
    /// The issuer asked to be left alone until then.
    not_before: Option<Instant>,
}

impl Schedule {
    /// A schedule whose first fetch is due now.
    pub(super) fn new(policy: RefreshPolicy, now: Instant) -> Self {
        Self {
            policy,
            next: now,
            failures: 0,
            last_success: None,
            bucket_full_at: now,
            no_doubt_before: now,
            not_before: None,
        }
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

    /// Takes the refresh that a bad signature can cause; `false` if there was one lately, or if the
    /// issuer does not reuse its `kid`s.
    pub(super) fn take_doubt(&mut self, now: Instant) -> bool {
        let allowed = self.policy.reused_key_ids
            && now >= self.no_doubt_before
            && self.not_before.is_none_or(|at| now >= at);
        if allowed {
            self.no_doubt_before = now + BETWEEN_DOUBTS;
        }
        allowed
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
    pub(super) fn failed(
        &mut self,
        now: Instant,
        cause: RefreshCause,
        retry_after: Option<Duration>,
        random: f64,
    ) {
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
            RefreshCause::Timer => now + wait,
            // Forged tokens must not be able to put the timer off.
            RefreshCause::Asked
            | RefreshCause::BadSignature
            | RefreshCause::ClockJump
            | RefreshCause::UnknownKey => self.next.min(now + wait),
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
            schedule.failed(now, RefreshCause::Timer, Some(seconds(3600)), 1.0);
            assert!(waited(&schedule, now) <= seconds(5));
        }
        schedule.succeeded(now, Freshness::Unsaid, 0.5);
        schedule.failed(now, RefreshCause::Timer, Some(seconds(3600)), 1.0);
        assert_eq!(waited(&schedule, now), seconds(300));
    }

    #[test]
    fn an_issuer_that_asked_to_be_left_alone_is_not_asked_for_an_unknown_key_either() {
        let now = Instant::now();
        let mut schedule = Schedule::new(RefreshPolicy::new(), now);
        schedule.succeeded(now, Freshness::Unsaid, 0.5);
        schedule.failed(now, RefreshCause::Timer, Some(seconds(120)), 0.0);
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

    /// What may happen to a schedule, in any order.
    #[derive(Clone, Debug)]
    enum Step {
        /// So many milliseconds pass; what becomes due on the way is done first.
        Pass(u64),
        /// A token with an unknown `kid` comes.
        Demand,
        /// The issuer is like this from now on.
        Issuer(Issuer),
    }

    #[derive(Clone, Copy, Debug)]
    enum Issuer {
        Well(Freshness),
        Failing,
        FailingAndAsking(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<(Step, f64)>> {
        let freshness = prop_oneof![
            Just(Freshness::Unsaid),
            Just(Freshness::NoStore),
            (0_u64..100_000).prop_map(|secs| Freshness::MaxAge(seconds(secs)))
        ];
        let issuer = prop_oneof![
            freshness.prop_map(Issuer::Well),
            Just(Issuer::Failing),
            (0_u64..100_000).prop_map(Issuer::FailingAndAsking)
        ];
        let step = prop_oneof![
            4 => (0_u64..40_000).prop_map(Step::Pass),
            1 => (0_u64..100_000_000).prop_map(Step::Pass),
            8 => Just(Step::Demand),
            1 => issuer.prop_map(Step::Issuer),
        ];
        proptest::collection::vec((step, 0.0..=1.0), 1..200)
    }

    /// Plays the refresher: does what the schedule says, when it says so.
    struct Play {
        schedule: Schedule,
        now: Instant,
        issuer: Issuer,
        timer: Vec<Instant>,
        demanded: Vec<Instant>,
        last_good: Option<Instant>,
    }

    impl Play {
        fn fetch(&mut self, cause: RefreshCause, random: f64) {
            let before = self.schedule.next();
            match self.issuer {
                Issuer::Well(freshness) => {
                    self.schedule.succeeded(self.now, freshness, random);
                    self.last_good = Some(self.now);
                    let wait = waited(&self.schedule, self.now);
                    assert!((seconds(42)..=seconds(570)).contains(&wait), "{wait:?}");
                }
                Issuer::Failing | Issuer::FailingAndAsking(_) => {
                    let asked = if let Issuer::FailingAndAsking(secs) = self.issuer {
                        Some(seconds(secs))
                    } else {
                        None
                    };
                    self.schedule.failed(self.now, cause, asked, random);
                    let longest = if asked.is_some() { seconds(300) } else { seconds(60) };
                    let wait = waited(&self.schedule, self.now);
                    if cause == RefreshCause::Timer {
                        assert!((Duration::from_millis(100)..=longest).contains(&wait), "backoff: {wait:?}");
                    } else {
                        assert!(self.schedule.next() <= before, "a demand put the timer off");
                    }
                }
            }
        }

        /// Everything that becomes due in this time, in the order in which it does.
        fn pass(&mut self, time: Duration, random: f64) {
            let end = self.now + time;
            loop {
                let stale = self.schedule.stale_at();
                let due = stale.into_iter().fold(self.schedule.next(), Instant::min);
                if due > end {
                    break;
                }
                self.now = self.now.max(due);
                if self.schedule.next() <= self.now {
                    self.timer.push(self.now);
                    self.fetch(RefreshCause::Timer, random);
                } else {
                    assert_eq!(self.last_good.map(|at| at + seconds(86_400)), stale, "given up on time");
                    self.schedule.gave_up(self.now);
                    self.last_good = None;
                }
            }
            self.now = end;
        }
    }

    /// No more than `burst`, and one for each `period`, in any window: a bucket that leaks at that
    /// rate never flows over.
    fn within(times: &[Instant], burst: f64, period: Duration) {
        let (mut level, mut before) = (0.0, None);
        for time in times {
            let leaked = before.map_or(0.0, |before: Instant| time.duration_since(before).as_secs_f64());
            level = f64::max(level - leaked / period.as_secs_f64(), 0.0) + 1.0;
            assert!(level <= burst + 1e-6, "{level} of {burst}");
            before = Some(*time);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

        #[test]
        fn whatever_happens_the_budgets_hold_and_the_timer_is_never_put_off(steps in steps()) {
            let now = Instant::now();
            let mut play = Play {
                schedule: Schedule::new(RefreshPolicy::new(), now),
                now,
                issuer: Issuer::Well(Freshness::Unsaid),
                timer: Vec::new(),
                demanded: Vec::new(),
                last_good: None,
            };
            for (step, random) in steps {
                match step {
                    Step::Pass(millis) => play.pass(Duration::from_millis(millis), random),
                    Step::Issuer(issuer) => play.issuer = issuer,
                    Step::Demand if play.schedule.take_demand(play.now) => {
                        play.demanded.push(play.now);
                        play.fetch(RefreshCause::UnknownKey, random);
                    }
                    Step::Demand => {}
                }
                // Never past the end of trust, and never far away without a set.
                let stale = play.schedule.stale_at();
                prop_assert_eq!(stale.is_some(), play.last_good.is_some());
                prop_assert!(stale.is_none_or(|stale| stale > play.now));
            }
            within(&play.demanded, 2.0, seconds(15));
            // After a failure at least 0.1 s, twice as much after each further one, and then five
            // seconds; after a success 42 s. In all that is no more than 8 and then 24 a minute.
            within(&play.timer, 8.0, Duration::from_millis(2500));
        }
    }
}
