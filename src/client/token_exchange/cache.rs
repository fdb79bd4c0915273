//! The tokens that were exchanged, and the failures of the last second. Does no I/O and reads no
//! clock.

use std::collections::HashMap;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, SHA256_OUTPUT_LEN, digest};

use super::super::state::MIN_INVALIDATION_INTERVAL;
use super::super::token_source::is_transient;
use super::AccessToken;
use crate::clock::UnixTime;
use crate::error::Error;
use crate::inbound_token::InboundToken;

/// For how long a permanent failure is the result of further calls.
const FAILURE_LIFETIME: Duration = Duration::from_secs(1);

/// Stands for a subject token: its SHA-256 hash.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct SubjectKey([u8; SHA256_OUTPUT_LEN]);

/// The result of an exchange, and when it is used.
pub(super) struct CachedResult {
    result: Result<AccessToken, Error>,
    obtained_at: UnixTime,
    expires_at: UnixTime,
}

/// A bounded number of results.
pub(super) struct ExchangeCache {
    results: HashMap<SubjectKey, CachedResult>,
    max: usize,
    /// No result expires before this.
    earliest_expiry: UnixTime,
}

impl SubjectKey {
    pub(super) fn new(subject: &InboundToken) -> Self {
        let hash = digest(&SHA256, subject.expose_secret().as_bytes());
        let mut key = [0; SHA256_OUTPUT_LEN];
        key.copy_from_slice(hash.as_ref());
        Self(key)
    }
}

impl CachedResult {
    /// The result of an exchange that ended at `now`: a token that is used until a time, but not
    /// beyond the expiry of its subject token, or an error.
    pub(super) fn new(
        result: Result<(AccessToken, UnixTime), Error>,
        subject_expires_at: UnixTime,
        now: UnixTime,
    ) -> Self {
        let expires_at = match &result {
            Ok((_, usable_until)) => (*usable_until).min(subject_expires_at),
            Err(error) if is_transient(error) => now,
            Err(_) => now.saturating_add(FAILURE_LIFETIME),
        };
        Self {
            result: result.map(|(token, _)| token),
            obtained_at: now,
            expires_at,
        }
    }

    pub(super) fn result(&self) -> &Result<AccessToken, Error> {
        &self.result
    }

    /// Not before it was obtained either: the clock was set back then.
    fn is_current(&self, now: UnixTime) -> bool {
        self.obtained_at <= now && now < self.expires_at
    }
}

impl ExchangeCache {
    pub(super) fn new(max: usize) -> Self {
        Self {
            results: HashMap::new(),
            max,
            earliest_expiry: UnixTime::from_secs(u64::MAX),
        }
    }

    pub(super) fn get(
        &mut self,
        key: &SubjectKey,
        now: UnixTime,
    ) -> Option<Result<AccessToken, Error>> {
        self.remove_expired(now);
        let cached = self.results.get(key)?;
        cached.is_current(now).then(|| cached.result.clone())
    }

    /// Inserts a result, in place of another one with this key. If the cache is full, the result
    /// that would expire first is removed.
    pub(super) fn insert(&mut self, key: SubjectKey, cached: CachedResult) {
        let now = cached.obtained_at;
        self.remove_expired(now);
        self.results.remove(&key);
        if !cached.is_current(now) || self.max == 0 {
            return;
        }
        if self.results.len() >= self.max {
            let first = self
                .results
                .iter()
                .min_by_key(|(_, cached)| cached.expires_at);
            if let Some(first) = first.map(|(key, _)| *key) {
                self.results.remove(&first);
            }
        }
        self.earliest_expiry = self.earliest_expiry.min(cached.expires_at);
        self.results.insert(key, cached);
    }

    /// A resource server rejected this token. Returns whether another one may be obtained.
    pub(super) fn invalidate(
        &mut self,
        key: &SubjectKey,
        token: &AccessToken,
        now: UnixTime,
    ) -> bool {
        self.remove_expired(now);
        let Some(cached) = self.results.get(key) else {
            return true;
        };
        match &cached.result {
            Ok(current) if current.is(token) => {
                let is_old = now.saturating_since(cached.obtained_at) >= MIN_INVALIDATION_INTERVAL;
                if is_old {
                    self.results.remove(key);
                }
                is_old
            }
            Ok(_) => true,
            Err(_) => false,
        }
    }

    pub(super) fn token_count(&mut self, now: UnixTime) -> usize {
        self.remove_expired(now);
        let results = self.results.values();
        results.filter(|cached| cached.result.is_ok()).count()
    }

    /// Removes what has expired. Looks at all results at most once a second.
    fn remove_expired(&mut self, now: UnixTime) {
        if now < self.earliest_expiry {
            return;
        }
        self.results.retain(|_, cached| now < cached.expires_at);
        let expiries = self.results.values().map(|cached| cached.expires_at);
        self.earliest_expiry = expiries.min().unwrap_or(UnixTime::from_secs(u64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::token_response::TokenResponse;
    use super::*;

    const NOW: UnixTime = UnixTime::from_secs(1_700_000_000);
    const MINUTE: Duration = Duration::from_secs(60);

    fn key(subject: &str) -> SubjectKey {
        SubjectKey::new(&InboundToken::new(subject, NOW))
    }

    /// A token that was obtained now.
    fn cached(lifetime: Duration) -> CachedResult {
        let response = TokenResponse::new("t").unwrap();
        let token = AccessToken::new(response, Some(lifetime), NOW);
        let end = NOW.saturating_add(lifetime);
        CachedResult::new(Ok((token, end)), end, NOW)
    }

    #[test]
    fn a_result_is_not_used_before_it_was_obtained() {
        let mut cache = ExchangeCache::new(10);
        cache.insert(key("alice"), cached(MINUTE));
        assert!(cache.get(&key("alice"), NOW).is_some());
        // The clock is set back by a day: a lifetime would last a day longer.
        let day = Duration::from_secs(86_400);
        assert!(cache.get(&key("alice"), NOW.saturating_sub(day)).is_none());
    }

    #[test]
    fn ended_results_are_removed_when_another_subject_is_looked_up() {
        let mut cache = ExchangeCache::new(10);
        for (minutes, subject) in (1..=5).zip(["a", "b", "c", "d", "e"]) {
            cache.insert(key(subject), cached(MINUTE * minutes));
        }
        for (minutes, left) in [(1, 4), (4, 1), (5, 0)] {
            let _miss = cache.get(&key("another"), NOW.saturating_add(MINUTE * minutes));
            assert_eq!(cache.results.len(), left);
        }
    }

    #[test]
    fn the_key_is_the_sha_256_hash_of_the_token_alone() {
        let later = InboundToken::new("abc", NOW.saturating_add(MINUTE));
        assert!(key("abc") == SubjectKey::new(&later) && key("abc") != key("abd"));
        // FIPS 180-2, appendix B.1.
        assert_eq!(key("abc").0[..4], [0xba, 0x78, 0x16, 0xbf]);
    }
}
