//! A shared value to which each thread refers by another reference count.

use std::cell::Cell;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// More threads than this share reference counts.
const SHARDS: usize = 16;

/// One value behind several reference counts, each on a CPU cache line of its own.
///
/// A request refers to the server until its response exists. If all threads wrote one reference
/// count for that, its cache line would go from core to core with each request.
pub(super) struct ShardedArc<T>([Arc<Shard<T>>; SHARDS]);

/// A reference to the value that is held across threads.
#[repr(align(64))]
pub(super) struct Shard<T>(Arc<T>);

impl<T> ShardedArc<T> {
    pub(super) fn new(value: T) -> Self {
        let value = Arc::new(value);
        Self(std::array::from_fn(|_| Arc::new(Shard(Arc::clone(&value)))))
    }

    /// A reference by the count of this thread.
    #[inline]
    pub(super) fn get(&self) -> Arc<Shard<T>> {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        thread_local! {
            static INDEX: Cell<Option<usize>> = const { Cell::new(None) };
        }
        let index = INDEX.get().unwrap_or_else(|| {
            let index = NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS;
            INDEX.set(Some(index));
            index
        });
        let [first, ..] = &self.0;
        Arc::clone(self.0.get(index).unwrap_or(first))
    }
}

impl<T> Deref for ShardedArc<T> {
    type Target = T;

    fn deref(&self) -> &T {
        let [first, ..] = &self.0;
        first
    }
}

impl<T> Deref for Shard<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: fmt::Debug> fmt::Debug for ShardedArc<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        T::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_threads_have_different_reference_counts_of_one_value() {
        let value = Arc::new(ShardedArc::new(7));
        let here = value.get();
        let there = std::thread::spawn({
            let value = Arc::clone(&value);
            move || value.get()
        });
        let there = there.join().unwrap();
        assert_eq!((**here, **there), (7, 7));
        assert!(Arc::ptr_eq(&here, &value.get()));
        assert!(!Arc::ptr_eq(&here, &there));
        assert!(Arc::ptr_eq(&here.0, &there.0));
    }
}
