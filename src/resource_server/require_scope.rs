//! The layer that requires scopes (RFC 6750 §3.1).

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::claim_rules::found_scopes;
use super::credentials::Head;
use super::layer::Anonymous;
use super::rejection::Details;
use super::rejection_events;
use super::rejection_response::rejection_response;
use super::{AuthContext, DefaultRejectionResponse, Rejection, RejectionKind, RejectionResponse};
use crate::jwt::Mismatch;
use crate::log_limit::LogLimit;
use crate::oauth::Scope;
use crate::text;

/// Passes only requests whose token has the required scopes.
///
/// Apply it inside a [`ResourceServerLayer`](crate::ResourceServerLayer). Without one, or outside
/// of it, each request is rejected with [`RejectionKind::LayerMissing`], and an `error` event
/// (feature `tracing`) says so.
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
/// of a `MethodRouter` applies to all methods that were added before it: in
/// `get(list).layer(read).post(create).layer(write)`, GET requires both scopes. A method without a
/// handler is a 405 only for a request that passes the layer.
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
pub struct RequireScopeLayer<R = DefaultRejectionResponse> {
    requirement: Arc<Requirement>,
    on_rejection: R,
}

#[derive(Debug)]
struct Requirement {
    scopes: Arc<[Scope]>,
    require_all: bool,
    layer_missing: LogLimit,
}

impl RequireScopeLayer {
    /// Requires all of `scopes`.
    ///
    /// Parse scopes from configuration with [`Scope::new`] first, because this panics.
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
        Self::new(scopes, true)
    }

    /// Requires at least one of `scopes`.
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
        Self::new(scopes, false)
    }

    fn new(scopes: impl IntoIterator<Item: AsRef<str>>, require_all: bool) -> Self {
        let scope = |scope| Scope::new(scope).expect("each scope must be valid (RFC 6749 §3.3)");
        let scopes: Arc<[Scope]> = scopes.into_iter().map(scope).collect();
        assert!(!scopes.is_empty(), "at least one scope must be required");
        let requirement = Requirement {
            scopes,
            require_all,
            layer_missing: LogLimit::new(),
        };
        Self {
            requirement: Arc::new(requirement),
            on_rejection: DefaultRejectionResponse,
        }
    }
}

impl<R> RequireScopeLayer<R> {
    /// Sets the response to rejected requests. Default: [`DefaultRejectionResponse`].
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
        RequireScopeLayer {
            requirement: self.requirement,
            on_rejection,
        }
    }
}

impl Requirement {
    /// Checks the scopes of an authenticated request.
    fn check<B>(&self, request: &Request<B>) -> Result<(), Rejection> {
        let Some(context) = AuthContext::from_request(request) else {
            let grpc = Head::from_request(request).is_grpc();
            return Err(match request.extensions().get::<Anonymous>() {
                Some(Anonymous) => {
                    let scopes = Some(Arc::clone(&self.scopes));
                    Rejection::incomplete(RejectionKind::MissingToken, scopes, grpc)
                }
                None => Rejection::layer_missing("`RequireScopeLayer`", &self.layer_missing, grpc),
            });
        };
        let is_granted = |scope: &Scope| context.has_scope(scope.as_str());
        let is_sufficient = if self.require_all {
            self.scopes.iter().all(is_granted)
        } else {
            self.scopes.iter().any(is_granted)
        };
        if is_sufficient {
            return Ok(());
        }
        let kind = RejectionKind::InsufficientScope;
        let scopes = Some(Arc::clone(&self.scopes));
        let grpc = Head::from_request(request).is_grpc();
        Err(Rejection {
            details: self.details(context),
            ..Rejection::incomplete(kind, scopes, grpc)
        })
    }

    /// For the event of a token that lacks a scope.
    fn details(&self, context: &AuthContext) -> Details {
        if !rejection_events::are_logged() {
            return Details::default();
        }
        let all = if self.require_all { "all" } else { "one" };
        let expected = format!("{all} of the scopes {}", text::setting_list(&*self.scopes));
        let found = found_scopes(context);
        let mismatch = Mismatch::new(context.client_id(), expected, found);
        Details {
            issuer: Some(context.issuer().clone()),
            mismatch: Some(Arc::new(mismatch)),
            ..Details::default()
        }
    }
}

impl<S, R: Clone> Layer<S> for RequireScopeLayer<R> {
    type Service = RequireScopeService<S, R>;

    fn layer(&self, inner: S) -> Self::Service {
        RequireScopeService {
            inner,
            layer: self.clone(),
        }
    }
}

/// Checks the scopes of each request before it calls the inner service.
///
/// Created by [`RequireScopeLayer`].
///
/// ```
/// # #[cfg(feature = "test-util")]
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), std::convert::Infallible> {
/// use std::convert::Infallible;
/// use http::{Request, Response, StatusCode};
/// use tower::{Layer as _, ServiceExt as _, service_fn};
/// use tower_oauth::resource_server::RequireScopeService;
/// use tower_oauth::{AuthContext, RequireScopeLayer};
///
/// let inner = service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(())));
/// let service: RequireScopeService<_> = RequireScopeLayer::all(["orders.read"]).layer(inner);
/// let mut request = Request::new(());
/// let caller = AuthContext::builder().scopes(["orders.write"]).build();
/// request.extensions_mut().insert(caller); // in a test; else inserted by the layer
/// assert_eq!(service.oneshot(request).await?.status(), StatusCode::FORBIDDEN);
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "test-util"))]
/// # fn main() {}
/// ```
#[derive(Clone, Debug)]
pub struct RequireScopeService<S, R = DefaultRejectionResponse> {
    inner: S,
    layer: RequireScopeLayer<R>,
}

impl<S, R> RequireScopeService<S, R> {
    /// The inner service.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The inner service, mutably.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// Returns the inner service.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S, B, ResBody, R> Service<Request<B>> for RequireScopeService<S, R>
where
    S: Service<Request<B>, Response = Response<ResBody>>,
    R: RejectionResponse<ResBody>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = RequireScopeFuture<S::Future, ResBody>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let outcome = match self.layer.requirement.check(&request) {
            Ok(()) => Outcome::Call {
                future: self.inner.call(request),
            },
            Err(rejection) => Outcome::Reject {
                response: Some(rejection_response(&self.layer.on_rejection, rejection)),
            },
        };
        RequireScopeFuture { outcome }
    }
}

pin_project! {
    /// The response future of [`RequireScopeService`].
    #[must_use = "futures do nothing unless polled"]
    pub struct RequireScopeFuture<F, ResBody> {
        #[pin]
        outcome: Outcome<F, ResBody>,
    }
}

pin_project! {
    #[project = OutcomeProj]
    enum Outcome<F, ResBody> {
        Call { #[pin] future: F },
        Reject { response: Option<Response<ResBody>> },
    }
}

impl<F, ResBody, E> Future for RequireScopeFuture<F, ResBody>
where
    F: Future<Output = Result<Response<ResBody>, E>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().outcome.project() {
            OutcomeProj::Call { future } => future.poll(cx),
            OutcomeProj::Reject { response } => {
                Poll::Ready(Ok(response.take().expect("polled after completion")))
            }
        }
    }
}

impl<F, ResBody> fmt::Debug for RequireScopeFuture<F, ResBody> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequireScopeFuture").finish_non_exhaustive()
    }
}
