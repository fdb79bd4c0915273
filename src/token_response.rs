//! The successful response of a token endpoint: of the client credentials grant, or of the exchange
//! of an IAM API key.
//!
//! [RFC 6749 §5.1](https://www.rfc-editor.org/rfc/rfc6749#section-5.1).

use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::Value;

/// Longer lifetimes are cut to this, so that every token is renewed within a day.
const MAX_LIFETIME: Duration = Duration::from_secs(86_400);

/// A bearer token. Other members of the response, such as a refresh token, are dropped.
#[derive(Debug)]
pub(crate) struct TokenResponse {
    /// Visible ASCII, so that it is a valid header value.
    pub(crate) access_token: SecretString,
    /// `None` if the server did not send `expires_in`.
    pub(crate) lifetime: Option<Duration>,
    pub(crate) scope: Option<String>,
}

#[derive(Deserialize)]
struct Members {
    access_token: SecretString,
    token_type: String,
    #[serde(default)]
    expires_in: Option<Value>,
    #[serde(default)]
    scope: Option<String>,
}

impl TokenResponse {
    /// Parses the body of a response. The error is a fixed text and quotes nothing of the body.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, &'static str> {
        // Drops the parser's error, which could quote the token.
        let Members {
            access_token,
            token_type,
            expires_in,
            scope,
        } = serde_json::from_slice(body).map_err(
            |_| "it is not a JSON object with the strings `access_token` and `token_type`",
        )?;
        // RFC 6749 §7.1: a token of an unknown type must not be used.
        if !token_type.eq_ignore_ascii_case("Bearer") {
            return Err("`token_type` is not `Bearer`");
        }
        let token = access_token.expose_secret();
        if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("`access_token` is not a valid header value");
        }
        let lifetime = expires_in
            .map(|seconds| parse_lifetime(&seconds))
            .transpose()?;
        Ok(Self {
            access_token,
            lifetime,
            scope,
        })
    }
}

/// Parses `expires_in`, a number or, as in App ID's guide, a numeric string. Returns whole seconds,
/// at least one and at most [`MAX_LIFETIME`].
fn parse_lifetime(expires_in: &Value) -> Result<Duration, &'static str> {
    let seconds: Option<f64> = match expires_in {
        Value::String(text) => text.trim().parse().ok(),
        other => other.as_f64(),
    };
    seconds
        .and_then(|seconds| {
            Duration::try_from_secs_f64(seconds.clamp(-1.0, MAX_LIFETIME.as_secs_f64())).ok()
        })
        .filter(|lifetime| *lifetime >= Duration::from_secs(1))
        .map(|lifetime| Duration::from_secs(lifetime.as_secs()))
        .ok_or("`expires_in` is not a lifetime of a second or more")
}
