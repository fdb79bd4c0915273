//! The token cache: the validated claims of tokens. The shared part stores no tokens; the
//! thread-local part has copies of a few.
//!
//! - [`get`](TokenCache::get) finds the entry of a token. The caller checks each hit with
//!   [`CachedToken::is_still_valid`].
//! - [`insert`](TokenCache::insert) caches the claims of a valid token from its second request on,
//!   because an insertion is wasted on a token that is used once. The [`doorkeeper`] recognizes the
//!   second request.
//! - [`remove`](TokenCache::remove) removes a token that is no longer valid.
//!
//! A lookup tries the [`mod@thread_local`] part, which copies the few tokens that a thread sees
//! most, and then the cache that all threads share.
//!
//! # The shared cache
//!
//! It is a [`BoundedMap`], whose reads take no lock. It evicts tokens that were not used for long;
//! the doorkeeper keeps out those that are used once. Its key is a [`digest`] of the whole token:
//! two values of [PolymurHash] under two keys, drawn independently by `aws_lc_rs::rand` for each
//! resource server. An entry has no bytes of the token itself, so nothing has to be zeroized, and a
//! lookup loads nothing but the entry. Two different tokens of up to `n` bytes have the same value
//! under one key with a [probability][proof] of at most `(14 + n / 7) / 2^57.4`. The longest token
//! that is looked up has 8 KiB. For each pair of a presented token and an entry this is below
//! 2^-47, and below 2^-94 for both values. The bound is proved for a uniformly drawn key; it needs
//! no assumption about the hash. A sender of 2^40 tokens to a cache of 2^14 entries gets another
//! token's context with a probability below 2^-40.
//!
//! The proof is for tokens that are chosen independently of the keys, so no bit of a digest may
//! become known. A digest is only compared, within the map, which places entries by another hash. A
//! response shows only whether a token is valid, which does not depend on the keys unless two
//! tokens collide. The time that a digest takes depends only on the length of the token. The second
//! key is not a tweak of the first: PolymurHash adds its tweak to the value before the last
//! permutation, so a pair of tokens that collides under one tweak collides under all.
//!
//! That other hash is foldhash, with other keys, of the last 16 bytes of the token: the end of a
//! signature, which is as good as random. Not even the holder of a trusted key can make many tokens
//! with the same end. A lookup compares digests only where an entry has the same hash of its end,
//! so a token that is not cached costs no digest. The doorkeeper and the thread-local part
//! use this hash, too. A false positive of the doorkeeper is harmless. The thread-local part
//! compares the whole token.
//!
//! [PolymurHash]: https://github.com/orlp/polymur-hash
//! [proof]: https://github.com/orlp/polymur-hash/blob/master/extras/universality-proof.md

mod digest;
mod doorkeeper;
mod thread_local;

use std::fmt;
use std::hash::BuildHasher as _;

use self::digest::{PolymurPair, PresentedToken, TokenHash, TokenKey};
use self::doorkeeper::Doorkeeper;
use self::thread_local::Lookup;
use super::context::CachedToken;
use crate::bounded_map::BoundedMap;
use crate::clock::UnixTime;

/// Longer tokens are not cached, because each would evict many others. The bound on collisions
/// depends on this length.
const MAX_TOKEN: usize = 8 * 1024;

/// Estimated bytes of an entry beside its claims: the rest of the context, and the map.
const OVERHEAD: u64 = 384;

/// Bounds of the cache, as set on the builder.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) entries: u64,
    pub(super) bytes: u64,
}

/// The bounds unless others are set.
pub(super) const DEFAULT_LIMITS: Limits = Limits {
    entries: 10_000,
    bytes: 32 * 1024 * 1024,
};

/// The shared cache and its thread-local part; `None` if caching is off.
pub(super) struct TokenCache<H = PolymurPair>(Option<Inner<H>>);

struct Inner<H> {
    id: u64,
    entries: BoundedMap<TokenKey, CachedToken>,
    /// The least weight of an entry, so that one bound on the weight enforces both limits.
    min_weight: u64,
    hash: H,
    suffix_hasher: foldhash::quality::RandomState,
    doorkeeper: Doorkeeper,
}

impl TokenCache {
    /// Creates a cache. With a bound of zero, or without random numbers for the keys of the hash,
    /// it caches nothing.
    pub(super) fn new(limits: Limits) -> Self {
        let hash = PolymurPair::random();
        hash.map_or(Self(None), |hash| Self::with_hash(limits, hash))
    }
}

impl<H: TokenHash> TokenCache<H> {
    fn with_hash(Limits { entries, bytes }: Limits, hash: H) -> Self {
        if entries == 0 || bytes == 0 {
            return Self(None);
        }
        let min_weight = (bytes / entries).max(1);
        Self(Some(Inner {
            id: thread_local::new_cache_id(),
            entries: BoundedMap::new(bytes.min(entries.saturating_mul(min_weight))),
            min_weight,
            hash,
            suffix_hasher: foldhash::quality::RandomState::default(),
            doorkeeper: Doorkeeper::new(entries.min(bytes.div_ceil(OVERHEAD))),
        }))
    }

    /// Looks up a token. The caller checks whether the entry is still valid.
    pub(super) fn get(&self, token: &[u8], now: UnixTime) -> Option<CachedToken> {
        let inner = self.if_cacheable(token)?;
        let lookup = inner.lookup(token);
        match thread_local::get(lookup, now) {
            Some((entry, false)) => Some(entry),
            Some((entry, true)) => {
                inner.report(&PresentedToken(lookup, &inner.hash), &entry);
                Some(entry)
            }
            None => {
                let entry = inner.entries.get(&PresentedToken(lookup, &inner.hash))?;
                thread_local::admit(lookup, &entry, now);
                Some(entry)
            }
        }
    }

    /// Caches the claims of a valid token that the doorkeeper admits, or of any with
    /// `bypass_admission`.
    pub(super) fn insert(&self, token: &[u8], entry: &CachedToken, bypass_admission: bool) {
        let Some(inner) = self.if_cacheable(token) else {
            return;
        };
        let lookup = inner.lookup(token);
        if bypass_admission || inner.doorkeeper.admits(lookup.hash) {
            inner.insert_shared(&PresentedToken(lookup, &inner.hash), entry.clone());
        }
    }

    /// Removes a token from the shared cache and from the thread-local part of this thread.
    pub(super) fn remove(&self, token: &[u8]) {
        if let Some(inner) = self.if_cacheable(token) {
            let lookup = inner.lookup(token);
            thread_local::remove(lookup);
            inner.entries.remove(&PresentedToken(lookup, &inner.hash));
        }
    }

    /// The number of entries in the shared cache.
    pub(super) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |inner| inner.entries.len())
    }

    /// The caches, unless the token is too long for them.
    fn if_cacheable(&self, token: &[u8]) -> Option<&Inner<H>> {
        self.0.as_ref().filter(|_| token.len() <= MAX_TOKEN)
    }
}

impl<H: TokenHash> Inner<H> {
    /// The hash is of the last 16 bytes only; the doorkeeper uses it, too.
    fn lookup<'t>(&self, token: &'t [u8]) -> Lookup<'t> {
        let end = token.last_chunk().map_or(0, |b| u128::from_le_bytes(*b));
        let (cache, hash) = (self.id, self.suffix_hasher.hash_one(end));
        Lookup { cache, token, hash }
    }

    /// Marks the entry as used in the shared cache, and restores it if it was evicted.
    #[cold]
    fn report(&self, token: &PresentedToken<'_, H>, entry: &CachedToken) {
        if self.entries.get(token).is_none() {
            self.insert_shared(token, entry.deep_clone());
        }
    }

    fn insert_shared(&self, token: &PresentedToken<'_, H>, entry: CachedToken) {
        let weight = (entry.size() + OVERHEAD).max(self.min_weight);
        self.entries.insert(token.key(), entry, weight);
    }
}

impl<H> fmt::Debug for TokenCache<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenCache").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::OnceLock;

    use proptest::prelude::*;

    use super::digest::Digest;
    use super::*;
    use crate::resource_server::AuthContext;

    pub(super) const NOW: UnixTime = UnixTime::from_secs(1_700_000_000);

    pub(super) fn context() -> &'static CachedToken {
        static CONTEXT: OnceLock<CachedToken> = OnceLock::new();
        CONTEXT.get_or_init(|| AuthContext::builder().build().token)
    }

    impl<F: Fn(&[u8]) -> Digest> TokenHash for F {
        fn digest(&self, token: &[u8]) -> Digest {
            self(token)
        }
    }

    /// Whether a lookup of a token that is not cached finds the entry of another one.
    fn confuses_tokens(hash: impl TokenHash, pairs: &[(Vec<u8>, Vec<u8>)]) -> bool {
        let cache = TokenCache::with_hash(DEFAULT_LIMITS, hash);
        let cached: HashSet<_> = pairs.iter().map(|(cached, _)| cached).collect();
        for token in &cached {
            cache.insert(token, context(), true);
            assert!(cache.get(token, NOW).is_some());
        }
        let mut presented = pairs.iter().map(|(_, presented)| presented);
        presented.any(|token| !cached.contains(token) && cache.get(token, NOW).is_some())
    }

    /// A token, and another one with the same end that differs from it in one way.
    fn pair() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
        let length = prop_oneof![3 => 80_usize..1_500, 1 => 8_000..=MAX_TOKEN];
        let token = (length, any::<u64>()).prop_map(|(length, seed)| {
            let mut random = fastrand::Rng::with_seed(seed);
            (0..length).map(|_| random.u8(b'-'..=b'z')).collect()
        });
        let index = any::<prop::sample::Index>;
        (token, 0..7, index(), index(), b'-'..=b'z').prop_map(|(cached, way, at, to, byte)| {
            let cached: Vec<u8> = cached;
            let (body, end) = cached.split_at(cached.len() - 16);
            let mut presented = body.to_vec();
            // PolymurHash reads words of 7 bytes and blocks of 49.
            let word = if way < 2 { 7 } else { 49 };
            let words = body.len() / word;
            match way {
                0 | 2 => {
                    let (from, to) = (at.index(words) * word, to.index(words) * word);
                    for offset in 0..word {
                        presented.swap(from + offset, to + offset);
                    }
                }
                1 | 3 => presented.rotate_left(word),
                4 => *presented.get_mut(at.index(body.len())).unwrap() = byte,
                5 => presented.truncate(at.index(body.len())),
                _ => presented.extend(std::iter::repeat_n(byte, 1 + to.index(60))),
            }
            presented.truncate(MAX_TOKEN - 16);
            presented.extend(end);
            (cached, presented)
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 16,
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        #[test]
        fn a_token_finds_no_entry_of_another_token(pairs in prop::collection::vec(pair(), 64)) {
            let hash = || PolymurPair::random().unwrap();
            prop_assert!(!confuses_tokens(hash(), &pairs));
            // The test finds the collisions of weaker hashes: of 2 bits, of the last 16 bytes of the
            // token, and of the sum of the others.
            let keyed = hash();
            let two_bits = |token: &[u8]| {
                let Digest([value, _]) = keyed.digest(token);
                Digest([value & 3, 0])
            };
            prop_assert!(confuses_tokens(two_bits, &pairs));
            let end = |token: &[u8]| keyed.digest(token.last_chunk::<16>().unwrap_or(&[0; 16]));
            prop_assert!(confuses_tokens(end, &pairs));
            let sum = |token: &[u8]| Digest([token.iter().copied().map(u64::from).sum(), 0]);
            prop_assert!(confuses_tokens(sum, &pairs));
        }
    }

    #[test]
    fn a_token_of_more_than_8_kib_is_not_looked_up() {
        let cache = TokenCache::with_hash(DEFAULT_LIMITS, |token: &[u8]| {
            assert!(token.len() <= 8 * 1024);
            Digest([0; 2])
        });
        cache.insert(&[b'a'; MAX_TOKEN], context(), true);
        let mut other = [b'b'; MAX_TOKEN];
        other[MAX_TOKEN - 16..].fill(b'a');
        assert!(cache.get(&other, NOW).is_some(), "they collide");
        let longer = [b'a'; MAX_TOKEN + 1];
        cache.insert(&longer, context(), true);
        assert!(cache.get(&longer, NOW).is_none());
        cache.remove(&longer);
        assert_eq!(cache.len(), 1);
    }
}
