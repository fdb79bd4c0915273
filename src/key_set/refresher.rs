//! The task behind a key set: sleeps, fetches, publishes. One fetch at a time.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::jwk::Quirks;
use super::policy::RefreshPolicy;
use super::schedule::{Cause, Schedule};
use super::source::Fetcher;
use super::watch::{KeySetHandle, Shared};
use crate::clock::Clock;
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
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Refresh {
    /// The handle for requests, and the task that has to be polled for it. The task ends when
    /// the last handle is dropped.
    pub(crate) fn split(self) -> (KeySetHandle, impl Future<Output = ()> + Send + 'static) {
        let (handle, shared, demands) = KeySetHandle::refreshed(self.issuer.clone(), &self.policy);
        (handle, self.run(shared, demands))
    }

    async fn run(self, shared: Arc<Shared>, mut demands: mpsc::Receiver<()>) {
        let Self { issuer, jwks_uri, quirks, allow_loopback_http, policy, transport, clock } = self;
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
        loop {
            let cause = tokio::select! {
                biased;
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
                    Some(()) if schedule.take_demand(now()) => {
                        sleep(SPREAD.mul_f64(fastrand::f64())).await;
                        Cause::UnknownKey
                    }
                    Some(()) => {
                        // Nothing will be fetched: nobody has to wait for it.
                        shared.end_round(|_| {});
                        continue;
                    }
                },
                () = sleep_until_some(Some(schedule.next())) => Cause::Timer,
            };
            let fetched = tokio::select! {
                fetched = timeout(fetch_timeout, fetcher.fetch()) => fetched.unwrap_or_else(|_elapsed| {
                    Err(Error::new(Operation::KeySet, ErrorKind::Timeout))
                }),
                () = closed(&mut demands) => return,
            };
            match fetched {
                Ok(fetched) => {
                    schedule.succeeded(now(), fetched.freshness, fastrand::f64());
                    if cause == Cause::UnknownKey && fetched.keys.is_none() {
                        fetcher.doubt_place();
                    }
                    trace::debug!(
                        target: "tower_oauth::key_set",
                        %issuer, ?cause, changed = fetched.keys.is_some(), "the key set was refreshed"
                    );
                    shared.publish(fetched.keys, clock.now(), max_stale);
                    shared.end_round(|progress| {
                        progress.succeeded += 1;
                        progress.failures_in_a_row = 0;
                        progress.last_error = None;
                    });
                }
                Err(error) => {
                    schedule.failed(now(), cause, error.retry_after(), fastrand::f64());
                    trace::warning!(
                        target: "tower_oauth::key_set",
                        %issuer, ?cause, %error, failures = schedule.failures(), "the key set could not be refreshed"
                    );
                    shared.end_round(|progress| {
                        progress.failed += 1;
                        progress.failures_in_a_row = schedule.failures();
                        progress.last_error = Some(error);
                    });
                }
            }
        }
    }
}

/// Ends when the last handle is gone. Demands that come while a fetch is under way are
/// answered by that fetch.
async fn closed(demands: &mut mpsc::Receiver<()>) {
    while demands.recv().await.is_some() {}
}
