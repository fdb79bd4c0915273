//! The response future of the client's service. Boxes nothing while a token is available.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::{Request, Response};
use pin_project_lite::pin_project;
use tower_service::Service;

use super::AccessToken;
use super::renewal::trigger::{Cause, RenewalTrigger};
use super::token::authorize;
use crate::error::{BoxError, Error};

pin_project! {
    /// The response future of [`BearerTokenService`](super::BearerTokenService).
    #[must_use = "futures do nothing unless polled"]
    pub struct BearerTokenFuture<S, B>
    where
        S: Service<Request<B>>,
    {
        #[pin]
        state: State<S, B>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S, B>
    where
        S: Service<Request<B>>,
    {
        AwaitingToken {
            wait: Wait<Result<AccessToken, Error>>,
            pending: Option<Box<Pending<S, B>>>,
        },
        /// Awaits the readiness of the service for the first attempt.
        AwaitingReady {
            token: AccessToken,
            pending: Option<Box<Pending<S, B>>>,
        },
        Calling {
            #[pin]
            future: S::Future,
            attempt: Option<Attempt<S, B>>,
        },
        AwaitingNewToken {
            wait: Wait<Option<AccessToken>>,
            rejected: Option<Box<RejectedAttempt<S, B>>>,
        },
        /// Awaits the readiness of the service for the retry.
        AwaitingRetryReady {
            token: AccessToken,
            renewal: RenewalTrigger,
            retry: Option<Box<Retry<S, B>>>,
        },
    }
}

type Wait<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A request that waits for the first token.
struct Pending<S, B> {
    request: Request<B>,
    retry_body: Option<B>,
    /// A clone that has not been polled ready.
    service: S,
    renewal: RenewalTrigger,
}

/// A request that was sent with a token.
pub(super) struct Attempt<S, B> {
    pub(super) renewal: RenewalTrigger,
    pub(super) token: AccessToken,
    /// `None` if the request cannot be retried.
    pub(super) retry: Option<Box<Retry<S, B>>>,
}

/// The request and the service of a retry.
pub(super) struct Retry<S, B> {
    request: Request<B>,
    service: S,
}

/// A response that rejects the token, kept while the new token is awaited.
struct RejectedAttempt<S, B>
where
    S: Service<Request<B>>,
{
    response: S::Response,
    renewal: RenewalTrigger,
    retry: Box<Retry<S, B>>,
}

impl<S, B> Retry<S, B> {
    pub(super) fn new(first: &Request<B>, body: B, service: S) -> Box<Self> {
        let mut request = Request::new(body);
        *request.method_mut() = first.method().clone();
        *request.uri_mut() = first.uri().clone();
        *request.version_mut() = first.version();
        *request.headers_mut() = first.headers().clone();
        *request.extensions_mut() = first.extensions().clone();
        Box::new(Self { request, service })
    }
}

impl<S, B> Attempt<S, B>
where
    S: Service<Request<B>>,
{
    /// Replaces the token. Returns the next state, or the response if the request cannot be
    /// retried.
    fn replace_token(
        self,
        cause: Cause,
        response: S::Response,
    ) -> Result<State<S, B>, S::Response> {
        let Self {
            renewal,
            token,
            retry,
        } = self;
        let Some(retry) = retry else {
            renewal.start_renewal(&token, &cause);
            return Err(response);
        };
        let wait = {
            let renewal = renewal.clone();
            async move { renewal.renew_and_wait(&token, &cause).await }
        };
        Ok(State::AwaitingNewToken {
            wait: Box::pin(wait),
            rejected: Some(Box::new(RejectedAttempt {
                response,
                renewal,
                retry,
            })),
        })
    }
}

impl<S, B> BearerTokenFuture<S, B>
where
    S: Service<Request<B>>,
{
    pub(super) fn calling(future: S::Future, attempt: Option<Attempt<S, B>>) -> Self {
        Self {
            state: State::Calling { future, attempt },
        }
    }

    pub(super) fn awaiting_token(
        request: Request<B>,
        retry_body: Option<B>,
        service: S,
        renewal: RenewalTrigger,
    ) -> Self {
        let wait = {
            let tokens = renewal.tokens.clone();
            async move { tokens.access_token().await }
        };
        Self {
            state: State::AwaitingToken {
                wait: Box::pin(wait),
                pending: Some(Box::new(Pending {
                    request,
                    retry_body,
                    service,
                    renewal,
                })),
            },
        }
    }
}

impl<S, B, ResBody> Future for BearerTokenFuture<S, B>
where
    S: Service<Request<B>, Response = Response<ResBody>> + Clone,
    S::Error: Into<BoxError>,
{
    type Output = Result<Response<ResBody>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let next = match this.state.as_mut().project() {
                StateProj::AwaitingToken { wait, pending } => {
                    let token = ready!(wait.as_mut().poll(cx))?;
                    State::AwaitingReady {
                        token,
                        pending: pending.take(),
                    }
                }
                StateProj::AwaitingReady { token, pending } => {
                    let ready = pending.as_mut().expect("polled after completion");
                    ready!(ready.service.poll_ready(cx)).map_err(Into::into)?;
                    pending.take().expect("checked above").send(token)
                }
                StateProj::Calling { future, attempt } => {
                    let response = ready!(future.poll(cx)).map_err(Into::into)?;
                    let Some(attempt) = attempt.take() else {
                        return Poll::Ready(Ok(response));
                    };
                    let Some(cause) = attempt.renewal.cause(response.status(), response.headers())
                    else {
                        return Poll::Ready(Ok(response));
                    };
                    match attempt.replace_token(cause, response) {
                        Ok(next) => next,
                        Err(response) => return Poll::Ready(Ok(response)),
                    }
                }
                StateProj::AwaitingNewToken { wait, rejected } => {
                    let successor = ready!(wait.as_mut().poll(cx));
                    let RejectedAttempt {
                        response,
                        renewal,
                        retry,
                    } = *rejected.take().expect("polled after completion");
                    match successor {
                        None => return Poll::Ready(Ok(response)),
                        Some(token) => State::AwaitingRetryReady {
                            token,
                            renewal,
                            retry: Some(retry),
                        },
                    }
                }
                StateProj::AwaitingRetryReady {
                    token,
                    renewal,
                    retry,
                } => {
                    let ready = retry.as_mut().expect("polled after completion");
                    ready!(ready.service.poll_ready(cx)).map_err(Into::into)?;
                    authorize(ready.request.headers_mut(), token);
                    let Retry {
                        request,
                        mut service,
                    } = *retry.take().expect("checked above");
                    let attempt = Attempt {
                        renewal: renewal.for_retry(),
                        token: token.clone(),
                        retry: None,
                    };
                    State::Calling {
                        future: service.call(request),
                        attempt: Some(attempt),
                    }
                }
            };
            this.state.set(next);
        }
    }
}

impl<S, B> Pending<S, B>
where
    S: Service<Request<B>> + Clone,
{
    fn send(self, token: &AccessToken) -> State<S, B> {
        let Self {
            mut request,
            retry_body,
            mut service,
            renewal,
        } = self;
        let retry = retry_body.map(|body| Retry::new(&request, body, service.clone()));
        authorize(request.headers_mut(), token);
        let attempt = Attempt {
            renewal,
            token: token.clone(),
            retry,
        };
        State::Calling {
            future: service.call(request),
            attempt: Some(attempt),
        }
    }
}

impl<S, B> fmt::Debug for BearerTokenFuture<S, B>
where
    S: Service<Request<B>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BearerTokenFuture").finish_non_exhaustive()
    }
}
