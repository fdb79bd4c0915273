//! The service that authenticates requests.

use std::task::{Context, Poll};

use http::{Request, Response};
use tower_layer::Layer;
use tower_service::Service;

use super::authenticate::Authentication;
use super::credentials::Head;
use super::future::ResponseFuture;
use super::in_flight::InFlight;
use super::{DefaultRejectionResponse, RejectionResponse, ResourceServer, ResourceServerLayer};

/// Authenticates each request by its bearer token before it calls the inner service.
///
/// ```
/// use http::{Request, Response, StatusCode};
/// use tower::{ServiceExt as _, service_fn};
/// use tower_oauth::ResourceServer;
/// use tower_oauth::resource_server::ResourceServerService;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (orders, _refresher) = ResourceServer::builder("https://as.example", "orders").build()?;
/// let inner = service_fn(|_: Request<()>| async {
///     Ok::<_, std::convert::Infallible>(Response::new(()))
/// });
/// let service = ResourceServerService::new(inner, orders);
/// let response = service.oneshot(Request::new(())).await?;
/// assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct ResourceServerService<S, R = DefaultRejectionResponse> {
    inner: S,
    layer: ResourceServerLayer<R>,
}

impl<S, R: Clone> Layer<S> for ResourceServerLayer<R> {
    type Service = ResourceServerService<S, R>;

    fn layer(&self, inner: S) -> Self::Service {
        ResourceServerService {
            inner,
            layer: self.clone(),
        }
    }
}

impl<S> ResourceServerService<S> {
    /// Protects `inner` with the defaults of [`ResourceServerLayer`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// use std::convert::Infallible;
    /// use http::{Request, Response};
    /// use tower::{ServiceExt as _, service_fn};
    /// use tower_oauth::ResourceServer;
    /// use tower_oauth::resource_server::ResourceServerService;
    ///
    /// let (orders, _refresher) = ResourceServer::builder("https://as.example", "orders").build()?;
    /// let inner = service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(())));
    /// let service = ResourceServerService::new(inner, orders);
    /// assert_eq!(service.oneshot(Request::new(())).await?.status(), 401);
    /// # Ok(())
    /// # }
    /// ```
    pub fn new(inner: S, server: ResourceServer) -> Self {
        let layer = ResourceServerLayer::new(server);
        Self { inner, layer }
    }
}

impl<S, R> ResourceServerService<S, R> {
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
        let layer = &self.layer;
        let mut in_flight = InFlight::new(layer.responses());
        let head = Head::from_request(&request);
        match layer.server.try_authenticate(head) {
            Ok(Authentication::Complete(authenticated)) => {
                layer.pass(&mut request, authenticated, &mut in_flight);
            }
            Ok(Authentication::Pending(pending)) => {
                // Drop the service that was polled ready, for it may hold a permit. A waiting
                // request must not withhold that permit from requests that can be served.
                let (inner, layer) = (self.inner.clone(), layer.clone());
                self.inner = inner.clone();
                return ResponseFuture::authenticating(request, inner, layer, pending, in_flight);
            }
            Err(reason) => {
                if let Err(rejection) =
                    layer.reject_unless_anonymous(&mut request, reason, &mut in_flight)
                {
                    return ResponseFuture::rejected(&layer.on_rejection, rejection, in_flight);
                }
            }
        }
        let on_rejection = layer.on_rejection.clone();
        ResponseFuture::calling(self.inner.call(request), on_rejection, in_flight)
    }
}
