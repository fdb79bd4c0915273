//! Scripted faults, and how many requests came.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};

use super::AuthorizationServer;

/// A kind of endpoints, in every version of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EndpointKind {
    /// The metadata, in all of their places.
    Discovery,
    /// `introspect`.
    Introspection,
    /// `publickeys` and `publickey`.
    Keys,
    /// Everything below `/management`.
    Management,
    /// `token`.
    Token,
}

impl EndpointKind {
    pub(super) const ALL: [Self; 5] = [
        Self::Token,
        Self::Keys,
        Self::Discovery,
        Self::Introspection,
        Self::Management,
    ];

    /// What people call them.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Discovery => "Discovery",
            Self::Introspection => "Introspection",
            Self::Keys => "Keys",
            Self::Management => "Management",
            Self::Token => "Token",
        }
    }
}

/// What is wrong with an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// 200, and nothing in it.
    Empty,
    /// 200, and a page of HTML in it.
    Garbage,
    /// No answer, ever.
    Hang,
    /// The right answer, but so much later.
    Latency(Duration),
    /// 503, with `Retry-After` in seconds if it is given.
    Outage(Option<u64>),
    /// 200, and 16 MiB of JSON in it.
    Oversize,
    /// The connection breaks instead of an answer.
    Reset,
    /// This status, and no body.
    Status(StatusCode),
    /// The first half of the right answer, as if it were all.
    Truncated,
}

impl Fault {
    /// What people call it.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Empty => "empty answer",
            Self::Garbage => "garbage",
            Self::Hang => "no answer",
            Self::Latency(_) => "latency",
            Self::Outage(_) => "outage",
            Self::Oversize => "oversize",
            Self::Reset => "connection reset",
            Self::Status(_) => "status only",
            Self::Truncated => "truncated",
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Faults(Mutex<FaultState>);

#[derive(Debug, Default)]
struct FaultState {
    /// With the number of answers that are left to spoil; all, if there is none.
    faults: VecDeque<(EndpointKind, Option<usize>, Fault)>,
    requests: Vec<(EndpointKind, usize)>,
}

impl Faults {
    pub(super) fn add(&self, endpoint: EndpointKind, responses: Option<usize>, fault: Fault) {
        self.state().faults.push_back((endpoint, responses, fault));
    }

    pub(super) fn clear(&self) {
        self.state().faults.clear();
    }

    /// Puts one fault that lasts, or none, in place of all that these endpoints have.
    pub(super) fn set(&self, endpoint: EndpointKind, fault: Option<Fault>) {
        let faults = &mut self.state().faults;
        faults.retain(|(kind, ..)| *kind != endpoint);
        faults.extend(fault.map(|fault| (endpoint, None, fault)));
    }

    /// What the next answer is going to suffer.
    pub(super) fn pending(&self, endpoint: EndpointKind) -> Option<Fault> {
        let state = self.state();
        let mut pending = state
            .faults
            .iter()
            .filter(|(kind, left, _)| *kind == endpoint && *left != Some(0));
        pending.next().map(|(.., fault)| fault.clone())
    }

    pub(super) fn requests(&self, endpoint: EndpointKind) -> usize {
        self.state()
            .requests
            .iter()
            .find(|(kind, _)| *kind == endpoint)
            .map_or(0, |(_, count)| *count)
    }

    /// Counts a request and takes the fault that is its turn.
    fn begin_request(&self, endpoint: EndpointKind) -> Option<Fault> {
        let mut state = self.state();
        match state
            .requests
            .iter_mut()
            .find(|(kind, _)| *kind == endpoint)
        {
            Some((_, count)) => *count += 1,
            None => state.requests.push((endpoint, 1)),
        }
        state.faults.retain(|(_, left, _)| *left != Some(0));
        let (_, left, fault) = state
            .faults
            .iter_mut()
            .find(|(kind, ..)| *kind == endpoint)?;
        if let Some(left) = left {
            *left -= 1;
        }
        Some(fault.clone())
    }

    fn state(&self) -> MutexGuard<'_, FaultState> {
        // Every change is one step: a panic leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The folders of the metadata that RFC 8414 §3.1 defines; the issuer's path is below.
const WELL_KNOWN: [&str; 2] = [
    "/.well-known/oauth-authorization-server",
    "/.well-known/openid-configuration",
];

/// Which endpoints a path belongs to.
pub(super) fn endpoint_kind(path: &str) -> Option<EndpointKind> {
    if path.starts_with("/management/") {
        return Some(EndpointKind::Management);
    }
    let is_in = |folder: &str| {
        path.strip_prefix(folder)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    if WELL_KNOWN.into_iter().any(is_in) {
        return Some(EndpointKind::Discovery);
    }
    match path.rsplit('/').next()? {
        "openid-configuration" => Some(EndpointKind::Discovery),
        "introspect" => Some(EndpointKind::Introspection),
        "publickey" | "publickeys" => Some(EndpointKind::Keys),
        "token" => Some(EndpointKind::Token),
        _ => None,
    }
}

/// An answer was spoiled, and by what: an extension of the response.
#[derive(Clone, Copy, Debug)]
pub(super) struct InjectedFault(pub(super) &'static str);

/// Stands before every endpoint.
pub(super) async fn inject(
    State(server): State<AuthorizationServer>,
    request: Request,
    next: Next,
) -> Response {
    let fault = endpoint_kind(request.uri().path())
        .and_then(|endpoint| server.0.faults.begin_request(endpoint));
    let Some(fault) = fault else {
        return next.run(request).await;
    };
    let injected = InjectedFault(fault.name());
    let mut response = respond_with_fault(fault, request, next).await;
    response.extensions_mut().insert(injected);
    response
}

async fn respond_with_fault(fault: Fault, mut request: Request, next: Next) -> Response {
    let respond = |status: StatusCode, body: Body| {
        let mut response = Response::new(body);
        *response.status_mut() = status;
        response
    };
    match fault {
        Fault::Empty => respond(StatusCode::OK, Body::empty()),
        Fault::Garbage => {
            let mut response = respond(
                StatusCode::OK,
                Body::from("<!doctype html><title>Down for maintenance</title>"),
            );
            response
                .headers_mut()
                .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html"));
            response
        }
        Fault::Hang => std::future::pending().await,
        Fault::Latency(latency) => {
            tokio::time::sleep(latency).await;
            next.run(request).await
        }
        Fault::Outage(retry_after) => {
            let mut response = respond(StatusCode::SERVICE_UNAVAILABLE, Body::empty());
            if let Some(seconds) = retry_after {
                response
                    .headers_mut()
                    .insert(header::RETRY_AFTER, seconds.into());
            }
            response
        }
        Fault::Oversize => {
            let mut body = br#"{"keys":[],"padding":""#.to_vec();
            body.resize(16 * 1024 * 1024, b' ');
            body.extend_from_slice(br#""}"#);
            respond(StatusCode::OK, Body::from(body))
        }
        Fault::Reset => respond(StatusCode::OK, Body::new(ResetBody)),
        Fault::Status(status) => respond(status, Body::empty()),
        Fault::Truncated => {
            // "Not modified" has nothing to take away.
            request.headers_mut().remove(header::IF_NONE_MATCH);
            let (head, body) = next.run(request).await.into_parts();
            let body = axum::body::to_bytes(body, usize::MAX)
                .await
                .unwrap_or_default();
            let half = body.slice(..body.len() / 2);
            Response::from_parts(head, Body::from(half))
        }
    }
}

/// A body that breaks off at once, and the connection with it.
struct ResetBody;

impl http_body::Body for ResetBody {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, std::io::Error>>> {
        Poll::Ready(Some(Err(std::io::ErrorKind::ConnectionReset.into())))
    }
}
