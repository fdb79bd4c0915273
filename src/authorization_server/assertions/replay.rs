//! The assertions that were used and are still valid, by their `jti` (RFC 7523 §3).
//!
//! They are kept in memory until they expire. After a restart, an assertion that is still valid can
//! be used once more. An application that has too many gets no more accepted: to forget one would
//! let it be used again.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::super::sha256::{Hash, sha256};
use crate::clock::UnixTime;

/// How many valid assertions of one application are remembered: 48 bytes each.
const MAX_PER_CLIENT: usize = 10_000;

/// How often expired assertions of all applications are removed.
const PURGE_INTERVAL: Duration = Duration::from_secs(60);

/// The used assertions. Only those with a valid signature are inserted.
#[derive(Debug, Default)]
pub(in super::super) struct ReplayCache(Mutex<Entries>);

#[derive(Debug, Default)]
struct Entries {
    /// By client id, then by the SHA-256 hash of `jti`, whose size does not depend on the length
    /// of the `jti`, with their `exp`.
    clients: HashMap<String, HashMap<Hash, UnixTime>>,
    next_purge: Option<UnixTime>,
}

/// Why an assertion was not inserted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReplayError {
    Seen,
    /// Too many assertions of the client are still valid.
    Full,
}

impl ReplayCache {
    /// Inserts an assertion of a client that expires at `expires_at`.
    pub(super) fn insert(
        &self,
        client_id: &str,
        id: &str,
        expires_at: UnixTime,
        now: UnixTime,
    ) -> Result<(), ReplayError> {
        // An id without an insertion has no effect, so a poisoned state is consistent.
        let entries = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.next_purge.is_none_or(|due| now >= due) {
            entries.clients.retain(|_, ids| {
                ids.retain(|_, expires_at| now < *expires_at);
                !ids.is_empty()
            });
            entries.next_purge = Some(now.saturating_add(PURGE_INTERVAL));
        }
        let ids = entries.clients.entry(client_id.to_owned()).or_default();
        if ids.len() >= MAX_PER_CLIENT {
            ids.retain(|_, expires_at| now < *expires_at);
        }
        let has_room = ids.len() < MAX_PER_CLIENT;
        match ids.entry(sha256(id.as_bytes())) {
            Entry::Occupied(entry) if now < *entry.get() => Err(ReplayError::Seen),
            Entry::Occupied(mut entry) => {
                entry.insert(expires_at);
                Ok(())
            }
            Entry::Vacant(_) if !has_room => Err(ReplayError::Full),
            Entry::Vacant(entry) => {
                entry.insert(expires_at);
                Ok(())
            }
        }
    }
}
