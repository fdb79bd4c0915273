//! Errors of configuration, key sets, token requests and management requests.
//!
//! A rejected request of a resource server is a [`Rejection`](crate::Rejection) instead.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use serde_json::value::RawValue;

use crate::redact::Secrets;

/// A boxed error of any type.
pub type BoxError = Box<dyn StdError + Send + Sync>;

/// What is wrong with a setting.
///
/// ```
/// use tower_oauth::ResourceServer;
/// use tower_oauth::error::ConfigErrorKind;
///
/// let kind = |issuer| match ResourceServer::builder(issuer, "orders").build() {
///     Ok(_) => None,
///     Err(error) => Some(error.kind()),
/// };
/// assert_eq!(kind(""), Some(ConfigErrorKind::Missing));
/// assert_eq!(kind("http://as.example"), Some(ConfigErrorKind::PlainHttp));
/// assert_eq!(kind("https://as.example"), None);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ConfigErrorKind {
    /// The setting contradicts another one, or was given more than once.
    Conflict,
    /// The value is malformed or out of range.
    Invalid,
    /// A required setting is absent or empty.
    Missing,
    /// A URL is plain `http` where that is not allowed.
    PlainHttp,
    /// What the setting names cannot be used now: a file, a port, the TLS backend, the runtime.
    Unavailable,
}

impl ConfigErrorKind {
    /// A stable name for logs and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Conflict => "conflict",
            Self::Invalid => "invalid",
            Self::Missing => "missing",
            Self::PlainHttp => "plain_http",
            Self::Unavailable => "unavailable",
        }
    }
}

impl fmt::Display for ConfigErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An invalid setting.
///
/// Reported before anything is started. Holds the name of the setting, its value unless that may be
/// a secret, and the reason.
///
/// ```
/// use tower_oauth::{ClientCredentials, Endpoint, TokenManager};
/// use tower_oauth::error::ConfigErrorKind;
///
/// let credentials = ClientCredentials::new("my-client-id", "my-secret");
/// let endpoint = Endpoint::new("http://as.example/token")?;
/// let error = TokenManager::builder(endpoint, credentials).build().unwrap_err();
/// assert_eq!(error.kind(), ConfigErrorKind::PlainHttp);
/// assert_eq!(error.value(), Some("http://as.example"));
/// # Ok::<(), tower_oauth::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    kind: ConfigErrorKind,
    setting: String,
    value: Option<String>,
    reason: String,
}

impl ConfigError {
    pub(crate) fn new(
        setting: impl Into<String>,
        value: impl Into<String>,
        reason: impl Into<String>,
    ) -> Self {
        Self {
            value: Some(value.into()),
            ..Self::without_value(setting, reason)
        }
    }

    /// An error of kind [`Invalid`](ConfigErrorKind::Invalid), without the value.
    ///
    /// For the settings of types that implement a trait of this crate, and for values that may be
    /// secret. `reason` follows the name of
    /// the setting in the text of the error.
    ///
    /// ```
    /// let error = tower_oauth::ConfigError::without_value("key file", "must not be empty");
    /// assert_eq!(error.to_string(), "key file must not be empty");
    /// ```
    pub fn without_value(setting: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            kind: ConfigErrorKind::Invalid,
            setting: setting.into(),
            value: None,
            reason: reason.into(),
        }
    }

    /// An error of a required setting that is absent or empty.
    pub(crate) fn missing(setting: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::without_value(setting, reason).with_kind(ConfigErrorKind::Missing)
    }

    /// Sets the kind, which is `Invalid` otherwise.
    pub(crate) fn with_kind(self, kind: ConfigErrorKind) -> Self {
        Self { kind, ..self }
    }

    /// Removes the value: one that a server sent may be a secret.
    #[cfg(feature = "app-id")]
    pub(crate) fn clear_value(self) -> Self {
        Self {
            value: None,
            ..self
        }
    }

    /// What is wrong with the setting.
    #[must_use]
    pub fn kind(&self) -> ConfigErrorKind {
        self.kind
    }

    /// The value that was found.
    ///
    /// Of a URL only scheme, host and port; a `resource` is complete.
    /// `None` if the value may be a secret, is absent, or is too long.
    #[must_use]
    pub fn value(&self) -> Option<&str> {
        self.value.as_deref()
    }

    /// The name of the setting: an environment variable, a builder method, or a protocol term.
    #[must_use]
    pub fn setting(&self) -> &str {
        &self.setting
    }

    /// Renames the setting, for example to the environment variable that the value came from.
    ///
    /// ```
    /// use tower_oauth::{ConfigError, Issuer};
    ///
    /// fn issuer(variable: &str, value: &str) -> Result<Issuer, ConfigError> {
    ///     Issuer::new(value).map_err(|error| error.with_setting(variable))
    /// }
    ///
    /// let error = issuer("ORDERS_ISSUER", "").unwrap_err();
    /// assert_eq!(error.to_string(), "ORDERS_ISSUER must not be empty");
    /// ```
    #[must_use]
    pub fn with_setting(mut self, setting: impl Into<String>) -> Self {
        self.setting = setting.into();
        self
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(value) => write!(f, "invalid {} {value:?}: {}", self.setting, self.reason),
            None => write!(f, "{} {}", self.setting, self.reason),
        }
    }
}

impl StdError for ConfigError {}

/// A conversion that cannot fail, such as that of an [`Issuer`](crate::Issuer) to itself.
///
/// A function that takes `impl TryInto<Issuer, Error: Into<ConfigError>>` thus takes an `Issuer`
/// and a `&str`.
impl From<Infallible> for ConfigError {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

/// The operation that failed with an [`Error`].
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), tower_oauth::BoxError> {
/// # use tower_oauth::authorization_server::AuthorizationServer;
/// # use tower_oauth::resource_server::Algorithm;
/// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
/// # let shop = issuer.register("shop")?;
/// use tower_oauth::TokenManager;
/// use tower_oauth::authorization_server::{EndpointKind, Fault};
/// use tower_oauth::error::Operation;
///
/// let tokens = TokenManager::for_issuer(issuer.issuer(), shop.credentials())?
///     .transport(issuer.transport())
///     .start()?;
/// issuer.fail(EndpointKind::Discovery, Fault::Garbage);
/// let error = tokens.access_token().await.unwrap_err();
/// assert_eq!(error.operation(), Operation::Discovery);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Operation {
    /// Checking settings.
    Configuration,
    /// Fetching authorization server metadata (RFC 8414).
    Discovery,
    /// Fetching a key set (RFC 7517).
    JwksFetch,
    /// Calling the App ID management API.
    Management,
    /// Fetching the metadata of a protected resource (RFC 9728).
    ResourceMetadata,
    /// Requesting an access token (RFC 6749 §4.4.2).
    TokenRequest,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Configuration => "configuration",
            Self::Discovery => "discovery of authorization server metadata",
            Self::JwksFetch => "fetch of the key set",
            Self::Management => "management request",
            Self::ResourceMetadata => "fetch of the resource's metadata",
            Self::TokenRequest => "token request",
        })
    }
}

/// The reason why an [`Operation`] failed.
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), tower_oauth::BoxError> {
/// # use tower_oauth::authorization_server::AuthorizationServer;
/// # use tower_oauth::resource_server::Algorithm;
/// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
/// use tower_oauth::error::ErrorKind;
/// use tower_oauth::{ClientCredentials, Error, TokenManager};
///
/// /// Whether the configuration of this service is to be checked.
/// fn is_permanent(error: &Error) -> bool {
///     matches!(error.kind(), ErrorKind::Refused | ErrorKind::Certificate)
/// }
///
/// let credentials = ClientCredentials::new("unknown", "s3cret");
/// let tokens = TokenManager::builder(issuer.token_endpoint(), credentials)
///     .transport(issuer.transport())
///     .start()?;
/// assert!(is_permanent(&tokens.access_token().await.unwrap_err()));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The server's certificate is not trusted, has expired, or is for another name.
    ///
    /// The source has the details. A token request is not retried.
    Certificate,
    /// A setting is invalid.
    Configuration,
    /// The client's credentials cannot be read, for example from a file.
    ///
    /// The source has the details. A token request is retried.
    Credentials,
    /// The metadata name another issuer than the configured one (RFC 8414 §3.3).
    ///
    /// [`Error::expected`] and [`Error::found`] are the two. The metadata of a protected resource
    /// list several issuers (RFC 9728 §2): none of them is the configured one.
    IssuerMismatch,
    /// The response could not be parsed.
    Malformed,
    /// The key set has no usable key.
    NoUsableKey,
    /// Too many calls are waiting; see
    /// [`max_waiters`](crate::client::TokenManagerBuilder::max_waiters).
    Overloaded,
    /// The server refused the request with an OAuth error; see [`Error::oauth_error`].
    Refused,
    /// The metadata are those of another protected resource (RFC 9728 §3.3).
    ///
    /// [`Error::expected`] and [`Error::found`] are the two.
    ResourceMismatch,
    /// The server responded with this status.
    Status(StatusCode),
    /// No complete response within the time limit.
    Timeout,
    /// The response exceeds the size limit, which [`Error::expected`] has.
    TooLarge,
    /// The server could not be reached, or the connection broke.
    Transport,
}

impl ErrorKind {
    /// A stable name for logs and metrics.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Certificate => "certificate",
            Self::Configuration => "configuration",
            Self::Credentials => "credentials",
            Self::IssuerMismatch => "issuer_mismatch",
            Self::Malformed => "malformed",
            Self::NoUsableKey => "no_usable_key",
            Self::Overloaded => "overloaded",
            Self::Refused => "refused",
            Self::ResourceMismatch => "resource_mismatch",
            Self::Status(_) => "status",
            Self::Timeout => "timeout",
            Self::TooLarge => "too_large",
            Self::Transport => "transport",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Certificate => f.write_str("the server's certificate is not valid"),
            Self::Configuration => f.write_str("a setting is invalid"),
            Self::Credentials => f.write_str("the client's credentials cannot be read"),
            Self::IssuerMismatch => {
                f.write_str("the metadata name another issuer than the configured one")
            }
            Self::Malformed => f.write_str("the response could not be parsed"),
            Self::NoUsableKey => f.write_str("the key set has no usable key"),
            Self::Overloaded => f.write_str("too many calls are waiting"),
            Self::Refused => f.write_str("the server refused the request"),
            Self::ResourceMismatch => {
                f.write_str("the metadata are those of another resource than the configured one")
            }
            Self::Status(status) => write!(f, "the server responded with {status}"),
            Self::Timeout => f.write_str("no response within the time limit"),
            Self::TooLarge => f.write_str("the response is too large"),
            Self::Transport => f.write_str("the server could not be reached"),
        }
    }
}

/// The error response of an authorization server
/// ([RFC 6749 §5.2](https://www.rfc-editor.org/rfc/rfc6749#section-5.2)).
///
/// Secrets and tokens that the server quotes are replaced by `[redacted]`, in each encoding in
/// which they were sent. `Display` escapes each text and cuts it to 200 characters.
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), tower_oauth::BoxError> {
/// # use tower_oauth::authorization_server::AuthorizationServer;
/// # use tower_oauth::resource_server::Algorithm;
/// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
/// use tower_oauth::{ClientCredentials, TokenManager};
///
/// let credentials = ClientCredentials::new("unknown", "s3cret");
/// let tokens = TokenManager::builder(issuer.token_endpoint(), credentials)
///     .transport(issuer.transport())
///     .start()?;
/// let error = tokens.access_token().await.unwrap_err();
/// let oauth_error = error.oauth_error().ok_or("no error response")?;
/// assert_eq!(oauth_error.code(), "invalid_client");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OAuthError {
    code: String,
    description: Option<String>,
}

/// Error codes of RFC 6749 §4.1.2.1 and §5.2, and of RFC 8707 §2.
const REGISTERED_CODES: [&str; 11] = [
    "access_denied",
    "invalid_client",
    "invalid_grant",
    "invalid_request",
    "invalid_scope",
    "invalid_target",
    "server_error",
    "temporarily_unavailable",
    "unauthorized_client",
    "unsupported_grant_type",
    "unsupported_response_type",
];

impl OAuthError {
    /// An error without the secrets that the server may quote.
    fn new(code: &str, description: Option<&str>, secrets: &Secrets) -> Self {
        // A registered code is no quotation, even if it contains a secret.
        let is_registered = REGISTERED_CODES.contains(&code);
        Self {
            code: if is_registered {
                code.to_owned()
            } else {
                secrets.redact(code)
            },
            description: description.map(|description| secrets.redact(description)),
        }
    }

    /// The error in the body of a response, if it is a JSON object with one.
    ///
    /// App ID sends `error` or `error_code`, IBM Cloud IAM `errorCode`. `secrets` are those of the
    /// request; the tokens and secrets in the body are added to them.
    pub(crate) fn from_body(body: &[u8], secrets: impl FnOnce() -> Secrets) -> Option<Self> {
        let members = members(std::str::from_utf8(body).ok()?)?;
        // Some servers send an object as `error`.
        let nested = members
            .get("error")
            .and_then(|error| self::members(error.get()));
        let nested = nested.unwrap_or_default();
        let code = first_text(&members, ["error", "error_code", "errorCode"])
            .or_else(|| first_text(&nested, ["code", "status", "type"]))?;
        let description = first_text(&members, ["error_description", "errorMessage", "message"])
            .or_else(|| first_text(&nested, ["message", "description", "error_description"]));
        let mut secrets = secrets();
        secrets.add_members(body);
        Some(Self::new(&code, description.as_deref(), &secrets))
    }

    /// The `error`, or the `error_code` that some App ID endpoints send.
    #[must_use]
    pub fn code(&self) -> &str {
        &self.code
    }

    /// The `error_description`.
    #[must_use]
    pub fn description(&self) -> Option<&str> {
        self.description.as_deref()
    }
}

impl fmt::Display for OAuthError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", escape_and_truncate(&self.code))?;
        match &self.description {
            Some(description) => write!(f, " ({})", escape_and_truncate(description)),
            None => Ok(()),
        }
    }
}

/// The members of a JSON object. Their values are not parsed: one that is not used must not hide
/// the others, neither by its type, nor by its depth, nor by a number that no type holds.
fn members(json: &str) -> Option<BTreeMap<String, &RawValue>> {
    serde_json::from_str(json).ok()
}

/// The first of these members that is a text or a number.
fn first_text(object: &BTreeMap<String, &RawValue>, names: [&str; 3]) -> Option<String> {
    names.into_iter().find_map(|name| {
        let value = object.get(name)?.get();
        match value.as_bytes().first()? {
            b'"' => serde_json::from_str(value)
                .ok()
                .filter(|text: &String| !text.is_empty()),
            b'-' | b'0'..=b'9' => Some(value.to_owned()),
            _ => None,
        }
    })
}

/// Escapes a server's text and cuts it to 200 characters, because it may be shown in a terminal.
pub(crate) fn escape_and_truncate(text: &str) -> String {
    text.escape_debug().take(200).collect()
}

/// A failed operation of a key set, a token manager or a management client.
///
/// Cheap to clone, because all waiting calls get the same error.
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), tower_oauth::BoxError> {
/// # use tower_oauth::authorization_server::AuthorizationServer;
/// # use tower_oauth::resource_server::Algorithm;
/// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
/// # let shop = issuer.register("shop")?;
/// use tower_oauth::TokenManager;
/// use tower_oauth::authorization_server::{EndpointKind, Fault};
/// use tower_oauth::error::Operation;
///
/// # let tokens = TokenManager::builder(issuer.token_endpoint(), shop.credentials());
/// # let tokens = tokens.transport(issuer.transport()).start()?;
/// issuer.fail(EndpointKind::Token, Fault::Outage(Some(120)));
/// let error = tokens.access_token().await.unwrap_err();
/// assert_eq!(error.operation(), Operation::TokenRequest);
/// assert_eq!(error.url(), Some(issuer.token_endpoint().as_str()));
/// assert_eq!(error.status(), Some(http::StatusCode::SERVICE_UNAVAILABLE));
/// assert_eq!(error.retry_after().map(|wait| wait.as_secs()), Some(120));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Error(Arc<Inner>);

struct Inner {
    operation: Operation,
    kind: ErrorKind,
    url: Option<String>,
    oauth: Option<OAuthError>,
    status: Option<StatusCode>,
    retry_after: Option<Duration>,
    expected: Option<String>,
    found: Option<String>,
    detail: Option<String>,
    source: Option<BoxError>,
}

impl Error {
    /// Creates an error, for an implementation of a trait such as
    /// [`TokenSource`](crate::client::TokenSource).
    ///
    /// ```
    /// use tower_oauth::Error;
    /// use tower_oauth::error::{ErrorKind, Operation};
    ///
    /// let cause = std::io::Error::other("the agent does not run");
    /// let error = Error::new(Operation::TokenRequest, ErrorKind::Transport).with_source(cause);
    /// assert_eq!(error.kind(), ErrorKind::Transport);
    /// assert_eq!(
    ///     error.to_string(),
    ///     "token request failed: the server could not be reached"
    /// );
    /// ```
    #[must_use]
    pub fn new(operation: Operation, kind: ErrorKind) -> Self {
        let status = match kind {
            ErrorKind::Status(status) => Some(status),
            _ => None,
        };
        Self(Arc::new(Inner {
            operation,
            kind,
            url: None,
            oauth: None,
            status,
            retry_after: None,
            expected: None,
            found: None,
            detail: None,
            source: None,
        }))
    }

    /// Adds the details of an error response.
    pub(crate) fn with_response(
        self,
        status: StatusCode,
        oauth: Option<OAuthError>,
        retry_after: Option<Duration>,
    ) -> Self {
        self.map(|inner| Inner {
            oauth,
            retry_after,
            status: Some(status),
            ..inner
        })
    }

    /// Sets the source. It must not contain a secret, because it is logged.
    ///
    /// Has no effect on an error that was cloned.
    ///
    /// ```
    /// use std::error::Error as _;
    /// use tower_oauth::Error;
    /// use tower_oauth::error::{ErrorKind, Operation};
    ///
    /// let cause = std::io::Error::other("the agent does not run");
    /// let error = Error::new(Operation::TokenRequest, ErrorKind::Transport).with_source(cause);
    /// let source = error.source().map(ToString::to_string);
    /// assert_eq!(source.as_deref(), Some("the agent does not run"));
    /// ```
    #[must_use]
    pub fn with_source(self, source: impl Into<BoxError>) -> Self {
        self.map(|inner| Inner {
            source: Some(source.into()),
            ..inner
        })
    }

    /// Adds a detail to the kind. Pass a server's text through [`escape_and_truncate`] first.
    pub(crate) fn with_detail(self, detail: impl Into<String>) -> Self {
        self.map(|mut inner| {
            let added = detail.into();
            inner.detail = Some(match inner.detail.take() {
                Some(detail) => format!("{detail}; {added}"),
                None => added,
            });
            inner
        })
    }

    /// Adds what was expected. It must not be a secret.
    pub(crate) fn with_expected(self, expected: impl Into<String>) -> Self {
        self.map(|inner| Inner {
            expected: Some(expected.into()),
            ..inner
        })
    }

    /// Adds what was found instead of what was expected. It must not be a secret. Pass a server's
    /// text through [`escape_and_truncate`] first.
    pub(crate) fn with_found(self, found: impl Into<String>) -> Self {
        self.map(|inner| Inner {
            found: Some(found.into()),
            ..inner
        })
    }

    /// Adds the URL of the request, without query and fragment.
    pub(crate) fn with_url(self, url: &str) -> Self {
        let url = url.split(['?', '#']).next().unwrap_or_default().to_owned();
        self.map(|inner| Inner {
            url: Some(url),
            ..inner
        })
    }

    fn map(self, change: impl FnOnce(Inner) -> Inner) -> Self {
        match Arc::try_unwrap(self.0) {
            Ok(inner) => Self(Arc::new(change(inner))),
            // A shared error is complete.
            Err(shared) => Self(shared),
        }
    }

    /// The operation that failed.
    #[must_use]
    pub fn operation(&self) -> Operation {
        self.0.operation
    }

    /// The reason for the failure.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The OAuth error of the response, if there is one.
    #[must_use]
    pub fn oauth_error(&self) -> Option<&OAuthError> {
        self.0.oauth.as_ref()
    }

    /// The status of an error response, or of a token response that cannot be used.
    #[must_use]
    pub fn status(&self) -> Option<StatusCode> {
        self.0.status
    }

    /// The `Retry-After` of the response.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// What was expected.
    ///
    /// The configured issuer for an [`IssuerMismatch`](ErrorKind::IssuerMismatch), the limit for a
    /// response that is [too large](ErrorKind::TooLarge) or [late](ErrorKind::Timeout).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use bytes::Bytes;
    /// # use http::{Request, Response};
    /// # use http_body_util::Full;
    /// # use tower_oauth::transport::ServiceTransport;
    /// # let metadata = ServiceTransport::new(tower::service_fn(async |_: Request<Full<Bytes>>| {
    /// #     let issuer = "https://other.example";
    /// #     let body = serde_json::json!({ "issuer": issuer, "jwks_uri": issuer });
    /// #     Ok::<_, std::convert::Infallible>(Response::new(body.to_string()))
    /// # }));
    /// use tower_oauth::ResourceServer;
    /// use tower_oauth::error::ErrorKind;
    ///
    /// let orders = ResourceServer::builder("https://as.example", "orders")
    ///     .transport(metadata) // those of another issuer
    ///     .start()
    ///     .await?;
    /// let status = &orders.key_sets()[0];
    /// let error = status.last_error().ok_or("the refresh succeeded")?;
    /// assert_eq!(error.kind(), ErrorKind::IssuerMismatch);
    /// assert_eq!(error.expected(), Some("https://as.example"));
    /// assert_eq!(error.found(), Some("https://other.example"));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn expected(&self) -> Option<&str> {
        self.0.expected.as_deref()
    }

    /// What was found: for an [`IssuerMismatch`](ErrorKind::IssuerMismatch) the metadata's issuer.
    ///
    /// Escaped, cut to 200 characters, and without user information and query.
    #[must_use]
    pub fn found(&self) -> Option<&str> {
        self.0.found.as_deref()
    }

    /// The invalid setting, which the text of the error contains.
    fn config_error(&self) -> Option<&ConfigError> {
        match (&self.0.kind, &self.0.source) {
            (ErrorKind::Configuration, Some(source)) => source.downcast_ref(),
            _ => None,
        }
    }

    /// The error and its sources in one line, for logs.
    #[cfg(feature = "tracing")]
    pub(crate) fn source_chain(&self) -> String {
        let mut line = self.to_string();
        let mut source = match self.config_error() {
            Some(error) => error.source(),
            None => StdError::source(self),
        };
        while let Some(error) = source {
            // A source may quote a server's text.
            line.push_str(": ");
            line.push_str(&escape_and_truncate(&error.to_string()));
            source = error.source();
        }
        line
    }

    /// The URL of the request, without query and fragment.
    #[must_use]
    pub fn url(&self) -> Option<&str> {
        self.0.url.as_deref()
    }
}

impl From<ConfigError> for Error {
    fn from(error: ConfigError) -> Self {
        Self::new(Operation::Configuration, ErrorKind::Configuration).with_source(error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &*self.0;
        write!(f, "{} failed", inner.operation)?;
        if let Some(url) = &inner.url {
            write!(f, " at {url}")?;
        }
        match self.config_error() {
            Some(error) => write!(f, ": {error}")?,
            None => write!(f, ": {}", inner.kind)?,
        }
        if let (Some(status), false) = (inner.status, matches!(inner.kind, ErrorKind::Status(_))) {
            write!(f, " ({status})")?;
        }
        match (&inner.expected, &inner.found) {
            (Some(expected), Some(found)) => {
                write!(f, ": expected \"{expected}\", found \"{found}\"")?;
            }
            (Some(expected), None) => write!(f, ": expected {expected}")?,
            (None, _) => {}
        }
        if let Some(oauth) = &inner.oauth {
            write!(f, ": {oauth}")?;
        }
        if let Some(detail) = &inner.detail {
            write!(f, ": {detail}")?;
        }
        Ok(())
    }
}

/// Only the fields that have a value: `main` prints an error in this form.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &*self.0;
        let mut debug = f.debug_struct("Error");
        debug.field("operation", &inner.operation);
        debug.field("kind", &inner.kind);
        let texts = [
            ("url", &inner.url),
            ("expected", &inner.expected),
            ("found", &inner.found),
            ("detail", &inner.detail),
        ];
        for (name, text) in texts {
            if let Some(text) = text {
                debug.field(name, text);
            }
        }
        if let Some(oauth) = &inner.oauth {
            debug.field("oauth_error", oauth);
        }
        if let Some(source) = &inner.source {
            debug.field("source", source);
        }
        debug.finish_non_exhaustive()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match &self.0.source {
            Some(source) => Some(&**source),
            None => None,
        }
    }
}
