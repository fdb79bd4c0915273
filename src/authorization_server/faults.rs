//! Fault injection and request counts.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};

use super::AuthorizationServer;
use super::client_authentication::invalid_client;

/// A kind of endpoint, in every version of the API.
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), tower_oauth::BoxError> {
/// # use tower_oauth::authorization_server::AuthorizationServer;
/// # use tower_oauth::resource_server::Algorithm;
/// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
/// use tower_oauth::ResourceServer;
/// use tower_oauth::authorization_server::EndpointKind;
///
/// let orders = ResourceServer::builder(issuer.issuer(), "orders");
/// let orders = orders.transport(issuer.transport()).start().await?;
/// assert_eq!(issuer.requests(EndpointKind::Discovery), 1);
/// assert_eq!(issuer.requests(EndpointKind::Keys), 1);
/// assert_eq!(issuer.requests(EndpointKind::Token), 0);
/// # drop(orders);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EndpointKind {
    /// The metadata, at all of its URLs.
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

    /// Its display name.
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

/// A fault that is injected into a response.
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), tower_oauth::BoxError> {
/// # use tower_oauth::authorization_server::AuthorizationServer;
/// # use tower_oauth::resource_server::Algorithm;
/// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
/// # let shop = issuer.register("shop")?;
/// use tower_oauth::TokenManager;
/// use tower_oauth::authorization_server::{EndpointKind, Fault};
/// use tower_oauth::error::ErrorKind;
///
/// # let tokens = TokenManager::builder(issuer.token_endpoint(), shop.credentials());
/// # let tokens = tokens.transport(issuer.transport()).start()?;
/// issuer.fail(EndpointKind::Token, Fault::Garbage);
/// let error = tokens.access_token().await.unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::Malformed);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// 200 with an empty body.
    Empty,
    /// 200 with an HTML page.
    Garbage,
    /// No response.
    Hang,
    /// 401 `invalid_client`, as if client authentication had failed.
    InvalidClient,
    /// The correct response after this delay.
    Latency(Duration),
    /// 503, with `Retry-After` in seconds if given.
    Outage(Option<u64>),
    /// 200 with 16 MiB of JSON.
    Oversize,
    /// The connection is reset.
    Reset,
    /// This status with an empty body.
    Status(StatusCode),
    /// The first half of the correct response body.
    Truncated,
}

impl Fault {
    /// Its display name.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Empty => "empty response",
            Self::Garbage => "garbage",
            Self::Hang => "no answer",
            Self::InvalidClient => "invalid client",
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
    /// With the number of remaining responses; `None` for all.
    faults: VecDeque<(EndpointKind, Option<usize>, Fault)>,
    requests: Vec<(EndpointKind, usize)>,
}

impl Faults {
    /// Adds a fault of the next responses, after those that were added before.
    pub(super) fn add_next(&self, endpoint: EndpointKind, responses: usize, fault: Fault) {
        let faults = &mut self.state().faults;
        let is_permanent = |(kind, left, _): &(EndpointKind, Option<usize>, Fault)| {
            *kind == endpoint && left.is_none()
        };
        let end = faults.iter().position(is_permanent).unwrap_or(faults.len());
        faults.insert(end, (endpoint, Some(responses), fault));
    }

    /// Replaces the permanent fault of this endpoint. Those of the next responses apply first.
    pub(super) fn set_permanent(&self, endpoint: EndpointKind, fault: Fault) {
        let faults = &mut self.state().faults;
        faults.retain(|(kind, left, _)| *kind != endpoint || left.is_some());
        faults.push_back((endpoint, None, fault));
    }

    pub(super) fn clear(&self) {
        self.state().faults.clear();
    }

    /// Replaces all faults of this endpoint with one permanent fault, or none.
    pub(super) fn replace_all(&self, endpoint: EndpointKind, fault: Option<Fault>) {
        let faults = &mut self.state().faults;
        faults.retain(|(kind, ..)| *kind != endpoint);
        faults.extend(fault.map(|fault| (endpoint, None, fault)));
    }

    /// The fault of the next response.
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

    /// Counts a request and returns its fault.
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
        // Every change is a single operation, so a poisoned state is consistent.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The path prefixes of metadata (RFC 8414 §3.1); the issuer's path follows.
const WELL_KNOWN: [&str; 2] = [
    "/.well-known/oauth-authorization-server",
    "/.well-known/openid-configuration",
];

/// The kind of endpoint at a path.
pub(super) fn endpoint_kind(path: &str) -> Option<EndpointKind> {
    if path.starts_with("/management/") {
        return Some(EndpointKind::Management);
    }
    let is_in = |prefix: &str| {
        path.strip_prefix(prefix)
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

/// The name of the injected fault, as a response extension.
#[derive(Clone, Copy, Debug)]
pub(super) struct InjectedFault(pub(super) &'static str);

/// Middleware that injects faults.
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
        Fault::InvalidClient => invalid_client("client authentication failed").into_response(),
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
            // A 304 has no body to truncate.
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

/// A body that fails at once, which resets the connection.
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
