//! Where the tokens of a token manager come from.

use std::fmt;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Poll;

use http::StatusCode;

use super::box_future::BoxFuture;
use super::token_response::TokenResponse;
use crate::error::{Error, ErrorKind, Operation};

/// Fetches access tokens for a [`TokenManager`](super::TokenManager), which keeps one fresh.
///
/// [`TokenEndpointSource`](super::TokenEndpointSource) requests them from a token endpoint.
/// [`FileToken`](super::FileToken) reads them from a file. Another source fetches them elsewhere, or
/// wraps a source.
///
/// # Examples
///
/// A store that replicas share, with a token endpoint behind it:
///
/// ```
/// use std::sync::Mutex;
/// use std::time::{Duration, Instant};
///
/// use tower_oauth::client::{BoxFuture, TokenEndpointSource, TokenResponse, TokenSource};
/// use tower_oauth::{Error, TokenManager};
///
/// /// In production a client of a key-value store.
/// #[derive(Debug, Default)]
/// struct Store(Mutex<Option<(TokenResponse, Instant)>>);
///
/// impl Store {
///     /// The token, if it lives for another minute.
///     fn get(&self) -> Option<TokenResponse> {
///         let (response, stored_at) = self.0.lock().unwrap().clone()?;
///         let left = response.expires_in()?.saturating_sub(stored_at.elapsed());
///         (left > Duration::from_secs(60)).then(|| response.with_expires_in(left))
///     }
///
///     fn put(&self, response: &TokenResponse) {
///         *self.0.lock().unwrap() = Some((response.clone(), Instant::now()));
///     }
/// }
///
/// #[derive(Debug)]
/// struct SharedToken {
///     store: Store,
///     endpoint: TokenEndpointSource,
/// }
///
/// impl TokenSource for SharedToken {
///     fn fetch(&self) -> BoxFuture<'_, Result<TokenResponse, Error>> {
///         Box::pin(async {
///             if let Some(response) = self.store.get() {
///                 return Ok(response);
///             }
///             let response = self.endpoint.fetch().await?;
///             self.store.put(&response);
///             Ok(response)
///         })
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), tower_oauth::BoxError> {
/// # use tower_oauth::authorization_server::{AuthorizationServer, EndpointKind};
/// # let issuer = AuthorizationServer::builder().build()?;
/// # let shop = issuer.register("shop")?;
/// let endpoint = TokenManager::builder(issuer.token_endpoint(), shop.credentials())
///     .transport(issuer.transport())
///     .build_source()?;
/// let source = SharedToken { store: Store::default(), endpoint };
/// let first = source.fetch().await?;
/// let second = source.fetch().await?;
/// assert_eq!(first.expose_secret(), second.expose_secret());
/// assert_eq!(issuer.requests(EndpointKind::Token), 1);
///
/// let tokens = TokenManager::from_source(source).name("shared").start()?;
/// assert_eq!(tokens.access_token().await?.expose_secret(), first.expose_secret());
/// # Ok(())
/// # }
/// ```
pub trait TokenSource: fmt::Debug + Send + Sync + 'static {
    /// Fetches one token.
    ///
    /// A manager calls this for the first token, before a token expires, and after a resource
    /// server rejected one, with one call at a time. It drops the future when the
    /// [time limit](super::TokenManagerBuilder::request_timeout) expires.
    ///
    /// # Errors
    ///
    /// If no token can be obtained. The [kind](Error::kind) decides what the manager does: after
    /// [`Transport`](ErrorKind::Transport), [`Timeout`](ErrorKind::Timeout),
    /// [`Credentials`](ErrorKind::Credentials), and [`Status`](ErrorKind::Status) 429 or 5xx it
    /// tries again with backoff. All other errors are final for the waiting calls. The error must
    /// not contain a secret, because it is logged.
    fn fetch(&self) -> BoxFuture<'_, Result<TokenResponse, Error>>;
}

/// Fetches a token. A panic of the source is an error, because it must not end the renewer.
pub(super) async fn fetch(source: &dyn TokenSource) -> Result<TokenResponse, Error> {
    let mut fetching = None;
    poll_fn(|cx| {
        let polled = catch_unwind(AssertUnwindSafe(|| {
            let fetching = fetching.get_or_insert_with(|| source.fetch());
            fetching.as_mut().poll(cx)
        }));
        polled.unwrap_or_else(|_panic| {
            let error = Error::new(Operation::TokenRequest, ErrorKind::Transport);
            Poll::Ready(Err(error.with_detail("the token source panicked")))
        })
    })
    .await
}

/// Whether a fetch that failed with this error is tried again.
pub(super) fn is_transient(error: &Error) -> bool {
    match error.kind() {
        ErrorKind::Transport | ErrorKind::Timeout | ErrorKind::Credentials => true,
        ErrorKind::Status(status) => is_transient_status(status),
        _ => false,
    }
}

/// Whether the same request may succeed later.
pub(super) fn is_transient_status(status: StatusCode) -> bool {
    status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error()
}
