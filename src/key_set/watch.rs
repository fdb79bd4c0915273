//! What requests see of a key set: an immutable snapshot, and a bounded wait for a newer one.
//!
//! ```text
//! requests ──wishes──▶ refresher ──snapshot, progress──▶ requests
//! ```

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use tokio::sync::watch;

use super::budget::Gate;
use super::compromised::CompromisedKeys;
use super::misses::Misses;
use super::schedule::{RefreshCause, Schedule};
use super::snapshot::{Current, Snapshot};
use super::status::{KeySetState, KeySetStatus, Progress};
use super::{KeySet, RefreshPolicy, RevokedKeys};
use crate::clock::UnixTime;
use crate::error::{Error, ErrorKind, Operation};
use crate::metrics::Counter;
use crate::oauth::Issuer;
use crate::{metrics, timer};

/// A handle on the keys of one issuer. Cheap to clone; the refresher ends with the last one.
#[derive(Clone, Debug)]
pub(crate) struct KeySetHandle {
    shared: Arc<Shared>,
    /// Rings the refresher; `None` for a fixed set.
    wishes: Option<watch::Sender<Wishes>>,
}

/// Why a request wants a newer set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Demand<'k> {
    /// The key with its `kid` did not sign it, and may have been replaced.
    BadSignature,
    /// Its `kid` is not in the set at this time.
    UnknownKey(&'k str, UnixTime),
}

/// How often the refresher was rung, for each reason to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Wishes {
    pub(super) asked: u64,
    pub(super) bad_signature: u64,
    pub(super) unknown_key: u64,
    /// By requests that have waited for a fetch already, and have less of their time left.
    pub(super) after_a_fetch: u64,
}

/// What the handles and the refresher share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) issuer: Issuer,
    snapshot: Current,
    gate: ArcSwap<Gate>,
    /// How fetching goes. Who waits for a fetch waits for this to change.
    progress: watch::Sender<Progress>,
    misses: Misses,
    waiters: AtomicUsize,
    /// Requests that ever waited, and those that were spared the wait.
    waits: AtomicU64,
    negative_cache_hits: AtomicU64,
    waits_counter: Counter,
    negative_hits_counter: Counter,
    wait: Duration,
    max_waiters: usize,
    refresh_on_invalid_signature: bool,
    /// For a fetch that is under way, and one more.
    patience: Duration,
}

impl KeySetHandle {
    /// A handle on a set that never changes.
    pub(crate) fn fixed(issuer: Issuer, keys: KeySet) -> Self {
        let shared = Shared::new(issuer, &RefreshPolicy::new());
        shared.snapshot.change(|empty| Snapshot {
            keys: Some(keys),
            generation: 1,
            epoch: 1,
            usable_until: UnixTime::from_secs(u64::MAX),
            ..Snapshot::clone(empty)
        });
        shared.measure(UnixTime::from_secs(0));
        Self {
            shared: Arc::new(shared),
            wishes: None,
        }
    }

    /// A handle on a set that a refresher keeps, and what that refresher needs.
    pub(super) fn refreshed(
        issuer: Issuer,
        policy: &RefreshPolicy,
    ) -> (Self, Arc<Shared>, watch::Receiver<Wishes>) {
        let shared = Arc::new(Shared::new(issuer, policy));
        shared.measure(UnixTime::from_secs(0));
        let (wishes, heard) = watch::channel(Wishes::default());
        (
            Self {
                shared: Arc::clone(&shared),
                wishes: Some(wishes),
            },
            shared,
            heard,
        )
    }

    /// The snapshot of this moment. Takes no lock.
    pub(crate) fn load(&self) -> Guard<Arc<Snapshot>> {
        self.shared.snapshot.load()
    }

    /// Whether a verdict of this epoch holds, as far as the keys are concerned. If not, the
    /// snapshot has to be asked.
    pub(crate) fn holds(&self, epoch: u64, now: UnixTime) -> bool {
        self.shared.snapshot.holds(epoch, now)
    }

    /// Whether this `kid` was looked for in vain lately, and the set has not changed since.
    pub(crate) fn is_known_miss(&self, kid: &str, snapshot: &Snapshot, now: UnixTime) -> bool {
        let known = self.shared.misses.knows(kid, snapshot.generation, now);
        if known {
            self.shared
                .negative_cache_hits
                .fetch_add(1, Ordering::Relaxed);
            self.shared.negative_hits_counter.increment();
        }
        known
    }

    /// Asks for a newer set and returns a bounded wait for the outcome; `None` if nothing will be
    /// fetched for it, or too many wait already.
    pub(crate) fn demand(&self, why: Demand<'_>) -> Option<Wait> {
        let cause = match why {
            Demand::BadSignature => RefreshCause::InvalidSignature,
            Demand::UnknownKey(..) => RefreshCause::UnknownKey,
        };
        let wishes = self.wishes.as_ref().filter(|wishes| !wishes.is_closed())?;
        // Asked first, and of an atomic: what comes after a flood has spent the budget costs no
        // more.
        if !self.shared.gate.load().is_open(cause, timer::now()) {
            return None;
        }
        let seat = Seat::take(&self.shared)?;
        let wishes = wishes.clone();
        let mut progress = self.shared.progress.subscribe();
        let begun = progress.borrow().begun;
        self.shared.waits.fetch_add(1, Ordering::Relaxed);
        self.shared.waits_counter.increment();
        let unknown_key = match why {
            Demand::BadSignature => None,
            Demand::UnknownKey(kid, now) => Some((Box::<str>::from(kid), now)),
        };
        let wait = async move {
            let Seat(shared) = &seat;
            let is_hopeless =
                |gate: &Gate| !(gate.is_fetching || gate.is_open(cause, timer::now()));
            // A fetch that is under way may have read the set before the key was in it: it is
            // waited for, and counts only if it brought a missing key.
            let has_waited = progress.borrow().ended < begun;
            let _ = progress.wait_for(|progress| progress.ended >= begun).await;
            let has_key = |(kid, _): &(Box<str>, UnixTime)| shared.snapshot.load().has_kid(kid);
            if unknown_key.as_ref().is_some_and(has_key) || is_hopeless(&shared.gate.load()) {
                return;
            }
            wishes.send_modify(|wishes| {
                match cause {
                    RefreshCause::InvalidSignature => wishes.bad_signature += 1,
                    _ => wishes.unknown_key += 1,
                }
                wishes.after_a_fetch += u64::from(has_waited);
            });
            let is_over =
                |progress: &Progress| progress.ended > begun || is_hopeless(&shared.gate.load());
            let _ = progress.wait_for(is_over).await;
            // Looked for in vain is only what a fetch looked for: one that began after this wait
            // and went well. A set that has the key is never asked for a miss.
            if let (Some((kid, now)), true) = (unknown_key, progress.borrow().went_well > begun) {
                shared
                    .misses
                    .note(&kid, shared.snapshot.load().generation, now);
            }
        };
        let limit = self.shared.wait;
        Some(Wait(Box::pin(async move {
            let _elapsed = tokio::time::timeout(limit, wait).await;
        })))
    }

    /// Whether the issuer gives the same `kid` to new keys.
    pub(crate) fn refreshes_on_invalid_signature(&self) -> bool {
        self.shared.refresh_on_invalid_signature
    }

    /// Revokes a `kid`, and under every `kid` the keys that it names now, whatever the issuer
    /// publishes.
    pub(crate) fn revoke(&self, kid: &str) {
        self.shared.snapshot.change(|current| {
            let with_key = |revoked: &Arc<RevokedKeys>| {
                revoked.with(|revoked| {
                    revoked.insert_kid(kid);
                    let named = current.keys.iter().flat_map(|keys| keys.named(kid));
                    named.for_each(|key| revoked.insert(key));
                })
            };
            Snapshot {
                revoked: with_key(&current.revoked),
                revoked_for_good: with_key(&current.revoked_for_good),
                epoch: current.epoch + 1,
                ..Snapshot::clone(current)
            }
        });
    }

    /// Has the set fetched at once, whether or not the outcome is then waited for. It is that of a
    /// fetch which began after this call. At once `Ok` for a fixed set.
    pub(crate) fn refresh_keys(&self) -> impl Future<Output = Result<(), Error>> + use<> {
        let too_late = || Error::new(Operation::JwksFetch, ErrorKind::Timeout);
        let asked = self.wishes.as_ref().map(|wishes| {
            let progress = self.shared.progress.subscribe();
            let begun = progress.borrow().begun;
            wishes.send_modify(|wishes| wishes.asked += 1);
            (progress, begun)
        });
        let wishes = self.wishes.clone();
        let answer = tokio::time::timeout(self.shared.patience, async move {
            let (Some((mut progress, begun)), Some(wishes)) = (asked, wishes) else {
                return Ok(());
            };
            tokio::select! {
                biased;
                answered = progress.wait_for(|progress| progress.asked.0 > begun) => match answered {
                    Ok(progress) => progress.asked.1.clone().map_or(Ok(()), Err),
                    Err(_gone) => Err(too_late()),
                },
                () = wishes.closed() => {
                    Err(too_late().with_source("the task that refreshes the key set has stopped"))
                }
            }
        });
        async move { answer.await.unwrap_or_else(|_elapsed| Err(too_late())) }
    }

    /// Waits until there is a usable set, or until none can come because the refresher is gone.
    pub(crate) async fn wait_until_usable(&self, now: impl Fn() -> UnixTime) {
        let mut progress = self.shared.progress.subscribe();
        let Some(wishes) = &self.wishes else { return };
        while self.load().usable(now()).is_none() {
            tokio::select! {
                changed = progress.changed() => if changed.is_err() { return },
                () = wishes.closed() => return,
            }
        }
    }

    pub(crate) fn status(&self, now: UnixTime) -> KeySetStatus {
        let snapshot = self.load();
        let keys = snapshot.usable(now);
        let progress = self.shared.progress.borrow().clone();
        let is_refresher_stopped = self.wishes.as_ref().is_some_and(watch::Sender::is_closed);
        let state = match keys {
            Some(_) if progress.is_well() && !is_refresher_stopped => KeySetState::Healthy,
            Some(_) => KeySetState::Degraded,
            None if snapshot.generation == 0 => KeySetState::Starting,
            None => KeySetState::Stale,
        };
        KeySetStatus {
            issuer: self.shared.issuer.clone(),
            state,
            generation: snapshot.generation,
            keys: keys.cloned(),
            is_refresher_stopped,
            age: keys
                .filter(|_| self.wishes.is_some())
                .map(|_| now.saturating_since(snapshot.fetched_at)),
            next_attempt: progress
                .next_attempt
                .filter(|_| !is_refresher_stopped)
                .map(|at| at.saturating_duration_since(timer::now())),
            progress,
            waits: self.shared.waits.load(Ordering::Relaxed),
            negative_cache_hits: self.shared.negative_cache_hits.load(Ordering::Relaxed),
        }
    }
}

impl Shared {
    fn new(issuer: Issuer, policy: &RefreshPolicy) -> Self {
        let counter = |name| Counter::new(name, ("issuer", issuer.as_str()));
        Self {
            waits_counter: counter(metrics::JWKS_REFRESH_WAITS),
            negative_hits_counter: counter(metrics::JWKS_NEGATIVE_CACHE_HITS),
            gate: ArcSwap::default(),
            issuer,
            snapshot: Current::new(),
            progress: watch::Sender::new(Progress::default()),
            misses: Misses::new(),
            waiters: AtomicUsize::new(0),
            waits: AtomicU64::new(0),
            negative_cache_hits: AtomicU64::new(0),
            wait: policy.demand_wait,
            max_waiters: policy.max_waiters,
            refresh_on_invalid_signature: policy.refresh_on_invalid_signature,
            patience: policy
                .fetch_timeout
                .saturating_mul(2)
                .saturating_add(Duration::from_secs(1)),
        }
    }

    fn labels(&self) -> [(&'static str, &str); 1] {
        [("issuer", self.issuer.as_str())]
    }

    /// Sets the gauges of the set in place, as far as it is usable.
    fn measure(&self, now: UnixTime) {
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

    /// Puts a set in place: a new one, or the last one found to be still the issuer's.
    pub(super) fn publish(
        &self,
        keys: Option<&KeySet>,
        fetched_at: UnixTime,
        max_stale: Duration,
        now: UnixTime,
    ) {
        self.snapshot.change(|current| {
            let mut revoked = Arc::clone(&current.revoked_for_good);
            if let Some(compromised) = keys
                .map(|keys| &keys.0.compromised)
                .filter(|keys| !keys.is_empty())
            {
                revoked =
                    revoked.with(|all| compromised.revoke_materials(current.keys.as_ref(), all));
            }
            Snapshot {
                generation: current.generation + u64::from(keys.is_some()),
                epoch: current.epoch + u64::from(keys.is_some()),
                keys: keys.cloned().or_else(|| current.keys.clone()),
                fetched_at,
                usable_until: fetched_at.saturating_add(max_stale),
                revoked: Arc::clone(&revoked),
                revoked_for_good: revoked,
            }
        });
        self.measure(now);
    }

    /// Revokes keys whose private part was published beside no usable key: their public keys for
    /// good, and their `kid`s until the issuer publishes a usable set. Returns whether one of them
    /// has no `kid` and no other key is left.
    pub(super) fn revoke_compromised(&self, compromised: &CompromisedKeys) -> bool {
        self.snapshot.change(|current| {
            let (keys, for_good) = (current.keys.as_ref(), &current.revoked_for_good);
            let revoked_for_good = for_good.with(|all| compromised.revoke_materials(keys, all));
            let revoked = current.revoked.with(|all| {
                compromised.revoke_materials(keys, all);
                compromised.revoke_kids(keys, all);
            });
            Snapshot {
                revoked,
                revoked_for_good,
                epoch: current.epoch + 1,
                ..Snapshot::clone(current)
            }
        });
        let snapshot = self.snapshot.load();
        snapshot.keys.as_ref().is_some_and(|keys| {
            compromised.contains_unnamed(keys) && !keys.has_unrevoked(&snapshot.revoked)
        })
    }

    pub(super) fn sound_alarm(&self) {
        crate::trace::warn!(
            target: "tower_oauth::key_set",
            issuer = %self.issuer,
            "the issuer publishes a private key: whoever read it can make its tokens"
        );
    }

    /// Gives the set up as too old. It is kept: the issuer may say that it is still the one.
    pub(super) fn give_up(&self, now: UnixTime, schedule: &Schedule) {
        self.snapshot.change(|current| Snapshot {
            usable_until: UnixTime::from_secs(0),
            epoch: current.epoch + 1,
            ..Snapshot::clone(current)
        });
        self.measure(now);
        self.progress
            .send_modify(|progress| progress.next_attempt = Some(schedule.next()));
    }

    /// For how long the set in hand is trusted by the wall clock.
    pub(super) fn trusted_for(&self, now: UnixTime) -> Duration {
        self.snapshot.load().usable_until.saturating_since(now)
    }

    /// Notes that a fetch begins. Nobody waits for that.
    pub(super) fn begin_refresh(&self, schedule: &Schedule) {
        self.gate.store(Arc::new(Gate {
            budget: Some(schedule.budget()),
            is_fetching: true,
        }));
        self.progress.send_if_modified(|progress| {
            progress.begun += 1;
            false
        });
    }

    /// Notes how a refresh went and wakes those who wait for it.
    pub(super) fn end_refresh(
        &self,
        cause: RefreshCause,
        outcome: Result<(), Error>,
        metadata_error: Option<&Error>,
        schedule: &Schedule,
    ) {
        let issuer = self.issuer.as_str();
        let (told, error) = match &outcome {
            Ok(()) => ("success", "none"),
            Err(error) => ("failure", error.kind().as_str()),
        };
        metrics::count(
            metrics::REFRESHES,
            &[
                ("issuer", issuer),
                ("cause", cause.as_str()),
                ("outcome", told),
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
        // Before those who wait are woken: they look at it.
        self.gate.store(Arc::new(Gate {
            budget: Some(schedule.budget()),
            is_fetching: false,
        }));
        self.progress.send_modify(|progress| {
            progress.metadata_error = metadata_error.cloned();
            progress.end(cause, outcome, schedule);
        });
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
