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
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, header};

use crate::clock::UnixTime;
use crate::error::{BoxError, ConfigError, ErrorKind};

#[cfg(feature = "reqwest")]
mod client_certificate;
mod diagnosis;
mod http_client;
#[cfg(feature = "reqwest")]
mod reqwest;
mod service;

pub(crate) use self::diagnosis::{describe_document, media_type, redirect_target, within};
pub(crate) use self::http_client::{HttpClient, HttpSettings, Limits};

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
/// The requests of a resource server for metadata and keys, other than scheduled refreshes, carry
/// `Cache-Control: no-cache` ([RFC 9111 §5.2.1.4][no-cache]); a caching transport must forward
/// these to the issuer. A client's requests for metadata carry none: a caching transport must
/// revalidate them.
///
/// [no-cache]: https://www.rfc-editor.org/rfc/rfc9111#section-5.2.1.4
///
/// The request has a `User-Agent`. It is sent to plain `http` only where the settings allow it.
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
    /// What the error most likely means.
    detail: Option<String>,
    source: Option<BoxError>,
}

impl TransportError {
    /// The server could not be reached, or the connection broke.
    pub fn connect(source: impl Into<BoxError>) -> Self {
        Self {
            kind: ErrorKind::Transport,
            detail: None,
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
            detail: None,
            source: Some(source.into()),
        }
    }

    /// The response did not arrive within the time limit.
    #[must_use]
    pub fn timeout() -> Self {
        Self {
            kind: ErrorKind::Timeout,
            detail: None,
            source: None,
        }
    }

    /// The response exceeds the size limit.
    #[must_use]
    pub fn too_large() -> Self {
        Self {
            kind: ErrorKind::TooLarge,
            detail: None,
            source: None,
        }
    }

    /// Adds what the error most likely means. It must not contain a secret.
    #[cfg(feature = "reqwest")]
    fn with_detail(self, detail: Option<String>) -> Self {
        Self { detail, ..self }
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
    use super::*;

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
