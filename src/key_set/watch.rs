//! What requests see of a key set: an immutable snapshot, and a bounded wait for a newer one.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use tokio::sync::{mpsc, watch};

use super::misses::Misses;
use super::{KeySet, RefreshPolicy, Revoked, SkipReason};
use crate::clock::UnixTime;
use crate::error::{Error, ErrorKind, Operation};
use crate::oauth::Issuer;

/// The keys at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    keys: Option<KeySet>,
    generation: u64,
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
    demand: Option<mpsc::Sender<()>>,
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
    /// A refresh was asked for, whatever the budget.
    asked: AtomicBool,
    wait: Duration,
    max_waiters: usize,
    /// For a fetch that is under way, and one more.
    patience: Duration,
}

/// How fetching is going.
#[derive(Clone, Debug, Default)]
pub(super) struct Progress {
    pub(super) succeeded: u64,
    pub(super) failed: u64,
    /// Rounds that were asked for, whatever came of them.
    pub(super) asked: u64,
    pub(super) failures_in_a_row: u32,
    pub(super) last_error: Option<Error>,
}

impl KeySetHandle {
    /// A handle on a set that never changes.
    pub(crate) fn fixed(issuer: Issuer, keys: KeySet) -> Self {
        let shared = Shared::new(issuer, &RefreshPolicy::new());
        shared.snapshot.store(Arc::new(Snapshot {
            keys: Some(keys),
            generation: 1,
            fetched_at: UnixTime::from_secs(0),
            usable_until: UnixTime::from_secs(u64::MAX),
            revoked: Arc::default(),
        }));
        Self { shared: Arc::new(shared), demand: None }
    }

    /// A handle on a set that a refresher keeps, and what that refresher needs.
    pub(super) fn refreshed(
        issuer: Issuer,
        policy: &RefreshPolicy,
    ) -> (Self, Arc<Shared>, mpsc::Receiver<()>) {
        let shared = Arc::new(Shared::new(issuer, policy));
        let (demand, demands) = mpsc::channel(1);
        (Self { shared: Arc::clone(&shared), demand: Some(demand) }, shared, demands)
    }

    /// The snapshot of this moment. Takes no lock.
    pub(crate) fn load(&self) -> Guard<Arc<Snapshot>> {
        self.shared.snapshot.load()
    }

    /// Whether this `kid` was looked for in vain lately, and the set has not changed since.
    pub(crate) fn is_known_miss(&self, kid: &str, snapshot: &Snapshot, now: UnixTime) -> bool {
        self.shared.misses.knows(kid, snapshot.generation, now)
    }

    /// Notes that a refresh was waited for, and this `kid` is still not there.
    pub(crate) fn note_miss(&self, kid: &str, snapshot: &Snapshot, now: UnixTime) {
        self.shared.misses.note(kid, snapshot.generation, now);
    }

    /// Asks for a newer set and returns a bounded wait for the outcome; `None` if waiting
    /// is pointless or too many wait already.
    pub(crate) fn demand(&self) -> Option<Wait> {
        let demand = self.demand.as_ref()?;
        let seat = Seat::take(&self.shared)?;
        // Subscribed before ringing, so that the answer cannot slip through between.
        let mut rounds = self.shared.rounds.subscribe();
        if let Err(mpsc::error::TrySendError::Closed(())) = demand.try_send(()) {
            return None;
        }
        let limit = self.shared.wait;
        Some(Wait(Box::pin(async move {
            let _seat = seat;
            let _in_time = tokio::time::timeout(limit, rounds.changed()).await;
        })))
    }

    /// Counts a key as withdrawn from now on, whatever the issuer publishes.
    pub(crate) fn revoke(&self, kid: &str) {
        self.shared.snapshot.rcu(|current| {
            let mut revoked = Revoked::clone(&current.revoked);
            revoked.insert(kid.into());
            Snapshot { revoked: Arc::new(revoked), ..Snapshot::clone(current) }
        });
    }

    /// Has the set fetched at once, and waits for the outcome. At once `Ok` for a fixed set.
    pub(crate) async fn refresh_now(&self) -> Result<(), Error> {
        let Some(demand) = &self.demand else { return Ok(()) };
        let mut rounds = self.shared.rounds.subscribe();
        let before = self.shared.progress.load().asked;
        self.shared.asked.store(true, Ordering::Release);
        let _the_refresher_is_awake_already = demand.try_send(());
        let ended =
            async { while self.shared.progress.load().asked == before && rounds.changed().await.is_ok() {} };
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
        let progress = self.shared.progress.load();
        let keys = snapshot.usable(now);
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
            usable_keys: keys.map_or(0, KeySet::len),
            skipped: keys.map_or_else(Vec::new, |keys| {
                keys.skipped().map(|(kid, reason)| (kid.map(str::to_owned), reason)).collect()
            }),
            age: keys.filter(|_| self.demand.is_some()).map(|_| now.saturating_since(snapshot.fetched_at)),
            progress: Progress::clone(&progress),
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
                fetched_at: UnixTime::from_secs(0),
                usable_until: UnixTime::from_secs(0),
                revoked: Arc::default(),
            }),
            progress: ArcSwap::default(),
            misses: Misses::new(),
            rounds: watch::Sender::new(0),
            waiters: AtomicUsize::new(0),
            asked: AtomicBool::new(false),
            wait: policy.demand_wait,
            max_waiters: policy.max_waiters,
            patience: policy.fetch_timeout.saturating_mul(2).saturating_add(Duration::from_secs(1)),
        }
    }

    /// Puts a set in place: a new one, or the same one found to be still the issuer's.
    pub(super) fn publish(&self, keys: Option<&KeySet>, now: UnixTime, max_stale: Duration) {
        // Not a plain store: a key may be revoked at the same moment.
        self.snapshot.rcu(|current| Snapshot {
            generation: current.generation + u64::from(keys.is_some()),
            keys: keys.cloned().or_else(|| current.keys.clone()),
            fetched_at: now,
            usable_until: now.saturating_add(max_stale),
            revoked: Arc::clone(&current.revoked),
        });
    }

    /// Gives the set up as too old.
    pub(super) fn give_up(&self) {
        self.snapshot.rcu(|current| Snapshot { keys: None, ..Snapshot::clone(current) });
    }

    /// Whether a refresh was asked for since the last look.
    pub(super) fn take_asked(&self) -> bool {
        self.asked.swap(false, Ordering::AcqRel)
    }

    /// Notes how a round went and wakes those who wait for it.
    pub(super) fn end_round(&self, change: impl FnOnce(&mut Progress)) {
        let mut progress = Progress::clone(&self.progress.load());
        change(&mut progress);
        self.progress.store(Arc::new(progress));
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

/// How the key set of an issuer is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KeySetState {
    /// The last refresh failed; the last good set is in use.
    Degraded,
    /// The last refresh succeeded, or the set is fixed.
    Healthy,
    /// The last good set is too old. Requests are answered 503.
    Stale,
    /// There has been no set yet. Requests are answered 503.
    Starting,
}

impl KeySetState {
    /// A stable name for logs and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Degraded => "degraded",
            Self::Healthy => "healthy",
            Self::Stale => "stale",
            Self::Starting => "starting",
        }
    }

    /// Whether tokens can be judged.
    #[must_use]
    pub fn is_usable(self) -> bool {
        matches!(self, Self::Degraded | Self::Healthy)
    }
}

/// The key set of one issuer, as seen for readiness and metrics.
#[derive(Clone, Debug)]
pub struct KeySetStatus {
    issuer: Issuer,
    state: KeySetState,
    generation: u64,
    usable_keys: usize,
    skipped: Vec<(Option<String>, SkipReason)>,
    age: Option<Duration>,
    progress: Progress,
}

impl KeySetStatus {
    /// Whose keys these are.
    #[must_use]
    pub fn issuer(&self) -> &Issuer {
        &self.issuer
    }

    /// Whether tokens can be judged, and whether refreshing works.
    #[must_use]
    pub fn state(&self) -> KeySetState {
        self.state
    }

    /// Counts the different sets that there have been.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The number of keys that can verify signatures now.
    #[must_use]
    pub fn usable_keys(&self) -> usize {
        self.usable_keys
    }

    /// The members of the set that were skipped: `kid` where it could be read, and the reason.
    pub fn skipped(&self) -> impl Iterator<Item = (Option<&str>, SkipReason)> {
        self.skipped.iter().map(|(kid, reason)| (kid.as_deref(), *reason))
    }

    /// The time since the last successful refresh; `None` without a usable set or with a fixed one.
    #[must_use]
    pub fn age(&self) -> Option<Duration> {
        self.age
    }

    /// Why the last refresh failed; `None` if it did not.
    #[must_use]
    pub fn last_error(&self) -> Option<&Error> {
        self.progress.last_error.as_ref()
    }

    /// How many refreshes have failed since the last good one.
    #[must_use]
    pub fn consecutive_failures(&self) -> u32 {
        self.progress.failures_in_a_row
    }

    /// How many refreshes have succeeded.
    #[must_use]
    pub fn refreshes_succeeded(&self) -> u64 {
        self.progress.succeeded
    }

    /// How many refreshes have failed.
    #[must_use]
    pub fn refreshes_failed(&self) -> u64 {
        self.progress.failed
    }
}
