//! The layer that requires scopes (RFC 6750 §3.1).

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use http::{HeaderValue, Request, Response};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::authentication::{Anonymous, rejection_response};
use super::challenge::{ChallengeParams, DEFAULT_REALM, is_grpc};
use super::rejection::ResponseTemplate;
use super::{AuthContext, DefaultRejectionResponse, Rejection, RejectionKind, RejectionResponse};
use crate::oauth::Scope;

/// Passes only requests whose token has the required scopes.
///
/// Apply it inside a [`ResourceServerLayer`](crate::ResourceServerLayer). Requests that did not
/// pass one are rejected with [`RejectionKind::MissingToken`].
///
/// ```
/// use tower_oauth::RequireScopeLayer;
///
/// let reports = RequireScopeLayer::all(["reports.read", "reports.export"]);
/// let either = RequireScopeLayer::any(["orders.read", "orders.admin"]);
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct RequireScopeLayer<R = DefaultRejectionResponse> {
    requirement: Requirement,
    on_rejection: R,
}

#[derive(Clone, Debug)]
struct Requirement {
    scopes: Arc<[Scope]>,
    require_all: bool,
    scope_list: Arc<str>,
    missing_token: Arc<ResponseTemplate>,
    /// The `insufficient_scope` response, built for the first resource server whose request
    /// reached this layer. For requests from other resource servers it is built per request.
    insufficient_scope: Arc<OnceLock<(Arc<ChallengeParams>, Arc<ResponseTemplate>)>>,
}

impl RequireScopeLayer {
    /// Requires all of `scopes`.
    ///
    /// # Panics
    ///
    /// If `scopes` is empty, or one of them is not a valid scope token (RFC 6749 §3.3).
    pub fn all<I>(scopes: I) -> Self
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        Self::new(scopes, true)
    }

    /// Requires at least one of `scopes`.
    ///
    /// # Panics
    ///
    /// As [`all`](Self::all).
    pub fn any<I>(scopes: I) -> Self
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        Self::new(scopes, false)
    }

    fn new<I>(scopes: I, require_all: bool) -> Self
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        let scopes: Arc<[Scope]> = scopes
            .into_iter()
            .map(|scope| {
                Scope::new(scope).expect("each scope must be a scope token (RFC 6749 §3.3)")
            })
            .collect();
        assert!(!scopes.is_empty(), "at least one scope must be required");
        let scope_list = scopes
            .iter()
            .map(Scope::as_str)
            .collect::<Vec<_>>()
            .join(" ");
        let value =
            |text: String| HeaderValue::try_from(text).expect("scope tokens are visible ASCII");
        let missing_token = ResponseTemplate::challenge(value(format!(
            r#"Bearer realm="{DEFAULT_REALM}", scope="{scope_list}""#
        )));
        let requirement = Requirement {
            scopes,
            require_all,
            scope_list: scope_list.into(),
            missing_token,
            insufficient_scope: Arc::default(),
        };
        Self {
            requirement,
            on_rejection: DefaultRejectionResponse,
        }
    }
}

impl<R> RequireScopeLayer<R> {
    /// Sets how rejected requests are answered. Default: [`DefaultRejectionResponse`].
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
        let grpc = is_grpc(request);
        let Some(context) = AuthContext::from_request(request) else {
            return Err(match request.extensions().get::<Anonymous>() {
                Some(Anonymous(rejection)) => rejection.clone(),
                None => Rejection::new(
                    RejectionKind::MissingToken,
                    Arc::clone(&self.missing_token),
                    grpc,
                ),
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
        let params = context.challenge_params();
        params.insufficient_scope.increment();
        Err(Rejection::new(
            RejectionKind::InsufficientScope,
            self.insufficient_scope_response(params),
            grpc,
        ))
    }

    fn insufficient_scope_response(&self, params: &Arc<ChallengeParams>) -> Arc<ResponseTemplate> {
        let build = || {
            (
                Arc::clone(params),
                self.build_insufficient_scope_response(params),
            )
        };
        let (owner, template) = self.insufficient_scope.get_or_init(build);
        if Arc::ptr_eq(owner, params) {
            Arc::clone(template)
        } else {
            self.build_insufficient_scope_response(params)
        }
    }

    fn build_insufficient_scope_response(
        &self,
        ChallengeParams {
            realm, metadata, ..
        }: &ChallengeParams,
    ) -> Arc<ResponseTemplate> {
        let scope_list = &self.scope_list;
        let challenge = HeaderValue::try_from(format!(
            "Bearer realm={realm}, error=\"insufficient_scope\", \
             error_description=\"The access token lacks a required scope\", \
             scope=\"{scope_list}\"{metadata}"
        ));
        // Each part has been checked before, so the fallback is unreachable.
        ResponseTemplate::challenge(challenge.unwrap_or(HeaderValue::from_static(
            r#"Bearer error="insufficient_scope""#,
        )))
    }
}

impl<S, R: Clone> Layer<S> for RequireScopeLayer<R> {
    type Service = RequireScopeService<S, R>;

    fn layer(&self, inner: S) -> Self::Service {
        RequireScopeService {
            inner,
            requirement: self.requirement.clone(),
            on_rejection: self.on_rejection.clone(),
        }
    }
}

/// Checks the scopes of each request before it calls the inner service.
#[derive(Clone, Debug)]
pub struct RequireScopeService<S, R = DefaultRejectionResponse> {
    inner: S,
    requirement: Requirement,
    on_rejection: R,
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
        let state = match self.requirement.check(&request) {
            Ok(()) => State::Calling {
                future: self.inner.call(request),
            },
            Err(rejection) => State::Rejected {
                response: Some(rejection_response(&self.on_rejection, rejection)),
            },
        };
        RequireScopeFuture { state }
    }
}

pin_project! {
    /// The response of the inner service, or to a rejected request.
    #[must_use = "futures do nothing unless polled"]
    pub struct RequireScopeFuture<F, ResBody> {
        #[pin]
        state: State<F, ResBody>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F, ResBody> {
        Calling { #[pin] future: F },
        Rejected { response: Option<Response<ResBody>> },
    }
}

impl<F, ResBody, E> Future for RequireScopeFuture<F, ResBody>
where
    F: Future<Output = Result<Response<ResBody>, E>>,
{
    type Output = Result<Response<ResBody>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProj::Calling { future } => future.poll(cx),
            StateProj::Rejected { response } => {
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
