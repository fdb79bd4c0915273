//! An optional limit on concurrent signature verifications.

use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Requests that may wait for a permit. Further ones are rejected: a waiting request takes memory,
/// and in a longer queue its caller times out before it is served.
const MAX_WAITING: usize = 1024;

/// Hands out permits to verify signatures; without a limit it always has one. Clones share them.
#[derive(Clone, Debug)]
pub(super) struct VerificationLimit(Option<Semaphores>);

#[derive(Clone, Debug)]
struct Semaphores {
    verifying: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
}

/// Permits the verification of one signature; released on drop.
#[derive(Debug)]
pub(super) struct Permit(
    #[expect(dead_code, reason = "held, not read")] Option<OwnedSemaphorePermit>,
);

/// Why no permit is free now.
pub(super) enum Unavailable {
    /// The limit is reached; the future resolves to a permit.
    Wait(PermitFuture),
    /// [`MAX_WAITING`] requests wait already.
    Overloaded,
}

/// Resolves to a permit, in order of arrival.
pub(super) type PermitFuture = Pin<Box<dyn Future<Output = Permit> + Send>>;

impl Permit {
    /// A permit that is not counted.
    pub(super) fn uncounted() -> Self {
        Self(None)
    }
}

impl VerificationLimit {
    pub(super) fn new(limit: Option<usize>) -> Self {
        Self(limit.map(|limit| Semaphores {
            verifying: Arc::new(Semaphore::new(limit.clamp(1, Semaphore::MAX_PERMITS))),
            waiting: Arc::new(Semaphore::new(MAX_WAITING)),
        }))
    }

    pub(super) fn is_enabled(&self) -> bool {
        self.0.is_some()
    }

    pub(super) fn try_acquire(&self) -> Result<Permit, Unavailable> {
        let Some(Semaphores { verifying, waiting }) = &self.0 else {
            return Ok(Permit(None));
        };
        if let Ok(permit) = Arc::clone(verifying).try_acquire_owned() {
            return Ok(Permit(Some(permit)));
        }
        let Ok(waiting_permit) = Arc::clone(waiting).try_acquire_owned() else {
            return Err(Unavailable::Overloaded);
        };
        let permit = Arc::clone(verifying).acquire_owned();
        Err(Unavailable::Wait(Box::pin(async move {
            // The semaphore is never closed.
            let permit = permit.await.ok();
            drop(waiting_permit);
            Permit(permit)
        })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_share_the_permits() {
        let limit = VerificationLimit::new(Some(1));
        let clone = limit.clone();
        let permit = limit.try_acquire();
        assert!(permit.is_ok());
        assert!(matches!(clone.try_acquire(), Err(Unavailable::Wait(_))));
        drop(permit);
        assert!(clone.try_acquire().is_ok());
    }
}
