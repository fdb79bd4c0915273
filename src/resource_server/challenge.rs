//! Responses to rejected requests (RFC 6750 §3; gRPC status codes).

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header};

use super::rejection::ResponseTemplate;
use super::{Rejection, RejectionKind};
use crate::error::ConfigError;
use crate::metrics::{Counter, REQUESTS};

/// The realm of challenges unless another is configured.
pub(super) const DEFAULT_REALM: &str = "resource";

/// `Retry-After` while an issuer has no usable keys.
const NO_KEYS_RETRY_AFTER: Duration = Duration::from_secs(5);

/// `Retry-After` while too many signatures wait to be verified.
const OVERLOADED_RETRY_AFTER: Duration = Duration::from_secs(1);

/// Builds the response to a rejected request.
///
/// Implemented by closures `Fn(&Rejection) -> Response<B>` and by [`DefaultRejectionResponse`], the
/// default. The inner service is not called, and the [`Rejection`] is added to the extensions of
/// the response.
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
/// `Cache-Control: no-store`, and an empty body.
///
/// The response to a gRPC call has the gRPC status in its headers: 16 (unauthenticated), 7
/// (permission denied) or 14 (unavailable).
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct DefaultRejectionResponse;

impl<B: Default> RejectionResponse<B> for DefaultRejectionResponse {
    fn response(&self, rejection: &Rejection) -> Response<B> {
        let mut response = Response::new(B::default());
        let headers = response.headers_mut();
        headers.clone_from(rejection.headers());
        if rejection.is_grpc() {
            let (code, message) = match rejection.status() {
                StatusCode::FORBIDDEN => ("7", "insufficient scope"),
                StatusCode::SERVICE_UNAVAILABLE => {
                    ("14", "token validation is temporarily unavailable")
                }
                _ => ("16", "a valid access token is required"),
            };
            headers.insert(
                header::CONTENT_TYPE,
                HeaderValue::from_static("application/grpc"),
            );
            headers.insert("grpc-status", HeaderValue::from_static(code));
            headers.insert("grpc-message", HeaderValue::from_static(message));
        } else {
            *response.status_mut() = rejection.status();
        }
        response
    }
}

/// The response templates of a resource server, built once.
#[derive(Clone, Debug)]
pub(super) struct Responses {
    missing_token: Arc<ResponseTemplate>,
    invalid_request: Arc<ResponseTemplate>,
    invalid_token: Arc<ResponseTemplate>,
    overloaded: Arc<ResponseTemplate>,
    keys_unavailable: Arc<ResponseTemplate>,
    challenge_params: Arc<ChallengeParams>,
}

/// The parameters of every challenge of a resource server, for challenges that are built later.
#[derive(Debug)]
pub(super) struct ChallengeParams {
    pub(super) realm: String,
    /// The `resource_metadata` parameter with a leading comma, or empty.
    pub(super) metadata: String,
    /// Counts valid tokens that lack a scope.
    pub(super) insufficient_scope: Counter,
}

impl Responses {
    /// `resource_metadata` is the URL of RFC 9728 §5.1.
    pub(super) fn new(realm: &str, resource_metadata: Option<&str>) -> Result<Self, ConfigError> {
        let realm = quoted("realm", realm)?;
        let metadata = match resource_metadata {
            Some(url) => format!(", resource_metadata={}", quoted("resource_metadata", url)?),
            None => String::new(),
        };
        let value = |error: &str| {
            HeaderValue::try_from(format!("Bearer realm={realm}{error}{metadata}"))
                .map(ResponseTemplate::challenge)
                .map_err(|_| ConfigError::without_value("realm", "must be valid in a header"))
        };
        let with_error = |code: &str, description: &str| {
            value(&format!(
                r#", error="{code}", error_description="{description}""#
            ))
        };
        Ok(Self {
            missing_token: value("")?,
            invalid_request: with_error(
                "invalid_request",
                "The Authorization field is malformed or repeated",
            )?,
            // One text for all reasons: details found before the signature is verified are for the
            // operator only.
            invalid_token: with_error("invalid_token", "The access token is invalid")?,
            overloaded: ResponseTemplate::retry_after(OVERLOADED_RETRY_AFTER),
            keys_unavailable: ResponseTemplate::retry_after(NO_KEYS_RETRY_AFTER),
            challenge_params: Arc::new(ChallengeParams {
                realm: realm.clone(),
                metadata: metadata.clone(),
                insufficient_scope: Counter::new(
                    REQUESTS,
                    ("result", RejectionKind::InsufficientScope.as_str()),
                ),
            }),
        })
    }

    pub(super) fn challenge_params(&self) -> &Arc<ChallengeParams> {
        &self.challenge_params
    }

    /// Builds the rejection of a request.
    pub(super) fn reject(&self, kind: RejectionKind, grpc: bool) -> Rejection {
        let template = match kind {
            RejectionKind::Overloaded => &self.overloaded,
            RejectionKind::KeysUnavailable => &self.keys_unavailable,
            RejectionKind::MissingToken => &self.missing_token,
            RejectionKind::InvalidRequest => &self.invalid_request,
            RejectionKind::InvalidAudience
            | RejectionKind::InvalidSignature
            | RejectionKind::InvalidClaims
            | RejectionKind::Expired
            | RejectionKind::InsufficientScope
            | RejectionKind::UntrustedIssuer
            | RejectionKind::Malformed
            | RejectionKind::NotYetValid
            | RejectionKind::RevokedKey
            | RejectionKind::MissingProofOfPossession
            | RejectionKind::TokenTooLong
            | RejectionKind::TooManyMembers
            | RejectionKind::UnexpectedTokenType
            | RejectionKind::UnknownKey
            | RejectionKind::UnsupportedAlgorithm => &self.invalid_token,
        };
        Rejection::new(kind, Arc::clone(template), grpc)
    }
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

/// Whether a request is a gRPC call: `POST` over HTTP/2 with the content type of gRPC.
///
/// gRPC-Web is excluded, because its clients in browsers need an HTTP status.
pub(super) fn is_grpc<B>(request: &Request<B>) -> bool {
    const GRPC: &[u8] = b"application/grpc";
    let is_grpc = |value: &[u8]| {
        value
            .split_at_checked(GRPC.len())
            .is_some_and(|(essence, rest)| {
                essence.eq_ignore_ascii_case(GRPC)
                    && matches!(rest.first(), None | Some(b'+' | b';' | b' '))
            })
    };
    request.version() == Version::HTTP_2
        && request.method() == Method::POST
        && request
            .headers()
            .get(header::CONTENT_TYPE)
            .is_some_and(|value| is_grpc(value.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const INVALID_REQUEST: &str = ", error=\"invalid_request\", \
        error_description=\"The Authorization field is malformed or repeated\"";
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
        for kind in RejectionKind::ALL {
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
                    RejectionKind::MissingToken => (Some(""), None),
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
