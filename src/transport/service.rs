//! A transport on any HTTP client that is a tower service.

use std::any::type_name;
use std::fmt;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use tower_service::Service;

use super::{SendFuture, Transport, TransportError};
use crate::error::BoxError;

/// A [`Transport`] on a tower service, such as the client of hyper-util or a stack of layers.
///
/// Each request uses a clone of the service, which is awaited until it is ready. Reading of the
/// response stops at the size limit.
///
/// The service is responsible for what other transports of this crate do:
///
/// - It **must not follow redirects**: one could send a fetch of keys, or client credentials, to
///   any server. A 3xx response is returned as it is.
/// - It must not store cookies.
/// - It resolves names. It must reject names that resolve to link-local or cloud metadata
///   addresses; this crate rejects only URLs with such addresses.
/// - If it decompresses, it should do so while the body is read, so that the size limit applies to
///   the decompressed bytes.
/// - It verifies certificates.
///
/// The limits on plain `http` and the `User-Agent` are those of the builder, as for any transport.
///
/// An error of the service is a connection error, which is retried, unless it is a
/// [`TransportError`]: return [`TransportError::certificate`] for an invalid certificate, so that a
/// token request is not retried.
///
/// # Examples
///
/// With the client of hyper-util, here without TLS:
///
/// ```
/// use bytes::Bytes;
/// use http_body_util::Full;
/// use hyper_util::{client::legacy::Client, rt::TokioExecutor};
/// use tower_oauth::transport::ServiceTransport;
/// use tower_oauth::{ClientCredentials, Endpoint, TokenManager};
///
/// let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
/// let endpoint = Endpoint::new("http://localhost:6002/token")?;
/// let credentials = ClientCredentials::new("orders", "s3cret");
/// let (tokens, renewer) = TokenManager::builder(endpoint, credentials)
///     .transport(ServiceTransport::new(client))
///     .allow_loopback_http()
///     .build()?;
/// # let _ = (tokens, renewer);
/// # Ok::<(), tower_oauth::ConfigError>(())
/// ```
///
/// With any function:
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), tower_oauth::BoxError> {
/// use std::convert::Infallible;
/// use bytes::Bytes;
/// use http::{Request, Response};
/// use http_body_util::Full;
/// use tower_oauth::transport::{ServiceTransport, Transport as _};
///
/// let transport = ServiceTransport::new(tower::service_fn(
///     async |request: Request<Full<Bytes>>| {
///         Ok::<_, Infallible>(Response::new(request.uri().path().to_owned()))
///     },
/// ));
/// let request = Request::get("https://as.example/keys").body(Bytes::new())?;
/// let response = transport.send(request, 1024).await?;
/// assert_eq!(response.body(), "/keys");
/// # Ok(())
/// # }
/// ```
// The mutex makes a service that is not `Sync`, such as a boxed one, shareable. It is locked while
// the service is cloned.
pub struct ServiceTransport<S>(Mutex<S>);

impl<S> ServiceTransport<S> {
    /// Adapts `service`.
    pub fn new(service: S) -> Self {
        Self(Mutex::new(service))
    }
}

impl<S, B> Transport for ServiceTransport<S>
where
    S: Service<Request<Full<Bytes>>, Response = Response<B>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    B: Body<Data: Send, Error: Into<BoxError>> + Send,
{
    fn send(&self, request: Request<Bytes>, max_body: usize) -> SendFuture<'_> {
        let mut service = self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        Box::pin(async move {
            poll_fn(|cx| service.poll_ready(cx))
                .await
                .map_err(convert)?;
            let response = service
                .call(request.map(Full::new))
                .await
                .map_err(convert)?;
            let (head, body) = response.into_parts();
            let body = match pin!(Limited::new(body, max_body)).collect().await {
                Ok(body) => body.to_bytes(),
                // For an error response, status and `Retry-After` matter more than the body.
                Err(_) if !head.status.is_success() => Bytes::new(),
                Err(error) if error.is::<LengthLimitError>() => {
                    return Err(TransportError::too_large());
                }
                Err(error) => return Err(convert(error)),
            };
            Ok(Response::from_parts(head, body))
        })
    }
}

impl<S> fmt::Debug for ServiceTransport<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ServiceTransport")
            .field(&type_name::<S>())
            .finish()
    }
}

/// Keeps a [`TransportError`]; any other error is a connection error.
fn convert(error: impl Into<BoxError>) -> TransportError {
    match error.into().downcast::<TransportError>() {
        Ok(error) => *error,
        Err(error) => TransportError::connect(error),
    }
}
