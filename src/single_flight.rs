//! Single flight: a task performs one operation at a time, for any number of waiters.
//!
//! ```text
//!  SingleFlight ──request (R)──▶ Leader, in a task
//!       │                          │
//!     Waiter ◀───progress (S)──────┘ begin, finish
//! ```
//!
//! - The operation belongs to the task. A waiter that is dropped cancels nothing.
//! - Operations are numbered when they begin. A waiter knows the last one that began before it, and
//!   need not accept the result of that one.
//! - A wait ends at its deadline, which the timer of the task ends, and with the task. It needs no
//!   runtime. If the task is never polled, and never dropped, a wait does not end.
//! - The task ends when the last `SingleFlight` and the last `Waiter` are dropped.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::timer::{Deadline, Deadlines};

/// What the leader publishes: which operations began and finished, and a state.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Progress<S> {
    /// The number of the last operation that began.
    started: u64,
    /// The number of the last operation that finished.
    pub(crate) finished: u64,
    pub(crate) state: S,
}

/// The side of those who need the operation. Cheap to clone.
#[derive(Debug)]
pub(crate) struct SingleFlight<R, S>(Arc<Inner<R, S>>);

#[derive(Debug)]
struct Inner<R, S> {
    requests: watch::Sender<R>,
    progress: watch::Receiver<Progress<S>>,
    deadlines: Arc<Deadlines>,
    waiter_permits: Arc<Semaphore>,
}

/// The side of the task that performs the operation.
#[derive(Debug)]
pub(crate) struct Leader<R, S> {
    requests: watch::Receiver<R>,
    progress: watch::Sender<Progress<S>>,
    deadlines: Arc<Deadlines>,
}

/// Why a wait ended without a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WaitError {
    /// The deadline has passed.
    Elapsed,
    /// The task has ended.
    Stopped,
}

impl<R, S> Clone for SingleFlight<R, S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<R: Default, S: Default> SingleFlight<R, S> {
    /// Both sides. At most `max_waiters` of [`try_subscribe`](Self::try_subscribe) wait at a time.
    pub(crate) fn new(max_waiters: usize) -> (Self, Leader<R, S>) {
        let (requests, receiver) = watch::channel(R::default());
        let (sender, progress) = watch::channel(Progress::default());
        let deadlines = Arc::<Deadlines>::default();
        let leader = Leader {
            requests: receiver,
            progress: sender,
            deadlines: Arc::clone(&deadlines),
        };
        let waiter_permits = Semaphore::new(max_waiters.min(Semaphore::MAX_PERMITS));
        let inner = Inner {
            requests,
            progress,
            deadlines,
            waiter_permits: Arc::new(waiter_permits),
        };
        (Self(Arc::new(inner)), leader)
    }
}

impl<R, S> SingleFlight<R, S> {
    /// Changes the request that the task reads, and wakes the task. `false` if it has ended.
    pub(crate) fn request(&self, change: impl FnOnce(&mut R)) -> bool {
        if self.is_stopped() {
            return false;
        }
        self.0.requests.send_modify(change);
        true
    }

    /// A waiter for what happens from now on, for no longer than `limit`.
    pub(crate) fn subscribe(&self, limit: Duration) -> Waiter<R, S> {
        self.waiter(limit, None)
    }

    /// As [`subscribe`](Self::subscribe). `None` if the maximum number of waiters wait.
    pub(crate) fn try_subscribe(&self, limit: Duration) -> Option<Waiter<R, S>> {
        // Should the task not be polled any more, overdue waiters still give back their permits.
        self.0.deadlines.wake_elapsed();
        let permit = Arc::clone(&self.0.waiter_permits)
            .try_acquire_owned()
            .ok()?;
        Some(self.waiter(limit, Some(permit)))
    }

    fn waiter(&self, limit: Duration, permit: Option<OwnedSemaphorePermit>) -> Waiter<R, S> {
        let progress = self.0.progress.clone();
        let began_before = progress.borrow().started;
        Waiter {
            flight: self.clone(),
            progress,
            began_before,
            deadline: self.0.deadlines.after(limit),
            _permit: permit,
        }
    }

    /// What is published now. Do not hold it for long: it is a lock.
    pub(crate) fn progress(&self) -> watch::Ref<'_, Progress<S>> {
        self.0.progress.borrow()
    }

    /// Whether the task has ended, or was dropped before its first poll.
    pub(crate) fn is_stopped(&self) -> bool {
        self.0.requests.is_closed()
    }

    /// Whether the task was polled or spawned, and has not ended. A wait may last for ever if not.
    pub(crate) fn is_running(&self) -> bool {
        self.0.deadlines.is_served() && !self.is_stopped()
    }

    /// States that the task is spawned, so that waits need not expect its first poll.
    pub(crate) fn mark_spawned(&self) {
        self.0.deadlines.mark_served();
    }
}

/// Waits for an operation. Dropping it cancels nothing.
#[derive(Debug)]
pub(crate) struct Waiter<R, S> {
    flight: SingleFlight<R, S>,
    progress: watch::Receiver<Progress<S>>,
    /// The number of the last operation that began before this waiter.
    began_before: u64,
    deadline: Deadline,
    _permit: Option<OwnedSemaphorePermit>,
}

impl<R, S> Waiter<R, S> {
    /// As [`SingleFlight::request`].
    pub(crate) fn request(&self, change: impl FnOnce(&mut R)) -> bool {
        self.flight.request(change)
    }

    /// The number of the last operation that began before this waiter. It may have been finished.
    pub(crate) fn began_before(&self) -> u64 {
        self.began_before
    }

    /// What is published now. Do not hold it for long: it is a lock.
    pub(crate) fn progress(&self) -> watch::Ref<'_, Progress<S>> {
        self.progress.borrow()
    }

    /// Waits until `accept` returns a value for the published state, beginning with the current one.
    pub(crate) async fn until<T>(
        &mut self,
        mut accept: impl FnMut(&Progress<S>) -> Option<T>,
    ) -> Result<T, WaitError> {
        let Self {
            progress, deadline, ..
        } = self;
        let accepted = async {
            loop {
                if let Some(accepted) = accept(&progress.borrow_and_update()) {
                    return Ok(accepted);
                }
                progress.changed().await.map_err(|_| WaitError::Stopped)?;
            }
        };
        tokio::select! {
            biased;
            accepted = accepted => accepted,
            () = deadline => Err(WaitError::Elapsed),
        }
    }
}

impl<R: Copy, S> Leader<R, S> {
    /// What serves the deadlines of the waiters while the task runs.
    pub(crate) fn deadlines(&self) -> Arc<Deadlines> {
        Arc::clone(&self.deadlines)
    }

    /// The request as it is now. [`requested`](Self::requested) then awaits the next change.
    pub(crate) fn take_requests(&mut self) -> R {
        *self.requests.borrow_and_update()
    }

    /// Awaits a change of the request. `None` if nobody is left who can wait. Cancel safe.
    pub(crate) async fn requested(&mut self) -> Option<()> {
        self.requests.changed().await.ok()
    }

    /// Completes when nobody is left who can wait.
    pub(crate) async fn abandoned(&mut self) {
        while self.requested().await.is_some() {}
    }

    /// An operation begins. Wakes no waiter.
    pub(crate) fn begin(&self) {
        self.progress.send_if_modified(|progress| {
            progress.started += 1;
            false
        });
    }

    /// The operation that began last has finished. `update` gets its number.
    pub(crate) fn finish(&self, update: impl FnOnce(&mut S, u64)) {
        self.progress.send_modify(|progress| {
            progress.finished = progress.started;
            update(&mut progress.state, progress.finished);
        });
    }

    /// Publishes a change that is not the result of an operation.
    pub(crate) fn update(&self, update: impl FnOnce(&mut S)) {
        self.progress
            .send_modify(|progress| update(&mut progress.state));
    }
}
