//! The service that authenticates requests.

use std::task::{Context, Poll};

use http::{Request, Response};
use tower_service::Service;

use super::authentication::{
    Anonymous, Attempt, Authentication, mark_sensitive, rejection_response,
};
use super::challenge::is_grpc;
use super::future::{PendingRequest, ResponseFuture};
use super::{
    AuthContext, DefaultRejectionResponse, RejectionKind, RejectionResponse, ResourceServer,
    credentials,
};

/// Authenticates each request by its bearer token before it calls the inner service.
///
/// Created by [`ResourceServerLayer`](crate::ResourceServerLayer).
#[derive(Clone, Debug)]
pub struct ResourceServerService<S, R = DefaultRejectionResponse> {
    inner: S,
    server: ResourceServer,
    on_rejection: R,
    allow_anonymous: bool,
}

impl<S, R> ResourceServerService<S, R> {
    pub(super) fn new(
        inner: S,
        server: ResourceServer,
        on_rejection: R,
        allow_anonymous: bool,
    ) -> Self {
        Self {
            inner,
            server,
            on_rejection,
            allow_anonymous,
        }
    }
}

impl<S, B, ResBody, R> Service<Request<B>> for ResourceServerService<S, R>
where
    S: Service<Request<B>, Response = Response<ResBody>> + Clone,
    R: RejectionResponse<ResBody> + Clone,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S, B, ResBody, R>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        match self
            .server
            .authenticate(request.headers(), request.uri(), Attempt::default())
        {
            Ok(Authentication::Complete(context)) => {
                self.server.0.metrics.record_granted();
                mark_sensitive(&mut request);
                // Overwrites any `AuthContext` inserted by an outer layer.
                request.extensions_mut().insert(context);
                ResponseFuture::calling(self.inner.call(request))
            }
            Ok(Authentication::Pending(pending)) => {
                // Drop the service that was polled ready, for it may hold a permit. A waiting
                // request must not withhold that permit from requests that can be served.
                let service = self.inner.clone();
                self.inner = service.clone();
                let (server, on_rejection) = (self.server.clone(), self.on_rejection.clone());
                let awaited_keys = false;
                let pending_request = PendingRequest {
                    request,
                    service,
                    server,
                    on_rejection,
                    awaited_keys,
                };
                ResponseFuture::pending(pending, pending_request)
            }
            Err(kind) => {
                if kind == RejectionKind::MissingToken
                    && credentials::has_access_token(request.uri())
                {
                    self.server.warn_token_in_query();
                }
                let rejection = self.server.reject(kind, is_grpc(&request));
                if kind == RejectionKind::MissingToken && self.allow_anonymous {
                    mark_sensitive(&mut request);
                    request.extensions_mut().remove::<AuthContext>();
                    request.extensions_mut().insert(Anonymous(rejection));
                    return ResponseFuture::calling(self.inner.call(request));
                }
                ResponseFuture::rejected(rejection_response(&self.on_rejection, rejection))
            }
        }
    }
}
