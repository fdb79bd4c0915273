//! The error responses of the management API.

use bytes::Bytes;
use http::Response;

use crate::clock::UnixTime;
use crate::error::{Error, ErrorKind, OAuthError, Operation};
use crate::redact::Secrets;
use crate::transport::retry_after;

/// The error of a response that is no success. `secrets` are those of the request.
pub(super) fn from_response(
    operation: Operation,
    response: &Response<Bytes>,
    now: UnixTime,
    secrets: Secrets,
) -> Error {
    let status = response.status();
    let oauth = OAuthError::from_body(response.body(), || secrets);
    let kind = match &oauth {
        Some(_) if status.is_client_error() => ErrorKind::Refused,
        _ => ErrorKind::Status(status),
    };
    Error::new(operation, kind).with_response(status, oauth, retry_after(response.headers(), now))
}
