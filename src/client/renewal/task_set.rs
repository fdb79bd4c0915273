//! Several tasks as one future, which polls only those that were woken.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

/// Completes when all tasks have completed.
pub(super) struct TaskSet<F> {
    tasks: Vec<Task<F>>,
    /// The waker of the set.
    waker: Arc<Mutex<Waker>>,
}

struct Task<F> {
    future: Pin<Box<F>>,
    waker: Arc<TaskWaker>,
}

/// Marks its task as woken, and wakes the set.
struct TaskWaker {
    is_woken: AtomicBool,
    set: Arc<Mutex<Waker>>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.is_woken.store(true, Ordering::Release);
        // A waker may run any code, so not under the lock.
        let set = lock(&self.set).clone();
        set.wake();
    }
}

fn lock(waker: &Mutex<Waker>) -> MutexGuard<'_, Waker> {
    waker.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<F> TaskSet<F> {
    pub(super) fn new(tasks: impl IntoIterator<Item = F>) -> Self {
        let waker = Arc::new(Mutex::new(Waker::noop().clone()));
        let task = |future| Task {
            future: Box::pin(future),
            waker: Arc::new(TaskWaker {
                is_woken: AtomicBool::new(true),
                set: Arc::clone(&waker),
            }),
        };
        Self {
            tasks: tasks.into_iter().map(task).collect(),
            waker,
        }
    }
}

impl<F: Future<Output = ()>> Future for TaskSet<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        // Before the tasks are looked at: a task that is woken later wakes the set.
        let previous = {
            let mut waker = lock(&self.waker);
            let is_same = waker.will_wake(cx.waker());
            (!is_same).then(|| std::mem::replace(&mut *waker, cx.waker().clone()))
        };
        drop(previous);
        self.tasks.retain_mut(|task| {
            if !task.waker.is_woken.swap(false, Ordering::AcqRel) {
                return true;
            }
            let waker = Waker::from(Arc::clone(&task.waker));
            let future = task.future.as_mut();
            future.poll(&mut Context::from_waker(&waker)).is_pending()
        });
        if self.tasks.is_empty() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::atomic::AtomicUsize;

    use futures_executor::block_on;
    use proptest::prelude::*;
    use tokio::sync::oneshot;

    use super::*;

    #[test]
    fn only_a_task_that_was_woken_is_polled() {
        let polls: Vec<_> = (0..3).map(|_| Arc::new(AtomicUsize::new(0))).collect();
        let wakers: Vec<_> = polls.iter().map(|_| Arc::new(Mutex::default())).collect();
        let tasks = polls.iter().zip(&wakers).map(|(polls, waker)| {
            let (polls, waker) = (Arc::clone(polls), Arc::clone(waker));
            poll_fn(move |cx| {
                polls.fetch_add(1, Ordering::SeqCst);
                *waker.lock().unwrap() = Some(cx.waker().clone());
                Poll::<()>::Pending
            })
        });
        let mut set = TaskSet::new(tasks);
        let mut poll = || Pin::new(&mut set).poll(&mut Context::from_waker(Waker::noop()));
        let counts = || -> Vec<_> { polls.iter().map(|n| n.load(Ordering::SeqCst)).collect() };
        let wake = |task: usize| {
            let waker: &Mutex<Option<Waker>> = &wakers[task];
            waker.lock().unwrap().as_ref().unwrap().wake_by_ref();
        };
        assert!(poll().is_pending());
        assert_eq!(counts(), [1, 1, 1]);
        assert!(poll().is_pending());
        assert_eq!(counts(), [1, 1, 1]);
        wake(1);
        wake(1);
        assert!(poll().is_pending());
        assert_eq!(counts(), [1, 2, 1]);
        wake(0);
        wake(2);
        assert!(poll().is_pending());
        assert_eq!(counts(), [2, 2, 2]);
    }

    #[test]
    fn the_last_waker_of_the_set_is_woken() {
        struct Count(AtomicUsize);
        impl Wake for Count {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::SeqCst);
            }
        }
        let (sender, receiver) = oneshot::channel::<()>();
        let mut set = TaskSet::new([async { receiver.await.unwrap() }]);
        let [first, last] = [(); 2].map(|()| Arc::new(Count(AtomicUsize::new(0))));
        for waker in [&first, &last] {
            let waker = Waker::from(Arc::clone(waker));
            let polled = Pin::new(&mut set).poll(&mut Context::from_waker(&waker));
            assert!(polled.is_pending());
        }
        sender.send(()).unwrap();
        assert_eq!(first.0.load(Ordering::SeqCst), 0);
        assert_eq!(last.0.load(Ordering::SeqCst), 1);
    }

    proptest! {
        /// In any order, from another thread.
        #[test]
        fn the_set_completes_when_all_tasks_have_completed(
            order in Just((0..5_usize).collect::<Vec<_>>()).prop_shuffle(),
        ) {
            let (senders, receivers): (Vec<_>, Vec<_>) =
                (0..5).map(|_| oneshot::channel::<()>()).unzip();
            let set = TaskSet::new(receivers.into_iter().map(|receiver| async {
                receiver.await.unwrap();
            }));
            let mut senders: Vec<_> = senders.into_iter().map(Some).collect();
            let thread = std::thread::spawn(move || {
                for task in order {
                    senders[task].take().unwrap().send(()).unwrap();
                }
            });
            block_on(set);
            thread.join().unwrap();
        }
    }
}
