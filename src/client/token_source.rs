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
/// [`TokenEndpointSource`](super::TokenEndpointSource) requests them from a token endpoint. Another
/// source reads them elsewhere, or wraps a source.
///
/// # Examples
///
/// A token that the platform writes to a file and replaces before it expires:
///
/// ```
/// use std::path::PathBuf;
/// use std::time::Duration;
///
/// use tower_oauth::client::{BoxFuture, TokenResponse, TokenSource};
/// use tower_oauth::error::{ErrorKind, Operation};
/// use tower_oauth::{Error, TokenManager};
///
/// #[derive(Debug)]
/// struct TokenFile(PathBuf);
///
/// impl TokenSource for TokenFile {
///     fn fetch(&self) -> BoxFuture<'_, Result<TokenResponse, Error>> {
///         Box::pin(async {
///             let token = std::fs::read_to_string(&self.0).map_err(|error| {
///                 Error::new(Operation::TokenRequest, ErrorKind::Transport).with_source(error)
///             })?;
///             // The file is read again at least every ten minutes.
///             Ok(TokenResponse::new(token.trim_end())?.with_expires_in(Duration::from_secs(600)))
///         })
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), tower_oauth::BoxError> {
/// # let path = std::env::temp_dir().join(format!("tower-oauth-{}-token", std::process::id()));
/// # std::fs::write(&path, "a-token\n")?;
/// let source = TokenFile(path.clone());
/// let tokens = TokenManager::from_source(source).name("projected").start()?;
/// assert_eq!(tokens.access_token().await?.expose_secret(), "a-token");
/// # std::fs::remove_file(path)?;
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
