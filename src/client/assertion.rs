//! The assertion of a source, as it is sent in a token request.

use secrecy::{ExposeSecret, SecretString};

use super::assertion_audience::AssertionAudience;
use super::assertion_source::AssertionSource;
use super::token_request::{AssertionPurpose, TokenRequest};
use super::unverified_claims::unverified_expiry;
use crate::error::{Error, ErrorKind, Operation};

/// Gets the assertion for a request. One that has expired is an error, because the server would
/// refuse it without saying why.
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
    // RFC 7519 §4.1.4: not accepted on or after this time.
    match unverified_expiry(assertion.expose_secret()) {
        Some(expiry) if expiry <= request.now() => {
            let ago = request.now().saturating_since(expiry).as_secs();
            let what = source.description();
            Err(credentials().with_detail(format!("{what} expired {ago} s ago")))
        }
        _ => Ok(assertion),
    }
}

/// Records an assertion that the source may also return for other requests.
pub(super) fn record(
    source: &dyn AssertionSource,
    assertion: &SecretString,
    purpose: AssertionPurpose,
    request: &mut TokenRequest,
) {
    if source.is_reusable() {
        request.set_read_assertion(assertion, purpose, source.description());
    }
}

/// What an error may be due to if an assertion is for the issuer. Nothing else is tried: the
/// audience of an assertion is a decision of the operator.
pub(super) const AUDIENCE_HINT: &str = "the audience of the assertion is the issuer; if the \
    server expects its token endpoint, as Microsoft Entra ID and Ory Hydra do, set \
    `AssertionAudience::TokenEndpoint`";
