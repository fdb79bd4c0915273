//! The layers that require something besides a valid token share this service.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::request::Parts;
use http::{Request, Response};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::credentials::Head;
use super::layer::Anonymous;
use super::rejection_response::{rejection_response, replace_challenge};
use super::{AuthContext, DefaultRejectionResponse, Rejection, RejectionResponse, Requirement};
use crate::log_limit::LogLimit;

/// Passes only requests that meet a [`Requirement`].
///
/// Apply it inside a [`ResourceServerLayer`](crate::ResourceServerLayer). Without one, or outside
/// of it, each request is rejected with
/// [`RejectionKind::LayerMissing`](super::RejectionKind::LayerMissing), and an `error` event
/// (feature `tracing`) says so.
///
/// [`RequireScopeLayer`](crate::RequireScopeLayer) and
/// [`RequireRoleLayer`](crate::RequireRoleLayer) are shorter for scopes and roles alone.
/// `guide::requirements` says which one is for what.
///
/// A rejection of a layer, an extractor or a handler inside names what this layer requires, too:
/// scopes, and for a 401 also the authentication. A client requests exactly the scopes of the
/// challenge, so that its next token passes both.
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), tower_oauth::BoxError> {
/// use axum::{Router, body::Body, http::Request, routing::get};
/// use tower::ServiceExt as _;
/// use tower_oauth::{AuthContext, RequireLayer};
///
/// let own = RequireLayer::new(|caller: &AuthContext| caller.client_id() == Some("shop"));
/// let reports = get(async || "reports").layer(own);
/// let app: Router = Router::new().route("/reports", reports); // and `.layer(server.layer())`
///
/// let send = async |client: &str| -> Result<_, tower_oauth::BoxError> {
///     let caller = AuthContext::builder().client_id(client).build();
///     let request = Request::get("/reports").extension(caller).body(Body::empty())?;
///     Ok(app.clone().oneshot(request).await?.status())
/// };
/// assert_eq!(send("shop").await?, 200);
/// assert_eq!(send("another").await?, 403);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct RequireLayer<R = DefaultRejectionResponse> {
    rule: Arc<Rule>,
    on_rejection: R,
}

#[derive(Debug)]
struct Rule {
    required: Required,
    /// For the event of a request that passed no resource server.
    name: &'static str,
    layer_missing: LogLimit,
}

enum Required {
    Always(Requirement),
    ByHead(Box<ByHead>),
}

type ByHead = dyn Fn(&Parts) -> Requirement + Send + Sync;

impl RequireLayer {
    /// Requires the same of each request: a [`Requirement`], or a condition.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tower_oauth::resource_server::Requirement;
    /// use tower_oauth::{AuthContext, RequireLayer};
    ///
    /// let pay = Requirement::scopes(["payments.write"])
    ///     .and(Requirement::max_age(Duration::from_secs(300)));
    /// let layer = RequireLayer::new(pay);
    /// assert!(format!("{layer:?}").contains("payments.write"));
    /// let layer = RequireLayer::new(|caller: &AuthContext| caller.subject().is_some());
    /// # let _ = layer;
    /// ```
    pub fn new(requirement: impl Into<Requirement>) -> Self {
        Self::named("`RequireLayer`", Required::Always(requirement.into()))
    }

    /// Requires what a rule says for the head of the request.
    ///
    /// The body is not read. The rule runs for each request: build the requirements before, and
    /// clone them in it. Headers are what the caller says. A request that leaves one out must need
    /// at least as much as one that has it.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// use http::{Method, Request, Response, request::Parts};
    /// use tower::{Layer as _, ServiceExt as _, service_fn};
    /// use tower_oauth::resource_server::Requirement;
    /// use tower_oauth::{AuthContext, RequireLayer};
    ///
    /// let read = Requirement::scopes(["orders.read"]);
    /// let write = Requirement::scopes(["orders.write"]);
    /// let layer = RequireLayer::by(move |head: &Parts| match head.method {
    ///     Method::GET | Method::HEAD => read.clone(),
    ///     _ => write.clone(),
    /// });
    ///
    /// let inner = service_fn(async |_: Request<()>| {
    ///     Ok::<_, std::convert::Infallible>(Response::new(()))
    /// });
    /// let reader = AuthContext::builder().scopes(["orders.read"]).build();
    /// let send = async |method: &str| -> Result<_, tower_oauth::BoxError> {
    ///     let request = Request::builder().method(method).extension(reader.clone()).body(())?;
    ///     Ok(layer.layer(inner).oneshot(request).await?.status())
    /// };
    /// assert_eq!(send("GET").await?, 200);
    /// assert_eq!(send("POST").await?, 403);
    /// # Ok(())
    /// # }
    /// ```
    pub fn by<F>(rule: F) -> Self
    where
        F: Fn(&Parts) -> Requirement + Send + Sync + 'static,
    {
        Self::named("`RequireLayer`", Required::ByHead(Box::new(rule)))
    }

    /// For the layers of scopes and roles.
    pub(super) fn always(name: &'static str, requirement: Requirement) -> Self {
        Self::named(name, Required::Always(requirement))
    }

    fn named(name: &'static str, required: Required) -> Self {
        Self {
            rule: Arc::new(Rule {
                required,
                name,
                layer_missing: LogLimit::new(),
            }),
            on_rejection: DefaultRejectionResponse,
        }
    }
}

impl<R> RequireLayer<R> {
    /// Sets the response to rejected requests.
    ///
    /// Default: that of the [`ResourceServerLayer`](crate::ResourceServerLayer) around it, see
    /// [`on_rejection`](crate::ResourceServerLayer::on_rejection).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// use http::{Request, Response, StatusCode};
    /// use tower::{Layer as _, ServiceExt as _, service_fn};
    /// use tower_oauth::{AuthContext, Rejection, RequireLayer};
    ///
    /// // Hides from others that there is something.
    /// let layer = RequireLayer::new(|caller: &AuthContext| caller.has_role("admin"))
    ///     .on_rejection(|_: &Rejection| {
    ///         let mut response = Response::new(());
    ///         *response.status_mut() = StatusCode::NOT_FOUND;
    ///         response
    ///     });
    /// # let inner = service_fn(async |_: Request<()>| {
    /// #     Ok::<_, std::convert::Infallible>(Response::new(()))
    /// # });
    /// let mut request = Request::new(());
    /// request.extensions_mut().insert(AuthContext::builder().build());
    /// assert_eq!(layer.layer(inner).oneshot(request).await?.status(), StatusCode::NOT_FOUND);
    /// # Ok(())
    /// # }
    /// ```
    pub fn on_rejection<N>(self, on_rejection: N) -> RequireLayer<N> {
        RequireLayer {
            rule: self.rule,
            on_rejection,
        }
    }
}

impl Rule {
    /// Returns the caller, if it meets the requirement.
    fn check<B>(
        &self,
        requirement: &Requirement,
        request: &Request<B>,
    ) -> Result<AuthContext, Rejection> {
        let checked = match AuthContext::from_request(request) {
            Some(context) => requirement
                .check(context)
                .map(|()| context.without_parsed_claims()),
            None => Err(match request.extensions().get::<Anonymous>() {
                Some(Anonymous) => requirement.reject_anonymous(),
                None => Rejection::layer_missing(self.name, &self.layer_missing, false),
            }),
        };
        checked.map_err(|rejection| Rejection {
            grpc: Head::from_request(request).is_grpc(),
            ..rejection
        })
    }
}

impl fmt::Debug for Required {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Always(requirement) => requirement.fmt(f),
            Self::ByHead(_) => f.write_str("ByHead"),
        }
    }
}

/// What a request that passes has met, for rejections from inside.
struct Met {
    requirement: Requirement,
    context: AuthContext,
}

impl Met {
    /// Adds the requirement to the challenge of a rejection from inside.
    #[cold]
    fn add_to<B>(&self, inner: &Rejection, response: &mut Response<B>) {
        if let Some(rejection) = self.requirement.add_to(inner, &self.context) {
            replace_challenge(inner, &rejection, response);
            response.extensions_mut().insert(rejection);
        }
    }
}

impl<S, R: Clone> Layer<S> for RequireLayer<R> {
    type Service = RequireService<S, R>;

    fn layer(&self, inner: S) -> Self::Service {
        RequireService {
            inner,
            layer: self.clone(),
        }
    }
}

/// Checks a [`Requirement`] for each request before it calls the inner service.
///
/// Created by [`RequireLayer`], [`RequireScopeLayer`](crate::RequireScopeLayer) and
/// [`RequireRoleLayer`](crate::RequireRoleLayer).
///
/// ```
/// # #[cfg(feature = "test-util")]
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), std::convert::Infallible> {
/// use std::convert::Infallible;
/// use http::{Request, Response, StatusCode};
/// use tower::{Layer as _, ServiceExt as _, service_fn};
/// use tower_oauth::resource_server::RequireService;
/// use tower_oauth::{AuthContext, RequireScopeLayer};
///
/// let inner = service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(())));
/// let service: RequireService<_> = RequireScopeLayer::all(["orders.read"]).layer(inner);
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
pub struct RequireService<S, R = DefaultRejectionResponse> {
    inner: S,
    layer: RequireLayer<R>,
}

impl<S, R> RequireService<S, R> {
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

impl<S, B, ResBody, R> Service<Request<B>> for RequireService<S, R>
where
    S: Service<Request<B>, Response = Response<ResBody>>,
    R: RejectionResponse<ResBody>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = RequireFuture<S::Future, ResBody>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let rule = &*self.layer.rule;
        let requirement = match &rule.required {
            Required::Always(requirement) => requirement.clone(),
            Required::ByHead(by_head) => {
                let (head, body) = request.into_parts();
                let requirement = by_head(&head);
                request = Request::from_parts(head, body);
                requirement
            }
        };
        let outcome = match rule.check(&requirement, &request) {
            Ok(context) => Outcome::Call {
                future: self.inner.call(request),
                met: Met {
                    requirement,
                    context,
                },
            },
            Err(rejection) => Outcome::Reject {
                response: Some(rejection_response(&self.layer.on_rejection, rejection)),
            },
        };
        RequireFuture { outcome }
    }
}

pin_project! {
    /// The response future of [`RequireService`].
    #[must_use = "futures do nothing unless polled"]
    pub struct RequireFuture<F, ResBody> {
        #[pin]
        outcome: Outcome<F, ResBody>,
    }
}

pin_project! {
    #[project = OutcomeProj]
    enum Outcome<F, ResBody> {
        Call { #[pin] future: F, met: Met },
        Reject { response: Option<Response<ResBody>> },
    }
}

impl<F, ResBody, E> Future for RequireFuture<F, ResBody>
where
    F: Future<Output = Result<Response<ResBody>, E>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().outcome.project() {
            OutcomeProj::Call { future, met } => {
                let mut response = ready!(future.poll(cx))?;
                if let Some(inner) = response.extensions().get::<Rejection>() {
                    met.add_to(&inner.clone(), &mut response);
                }
                Poll::Ready(Ok(response))
            }
            OutcomeProj::Reject { response } => {
                Poll::Ready(Ok(response.take().expect("polled after completion")))
            }
        }
    }
}

impl<F, ResBody> fmt::Debug for RequireFuture<F, ResBody> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequireFuture").finish_non_exhaustive()
    }
}
