//! The IAM token of the management API.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use http::{HeaderValue, Request, header};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::Mutex;
use url::form_urlencoded;

use super::error_response;
#[cfg(feature = "reqwest")]
use crate::clock::SystemClock;
use crate::clock::{Clock, UnixTime};
use crate::error::{BoxError, ConfigError, Error, ErrorKind, Operation};
use crate::oauth::Endpoint;
use crate::redact::Secrets;
use crate::token_response::TokenResponse;
#[cfg(feature = "reqwest")]
use crate::transport::ReqwestTransport;
use crate::transport::{Limits, Transport, send};

/// The future of [`IamToken::token`].
pub type IamTokenFuture<'a> =
    Pin<Box<dyn Future<Output = Result<SecretString, BoxError>> + Send + 'a>>;

/// Provides the bearer token of a management call.
///
/// A [`SecretString`] provides itself; [`IamApiKey`] fetches one for an API key.
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
/// management API responds with 401, at most once per 10 seconds. Cheap to clone; clones share the
/// token.
#[derive(Clone)]
pub struct IamApiKey(Arc<Inner>);

struct Inner {
    url: Endpoint,
    api_key: SecretString,
    transport: Arc<dyn Transport>,
    clock: Arc<dyn Clock>,
    cached: ArcSwapOption<CachedToken>,
    /// Locked while a token is requested, so that concurrent calls share one exchange.
    exchange_state: Mutex<ExchangeState>,
}

#[derive(Default)]
struct ExchangeState {
    /// When a token was last requested because of a 401.
    replaced_at: Option<UnixTime>,
    /// The last exchange, if it failed.
    failure: Option<(UnixTime, Error)>,
}

struct CachedToken {
    token: SecretString,
    renew_at: UnixTime,
    expires_at: UnixTime,
    /// Whether the management API responded with 401.
    is_rejected: AtomicBool,
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
        url.check_plain_http(LIMITS.allow_loopback_http)
            .map_err(|error| error.with_setting("IAM URL"))?;
        let api_key = api_key.into();
        if api_key.expose_secret().is_empty() {
            return Err(ConfigError::missing("IAM API key", "must not be empty"));
        }
        Ok(Self(Arc::new(Inner {
            url,
            api_key,
            transport: Arc::new(transport),
            clock: Arc::new(clock),
            cached: ArcSwapOption::empty(),
            exchange_state: Mutex::default(),
        })))
    }

    async fn access_token(&self) -> Result<SecretString, Error> {
        let mut exchange_state = self.0.exchange_state.lock().await;
        let now = self.0.clock.now();
        let cached = self.0.cached.load_full();
        let is_rejected = cached
            .as_ref()
            .is_some_and(|cached| cached.is_rejected.load(Ordering::Relaxed));
        let is_replacement = is_rejected && exchange_state.may_replace(now);
        if let Some(cached) = cached
            .as_ref()
            .filter(|cached| now < cached.renew_at && !is_replacement)
        {
            return Ok(cached.token.clone());
        }
        let failure = match exchange_state.recent_failure(now) {
            Some(failure) => failure,
            None => match self.0.exchange(now).await {
                Ok((token, lifetime)) => {
                    exchange_state.failure = None;
                    exchange_state.replaced_at = if is_replacement {
                        Some(now)
                    } else {
                        exchange_state.replaced_at
                    };
                    self.0
                        .cached
                        .store(Some(Arc::new(CachedToken::new(&token, lifetime, now))));
                    return Ok(token);
                }
                Err(error) => {
                    exchange_state.failure = Some((now, error.clone()));
                    exchange_state.replaced_at = if is_replacement {
                        Some(now)
                    } else {
                        exchange_state.replaced_at
                    };
                    error
                }
            },
        };
        // If the exchange failed, use the old token until it expires.
        cached
            .filter(|cached| now < cached.expires_at)
            .map(|cached| cached.token.clone())
            .ok_or(failure)
    }
}

impl CachedToken {
    fn new(token: &SecretString, lifetime: Duration, now: UnixTime) -> Self {
        Self {
            token: token.clone(),
            // A token of unknown or short lifetime is used once.
            renew_at: now.saturating_add(lifetime.saturating_sub(RENEWAL_LEAD)),
            expires_at: now.saturating_add(lifetime),
            is_rejected: AtomicBool::new(false),
        }
    }
}

impl ExchangeState {
    /// Whether no token was replaced in the last 10 seconds, so that a server that rejects every
    /// token does not cause an exchange for each call.
    fn may_replace(&self, now: UnixTime) -> bool {
        self.replaced_at
            .is_none_or(|last| now < last || now.saturating_since(last) >= MIN_REPLACEMENT_INTERVAL)
    }

    /// The error of an exchange that failed less than a second ago, which waiting calls share.
    fn recent_failure(&self, now: UnixTime) -> Option<Error> {
        let (at, error) = self.failure.as_ref()?;
        (*at == now).then(|| error.clone())
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
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/x-www-form-urlencoded"),
        );
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        let http_response =
            send(&*self.transport, Operation::TokenRequest, request, LIMITS).await?;
        if !http_response.status().is_success() {
            let mut secrets = Secrets::default();
            secrets.add(self.api_key.expose_secret());
            return Err(error_response::from_response(
                Operation::TokenRequest,
                &http_response,
                now,
                secrets,
            )
            .with_url(self.url.as_str()));
        }
        let malformed = |reason: &str| {
            let error = Error::new(Operation::TokenRequest, ErrorKind::Malformed);
            error.with_url(self.url.as_str()).with_detail(reason)
        };
        let response = TokenResponse::parse(http_response.body()).map_err(malformed)?;
        Ok((response.access_token, response.lifetime.unwrap_or_default()))
    }
}

impl IamToken for IamApiKey {
    fn token(&self) -> IamTokenFuture<'_> {
        Box::pin(async { self.access_token().await.map_err(BoxError::from) })
    }

    fn invalidate(&self, token: &SecretString) {
        let cached = self.0.cached.load();
        let cached = cached
            .as_ref()
            .filter(|cached| cached.token.expose_secret() == token.expose_secret());
        if let Some(cached) = cached {
            cached.is_rejected.store(true, Ordering::Relaxed);
        }
    }
}

impl fmt::Debug for IamApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IamApiKey")
            .field("url", &self.0.url)
            .finish_non_exhaustive()
    }
}

#[cfg(feature = "reqwest")]
const IAM_TOKEN_URL: &str = "https://iam.cloud.ibm.com/identity/token";
const API_KEY_GRANT: &str = "urn:ibm:params:oauth:grant-type:apikey";

/// Minimum time between two exchanges that 401 responses cause.
const MIN_REPLACEMENT_INTERVAL: Duration = Duration::from_secs(10);

/// How long before its expiry a token is renewed.
const RENEWAL_LEAD: Duration = Duration::from_secs(60);
const LIMITS: Limits = Limits {
    allow_loopback_http: true,
    total: Duration::from_secs(10),
    max_body: 64 * 1024,
};
