//! The HTTP transport for metadata, keys and tokens.
//!
//! The default is `ReqwestTransport` (feature `reqwest`). [`ServiceTransport`] adapts a tower
//! service, and [`Transport`] is the trait for any other client. Pass one to
//! [`ResourceServerBuilder::transport`][server] or [`TokenManagerBuilder::transport`][client].
//!
//! [server]: crate::resource_server::ResourceServerBuilder::transport
//! [client]: crate::client::TokenManagerBuilder::transport

use std::error::Error as StdError;
use std::fmt;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, header};

use crate::clock::UnixTime;
use crate::error::{BoxError, ConfigError, Error, ErrorKind, Operation};
use crate::oauth::Endpoint;

#[cfg(feature = "reqwest")]
mod reqwest;
mod service;

#[cfg(feature = "reqwest")]
#[cfg_attr(docsrs, doc(cfg(feature = "reqwest")))]
pub use self::reqwest::ReqwestTransport;
pub use self::service::ServiceTransport;

/// The future of [`Transport::send`].
pub type SendFuture<'a> =
    Pin<Box<dyn Future<Output = Result<Response<Bytes>, TransportError>> + Send + 'a>>;

/// Sends an HTTP request and returns the response.
///
/// An implementation must not follow redirects (it returns a 3xx response), must not store cookies,
/// and must stop reading at `max_body` bytes, counted after decompression. The caller applies the
/// time limit.
///
/// Requests for metadata and keys other than scheduled refreshes carry `Cache-Control: no-cache`
/// ([RFC 9111 §5.2.1.4](https://www.rfc-editor.org/rfc/rfc9111#section-5.2.1.4)); a caching
/// transport must forward these to the issuer.
///
/// The future is boxed because it runs once per refresh, never for each authenticated request.
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), tower_oauth::BoxError> {
/// # use tower_oauth::authorization_server::AuthorizationServer;
/// # use tower_oauth::resource_server::Algorithm;
/// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
/// # let shop = issuer.register("shop")?;
/// use bytes::Bytes;
/// use http::Request;
/// use tower_oauth::TokenManager;
/// use tower_oauth::transport::{SendFuture, Transport};
///
/// /// Adds a header to each request.
/// #[derive(Debug)]
/// struct Tagged<T>(T);
///
/// impl<T: Transport> Transport for Tagged<T> {
///     fn send(&self, mut request: Request<Bytes>, max_body: usize) -> SendFuture<'_> {
///         let id = http::HeaderValue::from_static("orders-1");
///         request.headers_mut().insert("x-request-source", id);
///         self.0.send(request, max_body)
///     }
/// }
///
/// let tokens = TokenManager::builder(issuer.token_endpoint(), shop.credentials())
///     .transport(Tagged(issuer.transport()))
///     .start()?;
/// assert!(tokens.access_token().await.is_ok());
/// # Ok(())
/// # }
/// ```
pub trait Transport: fmt::Debug + Send + Sync + 'static {
    /// Sends `request` and reads at most `max_body` bytes of the response body.
    ///
    /// # Errors
    ///
    /// If no complete response arrives, or it is too large.
    fn send(&self, request: Request<Bytes>, max_body: usize) -> SendFuture<'_>;
}

/// The error of a [`Transport`] that got no complete response.
///
/// ```
/// use tower_oauth::transport::TransportError;
///
/// let cause = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
/// let error = TransportError::connect(cause);
/// assert_eq!(error.to_string(), "the server could not be reached");
/// assert!(std::error::Error::source(&error).is_some());
/// assert_eq!(TransportError::too_large().to_string(), "the response is too large");
/// ```
#[derive(Debug)]
pub struct TransportError {
    kind: ErrorKind,
    source: Option<BoxError>,
}

impl TransportError {
    /// The server could not be reached, or the connection broke.
    pub fn connect(source: impl Into<BoxError>) -> Self {
        Self {
            kind: ErrorKind::Transport,
            source: Some(source.into()),
        }
    }

    /// The server's certificate is not trusted, has expired, or is for another name.
    ///
    /// A token request is not retried. The source is logged.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # let credentials = tower_oauth::ClientCredentials::new("shop", "s3cret");
    /// # use bytes::Bytes;
    /// # use http::{Request, Response};
    /// # use http_body_util::Full;
    /// use tower_oauth::error::ErrorKind;
    /// use tower_oauth::transport::{ServiceTransport, TransportError};
    /// use tower_oauth::{Endpoint, TokenManager};
    ///
    /// let transport = ServiceTransport::new(tower::service_fn(async |_: Request<Full<Bytes>>| {
    ///     Err::<Response<String>, _>(TransportError::certificate("the certificate has expired"))
    /// }));
    /// let tokens = TokenManager::builder(Endpoint::new("https://as.example/token")?, credentials)
    ///     .transport(transport)
    ///     .start()?;
    /// let error = tokens.access_token().await.unwrap_err(); // without a retry
    /// assert_eq!(error.kind(), ErrorKind::Certificate);
    /// # Ok(())
    /// # }
    /// ```
    pub fn certificate(source: impl Into<BoxError>) -> Self {
        Self {
            kind: ErrorKind::Certificate,
            source: Some(source.into()),
        }
    }

    /// The response did not arrive within the time limit.
    #[must_use]
    pub fn timeout() -> Self {
        Self {
            kind: ErrorKind::Timeout,
            source: None,
        }
    }

    /// The response exceeds the size limit.
    #[must_use]
    pub fn too_large() -> Self {
        Self {
            kind: ErrorKind::TooLarge,
            source: None,
        }
    }
}

impl fmt::Display for TransportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind.fmt(f)
    }
}

impl StdError for TransportError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match &self.source {
            Some(source) => Some(&**source),
            None => None,
        }
    }
}

/// The explicit transport, else the default of the enabled features.
pub(crate) fn default_transport(
    explicit: Option<Arc<dyn Transport>>,
) -> Result<Arc<dyn Transport>, ConfigError> {
    match explicit {
        Some(transport) => Ok(transport),
        #[cfg(feature = "reqwest")]
        None => Ok(Arc::new(ReqwestTransport::new()?)),
        #[cfg(not(feature = "reqwest"))]
        None => Err(ConfigError::missing(
            "transport",
            "must be set without the feature `reqwest`",
        )),
    }
}

/// The limits of one request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Whether plain `http` is allowed on loopback. It is never allowed elsewhere.
    pub(crate) allow_loopback_http: bool,
    /// Time from sending the request to reading the last byte of the response.
    pub(crate) total: Duration,
    /// Size of the response body in bytes.
    pub(crate) max_body: usize,
}

/// Sends one request within `limits`. Returns responses of any status.
///
/// All requests over the network pass here, so no use of a URL can forget that plain `http` is
/// restricted.
pub(crate) async fn send(
    transport: &dyn Transport,
    operation: Operation,
    request: Request<Bytes>,
    limits: Limits,
) -> Result<Response<Bytes>, Error> {
    let url = request.uri().to_string();
    Endpoint::new(&url)
        .and_then(|endpoint| endpoint.check_plain_http(limits.allow_loopback_http))
        .map_err(|error| {
            Error::new(operation, ErrorKind::Configuration)
                .with_url(&url)
                .with_source(error)
        })?;
    let mut request = Some(request);
    let mut future: Option<SendFuture<'_>> = None;
    // A transport may be user code: its panic is an error and must not end the task that refreshes
    // the keys.
    let response = poll_fn(|cx| {
        let polled = catch_unwind(AssertUnwindSafe(|| match (request.take(), &mut future) {
            (Some(request), future) => future
                .insert(transport.send(request, limits.max_body))
                .as_mut()
                .poll(cx),
            (None, Some(future)) => future.as_mut().poll(cx),
            (None, None) => Poll::Pending,
        }));
        polled.unwrap_or_else(|_panic| {
            Poll::Ready(Err(TransportError::connect("the transport panicked")))
        })
    });
    let response = match tokio::time::timeout(limits.total, response).await {
        Ok(response) => response,
        Err(_elapsed) => Err(TransportError::timeout()),
    };
    match response {
        Ok(response) if response.body().len() <= limits.max_body => Ok(response),
        Ok(response) if response.status().is_success() => {
            Err(too_large(operation, limits).with_url(&url))
        }
        // The status of an error response matters more than its body.
        Ok(response) => Ok(response.map(|_body| Bytes::new())),
        Err(TransportError { kind, source }) => {
            let error = match kind {
                ErrorKind::TooLarge => too_large(operation, limits),
                kind => Error::new(operation, kind),
            };
            let error = error.with_url(&url);
            Err(match source {
                Some(source) => error.with_source(source),
                None => error,
            })
        }
    }
}

fn too_large(operation: Operation, limits: Limits) -> Error {
    Error::new(operation, ErrorKind::TooLarge)
        .with_expected(format!("at most {} bytes", limits.max_body))
}

/// Fetches a JSON document with `GET`. Any status except 200 and 304 is an error.
pub(crate) async fn get_json(
    transport: &dyn Transport,
    operation: Operation,
    url: &Endpoint,
    headers: HeaderMap,
    now: UnixTime,
    limits: Limits,
) -> Result<Response<Bytes>, Error> {
    let unusable = |error| Error::new(operation, ErrorKind::Configuration).with_source(error);
    let mut request = Request::new(Bytes::new());
    *request.uri_mut() = url.to_uri().map_err(unusable)?;
    *request.headers_mut() = headers;
    request.headers_mut().insert(
        header::ACCEPT,
        http::HeaderValue::from_static("application/json"),
    );
    let response = send(transport, operation, request, limits).await?;
    match response.status() {
        StatusCode::OK | StatusCode::NOT_MODIFIED => Ok(response),
        status => Err(Error::new(operation, ErrorKind::Status(status))
            .with_url(url.as_str())
            .with_response(status, None, retry_after(response.headers(), now))),
    }
}

/// Parses `Retry-After`
/// ([RFC 9110 §10.2.3](https://www.rfc-editor.org/rfc/rfc9110#section-10.2.3)).
pub(crate) fn retry_after(headers: &HeaderMap, now: UnixTime) -> Option<Duration> {
    let value = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let at = httpdate::parse_http_date(value).ok()?;
    let at = at.duration_since(std::time::UNIX_EPOCH).ok()?.as_secs();
    Some(UnixTime::from_secs(at).saturating_since(now))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::error::ConfigErrorKind;

    #[tokio::test]
    async fn a_request_over_plain_http_is_sent_to_loopback_only_and_only_where_allowed() {
        #[derive(Debug, Default)]
        struct Counter(AtomicUsize);

        impl Transport for Counter {
            fn send(&self, _: Request<Bytes>, _: usize) -> SendFuture<'_> {
                self.0.fetch_add(1, Ordering::SeqCst);
                Box::pin(async { Ok(Response::default()) })
            }
        }

        for (url, allow_loopback_http, is_sent) in [
            ("https://as.example/token", false, true),
            ("http://127.0.0.1/token", true, true),
            ("http://127.0.0.1/token", false, false),
            ("http://as.example/token", true, false),
            ("http://localhost.example/token", true, false),
            ("https://169.254.169.254/token", true, false),
        ] {
            let transport = Counter::default();
            let limits = Limits {
                allow_loopback_http,
                total: Duration::from_secs(1),
                max_body: 1,
            };
            let request = Request::get(url).body(Bytes::new()).unwrap();
            let result = send(&transport, Operation::TokenRequest, request, limits).await;
            assert_eq!(result.is_ok(), is_sent, "{url}");
            assert_eq!(transport.0.into_inner(), usize::from(is_sent), "{url}");
            if let Err(error) = result {
                assert_eq!(error.kind(), ErrorKind::Configuration);
                let source = StdError::source(&error).unwrap();
                let kind = source.downcast_ref::<ConfigError>().map(ConfigError::kind);
                let is_http = url.starts_with("http://");
                assert_eq!(kind == Some(ConfigErrorKind::PlainHttp), is_http, "{url}");
            }
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = UnixTime::from_secs(1_700_000_000); // Tue, 14 Nov 2023 22:13:20 GMT
        let wait = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::RETRY_AFTER, value.parse().unwrap());
            retry_after(&headers, now).map(|wait| wait.as_secs())
        };
        assert_eq!(wait("7"), Some(7));
        assert_eq!(wait("Tue, 14 Nov 2023 22:13:50 GMT"), Some(30));
        assert_eq!(wait("Tue, 14 Nov 2023 22:13:00 GMT"), Some(0));
        assert_eq!(wait("soon"), None);
        assert_eq!(wait("-1"), None);
    }
}
