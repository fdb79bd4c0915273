//! The handle by which requests read a key set and ask for a newer one.
//!
//! ```text
//! requests ──RefreshRequests──▶ refresh task ──Snapshot, RefreshState──▶ requests
//! ```

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arc_swap::Guard;

use super::on_demand::{self, RefreshReason, Wait};
use super::policy::RefreshPolicy;
use super::revoked::RevokedKeys;
use super::set::KeySet;
use super::snapshot::Snapshot;
use super::state::{RefreshFlight, RefreshLeader, State};
use super::status::{KeySetState, KeySetStatus};
use crate::clock::UnixTime;
use crate::error::{Error, ErrorKind, Operation};
use crate::oauth::Issuer;
use crate::single_flight::{SingleFlight, WaitError};
use crate::timer;

/// The keys of one issuer, as requests see them. Cheap to clone.
///
/// The refresh task ends when the last handle is dropped.
#[derive(Clone, Debug)]
pub(crate) struct KeySetHandle {
    state: Arc<State>,
    /// With the refresh task; `None` for a fixed set.
    flight: Option<RefreshFlight>,
}

impl KeySetHandle {
    /// A handle on a set that never changes.
    pub(crate) fn fixed(issuer: Issuer, keys: KeySet) -> Self {
        let state = State::new(issuer, &RefreshPolicy::new());
        state.snapshot.update(|empty| Snapshot {
            keys: Some(keys),
            generation: 1,
            key_set_version: 1,
            usable_until: UnixTime::from_secs(u64::MAX),
            ..Snapshot::clone(empty)
        });
        state.record_gauges(UnixTime::from_secs(0));
        Self {
            state: Arc::new(state),
            flight: None,
        }
    }

    /// A handle on a set that is refreshed, and what its refresh task needs.
    pub(super) fn refreshed(
        issuer: Issuer,
        policy: &RefreshPolicy,
    ) -> (Self, Arc<State>, RefreshLeader) {
        let state = Arc::new(State::new(issuer, policy));
        state.record_gauges(UnixTime::from_secs(0));
        let (flight, leader) = RefreshFlight::new(policy.max_waiters);
        let handle = Self {
            state: Arc::clone(&state),
            flight: Some(flight),
        };
        (handle, state, leader)
    }

    /// The current snapshot. Takes no lock.
    pub(crate) fn load(&self) -> Guard<Arc<Snapshot>> {
        self.state.snapshot.load()
    }

    /// Whether a cache entry of this version is valid without another look at the keys. If not,
    /// the snapshot decides.
    pub(crate) fn is_version_current(&self, key_set_version: u64, now: UnixTime) -> bool {
        self.state.snapshot.is_version_current(key_set_version, now)
    }

    /// Whether the negative cache has this `kid` for the generation of `snapshot`.
    pub(crate) fn is_in_negative_cache(
        &self,
        kid: &str,
        snapshot: &Snapshot,
        now: UnixTime,
    ) -> bool {
        let is_hit = self
            .state
            .negative_cache
            .contains(kid, snapshot.generation, now);
        if is_hit {
            self.state
                .negative_cache_hits
                .fetch_add(1, Ordering::Relaxed);
            self.state.negative_cache_hits_counter.increment();
        }
        is_hit
    }

    /// States that the refresh task is spawned: requests may wait for it before its first poll.
    pub(crate) fn mark_refresher_spawned(&self) {
        if let Some(flight) = &self.flight {
            flight.mark_spawned();
        }
    }

    /// Requests a refresh. Returns a bounded wait for its outcome, or `None` if the rate limit or
    /// the limit on waiters does not allow it, or the refresh task does not run.
    pub(crate) fn request_refresh(&self, reason: RefreshReason<'_>) -> Option<Wait> {
        on_demand::request_refresh(&self.state, self.flight.as_ref()?, reason)
    }

    /// Whether an invalid signature may cause a refresh, because the issuer reuses `kid`s.
    pub(crate) fn refreshes_on_invalid_signature(&self) -> bool {
        self.state.refresh_on_invalid_signature
    }

    /// Revokes a `kid` for good, and the keys that have it now under any `kid`.
    pub(crate) fn revoke_key(&self, kid: &str) {
        self.state.snapshot.update(|current| {
            let with_key = |revoked: &Arc<RevokedKeys>| {
                revoked.with(|revoked| {
                    revoked.insert_kid(kid);
                    let keys = current.keys.iter().flat_map(|keys| keys.all_for_kid(kid));
                    keys.for_each(|key| revoked.insert(key));
                })
            };
            Snapshot {
                revoked: with_key(&current.revoked),
                revoked_for_good: with_key(&current.revoked_for_good),
                key_set_version: current.key_set_version + 1,
                ..Snapshot::clone(current)
            }
        });
    }

    /// Requests a refresh at once, even if the future is dropped. It resolves to the outcome of a
    /// fetch that began after this call; for a fixed set it is `Ok` at once.
    pub(crate) fn refresh_keys(&self) -> impl Future<Output = Result<(), Error>> + use<> {
        let waiter = self.flight.as_ref().map(|flight| {
            let waiter = flight.subscribe(self.state.manual_refresh_timeout);
            waiter.request(|requests| requests.manual += 1);
            waiter
        });
        async move {
            let Some(mut waiter) = waiter else {
                return Ok(());
            };
            let before = waiter.began_before();
            let outcome = waiter.until(|refreshes| {
                let (number, error) = &refreshes.state.manual;
                (*number > before).then(|| error.clone().map_or(Ok(()), Err))
            });
            outcome.await.unwrap_or_else(|error| {
                let timeout = Error::new(Operation::JwksFetch, ErrorKind::Timeout);
                Err(match error {
                    WaitError::Elapsed => timeout,
                    WaitError::Stopped => {
                        timeout.with_source("the refresh task of the key set has stopped")
                    }
                })
            })
        }
    }

    /// Waits until there is a usable set, or until the refresh task has stopped.
    pub(crate) async fn wait_until_usable(&self, now: impl Fn() -> UnixTime) {
        if let Some(flight) = &self.flight {
            let is_usable = || self.load().usable(now()).is_some();
            let mut waiter = flight.subscribe(Duration::MAX);
            let _stopped = waiter.until(|_| is_usable().then_some(())).await;
        }
    }

    /// The status of the set at `now`.
    pub(crate) fn status(&self, now: UnixTime) -> KeySetStatus {
        let snapshot = self.load();
        let keys = snapshot.usable(now);
        let flight = self.flight.as_ref();
        let refresh_state = flight.map(|flight| flight.progress().state.clone());
        let refresh_state = refresh_state.unwrap_or_default();
        let is_refresher_stopped = flight.is_some_and(SingleFlight::is_stopped);
        let state = match keys {
            Some(_) if refresh_state.is_healthy() && !is_refresher_stopped => KeySetState::Healthy,
            Some(_) => KeySetState::Degraded,
            None if snapshot.generation == 0 => KeySetState::Starting,
            None => KeySetState::Stale,
        };
        KeySetStatus {
            issuer: self.state.issuer.clone(),
            state,
            generation: snapshot.generation,
            keys: keys.cloned(),
            last_document: refresh_state
                .unusable_keys
                .clone()
                .or_else(|| snapshot.keys.clone()),
            is_refresher_stopped,
            age: keys
                .filter(|_| flight.is_some())
                .map(|_| now.saturating_since(snapshot.fetched_at)),
            next_refresh: refresh_state
                .next_refresh
                .filter(|_| !is_refresher_stopped)
                .map(|at| at.saturating_duration_since(timer::now())),
            refresh_state,
            refresh_waits: self.state.refresh_waits.load(Ordering::Relaxed),
            negative_cache_hits: self.state.negative_cache_hits.load(Ordering::Relaxed),
        }
    }
}
