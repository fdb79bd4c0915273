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
pub(super) struct Faults(Mutex<Script>);

#[derive(Debug, Default)]
struct Script {
    /// With the number of answers that are left to spoil; all, if there is none.
    faults: VecDeque<(EndpointKind, Option<usize>, Fault)>,
    requests: Vec<(EndpointKind, usize)>,
}

impl Faults {
    pub(super) fn add(&self, endpoints: EndpointKind, answers: Option<usize>, fault: Fault) {
        self.script().faults.push_back((endpoints, answers, fault));
    }

    pub(super) fn clear(&self) {
        self.script().faults.clear();
    }

    /// Puts one fault that lasts, or none, in place of all that these endpoints have.
    pub(super) fn replace(&self, endpoints: EndpointKind, fault: Option<Fault>) {
        let faults = &mut self.script().faults;
        faults.retain(|(of, ..)| *of != endpoints);
        faults.extend(fault.map(|fault| (endpoints, None, fault)));
    }

    /// What the next answer is going to suffer.
    pub(super) fn next(&self, endpoints: EndpointKind) -> Option<Fault> {
        let script = self.script();
        let mut pending = script
            .faults
            .iter()
            .filter(|(of, left, _)| *of == endpoints && *left != Some(0));
        pending.next().map(|(.., fault)| fault.clone())
    }

    pub(super) fn requests(&self, endpoints: EndpointKind) -> usize {
        self.script()
            .requests
            .iter()
            .find(|(of, _)| *of == endpoints)
            .map_or(0, |(_, count)| *count)
    }

    /// Counts a request and takes the fault that is its turn.
    fn take(&self, endpoints: EndpointKind) -> Option<Fault> {
        let mut script = self.script();
        match script.requests.iter_mut().find(|(of, _)| *of == endpoints) {
            Some((_, count)) => *count += 1,
            None => script.requests.push((endpoints, 1)),
        }
        script.faults.retain(|(_, left, _)| *left != Some(0));
        let (_, left, fault) = script.faults.iter_mut().find(|(of, ..)| *of == endpoints)?;
        if let Some(left) = left {
            *left -= 1;
        }
        Some(fault.clone())
    }

    fn script(&self) -> MutexGuard<'_, Script> {
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
pub(super) fn endpoints(path: &str) -> Option<EndpointKind> {
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
pub(super) struct Spoiled(pub(super) &'static str);

/// Stands before every endpoint.
pub(super) async fn inject(
    State(server): State<AuthorizationServer>,
    request: Request,
    next: Next,
) -> Response {
    let fault =
        endpoints(request.uri().path()).and_then(|endpoints| server.0.faults.take(endpoints));
    let Some(fault) = fault else {
        return next.run(request).await;
    };
    let spoiled = Spoiled(fault.name());
    let mut response = spoil(fault, request, next).await;
    response.extensions_mut().insert(spoiled);
    response
}

async fn spoil(fault: Fault, mut request: Request, next: Next) -> Response {
    let answer = |status: StatusCode, body: Body| {
        let mut response = Response::new(body);
        *response.status_mut() = status;
        response
    };
    match fault {
        Fault::Empty => answer(StatusCode::OK, Body::empty()),
        Fault::Garbage => {
            let mut response = answer(
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
            let mut response = answer(StatusCode::SERVICE_UNAVAILABLE, Body::empty());
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
            answer(StatusCode::OK, Body::from(body))
        }
        Fault::Reset => answer(StatusCode::OK, Body::new(Broken)),
        Fault::Status(status) => answer(status, Body::empty()),
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
struct Broken;

impl http_body::Body for Broken {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, std::io::Error>>> {
        Poll::Ready(Some(Err(std::io::ErrorKind::ConnectionReset.into())))
    }
}
