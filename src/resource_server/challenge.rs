//! Responses to rejected requests (RFC 6750 §3; gRPC status codes).

use std::sync::Arc;

use http::header::{self, Entry};
use http::{HeaderMap, HeaderValue, Response, StatusCode};

use super::rejection::Refusal;
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

/// Builds the response to a rejected request, with the rejection as an extension.
pub(super) fn rejection_response<B, R: RejectionResponse<B>>(
    on_rejection: &R,
    rejection: Rejection,
) -> Response<B> {
    let mut response = on_rejection.response(&rejection);
    response.extensions_mut().insert(rejection);
    response
}

/// The rejections of a resource server, built once, and the counts of its requests.
#[derive(Debug)]
pub(super) struct Responses {
    parameters: ChallengeParameters,
    granted: Counter,
    anonymous: Counter,
    cancelled: Counter,
    /// Headers and counter of each [`RejectionKind`].
    by_kind: Vec<(RejectionKind, Arc<HeaderMap>, Counter)>,
}

/// The parameters that each challenge of a resource server has; empty for a rejection that no
/// resource server has completed.
#[derive(Debug, Default)]
struct ChallengeParameters {
    /// `realm="…"`
    realm: Option<String>,
    /// `resource_metadata="…"`
    resource_metadata: Option<String>,
}

impl Responses {
    /// `resource_metadata` is the URL of RFC 9728 §5.1.
    pub(super) fn new(realm: &str, resource_metadata: Option<&str>) -> Result<Self, ConfigError> {
        let realm = quoted("realm", realm)?;
        let metadata = resource_metadata.map(|url| quoted("resource_metadata", url));
        let parameters = ChallengeParameters {
            realm: Some(format!("realm={realm}")),
            resource_metadata: metadata
                .transpose()?
                .map(|url| format!("resource_metadata={url}")),
        };
        let counter = |result| Counter::new(REQUESTS, ("result", result));
        let of_kind = |kind: &RejectionKind| {
            let headers = parameters.headers(*kind, &[]);
            (*kind, headers, counter(kind.as_str()))
        };
        Ok(Self {
            by_kind: RejectionKind::ALL.iter().map(of_kind).collect(),
            parameters,
            granted: counter("granted"),
            anonymous: counter("anonymous"),
            cancelled: counter("cancelled"),
        })
    }

    /// Rejects a request. The caller counts it.
    pub(super) fn reject(&self, refusal: Refusal, grpc: bool) -> Rejection {
        let Refusal {
            kind,
            required_scopes,
        } = refusal;
        let own = self.by_kind.iter().find(|(own, ..)| *own == kind);
        let headers = match (&required_scopes, own) {
            (None, Some((_, headers, _))) => Arc::clone(headers),
            (scopes, _) => {
                let scopes = scopes.as_deref().unwrap_or_default();
                self.parameters.headers(kind, scopes)
            }
        };
        Rejection {
            kind,
            headers,
            required_scopes,
            grpc,
            is_complete: true,
        }
    }

    /// Adds the parameters of this server to the challenge of a rejection that has none.
    ///
    /// A response that the program built without this challenge gets none.
    pub(super) fn complete<B>(&self, rejection: &Rejection, response: &mut Response<B>) {
        let Some(incomplete) = rejection
            .www_authenticate()
            .filter(|_| !rejection.is_complete)
        else {
            return;
        };
        let refusal = Refusal {
            kind: rejection.kind,
            required_scopes: rejection.required_scopes.clone(),
        };
        let complete = self.reject(refusal, rejection.grpc);
        let headers = response.headers_mut();
        if let Entry::Occupied(mut challenges) = headers.entry(header::WWW_AUTHENTICATE)
            && let Some(challenge) = complete.www_authenticate()
        {
            let same = challenges.iter_mut().filter(|own| *own == incomplete);
            same.for_each(|own| own.clone_from(challenge));
        }
        response.extensions_mut().insert(complete);
    }

    /// Counts a rejected request.
    pub(super) fn count_rejected(&self, rejection: &Rejection) {
        // No server is around the layer that is missing one: it is counted there.
        if rejection.kind == RejectionKind::LayerMissing {
            return;
        }
        crate::trace::debug!(
            target: "tower_oauth::resource_server",
            reason = rejection.kind.as_str(),
            "request rejected"
        );
        let own = self.by_kind.iter().find(|(own, ..)| *own == rejection.kind);
        if let Some((_, _, counter)) = own {
            counter.increment();
        }
    }

    /// Counts a request that reached the service.
    pub(super) fn count_passed(&self, is_anonymous: bool) {
        if is_anonymous {
            self.anonymous.increment();
        } else {
            self.granted.increment();
        }
    }

    /// Counts a request that was dropped before its response existed.
    pub(super) fn count_cancelled(&self) {
        self.cancelled.increment();
    }
}

impl ChallengeParameters {
    /// Builds the headers of a rejection: a challenge (RFC 6750 §3) or `Retry-After` (RFC 9110
    /// §10.2.3).
    fn headers(&self, kind: RejectionKind, scopes: &[Scope]) -> Arc<HeaderMap> {
        let mut headers = no_store();
        if let Some(wait) = kind.retry_after() {
            headers.insert(header::RETRY_AFTER, wait.as_secs().into());
        } else if !kind.status().is_server_error() {
            let error = kind.error().map(|error| {
                let description = kind.description();
                format!(r#"error="{error}", error_description="{description}""#)
            });
            let names: Vec<_> = scopes.iter().map(Scope::as_str).collect();
            let scope = (!names.is_empty()).then(|| format!(r#"scope="{}""#, names.join(" ")));
            let (realm, metadata) = (self.realm.clone(), self.resource_metadata.clone());
            let parameters: Vec<_> = [realm, error, scope, metadata]
                .into_iter()
                .flatten()
                .collect();
            let challenge = format!("Bearer {}", parameters.join(", "));
            let challenge = HeaderValue::try_from(challenge.trim_end());
            // Each part has been checked before, so the fallback is unreachable.
            let challenge = challenge.unwrap_or(HeaderValue::from_static("Bearer"));
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        Arc::new(headers)
    }
}

/// The headers of a rejection that no resource server has completed.
pub(super) fn incomplete_headers(kind: RejectionKind, scopes: &[Scope]) -> Arc<HeaderMap> {
    ChallengeParameters::default().headers(kind, scopes)
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
        DefaultRejectionResponse.response(&responses.reject(kind.into(), grpc))
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
