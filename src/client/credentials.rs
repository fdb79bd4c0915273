//! Who the client is, and how it proves it.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use secrecy::{ExposeSecret, SecretString};
use url::form_urlencoded;
use zeroize::Zeroizing;

use crate::error::ConfigError;
use crate::redact::Secrets;

/// A client id and its secret ([RFC 6749 §2.3.1](https://www.rfc-editor.org/rfc/rfc6749#section-2.3.1)).
///
/// Sent as HTTP Basic authentication, unless another method is chosen. The secret is in no
/// `Debug` output, and its memory is wiped when it is dropped.
///
/// ```
/// use tower_oauth::ClientCredentials;
///
/// let credentials = ClientCredentials::new("orders", "s3cret").client_secret_post();
/// assert!(!format!("{credentials:?}").contains("s3cret"));
/// ```
#[derive(Clone)]
#[must_use]
pub struct ClientCredentials {
    id: String,
    secret: SecretString,
    method: Method,
}

/// How the credentials go out (the names of RFC 7591 §2, and App ID's way).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    ClientSecretBasic,
    BasicUnencoded,
    ClientSecretPost,
}

impl ClientCredentials {
    /// Credentials for `client_secret_basic`: HTTP Basic, its parts form-urlencoded first, as
    /// RFC 6749 §2.3.1 says.
    pub fn new(client_id: impl Into<String>, secret: impl Into<SecretString>) -> Self {
        Self {
            id: client_id.into(),
            secret: secret.into(),
            method: Method::ClientSecretBasic,
        }
    }

    /// HTTP Basic without the form-urlencoding: for servers that expect the parts as they are,
    /// App ID among them. It makes a difference only for ids and secrets with other characters
    /// than letters, digits, `-`, `.`, `_` and `*`.
    pub fn client_secret_basic_raw(mut self) -> Self {
        self.method = Method::BasicUnencoded;
        self
    }

    /// `client_secret_post`: both in the request's body, for servers without HTTP Basic.
    pub fn client_secret_post(mut self) -> Self {
        self.method = Method::ClientSecretPost;
        self
    }

    /// The client id.
    #[must_use]
    pub fn client_id(&self) -> &str {
        &self.id
    }

    /// What cannot be sent is found when the manager is built, not with the first request.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if self.id.is_empty() {
            return Err(ConfigError::new("client id", "", "must not be empty"));
        }
        if self.secret.expose_secret().is_empty() {
            return Err(ConfigError::without_value(
                "client secret",
                "must not be empty",
            ));
        }
        if self.method == Method::BasicUnencoded && self.id.contains(':') {
            // RFC 7617 §2: the user id ends at the first colon.
            return Err(ConfigError::new(
                "client id",
                &self.id,
                "must not hold a colon",
            ));
        }
        Ok(())
    }

    /// The `Authorization` field of the token request, marked sensitive; `None` where they go
    /// into the body.
    pub(super) fn authorization(&self) -> Option<HeaderValue> {
        let pair = self.basic()?;
        let mut value = HeaderValue::try_from(format!("Basic {}", *pair)).ok()?;
        value.set_sensitive(true);
        Some(value)
    }

    /// Id and secret as Basic authentication has them (RFC 7617 §2); `None` where they go into the
    /// body.
    fn basic(&self) -> Option<Zeroizing<String>> {
        let secret = self.secret.expose_secret();
        let pair = match self.method {
            Method::ClientSecretPost => return None,
            Method::BasicUnencoded => format!("{}:{secret}", self.id),
            Method::ClientSecretBasic => {
                let encode = |part: &str| {
                    let mut encoded =
                        Zeroizing::new(String::with_capacity(part.len().saturating_mul(3)));
                    encoded.extend(form_urlencoded::byte_serialize(part.as_bytes()));
                    encoded
                };
                format!("{}:{}", *encode(&self.id), *encode(secret))
            }
        };
        Some(Zeroizing::new(
            STANDARD.encode(Zeroizing::new(pair).as_bytes()),
        ))
    }

    /// Notes in which forms the secret goes out.
    pub(super) fn add_to(&self, secrets: &mut Secrets) {
        secrets.add(self.secret.expose_secret());
        if let Some(pair) = self.basic() {
            // A server may quote it without its padding.
            secrets.add(pair.trim_end_matches('='));
        }
    }

    /// Adds them to the body, where they are sent there.
    pub(super) fn append_to(&self, form: &mut form_urlencoded::Serializer<'_, String>) {
        if self.method == Method::ClientSecretPost {
            form.append_pair("client_id", &self.id);
            form.append_pair("client_secret", self.secret.expose_secret());
        }
    }
}

impl fmt::Debug for ClientCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientCredentials")
            .field("client_id", &self.id)
            .field("method", &self.method)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn basic(credentials: &ClientCredentials) -> String {
        let field = credentials.authorization().unwrap();
        assert!(field.is_sensitive());
        let encoded = field
            .to_str()
            .unwrap()
            .strip_prefix("Basic ")
            .unwrap()
            .to_owned();
        String::from_utf8(STANDARD.decode(encoded).unwrap()).unwrap()
    }

    #[test]
    fn basic_authentication_is_form_urlencoded_unless_the_server_wants_it_raw() {
        let credentials = ClientCredentials::new("a b:c", "+/=é");
        assert_eq!(basic(&credentials), "a+b%3Ac:%2B%2F%3D%C3%A9");
        assert_eq!(
            basic(&ClientCredentials::new("abc", "+/=").client_secret_basic_raw()),
            "abc:+/="
        );
    }

    #[test]
    fn empty_credentials_and_a_raw_id_with_a_colon_are_refused() {
        assert!(ClientCredentials::new("", "s").check().is_err());
        assert!(ClientCredentials::new("a", "").check().is_err());
        assert!(
            ClientCredentials::new("a:b", "s")
                .client_secret_basic_raw()
                .check()
                .is_err()
        );
        assert!(ClientCredentials::new("a:b", "s").check().is_ok());
    }
}
