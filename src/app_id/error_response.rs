//! The error responses of App ID and IAM.

use bytes::Bytes;
use http::Response;
use serde_json::Value;

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
    let oauth = oauth_error(response.body(), secrets);
    let kind = match &oauth {
        Some(_) if status.is_client_error() => ErrorKind::Refused,
        _ => ErrorKind::Status(status),
    };
    Error::new(operation, kind).with_response(status, oauth, retry_after(response.headers(), now))
}

/// The error in a body: App ID sends `error` or `error_code`, IAM `errorCode`. In the wrong region
/// the body is plain text, which is ignored.
fn oauth_error(body: &[u8], mut secrets: Secrets) -> Option<OAuthError> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let first = |keys: [&str; 3]| keys.into_iter().find_map(|key| body.get(key)?.as_str());
    let code = first(["error", "error_code", "errorCode"])?;
    secrets.add_members(&body);
    Some(OAuthError::new(
        code,
        first(["error_description", "errorMessage", "message"]),
        &secrets,
    ))
}
