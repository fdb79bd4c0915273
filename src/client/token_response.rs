//! The successful response to a token request.
//!
//! [RFC 6749 §5.1](https://www.rfc-editor.org/rfc/rfc6749#section-5.1).

use std::fmt;
use std::time::Duration;

use http::HeaderValue;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::Value;

use crate::error::{Error, ErrorKind, Operation};
use crate::oauth::Scope;

/// Longer lifetimes are cut to this, so that every token is renewed within a day.
const MAX_LIFETIME: Duration = Duration::from_secs(86_400);

/// A bearer token that a [`TokenSource`](super::TokenSource) fetched
/// ([RFC 6749 §5.1](https://www.rfc-editor.org/rfc/rfc6749#section-5.1)).
///
/// `Debug` does not show the token.
///
/// ```
/// use std::time::Duration;
/// use tower_oauth::client::TokenResponse;
///
/// let response = TokenResponse::new("a-token")?.with_expires_in(Duration::from_secs(3600));
/// assert_eq!(response.expires_in(), Some(Duration::from_secs(3600)));
/// assert!(!format!("{response:?}").contains("a-token"));
/// assert!(TokenResponse::new("not a token").is_err());
/// # Ok::<(), tower_oauth::Error>(())
/// ```
#[derive(Clone)]
#[must_use]
pub struct TokenResponse {
    access_token: SecretString,
    /// `Bearer …`, marked sensitive.
    header: HeaderValue,
    expires_in: Option<Duration>,
    scopes: Option<Vec<Scope>>,
}

#[derive(Deserialize)]
struct Members {
    access_token: SecretString,
    token_type: String,
    #[serde(default)]
    expires_in: Option<Value>,
    #[serde(default)]
    scope: Option<String>,
}

impl TokenResponse {
    /// A token of unknown lifetime, which is not stored: each call requests another one.
    ///
    /// # Errors
    ///
    /// Of kind [`Malformed`](ErrorKind::Malformed), if the token is empty or has a character that
    /// is not visible ASCII.
    pub fn new(access_token: impl Into<SecretString>) -> Result<Self, Error> {
        Self::bearer(access_token.into()).map_err(|reason| {
            Error::new(Operation::TokenRequest, ErrorKind::Malformed).with_detail(reason)
        })
    }

    fn bearer(access_token: SecretString) -> Result<Self, &'static str> {
        const INVALID: &str = "`access_token` is not a valid header value";
        let token = access_token.expose_secret();
        if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(INVALID);
        }
        let mut header = HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| INVALID)?;
        header.set_sensitive(true);
        Ok(Self {
            access_token,
            header,
            expires_in: None,
            scopes: None,
        })
    }

    /// Sets the lifetime, counted from the call of [`fetch`](super::TokenSource::fetch).
    ///
    /// A fraction of a second is dropped. A lifetime of more than a day counts as a day.
    pub fn with_expires_in(mut self, lifetime: Duration) -> Self {
        self.expires_in = Some(Duration::from_secs(lifetime.min(MAX_LIFETIME).as_secs()));
        self
    }

    /// Sets the granted scopes.
    ///
    /// ```
    /// use tower_oauth::Scope;
    /// use tower_oauth::client::TokenResponse;
    ///
    /// let response = TokenResponse::new("a-token")?.with_scopes([Scope::new("orders.read")?]);
    /// assert_eq!(response.scopes().map(<[Scope]>::len), Some(1));
    /// # Ok::<(), tower_oauth::BoxError>(())
    /// ```
    pub fn with_scopes(mut self, scopes: impl IntoIterator<Item = Scope>) -> Self {
        self.scopes = Some(scopes.into_iter().collect());
        self
    }

    /// The token itself. It is a secret.
    #[must_use]
    pub fn expose_secret(&self) -> &str {
        self.access_token.expose_secret()
    }

    /// The lifetime; `None` if it is unknown.
    #[must_use]
    pub fn expires_in(&self) -> Option<Duration> {
        self.expires_in
    }

    /// The granted scopes, if they are known.
    #[must_use]
    pub fn scopes(&self) -> Option<&[Scope]> {
        self.scopes.as_deref()
    }

    /// The token, its `Authorization` field, and its scopes.
    pub(super) fn into_parts(self) -> (SecretString, HeaderValue, Option<Vec<Scope>>) {
        (self.access_token, self.header, self.scopes)
    }

    /// Parses the body of a response. Other members, such as a refresh token, are dropped. The
    /// error is a fixed text and quotes nothing of the body.
    pub(super) fn parse(body: &[u8]) -> Result<Self, &'static str> {
        // Drops the parser's error, which could quote the token.
        let Members {
            access_token,
            token_type,
            expires_in,
            scope,
        } = serde_json::from_slice(body).map_err(
            |_| "it is not a JSON object with the strings `access_token` and `token_type`",
        )?;
        // RFC 6749 §7.1: a token of an unknown type must not be used.
        if !token_type.eq_ignore_ascii_case("Bearer") {
            return Err("`token_type` is not `Bearer`");
        }
        let response = Self::bearer(access_token)?;
        let expires_in = expires_in
            .map(|seconds| parse_lifetime(&seconds))
            .transpose()?;
        let scopes = scope.map(|scope| {
            scope
                .split_ascii_whitespace()
                .filter_map(|one| Scope::new(one).ok())
                .collect()
        });
        Ok(Self {
            expires_in,
            scopes,
            ..response
        })
    }
}

/// Parses `expires_in`, a number or, as in App ID's guide, a numeric string. Returns whole seconds,
/// at least one and at most [`MAX_LIFETIME`].
fn parse_lifetime(expires_in: &Value) -> Result<Duration, &'static str> {
    let seconds: Option<f64> = match expires_in {
        Value::String(text) => text.trim().parse().ok(),
        other => other.as_f64(),
    };
    seconds
        .and_then(|seconds| {
            Duration::try_from_secs_f64(seconds.clamp(-1.0, MAX_LIFETIME.as_secs_f64())).ok()
        })
        .filter(|lifetime| *lifetime >= Duration::from_secs(1))
        .map(|lifetime| Duration::from_secs(lifetime.as_secs()))
        .ok_or("`expires_in` is not a lifetime of a second or more")
}

impl fmt::Debug for TokenResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenResponse")
            .field("expires_in", &self.expires_in)
            .field("scopes", &self.scopes)
            .finish_non_exhaustive()
    }
}
