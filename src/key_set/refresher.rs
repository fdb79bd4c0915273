//! The task behind a key set: sleeps, fetches, publishes. One fetch at a time.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use super::KeySet;
use super::jwk::Quirks;
use super::nothing_usable::NothingUsable;
use super::policy::RefreshPolicy;
use super::schedule::{RefreshCause, Schedule};
use super::source::{Fetched, Fetcher};
use super::watch::{KeySetHandle, Shared, Wishes};
use crate::clock::{Clock, UnixTime};
use crate::error::Error;
use crate::oauth::{Endpoint, Issuer};
use crate::timer::{now, sleep_until_some};
use crate::trace;
use crate::transport::Transport;

/// A demand is answered after a random part of this, so that the replicas of a service that
/// all see the first token of a new key do not ask in the same instant.
const SPREAD: Duration = Duration::from_millis(250);

/// Everything that keeping a set fresh takes.
#[derive(Debug)]
pub(crate) struct Refresh {
    pub(crate) issuer: Issuer,
    /// Without it the issuer's metadata is asked.
    pub(crate) jwks_uri: Option<Endpoint>,
    pub(crate) quirks: Quirks,
    /// How many keys are tried for one `kid`.
    pub(crate) max_candidate_keys: usize,
    pub(crate) allow_loopback_http: bool,
    pub(crate) policy: RefreshPolicy,
    /// A set from elsewhere, and when it was fetched there.
    pub(crate) initial_keys: Option<(KeySet, UnixTime)>,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Refresh {
    /// The handle for requests, and the task that has to be polled for it. The task ends when
    /// the last handle is dropped.
    pub(crate) fn split(self) -> (KeySetHandle, impl Future<Output = ()> + Send + 'static) {
        let (handle, shared, wishes) = KeySetHandle::refreshed(self.issuer.clone(), &self.policy);
        if let Some((keys, fetched_at)) = &self.initial_keys {
            let now = self.clock.now();
            // A time that is yet to come must not lengthen the trust.
            shared.publish(
                Some(keys),
                (*fetched_at).min(now),
                self.policy.max_stale,
                now,
            );
        }
        (handle, self.run(shared, wishes))
    }

    async fn run(self, shared: Arc<Shared>, wishes: watch::Receiver<Wishes>) {
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
            schedule = schedule.seeded(shared.trusted_for(clock.now()), fastrand::f64());
        }
        let watch = ClockWatch::new(&*clock);
        let heard = Wishes::default();
        let mut keeper = Keeper {
            max_stale,
            fetcher,
            schedule,
            watch,
            clock,
            shared,
            wishes,
            heard,
            is_late: false,
        };
        while let Some(cause) = keeper.next_cause().await {
            let Some(fetched) = keeper.fetch(cause).await else {
                return;
            };
            keeper.conclude(cause, fetched);
        }
    }
}

/// The task, once it runs.
struct Keeper {
    max_stale: Duration,
    fetcher: Fetcher,
    schedule: Schedule,
    watch: ClockWatch,
    clock: Arc<dyn Clock>,
    shared: Arc<Shared>,
    wishes: watch::Receiver<Wishes>,
    /// Those that are fulfilled or turned down.
    heard: Wishes,
    /// Whether the next fetch is for a request that has waited for one already.
    is_late: bool,
}

impl Keeper {
    /// Waits for a reason to fetch; `None` when the last handle is gone.
    async fn next_cause(&mut self) -> Option<RefreshCause> {
        loop {
            self.give_up_what_is_stale();
            if let Some(cause) = self.granted() {
                return Some(cause);
            }
            tokio::select! {
                biased;
                // Before the wishes: a flood of them delays no timer.
                () = sleep_until_some(Some(self.schedule.next())) => return Some(RefreshCause::Timer),
                () = self.watch.jumped(&*self.clock) => {
                    self.schedule.clock_jumped(now(), self.shared.trusted_for(self.clock.now()));
                    self.give_up_what_is_stale();
                    return Some(RefreshCause::ClockJump);
                }
                () = sleep_until_some(self.schedule.stale_at()) => {}
                wished = self.wishes.changed() => wished.ok()?,
            }
        }
    }

    /// What there is a wish for, within the budgets. The others need no answer: who waits knows the
    /// budgets, too.
    fn granted(&mut self) -> Option<RefreshCause> {
        let wishes = *self.wishes.borrow_and_update();
        let heard = std::mem::replace(&mut self.heard, wishes);
        self.is_late = wishes.after_a_fetch != heard.after_a_fetch;
        let mut wanted = [
            (RefreshCause::Manual, wishes.asked != heard.asked),
            (
                RefreshCause::UnknownKey,
                wishes.unknown_key != heard.unknown_key,
            ),
            (
                RefreshCause::InvalidSignature,
                wishes.bad_signature != heard.bad_signature,
            ),
        ]
        .into_iter();
        let (cause, _) = wanted.find(|(cause, rung)| {
            *rung && (*cause == RefreshCause::Manual || self.schedule.take(*cause, now()))
        })?;
        Some(cause)
    }

    fn give_up_what_is_stale(&mut self) {
        if self.schedule.stale_at().is_some_and(|at| at <= now()) {
            trace::warn!(
                target: "tower_oauth::key_set",
                issuer = %self.shared.issuer,
                "the key set is too old and given up"
            );
            self.give_up();
        }
    }

    fn give_up(&mut self) {
        self.schedule.gave_up(now());
        self.shared.give_up(self.clock.now(), &self.schedule);
    }

    /// One fetch; `None` if the last handle went away meanwhile.
    async fn fetch(&mut self, cause: RefreshCause) -> Option<Result<Fetched, Error>> {
        let is_on_demand = matches!(
            cause,
            RefreshCause::InvalidSignature | RefreshCause::UnknownKey
        );
        if is_on_demand && !self.is_late {
            sleep(SPREAD.mul_f64(fastrand::f64())).await;
        }
        self.shared.begin_refresh(&self.schedule);
        let fetch = trace::instrument!(
            self.fetcher.fetch(cause),
            target: "tower_oauth::key_set", "refresh", issuer = %self.shared.issuer, cause = cause.as_str()
        );
        let fetched = tokio::select! {
            fetched = fetch => fetched,
            () = closed(&mut self.wishes) => return None,
        };
        // Requests send no wish while a fetch is under way. One that read `begun` just before this
        // fetch began may send it later, and waits for this fetch. A manual refresh that was
        // requested meanwhile is a later fetch.
        self.heard = Wishes {
            asked: self.heard.asked,
            ..*self.wishes.borrow_and_update()
        };
        Some(fetched)
    }

    /// Publishes what a fetch brought.
    fn conclude(&mut self, cause: RefreshCause, fetched: Result<Fetched, Error>) {
        // The current set stays, but for the keys whose private part was published.
        let unusable = fetched.as_ref().err().and_then(NothingUsable::of);
        if let Some(NothingUsable { keys }) = unusable.filter(|set| set.keys.has_private_keys()) {
            self.shared.sound_alarm();
            if self.shared.revoke_compromised(&keys.0.compromised) {
                self.give_up();
            }
        }
        let schedule = &mut self.schedule;
        let outcome = match fetched {
            Ok(Fetched { keys, freshness }) => {
                schedule.succeeded(now(), freshness, fastrand::f64());
                trace::debug!(
                    target: "tower_oauth::key_set",
                    issuer = %self.shared.issuer,
                    cause = cause.as_str(),
                    changed = keys.is_some(),
                    "the key set was refreshed"
                );
                if keys.as_ref().is_some_and(KeySet::has_private_keys) {
                    self.shared.sound_alarm();
                }
                let now = self.clock.now();
                self.shared.publish(keys.as_ref(), now, self.max_stale, now);
                Ok(())
            }
            Err(error) => {
                schedule.failed(now(), cause, error.retry_after(), fastrand::f64());
                trace::warn!(
                    target: "tower_oauth::key_set",
                    issuer = %self.shared.issuer,
                    cause = cause.as_str(),
                    error = %error.with_sources(),
                    failures = schedule.failures(),
                    "the key set could not be refreshed"
                );
                Err(error)
            }
        };
        self.shared
            .end_refresh(cause, outcome, self.fetcher.metadata_error(), schedule);
    }
}

/// Notices that the wall clock did not go as the timers did: the machine slept, or its clock was
/// set.
///
/// Timers stand still while a machine sleeps; keys that were withdrawn meanwhile would be
/// trusted for the rest of an interval.
struct ClockWatch {
    seen: (std::time::Instant, UnixTime),
    next: std::time::Instant,
}

impl ClockWatch {
    const EVERY: Duration = Duration::from_secs(10);
    const JUMP: Duration = Duration::from_secs(5);

    fn new(clock: &dyn Clock) -> Self {
        let now = now();
        Self {
            seen: (now, clock.now()),
            next: now + Self::EVERY,
        }
    }

    /// Ends when a jump was noticed. May be dropped and called again at any time.
    async fn jumped(&mut self, clock: &dyn Clock) {
        loop {
            sleep_until_some(Some(self.next)).await;
            let (before, wall_before) = self.seen;
            let (now, wall) = (now(), clock.now());
            self.seen = (now, wall);
            self.next = now + Self::EVERY;
            let expected = wall_before.saturating_add(now.saturating_duration_since(before));
            // One that stands still is a test's.
            if wall.saturating_since(expected) > Self::JUMP || wall < wall_before {
                return;
            }
        }
    }
}

/// Ends when the last handle is gone.
async fn closed(wishes: &mut watch::Receiver<Wishes>) {
    while wishes.changed().await.is_ok() {}
}
