//! The response futures of the services. A request that need not wait is not boxed.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::{Request, Response};
use pin_project_lite::pin_project;
use tower_service::Service;

use super::authenticate::{Attempt, rejection_response};
use super::validate::Pending;
use super::{DefaultRejectionResponse, Rejection, RejectionResponse, ResourceServerService};

pin_project! {
    /// The response of the inner service, or to a rejected request.
    #[project = CallOrRejectProj]
    pub(super) enum CallOrReject<F, ResBody> {
        Call { #[pin] future: F },
        Reject { response: Option<Response<ResBody>> },
    }
}

impl<F, ResBody> CallOrReject<F, ResBody> {
    pub(super) fn call(future: F) -> Self {
        Self::Call { future }
    }

    pub(super) fn reject<R>(on_rejection: &R, rejection: Rejection) -> Self
    where
        R: RejectionResponse<ResBody>,
    {
        let response = Some(rejection_response(on_rejection, rejection));
        Self::Reject { response }
    }
}

impl<F, ResBody, E> Future for CallOrReject<F, ResBody>
where
    F: Future<Output = Result<Response<ResBody>, E>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            CallOrRejectProj::Call { future } => future.poll(cx),
            CallOrRejectProj::Reject { response } => {
                Poll::Ready(Ok(response.take().expect("polled after completion")))
            }
        }
    }
}

pin_project! {
    /// The response future of [`RequireScopeService`](super::RequireScopeService).
    #[must_use = "futures do nothing unless polled"]
    pub struct RequireScopeFuture<F, ResBody> {
        #[pin]
        outcome: CallOrReject<F, ResBody>,
    }
}

impl<F, ResBody> RequireScopeFuture<F, ResBody> {
    pub(super) fn new(outcome: CallOrReject<F, ResBody>) -> Self {
        Self { outcome }
    }
}

impl<F, ResBody, E> Future for RequireScopeFuture<F, ResBody>
where
    F: Future<Output = Result<Response<ResBody>, E>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().outcome.poll(cx)
    }
}

pin_project! {
    /// The response future of [`ResourceServerService`].
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<S, B, ResBody, R = DefaultRejectionResponse>
    where
        S: Service<Request<B>>,
    {
        // Boxed to keep the future small, because requests rarely wait.
        waiting: Option<Box<Waiting<S, B, R>>>,
        #[pin]
        outcome: CallOrReject<S::Future, ResBody>,
    }
}

/// A waiting request, with everything that is needed to resume it.
struct Waiting<S, B, R> {
    /// `None` once the request is authenticated and awaits the readiness of the inner service.
    pending: Option<Pending>,
    awaited_keys: bool,
    request: Request<B>,
    /// A clone, whose inner service is not polled ready yet.
    service: ResourceServerService<S, R>,
}

impl<S, B, ResBody, R> ResponseFuture<S, B, ResBody, R>
where
    S: Service<Request<B>>,
{
    /// The future of a request that need not wait.
    pub(super) fn authenticated(outcome: CallOrReject<S::Future, ResBody>) -> Self {
        Self {
            waiting: None,
            outcome,
        }
    }

    pub(super) fn pending(
        pending: Pending,
        request: Request<B>,
        service: ResourceServerService<S, R>,
    ) -> Self {
        let waiting = Waiting {
            pending: Some(pending),
            awaited_keys: false,
            request,
            service,
        };
        Self {
            waiting: Some(Box::new(waiting)),
            // A placeholder: `poll` replaces it before it polls `outcome`.
            outcome: CallOrReject::Reject { response: None },
        }
    }
}

impl<S, B, ResBody, R> Future for ResponseFuture<S, B, ResBody, R>
where
    S: Service<Request<B>, Response = Response<ResBody>>,
    R: RejectionResponse<ResBody>,
{
    type Output = Result<Response<ResBody>, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        while let Some(waiting) = this.waiting {
            let permit = match &mut waiting.pending {
                Some(Pending::Keys(wait)) => {
                    ready!(Pin::new(wait).poll(cx));
                    waiting.awaited_keys = true;
                    None
                }
                Some(Pending::Permit(permit)) => Some(ready!(Pin::new(permit).poll(cx))),
                None => {
                    ready!(waiting.service.inner.poll_ready(cx))?;
                    let mut ready = this.waiting.take().expect("matched above");
                    let future = ready.service.inner.call(ready.request);
                    this.outcome.set(CallOrReject::call(future));
                    break;
                }
            };
            // Authenticate again, with the current keys and the permit.
            let mut attempt = Attempt {
                awaited_keys: waiting.awaited_keys,
                permit,
            };
            let layer = &waiting.service.layer;
            match layer.authenticate(&mut waiting.request, &mut attempt) {
                Ok(pending) => waiting.pending = pending,
                Err(rejection) => {
                    let outcome = CallOrReject::reject(&layer.on_rejection, rejection);
                    this.outcome.set(outcome);
                    *this.waiting = None;
                }
            }
        }
        this.outcome.poll(cx)
    }
}

impl<F, ResBody> fmt::Debug for RequireScopeFuture<F, ResBody> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequireScopeFuture").finish_non_exhaustive()
    }
}

impl<S, B, ResBody, R> fmt::Debug for ResponseFuture<S, B, ResBody, R>
where
    S: Service<Request<B>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
