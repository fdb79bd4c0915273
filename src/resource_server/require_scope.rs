//! The layer that requires scopes (RFC 6750 §3.1).

use tower_layer::Layer;

use super::{DefaultRejectionResponse, RequireLayer, RequireService, Requirement};

/// Passes only requests whose token has the required scopes.
///
/// Apply it inside a [`ResourceServerLayer`](crate::ResourceServerLayer). Without one, or outside
/// of it, each request is rejected with
/// [`RejectionKind::LayerMissing`](super::RejectionKind::LayerMissing), and an `error` event
/// (feature `tracing`) says so.
///
/// A token without the scopes gets a 403 that names them. A request without a valid token does not
/// get here: its 401 is that of the `ResourceServerLayer`, with the scopes of
/// [`scope`](crate::ResourceServerLayer::scope). Where that layer
/// [allows anonymous requests](crate::ResourceServerLayer::allow_anonymous), the 401 is of this
/// layer and names its scopes.
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), tower_oauth::BoxError> {
/// use axum::{Router, body::Body, http::Request, routing::get};
/// use tower::ServiceExt as _;
/// use tower_oauth::{AuthContext, RequireScopeLayer};
///
/// let reports = get(async || "reports").layer(RequireScopeLayer::all(["reports.read"]));
/// let app: Router = Router::new().route("/reports", reports); // and `.layer(server.layer())`
/// let send = async |caller: AuthContext| -> Result<_, tower_oauth::BoxError> {
///     let request = Request::get("/reports").extension(caller).body(Body::empty())?;
///     Ok(app.clone().oneshot(request).await?.status())
/// };
/// assert_eq!(send(AuthContext::builder().scopes(["reports.read"]).build()).await?, 200);
/// assert_eq!(send(AuthContext::builder().build()).await?, 403);
/// # Ok(())
/// # }
/// ```
///
/// In axum, methods of a path that require different scopes are separate calls of `route`. A layer
/// of a `MethodRouter` applies to all methods that were added before it, and to no others: in
/// `get(list).layer(read).post(create)`, **POST requires no scope**, and in
/// `get(list).layer(read).post(create).layer(write)`, GET requires both. A method without a handler
/// is a 405 only for a request that passes the layer. [`Scoped`](super::Scoped) belongs to its
/// handler and cannot be on the wrong method.
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), tower_oauth::BoxError> {
/// use axum::{Router, body::Body, http::Request, routing::{get, post}};
/// use tower::ServiceExt as _;
/// use tower_oauth::{AuthContext, RequireScopeLayer};
///
/// let read = RequireScopeLayer::all(["orders.read"]);
/// let write = RequireScopeLayer::all(["orders.write"]);
/// let app: Router = Router::new()
///     .route("/orders", get(async || "list").layer(read))
///     .route("/orders", post(async || "created").layer(write)); // and `.layer(server.layer())`
///
/// let reader = AuthContext::builder().scopes(["orders.read"]).build();
/// let send = async |method: &str| -> Result<_, tower_oauth::BoxError> {
///     let request = Request::builder().method(method).uri("/orders").extension(reader.clone());
///     Ok(app.clone().oneshot(request.body(Body::empty())?).await?.status())
/// };
/// assert_eq!(send("GET").await?, 200);
/// assert_eq!(send("POST").await?, 403);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct RequireScopeLayer<R = DefaultRejectionResponse>(RequireLayer<R>);

impl RequireScopeLayer {
    /// Requires all of `scopes`.
    ///
    /// Parse scopes from configuration with [`Scope::new`](crate::Scope::new) first, because this
    /// panics.
    ///
    /// ```
    /// use tower_oauth::{RequireScopeLayer, Scope};
    ///
    /// let fixed = RequireScopeLayer::all(["reports.read", "reports.export"]);
    ///
    /// // From configuration: checked first, because `all` panics.
    /// let configured: Result<Vec<Scope>, _> =
    ///     "reports.read reports.export".split(' ').map(Scope::new).collect();
    /// let configured = RequireScopeLayer::all(configured?);
    /// assert!(format!("{configured:?}").contains("reports.export"));
    /// # let _ = fixed;
    /// # Ok::<(), tower_oauth::ConfigError>(())
    /// ```
    ///
    /// # Panics
    ///
    /// If `scopes` is empty, or one of them is not a valid scope token (RFC 6749 §3.3).
    pub fn all(scopes: impl IntoIterator<Item: AsRef<str>>) -> Self {
        Self::requiring(Requirement::scopes(scopes))
    }

    /// Requires at least one of `scopes`.
    ///
    /// The challenge names all of them, in this order, and clients request all. Where that matters,
    /// use [`all`](Self::all).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// use std::convert::Infallible;
    /// use http::{Request, Response};
    /// use tower::{Layer as _, ServiceExt as _, service_fn};
    /// use tower_oauth::{AuthContext, RequireScopeLayer};
    ///
    /// let inner = service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(())));
    /// let either = RequireScopeLayer::any(["orders.read", "orders.admin"]).layer(inner);
    /// let mut request = Request::new(());
    /// request.extensions_mut().insert(AuthContext::builder().scopes(["orders.admin"]).build());
    /// assert_eq!(either.oneshot(request).await?.status(), 200);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Panics
    ///
    /// As [`all`](Self::all).
    pub fn any(scopes: impl IntoIterator<Item: AsRef<str>>) -> Self {
        Self::requiring(Requirement::any_scope(scopes))
    }

    fn requiring(requirement: Requirement) -> Self {
        Self(RequireLayer::always("`RequireScopeLayer`", requirement))
    }
}

impl<R> RequireScopeLayer<R> {
    /// Sets the response to rejected requests, as
    /// [`RequireLayer::on_rejection`](crate::RequireLayer::on_rejection) does.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// use http::{Request, Response, StatusCode};
    /// use tower::{Layer as _, ServiceExt as _, service_fn};
    /// use tower_oauth::{AuthContext, Rejection, RequireScopeLayer, Scope};
    ///
    /// let layer = RequireScopeLayer::all(["orders.read"]).on_rejection(|rejection: &Rejection| {
    ///     let required = rejection.required_scopes().iter().map(Scope::as_str);
    ///     let required = required.collect::<Vec<_>>().join(" ");
    ///     let mut response = Response::new(format!("requires {required}"));
    ///     *response.status_mut() = rejection.status();
    ///     response
    /// });
    /// # let inner = service_fn(async |_: Request<()>| {
    /// #     Ok::<_, std::convert::Infallible>(Response::new(String::new()))
    /// # });
    /// let mut request = Request::new(());
    /// request.extensions_mut().insert(AuthContext::builder().build()); // a caller without scopes
    /// let response = layer.layer(inner).oneshot(request).await?;
    /// assert_eq!(response.status(), StatusCode::FORBIDDEN);
    /// assert_eq!(response.body(), "requires orders.read");
    /// # Ok(())
    /// # }
    /// ```
    pub fn on_rejection<N>(self, on_rejection: N) -> RequireScopeLayer<N> {
        RequireScopeLayer(self.0.on_rejection(on_rejection))
    }
}

impl<S, R: Clone> Layer<S> for RequireScopeLayer<R> {
    type Service = RequireService<S, R>;

    fn layer(&self, inner: S) -> Self::Service {
        self.0.layer(inner)
    }
}
