//! State shared by the handles and the task: the current token and the last invalidation.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwapOption, Guard};

use super::AccessToken;
use super::lifetime::usable_until;
use crate::clock::{Clock, UnixTime};
use crate::error::Error;
use crate::single_flight::{Leader, SingleFlight};

/// Minimum time between one invalidation, or the replacement of its token, and the next, so that a
/// resource server that rejects every token does not cause a loop of token requests.
pub(super) const MIN_INVALIDATION_INTERVAL: Duration = Duration::from_secs(10);

/// The state shared by the handles and the task. Lock-free.
#[derive(Debug)]
pub(super) struct SharedState {
    current_token: ArcSwapOption<CurrentToken>,
    invalidation: ArcSwapOption<Invalidation>,
    pub(super) clock: Arc<dyn Clock>,
}

/// The current token.
#[derive(Debug)]
pub(super) struct CurrentToken {
    token: AccessToken,
    /// Wall time, so that a token that expired while the machine slept is not used.
    usable_until: UnixTime,
    used: AtomicBool,
}

/// A token that a resource server rejected, and the state of its replacement.
#[derive(Debug)]
struct Invalidation {
    token: AccessToken,
    at: UnixTime,
    /// Whether the task has seen it.
    is_acknowledged: AtomicBool,
    /// Whether an attempt to replace the token failed.
    is_failed: AtomicBool,
    /// Whether the token has a successor.
    is_replaced: bool,
}

/// The result of [`SharedState::invalidate`].
#[derive(Debug)]
pub(super) enum InvalidationResult {
    /// The token already has this successor.
    Replaced(AccessToken),
    /// The successor has to be requested. If the invalidation is acknowledged, the task already
    /// does so.
    Pending { is_acknowledged: bool },
    /// Another token was invalidated or replaced less than [`MIN_INVALIDATION_INTERVAL`] ago, or
    /// this one could not be replaced.
    RateLimited,
}

/// Wakes the task, and brings its results to waiting calls.
pub(super) type RenewalFlight = SingleFlight<(), RenewalResults>;

/// The task's side of [`RenewalFlight`].
pub(super) type RenewalLeader = Leader<(), RenewalResults>;

/// The results that the task publishes to waiting calls.
#[derive(Debug, Default)]
pub(super) struct RenewalResults {
    /// Number of results so far.
    pub(super) count: u64,
    pub(super) latest: Option<Result<AccessToken, Error>>,
    /// Number of failed attempts to replace an invalidated token.
    pub(super) failed_replacements: u64,
}

impl RenewalResults {
    /// The latest result, if there were more than `count`.
    pub(super) fn after(&self, count: u64) -> Option<&Result<AccessToken, Error>> {
        self.latest.as_ref().filter(|_| self.count != count)
    }
}

impl CurrentToken {
    /// `None` for a token without a lifetime: it is not stored.
    pub(super) fn new(token: &AccessToken, lifetime: Option<Duration>) -> Option<Self> {
        Some(Self {
            token: token.clone(),
            usable_until: usable_until(token.expires_at()?, lifetime?),
            used: AtomicBool::new(false),
        })
    }

    pub(super) fn token(&self) -> AccessToken {
        self.token.clone()
    }

    pub(super) fn is_used(&self) -> bool {
        self.used.load(Ordering::Relaxed)
    }

    /// Marks the token as used. Returns whether this is the first use.
    pub(super) fn mark_used(&self) -> bool {
        // Read first: a write on every use would bounce the cache line between cores.
        !self.is_used() && !self.used.swap(true, Ordering::Relaxed)
    }
}

impl Invalidation {
    fn new(token: &AccessToken, at: UnixTime, is_replaced: bool) -> Self {
        Self {
            token: token.clone(),
            at,
            is_acknowledged: AtomicBool::new(is_replaced),
            is_failed: AtomicBool::new(false),
            is_replaced,
        }
    }

    /// Less than [`MIN_INVALIDATION_INTERVAL`] ago.
    fn is_recent(&self, now: UnixTime) -> bool {
        now >= self.at && now.saturating_since(self.at) < MIN_INVALIDATION_INTERVAL
    }

    /// Whether the replacement has succeeded or failed.
    fn is_complete(&self) -> bool {
        self.is_replaced || self.is_failed.load(Ordering::Acquire)
    }
}

impl SharedState {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            current_token: ArcSwapOption::empty(),
            invalidation: ArcSwapOption::empty(),
            clock,
        }
    }

    /// Reads the current token. `None` if there is none or it is about to expire.
    pub(super) fn with_current<T>(&self, read: impl FnOnce(&CurrentToken) -> T) -> Option<T> {
        let current = self.current_token.load();
        current
            .as_deref()
            .filter(|current| self.clock.now() < current.usable_until)
            .map(read)
    }

    /// Makes a new token the current one.
    pub(super) fn set_current(&self, current: CurrentToken) {
        self.current_token.store(Some(Arc::new(current)));
    }

    /// The current token, if it is another one than `token`.
    fn successor(&self, token: &AccessToken) -> Option<AccessToken> {
        self.with_current(CurrentToken::token)
            .filter(|current| !current.is(token))
    }

    /// Records that a resource server rejected this token, which stays the current one.
    pub(super) fn invalidate(&self, token: &AccessToken) -> InvalidationResult {
        loop {
            if let Some(successor) = self.successor(token) {
                return InvalidationResult::Replaced(successor);
            }
            let now = self.clock.now();
            let last = self.invalidation.load();
            if let Some(recent) = last.as_ref().filter(|last| last.is_recent(now)) {
                if recent.token.is(token) && !recent.is_complete() {
                    return InvalidationResult::Pending {
                        is_acknowledged: recent.is_acknowledged.load(Ordering::Acquire),
                    };
                }
                // The successor is stored before the invalidation completes: check again.
                return self.successor(token).map_or(
                    InvalidationResult::RateLimited,
                    InvalidationResult::Replaced,
                );
            }
            let next = Some(Arc::new(Invalidation::new(token, now, false)));
            let previous = self.invalidation.compare_and_swap(&*last, next);
            if is_same(&previous, &last) {
                return InvalidationResult::Pending {
                    is_acknowledged: false,
                };
            }
            // Lost the race against another call: try again.
        }
    }

    /// Acknowledges an invalidation. Returns whether it is new and is of the current token.
    pub(super) fn acknowledge_invalidation(&self) -> bool {
        let invalidation = self.invalidation.load();
        let new = invalidation
            .as_ref()
            .filter(|invalidation| !invalidation.is_acknowledged.swap(true, Ordering::AcqRel));
        new.is_some_and(|invalidation| {
            self.with_current(|current| current.token.is(&invalidation.token)) == Some(true)
        })
    }

    /// Whether this token was invalidated and has no successor yet.
    pub(super) fn is_invalidated(&self, token: &AccessToken) -> bool {
        let invalidation = self.invalidation.load();
        invalidation
            .as_ref()
            .is_some_and(|invalidation| !invalidation.is_replaced && invalidation.token.is(token))
    }

    /// Marks the invalidated token as replaced, after a new token was issued. Only a later
    /// invalidation applies to the new token.
    pub(super) fn complete_invalidation(&self) {
        let invalidation = self.invalidation.load();
        let Some(pending) = invalidation
            .as_ref()
            .filter(|invalidation| !invalidation.is_replaced)
        else {
            return;
        };
        let replaced = Arc::new(Invalidation::new(&pending.token, self.clock.now(), true));
        // A concurrent invalidation is of the token that has just been replaced: ignore a failed
        // exchange.
        let _previous = self
            .invalidation
            .compare_and_swap(&*invalidation, Some(replaced));
    }

    /// Marks the replacement of the invalidated token as failed.
    pub(super) fn fail_invalidation(&self) {
        let invalidation = self.invalidation.load();
        // The task has not yet tried to replace a token whose invalidation it has not seen.
        let acknowledged = invalidation
            .as_ref()
            .filter(|invalidation| invalidation.is_acknowledged.load(Ordering::Acquire));
        if let Some(invalidation) = acknowledged {
            invalidation.is_failed.store(true, Ordering::Release);
        }
    }
}

/// Whether both are the same invalidation.
fn is_same(a: &Guard<Option<Arc<Invalidation>>>, b: &Guard<Option<Arc<Invalidation>>>) -> bool {
    match (a.as_ref(), b.as_ref()) {
        (Some(a), Some(b)) => Arc::ptr_eq(a, b),
        (None, None) => true,
        _ => false,
    }
}
