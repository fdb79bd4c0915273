//! When to fetch. Pure: time and randomness are passed in.
//!
//! ```text
//!            success ─▶ timer at 70-95 % of the interval
//! fetch ─┤
//!            failure ─▶ timer at full-jitter backoff, or Retry-After
//!
//! unknown kid ─▶ rate limit ─▶ fetch (never delays the timer)
//! ```

use std::time::{Duration, Instant};

use super::cache_control::CacheControl;
use super::policy::RefreshPolicy;
use super::rate_limit::OnDemandLimits;
use super::refresh_cause::RefreshCause;
use crate::backoff::Backoff;

/// The longest wait while there is no usable set. It overrides `Retry-After`: without keys every
/// request is answered 503, which is worse for the issuer's users than a fetch every 5 seconds.
const MAX_RETRY_WITHOUT_KEYS: Duration = Duration::from_secs(5);

/// The bounds of an issuer's `Retry-After`.
const RETRY_AFTER_RANGE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));

const BACKOFF: Backoff = Backoff {
    base: Duration::from_secs(1),
    cap: Duration::from_secs(60),
};

#[derive(Debug)]
pub(super) struct Schedule {
    policy: RefreshPolicy,
    next: Instant,
    failures: u32,
    /// When the current set is too old; `None` without a set.
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

    /// Starts with initial keys, which are trusted for `remaining`. The first fetch is delayed by
    /// up to 1 second, so that replicas do not fetch at once. `random` is from 0.0 to 1.0.
    pub(super) fn with_initial_keys(mut self, remaining: Duration, random: f64) -> Self {
        self.stale_at = self.next.checked_add(remaining);
        self.next += Duration::from_secs(1).mul_f64(random.clamp(0.0, 1.0));
        self
    }

    /// When the timer fires. Never before the end of the issuer's `Retry-After`.
    pub(super) fn next(&self) -> Instant {
        self.on_demand
            .not_before
            .map_or(self.next, |at| self.next.max(at))
    }

    /// The number of consecutive failures.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    /// The rate limits of on-demand refreshes.
    pub(super) fn on_demand_limits(&self) -> OnDemandLimits {
        self.on_demand
    }

    /// When the current set is too old to be trusted; `None` without a set.
    pub(super) fn stale_at(&self) -> Option<Instant> {
        self.stale_at
    }

    /// Shortens the trust in the current set to what remains by the wall clock.
    pub(super) fn on_clock_jump(&mut self, now: Instant, remaining: Duration) {
        self.stale_at = self
            .stale_at
            .map(|at| now.checked_add(remaining).map_or(at, |end| at.min(end)));
    }

    /// The current set became too old: fetches within 5 seconds.
    pub(super) fn expired(&mut self, now: Instant) {
        self.stale_at = None;
        let soon = now + MAX_RETRY_WITHOUT_KEYS;
        self.next = self.next.min(soon);
        self.on_demand.not_before = self.on_demand.not_before.map(|at| at.min(soon));
    }

    /// Counts one refresh against its rate limit. `false` if the limit does not allow it.
    pub(super) fn try_acquire(&mut self, cause: RefreshCause, now: Instant) -> bool {
        self.on_demand.try_acquire(cause, now)
    }

    /// Schedules the next fetch after a success. `random` is from 0.0 to 1.0.
    pub(super) fn succeeded(&mut self, now: Instant, cache_control: CacheControl, random: f64) {
        let policy = &self.policy;
        let ceiling = policy.max_interval.max(policy.min_interval);
        let interval = match cache_control {
            CacheControl::Unspecified => policy.interval,
            CacheControl::MaxAge(max_age) => max_age.clamp(policy.min_interval, ceiling),
            CacheControl::NoStore => policy.min_interval,
        };
        // With a healthy issuer the set never becomes stale, even if `max_stale` is shorter than
        // the interval.
        let interval = interval
            .min(policy.max_stale / 2)
            .max(Duration::from_millis(100));
        self.next = now + interval.mul_f64(0.70 + 0.25 * random.clamp(0.0, 1.0));
        self.failures = 0;
        self.on_demand.not_before = None;
        self.stale_at = now.checked_add(policy.max_stale);
    }

    /// Schedules the next fetch after a failure. `random` is from 0.0 to 1.0.
    pub(super) fn failed(
        &mut self,
        now: Instant,
        cause: RefreshCause,
        retry_after: Option<Duration>,
        random: f64,
    ) {
        self.failures = self.failures.saturating_add(1);
        let mut wait = BACKOFF.wait(self.failures, random);
        if let Some(retry_after) = retry_after {
            // With jitter, because all replicas receive the same `Retry-After`.
            wait = wait.max(
                retry_after
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
            // Forged tokens must not be able to delay the timer.
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
    fn retry_after_also_applies_to_refreshes_for_unknown_keys() {
        let now = Instant::now();
        let mut schedule = Schedule::new(RefreshPolicy::new(), now);
        schedule.succeeded(now, CacheControl::Unspecified, 0.5);
        schedule.failed(now, RefreshCause::Timer, Some(seconds(120)), 0.0);
        // A failed manual refresh does not move the timer forward.
        schedule.failed(now + seconds(1), RefreshCause::Manual, None, 0.0);
        assert_eq!(schedule.next(), now + seconds(120));
        assert!(!schedule.try_acquire(RefreshCause::UnknownKey, now + seconds(119)));
        assert!(schedule.try_acquire(RefreshCause::UnknownKey, now + seconds(120)));
    }

    #[test]
    fn the_longest_settings_do_not_overflow() {
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
    fn the_rate_limit_is_a_burst_of_two_and_then_one_each_fifteen_seconds() {
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

    /// An event of a simulation.
    #[derive(Clone, Debug)]
    enum Step {
        /// Milliseconds pass; everything that becomes due is done.
        Advance(u64),
        /// A token arrives that may cause such a refresh.
        Token(RefreshCause),
        Manual,
        /// The clock jumps by this share of `max_stale`.
        ClockJump(f64),
        /// The issuer behaves like this from now on.
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

    /// A refresh task that does what the schedule says.
    struct Simulation {
        schedule: Schedule,
        now: Instant,
        issuer: Issuer,
        timer: Vec<Instant>,
        unknown_key: Vec<Instant>,
        invalid_signature: Vec<Instant>,
        /// When the current set is too old.
        stale_at: Option<Instant>,
        /// The earliest and the latest end of the issuer's `Retry-After`.
        retry_after: Option<(Instant, Instant)>,
    }

    impl Simulation {
        fn fetch(&mut self, cause: RefreshCause, random: f64) {
            let before = self.schedule.next();
            let is_automatic = !matches!(cause, RefreshCause::Manual | RefreshCause::ClockJump);
            assert!(
                !is_automatic || self.retry_after.is_none_or(|(at, _)| at <= self.now),
                "fetched before the end of `Retry-After`"
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
                    let retry_after = if let Issuer::FailingWithRetryAfter(secs) = self.issuer {
                        Some(seconds(secs))
                    } else {
                        None
                    };
                    self.schedule.failed(self.now, cause, retry_after, random);
                    if let Some(retry_after) = retry_after {
                        let (least, most) = if self.stale_at.is_some() {
                            let retry_after = retry_after.clamp(seconds(1), seconds(300));
                            (retry_after, retry_after.max(seconds(60)).mul_f64(1.1))
                        } else {
                            (retry_after.clamp(seconds(1), seconds(5) / 2), seconds(5))
                        };
                        self.retry_after = Some((self.now + least, self.now + most));
                    }
                    assert!(
                        self.retry_after
                            .is_none_or(|(at, _)| at <= self.schedule.next())
                    );
                    let longest = if retry_after.is_some() {
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
                        assert!(self.schedule.next() <= latest, "the timer was delayed");
                    }
                }
            }
        }

        fn expire(&mut self) {
            assert_eq!(self.stale_at, self.schedule.stale_at(), "expired on time");
            self.schedule.expired(self.now);
            self.stale_at = None;
            let soon = self.now + seconds(5);
            self.retry_after = self
                .retry_after
                .map(|(least, most)| (least.min(soon), most.min(soon)));
            assert!(waited(&self.schedule, self.now) <= seconds(5));
        }

        /// Does everything that becomes due in this time, in order.
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

    /// Asserts that `times` stay within a leaky bucket of `burst` that leaks one each `period`.
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
        #![proptest_config(ProptestConfig {
            failure_persistence: None,
            ..ProptestConfig::with_cases(512)
        })]

        #[test]
        fn rate_limits_hold_and_the_timer_is_never_delayed_in_any_order_of_events(
            steps in steps(),
            initial in proptest::option::of(0_u64..100_000),
        ) {
            let now = Instant::now();
            let policy = RefreshPolicy::new().refresh_on_invalid_signature();
            let mut schedule = Schedule::new(policy, now);
            if let Some(remaining) = initial {
                schedule = schedule.with_initial_keys(seconds(remaining), 0.5);
            }
            let mut simulation = Simulation {
                schedule,
                now,
                issuer: Issuer::Available(CacheControl::Unspecified),
                timer: Vec::new(),
                unknown_key: Vec::new(),
                invalid_signature: Vec::new(),
                stale_at: initial.map(|remaining| now + seconds(remaining)),
                retry_after: None,
            };
            for (step, random) in steps {
                match step {
                    Step::Advance(millis) => {
                        simulation.advance(Duration::from_millis(millis), random);
                    }
                    Step::Issuer(issuer) => simulation.issuer = issuer,
                    Step::Token(cause) => {
                        if simulation.schedule.try_acquire(cause, simulation.now) {
                            let times = match cause {
                                RefreshCause::InvalidSignature => &mut simulation.invalid_signature,
                                _ => &mut simulation.unknown_key,
                            };
                            times.push(simulation.now);
                            simulation.fetch(cause, random);
                        }
                    }
                    Step::Manual => simulation.fetch(RefreshCause::Manual, random),
                    Step::ClockJump(by) => {
                        let remaining = seconds(86_400).mul_f64(by);
                        let end = simulation.now + remaining;
                        simulation.schedule.on_clock_jump(simulation.now, remaining);
                        simulation.stale_at = simulation.stale_at.map(|at| at.min(end));
                        if simulation.stale_at.is_some_and(|at| at <= simulation.now) {
                            simulation.expire();
                        }
                        simulation.fetch(RefreshCause::ClockJump, random);
                    }
                }
                // The set is never used beyond `stale_at`.
                let stale = simulation.schedule.stale_at();
                prop_assert_eq!(stale, simulation.stale_at);
                prop_assert!(stale.is_none_or(|at| at > simulation.now) || initial == Some(0));
            }
            assert_rate(&simulation.unknown_key, 2.0, seconds(15));
            assert_rate(&simulation.invalid_signature, 1.0, seconds(300));
            // Waits are at least 0.1 s after a failure, doubled by each further one up to 5 s, and
            // 42 s after a success: at most a burst of 8, then 24 a minute.
            assert_rate(&simulation.timer, 8.0, Duration::from_millis(2500));
        }
    }
}
