//! What the handles and the task share: the current token, and the last one that was refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwapOption, Guard};

use super::AccessToken;
use crate::clock::{Clock, UnixTime};
use crate::error::Error;

/// A resource server that refuses every token must not become a flood of token requests: after a
/// refused token was replaced, or could not be, none is replaced for that reason for so long.
const REJECTIONS_APART: Duration = Duration::from_secs(10);

/// What the handles and the task share. Reading and writing it takes no lock.
#[derive(Debug)]
pub(super) struct Shared {
    held: ArcSwapOption<Held>,
    rejection: ArcSwapOption<Rejection>,
    pub(super) clock: Arc<dyn Clock>,
}

/// The current token.
#[derive(Debug)]
pub(super) struct Held {
    token: AccessToken,
    /// Wall time, so that a machine that slept does not use what expired meanwhile.
    usable_until: UnixTime,
    used: AtomicBool,
}

/// A token that a resource server refused, and its renewal.
#[derive(Debug)]
struct Rejection {
    token: AccessToken,
    at: UnixTime,
    /// Whether the task knows of it.
    is_noted: AtomicBool,
    /// Whether its successor could not be had when that was tried.
    is_failed: AtomicBool,
    /// Whether its successor is there.
    is_replaced: bool,
}

/// What becomes of a refused token.
#[derive(Debug)]
pub(super) enum Refusal {
    /// It has a successor already.
    Replaced(AccessToken),
    /// Its successor is to be requested now, or has been if the task knows of it.
    Pending { is_noted: bool },
    /// Another token was replaced too short a time ago, or this one could not be.
    TooSoon,
}

/// What waiting calls see of the task.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// How often those who wait for a token have been answered, and how the last time.
    pub(super) answers: u64,
    pub(super) answer: Option<Result<AccessToken, Error>>,
    /// How many attempts to renew a refused token have failed.
    pub(super) failures: u64,
}

impl Held {
    /// `None` for a token of unknown life: it is not kept.
    pub(super) fn new(
        token: &AccessToken,
        lifetime: Option<Duration>,
        margin: Duration,
    ) -> Option<Self> {
        let usable_until = token
            .expires_at()?
            .saturating_sub(margin.min(lifetime? / 10));
        Some(Self {
            token: token.clone(),
            usable_until,
            used: AtomicBool::new(false),
        })
    }

    pub(super) fn token(&self) -> AccessToken {
        self.token.clone()
    }

    pub(super) fn is_used(&self) -> bool {
        self.used.load(Ordering::Relaxed)
    }

    /// Notes that it is used; returns whether it is the first time.
    pub(super) fn first_use(&self) -> bool {
        // Read before written: cores that share the line do not tear at it with every use.
        !self.is_used() && !self.used.swap(true, Ordering::Relaxed)
    }
}

impl Rejection {
    fn new(token: &AccessToken, at: UnixTime, is_replaced: bool) -> Self {
        Self {
            token: token.clone(),
            at,
            is_noted: AtomicBool::new(is_replaced),
            is_failed: AtomicBool::new(false),
            is_replaced,
        }
    }

    /// Less than [`REJECTIONS_APART`] ago.
    fn is_recent(&self, now: UnixTime) -> bool {
        now >= self.at && now.saturating_since(self.at) < REJECTIONS_APART
    }

    /// Whether the outcome of its renewal is known.
    fn is_settled(&self) -> bool {
        self.is_replaced || self.is_failed.load(Ordering::Acquire)
    }
}

impl Shared {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            held: ArcSwapOption::empty(),
            rejection: ArcSwapOption::empty(),
            clock,
        }
    }

    /// Looks at the current token, unless there is none or it is about to expire. Takes no lock.
    pub(super) fn current<T>(&self, look: impl FnOnce(&Held) -> T) -> Option<T> {
        let held = self.held.load();
        held.as_deref()
            .filter(|held| self.clock.now() < held.usable_until)
            .map(look)
    }

    /// Makes a new token the current one.
    pub(super) fn hold(&self, held: Held) {
        self.held.store(Some(Arc::new(held)));
    }

    /// Another token than this one, if it is the current one.
    fn successor(&self, token: &AccessToken) -> Option<AccessToken> {
        self.current(Held::token)
            .filter(|current| !current.is(token))
    }

    /// Notes that a resource server refused this token. It stays the current one.
    pub(super) fn refuse(&self, token: &AccessToken) -> Refusal {
        loop {
            if let Some(successor) = self.successor(token) {
                return Refusal::Replaced(successor);
            }
            let now = self.clock.now();
            let last = self.rejection.load();
            if let Some(recent) = last.as_ref().filter(|last| last.is_recent(now)) {
                if recent.token.is(token) && !recent.is_settled() {
                    return Refusal::Pending {
                        is_noted: recent.is_noted.load(Ordering::Acquire),
                    };
                }
                // The successor is there before its rejection is settled, so it is seen now.
                return self
                    .successor(token)
                    .map_or(Refusal::TooSoon, Refusal::Replaced);
            }
            let next = Some(Arc::new(Rejection::new(token, now, false)));
            let previous = self.rejection.compare_and_swap(&*last, next);
            if same(&previous, &last) {
                return Refusal::Pending { is_noted: false };
            }
            // Another call was faster.
        }
    }

    /// Whether the current token was refused, unless the task has noted that before.
    pub(super) fn note_refusal(&self) -> bool {
        let rejection = self.rejection.load();
        let unseen = rejection
            .as_ref()
            .filter(|rejection| !rejection.is_noted.swap(true, Ordering::AcqRel));
        unseen.is_some_and(|rejection| {
            self.current(|held| held.token.is(&rejection.token)) == Some(true)
        })
    }

    /// A new token was issued: what was refused before has its successor, if it is kept at all.
    /// Only a refusal from now on counts against the new one.
    pub(super) fn settle_replaced(&self) {
        let rejection = self.rejection.load();
        let Some(refused) = rejection
            .as_ref()
            .filter(|rejection| !rejection.is_replaced)
        else {
            return;
        };
        let replaced = Arc::new(Rejection::new(&refused.token, self.clock.now(), true));
        // A refusal at this very moment is one of the token that has just been replaced.
        let _previous = self.rejection.compare_and_swap(&*rejection, Some(replaced));
    }

    /// No successor can be had soon.
    pub(super) fn settle_failed(&self) {
        let rejection = self.rejection.load();
        // One that the task does not know of is still to be tried.
        let noted = rejection
            .as_ref()
            .filter(|rejection| rejection.is_noted.load(Ordering::Acquire));
        if let Some(rejection) = noted {
            rejection.is_failed.store(true, Ordering::Release);
        }
    }
}

/// Whether both are the same rejection.
fn same(a: &Guard<Option<Arc<Rejection>>>, b: &Guard<Option<Arc<Rejection>>>) -> bool {
    match (a.as_ref(), b.as_ref()) {
        (Some(a), Some(b)) => Arc::ptr_eq(a, b),
        (None, None) => true,
        _ => false,
    }
}
