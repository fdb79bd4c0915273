//! The jwt-bearer grant ([RFC 7523 §2.1](https://www.rfc-editor.org/rfc/rfc7523#section-2.1)): an
//! assertion in place of a grant.
//!
//! The assertion identifies an application, as one that authenticates a client does, and the token
//! is that of this application. Client authentication is optional (RFC 7523 §3.1).

use super::super::assertions::{self, AssertionPurpose};
use super::super::error_response::ErrorResponse;
use super::client_credentials::issue_for;
use super::{GrantRequest, GrantedToken};

pub(super) fn grant(request: &GrantRequest<'_>) -> Result<GrantedToken, ErrorResponse> {
    let GrantRequest {
        server,
        version,
        parameters,
        ..
    } = *request;
    let assertion = parameters.require("assertion")?;
    let client = request.authenticate_if_present()?;
    let invalid_grant = |reason| ErrorResponse::bad_request("invalid_grant", reason);
    let application = assertions::verify(server, version, assertion, AssertionPurpose::Grant)
        .map_err(|error| error.into_response(invalid_grant))?;
    let client_id = client
        .as_ref()
        .map(|client| client.client_id.as_str())
        .or_else(|| parameters.get("client_id"));
    // RFC 6749 §5.2: `invalid_grant` if it was issued to another client.
    if client_id.is_some_and(|id| id != application.client_id) {
        return Err(invalid_grant("the assertion identifies another client"));
    }
    issue_for(request, &application)
}
