//! The handle that callers hold: a token at once if there is one, else a wait for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::sync::{mpsc, watch};

use super::builder::TokenManagerBuilder;
use super::endpoint::TokenEndpoint;
use super::layer::BearerTokenLayer;
use super::renewer::gone;
use super::{AccessToken, ClientCredentials};
use crate::clock::{Clock, UnixTime};
use crate::error::{ConfigError, Error, ErrorKind, Operation};
use crate::oauth::{Endpoint, Issuer};

/// A token that replaced a rejected one is not given up again before this: a resource server
/// that rejects every token must not become a flood of token requests.
const REJECTIONS_APART: Duration = Duration::from_secs(10);

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
/// let tokens = TokenManager::discover(Issuer::new("https://as.example")?, credentials)?.start()?;
///
/// // With reqwest, or any other client that is no tower service:
/// let token = tokens.access_token().await?;
/// let _request = reqwest::Client::new().get("https://orders.example/").bearer_auth(token.expose_secret());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct TokenManager {
    shared: Arc<Shared>,
    demand: mpsc::Sender<()>,
    outcomes: watch::Receiver<Outcome>,
    /// The longest that a caller waits.
    patience: Duration,
}

/// The answer to those who wait.
pub(super) type Outcome = Option<Result<AccessToken, Error>>;

/// What the handles and the task share.
#[derive(Debug)]
pub(super) struct Shared {
    held: ArcSwapOption<Held>,
    /// Whether the token in hand replaced a rejected one, and when that was.
    rejected_at: ArcSwapOption<UnixTime>,
    pub(super) clock: Arc<dyn Clock>,
}

/// A token in hand.
#[derive(Debug)]
pub(super) struct Held {
    token: AccessToken,
    /// Wall time, so that a machine that slept does not use what expired meanwhile.
    usable_until: UnixTime,
    used: AtomicBool,
}

impl Held {
    /// `None` for a token of unknown life: it is not kept.
    pub(super) fn new(token: &AccessToken, lifetime: Option<Duration>, margin: Duration) -> Option<Self> {
        let usable_until = token.expires_at()?.saturating_sub(margin.min(lifetime? / 10));
        Some(Self { token: token.clone(), usable_until, used: AtomicBool::new(false) })
    }

    pub(super) fn token(&self) -> AccessToken {
        self.token.clone()
    }

    pub(super) fn is_used(&self) -> bool {
        self.used.load(Ordering::Relaxed)
    }

    /// Notes that it is used; returns whether it is the first time.
    fn first_use(&self) -> bool {
        // Read before written: cores that share the line do not tear at it with every use.
        !self.is_used() && !self.used.swap(true, Ordering::Relaxed)
    }
}

impl Shared {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { held: ArcSwapOption::empty(), rejected_at: ArcSwapOption::empty(), clock }
    }

    /// Looks at the token in hand, unless there is none or it is about to expire. Takes no lock.
    pub(super) fn in_hand<T>(&self, look: impl FnOnce(&Held) -> T) -> Option<T> {
        let held = self.held.load();
        held.as_deref().filter(|held| self.clock.now() < held.usable_until).map(look)
    }

    pub(super) fn hold(&self, held: Held) {
        self.held.store(Some(Arc::new(held)));
    }
}

impl TokenManager {
    /// Settings for a manager that asks this token endpoint.
    pub fn builder(token_endpoint: Endpoint, credentials: ClientCredentials) -> TokenManagerBuilder {
        TokenManagerBuilder::new(TokenEndpoint::Fixed(token_endpoint), credentials)
    }

    /// Settings for a manager that looks the token endpoint up in the issuer's metadata
    /// ([RFC 8414 §2](https://www.rfc-editor.org/rfc/rfc8414#section-2)) when it first needs it.
    ///
    /// An issuer that publishes no metadata (each well-known place answers 404) is asked at
    /// `{issuer}/token`, and the error of a failed request says that this URL is a guess. Metadata that
    /// name another issuer are an error of kind [`IssuerMismatch`](ErrorKind::IssuerMismatch) that
    /// names both, and nothing is sent; metadata that cannot be read, or that lack `token_endpoint`,
    /// are an error, too.
    ///
    /// An App ID base of version 3 (`…/oauth/v3/{tenant}`) is no issuer identifier: use
    /// [`Binding::token_manager`](crate::app_id::Binding::token_manager), or [`builder`](Self::builder)
    /// with [`Binding::token_endpoint`](crate::app_id::Binding::token_endpoint).
    ///
    /// # Errors
    ///
    /// If the issuer is no `https` URL (or `http` on loopback).
    pub fn discover(
        issuer: Issuer,
        credentials: ClientCredentials,
    ) -> Result<TokenManagerBuilder, ConfigError> {
        let base = Endpoint::new(issuer.as_str()).map_err(|error| error.for_setting("issuer"))?;
        let guess = base.join_path("token")?;
        Ok(TokenManagerBuilder::new(TokenEndpoint::discovered(issuer, guess), credentials))
    }

    pub(super) fn new(
        shared: Arc<Shared>,
        demand: mpsc::Sender<()>,
        outcomes: watch::Receiver<Outcome>,
        give_up_after: Duration,
    ) -> Self {
        // The task gives up first, and with a better reason.
        let patience = give_up_after.saturating_add(Duration::from_secs(2));
        Self { shared, demand, outcomes, patience }
    }

    /// An access token that is not about to expire: at once if there is one in hand, else the
    /// answer to the one token request that is under way.
    ///
    /// Cancel it at any time; the request goes on for the others.
    ///
    /// # Errors
    ///
    /// If the authorization server refused, see [`Error::oauth_error`]; if it could not be
    /// reached or did not answer usefully until
    /// [`give_up_after`](TokenManagerBuilder::give_up_after); if the task behind is gone.
    pub async fn access_token(&self) -> Result<AccessToken, Error> {
        match self.in_hand() {
            Some(token) => Ok(token),
            None => self.wait().await,
        }
    }

    /// The token, if there is one to be used at once. Takes no lock.
    pub(super) fn in_hand(&self) -> Option<AccessToken> {
        self.shared.in_hand(|held| {
            if held.first_use() {
                // The time to renew may have passed while nobody asked.
                let _the_task_is_awake_already = self.demand.try_send(());
            }
            held.token()
        })
    }

    /// Rings, and waits for the answer.
    async fn wait(&self) -> Result<AccessToken, Error> {
        // Subscribed before ringing, so that the answer cannot slip through between.
        let mut outcomes = self.outcomes.clone();
        outcomes.mark_unchanged();
        if let Err(mpsc::error::TrySendError::Closed(())) = self.demand.try_send(()) {
            return Err(gone());
        }
        let answer = async {
            loop {
                outcomes.changed().await.map_err(|_| gone())?;
                if let Some(outcome) = outcomes.borrow_and_update().clone() {
                    return outcome;
                }
            }
        };
        let token = tokio::time::timeout(self.patience, answer)
            .await
            .map_err(|_| Error::new(Operation::TokenRequest, ErrorKind::Timeout))??;
        // Counts as a use, so that it is renewed ahead of time.
        let _ = self.in_hand();
        Ok(token)
    }

    /// Gives up a token that a resource server rejected, and says whether another one can be
    /// had: then the request is worth another try.
    ///
    /// Only this very token is given up. It is no use to reject one token after the other:
    /// within ten seconds of a rejection there is no second one.
    #[must_use = "there may be no other token to try with"]
    pub fn reject(&self, token: &AccessToken) -> bool {
        let held = self.shared.held.load();
        let Some(current) = held.as_ref() else { return true };
        if !current.token.is(token) {
            return true;
        }
        let now = self.shared.clock.now();
        let last = self.shared.rejected_at.load();
        if last.as_ref().is_some_and(|last| now >= **last && now.saturating_since(**last) < REJECTIONS_APART)
        {
            // Unless this very token was given up by another call meanwhile.
            let held = self.shared.held.load();
            return !held.as_ref().is_some_and(|held| held.token.is(token));
        }
        // Given up first and noted then, so that whoever sees the note finds the token gone.
        let previous = self.shared.held.compare_and_swap(current, None);
        if previous.as_ref().is_some_and(|previous| previous.token.is(token)) {
            self.shared.rejected_at.store(Some(Arc::new(now)));
        }
        true
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
    /// let tokens = TokenManager::discover(Issuer::new("https://as.example")?, credentials)?.start()?;
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
