//! The response future of the service. A request that need not wait is not boxed.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::{Request, Response};
use pin_project_lite::pin_project;
use tower_service::Service;

use super::authentication::{Attempt, Authentication, Pending, mark_sensitive, rejection_response};
use super::challenge::is_grpc;
use super::verification_limit::Permit;
use super::{DefaultRejectionResponse, RejectionResponse, ResourceServer};

pin_project! {
    /// The response of the inner service, or to a rejected request.
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<S, B, ResBody, R = DefaultRejectionResponse>
    where
        S: Service<Request<B>>,
    {
        #[pin]
        state: State<S, B, ResBody, R>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S, B, ResBody, R>
    where
        S: Service<Request<B>>,
    {
        Calling { #[pin] future: S::Future },
        Rejected { response: Option<Response<ResBody>> },
        // Boxed to keep the future small, because requests rarely wait.
        Pending { pending: Pending, request: Option<Box<PendingRequest<S, B, R>>> },
        // Authenticated after the wait; the inner service is not ready yet.
        AwaitingReady { request: Option<Box<PendingRequest<S, B, R>>> },
    }
}

/// A waiting request, with everything that is needed to resume it.
pub(super) struct PendingRequest<S, B, R> {
    pub(super) request: Request<B>,
    /// A clone of the inner service, not yet polled ready.
    pub(super) service: S,
    pub(super) server: ResourceServer,
    pub(super) on_rejection: R,
    pub(super) awaited_keys: bool,
}

impl<S, B, ResBody, R> ResponseFuture<S, B, ResBody, R>
where
    S: Service<Request<B>>,
{
    pub(super) fn calling(future: S::Future) -> Self {
        Self {
            state: State::Calling { future },
        }
    }

    pub(super) fn rejected(response: Response<ResBody>) -> Self {
        Self {
            state: State::Rejected {
                response: Some(response),
            },
        }
    }

    pub(super) fn pending(pending: Pending, request: PendingRequest<S, B, R>) -> Self {
        Self {
            state: Box::new(request).into_state(pending),
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
        loop {
            let next = match this.state.as_mut().project() {
                StateProj::Calling { future } => return future.poll(cx),
                StateProj::Rejected { response } => {
                    return Poll::Ready(Ok(response.take().expect("polled after completion")));
                }
                StateProj::Pending { pending, request } => {
                    let permit = match pending {
                        Pending::Keys(wait) => {
                            ready!(Pin::new(wait).poll(cx));
                            None
                        }
                        Pending::Permit(permit) => Some(ready!(Pin::new(permit).poll(cx))),
                    };
                    request
                        .take()
                        .expect("polled after completion")
                        .resume(permit)
                }
                StateProj::AwaitingReady { request } => {
                    let granted = request.as_mut().expect("polled after completion");
                    ready!(granted.service.poll_ready(cx))?;
                    let PendingRequest {
                        request,
                        mut service,
                        ..
                    } = *request.take().expect("checked above");
                    State::Calling {
                        future: service.call(request),
                    }
                }
            };
            this.state.set(next);
        }
    }
}

impl<S, B, R> PendingRequest<S, B, R>
where
    S: Service<Request<B>>,
{
    fn into_state<ResBody>(mut self: Box<Self>, pending: Pending) -> State<S, B, ResBody, R> {
        self.awaited_keys |= matches!(pending, Pending::Keys(_));
        State::Pending {
            pending,
            request: Some(self),
        }
    }

    /// Authenticates again, with the current keys and the permit.
    fn resume<ResBody>(mut self: Box<Self>, permit: Option<Permit>) -> State<S, B, ResBody, R>
    where
        R: RejectionResponse<ResBody>,
    {
        let attempt = Attempt {
            awaited_keys: self.awaited_keys,
            permit,
        };
        let kind =
            match self
                .server
                .authenticate(self.request.headers(), self.request.uri(), attempt)
            {
                Ok(Authentication::Complete(context)) => {
                    self.server.0.metrics.record_granted();
                    mark_sensitive(&mut self.request);
                    self.request.extensions_mut().insert(context);
                    return State::AwaitingReady {
                        request: Some(self),
                    };
                }
                Ok(Authentication::Pending(pending)) => return self.into_state(pending),
                Err(kind) => kind,
            };
        let rejection = self.server.reject(kind, is_grpc(&self.request));
        State::Rejected {
            response: Some(rejection_response(&self.on_rejection, rejection)),
        }
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
