//! The IAM token that the management API asks for.

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

use super::management::failure;
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
    /// A token that is valid now. Asked for before each call, so it is to be kept between them.
    ///
    /// # Errors
    ///
    /// If there is none to be had.
    fn token(&self) -> IamTokenFuture<'_>;

    /// The management API answered 401 to a call with this token. A provider that keeps tokens
    /// drops it, so that the next call gets another one. Does nothing by default.
    fn invalidate(&self, token: &SecretString) {
        let _nothing_is_kept = token;
    }
}

impl IamToken for SecretString {
    fn token(&self) -> IamTokenFuture<'_> {
        Box::pin(async { Ok(self.clone()) })
    }
}

/// Exchanges an IBM Cloud API key for IAM tokens, and keeps each until shortly before it expires,
/// for a day at most. A token that the management API answers 401 to is dropped, at most once in
/// ten seconds.
///
/// Cheap to clone; clones share the token.
#[derive(Clone)]
pub struct IamApiKey(Arc<Inner>);

struct Inner {
    url: Endpoint,
    api_key: SecretString,
    transport: Arc<dyn Transport>,
    clock: Arc<dyn Clock>,
    kept: ArcSwapOption<Kept>,
    /// Locked while a token is requested, so that calls at the same time make one exchange.
    exchanges: Mutex<Exchanges>,
}

#[derive(Default)]
struct Exchanges {
    /// When a token was last requested because the one before was answered 401.
    replaced_at: Option<UnixTime>,
    /// The last exchange, if it failed.
    failure: Option<(UnixTime, Error)>,
}

struct Kept {
    token: SecretString,
    renew_at: UnixTime,
    expires_at: UnixTime,
    /// It was answered 401.
    is_rejected: AtomicBool,
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
        Self::with_transport(
            Endpoint::new(IAM_TOKEN_URL)?,
            api_key,
            ReqwestTransport::new()?,
            SystemClock,
        )
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
            return Err(ConfigError::without_value(
                "IAM API key",
                "must not be empty",
            ));
        }
        Ok(Self(Arc::new(Inner {
            url,
            api_key,
            transport: Arc::new(transport),
            clock: Arc::new(clock),
            kept: ArcSwapOption::empty(),
            exchanges: Mutex::default(),
        })))
    }

    async fn current(&self) -> Result<SecretString, Error> {
        let mut exchanges = self.0.exchanges.lock().await;
        let now = self.0.clock.now();
        let kept = self.0.kept.load_full();
        let is_rejected = kept
            .as_ref()
            .is_some_and(|kept| kept.is_rejected.load(Ordering::Relaxed));
        let replaces = is_rejected && exchanges.may_replace(now);
        if let Some(kept) = kept
            .as_ref()
            .filter(|kept| now < kept.renew_at && !replaces)
        {
            return Ok(kept.token.clone());
        }
        let failure = match exchanges.recent_failure(now) {
            Some(failure) => failure,
            None => match self.0.send(now).await {
                Ok((token, lifetime)) => {
                    exchanges.failure = None;
                    exchanges.replaced_at = if replaces {
                        Some(now)
                    } else {
                        exchanges.replaced_at
                    };
                    self.0
                        .kept
                        .store(Some(Arc::new(Kept::new(&token, lifetime, now))));
                    return Ok(token);
                }
                Err(error) => {
                    exchanges.failure = Some((now, error.clone()));
                    exchanges.replaced_at = if replaces {
                        Some(now)
                    } else {
                        exchanges.replaced_at
                    };
                    error
                }
            },
        };
        // Without another token the old one serves until it expires.
        kept.filter(|kept| now < kept.expires_at)
            .map(|kept| kept.token.clone())
            .ok_or(failure)
    }
}

impl Kept {
    fn new(token: &SecretString, lifetime: Duration, now: UnixTime) -> Self {
        Self {
            token: token.clone(),
            // A token of unknown or short life is used once.
            renew_at: now.saturating_add(lifetime.saturating_sub(EARLY)),
            expires_at: now.saturating_add(lifetime),
            is_rejected: AtomicBool::new(false),
        }
    }
}

impl Exchanges {
    /// Whether no token was replaced in the last ten seconds: a server that refuses every token
    /// causes no exchange for each call.
    fn may_replace(&self, now: UnixTime) -> bool {
        self.replaced_at
            .is_none_or(|last| now < last || now.saturating_since(last) >= REJECTIONS_APART)
    }

    /// The error of an exchange that failed less than a second ago: calls that waited for it make
    /// none each.
    fn recent_failure(&self, now: UnixTime) -> Option<Error> {
        let (at, error) = self.failure.as_ref()?;
        (*at == now).then(|| error.clone())
    }
}

impl Inner {
    async fn send(&self, now: UnixTime) -> Result<(SecretString, Duration), Error> {
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
        let answer = send(&*self.transport, Operation::TokenRequest, request, LIMITS).await?;
        if !answer.status().is_success() {
            let mut secrets = Secrets::default();
            secrets.add(self.api_key.expose_secret());
            return Err(
                failure(Operation::TokenRequest, &answer, now, secrets).with_url(self.url.as_str())
            );
        }
        let malformed = |reason: &str| {
            let error = Error::new(Operation::TokenRequest, ErrorKind::Malformed);
            error.with_url(self.url.as_str()).with_detail(reason)
        };
        let granted = TokenResponse::parse(answer.body()).map_err(malformed)?;
        Ok((granted.access_token, granted.lifetime.unwrap_or_default()))
    }
}

impl IamToken for IamApiKey {
    fn token(&self) -> IamTokenFuture<'_> {
        Box::pin(async { self.current().await.map_err(BoxError::from) })
    }

    fn invalidate(&self, token: &SecretString) {
        let kept = self.0.kept.load();
        let kept = kept
            .as_ref()
            .filter(|kept| kept.token.expose_secret() == token.expose_secret());
        if let Some(kept) = kept {
            kept.is_rejected.store(true, Ordering::Relaxed);
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

/// After a token was replaced because it was answered 401, none is replaced for so long.
const REJECTIONS_APART: Duration = Duration::from_secs(10);

/// How long before its expiry a token is renewed.
const EARLY: Duration = Duration::from_secs(60);
const LIMITS: Limits = Limits {
    total: Duration::from_secs(10),
    max_body: 64 * 1024,
};
