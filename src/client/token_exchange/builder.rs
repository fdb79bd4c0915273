//! The builder of a token exchange.

use std::sync::{Arc, Mutex};

use tokio::sync::Semaphore;

use super::super::TokenManagerBuilder;
use super::super::builder::warn_of_plain_http;
use super::super::endpoint_settings::grant_conflict;
use super::super::token_manager::TokenManager;
use super::cache::ExchangeCache;
use super::grant::ExchangeSettings;
use super::pending::PendingExchanges;
use super::sources::{MAX_CONCURRENT_EXCHANGES, Sources};
use super::{Inner, State, TokenExchange, TokenTypeIdentifier};
use crate::error::ConfigError;
use crate::transport::default_transport;

/// The default of `max_cached_tokens`.
const DEFAULT_MAX_CACHED_TOKENS: usize = 1000;

/// A builder of a [`TokenExchange`].
///
/// Endpoint, client authentication, transport, clock, target and time limits are those of the
/// [`TokenManagerBuilder`].
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), tower_oauth::BoxError> {
/// # use http_body_util::BodyExt as _;
/// # let echo = tower_oauth::transport::ServiceTransport::new(tower::service_fn(
/// #     async |request: http::Request<http_body_util::Full<bytes::Bytes>>| {
/// #         let form = request.into_body().collect().await?.to_bytes();
/// #         let form = String::from_utf8_lossy(&form).into_owned();
/// #         let body = serde_json::json!({
/// #             "access_token": form,
/// #             "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
/// #             "token_type": "Bearer",
/// #         });
/// #         Ok::<_, tower_oauth::BoxError>(http::Response::new(body.to_string()))
/// #     },
/// # ));
/// # let endpoint = tower_oauth::Endpoint::new("https://as.example/token")?;
/// # let credentials = tower_oauth::ClientCredentials::new("orders", "s3cret");
/// # let next_year = tower_oauth::clock::UnixTime::from_secs(4_000_000_000);
/// # let inbound = tower_oauth::resource_server::InboundToken::new("token-of-the-caller", next_year);
/// use tower_oauth::client::TokenTypeIdentifier;
/// use tower_oauth::{TokenExchange, TokenManager};
///
/// let sso = TokenManager::builder(endpoint, credentials)
///     .transport(echo); // a token endpoint whose tokens are the forms that it receives
/// let exchange = TokenExchange::builder(sso.clone().audience("bills"))
///     .actor(sso.start()?) // who calls on behalf of the caller: this service
///     .subject_token_type(TokenTypeIdentifier::Jwt)
///     .requested_token_type(TokenTypeIdentifier::AccessToken)
///     .max_cached_tokens(100)
///     .build()?;
/// let form = exchange.access_token(&inbound).await?;
/// let form = form.expose_secret();
/// assert!(form.contains("&actor_token=grant_type%3Dclient_credentials&"), "{form}");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct TokenExchangeBuilder {
    tokens: TokenManagerBuilder,
    settings: ExchangeSettings,
    max_cached_tokens: usize,
}

impl TokenExchangeBuilder {
    pub(super) fn new(tokens: TokenManagerBuilder) -> Self {
        Self {
            tokens,
            settings: ExchangeSettings::default(),
            max_cached_tokens: DEFAULT_MAX_CACHED_TOKENS,
        }
    }

    /// Adds the token of this manager to each exchange, as `actor_token`
    /// ([RFC 8693 §2.1](https://www.rfc-editor.org/rfc/rfc8693#section-2.1)).
    ///
    /// It says who acts on behalf of the caller. The server names it as `act` in the token (§4.1).
    /// Default: none, so that the server takes the authenticated client, or names nobody.
    ///
    /// Its manager and the exchange have the same default [name](TokenManagerBuilder::name), the
    /// client id: set one of them, so that logs and metrics tell them apart.
    pub fn actor(mut self, tokens: TokenManager) -> Self {
        self.settings.actor = Some(tokens);
        self
    }

    /// Sets what the subject tokens are. Default:
    /// [`AccessToken`](TokenTypeIdentifier::AccessToken).
    ///
    /// By [RFC 8693 §3](https://www.rfc-editor.org/rfc/rfc8693#section-3),
    /// [`Jwt`](TokenTypeIdentifier::Jwt) is for tokens of another issuer than the server. Some
    /// servers take their access tokens as `AccessToken`, too, as Okta does with its trusted
    /// servers.
    pub fn subject_token_type(mut self, token_type: TokenTypeIdentifier) -> Self {
        self.settings.subject_token_type = token_type;
        self
    }

    /// Sets the `requested_token_type`. Default: none, so that the server chooses it.
    ///
    /// The issued token must be of this type; by default, an access token or a JWT.
    pub fn requested_token_type(mut self, token_type: TokenTypeIdentifier) -> Self {
        self.settings.requested_token_type = Some(token_type);
        self
    }

    /// Sets how many exchanged tokens are cached. Default: 1,000. With 0, none is.
    ///
    /// If the cache is full, the token that expires first is evicted.
    pub fn max_cached_tokens(mut self, tokens: usize) -> Self {
        self.max_cached_tokens = tokens;
        self
    }

    /// Builds the exchange. Does no I/O and spawns nothing.
    ///
    /// # Errors
    ///
    /// As [`TokenManagerBuilder::build`], or if a [`grant`](TokenManagerBuilder::grant) is set.
    pub fn build(self) -> Result<TokenExchange, ConfigError> {
        let Self {
            tokens,
            settings,
            max_cached_tokens,
        } = self;
        let TokenManagerBuilder {
            mut source,
            manager,
        } = tokens;
        if source.grant.is_some() {
            return Err(grant_conflict("a token exchange"));
        }
        // One transport for all sources.
        source.transport = Some(default_transport(source.transport.take())?);
        let sources = (0..MAX_CONCURRENT_EXCHANGES)
            .map(|_| {
                let source = source.clone();
                source.build(&manager.policy, &manager.clock, &manager.http)
            })
            .collect::<Result<Vec<_>, _>>()?;
        let name = manager.checked_name(&source.default_name())?;
        warn_of_plain_http(sources.iter().take(1).map(|source| source.plain_http()));
        let waiters = Semaphore::new(manager.max_waiters.min(Semaphore::MAX_PERMITS));
        Ok(TokenExchange(Arc::new(Inner {
            name,
            settings: Arc::new(settings),
            sources: Sources::new(sources),
            policy: manager.policy,
            clock: manager.clock,
            waiters: Arc::new(waiters),
            state: Mutex::new(State {
                cache: ExchangeCache::new(max_cached_tokens),
                pending: PendingExchanges::default(),
            }),
        })))
    }
}
