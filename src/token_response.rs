//! A successful answer to a token request ([RFC 6749 §5.1](https://www.rfc-editor.org/rfc/rfc6749#section-5.1)):
//! of the client credentials grant, or of the exchange of an IAM API key.

use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::Value;

/// However long a token lives, it is renewed after a day.
const LONGEST: Duration = Duration::from_secs(86_400);

/// A bearer token. Whatever else the answer holds, a refresh token say, is not kept.
#[derive(Debug)]
pub(crate) struct TokenResponse {
    /// Visible ASCII, so that it can stand in a header.
    pub(crate) access_token: SecretString,
    /// `None` if the server did not say.
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
    /// Reads the body of an answer; the error is a fixed text and quotes nothing of it.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, &'static str> {
        // The parser's error could quote the answer, and so the token: it is left out.
        let Members {
            access_token,
            token_type,
            expires_in,
            scope,
        } = serde_json::from_slice(body).map_err(
            |_| "it is no JSON object with a string `access_token` and a string `token_type`",
        )?;
        // RFC 6749 §7.1: a token of a type that we do not understand must not be used.
        if !token_type.eq_ignore_ascii_case("Bearer") {
            return Err("its `token_type` is not `Bearer`");
        }
        let token = access_token.expose_secret();
        if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("its `access_token` cannot stand in a header");
        }
        let lifetime = expires_in.map(|seconds| lifetime(&seconds)).transpose()?;
        Ok(Self {
            access_token,
            lifetime,
            scope,
        })
    }
}

/// `expires_in`, a number or, as App ID's guide prints it, a string of one: whole seconds, at
/// least one, at most [`LONGEST`]. A token that has already expired is no token.
fn lifetime(expires_in: &Value) -> Result<Duration, &'static str> {
    let seconds: Option<f64> = match expires_in {
        Value::String(text) => text.trim().parse().ok(),
        other => other.as_f64(),
    };
    seconds
        .and_then(|seconds| {
            Duration::try_from_secs_f64(seconds.clamp(-1.0, LONGEST.as_secs_f64())).ok()
        })
        .filter(|lifetime| *lifetime >= Duration::from_secs(1))
        .map(|lifetime| Duration::from_secs(lifetime.as_secs()))
        .ok_or("its `expires_in` is no lifetime of a second or more")
}
