//! The access token of a request that a resource server has accepted.

use std::fmt;
use std::sync::Arc;

use http::{Extensions, Request};
use secrecy::{ExposeSecret, SecretString};

use crate::clock::UnixTime;

/// The access token of a request that the resource server has accepted.
///
/// The layer puts it into the extensions of the request, next to the
/// [`AuthContext`](crate::AuthContext), if
/// [`keep_token`](crate::ResourceServerLayer::keep_token) is called. It is for services that act on
/// behalf of their caller: they [exchange](crate::client::TokenExchange) it for a token of such a
/// call ([RFC 8693](https://www.rfc-editor.org/rfc/rfc8693)).
///
/// Cheap to clone. `Debug` does not show the token. Its memory is zeroized when the last clone is
/// dropped. The `Authorization` field of the request, and the buffers of the HTTP server that it was
/// read from, are not zeroized.
///
/// # Examples
///
/// ```
/// use tower_oauth::clock::UnixTime;
/// use tower_oauth::resource_server::InboundToken;
///
/// let token = InboundToken::new("a-token", UnixTime::from_secs(1_800_000_000));
/// assert_eq!(token.expose_secret(), "a-token");
/// assert!(!format!("{token:?}").contains("a-token"));
/// ```
#[derive(Clone)]
pub struct InboundToken(Arc<Inner>);

struct Inner {
    /// Zeroized on drop.
    token: SecretString,
    expires_at: UnixTime,
}

impl InboundToken {
    /// A token, without `Bearer`, and when it expires.
    ///
    /// For a token that was validated without the layer: `expires_at` is that of its
    /// [`AuthContext`](crate::AuthContext::expires_at). Pass a `&str` to leave no other copy behind.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use tower_oauth::authorization_server::AuthorizationServer;
    /// # use tower_oauth::resource_server::Algorithm;
    /// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
    /// # let shop = issuer.register("shop")?;
    /// use tower_oauth::ResourceServer;
    /// use tower_oauth::resource_server::InboundToken;
    ///
    /// # let orders = ResourceServer::builder(issuer.issuer(), "orders");
    /// # let orders = orders.transport(issuer.transport()).start().await?;
    /// # let token = issuer.mint(&shop).audience(["orders"]).sign();
    /// // `token` came in a message.
    /// let caller = orders.validate(&token).await?;
    /// let token = InboundToken::new(token.as_str(), caller.expires_at());
    /// assert_eq!(token.expires_at(), caller.expires_at());
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn new(token: impl Into<SecretString>, expires_at: UnixTime) -> Self {
        let token = token.into();
        Self(Arc::new(Inner { token, expires_at }))
    }

    /// Returns the token of a request that passed a layer with
    /// [`keep_token`](crate::ResourceServerLayer::keep_token).
    ///
    /// ```
    /// use http::Request;
    /// use tower_oauth::clock::UnixTime;
    /// use tower_oauth::resource_server::InboundToken;
    ///
    /// let mut request = Request::new(());
    /// assert!(InboundToken::from_request(&request).is_none());
    /// // Inserted by the layer, and here by a test:
    /// let token = InboundToken::new("a-token", UnixTime::from_secs(1_800_000_000));
    /// request.extensions_mut().insert(token);
    /// assert!(InboundToken::from_request(&request).is_some());
    /// ```
    #[must_use]
    pub fn from_request<B>(request: &Request<B>) -> Option<&Self> {
        Self::from_extensions(request.extensions())
    }

    /// Returns the token from the extensions of a request that passed a layer with
    /// [`keep_token`](crate::ResourceServerLayer::keep_token).
    ///
    /// For extensions without their request, such as those of a tonic request.
    #[must_use]
    pub fn from_extensions(extensions: &Extensions) -> Option<&Self> {
        extensions.get()
    }

    /// The token itself. It is a secret, which belongs to the caller.
    #[must_use]
    pub fn expose_secret(&self) -> &str {
        self.0.token.expose_secret()
    }

    /// When the token expires, `exp`, without leeway.
    #[must_use]
    pub fn expires_at(&self) -> UnixTime {
        self.0.expires_at
    }
}

impl fmt::Debug for InboundToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InboundToken")
            .field("expires_at", &self.0.expires_at)
            .finish_non_exhaustive()
    }
}
