//! A request from its authentication to its response: one count and one event for each.

use std::sync::Arc;

use http::{HeaderMap, Response};

use super::per_thread::Shard;
use super::responses::Responses;
use super::{Rejection, ResourceServer};

/// Counts a request when its response exists, or as cancelled if it is dropped before.
pub(super) struct InFlight {
    /// `None` once the request is counted.
    responses: Option<Arc<Shard<Responses>>>,
    pub(super) is_anonymous: bool,
    /// Header fields for the response of the service, whatever its status.
    pub(super) response_headers: Option<Box<HeaderMap>>,
}

impl InFlight {
    #[inline]
    pub(super) fn new(server: &ResourceServer) -> Self {
        Self {
            responses: Some(server.0.responses.get()),
            is_anonymous: false,
            response_headers: None,
        }
    }

    /// Counts a request that is rejected.
    pub(super) fn rejected(&mut self, rejection: &Rejection) {
        if let Some(responses) = self.responses.take() {
            responses.count_rejected(rejection);
        }
    }

    /// Counts a request that passes, and whose response is unknown: the service failed, or there
    /// is none.
    #[inline]
    pub(super) fn passed(mut self) {
        if let Some(responses) = self.responses.take() {
            responses.count_passed(self.is_anonymous);
        }
    }

    /// Counts a request by the response of the service, and completes the response: a challenge of
    /// an inner layer or of a handler gets the parameters of this server.
    #[inline]
    pub(super) fn responded<B>(mut self, response: &mut Response<B>) {
        if let Some(headers) = self.response_headers.take() {
            response.headers_mut().extend(*headers);
        }
        let Some(rejection) = response.extensions().get::<Rejection>().cloned() else {
            return self.passed();
        };
        if let Some(responses) = self.responses.take() {
            responses.count_rejected(&rejection);
            responses.complete(&rejection, response);
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if let Some(responses) = &self.responses {
            responses.count_cancelled();
        }
    }
}
