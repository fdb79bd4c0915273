//! The layer that authenticates requests.

use tower_layer::Layer;

use super::{DefaultRejectionResponse, ResourceServer, ResourceServerService};

/// Passes only requests with a valid bearer token to the inner service.
///
/// Created by [`ResourceServer::layer`].
#[derive(Clone, Debug)]
#[must_use]
pub struct ResourceServerLayer<R = DefaultRejectionResponse> {
    server: ResourceServer,
    on_rejection: R,
    allow_anonymous: bool,
}

impl ResourceServer {
    /// Returns the layer that passes only requests with a valid token.
    pub fn layer(&self) -> ResourceServerLayer {
        ResourceServerLayer::new(self.clone())
    }
}

impl ResourceServerLayer {
    fn new(server: ResourceServer) -> Self {
        Self {
            server,
            on_rejection: DefaultRejectionResponse,
            allow_anonymous: false,
        }
    }
}

impl<R> ResourceServerLayer<R> {
    /// Sets how rejected requests are answered: a closure from the
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
}

impl<S, R: Clone> Layer<S> for ResourceServerLayer<R> {
    type Service = ResourceServerService<S, R>;

    fn layer(&self, inner: S) -> Self::Service {
        ResourceServerService::new(
            inner,
            self.server.clone(),
            self.on_rejection.clone(),
            self.allow_anonymous,
        )
    }
}
