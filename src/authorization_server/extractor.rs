//! What handlers read from a request: its body and the API version in its path.

use axum::extract::{FromRequest, Request};
use bytes::Bytes;
use http::StatusCode;

use super::Version;
use super::error_response::ErrorResponse;

/// The maximum size of a request body, in bytes.
pub(super) const MAX_BODY: usize = 64 * 1024;

/// The body of a request, at most [`MAX_BODY`] bytes. A larger one is not read to its end.
pub(super) struct RequestBody(pub(super) Bytes);

impl<S: Sync> FromRequest<S> for RequestBody {
    type Rejection = ErrorResponse;

    async fn from_request(request: Request, _: &S) -> Result<Self, ErrorResponse> {
        // A truncated body gets the same response; its sender has disconnected.
        let too_large = |_| {
            ErrorResponse::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "invalid_request",
                "the body is too large",
            )
        };
        axum::body::to_bytes(request.into_body(), MAX_BODY)
            .await
            .map(Self)
            .map_err(too_large)
    }
}

/// The API version in a path.
pub(super) fn parse_version(path: &[(String, String)]) -> Result<Version, ErrorResponse> {
    match path
        .iter()
        .find(|(name, _)| name == "version")
        .map(|(_, value)| value.as_str())
    {
        Some("v3") => Ok(Version::V3),
        Some("v4") | None => Ok(Version::V4),
        Some(_) => Err(ErrorResponse::not_found()),
    }
}
