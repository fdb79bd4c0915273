//! Refreshes that a request causes, and the bounded number of requests that wait for one.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use super::refresh_cause::RefreshCause;
use super::state::{RefreshFlight, State};
use crate::clock::UnixTime;
use crate::single_flight::WaitError;
use crate::timer;

/// Why a request asks for newer keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RefreshReason<'k> {
    /// The signature does not match the key with this `kid`, which may have been replaced.
    InvalidSignature,
    /// The set has no key with this `kid`, at this time.
    UnknownKey(&'k str, UnixTime),
}

/// Requests a refresh and returns a bounded wait for its outcome. `None` if the rate limit or the
/// limit on waiters does not allow it, or the refresh task does not run: it has stopped, or was
/// never polled.
pub(super) fn request_refresh(
    state: &Arc<State>,
    flight: &RefreshFlight,
    reason: RefreshReason<'_>,
) -> Option<Wait> {
    let cause = match reason {
        RefreshReason::InvalidSignature => RefreshCause::InvalidSignature,
        RefreshReason::UnknownKey(..) => RefreshCause::UnknownKey,
    };
    // Before anything is allocated: requests over the rate limit cost nothing more.
    if !flight.is_running() || !state.rate_limit.load().allows(cause, timer::now()) {
        return None;
    }
    let mut waiter = flight.try_subscribe(state.unknown_key_timeout)?;
    state.refresh_waits.fetch_add(1, Ordering::Relaxed);
    state.refresh_waits_counter.increment();
    let unknown_key = match reason {
        RefreshReason::InvalidSignature => None,
        RefreshReason::UnknownKey(kid, now) => Some((Box::<str>::from(kid), now)),
    };
    let is_fetching = flight.progress().finished < waiter.began_before();
    let state = Arc::clone(state);
    let wait = async move {
        let before = waiter.began_before();
        let is_over_limit = || {
            let view = state.rate_limit.load();
            !(view.is_fetching || view.allows(cause, timer::now()))
        };
        // A running fetch may have read the set before the key was published. Wait for it, but
        // accept it only if it brought the missing key.
        waiter
            .until(|refreshes| (refreshes.finished >= before).then_some(()))
            .await?;
        let has_key = |(kid, _): &(Box<str>, UnixTime)| state.snapshot.load().has_kid(kid);
        if unknown_key.as_ref().is_some_and(has_key) || is_over_limit() {
            return Ok(());
        }
        waiter.request(|requests| {
            match cause {
                RefreshCause::InvalidSignature => requests.invalid_signature += 1,
                _ => requests.unknown_key += 1,
            }
            requests.after_fetch += u64::from(is_fetching);
        });
        let last_success = waiter
            .until(|refreshes| {
                let is_over = refreshes.finished > before || is_over_limit();
                is_over.then_some(refreshes.state.last_success)
            })
            .await?;
        // Only a fetch that began after this wait and succeeded proves that the `kid` is unknown.
        // A set that has the key is never looked up in the negative cache.
        if let Some((kid, now)) = unknown_key.filter(|_| last_success > before) {
            let generation = state.snapshot.load().generation;
            state.negative_cache.insert(&kid, generation, now);
        }
        Ok::<(), WaitError>(())
    };
    Some(Wait(Box::pin(async move {
        let _ended_early = wait.await;
    })))
}

/// Completes when the requested refresh has finished, or after `unknown_key_timeout`.
///
/// Boxed, because only a request that causes a refresh has one.
pub(crate) struct Wait(Pin<Box<dyn Future<Output = ()> + Send>>);

impl Future for Wait {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.0.as_mut().poll(cx)
    }
}

impl fmt::Debug for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wait").finish_non_exhaustive()
    }
}
