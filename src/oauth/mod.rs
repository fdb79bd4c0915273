//! Validated OAuth values: issuers, audiences, scopes, endpoints and origins.

use std::sync::Arc;

use self::text_value::impl_text_value;
use crate::error::ConfigError;

mod address;
mod endpoint;
mod issuer_difference;
mod origin;
mod plain_http;
mod resource_identifier;
mod text_value;

#[cfg(feature = "reqwest")]
pub(crate) use self::address::is_forbidden_address;
pub use self::endpoint::Endpoint;
pub(crate) use self::issuer_difference::{IssuerDifference, IssuerUrl};
pub use self::origin::Origin;
pub(crate) use self::plain_http::PlainHttp;
pub(crate) use self::resource_identifier::ResourceIdentifier;
#[cfg(feature = "authorization-server")]
pub(crate) use self::resource_identifier::has_only_uri_characters;

/// An issuer identifier: the value of `iss` in its tokens
/// ([RFC 8414 §2](https://www.rfc-editor.org/rfc/rfc8414#section-2)).
///
/// Compared byte for byte: `https://as.example` and `https://as.example/` are two issuers.
/// Cheap to clone.
///
/// ```
/// use tower_oauth::Issuer;
///
/// let issuer: Issuer = "https://as.example".parse()?;
/// assert_eq!(issuer, "https://as.example");
/// assert!(Issuer::try_from("").is_err());
/// # Ok::<(), tower_oauth::ConfigError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Issuer(Arc<str>);

impl Issuer {
    /// Creates an issuer identifier, spelled as in the tokens.
    ///
    /// It must be a URL if metadata are discovered at it, and need not be one otherwise: version 3
    /// tokens of App ID name a bare host.
    ///
    /// ```
    /// use tower_oauth::Issuer;
    ///
    /// let app_id_v3 = Issuer::new("eu-gb.appid.cloud.ibm.com")?; // not a URL
    /// assert_ne!(app_id_v3, "https://eu-gb.appid.cloud.ibm.com");
    /// assert!(Issuer::new("https://as.example ").is_err());
    /// # Ok::<(), tower_oauth::ConfigError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If it is empty or contains white space or control characters. The error does not show the
    /// value, because a URL may contain a secret.
    pub fn new(issuer: impl AsRef<str>) -> Result<Self, ConfigError> {
        let issuer = issuer.as_ref();
        if issuer.is_empty() {
            return Err(ConfigError::missing("issuer", "must not be empty"));
        }
        if issuer.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(ConfigError::without_value(
                "issuer",
                "must not contain white space or control characters",
            ));
        }
        Ok(Self(issuer.into()))
    }

    /// The identifier.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl_text_value!(Issuer, "an issuer identifier");

/// An audience: a value of `aud`
/// ([RFC 7519 §4.1.3](https://www.rfc-editor.org/rfc/rfc7519#section-4.1.3)).
///
/// ```
/// use tower_oauth::Audience;
///
/// let audience: Audience = "orders".parse()?;
/// assert_eq!(audience, "orders");
/// assert!(Audience::try_from(" ").is_err());
/// # Ok::<(), tower_oauth::ConfigError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Audience(Arc<str>);

impl Audience {
    /// Creates an audience, which is compared byte for byte with the values of `aud`.
    ///
    /// ```
    /// use tower_oauth::Audience;
    ///
    /// assert_eq!(Audience::new("https://orders.example")?.as_str(), "https://orders.example");
    /// let error = Audience::new("").unwrap_err();
    /// assert_eq!(error.to_string(), "audience must not be empty");
    /// # Ok::<(), tower_oauth::ConfigError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If it is empty or white space.
    pub fn new(audience: impl AsRef<str>) -> Result<Self, ConfigError> {
        let audience = audience.as_ref();
        if audience.trim().is_empty() {
            return Err(ConfigError::missing("audience", "must not be empty"));
        }
        Ok(Self(audience.into()))
    }

    /// The audience.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl_text_value!(Audience, "an audience");

/// A scope token ([RFC 6749 §3.3](https://www.rfc-editor.org/rfc/rfc6749#section-3.3)).
///
/// ```
/// use tower_oauth::Scope;
///
/// let scope: Scope = "orders.read".parse()?;
/// assert_eq!(scope, "orders.read");
/// assert!(Scope::try_from("orders.read orders.write").is_err());
/// # Ok::<(), tower_oauth::ConfigError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Scope(Arc<str>);

impl Scope {
    /// Creates a scope token: printable ASCII characters except space, `"` and `\`.
    ///
    /// ```
    /// use tower_oauth::Scope;
    ///
    /// assert_eq!(Scope::new("orders.read")?.as_str(), "orders.read");
    /// let error = Scope::new("orders.read orders.write").unwrap_err();
    /// assert_eq!(error.value(), Some("orders.read orders.write"));
    /// # Ok::<(), tower_oauth::ConfigError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If it is empty or contains another character.
    pub fn new(scope: impl AsRef<str>) -> Result<Self, ConfigError> {
        let scope = scope.as_ref();
        let allowed = |b: u8| matches!(b, 0x21 | 0x23..=0x5b | 0x5d..=0x7e);
        if scope.is_empty() {
            return Err(ConfigError::missing("scope", "must not be empty"));
        }
        if !scope.bytes().all(allowed) {
            return Err(ConfigError::new(
                "scope",
                scope,
                "must be a scope token (RFC 6749 §3.3)",
            ));
        }
        Ok(Self(scope.into()))
    }

    /// The scope token.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl_text_value!(Scope, "a scope token");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_of_an_invalid_issuer_does_not_show_it() {
        let error = Issuer::new("https://user:secret@as.example /")
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("white space") && !error.contains("secret"),
            "{error}"
        );
    }

    #[test]
    fn empty_and_malformed_values_are_invalid() {
        assert!(Issuer::new("").is_err());
        assert!(Issuer::new("https://as.example ").is_err());
        assert!(Audience::new("").is_err());
        assert!(Audience::new(" ").is_err());
        for scope in ["", "a b", "a\tb", "a\"b", "a\\b", "é"] {
            assert!(Scope::new(scope).is_err(), "{scope:?}");
        }
        assert_eq!(Scope::new("orders.read").unwrap().as_str(), "orders.read");
    }
}
