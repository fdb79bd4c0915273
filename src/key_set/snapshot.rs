//! An immutable snapshot of a key set, and the cell that publishes it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::{ArcSwap, Guard};

use super::revoked::RevokedKeys;
use super::set::KeySet;
use crate::clock::UnixTime;
use crate::jwt::Fingerprint;

/// The keys and revocations of an issuer at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    pub(super) keys: Option<KeySet>,
    pub(super) generation: u64,
    /// Incremented by every change that may invalidate cached tokens.
    pub(super) key_set_version: u64,
    pub(super) fetched_at: UnixTime,
    /// Wall-clock time, which advances while the machine sleeps.
    pub(super) usable_until: UnixTime,
    /// The keys that are not used now: `revoked_for_good`, and the `kid`s of compromised keys in a
    /// document that was published after this set.
    pub(super) revoked: Arc<RevokedKeys>,
    /// Revoked for the life of the process: by the program, or because the private part was
    /// published.
    pub(super) revoked_for_good: Arc<RevokedKeys>,
}

impl Snapshot {
    /// The keys that are not used now.
    pub(crate) fn revoked(&self) -> &RevokedKeys {
        &self.revoked
    }

    pub(crate) fn key_set_version(&self) -> u64 {
        self.key_set_version
    }

    /// Whether the key that verified a token is still published under the same `kid`.
    pub(crate) fn is_key_published(&self, key: Fingerprint) -> bool {
        self.keys
            .as_ref()
            .is_some_and(|keys| keys.contains_key(key, &self.revoked))
    }

    /// Whether the set has a usable key with this `kid`.
    pub(super) fn has_kid(&self, kid: &str) -> bool {
        self.keys.as_ref().is_some_and(|keys| keys.has_kid(kid))
    }

    /// The keys, if there are any and they are not too old.
    pub(crate) fn usable(&self, now: UnixTime) -> Option<&KeySet> {
        self.keys.as_ref().filter(|_| now <= self.usable_until)
    }
}

/// Publishes snapshots. An update takes a lock, a load does not.
#[derive(Debug)]
pub(super) struct SnapshotCell {
    version: VersionCell,
    snapshot: ArcSwap<Snapshot>,
    update_lock: Mutex<()>,
}

/// Checks a cached entry without loading the `ArcSwap`, whose guard costs two atomic
/// read-modify-write operations. Each of them waits for all earlier memory accesses of the request.
#[derive(Debug, Default)]
#[repr(align(64))]
struct VersionCell {
    key_set_version: AtomicU64,
    usable_until: AtomicU64,
}

impl SnapshotCell {
    /// A cell without keys.
    pub(super) fn new() -> Self {
        let empty = Snapshot {
            keys: None,
            generation: 0,
            key_set_version: 0,
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

    /// Whether the keys are usable, and nothing that may invalidate cached tokens has changed
    /// since this version.
    pub(super) fn is_version_current(&self, key_set_version: u64, now: UnixTime) -> bool {
        now.as_secs() <= self.version.usable_until.load(Ordering::Acquire)
            && key_set_version == self.version.key_set_version.load(Ordering::Acquire)
    }

    /// Replaces the snapshot by a changed copy.
    pub(super) fn update(&self, change: impl FnOnce(&Snapshot) -> Snapshot) {
        let _guard = self
            .update_lock
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let next = change(&self.snapshot.load());
        let (key_set_version, usable_until) = (next.key_set_version, next.usable_until.as_secs());
        self.snapshot.store(Arc::new(next));
        // Store `key_set_version` before `usable_until`: a reader that sees the new time is
        // guaranteed to see the new version, because it loads them in the opposite order.
        self.version
            .key_set_version
            .store(key_set_version, Ordering::Release);
        self.version
            .usable_until
            .store(usable_until, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stale_version_is_never_accepted_during_concurrent_publish() {
        const LAST: u64 = 200_000;
        let cell = SnapshotCell::new();
        let publish = |number: u64| {
            let usable_until = UnixTime::from_secs(number);
            cell.update(|previous| Snapshot {
                key_set_version: number,
                usable_until,
                ..previous.clone()
            });
        };
        publish(1);
        assert!(cell.is_version_current(1, UnixTime::from_secs(1)));
        assert!(
            !cell.is_version_current(1, UnixTime::from_secs(2)),
            "too old"
        );
        assert!(
            !cell.is_version_current(0, UnixTime::from_secs(1)),
            "older key_set_version"
        );
        std::thread::scope(|scope| {
            scope.spawn(|| (2..=LAST).for_each(publish));
            loop {
                let key_set_version = cell.load().key_set_version();
                for old in key_set_version.saturating_sub(1)..=key_set_version {
                    assert!(!cell.is_version_current(old, UnixTime::from_secs(old + 1)));
                }
                if key_set_version == LAST {
                    break;
                }
            }
        });
    }
}
