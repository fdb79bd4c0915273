//! Identifiers of types of tokens.

use std::fmt;

/// What a token of an exchange is
/// ([RFC 8693 §3](https://www.rfc-editor.org/rfc/rfc8693#section-3)).
///
/// ```
/// use tower_oauth::client::TokenTypeIdentifier;
///
/// let jwt = TokenTypeIdentifier::Jwt;
/// assert_eq!(jwt.as_str(), "urn:ietf:params:oauth:token-type:jwt");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum TokenTypeIdentifier {
    /// An access token of the authorization server, in any form:
    /// `urn:ietf:params:oauth:token-type:access_token`.
    #[default]
    AccessToken,
    /// An ID token: `urn:ietf:params:oauth:token-type:id_token`.
    IdToken,
    /// A JWT, of any issuer: `urn:ietf:params:oauth:token-type:jwt`.
    Jwt,
    /// Another identifier, which is a URI.
    Other(String),
}

impl TokenTypeIdentifier {
    /// The identifier as it is sent.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::AccessToken => "urn:ietf:params:oauth:token-type:access_token",
            Self::IdToken => "urn:ietf:params:oauth:token-type:id_token",
            Self::Jwt => "urn:ietf:params:oauth:token-type:jwt",
            Self::Other(identifier) => identifier,
        }
    }
}

impl fmt::Display for TokenTypeIdentifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
