//! The response future of the resource server. A request that need not wait is not boxed.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::request::Parts;
use http::{Request, Response};
use pin_project_lite::pin_project;
use tower_service::Service;

use super::authenticate::Authenticated;
use super::in_flight::InFlight;
use super::rejection::RejectionReason;
use super::rejection_response::rejection_response;
use super::validate::Pending;
use super::{DefaultRejectionResponse, Rejection, RejectionResponse, ResourceServerLayer};

pin_project! {
    /// The response future of [`ResourceServerService`](super::ResourceServerService).
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<S, B, ResBody, R = DefaultRejectionResponse>
    where
        S: Service<Request<B>>,
    {
        // Counts the request as cancelled if this future is dropped before.
        in_flight: InFlight,
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
        // Boxed to keep the future small: most requests neither wait nor are rejected.
        Authenticating { waiting: Option<Box<Waiting<S, B, R>>> },
        AwaitingReady { ready: Option<Box<(S, Request<B>, R)>> },
        Calling { #[pin] future: S::Future, on_rejection: R },
        Rejected { response: Option<Box<Response<ResBody>>> },
    }
}

type AuthenticationFuture =
    dyn Future<Output = (Parts, Result<Authenticated, RejectionReason>)> + Send;

/// A request that waits, with everything that is needed to resume it.
struct Waiting<S, B, R> {
    /// Owns the head of the request, and gives it back.
    authentication: Pin<Box<AuthenticationFuture>>,
    body: B,
    /// A clone, which is not polled ready yet.
    inner: S,
    layer: ResourceServerLayer<R>,
}

impl<S, B, ResBody, R> ResponseFuture<S, B, ResBody, R>
where
    S: Service<Request<B>>,
{
    pub(super) fn calling(future: S::Future, on_rejection: R, in_flight: InFlight) -> Self {
        Self {
            in_flight,
            state: State::Calling {
                future,
                on_rejection,
            },
        }
    }

    pub(super) fn rejected(on_rejection: &R, rejection: Rejection, in_flight: InFlight) -> Self
    where
        R: RejectionResponse<ResBody>,
    {
        Self {
            in_flight,
            state: State::rejected(on_rejection, rejection),
        }
    }

    pub(super) fn authenticating(
        request: Request<B>,
        inner: S,
        layer: ResourceServerLayer<R>,
        pending: Pending,
        in_flight: InFlight,
    ) -> Self {
        let (head, body) = request.into_parts();
        let server = layer.server.clone();
        let waiting = Some(Box::new(Waiting {
            authentication: Box::pin(server.finish_authentication(head, pending)),
            body,
            inner,
            layer,
        }));
        Self {
            in_flight,
            state: State::Authenticating { waiting },
        }
    }
}

impl<S, B, ResBody, R> State<S, B, ResBody, R>
where
    S: Service<Request<B>>,
    R: RejectionResponse<ResBody>,
{
    fn rejected(on_rejection: &R, rejection: Rejection) -> Self {
        let response = Box::new(rejection_response(on_rejection, rejection));
        Self::Rejected {
            response: Some(response),
        }
    }
}

impl<S, B, ResBody, R> State<S, B, ResBody, R>
where
    S: Service<Request<B>, Response = Response<ResBody>>,
    R: RejectionResponse<ResBody>,
{
    /// Goes on to the next state, or returns the result without a call of the service.
    #[cold]
    fn advance(
        mut self: Pin<&mut Self>,
        in_flight: &mut InFlight,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Response<ResBody>, S::Error>>> {
        const COMPLETED: &str = "polled after completion";
        let next = match self.as_mut().project() {
            StateProj::Authenticating { waiting } => {
                let authentication = &mut waiting.as_mut().expect(COMPLETED).authentication;
                let (head, outcome) = ready!(authentication.as_mut().poll(cx));
                let Waiting {
                    body, inner, layer, ..
                } = *waiting.take().expect("polled above");
                let mut request = Request::from_parts(head, body);
                let admitted = match outcome {
                    Ok(authenticated) => {
                        layer.pass(&mut request, authenticated, in_flight);
                        Ok(())
                    }
                    Err(reason) => layer.reject_unless_anonymous(&mut request, reason, in_flight),
                };
                match admitted {
                    Ok(()) => {
                        let ready = Some(Box::new((inner, request, layer.on_rejection)));
                        Self::AwaitingReady { ready }
                    }
                    Err(rejection) => Self::rejected(&layer.on_rejection, rejection),
                }
            }
            StateProj::AwaitingReady { ready } => {
                let (service, ..) = &mut **ready.as_mut().expect(COMPLETED);
                if let Err(error) = ready!(service.poll_ready(cx)) {
                    in_flight.passed();
                    return Poll::Ready(Some(Err(error)));
                }
                let (mut service, request, on_rejection) = *ready.take().expect("polled above");
                let future = service.call(request);
                Self::Calling {
                    future,
                    on_rejection,
                }
            }
            StateProj::Rejected { response } => {
                return Poll::Ready(Some(Ok(*response.take().expect(COMPLETED))));
            }
            StateProj::Calling { .. } => return Poll::Ready(None),
        };
        self.set(next);
        Poll::Ready(None)
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
            if let StateProj::Calling {
                future,
                on_rejection,
            } = this.state.as_mut().project()
            {
                let mut result = future.poll(cx);
                match &mut result {
                    Poll::Ready(Ok(response)) => this.in_flight.responded(response, on_rejection),
                    Poll::Ready(Err(_)) => this.in_flight.passed(),
                    Poll::Pending => {}
                }
                return result;
            }
            if let Some(result) = ready!(this.state.as_mut().advance(this.in_flight, cx)) {
                return Poll::Ready(result);
            }
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
