//! The successful response to a token request.
//!
//! [RFC 6749 §5.1](https://www.rfc-editor.org/rfc/rfc6749#section-5.1).

use std::fmt;
use std::time::Duration;

use http::HeaderValue;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use super::response_members::ResponseMembers;
use crate::error::{Error, ErrorKind, Operation};
use crate::oauth::Scope;

/// Longer lifetimes are cut to this, so that every token is renewed within a day.
pub(super) const MAX_LIFETIME: Duration = Duration::from_secs(86_400);

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
    renew_after: Option<Duration>,
    scopes: Option<Vec<Scope>>,
    /// Of a token exchange (RFC 8693 §2.2.1).
    issued_token_type: Option<String>,
}

/// Token types that bind the token to a key: as a bearer token it is useless.
const BOUND_TOKEN_TYPES: [&str; 3] = ["DPoP", "PoP", "mac"];

/// Why a response has no usable token. The texts of the server are not redacted yet.
#[derive(Debug)]
pub(super) enum InvalidResponse {
    /// The body is not a JSON object.
    NotAnObject,
    /// The member `error` is present.
    HasError,
    /// A member that is used is given more than once.
    Repeated(&'static str),
    /// `access_token` is absent or has this type.
    NoToken(&'static str),
    /// `access_token` is no valid header value.
    InvalidToken(&'static str),
    /// `token_type` is absent, or this one.
    TokenType(Option<String>),
    /// `expires_in` is this.
    Lifetime(String),
    /// The response to a token exchange has no `issued_token_type`.
    NoIssuedTokenType,
    /// The `issued_token_type` of a token exchange is this.
    IssuedTokenType(String),
}

impl TokenResponse {
    /// A token of unknown lifetime: a manager [assumes one][assumed].
    ///
    /// [assumed]: super::TokenManagerBuilder::assumed_lifetime
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
            renew_after: None,
            scopes: None,
            issued_token_type: None,
        })
    }

    /// Sets the lifetime, counted from the call of [`fetch`](super::TokenSource::fetch).
    ///
    /// A fraction of a second is dropped. A lifetime of more than a day counts as a day.
    pub fn with_expires_in(mut self, lifetime: Duration) -> Self {
        self.expires_in = Some(Duration::from_secs(lifetime.min(MAX_LIFETIME).as_secs()));
        self
    }

    /// Sets when another token is fetched, counted from the time at which this one was fetched.
    ///
    /// For a source that replaces its token before it expires, such as a file. A manager fetches
    /// earlier if the lifetime requires it, and not later, while the token is used. The minimum is
    /// a second. Default: as the lifetime requires.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tower_oauth::client::TokenResponse;
    ///
    /// let response = TokenResponse::new("a-token")?
    ///     .with_expires_in(Duration::from_secs(3600))
    ///     .with_renew_after(Duration::from_secs(60));
    /// assert_eq!(response.renew_after(), Some(Duration::from_secs(60)));
    /// # Ok::<(), tower_oauth::Error>(())
    /// ```
    pub fn with_renew_after(mut self, after: Duration) -> Self {
        self.renew_after = Some(after.max(Duration::from_secs(1)));
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

    /// When another token is fetched at the latest; `None` if only the lifetime decides.
    #[must_use]
    pub fn renew_after(&self) -> Option<Duration> {
        self.renew_after
    }

    /// The granted scopes, if they are known.
    #[must_use]
    pub fn scopes(&self) -> Option<&[Scope]> {
        self.scopes.as_deref()
    }

    /// What the token is, in the response to a token exchange.
    pub(super) fn issued_token_type(&self) -> Option<&str> {
        self.issued_token_type.as_deref()
    }

    /// The token, its `Authorization` field, and its scopes.
    pub(super) fn into_parts(self) -> (SecretString, HeaderValue, Option<Vec<Scope>>) {
        (self.access_token, self.header, self.scopes)
    }

    /// Parses the body of a response. Members other than those of RFC 6749 §5.1 are ignored,
    /// and so is a refresh token. `assume_bearer` accepts a missing or unknown `token_type`.
    pub(super) fn parse(body: &[u8], assume_bearer: bool) -> Result<Self, InvalidResponse> {
        let members = ResponseMembers::parse(body).ok_or(InvalidResponse::NotAnObject)?;
        if members.has_error() {
            return Err(InvalidResponse::HasError);
        }
        if let Some(name) = members.repeated() {
            return Err(InvalidResponse::Repeated(name));
        }
        let access_token = members.access_token().map_err(InvalidResponse::NoToken)?;
        check_token_type(members.token_type(), assume_bearer)?;
        let response = Self::bearer(access_token).map_err(InvalidResponse::InvalidToken)?;
        let expires_in = members
            .expires_in()
            .map(|text| parse_lifetime(&text).ok_or(InvalidResponse::Lifetime(text)));
        Ok(Self {
            expires_in: expires_in.transpose()?,
            scopes: members.scope().and_then(|scope| parse_scope(&scope)),
            issued_token_type: members.issued_token_type(),
            ..response
        })
    }
}

/// RFC 6749 §7.1: a token of an unknown type must not be used.
fn check_token_type(found: Option<String>, assume_bearer: bool) -> Result<(), InvalidResponse> {
    let is = |known: &str| {
        let found = found.as_deref().map(str::trim);
        found.is_some_and(|found| found.eq_ignore_ascii_case(known))
    };
    if is("Bearer") || (assume_bearer && !BOUND_TOKEN_TYPES.into_iter().any(is)) {
        Ok(())
    } else {
        Err(InvalidResponse::TokenType(found))
    }
}

/// Parses `scope`, a list separated by spaces or, as some servers send it, an array. Anything else
/// counts as absent: no decision of the client depends on it.
fn parse_scope(scope: &Value) -> Option<Vec<Scope>> {
    let texts = match scope {
        Value::String(text) => vec![text.as_str()],
        Value::Array(elements) => elements.iter().filter_map(Value::as_str).collect(),
        _ => return None,
    };
    let names = texts.iter().flat_map(|text| text.split_ascii_whitespace());
    Some(names.filter_map(|name| Scope::new(name).ok()).collect())
}

/// Parses the text of `expires_in`, a number or, as in App ID's guide, a numeric string. Returns
/// whole seconds, at least one and at most [`MAX_LIFETIME`].
fn parse_lifetime(text: &str) -> Option<Duration> {
    let text = text.trim();
    // Excludes `inf` and `NaN`, which a float may be as well.
    if text.contains(|c: char| !c.is_ascii_digit() && !"+-.eE".contains(c)) {
        return None;
    }
    let seconds: f64 = text.parse().ok()?;
    let seconds = seconds.clamp(-1.0, MAX_LIFETIME.as_secs_f64());
    let lifetime = Duration::try_from_secs_f64(seconds).ok()?.as_secs();
    (lifetime > 0).then(|| Duration::from_secs(lifetime))
}

impl fmt::Debug for TokenResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenResponse")
            .field("expires_in", &self.expires_in)
            .field("scopes", &self.scopes)
            .finish_non_exhaustive()
    }
}
