//! Client credentials and client authentication methods.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderValue, header};
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use super::authentication::ClientAuthentication;
use super::box_future::BoxFuture;
use super::token_request::{RequestPart, TokenRequest};
use crate::error::{BoxError, ConfigError, ConfigErrorKind, Error, ErrorKind, Operation};
use crate::redact::form_encoded;
use crate::secret_file;

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
    secret: Secret,
    method: Method,
}

#[derive(Clone)]
enum Secret {
    Fixed(SecretString),
    /// Id and secret are read for each token request.
    Read(Arc<ReadCredentials>),
}

type ReadCredentials = dyn Fn() -> Result<(String, SecretString), BoxError> + Send + Sync;

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
            secret: Secret::Fixed(secret.into()),
            method: Method::ClientSecretBasic,
        }
    }

    /// Credentials whose secret is in a file, which is read for each token request.
    ///
    /// A secret that is replaced, such as a mounted one of Kubernetes, needs no restart. Line ends
    /// at the end of the file are dropped. If the file cannot be read, is empty, is not UTF-8, has
    /// more than one line or more than 64 KiB, the token request fails with an error of kind
    /// [`Credentials`](ErrorKind::Credentials) and is retried. If the server refuses the client and
    /// the file has changed since it was read, the request is sent once more with the new secret.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use tower_oauth::authorization_server::AuthorizationServer;
    /// # use tower_oauth::resource_server::Algorithm;
    /// # use secrecy::ExposeSecret as _;
    /// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
    /// # let shop = issuer.register("shop")?;
    /// # let name = format!("tower-oauth-{}-secret", std::process::id());
    /// # let path = std::env::temp_dir().join(name);
    /// # std::fs::write(&path, format!("{}\n", shop.secret().expose_secret()))?;
    /// # let client_id = shop.client_id();
    /// use tower_oauth::{ClientCredentials, TokenManager};
    ///
    /// // `path` is the file of a mounted secret.
    /// let credentials = ClientCredentials::from_secret_file(client_id, &path);
    /// let tokens = TokenManager::builder(issuer.token_endpoint(), credentials)
    ///     .transport(issuer.transport())
    ///     .start()?;
    /// assert!(tokens.access_token().await.is_ok());
    /// # std::fs::remove_file(path)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn from_secret_file(client_id: impl Into<String>, path: impl Into<PathBuf>) -> Self {
        let (id, path) = (client_id.into(), path.into());
        Self::from_fn(id.clone(), move || {
            Ok((id.clone(), read_secret_file(&path)?))
        })
    }

    /// Credentials that `read` returns for each token request: client id and secret.
    ///
    /// For credentials that are replaced while the program runs. `read` may block: it runs on a
    /// blocking thread of the runtime. Its error must not contain a secret, because it is logged.
    /// After an error the token request is retried, as with
    /// [`from_secret_file`](Self::from_secret_file). `client_id` is the default
    /// [name](super::TokenManagerBuilder::name) of the manager.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use tower_oauth::authorization_server::AuthorizationServer;
    /// # use tower_oauth::resource_server::Algorithm;
    /// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
    /// # let shop = issuer.register("shop")?;
    /// # let store = (shop.client_id().to_owned(), shop.secret().clone());
    /// # let path = std::env::temp_dir();
    /// use tower_oauth::{ClientCredentials, TokenManager};
    ///
    /// let credentials = ClientCredentials::from_fn("shop", move || {
    ///     std::fs::metadata(&path)?; // read id and secret from a store
    ///     Ok(store.clone())
    /// });
    /// let tokens = TokenManager::builder(issuer.token_endpoint(), credentials)
    ///     .transport(issuer.transport())
    ///     .start()?;
    /// assert!(tokens.access_token().await.is_ok());
    /// # Ok(())
    /// # }
    /// ```
    pub fn from_fn(
        client_id: impl Into<String>,
        read: impl Fn() -> Result<(String, SecretString), BoxError> + Send + Sync + 'static,
    ) -> Self {
        Self {
            id: client_id.into(),
            secret: Secret::Read(Arc::new(read)),
            method: Method::ClientSecretBasic,
        }
    }

    /// Uses `client_secret_basic`, the default: HTTP Basic with form-urlencoded parts
    /// (RFC 6749 §2.3.1).
    ///
    /// For credentials whose default is another method, such as those of an App ID binding.
    ///
    /// ```
    /// use tower_oauth::ClientCredentials;
    ///
    /// let credentials = ClientCredentials::new("orders", "s3cret").client_secret_basic_raw();
    /// assert!(format!("{:?}", credentials.client_secret_basic()).contains("ClientSecretBasic"));
    /// ```
    pub fn client_secret_basic(mut self) -> Self {
        self.method = Method::ClientSecretBasic;
        self
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

    /// Reads the secret once, so that a wrong path is an error at startup. Blocks.
    ///
    /// Without it, [`start`](super::TokenManagerBuilder::start) reads no secret, because it may be
    /// mounted later.
    ///
    /// ```
    /// use tower_oauth::ClientCredentials;
    /// use tower_oauth::error::ConfigErrorKind;
    ///
    /// let credentials = ClientCredentials::from_secret_file("orders", "/no/such/secret");
    /// let error = credentials.check_secret().unwrap_err();
    /// assert_eq!(error.kind(), ConfigErrorKind::Unavailable);
    /// assert!(ClientCredentials::new("orders", "s3cret").check_secret().is_ok());
    /// ```
    ///
    /// # Errors
    ///
    /// If the secret cannot be read, or id or secret are not valid.
    pub fn check_secret(&self) -> Result<(), ConfigError> {
        match &self.secret {
            Secret::Fixed(secret) => self.method.check(&self.id, secret.expose_secret()),
            Secret::Read(read) => {
                let (id, secret) = read().map_err(unreadable)?;
                self.method.check(&id, secret.expose_secret())
            }
        }
    }

    /// The client id.
    #[must_use]
    pub fn client_id(&self) -> &str {
        &self.id
    }
}

impl Method {
    /// The credentials of Basic authentication (RFC 7617 §2); `None` for `client_secret_post`.
    fn basic(self, id: &str, secret: &str) -> Option<Zeroizing<String>> {
        let pair = match self {
            Self::ClientSecretPost => return None,
            Self::BasicRaw => format!("{id}:{secret}"),
            Self::ClientSecretBasic => format!("{}:{}", *form_encoded(id), *form_encoded(secret)),
        };
        Some(Zeroizing::new(
            STANDARD.encode(Zeroizing::new(pair).as_bytes()),
        ))
    }

    /// Whether id or secret are sent in another form than a server expects that does not decode
    /// them.
    fn changes(self, id: &str, secret: &str) -> bool {
        let is_changed = |text: &str| *form_encoded(text) != text;
        self == Self::ClientSecretBasic && (is_changed(id) || is_changed(secret))
    }

    fn check(self, id: &str, secret: &str) -> Result<(), ConfigError> {
        if id.is_empty() {
            return Err(ConfigError::missing("client id", "must not be empty"));
        }
        if secret.is_empty() {
            return Err(ConfigError::missing("client secret", "must not be empty"));
        }
        if self == Self::BasicRaw && id.contains(':') {
            // RFC 7617 §2: the user id ends at the first colon.
            return Err(ConfigError::new(
                "client id",
                id,
                "must not contain a colon",
            ));
        }
        Ok(())
    }

    /// Adds id and secret to a request.
    fn write(
        self,
        id: &str,
        secret: &SecretString,
        request: &mut TokenRequest,
    ) -> Result<(), ConfigError> {
        // A server may quote it in any form.
        request.add_secret(secret.expose_secret());
        match self.basic(id, secret.expose_secret()) {
            Some(pair) => {
                let field = Zeroizing::new(format!("Basic {}", *pair));
                let field = HeaderValue::try_from(field.as_str()).map_err(|_| {
                    ConfigError::without_value("client secret", "must be a valid header value")
                })?;
                request.insert_header(header::AUTHORIZATION, field);
            }
            None => {
                request.append("client_id", id);
                request.append_secret("client_secret", secret);
            }
        }
        if self.changes(id, secret.expose_secret()) {
            request.add_refusal_hint(RequestPart::ClientAuthentication, ENCODING_HINT);
        }
        Ok(())
    }
}

/// Added to `invalid_client` if Basic authentication encodes the credentials.
const ENCODING_HINT: &str = "the client id or secret contains characters that \
    `client_secret_basic` form-urlencodes (RFC 6749 §2.3.1); if they are right, the server may \
    expect unencoded Basic: try `ClientCredentials::client_secret_basic_raw`";

/// Maximum size of a secret file in bytes.
const MAX_SECRET_FILE: usize = 64 * 1024;

/// Reads a secret, which has one line (RFC 6749 §A.2). Blocks.
fn read_secret_file(path: &Path) -> Result<SecretString, ConfigError> {
    secret_file::read_line(path, MAX_SECRET_FILE).map_err(|reason| {
        ConfigError::without_value(format!("client secret file {}", path.display()), reason)
            .with_kind(ConfigErrorKind::Unavailable)
    })
}

/// The error of credentials that cannot be read at startup.
fn unreadable(error: BoxError) -> ConfigError {
    match error.downcast::<ConfigError>() {
        Ok(error) => *error,
        Err(error) => {
            ConfigError::without_value("client credentials", format!("cannot be read: {error}"))
                .with_kind(ConfigErrorKind::Unavailable)
        }
    }
}

/// Reads credentials on a thread that may block.
async fn read_credentials(read: &Arc<ReadCredentials>) -> Result<(String, SecretString), Error> {
    let read = Arc::clone(read);
    let credentials = secret_file::unblock(move || read()).await;
    credentials.map_err(|source| {
        Error::new(Operation::TokenRequest, ErrorKind::Credentials).with_source(source)
    })
}

impl ClientAuthentication for ClientCredentials {
    fn authenticate<'a>(
        &'a self,
        request: &'a mut TokenRequest,
    ) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async {
            match &self.secret {
                Secret::Fixed(secret) => self.method.write(&self.id, secret, request)?,
                Secret::Read(read) => {
                    let (id, secret) = read_credentials(read).await?;
                    let checked = self.method.check(&id, secret.expose_secret());
                    checked.map_err(|error| {
                        Error::new(Operation::TokenRequest, ErrorKind::Credentials)
                            .with_source(error)
                    })?;
                    request.record_credentials(&id, &secret);
                    self.method.write(&id, &secret, request)?;
                }
            }
            Ok(())
        })
    }

    fn client_id(&self) -> Option<&str> {
        Some(&self.id)
    }

    fn check(&self) -> Result<(), ConfigError> {
        match &self.secret {
            Secret::Fixed(secret) => self.method.check(&self.id, secret.expose_secret()),
            // The secret is not read here: it may be replaced before the first request.
            Secret::Read(_) => self.method.check(&self.id, "not read yet"),
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

    fn basic(method: Method, id: &str, secret: &str) -> String {
        let pair = method.basic(id, secret).unwrap();
        String::from_utf8(STANDARD.decode(&*pair).unwrap()).unwrap()
    }

    #[test]
    fn basic_authentication_is_form_urlencoded_unless_raw() {
        let encoded = basic(Method::ClientSecretBasic, "a b:c", "+/=é");
        assert_eq!(encoded, "a+b%3Ac:%2B%2F%3D%C3%A9");
        assert_eq!(basic(Method::BasicRaw, "abc", "+/="), "abc:+/=");
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
