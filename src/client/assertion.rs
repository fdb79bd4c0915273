//! The assertion of a source, as it is sent in a token request.

use secrecy::{ExposeSecret, SecretString};

use super::assertion_audience::AssertionAudience;
use super::assertion_source::AssertionSource;
use super::token_request::{RequestPart, TokenRequest};
use super::unverified_claims::{check_expiry, unverified_audiences};
use crate::error::{Error, ErrorKind, Operation};
use crate::text;

/// Gets the assertion for a request. One that has expired is an error.
pub(super) async fn get(
    source: &dyn AssertionSource,
    audience: &AssertionAudience,
    request: &TokenRequest,
) -> Result<SecretString, Error> {
    let credentials = || Error::new(Operation::TokenRequest, ErrorKind::Credentials);
    let audience = audience.resolve(request)?;
    let assertion = source.assertion(audience).await;
    let assertion = assertion.map_err(|error| credentials().with_source(error))?;
    if assertion.expose_secret().is_empty() {
        return Err(credentials().with_detail(format!("{} is empty", source.description())));
    }
    check_expiry(
        assertion.expose_secret(),
        source.description(),
        request.now(),
    )?;
    Ok(assertion)
}

/// Adds to the request what a refusal of the assertion may be due to, and records one that the
/// source may also return for other requests.
pub(super) fn record(
    source: &dyn AssertionSource,
    audience: &AssertionAudience,
    assertion: &SecretString,
    part: RequestPart,
    request: &mut TokenRequest,
) {
    if source.is_reusable() {
        let hint = reusable_hint(source, assertion.expose_secret());
        request.add_refusal_hint(part, hint);
        request.record_assertion(assertion, part, source.description());
    } else if let Some(hint) = audience.refusal_hint(request) {
        request.add_refusal_hint(part, hint);
    }
}

/// The possible causes of a refusal of an assertion that was made before the request. No setting of
/// the client changes the audience of a file.
fn reusable_hint(source: &dyn AssertionSource, assertion: &str) -> String {
    let audience = match unverified_audiences(assertion).as_deref() {
        None => "no readable `aud`".to_owned(),
        Some([one]) => format!("the `aud` {}", text::shown(one)),
        Some(several) => format!("the `aud` {}", text::shown_list(several)),
    };
    format!(
        "{} has {audience}: if the server expects another one, set it at the platform that issues \
         the assertion; a server that takes each assertion once also refuses one that another \
         process has sent",
        source.description()
    )
}
