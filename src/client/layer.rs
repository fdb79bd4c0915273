//! The tower layer of the client.

use tower_layer::Layer;

use super::targets::{Target, Targets};
use super::{
    BearerTokenService, CloneAnyBody, CloneEmptyBody, CloneNoBody, TokenManager, Unauthorized,
};
use crate::oauth::Origin;

/// Adds the access token to requests, and renews a token that a resource server rejects.
///
/// A response rejects the token if it is a 401 with a Bearer challenge of `invalid_token`
/// ([RFC 6750 §3.1](https://www.rfc-editor.org/rfc/rfc6750#section-3.1)). Over gRPC it has the same
/// challenge and `grpc-status: 16` in its header section (a trailers-only response); trailers after
/// a body are ignored. [`renew_on`](Self::renew_on) adds every other 401.
///
/// A rejected token is renewed, whether or not the request can be retried. Until then it stays in
/// use for other requests, because another resource server may accept it. A request that can be
/// retried waits for the new token for at most 5 seconds (see
/// [`TokenManager::invalidate_and_wait`]) and is sent once more. If there is no new token in that
/// time, the caller gets the rejecting response. At most one rejection per 10 seconds causes a
/// renewal.
///
/// A 403 with a Bearer challenge of `insufficient_scope` may lead to a token with more scopes,
/// which then serves all calls: see [`step_up_scopes`]. Over gRPC the status is 7. A request that
/// can be retried waits for that token and is sent once more. Each request is sent twice at the
/// most.
///
/// [`step_up_scopes`]: super::TokenManagerBuilder::step_up_scopes
///
/// Created by [`TokenManager::layer`], or by [`TokenManagers::layer`](super::TokenManagers::layer)
/// with a token for each origin. The token is sent only to the origins given there. A request that
/// already has an `Authorization` field is sent unchanged. Plain `http` beyond loopback gets
/// no token, even if its origin is in the list, unless [`allow_http`] names its host. Put a layer
/// that follows redirects outside of this one, so that the origin of each hop is checked.
///
/// With the feature `reqwest-middleware` it also is middleware for [reqwest](#reqwest).
///
/// [`allow_http`]: super::TokenManagerBuilder::allow_http
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), tower_oauth::BoxError> {
/// # use tower_oauth::authorization_server::AuthorizationServer;
/// # use tower_oauth::resource_server::Algorithm;
/// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
/// # let shop = issuer.register("shop")?;
/// use bytes::Bytes;
/// use http::Request;
/// use http_body_util::Full;
/// use tower::{ServiceBuilder, ServiceExt as _};
/// use tower_oauth::{Origin, TokenManager};
///
/// # let tokens = TokenManager::builder(issuer.token_endpoint(), shop.credentials());
/// # let tokens = tokens.transport(issuer.transport()).start()?;
/// # use std::sync::Arc;
/// # use std::sync::atomic::{AtomicUsize, Ordering};
/// # let calls = Arc::new(AtomicUsize::new(0));
/// # let counter = Arc::clone(&calls);
/// # let orders = tower::service_fn(move |request: Request<Full<Bytes>>| {
/// #     let is_first = counter.fetch_add(1, Ordering::SeqCst) == 0;
/// #     async move {
/// #         let mut response = http::Response::new(request.into_body());
/// #         if is_first {
/// #             *response.status_mut() = http::StatusCode::UNAUTHORIZED;
/// #             let challenge = http::HeaderValue::from_static(r#"Bearer error="invalid_token""#);
/// #             response.headers_mut().insert("www-authenticate", challenge);
/// #         }
/// #         Ok::<_, std::convert::Infallible>(response)
/// #     }
/// # });
/// // `orders` rejects the first token as invalid, and accepts the next one.
/// let layer = tokens.layer([Origin::new("https://orders.example")?]);
/// let client = ServiceBuilder::new().layer(layer).service(orders);
/// let request = Request::get("https://orders.example/").body(Full::<Bytes>::default())?;
/// assert_eq!(client.oneshot(request).await?.status(), 200);
/// assert_eq!(calls.load(Ordering::SeqCst), 2);
/// # Ok(())
/// # }
/// ```
/// # reqwest
///
/// `reqwest_middleware::ClientBuilder::with` takes this layer (feature `reqwest-middleware`), which
/// then does the same for a `reqwest::Client`. By default, it retries requests without a body; with
/// [`CloneBufferedBody`], also those whose body is in memory. An [`Error`] of the token manager is
/// in `reqwest_middleware::Error::Middleware`, and can be downcast.
///
/// The client follows redirects itself. At a redirect to another host, port or scheme, it removes
/// the `Authorization` field with the token. The redirected request gets no other token, even if
/// its origin is a target of this layer. A rejection by that origin renews no token.
///
/// [`CloneBufferedBody`]: https://docs.rs/tower-oauth/latest/tower_oauth/client/struct.CloneBufferedBody.html
/// [`Error`]: crate::Error
///
/// ```
/// # #[cfg(feature = "reqwest-middleware")]
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), tower_oauth::BoxError> {
/// # use tower_oauth::authorization_server::AuthorizationServer;
/// # use tower_oauth::resource_server::Algorithm;
/// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
/// # let shop = issuer.register("shop")?;
/// # let orders = axum::Router::new().route("/", axum::routing::post(
/// #     async |headers: axum::http::HeaderMap| headers["authorization"].to_str().unwrap().to_owned(),
/// # ));
/// # let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
/// # let url = format!("http://{}", listener.local_addr()?);
/// # tokio::spawn(async move { axum::serve(listener, orders).await });
/// use tower_oauth::client::CloneBufferedBody;
/// use tower_oauth::{Origin, TokenManager};
///
/// # let tokens = TokenManager::builder(issuer.token_endpoint(), shop.credentials());
/// # let tokens = tokens.transport(issuer.transport()).start()?;
/// let layer = tokens.layer([Origin::new(&url)?]).retry_with(CloneBufferedBody);
/// let client = reqwest_middleware::ClientBuilder::new(reqwest::Client::new()).with(layer).build();
/// // The server at `url` responds with the `Authorization` field that it receives.
/// let response = client.post(&url).body("an order").send().await?;
/// assert!(response.text().await?.starts_with("Bearer "));
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "reqwest-middleware"))]
/// # fn main() {}
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct BearerTokenLayer<P = CloneEmptyBody> {
    pub(super) targets: Targets,
    pub(super) clone_body: P,
}

impl TokenManager {
    /// Returns a layer that adds the token to requests to these origins.
    ///
    /// Takes [`Origin`]s, and [`Endpoint`](crate::Endpoint)s for theirs. Requests to other origins
    /// get no token.
    ///
    /// No token is sent to plain `http` beyond loopback, even if its origin is in the list, unless
    /// [`allow_http`](super::TokenManagerBuilder::allow_http) names its host: such an origin is
    /// ignored, and one `warn` event names it (feature `tracing`).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use tower_oauth::authorization_server::AuthorizationServer;
    /// # use tower_oauth::resource_server::Algorithm;
    /// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
    /// # let shop = issuer.register("shop")?;
    /// use http::Request;
    /// use tower::{ServiceBuilder, ServiceExt as _};
    /// use tower_oauth::{Origin, TokenManager};
    ///
    /// # let tokens = TokenManager::builder(issuer.token_endpoint(), shop.credentials());
    /// # let tokens = tokens.transport(issuer.transport()).start()?;
    /// # let orders = tower::service_fn(async |request: Request<String>| {
    /// #     let token = request.headers().get("authorization").cloned();
    /// #     Ok::<_, std::convert::Infallible>(http::Response::new(token))
    /// # });
    /// // `orders` responds with the `Authorization` field that it receives.
    /// let layer = tokens.layer([Origin::new("https://orders.example")?]);
    /// let client = ServiceBuilder::new().layer(layer).service(orders);
    /// let request = Request::get("https://orders.example/").body(String::new())?;
    /// assert!(client.clone().oneshot(request).await?.body().is_some());
    /// // Another origin gets no token.
    /// let request = Request::get("https://other.example/").body(String::new())?;
    /// assert!(client.oneshot(request).await?.body().is_none());
    /// # Ok(())
    /// # }
    /// ```
    pub fn layer(&self, origins: impl IntoIterator<Item = impl Into<Origin>>) -> BearerTokenLayer {
        BearerTokenLayer::new([Target::new(self, origins)])
    }
}

impl BearerTokenLayer {
    pub(super) fn new(targets: impl IntoIterator<Item = Target>) -> Self {
        Self {
            targets: Targets::new(targets),
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
    /// [`TokenManager::layer`], and that it is `https`: the request does not show it. A layer of
    /// several targets adds no token to such requests, nor does one without origins, or with one
    /// over plain `http` that is not allowed.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use tower_oauth::authorization_server::AuthorizationServer;
    /// # use tower_oauth::resource_server::Algorithm;
    /// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
    /// # let shop = issuer.register("shop")?;
    /// use http::Request;
    /// use tower::{ServiceBuilder, ServiceExt as _};
    /// use tower_oauth::{Origin, TokenManager};
    ///
    /// # let tokens = TokenManager::builder(issuer.token_endpoint(), shop.credentials());
    /// # let tokens = tokens.transport(issuer.transport()).start()?;
    /// # let orders = tower::service_fn(async |request: Request<String>| {
    /// #     let token = request.headers().get("authorization").cloned();
    /// #     Ok::<_, std::convert::Infallible>(http::Response::new(token))
    /// # });
    /// // `orders` is a client with a base URL.
    /// let layer = tokens.layer([Origin::new("https://orders.example")?]).allow_origin_form();
    /// let client = ServiceBuilder::new().layer(layer).service(orders);
    /// let response = client.oneshot(Request::get("/orders/1").body(String::new())?).await?;
    /// assert!(response.body().is_some()); // the `Authorization` field of the request
    /// # Ok(())
    /// # }
    /// ```
    pub fn allow_origin_form(mut self) -> Self {
        self.targets.allow_origin_form();
        self
    }

    /// Sets for which responses the token is replaced. Default: [`Unauthorized::InvalidToken`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use tower_oauth::authorization_server::AuthorizationServer;
    /// # use tower_oauth::resource_server::Algorithm;
    /// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
    /// # let shop = issuer.register("shop")?;
    /// use bytes::Bytes;
    /// use http::Request;
    /// use http_body_util::Full;
    /// use tower::{ServiceBuilder, ServiceExt as _};
    /// use tower_oauth::client::Unauthorized;
    /// use tower_oauth::{Origin, TokenManager};
    ///
    /// # let tokens = TokenManager::builder(issuer.token_endpoint(), shop.credentials());
    /// # let tokens = tokens.transport(issuer.transport()).start()?;
    /// # use std::sync::Arc;
    /// # use std::sync::atomic::{AtomicUsize, Ordering};
    /// # let calls = Arc::new(AtomicUsize::new(0));
    /// # let counter = Arc::clone(&calls);
    /// # let orders = tower::service_fn(move |request: Request<Full<Bytes>>| {
    /// #     let is_first = counter.fetch_add(1, Ordering::SeqCst) == 0;
    /// #     async move {
    /// #         let mut response = http::Response::new(request.into_body());
    /// #         if is_first {
    /// #             *response.status_mut() = http::StatusCode::UNAUTHORIZED;
    /// #         }
    /// #         Ok::<_, std::convert::Infallible>(response)
    /// #     }
    /// # });
    /// // `orders` responds to the first token with a 401 without a challenge.
    /// let layer = tokens.layer([Origin::new("https://orders.example")?]);
    /// let layer = layer.renew_on(Unauthorized::Any);
    /// let client = ServiceBuilder::new().layer(layer).service(orders);
    /// let request = Request::get("https://orders.example/").body(Full::<Bytes>::default())?;
    /// assert_eq!(client.oneshot(request).await?.status(), 200);
    /// # assert_eq!(calls.load(Ordering::SeqCst), 2);
    /// # Ok(())
    /// # }
    /// ```
    pub fn renew_on(mut self, responses: Unauthorized) -> Self {
        self.targets.renew_on(responses);
        self
    }

    /// Retries every rejected request once, with a clone of its body.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use tower_oauth::authorization_server::AuthorizationServer;
    /// # use tower_oauth::resource_server::Algorithm;
    /// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
    /// # let shop = issuer.register("shop")?;
    /// use bytes::Bytes;
    /// use http::Request;
    /// use http_body_util::Full;
    /// use tower::{ServiceBuilder, ServiceExt as _};
    /// use tower_oauth::{Origin, TokenManager};
    ///
    /// # let tokens = TokenManager::builder(issuer.token_endpoint(), shop.credentials());
    /// # let tokens = tokens.transport(issuer.transport()).start()?;
    /// # use std::sync::Arc;
    /// # use std::sync::atomic::{AtomicUsize, Ordering};
    /// # let calls = Arc::new(AtomicUsize::new(0));
    /// # let counter = Arc::clone(&calls);
    /// # let orders = tower::service_fn(move |request: Request<Full<Bytes>>| {
    /// #     let is_first = counter.fetch_add(1, Ordering::SeqCst) == 0;
    /// #     async move {
    /// #         let mut response = http::Response::new(request.into_body());
    /// #         if is_first {
    /// #             *response.status_mut() = http::StatusCode::UNAUTHORIZED;
    /// #             let challenge = r#"Bearer error="invalid_token""#;
    /// #             let challenge = http::HeaderValue::from_static(challenge);
    /// #             response.headers_mut().insert("www-authenticate", challenge);
    /// #         }
    /// #         Ok::<_, std::convert::Infallible>(response)
    /// #     }
    /// # });
    /// // `orders` rejects the first token as invalid, and accepts the next one.
    /// let layer = tokens.layer([Origin::new("https://orders.example")?]).retry_with_cloned_body();
    /// let client = ServiceBuilder::new().layer(layer).service(orders);
    /// let body = Full::<Bytes>::from("an order");
    /// let request = Request::post("https://orders.example/").body(body)?;
    /// assert_eq!(client.oneshot(request).await?.status(), 200);
    /// # assert_eq!(calls.load(Ordering::SeqCst), 2);
    /// # Ok(())
    /// # }
    /// ```
    pub fn retry_with_cloned_body(self) -> BearerTokenLayer<CloneAnyBody> {
        self.retry_with(CloneAnyBody)
    }

    /// Retries no request, so that the body need not be cloned.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use tower_oauth::authorization_server::AuthorizationServer;
    /// # use tower_oauth::resource_server::Algorithm;
    /// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
    /// # let shop = issuer.register("shop")?;
    /// use bytes::Bytes;
    /// use http::Request;
    /// use http_body_util::Full;
    /// use tower::{ServiceBuilder, ServiceExt as _};
    /// use tower_oauth::{Origin, TokenManager};
    ///
    /// # let tokens = TokenManager::builder(issuer.token_endpoint(), shop.credentials());
    /// # let tokens = tokens.transport(issuer.transport()).start()?;
    /// # use std::sync::Arc;
    /// # use std::sync::atomic::{AtomicUsize, Ordering};
    /// # let calls = Arc::new(AtomicUsize::new(0));
    /// # let counter = Arc::clone(&calls);
    /// # let orders = tower::service_fn(move |request: Request<Full<Bytes>>| {
    /// #     let is_first = counter.fetch_add(1, Ordering::SeqCst) == 0;
    /// #     async move {
    /// #         let mut response = http::Response::new(request.into_body());
    /// #         if is_first {
    /// #             *response.status_mut() = http::StatusCode::UNAUTHORIZED;
    /// #             let challenge = r#"Bearer error="invalid_token""#;
    /// #             let challenge = http::HeaderValue::from_static(challenge);
    /// #             response.headers_mut().insert("www-authenticate", challenge);
    /// #         }
    /// #         Ok::<_, std::convert::Infallible>(response)
    /// #     }
    /// # });
    /// // `orders` rejects the first token as invalid.
    /// let layer = tokens.layer([Origin::new("https://orders.example")?]).retry_never();
    /// let client = ServiceBuilder::new().layer(layer).service(orders);
    /// let request = Request::get("https://orders.example/").body(Full::<Bytes>::default())?;
    /// assert_eq!(client.oneshot(request).await?.status(), 401);
    /// # assert_eq!(calls.load(Ordering::SeqCst), 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn retry_never(self) -> BearerTokenLayer<CloneNoBody> {
        self.retry_with(CloneNoBody)
    }

    /// Retries the requests whose body this [`CloneBody`](super::CloneBody) clones. Default:
    /// requests without a body.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use tower_oauth::authorization_server::AuthorizationServer;
    /// # use tower_oauth::resource_server::Algorithm;
    /// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
    /// # let shop = issuer.register("shop")?;
    /// use bytes::Bytes;
    /// use http::Request;
    /// use http_body_util::Full;
    /// use tower::{ServiceBuilder, ServiceExt as _};
    /// use tower_oauth::client::CloneBody;
    /// use tower_oauth::{Origin, TokenManager};
    ///
    /// /// Builds the body of a retry instead of cloning that of the request.
    /// #[derive(Clone)]
    /// struct Ping;
    ///
    /// impl CloneBody<Full<Bytes>> for Ping {
    ///     fn clone_body(&self, _body: &Full<Bytes>) -> Option<Full<Bytes>> {
    ///         Some(Full::from("ping"))
    ///     }
    /// }
    ///
    /// # let tokens = TokenManager::builder(issuer.token_endpoint(), shop.credentials());
    /// # let tokens = tokens.transport(issuer.transport()).start()?;
    /// # use std::sync::Arc;
    /// # use std::sync::atomic::{AtomicUsize, Ordering};
    /// # let calls = Arc::new(AtomicUsize::new(0));
    /// # let counter = Arc::clone(&calls);
    /// # let orders = tower::service_fn(move |request: Request<Full<Bytes>>| {
    /// #     let is_first = counter.fetch_add(1, Ordering::SeqCst) == 0;
    /// #     async move {
    /// #         let mut response = http::Response::new(request.into_body());
    /// #         if is_first {
    /// #             *response.status_mut() = http::StatusCode::UNAUTHORIZED;
    /// #             let challenge = r#"Bearer error="invalid_token""#;
    /// #             let challenge = http::HeaderValue::from_static(challenge);
    /// #             response.headers_mut().insert("www-authenticate", challenge);
    /// #         }
    /// #         Ok::<_, std::convert::Infallible>(response)
    /// #     }
    /// # });
    /// // `orders` rejects the first token as invalid, and accepts the next one.
    /// let layer = tokens.layer([Origin::new("https://orders.example")?]).retry_with(Ping);
    /// let client = ServiceBuilder::new().layer(layer).service(orders);
    /// let request = Request::post("https://orders.example/").body(Full::<Bytes>::from("ping"))?;
    /// assert_eq!(client.oneshot(request).await?.status(), 200);
    /// # assert_eq!(calls.load(Ordering::SeqCst), 2);
    /// # Ok(())
    /// # }
    /// ```
    pub fn retry_with<N>(self, clone_body: N) -> BearerTokenLayer<N> {
        BearerTokenLayer {
            targets: self.targets,
            clone_body,
        }
    }
}

impl<S, P: Clone> Layer<S> for BearerTokenLayer<P> {
    type Service = BearerTokenService<S, P>;

    fn layer(&self, inner: S) -> Self::Service {
        BearerTokenService::new(inner, self.targets.clone(), self.clone_body.clone())
    }
}
