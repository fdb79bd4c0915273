//! The task behind a key set: sleeps, fetches, publishes. One fetch at a time.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::jwk::Quirks;
use super::policy::RefreshPolicy;
use super::schedule::{RefreshCause, Schedule};
use super::source::Fetcher;
use super::watch::{Demand, KeySetHandle, Shared};
use super::{KeySet, SkipReason};
use crate::clock::{Clock, UnixTime};
use crate::error::{Error, ErrorKind, Operation};
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
    pub(crate) allow_loopback_http: bool,
    pub(crate) policy: RefreshPolicy,
    /// A set from elsewhere, and when it was fetched there.
    pub(crate) seed: Option<(KeySet, UnixTime)>,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Refresh {
    /// The handle for requests, and the task that has to be polled for it. The task ends when
    /// the last handle is dropped.
    pub(crate) fn split(self) -> (KeySetHandle, impl Future<Output = ()> + Send + 'static) {
        let (handle, shared, demands) = KeySetHandle::refreshed(self.issuer.clone(), &self.policy);
        if let Some((keys, fetched_at)) = &self.seed {
            // A time that is yet to come must not lengthen the trust.
            shared.publish(Some(keys), (*fetched_at).min(self.clock.now()), self.policy.max_stale);
        }
        (handle, self.run(shared, demands))
    }

    async fn run(self, shared: Arc<Shared>, mut demands: mpsc::Receiver<Demand>) {
        let Self { issuer, jwks_uri, quirks, allow_loopback_http, policy, seed, transport, clock } = self;
        let mut fetcher = Fetcher::new(
            issuer.clone(),
            jwks_uri,
            quirks,
            allow_loopback_http,
            &policy,
            transport,
            Arc::clone(&clock),
        );
        let (max_stale, fetch_timeout) = (policy.max_stale, policy.fetch_timeout);
        let mut schedule = Schedule::new(policy, now());
        if seed.is_some() {
            schedule = schedule.seeded(fastrand::f64());
        }
        let mut watch = ClockWatch::new(&*clock);
        loop {
            // A ring that came during the last fetch was taken for that one's.
            let cause = if shared.take_asked() {
                RefreshCause::Asked
            } else {
                tokio::select! {
                    biased;
                    // Before the demands: a flood of them delays no timer.
                    () = sleep_until_some(Some(schedule.next())) => RefreshCause::Timer,
                    () = watch.jumped(&*clock) => RefreshCause::ClockJump,
                    () = sleep_until_some(schedule.stale_at()) => {
                        trace::warning!(target: "tower_oauth::key_set", %issuer, "the key set is too old and given up");
                        shared.give_up();
                        // What it holds is not in use any more: "not modified" would be no help.
                        fetcher.forget();
                        schedule.gave_up(now());
                        continue;
                    }
                    demand = demands.recv() => match demand {
                        None => return,
                        Some(_) if shared.take_asked() => RefreshCause::Asked,
                        Some(Demand::UnknownKey) if schedule.take_demand(now()) => {
                            sleep(SPREAD.mul_f64(fastrand::f64())).await;
                            RefreshCause::UnknownKey
                        }
                        Some(Demand::BadSignature) if schedule.take_doubt(now()) => {
                            sleep(SPREAD.mul_f64(fastrand::f64())).await;
                            RefreshCause::BadSignature
                        }
                        Some(_) => {
                            // Nothing will be fetched: nobody has to wait for it.
                            shared.end_round();
                            continue;
                        }
                    },
                }
            };
            let fetch = trace::spanned!(
                timeout(fetch_timeout, fetcher.fetch()),
                target: "tower_oauth::key_set", "refresh", %issuer, cause = cause.as_str()
            );
            let fetched = tokio::select! {
                fetched = fetch => fetched.unwrap_or_else(|_elapsed| {
                    Err(Error::new(Operation::KeySet, ErrorKind::Timeout))
                }),
                () = closed(&mut demands) => return,
            };
            let outcome = match fetched {
                Ok(fetched) => {
                    schedule.succeeded(now(), fetched.freshness, fastrand::f64());
                    if cause == RefreshCause::UnknownKey && fetched.keys.is_none() {
                        fetcher.doubt_place();
                    }
                    trace::debug!(
                        target: "tower_oauth::key_set",
                        %issuer,
                        cause = cause.as_str(),
                        changed = fetched.keys.is_some(),
                        "the key set was refreshed"
                    );
                    if fetched
                        .keys
                        .iter()
                        .flat_map(KeySet::skipped)
                        .any(|(_, why)| why == SkipReason::PrivateKey)
                    {
                        trace::warning!(
                            target: "tower_oauth::key_set",
                            %issuer,
                            "the issuer publishes a private key: whoever read it can make its tokens"
                        );
                    }
                    shared.publish(fetched.keys.as_ref(), clock.now(), max_stale);
                    Ok(())
                }
                Err(error) => {
                    schedule.failed(now(), cause, error.retry_after(), fastrand::f64());
                    trace::warning!(
                        target: "tower_oauth::key_set",
                        %issuer,
                        cause = cause.as_str(),
                        %error,
                        failures = schedule.failures(),
                        "the key set could not be refreshed"
                    );
                    Err(error)
                }
            };
            shared.end_refresh(cause, outcome, schedule.failures(), schedule.next());
        }
    }
}

/// Notices that the wall clock ran ahead: the machine slept, or its clock was set.
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
        Self { seen: (now, clock.now()), next: now + Self::EVERY }
    }

    /// Ends when a jump was noticed. May be dropped and called again at any time.
    async fn jumped(&mut self, clock: &dyn Clock) {
        loop {
            sleep_until_some(Some(self.next)).await;
            let (before, wall_before) = self.seen;
            let (now, wall) = (now(), clock.now());
            self.seen = (now, wall);
            self.next = now + Self::EVERY;
            let by_the_wall = wall.saturating_since(wall_before);
            if by_the_wall.saturating_sub(now.saturating_duration_since(before)) > Self::JUMP {
                return;
            }
        }
    }
}

/// Ends when the last handle is gone. Demands that come while a fetch is under way are
/// answered by that fetch.
async fn closed(demands: &mut mpsc::Receiver<Demand>) {
    while demands.recv().await.is_some() {}
}
