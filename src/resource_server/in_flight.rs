//! A request from its authentication to its response: one count and one event for each.

use std::sync::Arc;

use http::{HeaderMap, Response};

use super::rejection_response::complete_response;
use super::responses::Responses;
use super::sharded_arc::{Shard, ShardedArc};
use super::{Rejection, RejectionResponse};

/// Counts a request when its response exists, or as cancelled if it is dropped before.
// Small, because it is part of each response future.
pub(super) struct InFlight {
    /// `None` once the request is counted.
    responses: Option<Arc<Shard<Responses>>>,
    /// `None` for a request with a token whose response needs nothing.
    pub(super) passed_as: Option<Box<PassedAs>>,
}

/// How a request passed.
#[derive(Default)]
pub(super) struct PassedAs {
    /// Without a token, where the layer allows it.
    pub(super) is_anonymous: bool,
    /// Header fields for the response, with any status.
    pub(super) response_headers: HeaderMap,
}

impl InFlight {
    #[inline]
    pub(super) fn new(responses: &ShardedArc<Responses>) -> Self {
        Self {
            responses: Some(responses.get()),
            passed_as: None,
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
    pub(super) fn passed(&mut self) {
        if let Some(responses) = self.responses.take() {
            let is_anonymous = self
                .passed_as
                .as_ref()
                .is_some_and(|passed| passed.is_anonymous);
            responses.count_passed(is_anonymous);
        }
    }

    /// Counts a request by the response of the service, and completes the response: a challenge of
    /// an inner layer or of a handler gets the parameters of this server, and a default response is
    /// made again by `on_rejection`.
    #[inline]
    pub(super) fn responded<B, R: RejectionResponse<B>>(
        &mut self,
        response: &mut Response<B>,
        on_rejection: &R,
    ) {
        if let Some(passed_as) = &mut self.passed_as {
            let headers = std::mem::take(&mut passed_as.response_headers);
            response.headers_mut().extend(headers);
        }
        match response.extensions().get::<Rejection>() {
            None => self.passed(),
            Some(rejection) => self.complete(&rejection.clone(), response, on_rejection),
        }
    }

    #[cold]
    fn complete<B, R: RejectionResponse<B>>(
        &mut self,
        rejection: &Rejection,
        response: &mut Response<B>,
        on_rejection: &R,
    ) {
        if let Some(responses) = self.responses.take() {
            responses.count_rejected(rejection);
            let complete = responses.complete(rejection);
            complete_response(on_rejection, rejection, complete, response);
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

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::super::{DefaultRejectionResponse, ResourceServer};
    use super::*;

    #[test]
    fn header_fields_are_added_to_the_response_of_the_service() {
        let (server, _refresher) = ResourceServer::builder("https://as.example", "orders")
            .build()
            .unwrap();
        let nonce = (
            http::HeaderName::from_static("dpop-nonce"),
            HeaderValue::from_static("a"),
        );
        let mut in_flight = InFlight::new(&server.0.responses);
        in_flight.passed_as = Some(Box::new(PassedAs {
            response_headers: HeaderMap::from_iter([nonce]),
            ..PassedAs::default()
        }));
        let mut response = Response::new(());
        response
            .headers_mut()
            .insert("etag", HeaderValue::from_static("b"));
        in_flight.responded(&mut response, &DefaultRejectionResponse);
        assert_eq!(response.headers()["dpop-nonce"], "a");
        assert_eq!(response.headers()["etag"], "b");
        assert!(in_flight.responses.is_none(), "it is counted");
    }
}
