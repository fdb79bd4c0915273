//! The IAM token of the management API.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use secrecy::{ExposeSecret, SecretString};

use super::on_demand::OnDemandToken;
use crate::client::{BoxFuture, Grant, NoAuthentication, TokenManager, TokenRequest};
use crate::clock::Clock;
#[cfg(feature = "reqwest")]
use crate::clock::SystemClock;
use crate::error::{BoxError, ConfigError, Error};
use crate::oauth::Endpoint;
#[cfg(feature = "reqwest")]
use crate::transport::ReqwestTransport;
use crate::transport::Transport;

#[cfg(feature = "reqwest")]
const IAM_TOKEN_URL: &str = "https://iam.cloud.ibm.com/identity/token";

/// The future of [`IamToken::token`].
pub type IamTokenFuture<'a> =
    Pin<Box<dyn Future<Output = Result<SecretString, BoxError>> + Send + 'a>>;

/// Provides the bearer token of a management call.
///
/// A [`SecretString`] provides itself; [`IamApiKey`] fetches one for an API key.
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), tower_oauth::BoxError> {
/// # use tower_oauth::authorization_server::AuthorizationServer;
/// # use tower_oauth::resource_server::Algorithm;
/// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
/// use secrecy::SecretString;
/// use tower_oauth::Endpoint;
/// use tower_oauth::app_id::{IamToken, IamTokenFuture, ManagementClient};
///
/// /// The token that a sidecar provides.
/// #[derive(Debug)]
/// struct Sidecar {
///     token: SecretString,
/// }
///
/// impl IamToken for Sidecar {
///     fn token(&self) -> IamTokenFuture<'_> {
///         Box::pin(async { Ok(self.token.clone()) })
///     }
/// }
///
/// let sidecar = Sidecar { token: issuer.management_token().clone() };
/// let url = Endpoint::new(issuer.management_url())?;
/// let management = ManagementClient::new(url, sidecar, issuer.transport())?;
/// assert!(management.applications().await?.is_empty());
/// # Ok(())
/// # }
/// ```
pub trait IamToken: fmt::Debug + Send + Sync + 'static {
    /// Returns a valid token. Called before each request, so an implementation should cache it.
    ///
    /// # Errors
    ///
    /// If no token can be obtained.
    fn token(&self) -> IamTokenFuture<'_>;

    /// Reports that the management API responded with 401 to this token.
    ///
    /// A provider that caches tokens drops it, so that the next request has another one. Does
    /// nothing by default.
    fn invalidate(&self, token: &SecretString) {
        let _unused = token;
    }
}

impl IamToken for SecretString {
    fn token(&self) -> IamTokenFuture<'_> {
        Box::pin(async { Ok(self.clone()) })
    }
}

/// Exchanges an IBM Cloud API key for IAM tokens.
///
/// Caches a token until shortly before it expires, for at most a day. Drops a token to which the
/// management API responds with 401, at most once per 10 seconds. Needs no task, but a tokio
/// runtime: the call that needs another token requests it. Cheap to clone; clones share the token.
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), tower_oauth::BoxError> {
/// # use bytes::Bytes;
/// # use http::{Request, Response};
/// # use http_body_util::Full;
/// # use tower_oauth::transport::ServiceTransport;
/// # let iam = ServiceTransport::new(tower::service_fn(async |_: Request<Full<Bytes>>| {
/// #     let body = r#"{"access_token":"an-iam-token","token_type":"Bearer","expires_in":3600}"#;
/// #     Ok::<_, std::convert::Infallible>(Response::new(body.to_owned()))
/// # }));
/// use secrecy::ExposeSecret as _;
/// use tower_oauth::Endpoint;
/// use tower_oauth::app_id::{IamApiKey, IamToken as _};
/// use tower_oauth::clock::SystemClock;
///
/// // In production: `IamApiKey::new(api_key)`.
/// let url = Endpoint::new("https://iam.cloud.ibm.com/identity/token")?;
/// let iam = IamApiKey::with_transport(url, "an-api-key", iam, SystemClock)?;
/// assert_eq!(iam.token().await?.expose_secret(), "an-iam-token");
/// assert!(!format!("{iam:?}").contains("an-api-key"));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct IamApiKey(Arc<Inner>);

struct Inner {
    url: Endpoint,
    token: OnDemandToken,
}

/// The grant that exchanges an API key.
struct ApiKeyGrant(SecretString);

impl Grant for ApiKeyGrant {
    fn write<'a>(&'a self, request: &'a mut TokenRequest) -> BoxFuture<'a, Result<(), Error>> {
        request.append("grant_type", "urn:ibm:params:oauth:grant-type:apikey");
        request.append_secret("apikey", &self.0);
        Box::pin(async { Ok(()) })
    }
}

impl fmt::Debug for ApiKeyGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiKeyGrant").finish_non_exhaustive()
    }
}

impl IamApiKey {
    /// Exchanges an API key at `https://iam.cloud.ibm.com/identity/token`.
    ///
    /// # Errors
    ///
    /// If the transport cannot be built.
    #[cfg(feature = "reqwest")]
    #[cfg_attr(docsrs, doc(cfg(feature = "reqwest")))]
    pub fn new(api_key: impl Into<SecretString>) -> Result<Self, ConfigError> {
        Self::with_transport(
            Endpoint::new(IAM_TOKEN_URL)?,
            api_key,
            ReqwestTransport::new()?,
            SystemClock,
        )
    }

    /// Exchanges an API key at `url` with an explicit transport.
    ///
    /// The URL may be plain `http` on loopback.
    ///
    /// # Errors
    ///
    /// If the API key is empty, or the URL is plain `http` beyond loopback.
    pub fn with_transport(
        url: Endpoint,
        api_key: impl Into<SecretString>,
        transport: impl Transport,
        clock: impl Clock,
    ) -> Result<Self, ConfigError> {
        let api_key = api_key.into();
        if api_key.expose_secret().is_empty() {
            return Err(ConfigError::missing("IAM API key", "must not be empty"));
        }
        let clock: Arc<dyn Clock> = Arc::new(clock);
        // The API key identifies the client.
        let source = TokenManager::builder(url.clone(), NoAuthentication)
            .grant(ApiKeyGrant(api_key))
            .transport(transport)
            .clock(Arc::clone(&clock))
            .allow_loopback_http()
            .build_source()
            .map_err(|error| error.with_setting("IAM URL"))?;
        Ok(Self(Arc::new(Inner {
            url,
            token: OnDemandToken::new(source, clock),
        })))
    }
}

impl IamToken for IamApiKey {
    fn token(&self) -> IamTokenFuture<'_> {
        Box::pin(async { self.0.token.get().await.map_err(BoxError::from) })
    }

    fn invalidate(&self, token: &SecretString) {
        self.0.token.invalidate(token);
    }
}

impl fmt::Debug for IamApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IamApiKey")
            .field("url", &self.0.url)
            .finish_non_exhaustive()
    }
}
