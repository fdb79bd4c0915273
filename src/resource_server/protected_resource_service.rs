//! The service of the metadata document (RFC 9728 §3.1, §3.2).

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use tower_service::Service;

use super::protected_resource::ProtectedResourceMetadata;

/// Responds with the metadata of a protected resource, to everyone.
///
/// Created by [`ProtectedResourceMetadata::service`]. The response to GET and HEAD is the document,
/// that to OPTIONS allows the request to which the preflight of a browser belongs, and that to
/// another method is 405. The response to another path or query than those of the document is 404.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), tower_oauth::BoxError> {
/// use http::{Request, StatusCode};
/// use tower::ServiceExt as _;
/// use tower_oauth::ResourceServer;
/// use tower_oauth::resource_server::ProtectedResource;
///
/// let orders = ProtectedResource::new("https://api.example/orders")?;
/// let (server, _refresher) = ResourceServer::for_resource(orders, "https://as.example").build()?;
/// let metadata = server.resource_metadata().expect("the resource is named");
/// let request = Request::get(metadata.path()).body(())?;
/// let response = metadata.service().oneshot(request).await?;
/// assert_eq!(response.status(), StatusCode::OK);
/// assert_eq!(response.headers()["content-type"], "application/json");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct ProtectedResourceMetadataService {
    metadata: ProtectedResourceMetadata,
    /// The headers of each response with the document.
    headers: Arc<HeaderMap>,
}

/// A page of any origin may read the responses: they are public, and depend on no credentials.
const ANY_ORIGIN: (HeaderName, HeaderValue) = (
    header::ACCESS_CONTROL_ALLOW_ORIGIN,
    HeaderValue::from_static("*"),
);

impl ProtectedResourceMetadataService {
    pub(super) fn new(metadata: ProtectedResourceMetadata) -> Self {
        let headers = [
            ANY_ORIGIN,
            (
                header::CONTENT_TYPE,
                HeaderValue::from_static("application/json"),
            ),
            // The document may change: a client reads it again after a 401 (RFC 9728 §5.2).
            (
                header::CACHE_CONTROL,
                HeaderValue::from_static("public, max-age=300"),
            ),
            // Set here, because the response to HEAD has it without a body (RFC 9110 §8.6).
            (
                header::CONTENT_LENGTH,
                HeaderValue::from(metadata.document().len()),
            ),
        ];
        Self {
            metadata,
            headers: Arc::new(HeaderMap::from_iter(headers)),
        }
    }

    fn respond(&self, method: &Method, path_and_query: &str) -> Response<Full<Bytes>> {
        if path_and_query != self.metadata.path_and_query() {
            return response(StatusCode::NOT_FOUND, []);
        }
        match *method {
            Method::GET | Method::HEAD => {
                let body = match *method {
                    Method::HEAD => Bytes::new(),
                    _ => self.metadata.document().clone(),
                };
                let mut response = Response::new(Full::new(body));
                response.headers_mut().clone_from(&self.headers);
                response
            }
            Method::OPTIONS => {
                let headers = [
                    (header::ACCESS_CONTROL_ALLOW_METHODS, "GET"),
                    (header::ACCESS_CONTROL_ALLOW_HEADERS, "*"),
                ];
                response(StatusCode::NO_CONTENT, headers)
            }
            _ => {
                let headers = [(header::ALLOW, "GET, HEAD, OPTIONS")];
                response(StatusCode::METHOD_NOT_ALLOWED, headers)
            }
        }
    }
}

/// A response without a body.
fn response<const N: usize>(
    status: StatusCode,
    headers: [(HeaderName, &'static str); N],
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    let headers = headers.map(|(name, value)| (name, HeaderValue::from_static(value)));
    let headers = std::iter::once(ANY_ORIGIN).chain(headers);
    response.headers_mut().extend(headers);
    response
}

impl<B> Service<Request<B>> for ProtectedResourceMetadataService {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let target = request.uri().path_and_query();
        let target = target.map_or("", |target| target.as_str());
        ready(Ok(self.respond(request.method(), target)))
    }
}
