//! The layer that authenticates requests.

use http::Request;
use tower_layer::Layer;

use super::authenticate::{Anonymous, Attempt, Authentication, mark_sensitive};
use super::credentials::Head;
use super::validate::Pending;
use super::{
    AuthContext, DefaultRejectionResponse, Rejection, RejectionKind, ResourceServer,
    ResourceServerService,
};

/// Passes only requests with a valid bearer token to the inner service.
///
/// ```
/// use tower_oauth::{ResourceServer, ResourceServerLayer};
///
/// let (orders, _refresher) = ResourceServer::builder("https://as.example", "orders").build()?;
/// let layer = ResourceServerLayer::new(orders); // or `orders.layer()`
/// # Ok::<(), tower_oauth::ConfigError>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct ResourceServerLayer<R = DefaultRejectionResponse> {
    server: ResourceServer,
    pub(super) on_rejection: R,
    allow_anonymous: bool,
}

impl ResourceServer {
    /// Returns the layer that passes only requests with a valid token.
    pub fn layer(&self) -> ResourceServerLayer {
        ResourceServerLayer::new(self.clone())
    }
}

impl ResourceServerLayer {
    /// Creates the layer of a resource server.
    pub fn new(server: ResourceServer) -> Self {
        Self {
            server,
            on_rejection: DefaultRejectionResponse,
            allow_anonymous: false,
        }
    }
}

impl<R> ResourceServerLayer<R> {
    /// Sets the response to rejected requests: a closure from the
    /// [`Rejection`](crate::Rejection) to a response. Default: [`DefaultRejectionResponse`].
    pub fn on_rejection<N>(self, on_rejection: N) -> ResourceServerLayer<N> {
        ResourceServerLayer {
            server: self.server,
            on_rejection,
            allow_anonymous: self.allow_anonymous,
        }
    }

    /// Passes requests without a bearer token as well, without an
    /// [`AuthContext`](crate::AuthContext). An invalid token is still rejected.
    pub fn allow_anonymous(mut self) -> Self {
        self.allow_anonymous = true;
        self
    }

    /// Authenticates a request. If it need not wait, prepares it for the inner service.
    pub(super) fn authenticate<B>(
        &self,
        request: &mut Request<B>,
        attempt: &mut Attempt,
    ) -> Result<Option<Pending>, Rejection> {
        let server = &self.server;
        let head = Head::of(request);
        let refusal = match server.try_authenticate(head, attempt) {
            Ok(Authentication::Complete(context)) => {
                server.0.granted.increment();
                mark_sensitive(request);
                // Overwrites any `AuthContext` inserted by an outer layer.
                request.extensions_mut().insert(context);
                return Ok(None);
            }
            Ok(Authentication::Pending(pending)) => return Ok(Some(pending)),
            Err(refusal) => refusal,
        };
        let is_missing = refusal.kind == RejectionKind::MissingToken;
        let rejection = server.reject(refusal, Some(head));
        if !is_missing || !self.allow_anonymous {
            return Err(rejection);
        }
        mark_sensitive(request);
        request.extensions_mut().remove::<AuthContext>();
        request.extensions_mut().insert(Anonymous(rejection));
        Ok(None)
    }
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
