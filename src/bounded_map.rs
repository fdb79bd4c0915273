//! A concurrent map whose entries have a bounded weight. Reads take no lock.
//!
//! Eviction is CLOCK, the second-chance approximation of LRU (Corbató, 1968): insertions queue up,
//! a read marks its entry as used, and the entry at the front of the queue is evicted unless it was
//! used since it came there. Then it is queued again. So a read writes at most one flag, where LRU
//! would move a node of a list that all threads share.

use std::collections::VecDeque;
use std::hash::Hash;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use equivalent::Equivalent;

/// How many used entries an insertion queues again at most. It bounds the time of an insertion.
const MAX_SECOND_CHANCES: u32 = 64;

/// A map of at most a given weight.
pub(crate) struct BoundedMap<K, V> {
    entries: papaya::HashMap<K, Entry<V>, foldhash::quality::RandomState>,
    queue: Mutex<Queue<K>>,
    max_weight: u64,
}

struct Entry<V> {
    value: V,
    weight: u64,
    /// Identifies the insertion, because a key can be queued again after it was removed.
    id: u64,
    used: AtomicBool,
}

/// The order of insertions. Only insertions and removals lock it.
struct Queue<K> {
    keys: VecDeque<(K, u64)>,
    weight: u64,
    next_id: u64,
}

impl<K: Copy + Eq + Hash, V: Clone> BoundedMap<K, V> {
    pub(crate) fn new(max_weight: u64) -> Self {
        let queue = Queue {
            keys: VecDeque::new(),
            weight: 0,
            next_id: 0,
        };
        Self {
            entries: papaya::HashMap::default(),
            queue: queue.into(),
            max_weight,
        }
    }

    /// Returns the value of `key`, and marks it as used.
    pub(crate) fn get<Q: Equivalent<K> + Hash>(&self, key: &Q) -> Option<V> {
        let entries = self.entries.pin();
        let entry = entries.get(key)?;
        // Read first: a write takes the memory away from other threads.
        if !entry.used.load(Ordering::Relaxed) {
            entry.used.store(true, Ordering::Relaxed);
        }
        Some(entry.value.clone())
    }

    /// Inserts a value, in place of any other of this key. Evicts others if the map is full.
    pub(crate) fn insert(&self, key: K, value: V, weight: u64) {
        let mut queue = self.queue();
        self.remove_queued(&mut queue, &key);
        if weight > self.max_weight {
            return;
        }
        let mut second_chances = MAX_SECOND_CHANCES;
        while queue.weight > self.max_weight - weight
            && let Some((oldest, id)) = queue.keys.pop_front()
        {
            let entries = self.entries.pin();
            match entries.get(&oldest).filter(|entry| entry.id == id) {
                Some(entry) if second_chances > 0 && entry.used.swap(false, Ordering::Relaxed) => {
                    second_chances -= 1;
                    queue.keys.push_back((oldest, id));
                }
                Some(_) => self.remove_queued(&mut queue, &oldest),
                None => {}
            }
        }
        queue.next_id += 1;
        let id = queue.next_id;
        queue.keys.push_back((key, id));
        queue.weight += weight;
        let entry = Entry {
            value,
            weight,
            id,
            used: AtomicBool::new(false),
        };
        self.entries.pin().insert(key, entry);
    }

    pub(crate) fn remove<Q: Equivalent<K> + Hash>(&self, key: &Q) {
        self.remove_queued(&mut self.queue(), key);
    }

    /// The number of entries.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    fn remove_queued<Q>(&self, queue: &mut Queue<K>, key: &Q)
    where
        Q: Equivalent<K> + Hash,
    {
        let entries = self.entries.pin();
        let Some(removed) = entries.remove(key) else {
            return;
        };
        queue.weight -= removed.weight;
        // The key stays in the queue. Once such keys prevail, they are dropped.
        if queue.keys.len() > 2 * self.entries.len() + 32 {
            let is_current = |(key, id): &(K, u64)| entries.get(key).is_some_and(|e| e.id == *id);
            queue.keys.retain(is_current);
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue<K>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(map: &BoundedMap<u32, u32>) -> Vec<u32> {
        let entries = map.entries.pin();
        let mut keys: Vec<u32> = entries.keys().copied().collect();
        keys.sort_unstable();
        keys
    }

    #[test]
    fn the_entry_that_was_not_used_for_longest_is_evicted() {
        let map = BoundedMap::new(3);
        (0..3).for_each(|key| map.insert(key, key, 1));
        assert_eq!(map.get(&0), Some(0));
        map.insert(3, 3, 1);
        assert_eq!(keys(&map), [0, 2, 3]);
        map.insert(4, 4, 1);
        assert_eq!(keys(&map), [0, 3, 4], "a use counts once");
        map.insert(5, 5, 2);
        assert_eq!(keys(&map), [4, 5]);
    }

    #[test]
    fn a_new_entry_is_inserted_even_if_all_others_are_used() {
        let map = BoundedMap::new(3);
        (0..3).for_each(|key| map.insert(key, key, 1));
        (0..3).for_each(|key| assert!(map.get(&key).is_some()));
        map.insert(3, 3, 1);
        assert_eq!(keys(&map), [1, 2, 3]);
    }

    #[test]
    fn the_weight_is_bounded_whatever_is_inserted_removed_and_replaced() {
        let map = BoundedMap::new(100);
        map.insert(1_000, 0, 101);
        assert_eq!(map.len(), 0, "heavier than the map may be");
        for round in 0..20_000 {
            let key = fastrand::u32(..60);
            match fastrand::u8(..4) {
                0 => map.remove(&key),
                1 => assert!(map.get(&key).is_none_or(|value| value <= round)),
                _ => map.insert(key, round, fastrand::u64(1..=9)),
            }
            let queue = map.queue();
            let entries = map.entries.pin();
            let weight: u64 = entries.values().map(|entry| entry.weight).sum();
            assert!(weight == queue.weight && weight <= 100);
            assert!(queue.keys.len() <= 2 * 60 + 33);
        }
    }

    #[test]
    fn an_insertion_evicts_after_64_second_chances() {
        let map = BoundedMap::new(200);
        (0..200).for_each(|key| map.insert(key, key, 1));
        (0..200).for_each(|key| assert!(map.get(&key).is_some()));
        map.insert(200, 200, 1);
        assert!(map.get(&64).is_none() && map.get(&0).is_some());
        assert_eq!(map.len(), 200);
    }

    #[test]
    fn keys_with_the_same_hash_are_distinguished() {
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        struct SameHash(u32);
        impl Hash for SameHash {
            fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
                state.write_u64(7);
            }
        }
        let map = BoundedMap::new(300);
        for key in 0..500 {
            map.insert(SameHash(key), key, 1);
            assert_eq!(map.get(&SameHash(key)), Some(key));
        }
        assert_eq!(map.len(), 300);
        for key in 0..500 {
            assert!(map.get(&SameHash(key)).is_none_or(|value| value == key));
            map.remove(&SameHash(key));
        }
        assert_eq!((map.len(), map.queue().weight), (0, 0));
    }

    #[test]
    fn threads_see_only_values_of_their_key() {
        let map = BoundedMap::new(50);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..20_000 {
                        let key = fastrand::u32(..100);
                        match map.get(&key) {
                            Some(value) => assert_eq!(value % 100, key),
                            None => map.insert(key, key + 100 * fastrand::u32(..9), 1),
                        }
                        if fastrand::u8(..16) == 0 {
                            map.remove(&key);
                        }
                    }
                });
            }
        });
        assert!(map.len() <= 50);
    }
}
