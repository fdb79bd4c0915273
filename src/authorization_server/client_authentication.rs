//! Client authentication (RFC 6749 §2.3): by the secret, in two places, or by an assertion
//! (RFC 7523 §2.2).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use url::form_urlencoded;

use super::applications::Registration;
use super::assertions::{self, AssertionPurpose};
use super::error_response::ErrorResponse;
use super::parameters::Parameters;
use super::{Inner, Version};

/// The methods, as the metadata list them.
pub(super) const METHODS: [&str; 3] = [
    "client_secret_basic",
    "client_secret_post",
    "private_key_jwt",
];

/// RFC 7523 §2.2
const JWT_BEARER_ASSERTION: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// draft-ietf-oauth-spiffe-client-auth
const JWT_SPIFFE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe";

/// Authenticates the client by exactly one method.
pub(super) fn authenticate(
    server: &Inner,
    version: Version,
    headers: &HeaderMap,
    parameters: &Parameters,
) -> Result<Registration, ErrorResponse> {
    let client = authenticate_if_present(server, version, headers, parameters)?;
    client.ok_or_else(|| invalid_client(FAILED))
}

/// The same; `None` for a request without credentials.
pub(super) fn authenticate_if_present(
    server: &Inner,
    version: Version,
    headers: &HeaderMap,
    parameters: &Parameters,
) -> Result<Option<Registration>, ErrorResponse> {
    let mut fields = headers.get_all(header::AUTHORIZATION).iter();
    let (field, second_field) = (fields.next(), fields.next());
    let secret = parameters.get("client_secret");
    let assertion = match (
        parameters.get("client_assertion"),
        parameters.get("client_assertion_type"),
    ) {
        (Some(assertion), Some(kind)) => Some((assertion, kind)),
        (None, None) => None,
        // RFC 7521 §4.2: both are required.
        _ => {
            return Err(ErrorResponse::bad_request(
                "invalid_request",
                "client_assertion and client_assertion_type require each other",
            ));
        }
    };
    let client = match (field, secret, assertion) {
        (None, None, None) => return Ok(None),
        (Some(field), None, None) if second_field.is_none() => with_basic(server, field)?,
        (None, Some(secret), None) => {
            let id = parameters.get("client_id");
            let client = id.and_then(|id| with_secret(server, id, secret));
            client.ok_or_else(|| invalid_client(FAILED))?
        }
        (None, None, Some((assertion, kind))) => {
            let purpose = match kind {
                JWT_BEARER_ASSERTION => AssertionPurpose::ClientAuthentication,
                JWT_SPIFFE => AssertionPurpose::SpiffeClientAuthentication,
                _ => return Err(invalid_client("client_assertion_type is not supported")),
            };
            assertions::verify(server, version, assertion, purpose)
                .map_err(|error| error.into_response(invalid_client))?
        }
        _ => {
            return Err(ErrorResponse::bad_request(
                "invalid_request",
                "the client must use exactly one authentication method",
            ));
        }
    };
    match parameters.get("client_id") {
        Some(other) if other != client.client_id => Err(ErrorResponse::bad_request(
            "invalid_request",
            "client_id differs from the authenticated client",
        )),
        _ => Ok(Some(client)),
    }
}

/// The description for every wrong secret and every unknown client.
const FAILED: &str = "client authentication failed";

pub(super) fn invalid_client(description: &'static str) -> ErrorResponse {
    ErrorResponse::new(StatusCode::UNAUTHORIZED, "invalid_client", description)
        .with_challenge(r#"Basic realm="authorization server", charset="UTF-8""#)
}

fn with_secret(server: &Inner, client_id: &str, secret: &str) -> Option<Registration> {
    server.state().authenticate(client_id, secret).cloned()
}

fn with_basic(server: &Inner, field: &HeaderValue) -> Result<Registration, ErrorResponse> {
    let (id, secret) = basic_credentials(field).ok_or_else(|| invalid_client(FAILED))?;
    // App ID expects the parts as they are, RFC 6749 §2.3.1 form-urlencoded. Accept both.
    let decoded = |part: &str| {
        // An unencoded `&` would end the value, and encoded values contain none.
        if part.contains('&') {
            return None;
        }
        form_urlencoded::parse(format!("x={part}").as_bytes())
            .next()
            .map(|(_, value)| value.into_owned())
    };
    let client = with_secret(server, &id, &secret).or_else(|| {
        let (id, secret) = (decoded(&id)?, decoded(&secret)?);
        with_secret(server, &id, &secret)
    });
    client.ok_or_else(|| invalid_client(FAILED))
}

/// User id and password (RFC 7617 §2).
fn basic_credentials(field: &HeaderValue) -> Option<(String, String)> {
    let (scheme, credentials) = field.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("Basic") {
        return None;
    }
    let pair = String::from_utf8(STANDARD.decode(credentials.trim()).ok()?).ok()?;
    let (id, secret) = pair.split_once(':')?;
    Some((id.to_owned(), secret.to_owned()))
}
