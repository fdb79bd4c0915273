//! The handle of the token manager: returns the current token, or waits for one.

use std::sync::Arc;
use std::time::Duration;

use super::AccessToken;
use super::renewal::schedule::RenewalPolicy;
use super::scope_upgrade::{ScopeUpgrade, Step};
use super::state::{CurrentToken, InvalidationResult, RenewalFlight, SharedState};
use crate::error::{ConfigError, ConfigErrorKind, Error, ErrorKind, Operation};
use crate::oauth::{Origin, PlainHttp, Scope};
use crate::single_flight::WaitError;

/// Obtains an access token and renews it before it expires.
///
/// The default grant is client credentials
/// ([RFC 6749 §4.4](https://www.rfc-editor.org/rfc/rfc6749#section-4.4)). One token request serves
/// any number of callers. The token is renewed before it expires, for as long as it is used. This
/// is a handle on shared state and cheap to clone. Its task ends with the last clone, including the
/// clones in layers and services.
///
/// A manager obtains one token at a time. [`TokenManagers`](super::TokenManagers) holds several, for
/// other scopes, audiences or resources.
///
/// # Examples
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), tower_oauth::BoxError> {
/// # use tower_oauth::authorization_server::AuthorizationServer;
/// # use tower_oauth::resource_server::Algorithm;
/// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
/// # let shop = issuer.register("shop")?;
/// use tower_oauth::TokenManager;
///
/// let tokens = TokenManager::builder(issuer.token_endpoint(), shop.credentials())
///     .transport(issuer.transport()) // an `AuthorizationServer` in the same process
///     .start()?;
/// let token = tokens.access_token().await?;
///
/// // With reqwest, or any other client that is not a tower service:
/// let request = reqwest::Client::new()
///     .get("https://orders.example/")
///     .header("authorization", token.header_value())
///     .build()?;
/// assert!(request.headers()["authorization"].is_sensitive());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct TokenManager(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    state: Arc<SharedState>,
    /// Dropping this ends the task.
    flight: RenewalFlight,
    /// The longest that a call waits for a token.
    wait_timeout: Duration,
    /// The longest that a call waits for the successor of a rejected token.
    successor_timeout: Duration,
    /// Where a layer sends the token over plain `http`.
    plain_http: PlainHttp,
    /// The scopes that resource servers ask for.
    scope_upgrade: Arc<ScopeUpgrade>,
}

impl TokenManager {
    pub(super) fn new(
        state: Arc<SharedState>,
        flight: RenewalFlight,
        policy: &RenewalPolicy,
        plain_http: PlainHttp,
        scope_upgrade: Arc<ScopeUpgrade>,
    ) -> Self {
        // Longer than the limit of the task, whose error says more.
        let wait_timeout = policy
            .acquire_timeout
            .saturating_add(Duration::from_secs(2));
        let successor_timeout = policy.successor_timeout();
        Self(Arc::new(Inner {
            state,
            flight,
            wait_timeout,
            successor_timeout,
            plain_http,
            scope_upgrade,
        }))
    }

    pub(super) fn plain_http(&self) -> &PlainHttp {
        &self.0.plain_http
    }

    /// Whether a layer for these origins may ask for more scopes.
    pub(super) fn steps_up_for<'a>(&self, origins: impl IntoIterator<Item = &'a Origin>) -> bool {
        self.0.scope_upgrade.is_for(origins)
    }

    /// Returns a valid access token, and waits for one if necessary.
    ///
    /// Returns the current token at once unless it is about to expire. All waiting calls share one
    /// token request, which is not cancelled if this future is dropped.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use tower_oauth::authorization_server::AuthorizationServer;
    /// # use tower_oauth::resource_server::Algorithm;
    /// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
    /// # let shop = issuer.register("shop")?;
    /// use tower_oauth::TokenManager;
    /// use tower_oauth::authorization_server::EndpointKind;
    ///
    /// # let tokens = TokenManager::builder(issuer.token_endpoint(), shop.credentials());
    /// # let tokens = tokens.transport(issuer.transport()).start()?;
    /// // One token request serves all calls.
    /// let (first, second) = tokio::try_join!(tokens.access_token(), tokens.access_token())?;
    /// assert_eq!(first.expose_secret(), second.expose_secret());
    /// assert_eq!(issuer.requests(EndpointKind::Token), 1);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// - If the authorization server refuses the request: see [`Error::oauth_error`]. Further calls
    ///   within a second get the same error, and no request is sent.
    /// - If no token is issued within
    ///   [`acquire_timeout`](super::TokenManagerBuilder::acquire_timeout).
    /// - Of kind [`Overloaded`](ErrorKind::Overloaded), at once, if the call would have to wait and
    ///   [`max_waiters`](super::TokenManagerBuilder::max_waiters) calls wait already.
    /// - If the task has stopped.
    pub async fn access_token(&self) -> Result<AccessToken, Error> {
        match self.current() {
            Some(token) => Ok(token),
            None => self.wait().await,
        }
    }

    /// The current token, unless it is about to expire. Lock-free.
    pub(super) fn current(&self) -> Option<AccessToken> {
        self.0.state.with_current(|current| {
            if current.mark_used() {
                // Renewal pauses while the token is unused, and may be overdue.
                let _is_running = self.wake_task();
            }
            current.token()
        })
    }

    /// Wakes the task. `false` if it has ended.
    fn wake_task(&self) -> bool {
        self.0.flight.request(|()| {})
    }

    /// Wakes the task and waits for its next result.
    async fn wait(&self) -> Result<AccessToken, Error> {
        let error = |kind| Error::new(Operation::TokenRequest, kind);
        // Subscribe before waking the task, so that no result is missed.
        let waiter = self.0.flight.try_subscribe(self.0.wait_timeout);
        let mut waiter = waiter.ok_or_else(|| error(ErrorKind::Overloaded))?;
        let count = waiter.progress().state.count;
        // A token may have been stored before the subscription.
        if let Some(token) = self.current() {
            return Ok(token);
        }
        self.wake_task();
        let result = waiter.until(|results| results.state.after(count).cloned());
        let token = result.await.map_err(|ended| match ended {
            WaitError::Elapsed => error(ErrorKind::Timeout),
            WaitError::Stopped => task_stopped(),
        })??;
        // Counts as a use, so that the token is renewed before it expires.
        let _ = self.current();
        Ok(token)
    }

    /// Reports that a resource server rejected this token, and starts its renewal.
    ///
    /// Returns whether a retry with another token may succeed: this token has a successor, or one
    /// is being requested, or the token is not stored, so that the next call requests another one.
    ///
    /// Until the successor is issued, [`access_token`](Self::access_token) returns the invalidated
    /// token, because another resource server may accept it.
    /// [`invalidate_and_wait`](Self::invalidate_and_wait) waits for the successor. A failed
    /// renewal is retried with backoff, like any renewal.
    ///
    /// Invalidates exactly this token. At most one invalidation per 10 seconds takes effect:
    /// invalidations of other tokens return `false` and cause no token request, so that a resource
    /// server that rejects every token does not cause a loop of token requests.
    ///
    /// [`BearerTokenLayer`](super::BearerTokenLayer) calls this for each `invalid_token` challenge.
    ///
    /// ```
    /// # use tower_oauth::resource_server::Algorithm;
    /// use tower_oauth::authorization_server::{AuthorizationServer, EndpointKind};
    /// use tower_oauth::TokenManager;
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # // With RS256, two tokens of one second are the same token.
    /// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
    /// let shop = issuer.register("shop")?;
    /// let tokens = TokenManager::builder(issuer.token_endpoint(), shop.credentials());
    /// let tokens = tokens.transport(issuer.transport()).start()?;
    ///
    /// let first = tokens.access_token().await?;
    /// assert!(tokens.invalidate(&first));
    /// // The token stays in use until its successor is issued.
    /// assert_eq!(tokens.access_token().await?.expose_secret(), first.expose_secret());
    /// let second = tokens.invalidate_and_wait(&first).await.ok_or("no other token")?;
    /// assert_eq!(issuer.requests(EndpointKind::Token), 2);
    /// // The successor cannot be invalidated within 10 seconds.
    /// assert!(!tokens.invalidate(&second));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use = "a retry is useless if no other token is available"]
    pub fn invalidate(&self, token: &AccessToken) -> bool {
        let state = &self.0.state;
        match state.invalidate(token) {
            InvalidationResult::Replaced(_) => true,
            InvalidationResult::RateLimited => false,
            InvalidationResult::Pending { is_acknowledged } => {
                // Counts as a use, so that the token is renewed. A token that is not stored needs
                // no renewal.
                if state.with_current(CurrentToken::mark_used).is_some() && !is_acknowledged {
                    let _is_running = self.wake_task();
                }
                true
            }
        }
    }

    /// [Invalidates](Self::invalidate) this token and waits for its successor.
    ///
    /// Waits for at most 5 seconds, or for [`request_timeout`][timeout] if that is shorter. Returns
    /// `None` as soon as no successor can be expected in that time: the token request failed or
    /// brought the same token again, a token was replaced less than 10 seconds ago, or
    /// [`max_waiters`][waiters] calls wait already.
    /// The caller then has only the response of the resource server.
    ///
    /// [timeout]: super::TokenManagerBuilder::request_timeout
    /// [waiters]: super::TokenManagerBuilder::max_waiters
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use tower_oauth::authorization_server::AuthorizationServer;
    /// # use tower_oauth::resource_server::Algorithm;
    /// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
    /// # let shop = issuer.register("shop")?;
    /// use tower_oauth::TokenManager;
    ///
    /// # let tokens = TokenManager::builder(issuer.token_endpoint(), shop.credentials());
    /// # let tokens = tokens.transport(issuer.transport()).start()?;
    /// let first = tokens.access_token().await?;
    /// // A resource server responds with 401 `invalid_token`:
    /// let second = tokens.invalidate_and_wait(&first).await.ok_or("no other token")?;
    /// assert_ne!(first.expose_secret(), second.expose_secret());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn invalidate_and_wait(&self, token: &AccessToken) -> Option<AccessToken> {
        // Subscribe before invalidating, so that no result is missed.
        let waiter = self.0.flight.try_subscribe(self.0.successor_timeout);
        let (count, failed_replacements) = {
            let results = &self.0.flight.progress().state;
            (results.count, results.failed_replacements)
        };
        let is_acknowledged = match self.0.state.invalidate(token) {
            InvalidationResult::Replaced(successor) => return Some(successor),
            InvalidationResult::RateLimited => return None,
            InvalidationResult::Pending { is_acknowledged } => is_acknowledged,
        };
        // Counts as a use. A token that is not stored is requested again by each call.
        let is_renewing =
            self.0.state.with_current(CurrentToken::mark_used).is_some() && is_acknowledged;
        if !is_renewing {
            self.wake_task();
        }
        let mut waiter = waiter?;
        let successor = waiter.until(|results| {
            let results = &results.state;
            match results.after(count) {
                Some(Ok(new)) if !new.is(token) => Some(Some(new.clone())),
                Some(Err(_)) => Some(None),
                _ => (results.failed_replacements != failed_replacements).then_some(None),
            }
        });
        let successor = successor.await.ok()??;
        // Counts as a use, so that the token is renewed before it expires.
        let _ = self.current();
        Some(successor)
    }

    /// Reports that a resource server requires these scopes, for a token that serves later calls.
    pub(super) fn upgrade_scopes(&self, token: &AccessToken, required: &[Scope]) {
        let _no_retry = self.try_upgrade(token, required);
    }

    /// Waits for a token with these scopes, as long as for the successor of a rejected token.
    pub(super) async fn upgrade_scopes_and_wait(
        &self,
        token: &AccessToken,
        required: &[Scope],
    ) -> Option<AccessToken> {
        let waiter = self.0.flight.try_subscribe(self.0.successor_timeout);
        let Some(mut waiter) = waiter else {
            self.upgrade_scopes(token, required);
            return None;
        };
        let wider = waiter.until(|_| match self.try_upgrade(token, required) {
            Step::Begun | Step::Waiting => None,
            Step::Refused => Some(None),
            Step::Requested => Some(
                self.0
                    .state
                    .with_current(CurrentToken::token)
                    .filter(|current| !current.is(token)),
            ),
        });
        let wider = wider.await.ok()??;
        // Counts as a use, so that the token is renewed before it expires.
        let _ = self.current();
        Some(wider)
    }

    fn try_upgrade(&self, token: &AccessToken, required: &[Scope]) -> Step {
        let state = &self.0.state;
        let current = state.with_current(CurrentToken::token);
        let current = current.as_ref().unwrap_or(token);
        let step = self
            .0
            .scope_upgrade
            .begin(required, current, state.clock.now());
        if step == Step::Begun {
            self.wake_task();
        }
        step
    }
}

fn task_stopped() -> Error {
    ConfigError::without_value("token manager task", "has stopped")
        .with_kind(ConfigErrorKind::Unavailable)
        .into()
}
