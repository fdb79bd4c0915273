//! What goes wrong for the operator: configuration, key sets, token requests.
//!
//! What is wrong with one request is a [`Rejection`](crate::Rejection), and the two never mix.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

use crate::redact::Secrets;

/// Any error, boxed.
pub type BoxError = Box<dyn StdError + Send + Sync>;

/// A setting that cannot be used, found before anything was started.
///
/// Holds the name of the setting, the offending value (never a secret) and the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    what: String,
    value: Option<String>,
    reason: String,
}

impl ConfigError {
    pub(crate) fn new(
        what: impl Into<String>,
        value: impl Into<String>,
        reason: impl Into<String>,
    ) -> Self {
        Self {
            what: what.into(),
            value: Some(value.into()),
            reason: reason.into(),
        }
    }

    /// For values that are secret, absent, or too long to show.
    pub(crate) fn without_value(what: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            value: None,
            reason: reason.into(),
        }
    }

    /// The same error without the value: where it is a server's, and may be a secret that stands in
    /// the wrong place.
    pub(crate) fn without_its_value(self) -> Self {
        Self {
            value: None,
            ..self
        }
    }

    /// The setting: an environment variable, a builder method, or a word of the standards.
    #[must_use]
    pub fn setting(&self) -> &str {
        &self.what
    }

    /// The same error for another setting, such as the variable that the value came from.
    #[must_use]
    pub fn for_setting(mut self, setting: impl Into<String>) -> Self {
        self.what = setting.into();
        self
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(value) => write!(f, "{} {value:?} {}", self.what, self.reason),
            None => write!(f, "{} {}", self.what, self.reason),
        }
    }
}

impl StdError for ConfigError {}

/// What was being done when an [`Error`] happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Operation {
    /// Reading settings, before anything was started.
    Configuration,
    /// Reading authorization server metadata (RFC 8414).
    Discovery,
    /// Fetching a key set (RFC 7517).
    JwksFetch,
    /// Calling the App ID management API.
    Management,
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
            Self::TokenRequest => "token request",
        })
    }
}

/// How an [`Operation`] failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The server's certificate is not trusted, has expired, or is for another name; the source
    /// says which. A token request is not tried again after it.
    Certificate,
    /// A setting turned out to be unusable.
    Configuration,
    /// The metadata names another issuer than the configured one (RFC 8414 §3.3).
    IssuerMismatch,
    /// The answer could not be understood.
    Malformed,
    /// The key set holds no key that can be used.
    NoUsableKey,
    /// Too many calls wait for the same thing already; see
    /// [`max_waiters`](crate::TokenManagerBuilder::max_waiters).
    Overloaded,
    /// The server refused with an OAuth error; see [`Error::oauth_error`].
    Refused,
    /// The server answered with this status.
    Status(StatusCode),
    /// No complete answer within the time limit.
    Timeout,
    /// The answer was larger than the limit.
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
            Self::IssuerMismatch => "issuer_mismatch",
            Self::Malformed => "malformed",
            Self::NoUsableKey => "no_usable_key",
            Self::Overloaded => "overloaded",
            Self::Refused => "refused",
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
            Self::Configuration => f.write_str("a setting is unusable"),
            Self::IssuerMismatch => {
                f.write_str("the metadata names another issuer than the configured one")
            }
            Self::Malformed => f.write_str("the answer could not be understood"),
            Self::NoUsableKey => f.write_str("the key set holds no usable key"),
            Self::Overloaded => f.write_str("too many calls are waiting already"),
            Self::Refused => f.write_str("the server refused"),
            Self::Status(status) => write!(f, "the server answered {status}"),
            Self::Timeout => f.write_str("no answer in time"),
            Self::TooLarge => f.write_str("the answer is too large"),
            Self::Transport => f.write_str("the server could not be reached"),
        }
    }
}

/// What an authorization server says of a request that it refuses
/// ([RFC 6749 §5.2](https://www.rfc-editor.org/rfc/rfc6749#section-5.2)).
///
/// Secrets and tokens that the server quotes are replaced by `[redacted]`, in each encoding in
/// which they were sent. `Display` escapes the text and cuts it to 200 characters.
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
    /// What a server says, without the secrets that it may quote.
    pub(crate) fn new(code: &str, description: Option<&str>, secrets: &Secrets) -> Self {
        // A registered code quotes nothing, even if a secret is a part of it.
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

    /// The `error`, or the `error_code` that App ID sends on some paths.
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
        write!(f, "{}", shown(&self.code))?;
        match &self.description {
            Some(description) => write!(f, " ({})", shown(description)),
            None => Ok(()),
        }
    }
}

/// A server's words as they are displayed: escaped and cut, because they may end up in a terminal.
pub(crate) fn shown(text: &str) -> String {
    text.escape_debug().take(200).collect()
}

/// An operation that failed: the operator's problem, not the caller's.
///
/// Cheap to clone, because one failed flight is the answer to all who waited for it.
#[derive(Clone)]
pub struct Error(Arc<Inner>);

struct Inner {
    operation: Operation,
    kind: ErrorKind,
    url: Option<String>,
    oauth: Option<OAuthError>,
    status: Option<StatusCode>,
    retry_after: Option<Duration>,
    detail: Option<String>,
    source: Option<BoxError>,
}

impl Error {
    pub(crate) fn new(operation: Operation, kind: ErrorKind) -> Self {
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
            detail: None,
            source: None,
        }))
    }

    /// The error of an answer that is not the one hoped for, with what the server said.
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

    pub(crate) fn with_source(self, source: impl Into<BoxError>) -> Self {
        self.map(|inner| Inner {
            source: Some(source.into()),
            ..inner
        })
    }

    /// Adds what the kind alone does not say. A server's words in it are [`shown`].
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

    /// Notes where the request went, without query and fragment.
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
            // Shared already, and so complete.
            Err(shared) => Self(shared),
        }
    }

    /// What was being done.
    #[must_use]
    pub fn operation(&self) -> Operation {
        self.0.operation
    }

    /// How it failed.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// What the authorization server said, if it said anything.
    #[must_use]
    pub fn oauth_error(&self) -> Option<&OAuthError> {
        self.0.oauth.as_ref()
    }

    /// The status that the server answered with, if it answered.
    #[must_use]
    pub fn status(&self) -> Option<StatusCode> {
        self.0.status
    }

    /// How long the server asked to be left alone (`Retry-After`).
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// The error with what it came from, in one line, for a log.
    #[cfg(feature = "tracing")]
    pub(crate) fn with_sources(&self) -> String {
        let mut line = self.to_string();
        let mut source = StdError::source(self);
        while let Some(error) = source {
            // It may quote what came from outside: one line, and not all of it.
            line.push_str(": ");
            line.push_str(&shown(&error.to_string()));
            source = error.source();
        }
        line
    }

    /// Where the request went, without query and fragment.
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
        write!(f, ": {}", inner.kind)?;
        if let (Some(status), false) = (inner.status, matches!(inner.kind, ErrorKind::Status(_))) {
            write!(f, " ({status})")?;
        }
        if let Some(detail) = &inner.detail {
            write!(f, ": {detail}")?;
        }
        if let Some(oauth) = &inner.oauth {
            write!(f, ": {oauth}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("operation", &self.0.operation)
            .field("kind", &self.0.kind)
            .field("url", &self.0.url)
            .field("detail", &self.0.detail)
            .field("oauth_error", &self.0.oauth)
            .field("source", &self.0.source)
            .finish_non_exhaustive()
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
