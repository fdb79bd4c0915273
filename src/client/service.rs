//! The tower service of the client.

use std::task::{Context, Poll};

use http::{Request, Response};
use tower_service::Service;

use super::future::{Attempt, BearerTokenFuture, Retry};
use super::targets::Targets;
use super::token::authorize;
use super::{CloneBody, CloneEmptyBody};
use crate::error::BoxError;

/// Adds the access token to requests before the inner service sends them.
///
/// Created by [`BearerTokenLayer`](super::BearerTokenLayer). The error is the boxed error of the
/// inner service, or a boxed [`Error`](crate::Error) if no token could be obtained.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), tower_oauth::BoxError> {
/// use std::convert::Infallible;
/// use bytes::Bytes;
/// use http::{Request, Response};
/// use http_body_util::Full;
/// use tower::{Layer as _, ServiceExt as _, service_fn};
/// use tower_oauth::client::BearerTokenService;
/// use tower_oauth::transport::ServiceTransport;
/// use tower_oauth::{ClientCredentials, Endpoint, Origin, TokenManager};
///
/// let token_endpoint = ServiceTransport::new(service_fn(async |_: Request<Full<Bytes>>| {
///     let body = r#"{"access_token":"t0k3n","token_type":"Bearer","expires_in":3600}"#;
///     Ok::<_, Infallible>(Response::new(body.to_owned()))
/// }));
/// let endpoint = Endpoint::new("https://as.example/token")?;
/// let tokens = TokenManager::builder(endpoint, ClientCredentials::new("orders", "s3cret"))
///     .transport(token_endpoint)
///     .start()?;
///
/// let orders = service_fn(async |request: Request<String>| {
///     Ok::<_, Infallible>(Response::new(request.headers()["authorization"].clone()))
/// });
/// let layer = tokens.layer([Origin::new("https://orders.example")?]);
/// let client: BearerTokenService<_> = layer.layer(orders);
/// let request = Request::get("https://orders.example/").body(String::new())?;
/// assert_eq!(client.oneshot(request).await?.body(), "Bearer t0k3n");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct BearerTokenService<S, P = CloneEmptyBody> {
    inner: S,
    targets: Targets,
    clone_body: P,
}

impl<S, P> BearerTokenService<S, P> {
    pub(super) fn new(inner: S, targets: Targets, clone_body: P) -> Self {
        Self {
            inner,
            targets,
            clone_body,
        }
    }

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
        let Some(renewal) = self.targets.find(request.uri(), request.headers()) else {
            return BearerTokenFuture::calling(self.inner.call(request), None);
        };
        let retry_body = self.clone_body.clone_body(request.body());
        if let Some(token) = renewal.tokens.current() {
            let retry = retry_body.map(|body| Retry::new(&request, body, self.inner.clone()));
            authorize(request.headers_mut(), &token);
            let attempt = Attempt {
                renewal: renewal.clone(),
                token,
                retry,
            };
            return BearerTokenFuture::calling(self.inner.call(request), Some(attempt));
        }
        // Drops the service that was polled ready, and with it resources such as a permit: a
        // request that waits for a token must not block requests that need none.
        let service = self.inner.clone();
        self.inner = service.clone();
        BearerTokenFuture::awaiting_token(request, retry_body, service, renewal.clone())
    }
}
