//! How many signatures are verified at the same time, where that was limited.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Requests that may wait for a turn. The others are turned away: what waits takes memory, and
/// has been given up by its caller before it is served.
const MAX_WAITING: usize = 1024;

/// Who may verify a signature now.
#[derive(Debug)]
pub(super) struct Turns(Option<Limited>);

#[derive(Debug)]
struct Limited {
    verifying: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
}

/// Leave to verify one signature, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn(
    #[expect(dead_code, reason = "held, not read")] Option<OwnedSemaphorePermit>,
);

/// All others verify.
#[derive(Debug)]
pub(super) enum NoTurn {
    /// Wait here.
    Queue(Queue),
    /// Too many wait already.
    Full,
}

/// Ends with the turn, first come, first served.
pub(super) struct Queue(Pin<Box<dyn Future<Output = Turn> + Send>>);

impl Turns {
    pub(super) fn new(limit: Option<usize>) -> Self {
        Self(limit.map(|limit| Limited {
            verifying: Arc::new(Semaphore::new(limit.clamp(1, Semaphore::MAX_PERMITS))),
            waiting: Arc::new(Semaphore::new(MAX_WAITING)),
        }))
    }

    pub(super) fn are_limited(&self) -> bool {
        self.0.is_some()
    }

    pub(super) fn take(&self) -> Result<Turn, NoTurn> {
        let Some(Limited { verifying, waiting }) = &self.0 else {
            return Ok(Turn(None));
        };
        if let Ok(permit) = Arc::clone(verifying).try_acquire_owned() {
            return Ok(Turn(Some(permit)));
        }
        let Ok(place) = Arc::clone(waiting).try_acquire_owned() else {
            return Err(NoTurn::Full);
        };
        let turn = Arc::clone(verifying).acquire_owned();
        Err(NoTurn::Queue(Queue(Box::pin(async move {
            // It is never closed.
            let permit = turn.await.ok();
            drop(place);
            Turn(permit)
        }))))
    }
}

impl Future for Queue {
    type Output = Turn;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Turn> {
        self.0.as_mut().poll(cx)
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").finish_non_exhaustive()
    }
}
