//! The claims of a token or assertion, as far as the client may look at them.
//!
//! An access token is opaque to its client, and nothing is verified here. The claims only make the
//! client more careful: they shorten an assumed lifetime, or have it refuse a token or an assertion.

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::clock::UnixTime;
use crate::error::{Error, ErrorKind, Operation};

/// The claims of a compact JWT ([RFC 7519 §7.2](https://www.rfc-editor.org/rfc/rfc7519#section-7.2)).
/// `None` if the token is none, or has no such claims.
pub(super) fn unverified_claims<T: DeserializeOwned>(token: &str) -> Option<T> {
    let mut parts = token.split('.');
    let (_, payload, _, None) = (parts.next()?, parts.next()?, parts.next()?, parts.next()) else {
        return None;
    };
    let payload = URL_SAFE_NO_PAD.decode(payload).ok()?;
    serde_json::from_slice(&payload).ok()
}

/// The `exp` of a token that is a compact JWT
/// ([RFC 7519 §4.1.4](https://www.rfc-editor.org/rfc/rfc7519#section-4.1.4)).
pub(super) fn unverified_expiry(token: &str) -> Option<UnixTime> {
    #[derive(Deserialize)]
    struct Claims {
        exp: f64,
    }
    let Claims { exp } = unverified_claims(token)?;
    // A later time is far enough in the future.
    let exp = Duration::try_from_secs_f64(exp.clamp(0.0, 1e12)).ok()?;
    Some(UnixTime::from_secs(exp.as_secs()))
}

/// The `exp` of a token or assertion, `what` in the error. One that has expired is an error, because
/// the server would refuse it without saying why.
pub(super) fn check_expiry(
    token: &str,
    what: impl fmt::Display,
    now: UnixTime,
) -> Result<Option<UnixTime>, Error> {
    // RFC 7519 §4.1.4: not accepted on or after this time.
    match unverified_expiry(token) {
        Some(expiry) if expiry <= now => {
            let ago = now.saturating_since(expiry).as_secs();
            let reason = format!(
                "{what} expired {ago} s ago: it was not replaced, or the clock of this client is \
                 ahead"
            );
            Err(Error::new(Operation::TokenRequest, ErrorKind::Credentials).with_detail(reason))
        }
        expiry => Ok(expiry),
    }
}

/// The `aud` of a token that is a compact JWT, as a list
/// ([RFC 7519 §4.1.3](https://www.rfc-editor.org/rfc/rfc7519#section-4.1.3)).
pub(super) fn unverified_audiences(token: &str) -> Option<Vec<String>> {
    #[derive(Deserialize)]
    struct Claims {
        aud: Audience,
    }
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Audience {
        One(String),
        Several(Vec<String>),
    }
    let Claims { aud } = unverified_claims(token)?;
    Some(match aud {
        Audience::One(one) => vec![one],
        Audience::Several(several) => several,
    })
}

/// Whether a token is a JWT for this resource and no other.
pub(super) fn is_for_resource_alone(token: &str, resource: &str) -> bool {
    unverified_audiences(token).is_some_and(|audiences| audiences == [resource])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_for_a_resource_alone_if_that_is_its_only_audience() {
        let resource = "https://api.example/orders";
        for (payload, expected) in [
            (r#"{"aud":"https://api.example/orders"}"#, true),
            (r#"{"aud":["https://api.example/orders"]}"#, true),
            (
                r#"{"aud":["https://api.example/orders","https://bills.example"]}"#,
                false,
            ),
            (r#"{"aud":"https://api.example/orders/"}"#, false),
            (r#"{"aud":"https://bills.example"}"#, false),
            (r#"{"aud":"x","aud":"https://api.example/orders"}"#, false),
            (r#"{"aud":[]}"#, false),
            (r#"{"aud":1}"#, false),
            ("{}", false),
            ("", false),
        ] {
            let token = format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(payload));
            assert_eq!(
                is_for_resource_alone(&token, resource),
                expected,
                "{payload}"
            );
        }
        for opaque in ["", "opaque", "a.b", "e30.*.c2ln", "e30.e30.c2ln.x"] {
            assert!(!is_for_resource_alone(opaque, resource), "{opaque}");
        }
    }
}
