//! A token in a file, which is sent as it is.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

use super::box_future::BoxFuture;
use super::token_response::TokenResponse;
use super::token_source::TokenSource;
use super::unverified_claims::check_expiry;
use crate::clock::{Clock, SystemClock};
use crate::error::{BoxError, Error, ErrorKind, Operation};
use crate::secret_file;

/// Maximum size of a token file in bytes.
const MAX_TOKEN_FILE: usize = 16 * 1024;

/// The default of `renew_after`. A platform replaces a token long before it expires.
const RENEW_AFTER: Duration = Duration::from_secs(60);

/// A token that the platform writes to a file and replaces before it expires.
///
/// For the projected token of a Kubernetes service account, or the one that the SPIFFE helper
/// writes: the token is sent to resource servers as it is. A
/// [`TokenManager`](super::TokenManager) reads the file when the first token is needed, then once
/// a minute while the token is used, and at once when a resource server rejects the token. Its
/// layer sends the token to the configured origins only, as any other token.
///
/// The file has one line of visible ASCII, with at most 16 KiB. Line ends after it are ignored. A
/// token that is a JWT is used until its `exp`, which is not verified. One whose `exp` has passed
/// is never sent. Any other token is used for the [assumed lifetime][assumed] after each reading.
///
/// A file that cannot be read is an error of this reading, of kind
/// [`Credentials`](ErrorKind::Credentials): the manager tries again with backoff, and uses the last
/// token until it expires. So a file that is missing at the start may be written a moment later.
///
/// [assumed]: super::TokenManagerBuilder::assumed_lifetime
///
/// # Examples
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), tower_oauth::BoxError> {
/// # let path = std::env::temp_dir().join(format!("tower-oauth-{}-file-token", std::process::id()));
/// # std::fs::write(&path, "a-token\n")?;
/// use tower_oauth::client::FileToken;
/// use tower_oauth::{Origin, TokenManager};
///
/// // In a pod: /var/run/secrets/tokens/orders
/// let tokens = TokenManager::from_source(FileToken::new(&path)).name("orders").start()?;
/// assert_eq!(tokens.access_token().await?.expose_secret(), "a-token");
///
/// let layer = tokens.layer([Origin::new("https://orders.example")?]);
/// # let _ = layer;
/// # std::fs::remove_file(path)?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct FileToken {
    path: PathBuf,
    clock: Arc<dyn Clock>,
    renew_after: Duration,
}

impl FileToken {
    /// The token in this file. Nothing is read yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            clock: Arc::new(SystemClock),
            renew_after: RENEW_AFTER,
        }
    }

    /// Sets the clock that the `exp` of the token is compared with. Default: [`SystemClock`].
    ///
    /// It must be the clock of the [manager](super::TokenManagerBuilder::clock).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # let path = std::env::temp_dir().join(format!("tower-oauth-{}-clock", std::process::id()));
    /// use tower_oauth::TokenManager;
    /// use tower_oauth::client::{FileToken, TokenSource as _};
    /// use tower_oauth::clock::{ManualClock, UnixTime};
    ///
    /// std::fs::write(&path, "e30.eyJleHAiOjE4MDAwMDAwMDB9.c2ln")?; // {"exp":1800000000}
    /// let clock = ManualClock::at(UnixTime::from_secs(1_799_999_000));
    /// let file = FileToken::new(&path).clock(clock.clone());
    /// let tokens = TokenManager::from_source(file.clone()).clock(clock.clone()).start()?;
    /// let token = tokens.access_token().await?;
    /// assert_eq!(token.expires_at(), Some(UnixTime::from_secs(1_800_000_000)));
    ///
    /// clock.set(UnixTime::from_secs(1_800_000_005));
    /// assert!(file.fetch().await.is_err()); // the token expired 5 s ago
    /// # std::fs::remove_file(path)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Sets how long after a reading the file is read again, while its token is used. Default: one
    /// minute; minimum: one second.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # let path = std::env::temp_dir().join(format!("tower-oauth-{}-again", std::process::id()));
    /// # std::fs::write(&path, "a-token\n")?;
    /// use std::time::Duration;
    /// use tower_oauth::client::{FileToken, TokenSource as _};
    ///
    /// let source = FileToken::new(&path).renew_after(Duration::from_secs(10));
    /// assert_eq!(source.fetch().await?.renew_after(), Some(Duration::from_secs(10)));
    /// # std::fs::remove_file(path)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn renew_after(mut self, time: Duration) -> Self {
        self.renew_after = time;
        self
    }

    async fn read_token(&self) -> Result<TokenResponse, Error> {
        let path = self.path.clone();
        let token = secret_file::unblock(move || read(&path)).await;
        let token = token.map_err(|reason| {
            unusable(format!("the token file {} {reason}", self.path.display()))
        })?;
        let now = self.clock.now();
        let what = format!("the token in {}", self.path.display());
        let expires_at = check_expiry(token.expose_secret(), what, now)?;
        let response = TokenResponse::new(token)?.with_renew_after(self.renew_after);
        Ok(match expires_at {
            None => response,
            Some(expires_at) => response.with_expires_in(expires_at.saturating_since(now)),
        })
    }
}

/// Reads a token. The error follows the path, and has nothing of the file. Blocks.
fn read(path: &Path) -> Result<SecretString, String> {
    let token = secret_file::read_line(path, MAX_TOKEN_FILE)?;
    let mut bytes = token.expose_secret().bytes();
    if !bytes.all(|byte| byte.is_ascii_graphic()) {
        return Err("must have one line of visible ASCII".to_owned());
    }
    Ok(token)
}

fn unusable(reason: String) -> Error {
    let reason: BoxError = reason.into();
    Error::new(Operation::TokenRequest, ErrorKind::Credentials).with_source(reason)
}

impl TokenSource for FileToken {
    fn fetch(&self) -> BoxFuture<'_, Result<TokenResponse, Error>> {
        Box::pin(self.read_token())
    }
}
