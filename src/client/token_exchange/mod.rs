//! Token exchange: tokens for calls on behalf of a caller.
//!
//! [RFC 8693](https://www.rfc-editor.org/rfc/rfc8693).
//!
//! `cache.rs` decides which token is still used. `pending.rs` has one exchange for all calls with
//! the same subject token. `sources.rs` limits how many are sent at a time, and `grant.rs` writes
//! one.

mod builder;
mod cache;
mod grant;
mod pending;
mod sources;
mod token_type;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::timeout;

pub use self::builder::TokenExchangeBuilder;
use self::cache::{CachedResult, ExchangeCache, SubjectKey};
use self::grant::{ExchangeSettings, TokenExchangeGrant};
use self::pending::PendingExchanges;
use self::sources::Sources;
pub(super) use self::token_type::ExpectedTokenType;
pub use self::token_type::TokenTypeIdentifier;
use super::lifetime::{lifetime_of, usable_until};
use super::renewal::schedule::RenewalPolicy;
use super::renewal::task::record_metrics;
use super::{AccessToken, TokenManagerBuilder};
use crate::clock::{Clock, UnixTime};
use crate::error::{ConfigError, ConfigErrorKind, Error, ErrorKind, Operation};
use crate::inbound_token::InboundToken;
use crate::trace;

/// Exchanges the token of a caller for a token of a call on its behalf
/// ([RFC 8693](https://www.rfc-editor.org/rfc/rfc8693)).
///
/// A service that calls another one for its caller sends the caller's token to the authorization
/// server, as the *subject token*, and gets a token for the other service. The target is that of
/// the [`TokenManagerBuilder`]: its audience, resources and scopes. For several targets, build one
/// exchange for each.
///
/// An exchanged token is cached for its subject token, until 10 seconds before it expires (a tenth
/// of a short lifetime), or until the subject token expires. A token without a lifetime is not
/// cached. Calls with the same subject token share one exchange, which is not cancelled if one of
/// them is dropped. At most 16 exchanges are sent at a time; further ones wait. An exchange takes
/// no longer than [`request_timeout`](TokenManagerBuilder::request_timeout), with this wait no
/// longer than [`acquire_timeout`](TokenManagerBuilder::acquire_timeout). It is not retried. A
/// permanent failure is the result of all calls with the same subject token for at most a second.
///
/// The token is added to a request by hand ([`AccessToken::header_value`]): send it to the service
/// that it is for, and to no other.
///
/// The issuer of the subject token is not compared. A service that trusts several issuers compares
/// [`AuthContext::issuer`](crate::AuthContext::issuer) before the exchange, so that no token of
/// another issuer is sent to this token endpoint.
///
/// The subject token is in no log, error or `Debug` output, and the cache has only its SHA-256
/// hash. The copies in a request are zeroized after it; the buffers of the HTTP client are not.
///
/// This is a handle on shared state and cheap to clone. It needs a tokio runtime.
///
/// # Examples
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
/// # let mut request = http::Request::new(());
/// # request.extensions_mut().insert(
/// #     tower_oauth::resource_server::InboundToken::new("token-of-the-caller", next_year),
/// # );
/// use tower_oauth::resource_server::InboundToken;
/// use tower_oauth::{TokenExchange, TokenManager};
///
/// let sso = TokenManager::builder(endpoint, credentials)
///     .audience("bills")
///     .transport(echo); // a token endpoint whose tokens are the forms that it receives
/// let exchange = TokenExchange::builder(sso).build()?;
///
/// // In a handler behind `orders.layer().keep_token()`:
/// let inbound = InboundToken::from_request(&request).ok_or("no token")?;
/// let token = exchange.access_token(inbound).await?;
/// let call = http::Request::get("https://bills.example/")
///     .header("authorization", token.header_value())
///     .body(())?;
/// # drop(call);
/// let form = token.expose_secret();
/// assert!(form.contains("token-exchange&subject_token=token-of-the-caller&"), "{form}");
/// assert!(form.contains("&audience=bills"));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct TokenExchange(Arc<Inner>);

struct Inner {
    /// The name in metrics and events.
    name: String,
    settings: Arc<ExchangeSettings>,
    sources: Sources,
    policy: RenewalPolicy,
    clock: Arc<dyn Clock>,
    /// Of calls that wait, and of exchanges that no call waits for any more.
    waiters: Arc<Semaphore>,
    state: Mutex<State>,
}

/// Locked for each call, never while one waits.
struct State {
    cache: ExchangeCache,
    pending: PendingExchanges,
}

impl TokenExchange {
    /// A builder for exchanges at this token endpoint, by this client, for this target.
    ///
    /// A [grant](TokenManagerBuilder::grant) is an error of
    /// [`build`](TokenExchangeBuilder::build). The settings of the renewal have no effect.
    pub fn builder(tokens: TokenManagerBuilder) -> TokenExchangeBuilder {
        TokenExchangeBuilder::new(tokens)
    }

    /// Returns a token for a call on behalf of the caller who sent this one.
    ///
    /// The cached token if there is one. Else the token is exchanged, and cached until it or the
    /// subject token expires. The token for a subject token that has expired is not cached.
    ///
    /// # Errors
    ///
    /// - If the authorization server refuses the exchange: see [`Error::oauth_error`]. Its text
    ///   says what to do for `invalid_target` and `invalid_request`
    ///   ([RFC 8693 §2.2.2](https://www.rfc-editor.org/rfc/rfc8693#section-2.2.2)).
    /// - Of kind [`Malformed`](ErrorKind::Malformed), if the response has no `issued_token_type`,
    ///   or another one than the [requested](TokenExchangeBuilder::requested_token_type): by
    ///   default it must be an access token or a JWT. A refresh token is always an error.
    /// - Of the same kind, if it has a `token_type` other than `Bearer`, such as `N_A`. With
    ///   [`assume_bearer`](TokenManagerBuilder::assume_bearer), `N_A` is accepted.
    /// - If the server does not respond, or not within the time limit.
    /// - Of kind [`Overloaded`](ErrorKind::Overloaded), at once, if the call would have to wait and
    ///   [`max_waiters`](TokenManagerBuilder::max_waiters) calls and exchanges are under way.
    /// - If it is called outside of a tokio runtime.
    pub async fn access_token(&self, subject: &InboundToken) -> Result<AccessToken, Error> {
        let key = SubjectKey::new(subject);
        let (mut exchange, _permit) = {
            let now = self.0.clock.now();
            let mut state = self.0.state();
            let is_valid = now < subject.expires_at();
            let cached = state.cache.get(&key, now);
            // An error counts for an expired subject token too: else each call would be sent.
            if let Some(result) = cached.filter(|result| is_valid || result.is_err()) {
                return result;
            }
            let permit = Arc::clone(&self.0.waiters).try_acquire_owned();
            let permit = permit.map_err(|_| error(ErrorKind::Overloaded))?;
            match state.pending.join(&key) {
                Some(exchange) => (exchange, Some(permit)),
                None => {
                    let runtime = Handle::try_current().map_err(|_| no_runtime())?;
                    let (task, exchange) = state.pending.begin(key, Arc::clone(&self.0));
                    drop(state);
                    let subject = subject.clone();
                    // The exchange is that of all calls: it has the permit until it ends.
                    runtime.spawn(async move {
                        let _permit = permit;
                        task.run(subject).await;
                    });
                    (exchange, None)
                }
            }
        };
        exchange.result().await
    }

    /// Reports that a resource server rejected this exchanged token, so that it is not used again.
    ///
    /// Returns whether the next call of [`access_token`](Self::access_token) may have another
    /// token: `false` if this one was issued less than 10 seconds ago, so that a resource server
    /// that rejects every token does not cause an exchange for each call. Also `false` for the
    /// second in which a failed exchange is the result of calls with this subject token.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use tower_oauth::clock::{ManualClock, UnixTime};
    /// # let number = std::sync::atomic::AtomicUsize::new(1);
    /// # let number = std::sync::Arc::new(number);
    /// # let server = tower_oauth::transport::ServiceTransport::new(tower::service_fn(
    /// #     move |_: http::Request<http_body_util::Full<bytes::Bytes>>| {
    /// #         let number = number.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
    /// #         let body = serde_json::json!({
    /// #             "access_token": format!("token-{number}"),
    /// #             "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
    /// #             "token_type": "Bearer",
    /// #         });
    /// #         let response = http::Response::new(body.to_string());
    /// #         std::future::ready(Ok::<_, tower_oauth::BoxError>(response))
    /// #     },
    /// # ));
    /// # let endpoint = tower_oauth::Endpoint::new("https://as.example/token")?;
    /// # let credentials = tower_oauth::ClientCredentials::new("orders", "s3cret");
    /// # let clock = ManualClock::at(UnixTime::from_secs(1_800_000_000));
    /// # let next_year = UnixTime::from_secs(1_830_000_000);
    /// # let inbound = tower_oauth::resource_server::InboundToken::new("caller", next_year);
    /// use std::time::Duration;
    /// use tower_oauth::{TokenExchange, TokenManager};
    ///
    /// let sso = TokenManager::builder(endpoint, credentials)
    /// #   .transport(server)
    ///     .clock(clock.clone()); // a `ManualClock`
    /// let exchange = TokenExchange::builder(sso).build()?;
    /// let first = exchange.access_token(&inbound).await?;
    /// clock.advance(Duration::from_secs(60));
    /// // A resource server responds with 401 `invalid_token`:
    /// assert!(exchange.invalidate(&inbound, &first));
    /// let second = exchange.access_token(&inbound).await?;
    /// assert_ne!(first.expose_secret(), second.expose_secret());
    /// assert!(!exchange.invalidate(&inbound, &second));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use = "a retry is useless if no other token is available"]
    pub fn invalidate(&self, subject: &InboundToken, token: &AccessToken) -> bool {
        let now = self.0.clock.now();
        let key = SubjectKey::new(subject);
        self.0.state().cache.invalidate(&key, token, now)
    }

    /// The number of cached tokens, for tests and dashboards.
    #[must_use]
    pub fn cached_token_count(&self) -> usize {
        let now = self.0.clock.now();
        self.0.state().cache.token_count(now)
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Exchanges a token, and says for how long the result is used.
    async fn exchange(&self, subject: InboundToken) -> CachedResult {
        let limit = self.policy.acquire_timeout;
        let expires_at = subject.expires_at();
        let request = timeout(limit, self.request(subject));
        let request = trace::instrument!(
            request,
            target: "tower_oauth::client",
            "token_request",
            manager = %self.name
        );
        let result = request
            .await
            .unwrap_or_else(|_elapsed| Err(error(ErrorKind::Timeout)));
        record_metrics(&self.name, &result);
        CachedResult::new(result, expires_at, self.clock.now())
    }

    /// The token, and until when it is used.
    async fn request(&self, subject: InboundToken) -> Result<(AccessToken, UnixTime), Error> {
        let source = self.sources.acquire().await;
        let requested_at = self.clock.now();
        let grant = TokenExchangeGrant::new(&self.settings, subject);
        let response = source.fetch_with(&grant).await?;
        let lifetime = lifetime_of(&response, self.policy.assumed_lifetime, requested_at);
        let token = AccessToken::new(response, lifetime, requested_at);
        // A token without a lifetime is not cached.
        let expires_at = token.expires_at().unwrap_or(requested_at);
        let usable_until = usable_until(expires_at, lifetime.unwrap_or_default());
        Ok((token, usable_until))
    }
}

fn error(kind: ErrorKind) -> Error {
    Error::new(Operation::TokenRequest, kind)
}

fn no_runtime() -> Error {
    ConfigError::without_value(
        "tokio runtime",
        "is missing: a token is exchanged within one",
    )
    .with_kind(ConfigErrorKind::Unavailable)
    .into()
}

impl fmt::Debug for TokenExchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenExchange")
            .field("name", &self.0.name)
            .field("settings", &self.0.settings)
            .finish_non_exhaustive()
    }
}
