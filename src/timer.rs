//! Monotonic time for background tasks, and deadlines of waits elsewhere that a task's timer ends.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::time::sleep_until;

/// The current tokio time as a `std` instant, the type that the schedules use. Needs no runtime.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Sleeps until `at`; never completes for `None`.
pub(crate) async fn sleep_until_some(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(tokio::time::Instant::from_std(at)).await,
        None => std::future::pending().await,
    }
}

/// The deadlines of waits on any executor, which one task ends with its timer.
///
/// A timer of tokio panics outside of a tokio runtime. A [`Deadline`] registers its waker instead,
/// and the task that [serves](Self::serve) the deadlines wakes it. A dropped deadline is removed.
#[derive(Debug, Default)]
pub(crate) struct Deadlines {
    waits: Mutex<Waits>,
    /// Notified when there is a new first deadline.
    changed: Notify,
    is_served: AtomicBool,
}

#[derive(Debug, Default)]
struct Waits {
    /// By deadline, then by a number that makes the key unique.
    wakers: BTreeMap<(Instant, u64), Waker>,
    next_id: u64,
}

impl Deadlines {
    /// A deadline that ends after `limit`; never if that is beyond the range of time.
    pub(crate) fn after(self: &Arc<Self>, limit: Duration) -> Deadline {
        let key = now().checked_add(limit).map(|at| {
            let mut waits = self.lock();
            waits.next_id += 1;
            (at, waits.next_id)
        });
        Deadline {
            deadlines: Arc::clone(self),
            key,
            is_registered: false,
        }
    }

    /// Runs `task`, and meanwhile ends the waits at their deadlines.
    pub(crate) async fn serve<F: Future>(&self, task: F) -> F::Output {
        self.mark_served();
        tokio::select! {
            biased;
            output = task => output,
            never = self.run() => match never {},
        }
    }

    /// Whether a task has begun to serve the deadlines. A wait may last for ever if none has.
    pub(crate) fn is_served(&self) -> bool {
        self.is_served.load(Ordering::Relaxed)
    }

    /// States that a task serves the deadlines, or is spawned and will.
    pub(crate) fn mark_served(&self) {
        self.is_served.store(true, Ordering::Relaxed);
    }

    async fn run(&self) -> Infallible {
        loop {
            let next = self.wake_elapsed();
            tokio::select! {
                biased;
                () = sleep_until_some(next) => {}
                () = self.changed.notified() => {}
            }
        }
    }

    /// Ends the waits whose deadline has passed. Returns the next deadline.
    fn wake_elapsed(&self) -> Option<Instant> {
        Self::wake_elapsed_of(self.lock())
    }

    /// As [`wake_elapsed`](Self::wake_elapsed), unless the lock is taken.
    pub(crate) fn try_wake_elapsed(&self) {
        if let Ok(waits) = self.waits.try_lock() {
            Self::wake_elapsed_of(waits);
        }
    }

    fn wake_elapsed_of(mut waits: MutexGuard<'_, Waits>) -> Option<Instant> {
        let now = now();
        let mut elapsed = Vec::new();
        let next = loop {
            match waits.wakers.first_entry() {
                Some(first) if first.key().0 <= now => elapsed.push(first.remove()),
                first => break first.map(|first| first.key().0),
            }
        };
        // A waker may run any code, so not under the lock.
        drop(waits);
        elapsed.into_iter().for_each(Waker::wake);
        next
    }

    fn lock(&self) -> MutexGuard<'_, Waits> {
        self.waits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Completes when its time has passed. The task that serves [`Deadlines`] wakes it.
#[derive(Debug)]
pub(crate) struct Deadline {
    deadlines: Arc<Deadlines>,
    /// `None` for a deadline that never ends.
    key: Option<(Instant, u64)>,
    is_registered: bool,
}

impl Future for Deadline {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(key) = self.key else {
            return Poll::Pending;
        };
        if now() >= key.0 {
            return Poll::Ready(());
        }
        let deadlines = Arc::clone(&self.deadlines);
        let mut waits = deadlines.lock();
        // The task has removed it: its time has passed.
        if self.is_registered && !waits.wakers.contains_key(&key) {
            return Poll::Ready(());
        }
        let previous = waits.wakers.insert(key, cx.waker().clone());
        let is_first = waits.wakers.keys().next() == Some(&key);
        // Dropping a waker may run any code, so not under the lock.
        drop(waits);
        if previous.is_none() && is_first {
            deadlines.changed.notify_one();
        }
        self.is_registered = true;
        Poll::Pending
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        if let Some(key) = self.key.filter(|_| self.is_registered) {
            let waker = self.deadlines.lock().wakers.remove(&key);
            drop(waker);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn poll(deadline: &mut Deadline, wakes: &Arc<Wakes>) -> bool {
        let waker = Waker::from(Arc::clone(wakes));
        Pin::new(deadline)
            .poll(&mut Context::from_waker(&waker))
            .is_ready()
    }

    #[test]
    fn a_wait_needs_no_runtime_and_ends_when_it_is_polled_late() {
        let deadlines = Arc::new(Deadlines::default());
        let wakes = Arc::default();
        let mut deadline = deadlines.after(Duration::from_millis(20));
        assert!(!poll(&mut deadline, &wakes));
        std::thread::sleep(Duration::from_millis(25));
        assert!(poll(&mut deadline, &wakes));
        assert!(!deadlines.is_served());
    }

    #[tokio::test(start_paused = true)]
    async fn each_wait_ends_at_its_own_deadline() {
        let deadlines = Arc::new(Deadlines::default());
        let start = now();
        let wait = |seconds: u32| {
            let deadline = deadlines.after(SECOND * seconds);
            async move {
                deadline.await;
                now() - start
            }
        };
        let (third, first, second) = (wait(3), wait(1), wait(2));
        let ends = deadlines.serve(async {
            tokio::time::sleep(SECOND / 2).await;
            tokio::join!(third, first, second, wait(0))
        });
        let expected = (SECOND * 3, SECOND, SECOND * 2, SECOND / 2);
        assert_eq!(ends.await, expected);
        assert!(deadlines.is_served());
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_outside_of_the_task_is_woken_by_it() {
        let deadlines = Arc::new(Deadlines::default());
        let wakes = Arc::<Wakes>::default();
        let mut deadline = deadlines.after(SECOND);
        let mut never = deadlines.after(Duration::MAX);
        let mut task = pin!(deadlines.serve(tokio::time::sleep(SECOND * 2)));
        let mut context = Context::from_waker(Waker::noop());
        assert!(task.as_mut().poll(&mut context).is_pending());
        assert!(!poll(&mut deadline, &wakes) && !poll(&mut never, &wakes));
        task.await;
        assert_eq!(wakes.0.load(Ordering::SeqCst), 1);
        assert!(poll(&mut deadline, &wakes) && !poll(&mut never, &wakes));
    }

    #[test]
    fn a_dropped_wait_leaves_nothing_behind() {
        let deadlines = Arc::new(Deadlines::default());
        let wakes = Arc::<Wakes>::default();
        let mut waits: Vec<_> = (0..100).map(|_| deadlines.after(SECOND)).collect();
        assert!(!waits.iter_mut().any(|wait| poll(wait, &wakes)));
        assert!(!waits.iter_mut().any(|wait| poll(wait, &wakes)));
        assert_eq!(deadlines.lock().wakers.len(), 100);
        drop(waits);
        assert!(deadlines.lock().wakers.is_empty());
        assert_eq!(Arc::strong_count(&wakes), 1, "no waker is kept");
    }
}
