//! Refreshes that a request causes, and the bounded number of requests that wait for one.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use tokio::sync::watch;

use super::rate_limit::RateLimitView;
use super::refresh_cause::RefreshCause;
use super::state::{RefreshRequests, State};
use super::status::RefreshState;
use crate::clock::UnixTime;
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
/// limit on waiters does not allow it, or the refresh task has stopped.
pub(super) fn request_refresh(
    state: &Arc<State>,
    requests: &watch::Sender<RefreshRequests>,
    reason: RefreshReason<'_>,
) -> Option<Wait> {
    let cause = match reason {
        RefreshReason::InvalidSignature => RefreshCause::InvalidSignature,
        RefreshReason::UnknownKey(..) => RefreshCause::UnknownKey,
    };
    if requests.is_closed() {
        return None;
    }
    // Before anything is allocated: requests over the rate limit cost nothing more.
    if !state.rate_limit.load().allows(cause, timer::now()) {
        return None;
    }
    let permit = WaiterPermit::try_acquire(state)?;
    let requests = requests.clone();
    let mut refreshes = state.refresh_state.subscribe();
    let started = refreshes.borrow().started;
    state.refresh_waits.fetch_add(1, Ordering::Relaxed);
    state.refresh_waits_counter.increment();
    let unknown_key = match reason {
        RefreshReason::InvalidSignature => None,
        RefreshReason::UnknownKey(kid, now) => Some((Box::<str>::from(kid), now)),
    };
    let limit = state.unknown_key_timeout;
    let wait = async move {
        let WaiterPermit(state) = &permit;
        let is_over_limit =
            |view: &RateLimitView| !(view.is_fetching || view.allows(cause, timer::now()));
        // A running fetch may have read the set before the key was published. Wait for it, but
        // accept it only if it brought the missing key.
        let has_waited = refreshes.borrow().finished < started;
        let _ = refreshes
            .wait_for(|refreshes| refreshes.finished >= started)
            .await;
        let has_key = |(kid, _): &(Box<str>, UnixTime)| state.snapshot.load().has_kid(kid);
        if unknown_key.as_ref().is_some_and(has_key) || is_over_limit(&state.rate_limit.load()) {
            return;
        }
        requests.send_modify(|requests| {
            match cause {
                RefreshCause::InvalidSignature => requests.invalid_signature += 1,
                _ => requests.unknown_key += 1,
            }
            requests.after_fetch += u64::from(has_waited);
        });
        let is_over = |refreshes: &RefreshState| {
            refreshes.finished > started || is_over_limit(&state.rate_limit.load())
        };
        let _ = refreshes.wait_for(is_over).await;
        // Only a fetch that began after this wait and succeeded proves that the `kid` is unknown.
        // A set that has the key is never looked up in the negative cache.
        if let (Some((kid, now)), true) = (unknown_key, refreshes.borrow().last_success > started) {
            state
                .negative_cache
                .insert(&kid, state.snapshot.load().generation, now);
        }
    };
    Some(Wait(Box::pin(async move {
        let _elapsed = tokio::time::timeout(limit, wait).await;
    })))
}

/// One of the `max_waiters` permits, released on drop.
struct WaiterPermit(Arc<State>);

impl WaiterPermit {
    fn try_acquire(state: &Arc<State>) -> Option<Self> {
        if state.waiters.fetch_add(1, Ordering::Relaxed) >= state.max_waiters {
            state.waiters.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(Self(Arc::clone(state)))
    }
}

impl Drop for WaiterPermit {
    fn drop(&mut self) {
        self.0.waiters.fetch_sub(1, Ordering::Relaxed);
    }
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
