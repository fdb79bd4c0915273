//! The layer, and how it is adjusted.

use tower_layer::Layer;

use super::{DefaultRejectionResponse, ResourceServer, ResourceServerService};

/// Lets only requests with a valid bearer token through to the inner service.
///
/// Made by [`ResourceServer::layer`].
#[derive(Clone, Debug)]
#[must_use]
pub struct ResourceServerLayer<R = DefaultRejectionResponse> {
    server: ResourceServer,
    on_rejection: R,
    allow_anonymous: bool,
}

impl ResourceServerLayer {
    pub(super) fn new(server: ResourceServer) -> Self {
        Self {
            server,
            on_rejection: DefaultRejectionResponse,
            allow_anonymous: false,
        }
    }
}

impl<R> ResourceServerLayer<R> {
    /// Answers refused requests in your own way: a closure from the
    /// [`Rejection`](crate::Rejection) to a response.
    pub fn on_rejection<N>(self, on_rejection: N) -> ResourceServerLayer<N> {
        ResourceServerLayer {
            server: self.server,
            on_rejection,
            allow_anonymous: self.allow_anonymous,
        }
    }

    /// Lets requests without a bearer token pass, too, and without an
    /// [`AuthContext`](crate::AuthContext). A bad token is still refused.
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
