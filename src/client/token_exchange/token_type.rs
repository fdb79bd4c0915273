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

/// The type of a token that must not be sent to a resource server.
const REFRESH_TOKEN: &str = "urn:ietf:params:oauth:token-type:refresh_token";

/// Which `issued_token_type` the response to an exchange may have.
///
/// An exchanged token is sent to a resource server, as a bearer token. An ID token, a SAML
/// assertion or a token of an unknown type is not for that, unless it was requested.
#[derive(Clone, Debug)]
pub(in crate::client) enum ExpectedTokenType {
    /// No type was requested: `access_token` or `jwt`.
    ForResourceServers,
    /// The requested type.
    Requested(TokenTypeIdentifier),
}

impl ExpectedTokenType {
    pub(in crate::client) fn is(&self, issued: &str) -> bool {
        match self {
            _ if issued == REFRESH_TOKEN => false,
            Self::ForResourceServers => {
                let types = [TokenTypeIdentifier::AccessToken, TokenTypeIdentifier::Jwt];
                types.iter().any(|expected| expected.as_str() == issued)
            }
            Self::Requested(requested) => requested.as_str() == issued,
        }
    }
}

impl fmt::Display for ExpectedTokenType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Requested(requested) if requested.as_str() != REFRESH_TOKEN => requested.fmt(f),
            _ => {
                let access_token = TokenTypeIdentifier::AccessToken;
                write!(f, "{access_token} or {}", TokenTypeIdentifier::Jwt)
            }
        }
    }
}

impl fmt::Display for TokenTypeIdentifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
