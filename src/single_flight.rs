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
        let permit = Arc::clone(&self.0.waiter_permits).try_acquire_owned();
        // Overdue waiters give back their permits even if the task is not polled any more. Over
        // the limit, nothing waits for the lock.
        self.0.deadlines.try_wake_elapsed();
        Some(self.waiter(limit, Some(permit.ok()?)))
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

    /// Waits until `accept` returns a value for the published state. The first is the current one.
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

    /// Awaits a change of the request. `None` if no handle and no waiter is left. Cancel safe.
    pub(crate) async fn requested(&mut self) -> Option<()> {
        self.requests.changed().await.ok()
    }

    /// Completes when no handle and no waiter is left.
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

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll, Waker};

    use futures_executor::block_on;
    use proptest::prelude::*;

    use super::*;

    /// Requests are counted; the state is the number of the last operation that finished.
    type Flight = SingleFlight<u64, u64>;
    type Wait = Pin<Box<dyn Future<Output = Result<u64, WaitError>> + Send>>;

    const LONG: Duration = Duration::from_secs(60);
    const MAX_WAITERS: usize = 3;

    /// Requests an operation and waits: for one that began later, or for the next that finishes.
    fn wait(mut waiter: Waiter<u64, u64>, is_fresh: bool) -> Wait {
        let accept_after = if is_fresh {
            waiter.began_before()
        } else {
            waiter.progress().finished
        };
        waiter.request(|requests| *requests += 1);
        Box::pin(async move {
            let finished = |progress: &Progress<u64>| {
                (progress.finished > accept_after).then_some(progress.state)
            };
            waiter.until(finished).await
        })
    }

    fn poll(wait: &mut Wait) -> Poll<Result<u64, WaitError>> {
        wait.as_mut().poll(&mut Context::from_waker(Waker::noop()))
    }

    fn finish(leader: &Leader<u64, u64>) {
        leader.finish(|state, number| *state = number);
    }

    #[test]
    fn a_waiter_does_not_accept_an_operation_that_began_before_it() {
        let (flight, leader) = Flight::new(MAX_WAITERS);
        leader.begin();
        let mut fresh = wait(flight.subscribe(LONG), true);
        let mut joined = wait(flight.subscribe(LONG), false);
        assert!(poll(&mut fresh).is_pending() && poll(&mut joined).is_pending());
        finish(&leader);
        assert_eq!(poll(&mut joined), Poll::Ready(Ok(1)));
        assert!(poll(&mut fresh).is_pending());
        leader.begin();
        finish(&leader);
        assert_eq!(poll(&mut fresh), Poll::Ready(Ok(2)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_ends_at_its_deadline_also_during_an_operation() {
        let (flight, mut leader) = Flight::new(MAX_WAITERS);
        assert!(!flight.is_running(), "not polled yet");
        let waiter = flight.try_subscribe(Duration::from_millis(10)).unwrap();
        let deadlines = leader.deadlines();
        let task = deadlines.serve(async move {
            leader.requested().await;
            leader.begin();
            tokio::time::sleep(LONG).await;
            finish(&leader);
        });
        let waits = async {
            let start = tokio::time::Instant::now();
            assert_eq!(wait(waiter, true).await, Err(WaitError::Elapsed));
            assert_eq!(start.elapsed(), Duration::from_millis(10));
            assert!(flight.is_running());
            let waiter = flight.subscribe(LONG * 2);
            assert_eq!(wait(waiter, false).await, Ok(1), "it was not cancelled");
        };
        tokio::join!(task, waits);
        assert!(flight.is_stopped() && !flight.is_running());
    }

    #[test]
    fn waits_end_with_the_task() {
        let (flight, leader) = Flight::new(MAX_WAITERS);
        let mut waiting = wait(flight.subscribe(LONG), true);
        assert!(poll(&mut waiting).is_pending());
        drop(leader);
        assert_eq!(block_on(waiting), Err(WaitError::Stopped));
        let late = wait(flight.subscribe(LONG), true);
        assert_eq!(block_on(late), Err(WaitError::Stopped));
        assert!(!flight.request(|_| {}));
    }

    #[test]
    fn overdue_waiters_end_with_the_next_one_if_the_task_is_not_polled() {
        struct Notifier(std::sync::mpsc::Sender<()>);
        impl std::task::Wake for Notifier {
            fn wake(self: Arc<Self>) {
                self.0.send(()).unwrap();
            }
        }
        let (flight, _leader) = Flight::new(MAX_WAITERS);
        let (sender, woken) = std::sync::mpsc::channel();
        let waker = Waker::from(Arc::new(Notifier(sender)));
        let mut overdue = wait(
            flight.try_subscribe(Duration::from_millis(5)).unwrap(),
            true,
        );
        let context = &mut Context::from_waker(&waker);
        assert!(overdue.as_mut().poll(context).is_pending());
        std::thread::sleep(Duration::from_millis(10));
        assert!(woken.try_recv().is_err(), "no task serves the deadline");
        let _next = flight.try_subscribe(LONG);
        assert!(woken.try_recv().is_ok());
        let ended = overdue.as_mut().poll(context);
        assert_eq!(ended, Poll::Ready(Err(WaitError::Elapsed)));
    }

    #[test]
    fn the_task_ends_with_the_last_handle_and_the_last_waiter() {
        let (flight, mut leader) = Flight::new(MAX_WAITERS);
        let waiting = wait(flight.subscribe(LONG), true);
        drop(flight);
        let mut abandoned = Box::pin(leader.abandoned());
        let context = &mut Context::from_waker(Waker::noop());
        assert!(abandoned.as_mut().poll(context).is_pending());
        drop(waiting);
        assert!(abandoned.as_mut().poll(context).is_ready());
    }

    /// Waiters on threads without a runtime, a task on a tokio runtime, and dropped waits.
    #[test]
    fn concurrent_waiters_get_results_of_later_operations() {
        const THREADS: usize = 4;
        let (flight, mut leader) = Flight::new(THREADS);
        let task = std::thread::spawn(move || {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = runtime.enable_time().build().unwrap();
            runtime.block_on(async {
                let deadlines = leader.deadlines();
                let operations = async {
                    while leader.requested().await.is_some() {
                        leader.begin();
                        tokio::task::yield_now().await;
                        finish(&leader);
                    }
                };
                deadlines.serve(operations).await;
            });
        });
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let flight = flight.clone();
                std::thread::spawn(move || {
                    for round in 0..500 {
                        let limit = if round % 5 == 0 { Duration::ZERO } else { LONG };
                        let waiter = flight.try_subscribe(limit).unwrap();
                        let before = waiter.began_before();
                        let mut waiting = wait(waiter, true);
                        if (round + thread) % 3 == 0 {
                            let _dropped = poll(&mut waiting);
                            continue;
                        }
                        match block_on(waiting) {
                            Ok(number) => assert!(number > before),
                            Err(error) => {
                                assert_eq!((error, limit), (WaitError::Elapsed, Duration::ZERO));
                            }
                        }
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(flight.0.waiter_permits.available_permits(), THREADS);
        drop(flight);
        task.join().unwrap();
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Subscribe { is_fresh: bool },
        Drop(usize),
        Begin,
        Finish,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            any::<bool>().prop_map(|is_fresh| Step::Subscribe { is_fresh }),
            (0..MAX_WAITERS).prop_map(Step::Drop),
            Just(Step::Begin),
            Just(Step::Finish),
        ]
    }

    proptest! {
        #[test]
        fn waits_end_exactly_with_the_first_operation_that_they_accept(
            steps in proptest::collection::vec(step(), 1..60)
        ) {
            let (flight, mut leader) = Flight::new(MAX_WAITERS);
            // The model: each wait with the number that its result must exceed.
            let mut waits: Vec<(u64, Wait)> = Vec::new();
            let (mut started, mut finished, mut requests) = (0, 0, 0);
            for step in steps {
                match step {
                    Step::Subscribe { is_fresh } => {
                        let waiter = flight.try_subscribe(LONG);
                        prop_assert_eq!(waiter.is_some(), waits.len() < MAX_WAITERS);
                        if let Some(waiter) = waiter {
                            let accept_after = if is_fresh { started } else { finished };
                            waits.push((accept_after, wait(waiter, is_fresh)));
                            requests += 1;
                        }
                    }
                    Step::Drop(index) if index < waits.len() => drop(waits.remove(index)),
                    Step::Begin if started == finished => {
                        leader.begin();
                        started += 1;
                    }
                    Step::Finish if started > finished => {
                        finish(&leader);
                        finished += 1;
                    }
                    _ => {}
                }
                prop_assert_eq!(leader.take_requests(), requests, "drops cancel nothing");
                let mut waiting = Vec::new();
                for (accept_after, mut wait) in waits {
                    match poll(&mut wait) {
                        Poll::Ready(number) => {
                            prop_assert_eq!(number, Ok(finished));
                            prop_assert!(finished > accept_after);
                        }
                        Poll::Pending => {
                            prop_assert!(finished <= accept_after);
                            waiting.push((accept_after, wait));
                        }
                    }
                }
                waits = waiting;
            }
        }
    }
}
