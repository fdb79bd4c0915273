//! How metadata, keys and tokens are fetched: one request, one bounded answer.

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

#[cfg(feature = "reqwest")]
mod reqwest;

#[cfg(feature = "reqwest")]
#[cfg_attr(docsrs, doc(cfg(feature = "reqwest")))]
pub use self::reqwest::ReqwestTransport;

/// The future of [`Transport::send`].
pub type SendFuture<'a> =
    Pin<Box<dyn Future<Output = Result<Response<Bytes>, TransportError>> + Send + 'a>>;

/// Sends one request and returns its answer.
///
/// An implementation follows no redirect (a 3xx answer is returned as it is), keeps no
/// cookies, and stops reading at `max_body` bytes, counted as they come and after
/// decompression. The time limit is applied by the caller.
///
/// A request for metadata or keys that is not the timer's has `Cache-Control: no-cache`
/// ([RFC 9111 §5.2.1.4](https://www.rfc-editor.org/rfc/rfc9111#section-5.2.1.4)): one that keeps
/// answers has to ask the issuer for it.
///
/// It runs once per refresh, never on the path of a request, so it is boxed.
pub trait Transport: fmt::Debug + Send + Sync + 'static {
    /// Sends `request`; the answer's body is at most `max_body` bytes.
    ///
    /// # Errors
    ///
    /// If no whole answer came, or one that is too large.
    fn send(&self, request: Request<Bytes>, max_body: usize) -> SendFuture<'_>;
}

/// Why no answer came.
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

    /// The server's certificate is not valid: not trusted, expired, or for another name. A token
    /// request is not tried again after it. The source says what is wrong, and stands in the
    /// log.
    pub fn certificate(source: impl Into<BoxError>) -> Self {
        Self {
            kind: ErrorKind::Certificate,
            source: Some(source.into()),
        }
    }

    /// The answer did not come in time.
    #[must_use]
    pub fn timeout() -> Self {
        Self {
            kind: ErrorKind::Timeout,
            source: None,
        }
    }

    /// The answer is larger than the limit.
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

/// The transport that was given, else the one that the features bring.
pub(crate) fn default_transport(
    given: Option<Arc<dyn Transport>>,
) -> Result<Arc<dyn Transport>, ConfigError> {
    match given {
        Some(transport) => Ok(transport),
        #[cfg(feature = "reqwest")]
        None => Ok(Arc::new(ReqwestTransport::new()?)),
        #[cfg(not(feature = "reqwest"))]
        None => Err(ConfigError::without_value(
            "transport",
            "is needed without the feature `reqwest`",
        )),
    }
}

/// What one exchange may cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// From the first byte sent to the last one read.
    pub(crate) total: Duration,
    /// Bytes of the answer's body.
    pub(crate) max_body: usize,
}

/// Sends one request within `limits`; answers of any status are returned.
pub(crate) async fn send(
    transport: &dyn Transport,
    operation: Operation,
    request: Request<Bytes>,
    limits: Limits,
) -> Result<Response<Bytes>, Error> {
    let url = request.uri().to_string();
    let mut request = Some(request);
    let mut sending: Option<SendFuture<'_>> = None;
    // A transport is the program's own code: if it panics, that is one more way to fail, and not
    // the end of the task that keeps the keys.
    let answer = poll_fn(|cx| {
        let polled = catch_unwind(AssertUnwindSafe(|| match (request.take(), &mut sending) {
            (Some(request), sending) => sending
                .insert(transport.send(request, limits.max_body))
                .as_mut()
                .poll(cx),
            (None, Some(sending)) => sending.as_mut().poll(cx),
            (None, None) => Poll::Pending,
        }));
        polled.unwrap_or_else(|_panic| {
            Poll::Ready(Err(TransportError::connect("the transport panicked")))
        })
    });
    let answer = match tokio::time::timeout(limits.total, answer).await {
        Ok(answer) => answer,
        Err(_elapsed) => Err(TransportError::timeout()),
    };
    match answer {
        Ok(answer) if answer.body().len() <= limits.max_body => Ok(answer),
        Ok(answer) if answer.status().is_success() => {
            Err(Error::new(operation, ErrorKind::TooLarge).with_url(&url))
        }
        // Of an error the status is what counts.
        Ok(answer) => Ok(answer.map(|_page| Bytes::new())),
        Err(TransportError { kind, source }) => {
            let error = Error::new(operation, kind).with_url(&url);
            Err(match source {
                Some(source) => error.with_source(source),
                None => error,
            })
        }
    }
}

/// `GET`s a JSON document; any status but 200 and 304 is an error.
pub(crate) async fn get_json(
    transport: &dyn Transport,
    operation: Operation,
    url: &crate::oauth::Endpoint,
    conditions: HeaderMap,
    now: UnixTime,
    limits: Limits,
) -> Result<Response<Bytes>, Error> {
    let unusable = |error| Error::new(operation, ErrorKind::Configuration).with_source(error);
    let mut request = Request::new(Bytes::new());
    *request.uri_mut() = url.to_uri().map_err(unusable)?;
    *request.headers_mut() = conditions;
    request.headers_mut().insert(
        header::ACCEPT,
        http::HeaderValue::from_static("application/json"),
    );
    let answer = send(transport, operation, request, limits).await?;
    match answer.status() {
        StatusCode::OK | StatusCode::NOT_MODIFIED => Ok(answer),
        status => Err(Error::new(operation, ErrorKind::Status(status))
            .with_url(url.as_str())
            .with_response(status, None, retry_after(answer.headers(), now))),
    }
}

/// `Retry-After` as a time to wait ([RFC 9110 §10.2.3](https://www.rfc-editor.org/rfc/rfc9110#section-10.2.3)).
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
