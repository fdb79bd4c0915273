//! The refresh task of a key set: sleeps, fetches and publishes. One fetch at a time.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::config::RefresherConfig;
use super::fetcher::{Fetched, Fetcher};
use super::handle::KeySetHandle;
use super::jwk_set::NoUsableKeys;
use super::refresh_cause::RefreshCause;
use super::schedule::Schedule;
use super::set::KeySet;
use super::state::{RefreshLeader, RefreshRequests, State};
use crate::clock::{Clock, UnixTime};
use crate::error::Error;
use crate::timer::{now, sleep_until_some};
use crate::trace;

/// The longest random delay of an on-demand refresh. Replicas that see the first token of a new
/// key at the same time do not fetch in the same instant.
const ON_DEMAND_JITTER: Duration = Duration::from_millis(250);

impl RefresherConfig {
    /// Builds the handle for requests and the refresh task, which must be polled. The task ends
    /// when the last handle is dropped.
    pub(crate) fn build(self) -> (KeySetHandle, impl Future<Output = ()> + Send + 'static) {
        let (handle, state, leader) = KeySetHandle::refreshed(self.issuer.clone(), &self.policy);
        if let Some((keys, fetched_at)) = &self.initial_keys {
            let now = self.clock.now();
            // A time in the future must not extend `max_stale`.
            state.publish(
                Some(keys),
                (*fetched_at).min(now),
                self.policy.max_stale,
                now,
            );
        }
        (handle, self.run(state, leader))
    }

    async fn run(self, state: Arc<State>, leader: RefreshLeader) {
        let fetcher = Fetcher::new(&self);
        let Self {
            policy,
            initial_keys,
            clock,
            ..
        } = self;
        let max_stale = policy.max_stale;
        let mut schedule = Schedule::new(policy, now());
        if initial_keys.is_some() {
            let remaining = state.remaining_staleness(clock.now());
            schedule = schedule.with_initial_keys(remaining, fastrand::f64());
        }
        let clock_jumps = ClockJumpDetector::new(&*clock);
        let handled = RefreshRequests::default();
        let mut task = RefreshTask {
            max_stale,
            fetcher,
            schedule,
            clock_jumps,
            clock,
            state,
            leader,
            handled,
            has_waited: false,
        };
        let deadlines = task.leader.deadlines();
        deadlines.serve(task.run()).await;
    }
}

/// A running refresh task.
struct RefreshTask {
    max_stale: Duration,
    fetcher: Fetcher,
    schedule: Schedule,
    clock_jumps: ClockJumpDetector,
    clock: Arc<dyn Clock>,
    state: Arc<State>,
    leader: RefreshLeader,
    /// The requests that were granted or dropped.
    handled: RefreshRequests,
    /// Whether the next fetch is for a request that has already waited for a fetch.
    has_waited: bool,
}

impl RefreshTask {
    async fn run(&mut self) {
        while let Some(cause) = self.next_refresh().await {
            let Some(fetched) = self.fetch(cause).await else {
                return;
            };
            self.apply(cause, fetched);
        }
    }

    /// Waits until the next refresh is due and returns its cause. `None` when the last handle is
    /// dropped.
    async fn next_refresh(&mut self) -> Option<RefreshCause> {
        loop {
            self.expire_if_stale();
            if let Some(cause) = self.take_request() {
                return Some(cause);
            }
            tokio::select! {
                biased;
                // Before the requests, so that a flood of them cannot delay the timer.
                () = sleep_until_some(Some(self.schedule.next())) => {
                    return Some(RefreshCause::Timer);
                }
                () = self.clock_jumps.wait(&*self.clock) => {
                    let remaining = self.state.remaining_staleness(self.clock.now());
                    self.schedule.on_clock_jump(now(), remaining);
                    self.expire_if_stale();
                    return Some(RefreshCause::ClockJump);
                }
                () = sleep_until_some(self.schedule.stale_at()) => {}
                requested = self.leader.requested() => requested?,
            }
        }
    }

    /// Returns the first pending request that the rate limit allows. Requests over the limit are
    /// dropped; their waiters check the same limit.
    fn take_request(&mut self) -> Option<RefreshCause> {
        let requests = self.leader.take_requests();
        let handled = std::mem::replace(&mut self.handled, requests);
        self.has_waited = requests.after_fetch != handled.after_fetch;
        let mut requested = [
            (RefreshCause::Manual, requests.manual != handled.manual),
            (
                RefreshCause::UnknownKey,
                requests.unknown_key != handled.unknown_key,
            ),
            (
                RefreshCause::InvalidSignature,
                requests.invalid_signature != handled.invalid_signature,
            ),
        ]
        .into_iter();
        let (cause, _) = requested.find(|(cause, is_requested)| {
            let is_manual = *cause == RefreshCause::Manual;
            *is_requested && (is_manual || self.schedule.try_acquire(*cause, now()))
        })?;
        Some(cause)
    }

    fn expire_if_stale(&mut self) {
        if self.schedule.stale_at().is_some_and(|at| at <= now()) {
            trace::warn!(
                target: "tower_oauth::key_set",
                issuer = %self.state.issuer,
                "the key set is too old and no longer used"
            );
            self.expire();
        }
    }

    fn expire(&mut self) {
        self.schedule.expired(now());
        self.state.expire(self.clock.now());
        let next = self.schedule.next();
        self.leader.update(|state| state.next_refresh = Some(next));
    }

    /// Fetches once. `None` if the last handle is dropped meanwhile.
    async fn fetch(&mut self, cause: RefreshCause) -> Option<Result<Fetched, Error>> {
        let is_on_demand = matches!(
            cause,
            RefreshCause::InvalidSignature | RefreshCause::UnknownKey
        );
        if is_on_demand && !self.has_waited {
            sleep(ON_DEMAND_JITTER.mul_f64(fastrand::f64())).await;
        }
        self.state.set_rate_limit(&self.schedule, true);
        self.leader.begin();
        let started_at = now();
        let fetch = trace::instrument!(
            self.fetcher.fetch(cause),
            target: "tower_oauth::key_set",
            "refresh",
            issuer = %self.state.issuer,
            cause = cause.as_str()
        );
        let fetched = tokio::select! {
            fetched = fetch => fetched,
            () = self.leader.abandoned() => return None,
        };
        let duration = now().saturating_duration_since(started_at);
        self.state.record_fetch_duration(fetched.is_ok(), duration);
        // On-demand requests that arrived during this fetch are handled by it: they read `started`
        // just before it began. A manual refresh requested meanwhile needs another fetch.
        self.handled = RefreshRequests {
            manual: self.handled.manual,
            ..self.leader.take_requests()
        };
        Some(fetched)
    }

    /// Publishes the result of a fetch and updates the schedule.
    fn apply(&mut self, cause: RefreshCause, fetched: Result<Fetched, Error>) {
        // The current set stays in use, except for compromised keys.
        let unusable = fetched
            .as_ref()
            .err()
            .and_then(NoUsableKeys::downcast_source);
        if let Some(NoUsableKeys { keys }) = unusable.filter(|set| set.keys.has_private_keys()) {
            self.state.warn_private_key();
            if self.state.revoke_compromised(&keys.0.compromised) {
                self.expire();
            }
        }
        let schedule = &mut self.schedule;
        let outcome = match fetched {
            Ok(Fetched {
                keys,
                cache_control,
            }) => {
                schedule.succeeded(now(), cache_control, fastrand::f64());
                trace::debug!(
                    target: "tower_oauth::key_set",
                    issuer = %self.state.issuer,
                    cause = cause.as_str(),
                    changed = keys.is_some(),
                    "the key set was refreshed"
                );
                if keys.as_ref().is_some_and(KeySet::has_private_keys) {
                    self.state.warn_private_key();
                }
                let now = self.clock.now();
                self.state.publish(keys.as_ref(), now, self.max_stale, now);
                Ok(())
            }
            Err(error) => {
                schedule.failed(now(), cause, error.retry_after(), fastrand::f64());
                trace::warn!(
                    target: "tower_oauth::key_set",
                    issuer = %self.state.issuer,
                    cause = cause.as_str(),
                    error = %error.source_chain(),
                    failures = schedule.failures(),
                    "the key set could not be refreshed"
                );
                Err(error)
            }
        };
        let metadata_error = self.fetcher.metadata_error();
        self.state
            .record_refresh(cause, &outcome, metadata_error, schedule);
        // Before the waiters are woken, because they read it.
        self.state.set_rate_limit(schedule, false);
        self.leader.finish(|state, number| {
            state.metadata_error = metadata_error.cloned();
            state.finish(number, cause, outcome, schedule);
        });
    }
}

/// Detects that the wall clock and the timers diverge: the machine slept, or its clock was set.
///
/// Timers do not advance while a machine sleeps. Without the detector, keys that were withdrawn
/// meanwhile would be trusted for the rest of an interval.
struct ClockJumpDetector {
    last: (std::time::Instant, UnixTime),
    next: std::time::Instant,
}

impl ClockJumpDetector {
    const POLL_INTERVAL: Duration = Duration::from_secs(10);
    const THRESHOLD: Duration = Duration::from_secs(5);

    fn new(clock: &dyn Clock) -> Self {
        let now = now();
        Self {
            last: (now, clock.now()),
            next: now + Self::POLL_INTERVAL,
        }
    }

    /// Completes when the clock jumps. Cancel safe.
    async fn wait(&mut self, clock: &dyn Clock) {
        loop {
            sleep_until_some(Some(self.next)).await;
            let (last, last_wall) = self.last;
            let (now, wall) = (now(), clock.now());
            self.last = (now, wall);
            self.next = now + Self::POLL_INTERVAL;
            let expected = last_wall.saturating_add(now.saturating_duration_since(last));
            // A wall clock that does not move is a `ManualClock`, not a jump.
            if wall.saturating_since(expected) > Self::THRESHOLD || wall < last_wall {
                return;
            }
        }
    }
}
