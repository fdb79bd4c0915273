//! Keeps a token without a task: the call that needs another token fetches it.
//!
//! A management client makes few calls, from programs of any kind, so nothing polls a
//! [`Renewer`](crate::client::Renewer) for it. A renewer that only these calls polled would stop in
//! the middle of an exchange between two calls.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::Mutex;

use crate::client::{TokenResponse, TokenSource};
use crate::clock::{Clock, UnixTime};
use crate::error::Error;

/// Minimum time between two fetches that rejections of a token cause.
const MIN_REPLACEMENT_INTERVAL: Duration = Duration::from_secs(10);

/// How long before its expiry a token is renewed.
const RENEWAL_LEAD: Duration = Duration::from_secs(60);

/// The last token of a source.
pub(super) struct OnDemandToken {
    source: Box<dyn TokenSource>,
    clock: Arc<dyn Clock>,
    current: ArcSwapOption<CurrentToken>,
    /// Locked while a token is fetched, so that concurrent calls share one fetch.
    history: Mutex<History>,
}

struct CurrentToken {
    token: SecretString,
    renew_at: UnixTime,
    expires_at: UnixTime,
    is_rejected: AtomicBool,
}

/// The last fetches.
#[derive(Default)]
struct History {
    /// When a rejection last caused a fetch.
    replaced_at: Option<UnixTime>,
    /// The last fetch, if it failed.
    failure: Option<(UnixTime, Error)>,
}

impl OnDemandToken {
    pub(super) fn new(source: impl TokenSource, clock: Arc<dyn Clock>) -> Self {
        Self {
            source: Box::new(source),
            clock,
            current: ArcSwapOption::empty(),
            history: Mutex::default(),
        }
    }

    /// Returns the current token, or fetches another one if it is about to expire or was rejected.
    pub(super) async fn get(&self) -> Result<SecretString, Error> {
        let mut history = self.history.lock().await;
        let now = self.clock.now();
        let current = self.current.load_full();
        let is_replacement = current.as_ref().is_some_and(|current| {
            current.is_rejected.load(Ordering::Relaxed) && history.may_replace(now)
        });
        if let Some(current) = &current
            && now < current.renew_at
            && !is_replacement
        {
            return Ok(current.token.clone());
        }
        let failure = match history.recent_failure(now) {
            Some(failure) => failure,
            None => {
                let result = self.source.fetch().await;
                if is_replacement {
                    history.replaced_at = Some(now);
                }
                match result {
                    Ok(response) => {
                        history.failure = None;
                        let current = Arc::new(CurrentToken::new(&response, now));
                        self.current.store(Some(Arc::clone(&current)));
                        return Ok(current.token.clone());
                    }
                    Err(error) => {
                        history.failure = Some((now, error.clone()));
                        error
                    }
                }
            }
        };
        // The old token is used until it expires.
        current
            .filter(|current| now < current.expires_at)
            .map(|current| current.token.clone())
            .ok_or(failure)
    }

    /// Marks this token as rejected, if it is the current one.
    pub(super) fn invalidate(&self, token: &SecretString) {
        let current = self.current.load();
        let current = current
            .as_ref()
            .filter(|current| current.token.expose_secret() == token.expose_secret());
        if let Some(current) = current {
            current.is_rejected.store(true, Ordering::Relaxed);
        }
    }
}

impl CurrentToken {
    fn new(response: &TokenResponse, now: UnixTime) -> Self {
        let lifetime = response.expires_in().unwrap_or_default();
        Self {
            token: response.expose_secret().into(),
            // A token of unknown or short lifetime is used once.
            renew_at: now.saturating_add(lifetime.saturating_sub(RENEWAL_LEAD)),
            expires_at: now.saturating_add(lifetime),
            is_rejected: AtomicBool::new(false),
        }
    }
}

impl History {
    /// Whether no token was replaced in the last 10 seconds, so that a server that rejects every
    /// token does not cause a fetch for each call.
    fn may_replace(&self, now: UnixTime) -> bool {
        self.replaced_at
            .is_none_or(|last| now < last || now.saturating_since(last) >= MIN_REPLACEMENT_INTERVAL)
    }

    /// The error of a fetch that failed less than a second ago, which waiting calls share.
    fn recent_failure(&self, now: UnixTime) -> Option<Error> {
        let (at, error) = self.failure.as_ref()?;
        (*at == now).then(|| error.clone())
    }
}

impl fmt::Debug for OnDemandToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnDemandToken")
            .field("source", &self.source)
            .finish_non_exhaustive()
    }
}
