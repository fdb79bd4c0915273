//! The future of the client's layer: unboxed while a token is in hand.

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
        AwaitingToken { wait: Wait, parked: Option<Box<Parked<S, B>>> },
        /// With the token, for the first attempt.
        Starting { token: AccessToken, parked: Option<Box<Parked<S, B>>> },
        Calling { #[pin] future: S::Future, retry: Option<Box<Retry<S, B>>> },
        /// With another token, for the second attempt.
        AwaitingReady { token: AccessToken, retry: Option<Box<Retry<S, B>>> },
        AwaitingAnother { wait: Wait, retry: Option<Box<Retry<S, B>>> },
    }
}

type Wait = Pin<Box<dyn Future<Output = Result<AccessToken, Error>> + Send>>;

/// A request that waits for the first token.
struct Parked<S, B> {
    request: Request<B>,
    second: Option<B>,
    /// A clone, which has not been polled ready.
    service: S,
    tokens: TokenManager,
}

/// All that a second attempt takes.
pub(super) struct Retry<S, B> {
    request: Request<B>,
    service: S,
    tokens: TokenManager,
    /// The token of the first attempt.
    token: AccessToken,
}

impl<S, B> Retry<S, B> {
    pub(super) fn new(
        first: &Request<B>,
        body: B,
        service: S,
        tokens: TokenManager,
        token: AccessToken,
    ) -> Box<Self> {
        let mut request = Request::new(body);
        *request.method_mut() = first.method().clone();
        *request.uri_mut() = first.uri().clone();
        *request.version_mut() = first.version();
        *request.headers_mut() = first.headers().clone();
        *request.extensions_mut() = first.extensions().clone();
        Box::new(Self { request, service, tokens, token })
    }

    /// Whether the token was at fault and there is another one to be had.
    fn is_worth_it<ResBody>(&self, response: &Response<ResBody>) -> bool {
        response.status() == StatusCode::UNAUTHORIZED
            && is_invalid_token(response.headers())
            && self.tokens.reject(&self.token)
    }
}

fn wait(tokens: TokenManager) -> Wait {
    Box::pin(async move { tokens.access_token().await })
}

impl<S, B> BearerTokenFuture<S, B>
where
    S: Service<Request<B>>,
{
    pub(super) fn calling(future: S::Future, retry: Option<Box<Retry<S, B>>>) -> Self {
        Self { state: State::Calling { future, retry } }
    }

    pub(super) fn awaiting_token(
        request: Request<B>,
        second: Option<B>,
        service: S,
        tokens: TokenManager,
    ) -> Self {
        let wait = wait(tokens.clone());
        Self {
            state: State::AwaitingToken {
                wait,
                parked: Some(Box::new(Parked { request, second, service, tokens })),
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
                    State::Starting { token, parked: parked.take() }
                }
                StateProj::Starting { token, parked } => {
                    let waiting = parked.as_mut().expect("polled after completion");
                    ready!(waiting.service.poll_ready(cx)).map_err(Into::into)?;
                    parked.take().expect("it was just there").send(token)
                }
                StateProj::Calling { future, retry } => {
                    let response = ready!(future.poll(cx)).map_err(Into::into)?;
                    match retry.take().filter(|retry| retry.is_worth_it(&response)) {
                        None => return Poll::Ready(Ok(response)),
                        Some(retry) => {
                            State::AwaitingAnother { wait: wait(retry.tokens.clone()), retry: Some(retry) }
                        }
                    }
                }
                StateProj::AwaitingAnother { wait, retry } => {
                    let token = ready!(wait.as_mut().poll(cx))?;
                    State::AwaitingReady { token, retry: retry.take() }
                }
                StateProj::AwaitingReady { token, retry } => {
                    let again = retry.as_mut().expect("polled after completion");
                    ready!(again.service.poll_ready(cx)).map_err(Into::into)?;
                    authorize(&mut again.request, token);
                    let Retry { request, mut service, .. } = *retry.take().expect("it was just there");
                    State::Calling { future: service.call(request), retry: None }
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
        let Self { mut request, second, mut service, tokens } = self;
        let retry = second.map(|body| Retry::new(&request, body, service.clone(), tokens, token.clone()));
        authorize(&mut request, token);
        State::Calling { future: service.call(request), retry }
    }
}

/// Whether a Bearer challenge says that the token is bad
/// ([RFC 6750 §3.1](https://www.rfc-editor.org/rfc/rfc6750#section-3.1)).
fn is_invalid_token(headers: &HeaderMap) -> bool {
    headers.get_all(header::WWW_AUTHENTICATE).iter().any(|challenge| {
        // What stands where matters little: the worst that a wrong guess costs is one retry.
        let challenge = challenge.as_bytes().to_ascii_lowercase();
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
        assert!(challenged(r#"Bearer scope="appid_default", error="invalid_token""#));
        assert!(!challenged("Bearer"));
        assert!(!challenged(r#"Bearer error="insufficient_scope""#));
        assert!(!challenged(r#"Basic realm="invalid_token""#));
    }
}
