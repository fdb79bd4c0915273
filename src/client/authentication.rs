//! How a client proves its identity to the token endpoint.

use std::fmt;
use std::sync::Arc;

use super::box_future::BoxFuture;
use super::token_request::TokenRequest;
use crate::error::{ConfigError, Error};

/// Authenticates the client in a token request
/// ([RFC 6749 §2.3](https://www.rfc-editor.org/rfc/rfc6749#section-2.3)).
///
/// | method | for |
/// | --- | --- |
/// | [`ClientCredentials`](super::ClientCredentials) | a client secret |
/// | [`PrivateKeyJwt`](super::PrivateKeyJwt) | an assertion that the client signs |
/// | [`ClientAssertion`](super::ClientAssertion) | an assertion of a platform or key service |
/// | [`TlsClientAuth`](super::TlsClientAuth) | a TLS certificate |
/// | [`NoAuthentication`] | a grant that identifies the client |
///
/// Implement it for another method, such as a secret that is read from a vault.
///
/// # Examples
///
/// A secret that is fetched for each token request, so that the process does not keep it:
///
/// ```
/// use secrecy::SecretString;
/// use tower_oauth::client::{BoxFuture, ClientAuthentication, TokenRequest};
/// use tower_oauth::error::{ErrorKind, Operation};
/// use tower_oauth::{Error, TokenManager};
///
/// #[derive(Debug)]
/// struct Vaulted {
///     client_id: String,
/// #   secret: SecretString,
/// }
///
/// impl Vaulted {
///     async fn read_secret(&self) -> Result<SecretString, std::io::Error> {
///         // A request to the vault.
/// #       Ok(self.secret.clone())
///     }
/// }
///
/// impl ClientAuthentication for Vaulted {
///     fn authenticate<'a>(
///         &'a self,
///         request: &'a mut TokenRequest,
///     ) -> BoxFuture<'a, Result<(), Error>> {
///         Box::pin(async move {
///             let secret = self.read_secret().await.map_err(|error| {
///                 // The kind says that a retry may succeed.
///                 Error::new(Operation::TokenRequest, ErrorKind::Transport).with_source(error)
///             })?;
///             request.append("client_id", &self.client_id);
///             request.append_secret("client_secret", &secret);
///             Ok(())
///         })
///     }
///
///     fn client_id(&self) -> Option<&str> {
///         Some(&self.client_id)
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), tower_oauth::BoxError> {
/// # let issuer = tower_oauth::authorization_server::AuthorizationServer::builder().build()?;
/// # let shop = issuer.register("shop")?;
/// # let (endpoint, transport) = (issuer.token_endpoint(), issuer.transport());
/// # let shop = Vaulted { client_id: shop.client_id().to_owned(), secret: shop.secret().clone() };
/// let tokens = TokenManager::builder(endpoint, shop).transport(transport).start()?;
/// assert!(tokens.access_token().await?.expires_at().is_some());
/// # Ok(())
/// # }
/// ```
pub trait ClientAuthentication: fmt::Debug + Send + Sync + 'static {
    /// Adds the authentication to a request.
    ///
    /// Called for each token request, after the [`Grant`](super::Grant) and the other parameters
    /// have been written. The time limit of the token request includes this call.
    ///
    /// # Errors
    ///
    /// If the client cannot be authenticated. The [kind](Error::kind) of the error decides whether
    /// the token request is [retried](super::TokenSource#tymethod.fetch).
    fn authenticate<'a>(
        &'a self,
        request: &'a mut TokenRequest,
    ) -> BoxFuture<'a, Result<(), Error>>;

    /// The client id, if it is known before the first request.
    ///
    /// It is the default [name](super::TokenManagerBuilder::name) of the manager in metrics and
    /// events. Default: `None`.
    fn client_id(&self) -> Option<&str> {
        None
    }

    /// Whether the TLS certificate of the client authenticates it
    /// ([RFC 8705 §2](https://www.rfc-editor.org/rfc/rfc8705#section-2)).
    ///
    /// Discovery then prefers the token endpoint of `mtls_endpoint_aliases`
    /// ([RFC 8705 §5](https://www.rfc-editor.org/rfc/rfc8705#section-5)). Called when the manager is
    /// built. Default: `false`.
    fn uses_mtls(&self) -> bool {
        false
    }

    /// Checks the settings of the client. Called when the manager is built.
    ///
    /// # Errors
    ///
    /// If the client can never be authenticated. Default: never.
    fn check(&self) -> Result<(), ConfigError> {
        Ok(())
    }
}

/// Shares one client authentication between several builders.
impl ClientAuthentication for Arc<dyn ClientAuthentication> {
    fn authenticate<'a>(
        &'a self,
        request: &'a mut TokenRequest,
    ) -> BoxFuture<'a, Result<(), Error>> {
        (**self).authenticate(request)
    }

    fn client_id(&self) -> Option<&str> {
        (**self).client_id()
    }

    fn uses_mtls(&self) -> bool {
        (**self).uses_mtls()
    }

    fn check(&self) -> Result<(), ConfigError> {
        (**self).check()
    }
}

/// No client authentication, for a [`Grant`](super::Grant) that identifies the client itself.
///
/// Client authentication is optional for assertions as grants
/// ([RFC 7521 §4.1](https://www.rfc-editor.org/rfc/rfc7521#section-4.1)).
///
/// [`Grant`](super::Grant#examples) has an example.
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::exhaustive_structs, reason = "it has no settings")]
pub struct NoAuthentication;

impl ClientAuthentication for NoAuthentication {
    fn authenticate<'a>(
        &'a self,
        _request: &'a mut TokenRequest,
    ) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async { Ok(()) })
    }
}
