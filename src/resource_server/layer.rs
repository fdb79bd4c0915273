//! The layer that authenticates requests.

use std::sync::Arc;

use http::{Request, header};

use super::authenticate::Authenticated;
use super::credentials::{Credentials, Head};
use super::in_flight::{InFlight, PassedAs};
use super::rejection::RejectionReason;
use super::requirement::valid_scopes;
use super::responses::Responses;
use super::sharded_arc::ShardedArc;
use super::{
    AuthContext, DefaultRejectionResponse, InboundToken, Rejection, RejectionKind, ResourceServer,
};
use crate::clock::UnixTime;

/// Passes only requests with a valid bearer token to the inner service.
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), tower_oauth::BoxError> {
/// use std::convert::Infallible;
/// use http::{Request, Response, StatusCode};
/// use tower::{Layer as _, ServiceExt as _, service_fn};
/// use tower_oauth::{ResourceServer, ResourceServerLayer};
///
/// let (orders, _refresher) = ResourceServer::builder("https://as.example", "orders").build()?;
/// let layer = ResourceServerLayer::new(orders); // or `orders.layer()`
/// let inner = service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(())));
/// let response = layer.layer(inner).oneshot(Request::new(())).await?;
/// assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct ResourceServerLayer<R = DefaultRejectionResponse> {
    pub(super) server: ResourceServer,
    pub(super) on_rejection: R,
    allow_anonymous: bool,
    keep_token: bool,
    /// Those of the server, with the scopes that a 401 names, if there are any.
    responses_with_scopes: Option<Arc<ShardedArc<Responses>>>,
}

impl ResourceServer {
    /// Returns the layer that passes only requests with a valid token.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use tower_oauth::authorization_server::AuthorizationServer;
    /// # use tower_oauth::resource_server::Algorithm;
    /// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
    /// # let shop = issuer.register("shop")?;
    /// use axum::{Router, body::Body, http::Request, routing::get};
    /// use tower::ServiceExt as _;
    /// use tower_oauth::ResourceServer;
    ///
    /// let orders = ResourceServer::builder(issuer.issuer(), "orders")
    ///     .transport(issuer.transport())
    ///     .start()
    ///     .await?;
    /// let app: Router = Router::new().route("/", get(async || "orders")).layer(orders.layer());
    ///
    /// let token = issuer.mint(&shop).audience(["orders"]).sign();
    /// let request = Request::get("/").header("authorization", format!("Bearer {token}"));
    /// let response = app.oneshot(request.body(Body::empty())?).await?;
    /// assert_eq!(response.status(), 200);
    /// # Ok(())
    /// # }
    /// ```
    pub fn layer(&self) -> ResourceServerLayer {
        ResourceServerLayer::new(self.clone())
    }
}

impl ResourceServerLayer {
    /// Creates the layer of a resource server.
    pub fn new(server: ResourceServer) -> Self {
        Self {
            server,
            on_rejection: DefaultRejectionResponse,
            allow_anonymous: false,
            keep_token: false,
            responses_with_scopes: None,
        }
    }
}

impl<R> ResourceServerLayer<R> {
    /// Sets the response to rejected requests: a closure from the [`Rejection`] to a response, or
    /// [`ProblemJson`](super::ProblemJson). Default: [`DefaultRejectionResponse`].
    ///
    /// Also for rejections of the layers, extractors and handlers within, unless these have an
    /// `on_rejection` too, or a layer between has set another status. Header fields that
    /// layers between have added to such a response stay.
    ///
    /// It is cloned for each request: what a closure captures is best in an [`Arc`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// use axum::{Json, Router, body::Body, http::Request, response::IntoResponse, routing::get};
    /// use tower::ServiceExt as _;
    /// use tower_oauth::{Rejection, ResourceServer};
    ///
    /// let (orders, _refresher) = ResourceServer::builder("https://as.example", "orders").build()?;
    /// let layer = orders.layer().on_rejection(|rejection: &Rejection| {
    ///     let body = Json(serde_json::json!({ "error": rejection.error() }));
    ///     let challenge = rejection.www_authenticate().map(|value| [("www-authenticate", value)]);
    ///     (rejection.status(), challenge, body).into_response()
    /// });
    /// let app: Router = Router::new().route("/", get(async || "orders")).layer(layer);
    /// let request = Request::get("/").header("authorization", "Bearer a.b.c");
    /// let response = app.oneshot(request.body(Body::empty())?).await?;
    /// assert_eq!(response.status(), 401);
    /// assert_eq!(response.headers()["content-type"], "application/json");
    /// # Ok(())
    /// # }
    /// ```
    pub fn on_rejection<N>(self, on_rejection: N) -> ResourceServerLayer<N> {
        ResourceServerLayer {
            server: self.server,
            on_rejection,
            allow_anonymous: self.allow_anonymous,
            keep_token: self.keep_token,
            responses_with_scopes: self.responses_with_scopes,
        }
    }

    /// Passes requests without a bearer token as well, without an
    /// [`AuthContext`]. An invalid token is still rejected.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// use axum::{Router, body::Body, http::Request, routing::get};
    /// use tower::ServiceExt as _;
    /// use tower_oauth::{AuthContext, ResourceServer};
    ///
    /// async fn greet(caller: Option<AuthContext>) -> &'static str {
    ///     if caller.is_some() { "Hello" } else { "Hello, guest" }
    /// }
    ///
    /// let (orders, _refresher) = ResourceServer::builder("https://as.example", "orders").build()?;
    /// let layer = orders.layer().allow_anonymous();
    /// let app: Router = Router::new().route("/", get(greet)).layer(layer);
    /// let anonymous = Request::get("/").body(Body::empty())?;
    /// assert_eq!(app.clone().oneshot(anonymous).await?.status(), 200);
    /// let invalid = Request::get("/").header("authorization", "Bearer a.b.c");
    /// assert_eq!(app.oneshot(invalid.body(Body::empty())?).await?.status(), 401);
    /// # Ok(())
    /// # }
    /// ```
    pub fn allow_anonymous(mut self) -> Self {
        self.allow_anonymous = true;
        self
    }

    /// Keeps the token of an accepted request, as an [`InboundToken`] in its extensions.
    ///
    /// For a service that calls another one on behalf of its caller, with a
    /// [`TokenExchange`](crate::client::TokenExchange). Without it, nothing but the
    /// `Authorization` field has the token. A request without a token, which
    /// [`allow_anonymous`](Self::allow_anonymous) passes, has no `InboundToken`. Nor has one that
    /// passes a layer that keeps no token, within one that does: the `InboundToken` is that of the
    /// [`AuthContext`].
    ///
    /// The memory of the `InboundToken` is zeroized when the request and all clones are dropped. That
    /// of the `Authorization` field is not: it belongs to the HTTP server.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use tower_oauth::authorization_server::AuthorizationServer;
    /// # use tower_oauth::resource_server::Algorithm;
    /// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
    /// # let shop = issuer.register("shop")?;
    /// use axum::{Router, body::Body, http::Request, routing::get};
    /// use tower::ServiceExt as _;
    /// use tower_oauth::ResourceServer;
    /// use tower_oauth::resource_server::InboundToken;
    ///
    /// async fn seconds_left(caller: tower_oauth::AuthContext, token: InboundToken) -> String {
    ///     assert_eq!(token.expires_at(), caller.expires_at());
    ///     caller.expires_in().as_secs().to_string()
    /// }
    ///
    /// # let orders = ResourceServer::builder(issuer.issuer(), "orders");
    /// # let orders = orders.transport(issuer.transport()).start().await?;
    /// let layer = orders.layer().keep_token();
    /// let app: Router = Router::new().route("/", get(seconds_left)).layer(layer);
    /// let token = issuer.mint(&shop).audience(["orders"]).sign();
    /// let request = Request::get("/").header("authorization", format!("Bearer {token}"));
    /// let response = app.oneshot(request.body(Body::empty())?).await?;
    /// assert_eq!(response.status(), 200);
    /// # Ok(())
    /// # }
    /// ```
    pub fn keep_token(mut self) -> Self {
        self.keep_token = true;
        self
    }

    /// Names scopes in the challenge of a 401: those that a client should request.
    ///
    /// [RFC 6750 §3](https://www.rfc-editor.org/rfc/rfc6750#section-3). Also in a 401 of the
    /// layers, extractors and handlers within, unless it names scopes itself. Requires nothing:
    /// that is [`RequireScopeLayer`](crate::RequireScopeLayer). An empty list names none.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// use axum::{Router, body::Body, http::Request, routing::get};
    /// use tower::ServiceExt as _;
    /// use tower_oauth::ResourceServer;
    ///
    /// let (orders, _refresher) = ResourceServer::builder("https://as.example", "orders").build()?;
    /// let layer = orders.layer().scope(["orders.read"]);
    /// let app: Router = Router::new().route("/", get(async || "orders")).layer(layer);
    /// let response = app.oneshot(Request::get("/").body(Body::empty())?).await?;
    /// let challenge = &response.headers()["www-authenticate"];
    /// assert_eq!(challenge, r#"Bearer realm="resource", scope="orders.read""#);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Panics
    ///
    /// If one of them is not a valid scope token (RFC 6749 §3.3).
    pub fn scope(mut self, scopes: impl IntoIterator<Item: AsRef<str>>) -> Self {
        let scopes = valid_scopes(scopes);
        let responses = &self.server.0.responses;
        self.responses_with_scopes =
            (!scopes.is_empty()).then(|| Arc::new(ShardedArc::new(responses.with_scopes(scopes))));
        self
    }

    #[inline]
    pub(super) fn responses(&self) -> &ShardedArc<Responses> {
        let own = self.responses_with_scopes.as_deref();
        own.unwrap_or(&self.server.0.responses)
    }

    /// Prepares an authenticated request for the inner service.
    pub(super) fn pass<B>(
        &self,
        request: &mut Request<B>,
        authenticated: Authenticated,
        in_flight: &mut InFlight,
    ) {
        if let Some(headers) = authenticated.response_headers {
            in_flight.passed_as = Some(Box::new(PassedAs {
                response_headers: *headers,
                ..PassedAs::default()
            }));
        }
        mark_sensitive(request);
        // A request without extensions has only this branch.
        if !request.extensions().is_empty() {
            remove_token(request);
        }
        if self.keep_token {
            keep_token(request, authenticated.context.expires_at());
        }
        // Overwrites any `AuthContext` inserted by an outer layer.
        request.extensions_mut().insert(authenticated.context);
    }

    /// Rejects a request, unless it is anonymous and the layer passes those.
    pub(super) fn reject_unless_anonymous<B>(
        &self,
        request: &mut Request<B>,
        reason: RejectionReason,
        in_flight: &mut InFlight,
    ) -> Result<(), Rejection> {
        if self.allow_anonymous && reason.kind == RejectionKind::MissingToken {
            in_flight.passed_as = Some(Box::new(PassedAs {
                is_anonymous: true,
                ..PassedAs::default()
            }));
            mark_sensitive(request);
            request.extensions_mut().remove::<AuthContext>();
            remove_token(request);
            request.extensions_mut().insert(Anonymous);
            return Ok(());
        }
        let head = Head::from_request(request);
        let rejection = self.server.reject(reason, Some(head), self.responses());
        in_flight.rejected(&rejection);
        Err(rejection)
    }
}

/// Keeps the credentials out of the `Debug` output of the request.
///
/// One field is enough: a request with several is rejected.
fn mark_sensitive<B>(request: &mut Request<B>) {
    if let Some(credentials) = request.headers_mut().get_mut(header::AUTHORIZATION) {
        credentials.set_sensitive(true);
    }
}

/// Removes the token that an outer layer has kept, which may be that of another caller.
#[inline(never)]
fn remove_token<B>(request: &mut Request<B>) {
    request.extensions_mut().remove::<InboundToken>();
}

/// Puts the token of an authenticated request into its extensions.
///
/// Cold, so that servers which keep no token have only the branch.
#[cold]
fn keep_token<B>(request: &mut Request<B>, expires_at: UnixTime) {
    let token = Credentials::from_head(Head::from_request(request))
        .ok()
        .and_then(|credentials| std::str::from_utf8(credentials.token()).ok())
        .map(|token| InboundToken::new(token, expires_at));
    if let Some(token) = token {
        request.extensions_mut().insert(token);
    }
}

/// Request extension that marks an anonymous request that the layer passes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Anonymous;
