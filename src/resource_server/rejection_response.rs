//! Responses to rejected requests.

use http::{HeaderValue, Response, StatusCode};

use super::Rejection;

/// Builds the response to a rejected request.
///
/// Implemented by closures `Fn(&Rejection) -> Response<B>` and by [`DefaultRejectionResponse`], the
/// default. The inner service is not called, and the [`Rejection`] is added to the extensions of
/// the response.
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
/// `Cache-Control: no-store`, and an empty body. A 500 (a missing layer) has neither
/// `WWW-Authenticate` nor `Retry-After`.
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
        let mut response = Response::new(B::default());
        let headers = response.headers_mut();
        headers.clone_from(&rejection.headers);
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
        } else {
            *response.status_mut() = rejection.status();
        }
        response
    }
}

/// Builds the response to a rejected request, with the rejection as an extension.
pub(super) fn rejection_response<B, R: RejectionResponse<B>>(
    on_rejection: &R,
    rejection: Rejection,
) -> Response<B> {
    let mut response = on_rejection.response(&rejection);
    response.extensions_mut().insert(rejection);
    response
}
