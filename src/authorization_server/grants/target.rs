//! The audience of a token: for whom it is requested.

use url::Url;

use super::super::Version;
use super::super::applications::{Registration, distinct};
use super::super::error_response::ErrorResponse;
use super::super::parameters::Parameters;
use crate::oauth::has_only_uri_characters;

/// The audience: `audience` (App ID, Auth0) and each `resource` (RFC 8707 §2), or the application
/// itself.
pub(super) fn audience(
    application: &Registration,
    version: Version,
    parameters: &Parameters,
) -> Result<Vec<String>, ErrorResponse> {
    let invalid_target = |reason| Err(ErrorResponse::bad_request("invalid_target", reason));
    let resources = parameters.get_all("resource");
    // RFC 6749 §3.2: an empty value counts as absent.
    let resources: Vec<&str> = resources.filter(|resource| !resource.is_empty()).collect();
    if !resources.iter().all(|resource| is_absolute_uri(resource)) {
        return invalid_target("resource must be an absolute URI without a fragment");
    }
    let audiences = parameters.get_all("audience");
    let audiences = audiences.filter(|audience| !audience.is_empty());
    let audience = distinct(audiences.chain(resources));
    match (version, audience.as_slice()) {
        (_, []) => Ok(vec![application.client_id.clone()]),
        (Version::V3, [_, _, ..]) => invalid_target("a token of version 3 has one audience"),
        (_, audience) => Ok(audience.iter().copied().map(str::to_owned).collect()),
    }
}

/// RFC 3986 §4.3, which has no fragment.
fn is_absolute_uri(text: &str) -> bool {
    has_only_uri_characters(text) && Url::parse(text).is_ok()
}
