//! Responses to rejected requests (RFC 6750 §3; gRPC status codes).

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Response, StatusCode, header};

use super::{Rejection, RejectionKind};
use crate::error::ConfigError;
use crate::metrics::{Counter, REQUESTS};
use crate::oauth::Scope;

/// The realm of challenges unless another is configured.
pub(super) const DEFAULT_REALM: &str = "resource";

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
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
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

/// The rejections of a resource server: built once, and counted.
#[derive(Debug)]
pub(super) struct Responses {
    /// The start of every challenge, with the realm.
    scheme: String,
    /// The `resource_metadata` parameter with a leading comma, or empty.
    metadata: String,
    /// Headers and counter of each [`RejectionKind`].
    by_kind: Vec<(RejectionKind, Arc<HeaderMap>, Counter)>,
}

impl Responses {
    /// `resource_metadata` is the URL of RFC 9728 §5.1.
    pub(super) fn new(realm: &str, resource_metadata: Option<&str>) -> Result<Self, ConfigError> {
        let scheme = format!("Bearer realm={}", quoted("realm", realm)?);
        let metadata = match resource_metadata {
            Some(url) => format!(", resource_metadata={}", quoted("resource_metadata", url)?),
            None => String::new(),
        };
        let mut responses = Self {
            scheme,
            metadata,
            by_kind: Vec::new(),
        };
        for kind in RejectionKind::ALL {
            let counter = Counter::new(REQUESTS, ("result", kind.as_str()));
            let headers = responses.headers(*kind, "");
            responses.by_kind.push((*kind, headers, counter));
        }
        Ok(responses)
    }

    /// Builds the headers of a rejection: a challenge (RFC 6750 §3) or `Retry-After` (RFC 9110
    /// §10.2.3). `scope` is the parameter of the challenge with a leading comma, or empty.
    fn headers(&self, kind: RejectionKind, scope: &str) -> Arc<HeaderMap> {
        let mut headers = no_store();
        if let Some(wait) = kind.retry_after() {
            headers.insert(header::RETRY_AFTER, wait.as_secs().into());
        } else if !kind.status().is_server_error() {
            let (scheme, metadata) = (&self.scheme, &self.metadata);
            let error = kind.error().map_or_else(String::new, |error| {
                let description = kind.description();
                format!(r#", error="{error}", error_description="{description}""#)
            });
            let challenge = HeaderValue::try_from(format!("{scheme}{error}{scope}{metadata}"));
            // Each part has been checked before, so the fallback is unreachable.
            let challenge = challenge.unwrap_or(HeaderValue::from_static("Bearer"));
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        Arc::new(headers)
    }

    /// Rejects a request.
    pub(super) fn reject(&self, kind: RejectionKind, grpc: bool) -> Rejection {
        let response = self.by_kind.iter().find(|(own, ..)| *own == kind);
        let headers = response.map(|(_, headers, counter)| {
            counter.increment();
            Arc::clone(headers)
        });
        Rejection {
            kind,
            headers: headers.unwrap_or_default(),
            required_scopes: None,
            grpc,
        }
    }

    /// Rejects a request whose token lacks one of `scopes`.
    pub(super) fn insufficient_scope(&self, scopes: &Arc<[Scope]>, grpc: bool) -> Rejection {
        let list: Vec<_> = scopes.iter().map(Scope::as_str).collect();
        let scope = format!(r#", scope="{}""#, list.join(" "));
        let kind = RejectionKind::InsufficientScope;
        Rejection {
            headers: self.headers(kind, &scope),
            required_scopes: Some(Arc::clone(scopes)),
            ..self.reject(kind, grpc)
        }
    }
}

/// The headers of every rejection.
pub(super) fn no_store() -> HeaderMap {
    let no_store = (header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    HeaderMap::from_iter([no_store])
}

/// Formats a quoted-string; fails if the content needs escapes.
fn quoted(setting: &str, content: &str) -> Result<String, ConfigError> {
    // RFC 6750 §3: %x20-21 / %x23-5B / %x5D-7E.
    if content.is_empty()
        || !content
            .bytes()
            .all(|byte| matches!(byte, 0x20 | 0x21 | 0x23..=0x5b | 0x5d..=0x7e))
    {
        return Err(ConfigError::new(
            setting,
            content,
            "must be printable ASCII without quotes and backslashes",
        ));
    }
    Ok(format!("\"{content}\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    const INVALID_REQUEST: &str = ", error=\"invalid_request\", \
        error_description=\"The Authorization field is malformed or repeated\"";
    const INSUFFICIENT_SCOPE: &str = ", error=\"insufficient_scope\", \
        error_description=\"The access token lacks a required scope\"";
    const INVALID_TOKEN: &str = ", error=\"invalid_token\", \
        error_description=\"The access token is invalid\"";

    fn response(kind: RejectionKind, grpc: bool) -> Response<()> {
        let responses =
            Responses::new(DEFAULT_REALM, Some("https://api.example/metadata")).unwrap();
        DefaultRejectionResponse.response(&responses.reject(kind, grpc))
    }

    /// RFC 6750 §3, RFC 9728 §5.1, RFC 9110 §10.2.3.
    #[test]
    fn each_kind_of_rejection_has_exactly_its_headers() {
        for kind in RejectionKind::ALL.iter().copied() {
            for grpc in [false, true] {
                let response = response(kind, grpc);
                let field = |name| {
                    response
                        .headers()
                        .get(name)
                        .map(|value| value.to_str().unwrap())
                };
                let (error, wait) = match kind {
                    RejectionKind::Overloaded => (None, Some("1")),
                    RejectionKind::KeysUnavailable => (None, Some("5")),
                    RejectionKind::LayerMissing => (None, None),
                    RejectionKind::MissingToken => (Some(""), None),
                    RejectionKind::InsufficientScope => (Some(INSUFFICIENT_SCOPE), None),
                    RejectionKind::InvalidRequest => (Some(INVALID_REQUEST), None),
                    _ => (Some(INVALID_TOKEN), None),
                };
                let challenge = error.map(|error| {
                    let metadata = r#"resource_metadata="https://api.example/metadata""#;
                    format!(r#"Bearer realm="resource"{error}, {metadata}"#)
                });
                assert_eq!(field("www-authenticate"), challenge.as_deref(), "{kind}");
                assert_eq!(field("retry-after"), wait, "{kind}");
                assert_eq!(field("cache-control"), Some("no-store"), "{kind}");
                let code = match kind.status() {
                    StatusCode::FORBIDDEN => "7",
                    StatusCode::INTERNAL_SERVER_ERROR => "13",
                    StatusCode::SERVICE_UNAVAILABLE => "14",
                    _ => "16",
                };
                assert_eq!(field("grpc-status"), grpc.then_some(code), "{kind}");
                assert_eq!(
                    field("content-type"),
                    grpc.then_some("application/grpc"),
                    "{kind}"
                );
                assert_eq!(
                    response.status(),
                    if grpc { StatusCode::OK } else { kind.status() },
                    "{kind}"
                );
                let fields = 1
                    + usize::from(challenge.is_some() || wait.is_some())
                    + if grpc { 3 } else { 0 };
                assert_eq!(response.headers().len(), fields, "{kind}");
            }
        }
    }
}
