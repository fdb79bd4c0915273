//! Sends the requests of this crate: one place for their limits, their `User-Agent`, and where
//! plain `http` is allowed.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};

use super::diagnosis::{describe_connection, describe_error_page, describe_redirect, within};
use super::{SendFuture, Transport, TransportError, retry_after};
use crate::clock::UnixTime;
use crate::error::{ConfigError, Error, ErrorKind, Operation};
use crate::oauth::{Endpoint, PlainHttp};

/// The default `User-Agent`.
const USER_AGENT: &str = concat!("tower-oauth/", env!("CARGO_PKG_VERSION"));

/// The settings of a builder for the requests that it leads to. Not checked yet.
#[derive(Clone, Debug, Default)]
pub(crate) struct HttpSettings {
    pub(crate) allow_loopback_http: bool,
    allowed_hosts: Vec<String>,
    user_agent: Option<String>,
}

impl HttpSettings {
    /// Allows plain `http` to these hosts.
    pub(crate) fn allow_http(&mut self, hosts: impl IntoIterator<Item = impl Into<String>>) {
        self.allowed_hosts.extend(hosts.into_iter().map(Into::into));
    }

    /// Replaces the default `User-Agent`.
    pub(crate) fn set_user_agent(&mut self, user_agent: impl Into<String>) {
        self.user_agent = Some(user_agent.into());
    }

    /// Where plain `http` is allowed.
    pub(crate) fn plain_http(&self) -> Result<PlainHttp, ConfigError> {
        PlainHttp::new(self.allow_loopback_http, &self.allowed_hosts)
    }

    /// A client with these settings on this transport.
    pub(crate) fn client(&self, transport: Arc<dyn Transport>) -> Result<HttpClient, ConfigError> {
        Ok(HttpClient {
            transport,
            plain_http: self.plain_http()?,
            user_agent: self.user_agent()?,
        })
    }

    fn user_agent(&self) -> Result<HeaderValue, ConfigError> {
        let Some(text) = &self.user_agent else {
            return Ok(HeaderValue::from_static(USER_AGENT));
        };
        if text.trim().is_empty() {
            return Err(ConfigError::missing("user_agent", "must not be empty"));
        }
        let value = HeaderValue::from_str(text).ok();
        value
            .filter(|value| {
                value
                    .as_bytes()
                    .iter()
                    .all(|byte| matches!(byte, b' '..=b'~'))
            })
            .ok_or_else(|| ConfigError::without_value("user_agent", "must be printable ASCII"))
    }
}

/// The limits of one request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Time from sending the request to reading the last byte of the response.
    pub(crate) total: Duration,
    /// Size of the response body in bytes.
    pub(crate) max_body: usize,
}

/// A transport, and the settings of every request that is sent with it.
#[derive(Clone, Debug)]
pub(crate) struct HttpClient {
    transport: Arc<dyn Transport>,
    plain_http: PlainHttp,
    user_agent: HeaderValue,
}

impl HttpClient {
    /// Where plain `http` is allowed.
    pub(crate) fn plain_http(&self) -> &PlainHttp {
        &self.plain_http
    }

    /// Sends one request within `limits`. Returns responses of any status.
    ///
    /// All requests over the network pass here, so no use of a URL can forget that plain `http` is
    /// restricted.
    pub(crate) async fn send(
        &self,
        operation: Operation,
        mut request: Request<Bytes>,
        limits: Limits,
    ) -> Result<Response<Bytes>, Error> {
        let url = request.uri().to_string();
        let endpoint = Endpoint::new(&url)
            .and_then(|endpoint| self.plain_http.check(&endpoint).map(|()| endpoint))
            .map_err(|error| {
                Error::new(operation, ErrorKind::Configuration)
                    .with_url(&url)
                    .with_source(error)
            })?;
        let user_agent = request.headers_mut().entry(header::USER_AGENT);
        user_agent.or_insert_with(|| self.user_agent.clone());
        match self.send_to_transport(request, limits).await {
            Ok(response) if response.body().len() <= limits.max_body => Ok(response),
            Ok(response) if response.status().is_success() => {
                Err(too_large(operation, limits).with_url(&url))
            }
            // The status of an error response matters more than its body.
            Ok(response) => Ok(response.map(|_body| Bytes::new())),
            Err(failure) => Err(error_of(failure, operation, &endpoint, limits).with_url(&url)),
        }
    }

    async fn send_to_transport(
        &self,
        request: Request<Bytes>,
        limits: Limits,
    ) -> Result<Response<Bytes>, TransportError> {
        let mut request = Some(request);
        let mut future: Option<SendFuture<'_>> = None;
        // A transport may be user code: its panic is an error and must not end the task that
        // refreshes the keys.
        let response = poll_fn(|cx| {
            let polled = catch_unwind(AssertUnwindSafe(|| match (request.take(), &mut future) {
                (Some(request), future) => future
                    .insert(self.transport.send(request, limits.max_body))
                    .as_mut()
                    .poll(cx),
                (None, Some(future)) => future.as_mut().poll(cx),
                (None, None) => Poll::Pending,
            }));
            polled.unwrap_or_else(|_panic| {
                Poll::Ready(Err(TransportError::connect("the transport panicked")))
            })
        });
        tokio::time::timeout(limits.total, response)
            .await
            .unwrap_or_else(|_elapsed| Err(TransportError::timeout()))
    }

    /// Fetches a JSON document with `GET`. Any status except 2xx and 304 is an error.
    pub(crate) async fn get_json(
        &self,
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
        request
            .headers_mut()
            .insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        let response = self.send(operation, request, limits).await?;
        match response.status() {
            status if status.is_success() || status == StatusCode::NOT_MODIFIED => Ok(response),
            status => {
                let error = Error::new(operation, ErrorKind::Status(status))
                    .with_url(url.as_str())
                    .with_response(status, None, retry_after(response.headers(), now));
                let detail = describe_redirect(operation, url, &response);
                Err(
                    match detail.or_else(|| describe_error_page(url, &response)) {
                        Some(detail) => error.with_detail(detail),
                        None => error,
                    },
                )
            }
        }
    }
}

/// The error of a request without a complete response.
fn error_of(
    failure: TransportError,
    operation: Operation,
    url: &Endpoint,
    limits: Limits,
) -> Error {
    let TransportError {
        kind,
        detail,
        source,
    } = failure;
    let error = match kind {
        ErrorKind::TooLarge => too_large(operation, limits),
        ErrorKind::Timeout if detail.is_none() => {
            Error::new(operation, kind).with_expected(within(limits.total))
        }
        kind => Error::new(operation, kind),
    };
    let cause = || describe_connection(url, &**source.as_ref()?);
    let error = match detail.or_else(cause) {
        Some(detail) => error.with_detail(detail),
        None => error,
    };
    match source {
        Some(source) => error.with_source(source),
        None => error,
    }
}

fn too_large(operation: Operation, limits: Limits) -> Error {
    Error::new(operation, ErrorKind::TooLarge)
        .with_expected(format!("at most {} bytes", limits.max_body))
}

#[cfg(test)]
mod tests {
    use std::error::Error as StdError;
    use std::sync::Mutex;

    use super::*;
    use crate::error::ConfigErrorKind;

    /// Records the `User-Agent` of each request.
    #[derive(Debug, Default)]
    struct Recorder(Mutex<Vec<String>>);

    impl Transport for Recorder {
        fn send(&self, request: Request<Bytes>, _: usize) -> SendFuture<'_> {
            let user_agent = request.headers()[header::USER_AGENT].to_str().unwrap();
            self.0.lock().unwrap().push(user_agent.to_owned());
            Box::pin(async { Ok(Response::default()) })
        }
    }

    const LIMITS: Limits = Limits {
        total: Duration::from_secs(1),
        max_body: 1,
    };

    async fn send(
        settings: &HttpSettings,
        request: Request<Bytes>,
    ) -> (Option<Error>, Vec<String>) {
        let recorder = Arc::new(Recorder::default());
        let transport: Arc<dyn Transport> = recorder.clone();
        let client = settings.client(transport).unwrap();
        let result = client.send(Operation::TokenRequest, request, LIMITS).await;
        let sent = recorder.0.lock().unwrap().clone();
        (result.err(), sent)
    }

    fn get(url: &str) -> Request<Bytes> {
        Request::get(url).body(Bytes::new()).unwrap()
    }

    #[tokio::test]
    async fn a_request_over_plain_http_is_sent_only_where_it_is_allowed() {
        for (url, allow_loopback_http, is_sent) in [
            ("https://as.example/token", false, true),
            ("http://127.0.0.1/token", true, true),
            ("http://127.0.0.1/token", false, false),
            ("http://as.example/token", true, false),
            ("http://localhost.example/token", true, false),
            ("http://Keycloak.sso.svc:8080/token", false, true),
            ("http://other.sso.svc/token", true, false),
            ("https://169.254.169.254/token", true, false),
            ("http://169.254.169.254/token", true, false),
        ] {
            let mut settings = HttpSettings {
                allow_loopback_http,
                ..HttpSettings::default()
            };
            settings.allow_http(["keycloak.sso.svc"]);
            let (error, sent) = send(&settings, get(url)).await;
            assert_eq!(error.is_none(), is_sent, "{url}");
            assert_eq!(sent.len(), usize::from(is_sent), "{url}");
            if let Some(error) = error {
                assert_eq!(error.kind(), ErrorKind::Configuration);
                let source = error.source().unwrap();
                let kind = source.downcast_ref::<ConfigError>().map(ConfigError::kind);
                let is_http = url.starts_with("http://") && !url.contains("169.254");
                assert_eq!(kind == Some(ConfigErrorKind::PlainHttp), is_http, "{url}");
            }
        }
    }

    #[tokio::test]
    async fn the_user_agent_is_that_of_the_settings_unless_the_request_has_one() {
        let mut settings = HttpSettings::default();
        let (_, sent) = send(&settings, get("https://as.example/")).await;
        assert_eq!(sent, [concat!("tower-oauth/", env!("CARGO_PKG_VERSION"))]);
        settings.set_user_agent("orders/1.2 tower-oauth");
        let (_, sent) = send(&settings, get("https://as.example/")).await;
        assert_eq!(sent, ["orders/1.2 tower-oauth"]);
        let mut request = get("https://as.example/");
        let own = HeaderValue::from_static("own");
        request.headers_mut().insert(header::USER_AGENT, own);
        let (_, sent) = send(&settings, request).await;
        assert_eq!(sent, ["own"]);
    }

    #[test]
    fn a_user_agent_is_a_header_value() {
        for (bad, reason) in [
            ("", "empty"),
            (" ", "empty"),
            ("a\r\nAuthorization: b", "printable ASCII"),
            ("a\0", "printable ASCII"),
            ("é", "printable ASCII"),
        ] {
            let mut settings = HttpSettings::default();
            settings.set_user_agent(bad);
            let error = settings.client(Arc::new(Recorder::default())).unwrap_err();
            assert_eq!(error.setting(), "user_agent");
            assert!(error.to_string().contains(reason), "{bad:?}: {error}");
        }
    }
}
