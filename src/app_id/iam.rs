//! The IAM token that the management API asks for.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
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

    /// The management API answered 401 to a call with this token. A provider that keeps tokens drops it,
    /// so that the next call gets another one. Does nothing by default.
    fn reject(&self, token: &SecretString) {
        let _nothing_is_kept = token;
    }
}

impl IamToken for SecretString {
    fn token(&self) -> IamTokenFuture<'_> {
        Box::pin(async { Ok(self.clone()) })
    }
}

/// Exchanges an IBM Cloud API key for IAM tokens, and keeps each until shortly before it expires, for a
/// day at most. A token that the management API answers 401 to is dropped, at most once in ten seconds.
///
/// Cheap to clone; clones share the token.
#[derive(Clone)]
pub struct IamApiKey(Arc<Inner>);

struct Inner {
    url: Endpoint,
    api_key: SecretString,
    transport: Arc<dyn Transport>,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    /// A token that was answered 401, until it is dropped.
    rejected: ArcSwapOption<SecretString>,
}

#[derive(Default)]
struct State {
    kept: Option<Kept>,
    /// When a token was dropped because it was answered 401.
    dropped_at: Option<UnixTime>,
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
            state: Mutex::default(),
            rejected: ArcSwapOption::empty(),
        })))
    }

    async fn current(&self) -> Result<SecretString, Error> {
        // Locked while fetching, so that calls at the same time make one exchange.
        let mut state = self.0.state.lock().await;
        let now = self.0.clock.now();
        if state.kept.as_ref().is_some_and(|kept| self.0.is_rejected(kept)) && state.may_drop(now) {
            state.kept = None;
            state.dropped_at = Some(now);
            self.0.rejected.store(None);
        }
        if let Some(kept) = state.kept.as_ref().filter(|kept| now < kept.renew_at) {
            return Ok(kept.token.clone());
        }
        let (token, lifetime) = self.0.exchange(now).await?;
        state.kept = Some(Kept {
            token: token.clone(),
            // A token of unknown or short life is used once.
            renew_at: now.saturating_add(lifetime.saturating_sub(EARLY)),
        });
        Ok(token)
    }
}

impl State {
    /// Whether none was dropped in the last ten seconds: a server that refuses every token causes no
    /// exchange for each call.
    fn may_drop(&self, now: UnixTime) -> bool {
        self.dropped_at.is_none_or(|last| now < last || now.saturating_since(last) >= REJECTIONS_APART)
    }
}

impl Inner {
    fn is_rejected(&self, kept: &Kept) -> bool {
        let rejected = self.rejected.load();
        rejected.as_ref().is_some_and(|token| token.expose_secret() == kept.token.expose_secret())
    }

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

    fn reject(&self, token: &SecretString) {
        self.0.rejected.store(Some(Arc::new(token.clone())));
    }
}

impl fmt::Debug for IamApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IamApiKey").field("url", &self.0.url).finish_non_exhaustive()
    }
}

#[cfg(feature = "reqwest")]
const IAM_TOKEN_URL: &str = "https://iam.cloud.ibm.com/identity/token";
const API_KEY_GRANT: &str = "urn:ibm:params:oauth:grant-type:apikey";

/// After a token was dropped because it was answered 401, none is dropped for so long.
const REJECTIONS_APART: Duration = Duration::from_secs(10);

/// How long before its expiry a token is renewed.
const EARLY: Duration = Duration::from_secs(60);
const LIMITS: Limits = Limits { total: Duration::from_secs(10), max_body: 64 * 1024 };
