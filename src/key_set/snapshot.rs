//! The keys at one moment, and which moment it is.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::{ArcSwap, Guard};

use super::{KeySet, RevokedKeys};
use crate::clock::UnixTime;
use crate::jwt::Fingerprint;

/// The keys at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    pub(super) keys: Option<KeySet>,
    pub(super) generation: u64,
    /// Changes with everything that may make a verdict of before a wrong one now.
    pub(super) epoch: u64,
    pub(super) fetched_at: UnixTime,
    /// Wall time, so that a machine that slept does not trust what it slept over.
    pub(super) usable_until: UnixTime,
    /// The keys that are not used now: those revoked for good, and the `kid`s of the private keys
    /// in a document that was published since this set.
    pub(super) revoked: Arc<RevokedKeys>,
    /// Revoked by the program, or because the private part was published, for the life of the
    /// process.
    pub(super) revoked_for_good: Arc<RevokedKeys>,
}

impl Snapshot {
    /// The keys that are not used.
    pub(crate) fn revoked(&self) -> &RevokedKeys {
        &self.revoked
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Whether a token with a `kid` that this key verified would meet the very same key today.
    pub(crate) fn still_has(&self, key: Fingerprint) -> bool {
        self.keys
            .as_ref()
            .is_some_and(|keys| keys.contains_key(key, &self.revoked))
    }

    /// Whether a usable key of the set has this `kid`.
    pub(super) fn has_kid(&self, kid: &str) -> bool {
        self.keys.as_ref().is_some_and(|keys| keys.has_kid(kid))
    }

    /// The keys, unless there are none or they are too old.
    pub(crate) fn usable(&self, now: UnixTime) -> Option<&KeySet> {
        self.keys.as_ref().filter(|_| now <= self.usable_until)
    }
}

/// The snapshot of this moment. Who changes it takes a lock; requests take none.
#[derive(Debug)]
pub(super) struct SnapshotCell {
    version: VersionCell,
    snapshot: ArcSwap<Snapshot>,
    update_lock: Mutex<()>,
}

/// Whether a verdict of before holds, without a hold on the snapshot: that takes two atomic
/// exchanges, and each of them waits for all memory that the request has touched so far.
#[derive(Debug, Default)]
#[repr(align(64))]
struct VersionCell {
    epoch: AtomicU64,
    usable_until: AtomicU64,
}

impl SnapshotCell {
    /// Without keys.
    pub(super) fn new() -> Self {
        let empty = Snapshot {
            keys: None,
            generation: 0,
            epoch: 0,
            fetched_at: UnixTime::from_secs(0),
            usable_until: UnixTime::from_secs(0),
            revoked: Arc::default(),
            revoked_for_good: Arc::default(),
        };
        Self {
            version: VersionCell::default(),
            snapshot: ArcSwap::from_pointee(empty),
            update_lock: Mutex::default(),
        }
    }

    pub(super) fn load(&self) -> Guard<Arc<Snapshot>> {
        self.snapshot.load()
    }

    /// Whether the keys are usable, and nothing has changed since this epoch that may make a
    /// verdict a wrong one.
    pub(super) fn is_current(&self, epoch: u64, now: UnixTime) -> bool {
        now.as_secs() <= self.version.usable_until.load(Ordering::Acquire)
            && epoch == self.version.epoch.load(Ordering::Acquire)
    }

    /// Puts another snapshot in place.
    pub(super) fn update(&self, change: impl FnOnce(&Snapshot) -> Snapshot) {
        let _guard = self
            .update_lock
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let next = change(&self.snapshot.load());
        let (epoch, usable_until) = (next.epoch, next.usable_until.as_secs());
        self.snapshot.store(Arc::new(next));
        // In this order: who has read the new time, which is read first, reads the new epoch.
        self.version.epoch.store(epoch, Ordering::Release);
        self.version
            .usable_until
            .store(usable_until, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_verdict_of_before_is_as_young_as_the_set_of_now() {
        const LAST: u64 = 200_000;
        let current = SnapshotCell::new();
        let put = |number: u64| {
            let usable_until = UnixTime::from_secs(number);
            current.update(|before| Snapshot {
                epoch: number,
                usable_until,
                ..before.clone()
            });
        };
        put(1);
        assert!(current.is_current(1, UnixTime::from_secs(1)));
        assert!(
            !current.is_current(1, UnixTime::from_secs(2)),
            "it is too old"
        );
        assert!(
            !current.is_current(0, UnixTime::from_secs(1)),
            "it is of before"
        );
        std::thread::scope(|scope| {
            scope.spawn(|| (2..=LAST).for_each(put));
            loop {
                let epoch = current.load().epoch();
                for of_then in epoch.saturating_sub(1)..=epoch {
                    assert!(!current.is_current(of_then, UnixTime::from_secs(of_then + 1)));
                }
                if epoch == LAST {
                    break;
                }
            }
        });
    }
}
