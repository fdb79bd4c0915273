//! The IAM token that the management API asks for.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, header};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use tokio::sync::Mutex;
use url::form_urlencoded;

use super::management::{failure, malformed};
#[cfg(feature = "reqwest")]
use crate::clock::SystemClock;
use crate::clock::{Clock, UnixTime};
use crate::error::{BoxError, ConfigError, Error, ErrorKind, Operation};
use crate::oauth::Endpoint;
use crate::redact::Secrets;
#[cfg(feature = "reqwest")]
use crate::transport::ReqwestTransport;
use crate::transport::{Limits, Transport, exchange};

/// The future of [`IamToken::token`].
pub type IamTokenFuture<'a> = Pin<Box<dyn Future<Output = Result<SecretString, BoxError>> + Send + 'a>>;

/// Provides the bearer token of a management call.
///
/// A [`SecretString`] provides itself; [`IamApiKey`] fetches one for an API key.
pub trait IamToken: fmt::Debug + Send + Sync + 'static {
    /// A token that is valid now. Asked for before each call, so it is to be kept between them.
    ///
    /// # Errors
    ///
    /// If there is none to be had.
    fn token(&self) -> IamTokenFuture<'_>;
}

impl IamToken for SecretString {
    fn token(&self) -> IamTokenFuture<'_> {
        Box::pin(async { Ok(self.clone()) })
    }
}

/// Exchanges an IBM Cloud API key for IAM tokens, and keeps each until shortly before it expires.
///
/// Cheap to clone; clones share the token.
#[derive(Clone)]
pub struct IamApiKey(Arc<Inner>);

struct Inner {
    url: Endpoint,
    api_key: SecretString,
    transport: Arc<dyn Transport>,
    clock: Arc<dyn Clock>,
    kept: Mutex<Option<Kept>>,
}

struct Kept {
    token: SecretString,
    renew_at: UnixTime,
}

impl IamApiKey {
    /// An API key, exchanged at `https://iam.cloud.ibm.com/identity/token`.
    ///
    /// # Errors
    ///
    /// If the transport cannot be built.
    #[cfg(feature = "reqwest")]
    #[cfg_attr(docsrs, doc(cfg(feature = "reqwest")))]
    pub fn new(api_key: impl Into<SecretString>) -> Result<Self, ConfigError> {
        Self::with_transport(Endpoint::new(IAM_TOKEN_URL)?, api_key, ReqwestTransport::new()?, SystemClock)
    }

    /// An API key, exchanged at `url`, which may be plain `http` on loopback, through a
    /// transport of your own.
    ///
    /// # Errors
    ///
    /// If the API key is empty.
    pub fn with_transport(
        url: Endpoint,
        api_key: impl Into<SecretString>,
        transport: impl Transport,
        clock: impl Clock,
    ) -> Result<Self, ConfigError> {
        let api_key = api_key.into();
        if api_key.expose_secret().is_empty() {
            return Err(ConfigError::without_value("IAM API key", "must not be empty"));
        }
        Ok(Self(Arc::new(Inner {
            url,
            api_key,
            transport: Arc::new(transport),
            clock: Arc::new(clock),
            kept: Mutex::new(None),
        })))
    }

    async fn current(&self) -> Result<SecretString, Error> {
        // Held while fetching, so that calls at the same time make one exchange.
        let mut kept = self.0.kept.lock().await;
        let now = self.0.clock.now();
        if let Some(kept) = kept.as_ref().filter(|kept| now < kept.renew_at) {
            return Ok(kept.token.clone());
        }
        let (token, lifetime) = self.0.exchange(now).await?;
        *kept = Some(Kept {
            token: token.clone(),
            // A token of unknown or short life is used once.
            renew_at: now.saturating_add(lifetime.saturating_sub(EARLY)),
        });
        Ok(token)
    }
}

impl Inner {
    async fn exchange(&self, now: UnixTime) -> Result<(SecretString, Duration), Error> {
        let form = form_urlencoded::Serializer::new(String::new())
            .append_pair("grant_type", API_KEY_GRANT)
            .append_pair("apikey", self.api_key.expose_secret())
            .finish();
        let mut request = Request::new(Bytes::from(form));
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = self.url.to_uri().map_err(|error| {
            Error::new(Operation::TokenRequest, ErrorKind::Configuration).with_source(error)
        })?;
        let headers = request.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        let answer = exchange(&*self.transport, Operation::TokenRequest, request, LIMITS).await?;
        if !answer.status().is_success() {
            let mut secrets = Secrets::default();
            secrets.add(self.api_key.expose_secret());
            return Err(failure(Operation::TokenRequest, &answer, now, secrets).with_url(self.url.as_str()));
        }
        let granted: Granted = serde_json::from_slice(answer.body())
            .map_err(|error| malformed(Operation::TokenRequest, &error).with_url(self.url.as_str()))?;
        Ok((granted.access_token.into(), Duration::from_secs(granted.expires_in.unwrap_or_default())))
    }
}

impl IamToken for IamApiKey {
    fn token(&self) -> IamTokenFuture<'_> {
        Box::pin(async { self.current().await.map_err(BoxError::from) })
    }
}

impl fmt::Debug for IamApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IamApiKey").field("url", &self.0.url).finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct Granted {
    access_token: String,
    expires_in: Option<u64>,
}

#[cfg(feature = "reqwest")]
const IAM_TOKEN_URL: &str = "https://iam.cloud.ibm.com/identity/token";
const API_KEY_GRANT: &str = "urn:ibm:params:oauth:grant-type:apikey";

/// How long before its expiry a token is renewed.
const EARLY: Duration = Duration::from_secs(60);
const LIMITS: Limits = Limits { total: Duration::from_secs(10), max_body: 64 * 1024 };
