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

use super::cache_control::CacheControl;
use super::policy::RefreshPolicy;
use super::rate_limit::OnDemandLimits;
use crate::backoff::Backoff;

/// Without any set nobody can be served, and it is asked for more often, whatever the issuer's
/// `Retry-After`: its users are better served by a request each five seconds than by an outage.
const MAX_RETRY_WITHOUT_KEYS: Duration = Duration::from_secs(5);

/// What a server may ask for by `Retry-After`.
const RETRY_AFTER_RANGE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));

const BACKOFF: Backoff = Backoff {
    base: Duration::from_secs(1),
    cap: Duration::from_secs(60),
};

/// What made a refresh of a key set happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RefreshCause {
    /// The program asked for it.
    Manual,
    /// A signature was not that of the key with its `kid`, and the issuer is one that gives the
    /// same `kid` to new keys
    /// ([`RefreshPolicy::refresh_on_invalid_signature`](crate::RefreshPolicy::refresh_on_invalid_signature)).
    InvalidSignature,
    /// The wall clock did not go as the timers did: the machine slept, or its clock was set.
    ClockJump,
    /// Its time had come.
    Timer,
    /// A token named a key that the set does not have.
    UnknownKey,
}

impl RefreshCause {
    /// Every cause, for those who count them.
    pub const ALL: [Self; 5] = [
        Self::Manual,
        Self::InvalidSignature,
        Self::ClockJump,
        Self::Timer,
        Self::UnknownKey,
    ];

    /// A stable name for logs and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Manual => "manual",
            Self::InvalidSignature => "invalid_signature",
            Self::ClockJump => "clock_jump",
            Self::Timer => "timer",
            Self::UnknownKey => "unknown_key",
        }
    }

    /// Its member in the JSON of a [`KeySetStatus`](crate::KeySetStatus), whose names are kept.
    pub(super) fn member_name(self) -> &'static str {
        match self {
            Self::Manual => "asked",
            Self::InvalidSignature => "bad_signature",
            Self::ClockJump | Self::Timer | Self::UnknownKey => self.as_str(),
        }
    }
}

#[derive(Debug)]
pub(super) struct Schedule {
    policy: RefreshPolicy,
    next: Instant,
    failures: u32,
    /// When the set in hand is too old; `None` without one.
    stale_at: Option<Instant>,
    on_demand: OnDemandLimits,
}

impl Schedule {
    /// A schedule whose first fetch is due now.
    pub(super) fn new(policy: RefreshPolicy, now: Instant) -> Self {
        let on_demand = OnDemandLimits::new(&policy, now);
        Self {
            policy,
            next: now,
            failures: 0,
            stale_at: None,
            on_demand,
        }
    }

    /// The same with a set in hand from elsewhere, that is trusted for so long: no hurry, and not
    /// all replicas at once. `random` is drawn from 0.0 to 1.0.
    pub(super) fn with_initial_keys(mut self, remaining: Duration, random: f64) -> Self {
        self.stale_at = self.next.checked_add(remaining);
        self.next += Duration::from_secs(1).mul_f64(random.clamp(0.0, 1.0));
        self
    }

    /// When the timer fires: not while the issuer wants to be left alone, whatever failed since.
    pub(super) fn next(&self) -> Instant {
        self.on_demand
            .not_before
            .map_or(self.next, |at| self.next.max(at))
    }

    /// How often in a row the last fetches failed.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    /// What tokens may still cause.
    pub(super) fn on_demand_limits(&self) -> OnDemandLimits {
        self.on_demand
    }

    /// When the set in hand is too old to be trusted; `None` without one.
    pub(super) fn stale_at(&self) -> Option<Instant> {
        self.stale_at
    }

    /// The wall clock jumped: by it, the set in hand is trusted for so long. It never makes it
    /// longer.
    pub(super) fn on_clock_jump(&mut self, now: Instant, remaining: Duration) {
        self.stale_at = self
            .stale_at
            .map(|at| now.checked_add(remaining).map_or(at, |end| at.min(end)));
    }

    /// The set in hand was given up: fetch soon and often.
    pub(super) fn expired(&mut self, now: Instant) {
        self.stale_at = None;
        let soon = now + MAX_RETRY_WITHOUT_KEYS;
        self.next = self.next.min(soon);
        self.on_demand.not_before = self.on_demand.not_before.map(|at| at.min(soon));
    }

    /// Takes one refresh from the budget of this cause; `false` if that is spent.
    pub(super) fn try_acquire(&mut self, cause: RefreshCause, now: Instant) -> bool {
        self.on_demand.try_acquire(cause, now)
    }

    /// A fetch brought a set; `random` is drawn from 0.0 to 1.0.
    pub(super) fn succeeded(&mut self, now: Instant, cache_control: CacheControl, random: f64) {
        let policy = &self.policy;
        let ceiling = policy.max_interval.max(policy.min_interval);
        let interval = match cache_control {
            CacheControl::Unspecified => policy.interval,
            CacheControl::MaxAge(max_age) => max_age.clamp(policy.min_interval, ceiling),
            CacheControl::NoStore => policy.min_interval,
        };
        // With a healthy issuer the set never gets too old, even if `max_stale` is the shorter.
        let interval = interval
            .min(policy.max_stale / 2)
            .max(Duration::from_millis(100));
        self.next = now + interval.mul_f64(0.70 + 0.25 * random.clamp(0.0, 1.0));
        self.failures = 0;
        self.on_demand.not_before = None;
        self.stale_at = now.checked_add(policy.max_stale);
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
            // A little longer, by chance: all replicas were told the same time.
            wait = wait.max(
                asked
                    .clamp(RETRY_AFTER_RANGE.0, RETRY_AFTER_RANGE.1)
                    .mul_f64(1.0 + 0.1 * random),
            );
        }
        if self.stale_at.is_none() && wait > MAX_RETRY_WITHOUT_KEYS {
            wait = MAX_RETRY_WITHOUT_KEYS.mul_f64(0.5 + 0.5 * random);
        }
        if retry_after.is_some() {
            self.on_demand.not_before = Some(now + wait);
        }
        self.next = match cause {
            RefreshCause::Timer => now + wait,
            // Forged tokens must not be able to put the timer off.
            RefreshCause::Manual
            | RefreshCause::InvalidSignature
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
        for (cache_control, interval) in [
            (CacheControl::Unspecified, 300),
            (CacheControl::MaxAge(seconds(1)), 60),
            (CacheControl::MaxAge(seconds(120)), 120),
            (CacheControl::MaxAge(seconds(86_400)), 600),
            (CacheControl::NoStore, 60),
        ] {
            schedule.succeeded(now, cache_control, 0.0);
            assert_eq!(waited(&schedule, now), seconds(interval).mul_f64(0.70));
            schedule.succeeded(now, cache_control, 1.0);
            assert_eq!(waited(&schedule, now), seconds(interval).mul_f64(0.95));
        }
    }

    #[test]
    fn a_short_max_stale_makes_refreshes_more_frequent() {
        let now = Instant::now();
        let mut schedule = Schedule::new(RefreshPolicy::new().max_stale(seconds(10)), now);
        schedule.succeeded(now, CacheControl::Unspecified, 1.0);
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
        schedule.succeeded(now, CacheControl::Unspecified, 0.5);
        schedule.failed(now, RefreshCause::Timer, Some(seconds(3600)), 1.0);
        assert_eq!(waited(&schedule, now), seconds(330));
        schedule.failed(now, RefreshCause::Timer, Some(seconds(3600)), 0.0);
        assert_eq!(waited(&schedule, now), seconds(300));
    }

    #[test]
    fn an_issuer_that_asked_to_be_left_alone_is_not_asked_for_an_unknown_key_either() {
        let now = Instant::now();
        let mut schedule = Schedule::new(RefreshPolicy::new(), now);
        schedule.succeeded(now, CacheControl::Unspecified, 0.5);
        schedule.failed(now, RefreshCause::Timer, Some(seconds(120)), 0.0);
        // The program insists, in vain: that brings the timer no nearer.
        schedule.failed(now + seconds(1), RefreshCause::Manual, None, 0.0);
        assert_eq!(schedule.next(), now + seconds(120));
        assert!(!schedule.try_acquire(RefreshCause::UnknownKey, now + seconds(119)));
        assert!(schedule.try_acquire(RefreshCause::UnknownKey, now + seconds(120)));
    }

    #[test]
    fn no_setting_however_long_overflows() {
        let now = Instant::now();
        let policy = RefreshPolicy::new()
            .interval(Duration::MAX)
            .min_interval(Duration::MAX)
            .max_interval(Duration::MAX)
            .max_stale(Duration::MAX)
            .unknown_key_rate_limit(u32::MAX, Duration::MAX);
        let mut schedule = Schedule::new(policy, now);
        assert!(schedule.try_acquire(RefreshCause::UnknownKey, now));
        schedule.succeeded(now, CacheControl::MaxAge(Duration::MAX), 1.0);
        assert!(schedule.next() > now && schedule.stale_at().is_some());
    }

    #[test]
    fn the_budget_is_a_burst_of_two_and_then_one_each_fifteen_seconds() {
        let now = Instant::now();
        let mut schedule = Schedule::new(RefreshPolicy::new(), now);
        let mut try_acquire =
            |second: u64| schedule.try_acquire(RefreshCause::UnknownKey, now + seconds(second));
        assert!(try_acquire(0) && try_acquire(0) && !try_acquire(0));
        assert!(!try_acquire(14));
        assert!(try_acquire(15) && !try_acquire(15));
        assert!(try_acquire(30) && !try_acquire(30));
        assert!(try_acquire(100) && try_acquire(100) && !try_acquire(100));
    }

    /// What may happen to a schedule, in any order.
    #[derive(Clone, Debug)]
    enum Step {
        /// So many milliseconds pass; what becomes due on the way is done first.
        Advance(u64),
        /// A token comes that may cause this.
        Token(RefreshCause),
        /// The program asks, or the clock jumps by so much of `max_stale`.
        Manual,
        ClockJump(f64),
        /// The issuer is like this from now on.
        Issuer(Issuer),
    }

    #[derive(Clone, Copy, Debug)]
    enum Issuer {
        Available(CacheControl),
        Failing,
        FailingWithRetryAfter(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<(Step, f64)>> {
        let cache_control = prop_oneof![
            Just(CacheControl::Unspecified),
            Just(CacheControl::NoStore),
            (0_u64..100_000).prop_map(|secs| CacheControl::MaxAge(seconds(secs)))
        ];
        let issuer = prop_oneof![
            cache_control.prop_map(Issuer::Available),
            Just(Issuer::Failing),
            (0_u64..100_000).prop_map(Issuer::FailingWithRetryAfter)
        ];
        let step = prop_oneof![
            4 => (0_u64..40_000).prop_map(Step::Advance),
            1 => (0_u64..100_000_000).prop_map(Step::Advance),
            8 => Just(Step::Token(RefreshCause::UnknownKey)),
            4 => Just(Step::Token(RefreshCause::InvalidSignature)),
            1 => Just(Step::Manual),
            1 => (0.0..2.0).prop_map(Step::ClockJump),
            1 => issuer.prop_map(Step::Issuer),
        ];
        proptest::collection::vec((step, 0.0..=1.0), 1..200)
    }

    /// Plays the refresher: does what the schedule says, when it says so.
    struct Simulation {
        schedule: Schedule,
        now: Instant,
        issuer: Issuer,
        timer: Vec<Instant>,
        unknown_key: Vec<Instant>,
        invalid_signature: Vec<Instant>,
        /// When the set in hand is too old.
        stale_at: Option<Instant>,
        /// The issuer asked to be left alone until then, and is for no longer than the second.
        retry_after: Option<(Instant, Instant)>,
    }

    impl Simulation {
        fn fetch(&mut self, cause: RefreshCause, random: f64) {
            let before = self.schedule.next();
            let is_automatic = !matches!(cause, RefreshCause::Manual | RefreshCause::ClockJump);
            assert!(
                !is_automatic || self.retry_after.is_none_or(|(at, _)| at <= self.now),
                "not left alone"
            );
            match self.issuer {
                Issuer::Available(cache_control) => {
                    self.schedule.succeeded(self.now, cache_control, random);
                    self.stale_at = Some(self.now + seconds(86_400));
                    self.retry_after = None;
                    let wait = waited(&self.schedule, self.now);
                    assert!((seconds(42)..=seconds(570)).contains(&wait), "{wait:?}");
                }
                Issuer::Failing | Issuer::FailingWithRetryAfter(_) => {
                    let asked = if let Issuer::FailingWithRetryAfter(secs) = self.issuer {
                        Some(seconds(secs))
                    } else {
                        None
                    };
                    self.schedule.failed(self.now, cause, asked, random);
                    if let Some(asked) = asked {
                        let (least, most) = if self.stale_at.is_some() {
                            let asked = asked.clamp(seconds(1), seconds(300));
                            (asked, asked.max(seconds(60)).mul_f64(1.1))
                        } else {
                            (asked.clamp(seconds(1), seconds(5) / 2), seconds(5))
                        };
                        self.retry_after = Some((self.now + least, self.now + most));
                    }
                    assert!(
                        self.retry_after
                            .is_none_or(|(at, _)| at <= self.schedule.next())
                    );
                    let longest = if asked.is_some() {
                        seconds(330)
                    } else {
                        seconds(60)
                    };
                    let wait = waited(&self.schedule, self.now);
                    if cause == RefreshCause::Timer {
                        assert!(
                            (Duration::from_millis(100)..=longest).contains(&wait),
                            "backoff: {wait:?}"
                        );
                    } else {
                        let latest = self.retry_after.map_or(before, |(_, at)| at.max(before));
                        assert!(self.schedule.next() <= latest, "a demand put the timer off");
                    }
                }
            }
        }

        fn expire(&mut self) {
            assert_eq!(self.stale_at, self.schedule.stale_at(), "given up on time");
            self.schedule.expired(self.now);
            self.stale_at = None;
            let soon = self.now + seconds(5);
            self.retry_after = self
                .retry_after
                .map(|(least, most)| (least.min(soon), most.min(soon)));
            assert!(waited(&self.schedule, self.now) <= seconds(5));
        }

        /// Everything that becomes due in this time, in the order in which it does.
        fn advance(&mut self, time: Duration, random: f64) {
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
                    self.expire();
                }
            }
            self.now = end;
        }
    }

    /// No more than `burst`, and one for each `period`, in any window: a bucket that leaks at that
    /// rate never flows over.
    fn assert_rate(times: &[Instant], burst: f64, period: Duration) {
        let (mut level, mut before) = (0.0, None);
        for time in times {
            let leaked = before.map_or(0.0, |before: Instant| {
                time.duration_since(before).as_secs_f64()
            });
            level = f64::max(level - leaked / period.as_secs_f64(), 0.0) + 1.0;
            assert!(level <= burst + 1e-6, "{level} of {burst}");
            before = Some(*time);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

        #[test]
        fn whatever_happens_the_budgets_hold_and_the_timer_is_never_put_off(
            steps in steps(),
            seed in proptest::option::of(0_u64..100_000),
        ) {
            let now = Instant::now();
            let mut schedule = Schedule::new(RefreshPolicy::new().refresh_on_invalid_signature(), now);
            if let Some(rest) = seed {
                schedule = schedule.with_initial_keys(seconds(rest), 0.5);
            }
            let mut simulation = Simulation {
                schedule,
                now,
                issuer: Issuer::Available(CacheControl::Unspecified),
                timer: Vec::new(),
                unknown_key: Vec::new(),
                invalid_signature: Vec::new(),
                stale_at: seed.map(|rest| now + seconds(rest)),
                retry_after: None,
            };
            for (step, random) in steps {
                match step {
                    Step::Advance(millis) => simulation.advance(Duration::from_millis(millis), random),
                    Step::Issuer(issuer) => simulation.issuer = issuer,
                    Step::Token(cause) => {
                        if simulation.schedule.try_acquire(cause, simulation.now) {
                            let is_invalid_signature = cause == RefreshCause::InvalidSignature;
                            if is_invalid_signature { &mut simulation.invalid_signature } else { &mut simulation.unknown_key }.push(simulation.now);
                            simulation.fetch(cause, random);
                        }
                    }
                    Step::Manual => simulation.fetch(RefreshCause::Manual, random),
                    Step::ClockJump(by) => {
                        let rest = seconds(86_400).mul_f64(by);
                        simulation.schedule.on_clock_jump(simulation.now, rest);
                        simulation.stale_at = simulation.stale_at.map(|at| at.min(simulation.now + rest));
                        if simulation.stale_at.is_some_and(|at| at <= simulation.now) {
                            simulation.expire();
                        }
                        simulation.fetch(RefreshCause::ClockJump, random);
                    }
                }
                // Never past the end of trust, and never far away without a set.
                let stale = simulation.schedule.stale_at();
                prop_assert_eq!(stale, simulation.stale_at);
                prop_assert!(stale.is_none_or(|stale| stale > simulation.now) || seed == Some(0));
            }
            assert_rate(&simulation.unknown_key, 2.0, seconds(15));
            assert_rate(&simulation.invalid_signature, 1.0, seconds(300));
            // After a failure at least 0.1 s, twice as much after each further one, and then five
            // seconds; after a success 42 s. In all that is no more than 8 and then 24 a minute.
            assert_rate(&simulation.timer, 8.0, Duration::from_millis(2500));
        }
    }
}
