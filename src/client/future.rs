//! The future of the client's layer: unboxed while there is a token.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::{HeaderMap, Request, Response, StatusCode, header};
use pin_project_lite::pin_project;
use tower_service::Service;

use super::service::authorize;
use super::{AccessToken, TokenManager};
use crate::error::{BoxError, Error};

pin_project! {
    /// The response of the inner service, to the first attempt or the second.
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
        AwaitingToken { wait: Wait<Result<AccessToken, Error>>, parked: Option<Box<Parked<S, B>>> },
        /// With the token, for the first attempt.
        Starting { token: AccessToken, parked: Option<Box<Parked<S, B>>> },
        Calling { #[pin] future: S::Future, sent: Option<Sent<S, B>> },
        AwaitingSuccessor { wait: Wait<Option<AccessToken>>, refused: Option<Box<Refused<S, B>>> },
        /// With another token, for the second attempt.
        AwaitingReady { token: AccessToken, tokens: TokenManager, retry: Option<Box<Retry<S, B>>> },
    }
}

type Wait<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A request that waits for the first token.
struct Parked<S, B> {
    request: Request<B>,
    second: Option<B>,
    /// A clone, which has not been polled ready.
    service: S,
    tokens: TokenManager,
}

/// The token that a request went out with.
pub(super) struct Sent<S, B> {
    pub(super) tokens: TokenManager,
    pub(super) token: AccessToken,
    /// For a second attempt, if there may be one.
    pub(super) retry: Option<Box<Retry<S, B>>>,
}

/// All that a second attempt takes.
pub(super) struct Retry<S, B> {
    request: Request<B>,
    service: S,
}

/// A response that refuses the token, while the successor of the token is awaited.
struct Refused<S, B>
where
    S: Service<Request<B>>,
{
    response: S::Response,
    tokens: TokenManager,
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

impl<S, B> Sent<S, B>
where
    S: Service<Request<B>>,
{
    /// The token was refused: it is replaced. What is next, if the request can be sent again, else
    /// the response.
    fn refused(self, response: S::Response) -> Result<State<S, B>, S::Response> {
        let Self {
            tokens,
            token,
            retry,
        } = self;
        let Some(retry) = retry else {
            let _there_is_no_second_attempt = tokens.invalidate(&token);
            return Err(response);
        };
        let wait = {
            let tokens = tokens.clone();
            async move { tokens.replace(&token).await }
        };
        Ok(State::AwaitingSuccessor {
            wait: Box::pin(wait),
            refused: Some(Box::new(Refused {
                response,
                tokens,
                retry,
            })),
        })
    }
}

impl<S, B> BearerTokenFuture<S, B>
where
    S: Service<Request<B>>,
{
    pub(super) fn calling(future: S::Future, sent: Option<Sent<S, B>>) -> Self {
        Self {
            state: State::Calling { future, sent },
        }
    }

    pub(super) fn awaiting_token(
        request: Request<B>,
        second: Option<B>,
        service: S,
        tokens: TokenManager,
    ) -> Self {
        let wait = {
            let tokens = tokens.clone();
            async move { tokens.access_token().await }
        };
        Self {
            state: State::AwaitingToken {
                wait: Box::pin(wait),
                parked: Some(Box::new(Parked {
                    request,
                    second,
                    service,
                    tokens,
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
                StateProj::AwaitingToken { wait, parked } => {
                    let token = ready!(wait.as_mut().poll(cx))?;
                    State::Starting {
                        token,
                        parked: parked.take(),
                    }
                }
                StateProj::Starting { token, parked } => {
                    let waiting = parked.as_mut().expect("polled after completion");
                    ready!(waiting.service.poll_ready(cx)).map_err(Into::into)?;
                    parked.take().expect("it was just there").send(token)
                }
                StateProj::Calling { future, sent } => {
                    let response = ready!(future.poll(cx)).map_err(Into::into)?;
                    match sent.take().filter(|_| names_the_token(&response)) {
                        None => return Poll::Ready(Ok(response)),
                        Some(sent) => match sent.refused(response) {
                            Ok(next) => next,
                            Err(response) => return Poll::Ready(Ok(response)),
                        },
                    }
                }
                StateProj::AwaitingSuccessor { wait, refused } => {
                    let successor = ready!(wait.as_mut().poll(cx));
                    let Refused {
                        response,
                        tokens,
                        retry,
                    } = *refused.take().expect("polled after completion");
                    match successor {
                        None => return Poll::Ready(Ok(response)),
                        Some(token) => State::AwaitingReady {
                            token,
                            tokens,
                            retry: Some(retry),
                        },
                    }
                }
                StateProj::AwaitingReady {
                    token,
                    tokens,
                    retry,
                } => {
                    let again = retry.as_mut().expect("polled after completion");
                    ready!(again.service.poll_ready(cx)).map_err(Into::into)?;
                    authorize(&mut again.request, token);
                    let Retry {
                        request,
                        mut service,
                    } = *retry.take().expect("it was just there");
                    let sent = Sent {
                        tokens: tokens.clone(),
                        token: token.clone(),
                        retry: None,
                    };
                    State::Calling {
                        future: service.call(request),
                        sent: Some(sent),
                    }
                }
            };
            this.state.set(next);
        }
    }
}

impl<S, B> Parked<S, B>
where
    S: Service<Request<B>> + Clone,
{
    fn send(self, token: &AccessToken) -> State<S, B> {
        let Self {
            mut request,
            second,
            mut service,
            tokens,
        } = self;
        let retry = second.map(|body| Retry::new(&request, body, service.clone()));
        authorize(&mut request, token);
        let sent = Sent {
            tokens,
            token: token.clone(),
            retry,
        };
        State::Calling {
            future: service.call(request),
            sent: Some(sent),
        }
    }
}

/// `grpc-status: 16`, "unauthenticated".
const GRPC_UNAUTHENTICATED: &[u8] = b"16";

/// Whether a response refuses the token: 401 with a challenge that says so, or the same challenge
/// with gRPC's status for 401 in the headers of the response, which has status 200.
fn names_the_token<ResBody>(response: &Response<ResBody>) -> bool {
    let unauthenticated = response.status() == StatusCode::UNAUTHORIZED
        || response
            .headers()
            .get("grpc-status")
            .is_some_and(|status| status == GRPC_UNAUTHENTICATED);
    unauthenticated && is_invalid_token(response.headers())
}

/// Whether a Bearer challenge says that the token is bad
/// ([RFC 6750 §3.1](https://www.rfc-editor.org/rfc/rfc6750#section-3.1)).
fn is_invalid_token(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::WWW_AUTHENTICATE)
        .iter()
        .any(|challenge| {
            // The challenges are not parsed: a wrong guess costs one token request in ten seconds.
            // White space may stand around `=` (RFC 9110 §11.2).
            let challenge = challenge
                .as_bytes()
                .iter()
                .filter(|byte| !byte.is_ascii_whitespace());
            let challenge: Vec<u8> = challenge.map(u8::to_ascii_lowercase).collect();
            let has = |word: &[u8]| challenge.windows(word.len()).any(|window| window == word);
            has(b"bearer") && (has(br#"error="invalid_token""#) || has(b"error=invalid_token"))
        })
}

impl<S, B> fmt::Debug for BearerTokenFuture<S, B>
where
    S: Service<Request<B>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BearerTokenFuture").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rejected_token_is_told_from_other_challenges() {
        let challenged = |challenge: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::WWW_AUTHENTICATE, challenge.parse().unwrap());
            is_invalid_token(&headers)
        };
        assert!(challenged(r#"Bearer realm="x", error="invalid_token""#));
        assert!(challenged(r#"bearer error=invalid_token"#));
        assert!(challenged(
            r#"Bearer scope="appid_default", error="invalid_token""#
        ));
        assert!(challenged("Bearer realm=\"x\", error\t= \"invalid_token\""));
        assert!(!challenged("Bearer"));
        assert!(!challenged(r#"Bearer error="insufficient_scope""#));
        assert!(!challenged(r#"Basic realm="invalid_token""#));
    }
}
