//! A limited number of token requests at a time.

use std::ops::Deref;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{Semaphore, SemaphorePermit};

use super::super::endpoint_source::TokenEndpointSource;

/// How many exchanges are sent at a time. A source sends one request at a time.
pub(super) const MAX_CONCURRENT_EXCHANGES: usize = 16;

/// The sources, each of which sends one exchange at a time.
pub(super) struct Sources {
    idle: Mutex<Vec<TokenEndpointSource>>,
    /// One for each idle source.
    permits: Semaphore,
}

/// A source that no other exchange uses. Dropping it returns it.
pub(super) struct AcquiredSource<'s> {
    source: Option<TokenEndpointSource>,
    sources: &'s Sources,
    /// Released after the source was returned.
    _permit: SemaphorePermit<'s>,
}

impl Sources {
    pub(super) fn new(sources: Vec<TokenEndpointSource>) -> Self {
        let permits = Semaphore::new(sources.len());
        let idle = sources.into();
        Self { idle, permits }
    }

    /// Waits for a source that is idle. The one that was used last comes first: its discovery is
    /// the most recent.
    pub(super) async fn acquire(&self) -> AcquiredSource<'_> {
        let permit = self.permits.acquire().await;
        let permit = permit.expect("the semaphore is never closed");
        let source = self.idle().pop();
        AcquiredSource {
            source,
            sources: self,
            _permit: permit,
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<TokenEndpointSource>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Deref for AcquiredSource<'_> {
    type Target = TokenEndpointSource;

    fn deref(&self) -> &TokenEndpointSource {
        self.source.as_ref().expect("each permit has a source")
    }
}

impl Drop for AcquiredSource<'_> {
    fn drop(&mut self) {
        self.sources.idle().extend(self.source.take());
    }
}
