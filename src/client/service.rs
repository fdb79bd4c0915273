//! The path of an outgoing request.

use std::task::{Context, Poll};

use http::{Request, Response, header};
use tower_service::Service;

use super::future::{BearerTokenFuture, Retry, Sent};
use super::layer::Targets;
use super::{AccessToken, CloneBody, CloneEmptyBody, TokenManager};
use crate::error::BoxError;

/// Puts the access token on each request before the inner service sends it.
///
/// Made by [`BearerTokenLayer`](crate::BearerTokenLayer). Its error is the inner service's, or
/// an [`Error`](crate::Error) if no token could be obtained, boxed.
#[derive(Clone, Debug)]
pub struct BearerTokenService<S, P = CloneEmptyBody> {
    inner: S,
    tokens: TokenManager,
    targets: Targets,
    clone_body: P,
}

impl<S, P> BearerTokenService<S, P> {
    pub(super) fn new(inner: S, tokens: TokenManager, targets: Targets, clone_body: P) -> Self {
        Self {
            inner,
            tokens,
            targets,
            clone_body,
        }
    }
}

/// Sets the field; the value is marked sensitive.
pub(super) fn authorize<B>(request: &mut Request<B>, token: &AccessToken) {
    request
        .headers_mut()
        .insert(header::AUTHORIZATION, token.header_value());
}

impl<S, B, ResBody, P> Service<Request<B>> for BearerTokenService<S, P>
where
    S: Service<Request<B>, Response = Response<ResBody>> + Clone,
    S::Error: Into<BoxError>,
    P: CloneBody<B>,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = BearerTokenFuture<S, B>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let is_ours = !request.headers().contains_key(header::AUTHORIZATION);
        if !is_ours || !self.targets.cover(request.uri()) {
            return BearerTokenFuture::calling(self.inner.call(request), None);
        }
        let second = self.clone_body.clone_body(request.body());
        if let Some(token) = self.tokens.current() {
            let retry = second.map(|body| Retry::new(&request, body, self.inner.clone()));
            authorize(&mut request, &token);
            let sent = Sent {
                tokens: self.tokens.clone(),
                token,
                retry,
            };
            return BearerTokenFuture::calling(self.inner.call(request), Some(sent));
        }
        // What the service that was polled ready holds, a permit say, is given back: a request
        // that waits for a token must not keep it from those that need none.
        let service = self.inner.clone();
        self.inner = service.clone();
        BearerTokenFuture::awaiting_token(request, second, service, self.tokens.clone())
    }
}
