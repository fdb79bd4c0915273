//! The key of the shared cache: a keyed hash of the whole token.

use std::hash::{Hash, Hasher};

use equivalent::Equivalent;
use polymur_hash::PolymurHash;

use super::thread_local::Lookup;

/// The key of an entry.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct TokenKey {
    digest: Digest,
    /// A hash of the end of the token. It places the entry in the map.
    end: u64,
}

/// A presented token. Its digest is computed only if an entry is where its own would be.
pub(super) struct PresentedToken<'t, H>(pub(super) Lookup<'t>, pub(super) &'t H);

impl<H: TokenHash> PresentedToken<'_, H> {
    pub(super) fn key(&self) -> TokenKey {
        let Self(
            Lookup {
                token, hash: end, ..
            },
            hash,
        ) = *self;
        let digest = hash.digest(token);
        TokenKey { digest, end }
    }
}

impl Hash for TokenKey {
    fn hash<S: Hasher>(&self, state: &mut S) {
        state.write_u64(self.end);
    }
}

impl<H> Hash for PresentedToken<'_, H> {
    fn hash<S: Hasher>(&self, state: &mut S) {
        state.write_u64(self.0.hash);
    }
}

impl<H: TokenHash> Equivalent<TokenKey> for PresentedToken<'_, H> {
    fn equivalent(&self, key: &TokenKey) -> bool {
        self.0.hash == key.end && self.key() == *key
    }
}

/// 128 bits that stand for one token.
///
/// No bit of them leaves the cache, because the keys of the hash can be derived from digests.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::resource_server) struct Digest(pub(super) [u64; 2]);

/// A keyed hash of tokens. Tests replace it with a weaker one.
pub(in crate::resource_server) trait TokenHash {
    fn digest(&self, token: &[u8]) -> Digest;
}

/// Two PolymurHash values under two independent keys.
pub(in crate::resource_server) struct PolymurPair([PolymurHash; 2]);

impl PolymurPair {
    /// Draws both keys; `None` if the system has no random numbers.
    pub(super) fn random() -> Option<Self> {
        Some(Self([random_key()?, random_key()?]))
    }
}

impl TokenHash for PolymurPair {
    fn digest(&self, token: &[u8]) -> Digest {
        Digest(self.0.each_ref().map(|key| key.hash(token)))
    }
}

/// Draws a key uniformly, as the proof of the collision bound requires.
fn random_key() -> Option<PolymurHash> {
    loop {
        let mut seeds = [[0; 8]; 2];
        aws_lc_rs::rand::fill(seeds.as_flattened_mut()).ok()?;
        let [k_seed, s_seed] = seeds.map(u64::from_ne_bytes);
        if let Some(key) = key_of_seed(k_seed, s_seed) {
            return Some(key);
        }
    }
}

/// Returns the key of a seed, or `None` if the crate had to change the seed.
///
/// Only some seeds give a valid key. The crate adds `STEP` to any other until one does, which makes
/// keys after long gaps more probable. Such a seed has the same key as `seed + STEP`, and is not
/// used.
fn key_of_seed(k_seed: u64, s_seed: u64) -> Option<PolymurHash> {
    const STEP: u64 = 0xbb67_ae85_84ca_a73b;
    let key = PolymurHash::from_u64x2_seed(k_seed, s_seed);
    let next = PolymurHash::from_u64x2_seed(k_seed.wrapping_add(STEP), s_seed);
    (key.hash(b"") != next.hash(b"")).then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 16.5 % of all seeds give a key directly. If `STEP` differed from the crate's, all 4,000
    /// would be counted.
    #[test]
    fn only_seeds_that_stand_for_a_key_are_used() {
        let used = (0..4_000)
            .filter(|_| key_of_seed(fastrand::u64(..), 0).is_some())
            .count();
        assert!((560..760).contains(&used), "{used}");
    }

    #[test]
    fn each_cache_has_two_other_keys() {
        let pairs = [(); 2].map(|()| PolymurPair::random().unwrap());
        let digests = pairs.map(|pair| pair.digest(b"a token"));
        let mut values: Vec<u64> = digests.iter().flat_map(|digest| digest.0).collect();
        values.sort_unstable();
        values.dedup();
        assert_eq!(values.len(), 4);
    }
}
