//! Client authentication with an assertion that comes from elsewhere.

use std::path::PathBuf;
use std::sync::Arc;

use super::assertion;
use super::assertion_audience::AssertionAudience;
use super::assertion_file::AssertionFile;
use super::assertion_source::AssertionSource;
use super::authentication::ClientAuthentication;
use super::box_future::BoxFuture;
use super::token_request::{RequestPart, TokenRequest};
use crate::error::{ConfigError, Error};

/// RFC 7523 §2.2.
pub(super) const JWT_BEARER_ASSERTION: &str =
    "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// draft-ietf-oauth-spiffe-client-auth.
const JWT_SPIFFE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe";

/// Authenticates the client with an assertion of an [`AssertionSource`]
/// ([RFC 7523 §2.2](https://www.rfc-editor.org/rfc/rfc7523#section-2.2)).
///
/// For an assertion that a platform issues (Kubernetes, SPIFFE, a CI service) or that a key
/// management service signs: the program has no secret. [`PrivateKeyJwt`](super::PrivateKeyJwt)
/// signs assertions itself.
///
/// The source is asked for each token request, so a file is read again each time. An assertion that
/// has expired is not sent. If the server refuses an assertion of a
/// [reusable](AssertionSource::is_reusable) source, such as a file, and the source has another one
/// by then, the request is sent once more.
///
/// # Examples
///
/// A projected token of Kubernetes:
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
/// # let path = std::env::temp_dir().join(format!("tower-oauth-{}-pod", std::process::id()));
/// # std::fs::write(&path, "eyJhbGciOiJSUzI1NiJ9.e30.c2ln\n")?;
/// # let endpoint = tower_oauth::Endpoint::new("https://as.example/token")?;
/// use tower_oauth::{ClientAssertion, TokenManager};
///
/// // `path` is that of the volume, such as "/var/run/secrets/tokens/as".
/// let client = ClientAssertion::from_file(&path).with_client_id("orders");
/// let tokens = TokenManager::builder(endpoint, client)
///     .transport(echo) // a token endpoint whose tokens are the forms that it receives
///     .start()?;
/// let form = tokens.access_token().await?;
/// assert!(form.expose_secret().contains("&client_id=orders&client_assertion_type=urn%3Aietf"));
/// assert!(form.expose_secret().ends_with("&client_assertion=eyJhbGciOiJSUzI1NiJ9.e30.c2ln"));
/// # std::fs::remove_file(path)?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct ClientAssertion {
    source: Arc<dyn AssertionSource>,
    assertion_type: &'static str,
    client_id: Option<String>,
    audience: AssertionAudience,
}

impl ClientAssertion {
    /// Assertions of this source, of the type `jwt-bearer`.
    pub fn new(source: impl AssertionSource) -> Self {
        Self {
            source: Arc::new(source),
            assertion_type: JWT_BEARER_ASSERTION,
            client_id: None,
            audience: AssertionAudience::Default,
        }
    }

    /// Assertions in a file, which is read again for each token request: see [`AssertionFile`].
    pub fn from_file(path: impl Into<PathBuf>) -> Self {
        Self::new(AssertionFile::new(path))
    }

    /// JWT-SVIDs of this source, of SPIFFE's type `jwt-spiffe`
    /// ([draft-ietf-oauth-spiffe-client-auth][draft]).
    ///
    /// For servers that know this type. Others take a JWT-SVID of [`new`](Self::new).
    ///
    /// [draft]: https://datatracker.ietf.org/doc/draft-ietf-oauth-spiffe-client-auth/
    ///
    /// ```
    /// use tower_oauth::ClientAssertion;
    /// use tower_oauth::client::AssertionFile;
    ///
    /// let client = ClientAssertion::spiffe(AssertionFile::new("/run/spire/as.jwt"));
    /// assert!(format!("{client:?}").contains("jwt-spiffe"));
    /// ```
    pub fn spiffe(source: impl AssertionSource) -> Self {
        Self {
            assertion_type: JWT_SPIFFE,
            ..Self::new(source)
        }
    }

    /// Sends this `client_id` beside the assertion. Default: none.
    ///
    /// For servers that do not find the client by the `sub` of the assertion, such as Microsoft
    /// Entra ID.
    pub fn with_client_id(mut self, client_id: impl Into<String>) -> Self {
        self.client_id = Some(client_id.into());
        self
    }

    /// Sets the audience that the source is asked for. Default:
    /// [`Default`](AssertionAudience::Default).
    pub fn audience(mut self, audience: AssertionAudience) -> Self {
        self.audience = audience;
        self
    }
}

impl ClientAuthentication for ClientAssertion {
    fn authenticate<'a>(
        &'a self,
        request: &'a mut TokenRequest,
    ) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async {
            let assertion = assertion::get(&*self.source, &self.audience, request).await?;
            let part = RequestPart::ClientAuthentication;
            assertion::record(&*self.source, &self.audience, &assertion, part, request);
            if let Some(client_id) = &self.client_id {
                request.append("client_id", client_id);
            }
            request.append("client_assertion_type", self.assertion_type);
            request.append_secret("client_assertion", &assertion);
            Ok(())
        })
    }

    fn client_id(&self) -> Option<&str> {
        self.client_id.as_deref()
    }

    fn check(&self) -> Result<(), ConfigError> {
        if self.client_id.as_deref() == Some("") {
            return Err(ConfigError::missing("client id", "must not be empty"));
        }
        self.audience.check()
    }
}
