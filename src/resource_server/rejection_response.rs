//! Responses to rejected requests.

use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue, Response, StatusCode};

use super::Rejection;

/// Builds the response to a rejected request.
///
/// Implemented by closures `Fn(&Rejection) -> Response<B>`, by [`DefaultRejectionResponse`], the
/// default, and by [`ProblemJson`](super::ProblemJson). The [`Rejection`] is added to the
/// extensions of the response.
///
/// ```
/// use std::convert::Infallible;
/// use http::{Request, Response};
/// use tower::{ServiceBuilder, ServiceExt as _, service_fn};
/// use tower_oauth::resource_server::RejectionResponse;
/// use tower_oauth::{Rejection, ResourceServer};
///
/// #[derive(Clone)]
/// struct DescriptionAsBody;
///
/// impl RejectionResponse<String> for DescriptionAsBody {
///     fn response(&self, rejection: &Rejection) -> Response<String> {
///         let mut response = Response::new(rejection.description().to_owned());
///         *response.status_mut() = rejection.status();
///         response
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (orders, _refresher) = ResourceServer::builder("https://as.example", "orders").build()?;
/// let layer = orders.layer().on_rejection(DescriptionAsBody);
/// let service = ServiceBuilder::new().layer(layer).service(service_fn(
///     |_: Request<()>| async { Ok::<_, Infallible>(Response::new(String::new())) },
/// ));
/// let response = service.oneshot(Request::new(())).await?;
/// assert_eq!(response.status(), 401);
/// assert_eq!(response.body(), "An access token is required");
/// # Ok(())
/// # }
/// ```
pub trait RejectionResponse<B> {
    /// Builds the response.
    fn response(&self, rejection: &Rejection) -> Response<B>;

    /// Whether the [`on_rejection`](crate::ResourceServerLayer::on_rejection) of a layer around
    /// this one makes the response again. Default: `false`.
    ///
    /// `true` for [`DefaultRejectionResponse`], and not meant for others.
    #[doc(hidden)]
    fn is_default(&self) -> bool {
        false
    }
}

impl<F, B> RejectionResponse<B> for F
where
    F: Fn(&Rejection) -> Response<B>,
{
    fn response(&self, rejection: &Rejection) -> Response<B> {
        self(rejection)
    }
}

/// The default response to a rejected request.
///
/// It has a status, `WWW-Authenticate` (RFC 6750 §3) or `Retry-After` (RFC 9110 §10.2.3),
/// `Cache-Control: no-store`, and an empty body. A 403 of
/// [`RejectionKind::Forbidden`](super::RejectionKind::Forbidden) and a 500 (a missing layer) have
/// neither `WWW-Authenticate` nor `Retry-After`.
///
/// The response to a gRPC call has the gRPC status in its headers: 16 (unauthenticated), 7
/// (permission denied), 14 (unavailable) or 13 (internal).
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), tower_oauth::BoxError> {
/// use http::{Request, Response};
/// use tower::{Layer as _, ServiceExt as _, service_fn};
/// use tower_oauth::resource_server::{DefaultRejectionResponse, RejectionResponse};
/// use tower_oauth::{Rejection, ResourceServer};
///
/// let (orders, _refresher) = ResourceServer::builder("https://as.example", "orders").build()?;
/// // The default, with one more header.
/// let layer = orders.layer().on_rejection(|rejection: &Rejection| {
///     let default = DefaultRejectionResponse;
///     let mut response: Response<String> = default.response(rejection);
///     response.headers_mut().insert("x-service", "orders".parse().expect("a header value"));
///     response
/// });
/// # let inner = service_fn(async |_: Request<()>| {
/// #     Ok::<_, std::convert::Infallible>(Response::new(String::new()))
/// # });
/// let response = layer.layer(inner).oneshot(Request::new(())).await?;
/// assert_eq!(response.headers()["www-authenticate"], r#"Bearer realm="resource""#);
/// assert_eq!(response.headers()["cache-control"], "no-store");
/// assert_eq!(response.headers()["x-service"], "orders");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::exhaustive_structs, reason = "it has no settings")]
pub struct DefaultRejectionResponse;

impl<B: Default> RejectionResponse<B> for DefaultRejectionResponse {
    fn response(&self, rejection: &Rejection) -> Response<B> {
        default_response(rejection, B::default())
    }

    fn is_default(&self) -> bool {
        true
    }
}

/// The response of [`DefaultRejectionResponse`] with this body, which is empty.
pub(super) fn default_response<B>(rejection: &Rejection, empty: B) -> Response<B> {
    let mut response = Response::new(empty);
    *response.status_mut() = default_status(rejection);
    *response.headers_mut() = default_headers(rejection);
    response
}

fn default_status(rejection: &Rejection) -> StatusCode {
    if rejection.is_grpc() {
        StatusCode::OK
    } else {
        rejection.status()
    }
}

/// Whether the status is that of the default response, in gRPC also `grpc-status`.
fn has_default_status<B>(rejection: &Rejection, response: &Response<B>) -> bool {
    let grpc_status = |headers: &HeaderMap| headers.get("grpc-status").cloned();
    response.status() == default_status(rejection)
        && (!rejection.is_grpc()
            || grpc_status(response.headers()) == grpc_status(&default_headers(rejection)))
}

fn default_headers(rejection: &Rejection) -> HeaderMap {
    let mut headers = rejection.headers().clone();
    if rejection.is_grpc() {
        let code = match rejection.status() {
            StatusCode::FORBIDDEN => "7",
            StatusCode::INTERNAL_SERVER_ERROR => "13",
            StatusCode::SERVICE_UNAVAILABLE => "14",
            _ => "16",
        };
        for (name, value) in [
            ("content-type", "application/grpc"),
            ("grpc-status", code),
            ("grpc-message", rejection.kind().description()),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
    }
    headers
}

/// Builds the response to a rejected request, with the rejection as an extension.
pub(super) fn rejection_response<B, R: RejectionResponse<B>>(
    on_rejection: &R,
    mut rejection: Rejection,
) -> Response<B> {
    let mut response = on_rejection.response(&rejection);
    rejection.has_default_response = on_rejection.is_default();
    response.extensions_mut().insert(rejection);
    response
}

/// Completes the response of an inner layer, an extractor or a handler, whose rejection was
/// `before` and is now `complete`.
pub(super) fn complete_response<B, R: RejectionResponse<B>>(
    on_rejection: &R,
    before: &Rejection,
    mut complete: Rejection,
    response: &mut Response<B>,
) {
    // With another status, a layer between has made another response.
    let is_default = before.has_default_response && has_default_status(before, response);
    if is_default && !on_rejection.is_default() {
        let replacement = on_rejection.response(&complete);
        complete.has_default_response = false;
        replace(before, replacement, response);
    } else {
        replace_challenge(before, &complete, response);
    }
    response.extensions_mut().insert(complete);
}

/// Replaces the challenge of a response. One that the program built without it gets none.
pub(super) fn replace_challenge<B>(
    before: &Rejection,
    after: &Rejection,
    response: &mut Response<B>,
) {
    if let Some(own) = before.www_authenticate()
        && let Some(challenge) = after.www_authenticate()
        && let header::Entry::Occupied(mut challenges) =
            response.headers_mut().entry(header::WWW_AUTHENTICATE)
    {
        let same = challenges.iter_mut().filter(|other| *other == own);
        same.for_each(|other| other.clone_from(challenge));
    }
}

/// Replaces the default response to `before`. Header fields that layers between have added stay,
/// beside those of the replacement if a response may have several of them.
fn replace<B>(before: &Rejection, replacement: Response<B>, response: &mut Response<B>) {
    /// They describe the body that is replaced.
    const OF_THE_BODY: [HeaderName; 3] = [
        header::CONTENT_ENCODING,
        header::CONTENT_LENGTH,
        header::CONTENT_TYPE,
    ];
    /// A response may have several of them.
    const SEVERAL: [HeaderName; 4] = [
        header::LINK,
        header::SET_COOKIE,
        header::VARY,
        header::WWW_AUTHENTICATE,
    ];
    let (parts, body) = replacement.into_parts();
    *response.body_mut() = body;
    *response.status_mut() = parts.status;
    response.extensions_mut().extend(parts.extensions);
    let headers = response.headers_mut();
    for (name, value) in &default_headers(before) {
        let others = headers.get_all(name).iter().filter(|other| *other != value);
        let others: Vec<HeaderValue> = others.cloned().collect();
        headers.remove(name);
        for other in others {
            headers.append(name, other);
        }
    }
    for name in OF_THE_BODY {
        headers.remove(name);
    }
    let several = SEVERAL.map(|name| {
        let values: Vec<HeaderValue> = headers.get_all(&name).iter().cloned().collect();
        headers.remove(&name);
        (name, values)
    });
    headers.extend(parts.headers);
    for (name, values) in several {
        for value in values {
            headers.append(name.clone(), value);
        }
    }
}
