//! What the handles of a key set and its refresh task share.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use arc_swap::ArcSwap;

use super::compromised::CompromisedKeys;
use super::negative_cache::NegativeCache;
use super::policy::RefreshPolicy;
use super::rate_limit::RateLimitView;
use super::refresh_cause::RefreshCause;
use super::schedule::Schedule;
use super::set::KeySet;
use super::snapshot::{Snapshot, SnapshotCell};
use super::status::RefreshState;
use crate::clock::UnixTime;
use crate::error::Error;
use crate::metrics::{self, Counter, Histogram};
use crate::oauth::Issuer;
use crate::single_flight::{Leader, SingleFlight};

/// How many refreshes were requested, by cause. The refresh task compares it with the counts that
/// it has handled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct RefreshRequests {
    pub(super) manual: u64,
    pub(super) invalid_signature: u64,
    pub(super) unknown_key: u64,
    /// By requests that have already waited for a running fetch; these get no jitter.
    pub(super) after_fetch: u64,
}

/// Requests and results between the handles and the refresh task.
pub(super) type RefreshFlight = SingleFlight<RefreshRequests, RefreshState>;

/// The refresh task's side of [`RefreshFlight`].
pub(super) type RefreshLeader = Leader<RefreshRequests, RefreshState>;

/// The state that the handles and the refresh task of one key set share.
#[derive(Debug)]
pub(super) struct State {
    pub(super) issuer: Issuer,
    pub(super) snapshot: SnapshotCell,
    pub(super) rate_limit: ArcSwap<RateLimitView>,
    pub(super) negative_cache: NegativeCache,
    pub(super) refresh_waits: AtomicU64,
    pub(super) negative_cache_hits: AtomicU64,
    pub(super) refresh_waits_counter: Counter,
    pub(super) negative_cache_hits_counter: Counter,
    fetch_success_duration: Histogram,
    fetch_failure_duration: Histogram,
    pub(super) unknown_key_timeout: Duration,
    pub(super) refresh_on_invalid_signature: bool,
    /// Covers a running fetch and the one after it.
    pub(super) manual_refresh_timeout: Duration,
}

impl State {
    pub(super) fn new(issuer: Issuer, policy: &RefreshPolicy) -> Self {
        let counter = |name| Counter::new(name, ("issuer", issuer.as_str()));
        let fetch_duration = |outcome| {
            let labels = [("issuer", issuer.as_str()), ("outcome", outcome)];
            Histogram::new(metrics::JWKS_FETCH_DURATION, &labels)
        };
        Self {
            fetch_success_duration: fetch_duration("success"),
            fetch_failure_duration: fetch_duration("failure"),
            refresh_waits_counter: counter(metrics::JWKS_REFRESH_WAITS),
            negative_cache_hits_counter: counter(metrics::JWKS_NEGATIVE_CACHE_HITS),
            rate_limit: ArcSwap::default(),
            issuer,
            snapshot: SnapshotCell::new(),
            negative_cache: NegativeCache::new(),
            refresh_waits: AtomicU64::new(0),
            negative_cache_hits: AtomicU64::new(0),
            unknown_key_timeout: policy.unknown_key_timeout,
            refresh_on_invalid_signature: policy.refresh_on_invalid_signature,
            manual_refresh_timeout: policy
                .fetch_timeout
                .saturating_mul(2)
                .saturating_add(Duration::from_secs(1)),
        }
    }

    fn labels(&self) -> [(&'static str, &str); 1] {
        [("issuer", self.issuer.as_str())]
    }

    /// Sets the gauges of the current snapshot.
    pub(super) fn record_gauges(&self, now: UnixTime) {
        let (snapshot, labels) = (self.snapshot.load(), self.labels());
        let keys = snapshot.usable(now);
        let count = |keys: usize| u64::try_from(keys).unwrap_or(u64::MAX);
        metrics::gauge(
            metrics::USABLE_KEYS,
            &labels,
            count(keys.map_or(0, KeySet::len)),
        );
        metrics::gauge(
            metrics::SKIPPED_KEYS,
            &labels,
            count(keys.map_or(0, |keys| keys.skipped().count())),
        );
        metrics::gauge(metrics::GENERATION, &labels, snapshot.generation);
        metrics::gauge(metrics::READY, &labels, u64::from(keys.is_some()));
        if snapshot.generation > 0 && snapshot.fetched_at > UnixTime::from_secs(0) {
            metrics::gauge(
                metrics::LAST_REFRESH_SUCCESS,
                &labels,
                snapshot.fetched_at.as_secs(),
            );
        }
    }

    /// Publishes new `keys`, or with `None` marks the current ones as fresh.
    pub(super) fn publish(
        &self,
        keys: Option<&KeySet>,
        fetched_at: UnixTime,
        max_stale: Duration,
        now: UnixTime,
    ) {
        self.snapshot.update(|current| {
            let mut revoked = Arc::clone(&current.revoked_for_good);
            if let Some(compromised) = keys
                .map(|keys| &keys.0.compromised)
                .filter(|keys| !keys.is_empty())
            {
                revoked =
                    revoked.with(|all| compromised.revoke_public_keys(current.keys.as_ref(), all));
            }
            Snapshot {
                generation: current.generation + u64::from(keys.is_some()),
                key_set_version: current.key_set_version + u64::from(keys.is_some()),
                keys: keys.cloned().or_else(|| current.keys.clone()),
                fetched_at,
                usable_until: fetched_at.saturating_add(max_stale),
                revoked: Arc::clone(&revoked),
                revoked_for_good: revoked,
            }
        });
        self.record_gauges(now);
    }

    /// Revokes the compromised keys of a document without a usable key: their public keys for
    /// good, and their `kid`s until the issuer publishes a usable set. Returns whether one of them
    /// has no `kid` and no unrevoked key is left.
    pub(super) fn revoke_compromised(&self, compromised: &CompromisedKeys) -> bool {
        self.snapshot.update(|current| {
            let (keys, for_good) = (current.keys.as_ref(), &current.revoked_for_good);
            let revoked_for_good = for_good.with(|all| compromised.revoke_public_keys(keys, all));
            let revoked = current.revoked.with(|all| {
                compromised.revoke_public_keys(keys, all);
                compromised.revoke_kids(keys, all);
            });
            Snapshot {
                revoked,
                revoked_for_good,
                key_set_version: current.key_set_version + 1,
                ..Snapshot::clone(current)
            }
        });
        let snapshot = self.snapshot.load();
        snapshot.keys.as_ref().is_some_and(|keys| {
            compromised.contains_without_kid(keys) && !keys.has_unrevoked(&snapshot.revoked)
        })
    }

    pub(super) fn warn_private_key(&self) {
        crate::trace::warn!(
            target: "tower_oauth::key_set",
            issuer = %self.issuer,
            "the issuer publishes a private key: anyone who reads it can sign tokens"
        );
    }

    /// Marks the set as too old. It is retained, because the issuer may confirm it (304).
    pub(super) fn expire(&self, now: UnixTime) {
        self.snapshot.update(|current| Snapshot {
            usable_until: UnixTime::from_secs(0),
            key_set_version: current.key_set_version + 1,
            ..Snapshot::clone(current)
        });
        self.record_gauges(now);
    }

    /// How long the current set is still trusted by the wall clock.
    pub(super) fn remaining_staleness(&self, now: UnixTime) -> Duration {
        self.snapshot.load().usable_until.saturating_since(now)
    }

    /// Publishes the rate limits for requests.
    pub(super) fn set_rate_limit(&self, schedule: &Schedule, is_fetching: bool) {
        self.rate_limit.store(Arc::new(RateLimitView {
            limits: Some(schedule.on_demand_limits()),
            is_fetching,
        }));
    }

    /// Records how long a fetch took, discovery included.
    pub(super) fn record_fetch_duration(&self, is_success: bool, duration: Duration) {
        if is_success {
            self.fetch_success_duration.record(duration);
        } else {
            self.fetch_failure_duration.record(duration);
        }
    }

    /// Counts a refresh by its outcome.
    pub(super) fn record_refresh(
        &self,
        cause: RefreshCause,
        outcome: &Result<(), Error>,
        metadata_error: Option<&Error>,
        schedule: &Schedule,
    ) {
        let (label, error) = match outcome {
            Ok(()) => ("success", "none"),
            Err(error) => ("failure", error.kind().as_str()),
        };
        metrics::count(
            metrics::REFRESHES,
            &[
                ("issuer", self.issuer.as_str()),
                ("cause", cause.as_str()),
                ("outcome", label),
                ("error", error),
            ],
        );
        metrics::gauge(
            metrics::CONSECUTIVE_FAILURES,
            &self.labels(),
            schedule.failures().into(),
        );
        metrics::gauge(
            metrics::DISCOVERY_FAILING,
            &self.labels(),
            metadata_error.is_some().into(),
        );
    }
}
