//! The rejections of a resource server, and the counts of its requests.

use std::sync::Arc;

use http::{HeaderMap, StatusCode};

use super::challenge::ChallengeParameters;
use super::rejection::Details;
use super::rejection_events::RejectionEvents;
use super::{Rejection, RejectionKind};
use crate::metrics::{Counter, REQUESTS};
use crate::oauth::Scope;

/// The rejections of a resource server, built once, and the counts of its requests.
///
/// A clone shares the counts and the limits of the events.
#[derive(Clone, Debug)]
pub(super) struct Responses {
    parameters: Arc<ChallengeParameters>,
    /// What a 401 names that names no scopes itself.
    scopes: Option<Arc<[Scope]>>,
    granted: Counter,
    anonymous: Counter,
    cancelled: Counter,
    /// Headers and counter of each [`RejectionKind`].
    by_kind: Vec<(RejectionKind, Arc<HeaderMap>, Counter)>,
    events: Arc<RejectionEvents>,
}

impl Responses {
    pub(super) fn new(parameters: ChallengeParameters, events: RejectionEvents) -> Self {
        let counter = |result| Counter::new(REQUESTS, ("result", result));
        let of_kind = |kind: &RejectionKind| {
            let headers = parameters.headers(*kind, &[], None);
            (*kind, headers, counter(kind.as_str()))
        };
        Self {
            by_kind: RejectionKind::ALL.iter().map(of_kind).collect(),
            parameters: Arc::new(parameters),
            scopes: None,
            granted: counter("granted"),
            anonymous: counter("anonymous"),
            cancelled: counter("cancelled"),
            events: Arc::new(events),
        }
    }

    /// The same, with scopes in each 401.
    pub(super) fn with_scopes(&self, scopes: Arc<[Scope]>) -> Self {
        let mut responses = self.clone();
        for (kind, headers, _) in &mut responses.by_kind {
            if kind.status() == StatusCode::UNAUTHORIZED {
                *headers = self.parameters.headers(*kind, &scopes, None);
            }
        }
        responses.scopes = Some(scopes);
        responses
    }

    /// Rejects a request. The caller counts it.
    pub(super) fn reject(
        &self,
        kind: RejectionKind,
        required_scopes: Option<Arc<[Scope]>>,
        details: Details,
        grpc: bool,
    ) -> Rejection {
        // Those of most kinds are built once: anyone can cause a 401.
        let own = self.by_kind.iter().find(|(own, ..)| *own == kind);
        let headers = match (&required_scopes, own) {
            (None, Some((_, headers, _))) => Arc::clone(headers),
            (scopes, _) => {
                let scopes = scopes.as_deref().unwrap_or_default();
                self.parameters.headers(kind, scopes, None)
            }
        };
        Rejection {
            kind,
            headers,
            required_scopes: required_scopes.or_else(|| self.scopes_of(kind)),
            step_up: None,
            grpc,
            is_complete: true,
            has_default_response: false,
            details,
        }
    }

    /// The scopes in rejections of this kind that name none themselves.
    fn scopes_of(&self, kind: RejectionKind) -> Option<Arc<[Scope]>> {
        let scopes = self.scopes.as_ref()?;
        (kind.status() == StatusCode::UNAUTHORIZED).then(|| Arc::clone(scopes))
    }

    /// The rejection with the parameters of this server, if its challenge has none.
    pub(super) fn complete(&self, rejection: &Rejection) -> Rejection {
        let mut complete = rejection.clone();
        if !rejection.is_complete {
            let kind = rejection.kind;
            complete.required_scopes = complete.required_scopes.or_else(|| self.scopes_of(kind));
            let (scopes, step_up) = (complete.required_scopes(), complete.step_up.as_deref());
            complete.headers = self.parameters.headers(kind, scopes, step_up);
            complete.is_complete = true;
        }
        complete
    }

    /// Counts and logs a rejected request.
    pub(super) fn count_rejected(&self, rejection: &Rejection) {
        // No server is around the layer that is missing one: it is counted there.
        if rejection.kind == RejectionKind::LayerMissing {
            return;
        }
        self.events.log(rejection);
        let own = self.by_kind.iter().find(|(own, ..)| *own == rejection.kind);
        if let Some((_, _, counter)) = own {
            counter.increment();
        }
    }

    /// Counts a request that reached the service.
    pub(super) fn count_passed(&self, is_anonymous: bool) {
        if is_anonymous {
            self.anonymous.increment();
        } else {
            self.granted.increment();
        }
    }

    /// Counts a request that was dropped before its response existed.
    pub(super) fn count_cancelled(&self) {
        self.cancelled.increment();
    }
}

#[cfg(test)]
mod tests {
    use http::Response;

    use super::super::challenge::DEFAULT_REALM;
    use super::super::{DefaultRejectionResponse, RejectionResponse};
    use super::*;
    use crate::clock::SystemClock;

    const INVALID_REQUEST: &str = ", error=\"invalid_request\", \
        error_description=\"The Authorization field is malformed or repeated\"";
    const INSUFFICIENT_SCOPE: &str = ", error=\"insufficient_scope\", \
        error_description=\"The access token lacks a required scope\"";
    const INSUFFICIENT_AUTHENTICATION: &str = ", error=\"insufficient_user_authentication\", \
        error_description=\"A more recent or stronger authentication is required\"";
    const INVALID_TOKEN: &str = ", error=\"invalid_token\", \
        error_description=\"The access token is invalid\"";

    fn response(kind: RejectionKind, grpc: bool) -> Response<()> {
        let metadata = Some("https://api.example/metadata");
        let challenge = ChallengeParameters::new(DEFAULT_REALM, metadata).unwrap();
        let events = RejectionEvents::new(&[], Arc::new(SystemClock));
        let responses = Responses::new(challenge, events);
        let rejection = responses.reject(kind, None, Details::default(), grpc);
        DefaultRejectionResponse.response(&rejection)
    }

    /// RFC 6750 §3, RFC 9728 §5.1, RFC 9110 §10.2.3.
    #[test]
    fn each_kind_of_rejection_has_exactly_its_headers() {
        for kind in RejectionKind::ALL.iter().copied() {
            for grpc in [false, true] {
                let response = response(kind, grpc);
                let field = |name| {
                    response
                        .headers()
                        .get(name)
                        .map(|value| value.to_str().unwrap())
                };
                let (error, wait) = match kind {
                    RejectionKind::Overloaded => (None, Some("1")),
                    RejectionKind::KeysUnavailable => (None, Some("5")),
                    RejectionKind::LayerMissing => (None, None),
                    RejectionKind::Forbidden => (None, None),
                    RejectionKind::MissingToken => (Some(""), None),
                    RejectionKind::InsufficientAuthentication => {
                        (Some(INSUFFICIENT_AUTHENTICATION), None)
                    }
                    RejectionKind::InsufficientScope => (Some(INSUFFICIENT_SCOPE), None),
                    RejectionKind::InvalidRequest => (Some(INVALID_REQUEST), None),
                    _ => (Some(INVALID_TOKEN), None),
                };
                let challenge = error.map(|error| {
                    let metadata = r#"resource_metadata="https://api.example/metadata""#;
                    format!(r#"Bearer realm="resource"{error}, {metadata}"#)
                });
                assert_eq!(field("www-authenticate"), challenge.as_deref(), "{kind}");
                assert_eq!(field("retry-after"), wait, "{kind}");
                assert_eq!(field("cache-control"), Some("no-store"), "{kind}");
                let code = match kind.status() {
                    StatusCode::FORBIDDEN => "7",
                    StatusCode::INTERNAL_SERVER_ERROR => "13",
                    StatusCode::SERVICE_UNAVAILABLE => "14",
                    _ => "16",
                };
                assert_eq!(field("grpc-status"), grpc.then_some(code), "{kind}");
                assert_eq!(
                    field("content-type"),
                    grpc.then_some("application/grpc"),
                    "{kind}"
                );
                assert_eq!(
                    response.status(),
                    if grpc { StatusCode::OK } else { kind.status() },
                    "{kind}"
                );
                let fields = 1
                    + usize::from(challenge.is_some() || wait.is_some())
                    + if grpc { 3 } else { 0 };
                assert_eq!(response.headers().len(), fields, "{kind}");
            }
        }
    }
}
