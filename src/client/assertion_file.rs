//! An assertion in a file.

use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret as _, SecretString};

use super::assertion_source::AssertionSource;
use super::box_future::BoxFuture;
use crate::error::{BoxError, ConfigError, ConfigErrorKind};
use crate::secret_file;

/// Maximum size of an assertion file in bytes.
const MAX_ASSERTION_FILE: usize = 16 * 1024;

/// An assertion in a file that the platform replaces before it expires: a projected token of
/// Kubernetes, the file of a SPIFFE helper.
///
/// The file is read again for each token request. It has one JWT in one line, and at most 16 KiB.
/// The error of a file that cannot be read, or of an assertion that has expired, names the path. It
/// is of kind [`Credentials`](crate::error::ErrorKind::Credentials), so the token request is
/// retried: a file that is written after the start of the program is found.
///
/// The `aud` of the assertion is what the platform was configured with. The audience of the token
/// request does not change it.
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), tower_oauth::BoxError> {
/// # use http_body_util::BodyExt as _;
/// # let echo = tower_oauth::transport::ServiceTransport::new(tower::service_fn(
/// #     async |request: http::Request<http_body_util::Full<bytes::Bytes>>| {
/// #         let form = request.into_body().collect().await?.to_bytes();
/// #         let form = String::from_utf8_lossy(&form).into_owned();
/// #         let body = serde_json::json!({ "access_token": form, "token_type": "Bearer" });
/// #         Ok::<_, tower_oauth::BoxError>(http::Response::new(body.to_string()))
/// #     },
/// # ));
/// # let path = std::env::temp_dir().join(format!("tower-oauth-{}-grant", std::process::id()));
/// # std::fs::write(&path, "eyJhbGciOiJSUzI1NiJ9.e30.c2ln\n")?;
/// # let endpoint = tower_oauth::Endpoint::new("https://as.example/token")?;
/// use tower_oauth::TokenManager;
/// use tower_oauth::client::{AssertionFile, JwtBearerGrant, NoAuthentication};
///
/// // `path` is a projected token. As a grant:
/// let tokens = TokenManager::builder(endpoint, NoAuthentication)
///     .grant(JwtBearerGrant::new(AssertionFile::new(&path)))
///     .transport(echo) // a token endpoint whose tokens are the forms that it receives
///     .start()?;
/// let form = tokens.access_token().await?;
/// assert!(form.expose_secret().ends_with("&assertion=eyJhbGciOiJSUzI1NiJ9.e30.c2ln"));
/// # std::fs::remove_file(path)?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct AssertionFile {
    path: PathBuf,
}

impl AssertionFile {
    /// An assertion in this file. Does no I/O.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// The path of the file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl AssertionSource for AssertionFile {
    fn assertion<'a>(
        &'a self,
        _audience: &'a str,
    ) -> BoxFuture<'a, Result<SecretString, BoxError>> {
        let path = self.path.clone();
        Box::pin(async move { secret_file::unblock(move || read(&path)).await })
    }

    fn description(&self) -> String {
        format!("the assertion in {}", self.path.display())
    }

    fn is_reusable(&self) -> bool {
        true
    }
}

/// Reads a JWT. Blocks.
fn read(path: &Path) -> Result<SecretString, ConfigError> {
    let assertion = secret_file::read_line(path, MAX_ASSERTION_FILE);
    let assertion =
        assertion.and_then(
            |assertion| match is_compact_jws(assertion.expose_secret()) {
                true => Ok(assertion),
                false => {
                    Err("is not a JWT: three base64url segments, with dots between them".into())
                }
            },
        );
    assertion.map_err(|reason| {
        ConfigError::without_value(format!("assertion file {}", path.display()), reason)
            .with_kind(ConfigErrorKind::Unavailable)
    })
}

/// Whether a text has the form of a compact JWS (RFC 7515 §7.1).
pub(super) fn is_compact_jws(text: &str) -> bool {
    let is_base64url = |segment: &str| {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        !segment.is_empty() && segment.bytes().all(is_allowed)
    };
    text.split('.').count() == 3 && text.split('.').all(is_base64url)
}
