//! The lifetime of a token: that of the response, else an assumed one. Does no I/O.

use std::time::Duration;

use super::token_response::{MAX_LIFETIME, TokenResponse};
use super::unverified_claims::unverified_expiry;
use crate::clock::UnixTime;

/// A token is handed out until this long before its expiry, or a tenth of its lifetime, so that it
/// is still valid when it reaches the resource server.
const EXPIRY_MARGIN: Duration = Duration::from_secs(10);

/// Until when a token is handed out.
pub(super) fn usable_until(expires_at: UnixTime, lifetime: Duration) -> UnixTime {
    expires_at.saturating_sub(EXPIRY_MARGIN.min(lifetime / 10))
}

/// The lifetime of a token from `requested_at` on, in whole seconds.
///
/// Without `expires_in` it is the assumed one, or shorter if the token is a JWT whose `exp` is
/// sooner. `None` if that is less than a second: such a token is not stored.
pub(super) fn lifetime_of(
    response: &TokenResponse,
    assumed: Duration,
    requested_at: UnixTime,
) -> Option<Duration> {
    if response.expires_in().is_some() {
        return response.expires_in();
    }
    // The `exp` of the token is not verified: it only shortens an assumption.
    let remaining = unverified_expiry(response.expose_secret())
        .map_or(MAX_LIFETIME, |exp| exp.saturating_since(requested_at));
    let lifetime = assumed.min(remaining).min(MAX_LIFETIME).as_secs();
    (lifetime > 0).then(|| Duration::from_secs(lifetime))
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use proptest::prelude::*;

    use super::*;

    const NOW: UnixTime = UnixTime::from_secs(1_700_000_000);
    const ASSUMED: Duration = Duration::from_secs(300);

    fn lifetime(token: &str, assumed: Duration) -> Option<u64> {
        let response = TokenResponse::new(token).unwrap();
        lifetime_of(&response, assumed, NOW).map(|lifetime| lifetime.as_secs())
    }

    fn jwt(payload: &str) -> String {
        format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(payload))
    }

    #[test]
    fn the_assumed_lifetime_ends_at_the_exp_of_a_jwt() {
        for (payload, expected) in [
            (r#"{"exp":1700000100}"#, Some(100)),
            (r#"{"exp":1700000100.9}"#, Some(100)),
            (r#"{"exp":1700009999}"#, Some(300)),
            (r#"{"exp":1e300}"#, Some(300)),
            (r#"{"exp":1700000000}"#, None),
            (r#"{"exp":0}"#, None),
            (r#"{"exp":-1e300}"#, None),
            (r#"{"exp":"1700000100"}"#, Some(300)),
            (r#"{"exp":null}"#, Some(300)),
            ("{}", Some(300)),
            ("", Some(300)),
        ] {
            assert_eq!(lifetime(&jwt(payload), ASSUMED), expected, "{payload}");
        }
        let five_parts = format!("{}.a.b", jwt(r#"{"exp":0}"#));
        assert_eq!(lifetime(&five_parts, ASSUMED), Some(300));
        let day = Duration::from_secs(86_400);
        assert_eq!(lifetime("opaque", day * 365), Some(86_400));
        assert_eq!(lifetime("opaque", Duration::from_millis(999)), None);
    }

    #[test]
    fn the_lifetime_of_the_response_takes_precedence() {
        let response = TokenResponse::new(jwt(r#"{"exp":1700000100}"#)).unwrap();
        let response = response.with_expires_in(Duration::from_secs(3600));
        let lifetime = lifetime_of(&response, ASSUMED, NOW);
        assert_eq!(lifetime, Some(Duration::from_secs(3600)));
    }

    proptest! {
        #[test]
        fn no_token_lives_longer_than_assumed(token in "[!-~]{1,200}", assumed in 0_u64..1000) {
            let lifetime = lifetime(&token, Duration::from_secs(assumed));
            prop_assert!(lifetime.unwrap_or_default() <= assumed);
        }
    }
}
