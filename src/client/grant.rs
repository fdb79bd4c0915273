//! What a token request asks for.

use std::fmt;

use super::box_future::BoxFuture;
use super::token_request::TokenRequest;
use crate::error::{ConfigError, Error};

/// Writes the grant of a token request: `grant_type` and its parameters
/// ([RFC 6749 §4.5](https://www.rfc-editor.org/rfc/rfc6749#section-4.5)).
///
/// The default of a [`TokenManager`](super::TokenManager) is the client credentials grant, and
/// [`JwtBearerGrant`](super::JwtBearerGrant) is an assertion as the grant. Implement it for another
/// one and pass it to [`TokenManagerBuilder::grant`](super::TokenManagerBuilder::grant). Scopes,
/// audience, resources and extension parameters of the builder are added after the grant.
///
/// # Examples
///
/// An assertion as the grant ([RFC 7523 §2.1](https://www.rfc-editor.org/rfc/rfc7523#section-2.1)):
///
/// ```
/// use secrecy::SecretString;
/// use tower_oauth::client::{BoxFuture, Grant, NoAuthentication, TokenRequest};
/// use tower_oauth::{Endpoint, Error, TokenManager};
///
/// /// The assertion that the platform gives to each process.
/// #[derive(Debug)]
/// struct PlatformAssertion;
///
/// impl Grant for PlatformAssertion {
///     fn write<'a>(&'a self, request: &'a mut TokenRequest) -> BoxFuture<'a, Result<(), Error>> {
///         Box::pin(async move {
///             // Read again for each request: the platform replaces it before it expires.
///             let assertion = SecretString::from("eyJhbGciOi…");
///             request.append("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer");
///             request.append_secret("assertion", &assertion);
///             Ok(())
///         })
///     }
/// }
///
/// let endpoint = Endpoint::new("https://as.example/token")?;
/// let (tokens, renewer) = TokenManager::builder(endpoint, NoAuthentication)
///     .grant(PlatformAssertion)
///     .build()?;
/// assert!(!format!("{tokens:?}").contains("eyJ"));
/// # Ok::<(), tower_oauth::ConfigError>(())
/// ```
pub trait Grant: fmt::Debug + Send + Sync + 'static {
    /// Adds `grant_type` and the parameters of the grant to a request.
    ///
    /// Called for each token request. The time limit of the token request includes this call.
    ///
    /// # Errors
    ///
    /// If the grant is not available. The [kind](Error::kind) of the error decides whether the
    /// token request is [retried](super::TokenSource#tymethod.fetch).
    fn write<'a>(&'a self, request: &'a mut TokenRequest) -> BoxFuture<'a, Result<(), Error>>;

    /// Checks the settings of the grant. Called when the manager is built.
    ///
    /// # Errors
    ///
    /// If the grant can never be used. Default: never.
    fn check(&self) -> Result<(), ConfigError> {
        Ok(())
    }
}

/// The client credentials grant (RFC 6749 §4.4.2).
#[derive(Debug)]
pub(super) struct ClientCredentialsGrant;

impl Grant for ClientCredentialsGrant {
    fn write<'a>(&'a self, request: &'a mut TokenRequest) -> BoxFuture<'a, Result<(), Error>> {
        request.append("grant_type", "client_credentials");
        Box::pin(async { Ok(()) })
    }
}
