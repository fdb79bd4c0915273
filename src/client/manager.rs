//! The handle that callers hold: a token at once if there is one, else a wait for it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit, mpsc, watch};

use super::builder::TokenManagerBuilder;
use super::endpoint::TokenEndpoint;
use super::layer::BearerTokenLayer;
use super::renewal::RenewalPolicy;
use super::renewer::gone;
use super::shared::{Held, Progress, Refusal, Shared};
use super::{AccessToken, ClientCredentials};
use crate::error::{ConfigError, Error, ErrorKind, Operation};
use crate::oauth::{Endpoint, Issuer};

/// The longest that a call waits for the successor of a refused token.
const SUCCESSOR_WAIT: Duration = Duration::from_secs(5);

/// The longest wait for the successor of a refused token, where a token request may take so long.
pub(super) fn successor_wait(request_timeout: Duration) -> Duration {
    request_timeout.min(SUCCESSOR_WAIT)
}

/// Obtains an access token with the client credentials grant, and keeps it fresh
/// ([RFC 6749 §4.4](https://www.rfc-editor.org/rfc/rfc6749#section-4.4)).
///
/// One token request serves any number of callers, and the token is renewed before it expires
/// for as long as it is used. A handle on shared state: cheap to clone; the task behind it ends
/// with the last clone, layers and services made from it included.
///
/// A manager asks for one grant: for other scopes, audiences or resources make another manager.
///
/// # Examples
///
/// ```
/// # async fn example() -> Result<(), tower_oauth::BoxError> {
/// use tower_oauth::{ClientCredentials, Issuer, TokenManager};
///
/// let credentials = ClientCredentials::new("my-client-id", "my-secret");
/// let tokens = TokenManager::for_issuer(Issuer::new("https://as.example")?, credentials)?.start()?;
///
/// // With reqwest, or any other client that is no tower service:
/// let token = tokens.access_token().await?;
/// let _request = reqwest::Client::new().get("https://orders.example/").bearer_auth(token.expose_secret());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct TokenManager(Arc<Handle>);

/// The task ends when this is dropped, with the only sender of `demand`.
#[derive(Debug)]
struct Handle {
    shared: Arc<Shared>,
    demand: mpsc::Sender<()>,
    progress: watch::Receiver<Progress>,
    /// Places for the calls that wait.
    places: Semaphore,
    /// The longest that a call waits for a token.
    token_wait: Duration,
    /// The longest that a call waits for the successor of a refused token.
    successor_wait: Duration,
}

impl TokenManager {
    /// Settings for a manager that asks this token endpoint.
    pub fn builder(
        token_endpoint: Endpoint,
        credentials: ClientCredentials,
    ) -> TokenManagerBuilder {
        TokenManagerBuilder::new(TokenEndpoint::Fixed(token_endpoint), credentials)
    }

    /// Settings for a manager that looks the token endpoint up in the issuer's metadata
    /// ([RFC 8414 §2](https://www.rfc-editor.org/rfc/rfc8414#section-2)) when it first needs it, and
    /// again with the first token request after an hour, or after one that failed in a way which
    /// may mean that the endpoint has moved. If the metadata cannot be had then, tokens are
    /// asked for where they were.
    ///
    /// An issuer that publishes no metadata (each well-known place answers 404) is asked at
    /// `{issuer}/token`, and the error of a failed request says that this URL is a guess. Metadata
    /// that name another issuer are an error of kind
    /// [`IssuerMismatch`](ErrorKind::IssuerMismatch) that names both, and nothing is sent;
    /// metadata that cannot be read, or that lack `token_endpoint`, are an error, too.
    ///
    /// An App ID base of version 3 (`…/oauth/v3/{tenant}`) is no issuer identifier: use
    /// [`Binding::token_manager`](crate::app_id::Binding::token_manager), or
    /// [`builder`](Self::builder)
    /// with [`Binding::token_endpoint`](crate::app_id::Binding::token_endpoint).
    ///
    /// # Errors
    ///
    /// If the issuer is no `https` URL (or `http` on loopback).
    pub fn for_issuer(
        issuer: Issuer,
        credentials: ClientCredentials,
    ) -> Result<TokenManagerBuilder, ConfigError> {
        let base = Endpoint::new(issuer.as_str()).map_err(|error| error.for_setting("issuer"))?;
        let guess = base.join_path("token")?;
        Ok(TokenManagerBuilder::new(
            TokenEndpoint::discovered(issuer, guess),
            credentials,
        ))
    }

    pub(super) fn new(
        shared: Arc<Shared>,
        demand: mpsc::Sender<()>,
        progress: watch::Receiver<Progress>,
        policy: &RenewalPolicy,
        max_waiters: usize,
    ) -> Self {
        let places = Semaphore::new(max_waiters.min(Semaphore::MAX_PERMITS));
        // The task gives up first, and with a better reason.
        let token_wait = policy
            .acquire_timeout
            .saturating_add(Duration::from_secs(2));
        let successor_wait = successor_wait(policy.attempt);
        Self(Arc::new(Handle {
            shared,
            demand,
            progress,
            places,
            token_wait,
            successor_wait,
        }))
    }

    /// An access token that is not about to expire: at once if there is one, else the answer to the
    /// one token request that is under way.
    ///
    /// Cancel it at any time; the request goes on for the others.
    ///
    /// # Errors
    ///
    /// If the authorization server refused, see [`Error::oauth_error`]; if it could not be
    /// reached or did not answer usefully until
    /// [`acquire_timeout`](TokenManagerBuilder::acquire_timeout); of kind
    /// [`Overloaded`](ErrorKind::Overloaded), at once, if it would have to wait and
    /// [`max_waiters`](TokenManagerBuilder::max_waiters) calls wait already; if the task behind is
    /// gone.
    pub async fn access_token(&self) -> Result<AccessToken, Error> {
        match self.current() {
            Some(token) => Ok(token),
            None => self.wait().await,
        }
    }

    /// The token, if there is one to be used at once. Takes no lock.
    pub(super) fn current(&self) -> Option<AccessToken> {
        self.0.shared.current(|held| {
            if held.first_use() {
                // The time to renew may have passed while no call asked for it.
                let _the_task_is_awake_already = self.ring();
            }
            held.token()
        })
    }

    /// Wakes the task. `false` if it has ended.
    fn ring(&self) -> bool {
        !matches!(
            self.0.demand.try_send(()),
            Err(mpsc::error::TrySendError::Closed(()))
        )
    }

    /// A place to wait in, until it is dropped.
    fn place(&self) -> Result<SemaphorePermit<'_>, Error> {
        self.0
            .places
            .try_acquire()
            .map_err(|_| Error::new(Operation::TokenRequest, ErrorKind::Overloaded))
    }

    /// Wakes the task, and waits for the answer.
    async fn wait(&self) -> Result<AccessToken, Error> {
        let _place = self.place()?;
        // Subscribed before the task is woken, so that no answer is missed.
        let mut progress = self.0.progress.clone();
        let answers = progress.borrow_and_update().answers;
        // It may have come before the subscription.
        if let Some(token) = self.current() {
            return Ok(token);
        }
        if !self.ring() {
            return Err(gone());
        }
        let answer = async {
            loop {
                progress.changed().await.map_err(|_| gone())?;
                let seen = progress.borrow_and_update();
                if let Some(answer) = seen.answer.as_ref().filter(|_| seen.answers != answers) {
                    return answer.clone();
                }
            }
        };
        let token = tokio::time::timeout(self.0.token_wait, answer)
            .await
            .map_err(|_| Error::new(Operation::TokenRequest, ErrorKind::Timeout))??;
        // Counts as a use, so that it is renewed ahead of time.
        let _ = self.current();
        Ok(token)
    }

    /// Reports that a resource server refused this token: its renewal begins now. Returns whether a
    /// call with another token is worth a try: this one has a successor, or one is being requested,
    /// or the token is not kept because the server does not say how long it lives, so that the
    /// next call requests one.
    ///
    /// Until the successor is there, [`access_token`](Self::access_token) returns the refused
    /// token: another resource server may accept it. [`replace`](Self::replace) waits for the
    /// successor. A renewal that fails is tried again with backoff, as any renewal.
    ///
    /// Only the current token is renewed, and within ten seconds of a replacement there is no other
    /// one: then no token request is made, and this returns `false`. So a resource server that
    /// refuses every token causes no flood of token requests.
    ///
    /// [`BearerTokenLayer`] calls this for every refusal that names the token.
    ///
    /// ```
    /// use tower_oauth::authorization_server::{AuthorizationServer, EndpointKind};
    /// use tower_oauth::TokenManager;
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// let issuer = AuthorizationServer::builder().build()?;
    /// let shop = issuer.register("shop")?;
    /// let tokens = TokenManager::builder(issuer.token_endpoint(), shop.credentials());
    /// let tokens = tokens.transport(issuer.transport()).start()?;
    ///
    /// let first = tokens.access_token().await?;
    /// assert!(tokens.invalidate(&first));
    /// // It serves on until its successor is there.
    /// assert_eq!(tokens.access_token().await?.expose_secret(), first.expose_secret());
    /// let second = tokens.replace(&first).await.ok_or("no other token")?;
    /// assert_eq!(issuer.requests(EndpointKind::Token), 2);
    /// // The successor is not replaced within ten seconds.
    /// assert!(!tokens.invalidate(&second));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use = "there may be no other token to try with"]
    pub fn invalidate(&self, token: &AccessToken) -> bool {
        let shared = &self.0.shared;
        match shared.refuse(token) {
            Refusal::Replaced(_) => true,
            Refusal::TooSoon => false,
            Refusal::Pending { is_noted } => {
                // Counts as a use, so that it is renewed. A token that is not kept needs no
                // renewal.
                if shared.current(Held::first_use).is_some() && !is_noted {
                    let _the_task_is_awake_already = self.ring();
                }
                true
            }
        }
    }

    /// [Rejects](Self::invalidate) this token and waits for its successor, for 5 seconds at most, or
    /// for [`request_timeout`](TokenManagerBuilder::request_timeout) if that is shorter. `None`
    /// as soon as it is clear that there is none to be had in that time: the token endpoint is
    /// down, it refused, a token was replaced less than ten seconds ago, or
    /// [`max_waiters`](TokenManagerBuilder::max_waiters) calls wait already.
    ///
    /// Then the response of the resource server is all that there is, and the caller's to deal
    /// with.
    pub async fn replace(&self, refused: &AccessToken) -> Option<AccessToken> {
        // Subscribed before the rejection, so that no answer is missed.
        let mut progress = self.0.progress.clone();
        let (answers, failures) = {
            let seen = progress.borrow_and_update();
            (seen.answers, seen.failures)
        };
        let is_noted = match self.0.shared.refuse(refused) {
            Refusal::Replaced(successor) => return Some(successor),
            Refusal::TooSoon => return None,
            Refusal::Pending { is_noted } => is_noted,
        };
        // Counts as a use. A token that is not kept is requested by each call that needs one.
        let is_known = self.0.shared.current(Held::first_use).is_some() && is_noted;
        if !is_known && !self.ring() {
            return None;
        }
        let _place = self.place().ok()?;
        let successor = async {
            loop {
                progress.changed().await.ok()?;
                let seen = progress.borrow_and_update();
                match &seen.answer {
                    Some(Ok(token)) if seen.answers != answers && !token.is(refused) => {
                        return Some(token.clone());
                    }
                    Some(Err(_)) if seen.answers != answers => return None,
                    _ if seen.failures != failures => return None,
                    _ => {}
                }
            }
        };
        let successor = tokio::time::timeout(self.0.successor_wait, successor)
            .await
            .ok()??;
        // Counts as a use, so that it is renewed ahead of time.
        let _ = self.current();
        Some(successor)
    }

    /// A layer that puts the token on requests to these origins, and to no other
    /// (scheme, host and port count, paths do not).
    ///
    /// ```
    /// # async fn example() -> Result<(), tower_oauth::BoxError> {
    /// use tower::ServiceBuilder;
    /// use tower_oauth::{ClientCredentials, Endpoint, Issuer, TokenManager};
    /// # use bytes::Bytes; use http_body_util::Full;
    /// # use hyper_util::{client::legacy::Client, rt::TokioExecutor};
    ///
    /// let credentials = ClientCredentials::new("my-client-id", "my-secret");
    /// let tokens = TokenManager::for_issuer(Issuer::new("https://as.example")?, credentials)?.start()?;
    /// let orders = Endpoint::new("https://orders.example")?;
    /// let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    /// let client = ServiceBuilder::new().layer(tokens.layer([orders])).service(client);
    /// # let _ = client;
    /// # Ok(())
    /// # }
    /// ```
    pub fn layer(&self, origins: impl IntoIterator<Item = Endpoint>) -> BearerTokenLayer {
        BearerTokenLayer::new(self.clone(), origins)
    }
}
