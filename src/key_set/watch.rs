//! What requests see of a key set: an immutable snapshot, and a bounded wait for a newer one.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Guard};
use tokio::sync::{mpsc, watch};

use super::misses::Misses;
use super::schedule::RefreshCause;
use super::status::{KeySetState, KeySetStatus, Progress};
use super::{KeySet, RefreshPolicy, Revoked};
use crate::clock::UnixTime;
use crate::error::{Error, ErrorKind, Operation};
use crate::jwt::Fingerprint;
use crate::oauth::Issuer;
use crate::{metrics, timer};

/// The keys at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    keys: Option<KeySet>,
    generation: u64,
    /// Changes with everything that may make a verdict of before a wrong one now.
    epoch: u64,
    fetched_at: UnixTime,
    /// Wall time, so that a machine that slept does not trust what it slept over.
    usable_until: UnixTime,
    revoked: Arc<Revoked>,
}

impl Snapshot {
    /// The `kid`s that count for nothing.
    pub(crate) fn revoked(&self) -> &Revoked {
        &self.revoked
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Whether a token with a `kid` that this key verified would meet the very same key today.
    pub(crate) fn still_has(&self, key: Fingerprint) -> bool {
        self.keys.as_ref().is_some_and(|keys| keys.has(key, &self.revoked))
    }

    /// The keys, unless there are none or they are too old.
    pub(crate) fn usable(&self, now: UnixTime) -> Option<&KeySet> {
        self.keys.as_ref().filter(|_| now <= self.usable_until)
    }
}

/// A handle on the keys of one issuer. Cheap to clone; the refresher ends with the last one.
#[derive(Clone, Debug)]
pub(crate) struct KeySetHandle {
    shared: Arc<Shared>,
    /// Rings the refresher; `None` for a fixed set.
    demand: Option<mpsc::Sender<Demand>>,
}

/// Why a request wants a newer set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Demand {
    /// The key with its `kid` did not sign it, and may have been replaced.
    BadSignature,
    /// Its `kid` is not in the set.
    UnknownKey,
}

/// What the handles and the refresher share.
#[derive(Debug)]
pub(super) struct Shared {
    issuer: Issuer,
    snapshot: ArcSwap<Snapshot>,
    progress: ArcSwap<Progress>,
    misses: Misses,
    /// Counts ended rounds: fetches, and demands that were turned down.
    rounds: watch::Sender<u64>,
    waiters: AtomicUsize,
    /// Requests that ever waited, and those that were spared the wait.
    waits: AtomicU64,
    negative_hits: AtomicU64,
    /// A refresh was asked for, whatever the budget.
    asked: AtomicBool,
    wait: Duration,
    max_waiters: usize,
    reused_key_ids: bool,
    /// For a fetch that is under way, and one more.
    patience: Duration,
}

impl KeySetHandle {
    /// A handle on a set that never changes.
    pub(crate) fn fixed(issuer: Issuer, keys: KeySet) -> Self {
        let shared = Shared::new(issuer, &RefreshPolicy::new());
        shared.snapshot.store(Arc::new(Snapshot {
            keys: Some(keys),
            generation: 1,
            epoch: 1,
            fetched_at: UnixTime::from_secs(0),
            usable_until: UnixTime::from_secs(u64::MAX),
            revoked: Arc::default(),
        }));
        shared.measure();
        Self { shared: Arc::new(shared), demand: None }
    }

    /// A handle on a set that a refresher keeps, and what that refresher needs.
    pub(super) fn refreshed(
        issuer: Issuer,
        policy: &RefreshPolicy,
    ) -> (Self, Arc<Shared>, mpsc::Receiver<Demand>) {
        let shared = Arc::new(Shared::new(issuer, policy));
        shared.measure();
        let (demand, demands) = mpsc::channel(1);
        (Self { shared: Arc::clone(&shared), demand: Some(demand) }, shared, demands)
    }

    /// The snapshot of this moment. Takes no lock.
    pub(crate) fn load(&self) -> Guard<Arc<Snapshot>> {
        self.shared.snapshot.load()
    }

    /// Whether this `kid` was looked for in vain lately, and the set has not changed since.
    pub(crate) fn is_known_miss(&self, kid: &str, snapshot: &Snapshot, now: UnixTime) -> bool {
        let known = self.shared.misses.knows(kid, snapshot.generation, now);
        if known {
            self.shared.negative_hits.fetch_add(1, Ordering::Relaxed);
            metrics::count(metrics::NEGATIVE_HITS, &self.shared.labels());
        }
        known
    }

    /// Notes that a refresh was waited for, and this `kid` is still not there.
    pub(crate) fn note_miss(&self, kid: &str, snapshot: &Snapshot, now: UnixTime) {
        self.shared.misses.note(kid, snapshot.generation, now);
    }

    /// Asks for a newer set and returns a bounded wait for the outcome; `None` if waiting
    /// is pointless or too many wait already.
    pub(crate) fn demand(&self, why: Demand) -> Option<Wait> {
        let demand = self.demand.as_ref()?;
        let seat = Seat::take(&self.shared)?;
        // Subscribed before ringing, so that the answer cannot slip through between.
        let mut rounds = self.shared.rounds.subscribe();
        if let Err(mpsc::error::TrySendError::Closed(_)) = demand.try_send(why) {
            return None;
        }
        self.shared.waits.fetch_add(1, Ordering::Relaxed);
        metrics::count(metrics::WAITS, &self.shared.labels());
        let limit = self.shared.wait;
        Some(Wait(Box::pin(async move {
            let _seat = seat;
            let _in_time = tokio::time::timeout(limit, rounds.changed()).await;
        })))
    }

    /// Whether the issuer gives the same `kid` to new keys.
    pub(crate) fn reuses_key_ids(&self) -> bool {
        self.shared.reused_key_ids
    }

    /// Counts a key as withdrawn from now on, whatever the issuer publishes.
    pub(crate) fn revoke(&self, kid: &str) {
        self.shared.snapshot.rcu(|current| {
            let mut revoked = Revoked::clone(&current.revoked);
            revoked.insert(kid.into());
            Snapshot { revoked: Arc::new(revoked), epoch: current.epoch + 1, ..Snapshot::clone(current) }
        });
    }

    /// Has the set fetched at once, and waits for the outcome. At once `Ok` for a fixed set.
    pub(crate) async fn refresh_now(&self) -> Result<(), Error> {
        let Some(demand) = &self.demand else { return Ok(()) };
        let mut rounds = self.shared.rounds.subscribe();
        let asked = || self.shared.progress.load().refreshes(RefreshCause::Asked).total();
        let before = asked();
        self.shared.asked.store(true, Ordering::Release);
        let _the_refresher_is_awake_already = demand.try_send(Demand::UnknownKey);
        let ended = async { while asked() == before && rounds.changed().await.is_ok() {} };
        let too_late = |_| Error::new(Operation::KeySet, ErrorKind::Timeout);
        tokio::time::timeout(self.shared.patience, ended).await.map_err(too_late)?;
        match &self.shared.progress.load().last_error {
            Some(error) => Err(error.clone()),
            None => Ok(()),
        }
    }

    /// Waits until there is a usable set.
    pub(crate) async fn ready(&self, now: impl Fn() -> UnixTime) {
        let mut rounds = self.shared.rounds.subscribe();
        while self.load().usable(now()).is_none() {
            if rounds.changed().await.is_err() {
                return;
            }
        }
    }

    pub(crate) fn status(&self, now: UnixTime) -> KeySetStatus {
        let snapshot = self.load();
        let keys = snapshot.usable(now);
        let progress = Progress::clone(&self.shared.progress.load());
        let state = match keys {
            Some(_) if progress.failures_in_a_row == 0 => KeySetState::Healthy,
            Some(_) => KeySetState::Degraded,
            None if snapshot.generation == 0 => KeySetState::Starting,
            None => KeySetState::Stale,
        };
        KeySetStatus {
            issuer: self.shared.issuer.clone(),
            state,
            generation: snapshot.generation,
            keys: keys.cloned(),
            age: keys.filter(|_| self.demand.is_some()).map(|_| now.saturating_since(snapshot.fetched_at)),
            next_attempt: progress.next_attempt.map(|at| at.saturating_duration_since(timer::now())),
            progress,
            waits: self.shared.waits.load(Ordering::Relaxed),
            negative_hits: self.shared.negative_hits.load(Ordering::Relaxed),
        }
    }
}

impl Shared {
    fn new(issuer: Issuer, policy: &RefreshPolicy) -> Self {
        Self {
            issuer,
            snapshot: ArcSwap::from_pointee(Snapshot {
                keys: None,
                generation: 0,
                epoch: 0,
                fetched_at: UnixTime::from_secs(0),
                usable_until: UnixTime::from_secs(0),
                revoked: Arc::default(),
            }),
            progress: ArcSwap::default(),
            misses: Misses::new(),
            rounds: watch::Sender::new(0),
            waiters: AtomicUsize::new(0),
            waits: AtomicU64::new(0),
            negative_hits: AtomicU64::new(0),
            asked: AtomicBool::new(false),
            wait: policy.demand_wait,
            max_waiters: policy.max_waiters,
            reused_key_ids: policy.reused_key_ids,
            patience: policy.fetch_timeout.saturating_mul(2).saturating_add(Duration::from_secs(1)),
        }
    }

    fn labels(&self) -> [(&'static str, &str); 1] {
        [("issuer", self.issuer.as_str())]
    }

    /// Sets the gauges of the set in place.
    fn measure(&self) {
        let (snapshot, labels) = (self.snapshot.load(), self.labels());
        let (usable, skipped) = match &snapshot.keys {
            Some(keys) => (keys.len(), keys.skipped().count()),
            None => (0, 0),
        };
        let count = |keys: usize| u64::try_from(keys).unwrap_or(u64::MAX);
        metrics::gauge(metrics::USABLE_KEYS, &labels, count(usable));
        metrics::gauge(metrics::SKIPPED_KEYS, &labels, count(skipped));
        metrics::gauge(metrics::GENERATION, &labels, snapshot.generation);
        metrics::gauge(metrics::READY, &labels, u64::from(snapshot.keys.is_some()));
        if snapshot.generation > 0 && snapshot.fetched_at > UnixTime::from_secs(0) {
            metrics::gauge(metrics::REFRESHED_AT, &labels, snapshot.fetched_at.as_secs());
        }
    }

    /// Puts a set in place: a new one, or the same one found to be still the issuer's.
    pub(super) fn publish(&self, keys: Option<&KeySet>, now: UnixTime, max_stale: Duration) {
        // Not a plain store: a key may be revoked at the same moment.
        self.snapshot.rcu(|current| Snapshot {
            generation: current.generation + u64::from(keys.is_some()),
            epoch: current.epoch + u64::from(keys.is_some()),
            keys: keys.cloned().or_else(|| current.keys.clone()),
            fetched_at: now,
            usable_until: now.saturating_add(max_stale),
            revoked: Arc::clone(&current.revoked),
        });
        self.measure();
    }

    /// Gives the set up as too old.
    pub(super) fn give_up(&self) {
        self.snapshot.rcu(|current| Snapshot {
            keys: None,
            epoch: current.epoch + 1,
            ..Snapshot::clone(current)
        });
        self.measure();
    }

    /// Whether a refresh was asked for since the last look.
    pub(super) fn take_asked(&self) -> bool {
        self.asked.swap(false, Ordering::AcqRel)
    }

    /// Notes how a refresh went and wakes those who wait for it.
    pub(super) fn end_refresh(
        &self,
        cause: RefreshCause,
        outcome: Result<(), Error>,
        failures_in_a_row: u32,
        next_attempt: Instant,
    ) {
        let issuer = self.issuer.as_str();
        let (told, error) = match &outcome {
            Ok(()) => ("success", "none"),
            Err(error) => ("failure", error.kind().as_str()),
        };
        metrics::count(
            metrics::REFRESHES,
            &[("issuer", issuer), ("cause", cause.as_str()), ("outcome", told), ("error", error)],
        );
        metrics::gauge(metrics::CONSECUTIVE_FAILURES, &self.labels(), failures_in_a_row.into());
        let mut progress = Progress::clone(&self.progress.load());
        progress.note(cause, outcome, failures_in_a_row);
        progress.next_attempt = Some(next_attempt);
        self.progress.store(Arc::new(progress));
        self.end_round();
    }

    /// Wakes those who wait: this round is over, whatever came of it.
    pub(super) fn end_round(&self) {
        self.rounds.send_modify(|rounds| *rounds = rounds.wrapping_add(1));
    }
}

/// One of the places for waiting requests, given back on drop.
struct Seat(Arc<Shared>);

impl Seat {
    fn take(shared: &Arc<Shared>) -> Option<Self> {
        if shared.waiters.fetch_add(1, Ordering::Relaxed) >= shared.max_waiters {
            shared.waiters.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(Self(Arc::clone(shared)))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.waiters.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Ends when the refresher has answered a demand, or after the longest wait.
///
/// Boxed: only a request with an unknown `kid` ever has one.
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
