//! The tower layer of the client.

use tower_layer::Layer;

use super::origin::AllowedOrigins;
use super::{BearerTokenService, CloneAnyBody, CloneEmptyBody, CloneNoBody, TokenManager};
use crate::oauth::Origin;

/// Adds the access token to requests, and renews a token that a resource server rejects.
///
/// A response rejects the token if it is a 401 with a Bearer challenge of `invalid_token`
/// ([RFC 6750 §3.1](https://www.rfc-editor.org/rfc/rfc6750#section-3.1)). Over gRPC it has the same
/// challenge and `grpc-status: 16` in its header section (a trailers-only response); trailers after
/// a body are ignored.
///
/// A rejected token is renewed, whether or not the request can be retried. Until then it stays in
/// use for other requests, because another resource server may accept it. A request that can be
/// retried waits for the new token for at most 5 seconds (see
/// [`TokenManager::invalidate_and_wait`]) and is sent once more. If there is no new token in that
/// time, the caller gets the rejecting response. At most one rejection per 10 seconds causes a
/// renewal.
///
/// Created by [`TokenManager::layer`]. The token is sent only to the origins given there. A request
/// that already has an `Authorization` field is sent unchanged, and plain `http` beyond loopback
/// gets no token, even if its origin is in the list. Put a layer that follows redirects outside of
/// this one, so that the origin of each hop is checked.
#[derive(Clone, Debug)]
#[must_use]
pub struct BearerTokenLayer<P = CloneEmptyBody> {
    tokens: TokenManager,
    allowed: AllowedOrigins,
    clone_body: P,
}

impl TokenManager {
    /// Returns a layer that adds the token to requests to these origins.
    ///
    /// Takes [`Origin`]s, and [`Endpoint`](crate::Endpoint)s for theirs. Requests to other origins
    /// get no token.
    ///
    /// No token is sent to plain `http` beyond loopback, even if its origin is in the list: such an
    /// origin is ignored, and one `warn` event names it (feature `tracing`).
    ///
    /// ```
    /// # async fn example() -> Result<(), tower_oauth::BoxError> {
    /// use tower::ServiceBuilder;
    /// use tower_oauth::{ClientCredentials, Issuer, Origin, TokenManager};
    /// # use bytes::Bytes; use http_body_util::Full;
    /// # use hyper_util::{client::legacy::Client, rt::TokioExecutor};
    ///
    /// let credentials = ClientCredentials::new("my-client-id", "my-secret");
    /// let issuer = Issuer::new("https://as.example")?;
    /// let tokens = TokenManager::for_issuer(issuer, credentials)?.start()?;
    /// let orders = Origin::new("https://orders.example")?;
    /// let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    /// let client = ServiceBuilder::new().layer(tokens.layer([orders])).service(client);
    /// # let _ = client;
    /// # Ok(())
    /// # }
    /// ```
    pub fn layer(&self, origins: impl IntoIterator<Item = impl Into<Origin>>) -> BearerTokenLayer {
        BearerTokenLayer {
            tokens: self.clone(),
            allowed: AllowedOrigins::new(origins),
            clone_body: CloneEmptyBody,
        }
    }
}

impl<P> BearerTokenLayer<P> {
    /// Also adds the token to requests in origin form, whose URI has no authority
    /// ([RFC 9112 §3.2.1](https://www.rfc-editor.org/rfc/rfc9112#section-3.2.1)).
    ///
    /// For inner services that determine the origin themselves, such as a tonic `Channel` or a
    /// client with a base URL. The caller ensures that this origin is one of those given to
    /// [`TokenManager::layer`], and that it is `https`: the request does not show it.
    pub fn allow_origin_form(mut self) -> Self {
        self.allowed.allow_origin_form();
        self
    }

    /// Retries every rejected request once, with a clone of its body.
    pub fn retry_with_cloned_body(self) -> BearerTokenLayer<CloneAnyBody> {
        self.retry_with(CloneAnyBody)
    }

    /// Retries no request, so that the body need not be cloned.
    pub fn retry_never(self) -> BearerTokenLayer<CloneNoBody> {
        self.retry_with(CloneNoBody)
    }

    /// Retries the requests whose body this [`CloneBody`](super::CloneBody) clones. Default:
    /// requests without a body.
    pub fn retry_with<N>(self, clone_body: N) -> BearerTokenLayer<N> {
        BearerTokenLayer {
            tokens: self.tokens,
            allowed: self.allowed,
            clone_body,
        }
    }
}

impl<S, P: Clone> Layer<S> for BearerTokenLayer<P> {
    type Service = BearerTokenService<S, P>;

    fn layer(&self, inner: S) -> Self::Service {
        BearerTokenService::new(
            inner,
            self.tokens.clone(),
            self.allowed.clone(),
            self.clone_body.clone(),
        )
    }
}
