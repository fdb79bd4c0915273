//! The future of the layer: three states, none of them boxed on the way of a good request.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::{Request, Response};
use pin_project_lite::pin_project;
use tower_service::Service;

use super::authentication::{Decision, Obstacle, Waited, mark_sensitive, refuse};
use super::challenge::is_grpc;
use super::verification_limit::Turn;
use super::{DefaultRejectionResponse, RejectionResponse, ResourceServer};

pin_project! {
    /// The response of the inner service, or the answer to a refused request.
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
        // Boxed to keep the future small: almost no request ever waits.
        Awaiting { obstacle: Obstacle, awaiting: Option<Box<Awaiting<S, B, R>>> },
        // Granted after the wait; the service has yet to become ready.
        AwaitingReady { awaiting: Option<Box<Awaiting<S, B, R>>> },
    }
}

/// A request that waits, and all that it takes to go on.
pub(super) struct Awaiting<S, B, R> {
    pub(super) request: Request<B>,
    /// A clone, which has not been polled ready.
    pub(super) service: S,
    pub(super) server: ResourceServer,
    pub(super) on_rejection: R,
    pub(super) has_awaited_keys: bool,
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

    pub(super) fn awaiting(obstacle: Obstacle, awaiting: Awaiting<S, B, R>) -> Self {
        Self {
            state: Box::new(awaiting).at(obstacle),
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
                StateProj::Awaiting { obstacle, awaiting } => {
                    let turn = match obstacle {
                        Obstacle::Keys(wait) => {
                            ready!(Pin::new(wait).poll(cx));
                            None
                        }
                        Obstacle::Turn(queue) => Some(ready!(Pin::new(queue).poll(cx))),
                    };
                    awaiting
                        .take()
                        .expect("polled after completion")
                        .resume(turn)
                }
                StateProj::AwaitingReady { awaiting } => {
                    let granted = awaiting.as_mut().expect("polled after completion");
                    ready!(granted.service.poll_ready(cx))?;
                    let Awaiting {
                        request,
                        mut service,
                        ..
                    } = *awaiting.take().expect("it was just there");
                    State::Calling {
                        future: service.call(request),
                    }
                }
            };
            this.state.set(next);
        }
    }
}

impl<S, B, R> Awaiting<S, B, R>
where
    S: Service<Request<B>>,
{
    fn at<ResBody>(mut self: Box<Self>, obstacle: Obstacle) -> State<S, B, ResBody, R> {
        self.has_awaited_keys |= matches!(obstacle, Obstacle::Keys(_));
        State::Awaiting {
            obstacle,
            awaiting: Some(self),
        }
    }

    /// Decides with the keys that are there now, and the turn that it has waited for.
    fn resume<ResBody>(mut self: Box<Self>, turn: Option<Turn>) -> State<S, B, ResBody, R>
    where
        R: RejectionResponse<ResBody>,
    {
        let waited = Waited {
            for_keys: self.has_awaited_keys,
            turn,
        };
        let kind = match self
            .server
            .decide(self.request.headers(), self.request.uri(), waited)
        {
            Ok(Decision::Grant(context)) => {
                self.server.0.counters.granted();
                mark_sensitive(&mut self.request);
                self.request.extensions_mut().insert(context);
                return State::AwaitingReady {
                    awaiting: Some(self),
                };
            }
            Ok(Decision::Await(obstacle)) => return self.at(obstacle),
            Err(kind) => kind,
        };
        let rejection = self.server.reject(kind, is_grpc(&self.request));
        State::Rejected {
            response: Some(refuse(&self.on_rejection, rejection)),
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
