//! Client credentials and client authentication methods.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderValue, header};
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use super::authentication::ClientAuthentication;
use super::box_future::BoxFuture;
use super::token_request::TokenRequest;
use crate::error::{ConfigError, Error};
use crate::redact::form_encoded;

/// A client id and client secret
/// ([RFC 6749 §2.3.1](https://www.rfc-editor.org/rfc/rfc6749#section-2.3.1)).
///
/// The [`ClientAuthentication`] that servers support first. Sent with HTTP Basic authentication,
/// unless another method is chosen. `Debug` does not show the secret, and its memory is zeroized on
/// drop.
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

/// The client authentication method: the names of RFC 7591 §2, and App ID's variant of Basic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    ClientSecretBasic,
    BasicRaw,
    ClientSecretPost,
}

impl ClientCredentials {
    /// Credentials for `client_secret_basic`: HTTP Basic with form-urlencoded parts
    /// (RFC 6749 §2.3.1).
    pub fn new(client_id: impl Into<String>, secret: impl Into<SecretString>) -> Self {
        Self {
            id: client_id.into(),
            secret: secret.into(),
            method: Method::ClientSecretBasic,
        }
    }

    /// Uses HTTP Basic without form-urlencoding, for servers such as App ID.
    ///
    /// Differs only for ids and secrets with characters other than letters, digits, `-`, `.`, `_`
    /// and `*`.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use base64::{Engine as _, engine::general_purpose::STANDARD};
    /// # use http_body_util::Full;
    /// # let endpoint = tower_oauth::Endpoint::new("https://as.example/token")?;
    /// # let echo = tower_oauth::transport::ServiceTransport::new(tower::service_fn(
    /// #     async |request: http::Request<Full<bytes::Bytes>>| {
    /// #         let field = request.headers()["authorization"].to_str()?;
    /// #         let pair = STANDARD.decode(field.trim_start_matches("Basic "))?;
    /// #         let pair = String::from_utf8(pair)?;
    /// #         let body = serde_json::json!({ "access_token": pair, "token_type": "Bearer" });
    /// #         Ok::<_, tower_oauth::BoxError>(http::Response::new(body.to_string()))
    /// #     },
    /// # ));
    /// use tower_oauth::{ClientCredentials, TokenManager};
    ///
    /// let credentials = ClientCredentials::new("orders", "a+b/c=").client_secret_basic_raw();
    /// let tokens = TokenManager::builder(endpoint, credentials)
    ///     .transport(echo) // a token endpoint whose token is the user-pass that it receives
    ///     .start()?;
    /// assert_eq!(tokens.access_token().await?.expose_secret(), "orders:a+b/c=");
    /// # Ok(())
    /// # }
    /// ```
    pub fn client_secret_basic_raw(mut self) -> Self {
        self.method = Method::BasicRaw;
        self
    }

    /// Uses `client_secret_post`: id and secret in the request body.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use http_body_util::BodyExt as _;
    /// # let echo = tower_oauth::transport::ServiceTransport::new(tower::service_fn(
    /// #     async |request: http::Request<http_body_util::Full<bytes::Bytes>>| {
    /// #         let form = request.into_body().collect().await?.to_bytes();
    /// #         let form = String::from_utf8_lossy(&form).into_owned();
    /// #         let body = serde_json::json!({ "access_token": form, "token_type": "Bearer" });
    /// #         Ok::<_, tower_oauth::BoxError>(http::Response::new(body.to_string()))
    /// #     },
    /// # ));
    /// # let endpoint = tower_oauth::Endpoint::new("https://as.example/token")?;
    /// use tower_oauth::{ClientCredentials, TokenManager};
    ///
    /// let credentials = ClientCredentials::new("orders", "s3cret").client_secret_post();
    /// let tokens = TokenManager::builder(endpoint, credentials)
    ///     .transport(echo) // a token endpoint whose tokens are the forms that it receives
    ///     .start()?;
    /// let form = tokens.access_token().await?;
    /// assert!(form.expose_secret().ends_with("&client_id=orders&client_secret=s3cret"));
    /// # Ok(())
    /// # }
    /// ```
    pub fn client_secret_post(mut self) -> Self {
        self.method = Method::ClientSecretPost;
        self
    }

    /// The client id.
    #[must_use]
    pub fn client_id(&self) -> &str {
        &self.id
    }

    /// The credentials of Basic authentication (RFC 7617 §2); `None` for `client_secret_post`.
    fn basic(&self) -> Option<Zeroizing<String>> {
        let secret = self.secret.expose_secret();
        let pair = match self.method {
            Method::ClientSecretPost => return None,
            Method::BasicRaw => format!("{}:{secret}", self.id),
            Method::ClientSecretBasic => {
                format!("{}:{}", *form_encoded(&self.id), *form_encoded(secret))
            }
        };
        Some(Zeroizing::new(
            STANDARD.encode(Zeroizing::new(pair).as_bytes()),
        ))
    }
}

impl ClientAuthentication for ClientCredentials {
    fn authenticate<'a>(
        &'a self,
        request: &'a mut TokenRequest,
    ) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async {
            // A server may quote it in any form.
            request.add_secret(self.secret.expose_secret());
            match self.basic() {
                Some(pair) => {
                    let field = Zeroizing::new(format!("Basic {}", *pair));
                    let field = HeaderValue::try_from(field.as_str()).map_err(|_| {
                        ConfigError::without_value("client secret", "must be a valid header value")
                    })?;
                    request.insert_header(header::AUTHORIZATION, field);
                }
                None => {
                    request.append("client_id", &self.id);
                    request.append_secret("client_secret", &self.secret);
                }
            }
            Ok(())
        })
    }

    fn client_id(&self) -> Option<&str> {
        Some(&self.id)
    }

    fn check(&self) -> Result<(), ConfigError> {
        if self.id.is_empty() {
            return Err(ConfigError::missing("client id", "must not be empty"));
        }
        if self.secret.expose_secret().is_empty() {
            return Err(ConfigError::missing("client secret", "must not be empty"));
        }
        if self.method == Method::BasicRaw && self.id.contains(':') {
            // RFC 7617 §2: the user id ends at the first colon.
            return Err(ConfigError::new(
                "client id",
                &self.id,
                "must not contain a colon",
            ));
        }
        Ok(())
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
        String::from_utf8(STANDARD.decode(&*credentials.basic().unwrap()).unwrap()).unwrap()
    }

    #[test]
    fn basic_authentication_is_form_urlencoded_unless_raw() {
        let credentials = ClientCredentials::new("a b:c", "+/=é");
        assert_eq!(basic(&credentials), "a+b%3Ac:%2B%2F%3D%C3%A9");
        assert_eq!(
            basic(&ClientCredentials::new("abc", "+/=").client_secret_basic_raw()),
            "abc:+/="
        );
    }

    #[test]
    fn empty_credentials_and_a_raw_client_id_with_a_colon_are_invalid() {
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
