//! What a token has instead of what is expected, in words, for the log.

use std::fmt::{self, Write as _};
use std::time::Duration;

use serde::Deserialize;

use super::claims::{ClaimsFault, ClaimsPolicy, TokenProfile, UnverifiedClaims};
use super::compact::decode_base64url;
use super::error::TokenError;
use super::strict_json::Value;
use crate::clock::UnixTime;

/// Values of a token are cut to this many characters.
const MAX_SHOWN: usize = 100;

/// This many elements of a list are shown.
const MAX_LISTED: usize = 8;

/// Why a token with a valid signature is rejected. Bounded in length, and escaped.
#[cfg_attr(not(feature = "tracing"), allow(dead_code, reason = "for events"))]
pub(crate) struct Mismatch {
    pub(crate) expected: String,
    pub(crate) found: String,
}

/// Shows nothing of the token: rejections are public, and have one.
impl fmt::Debug for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mismatch").finish_non_exhaustive()
    }
}

impl Mismatch {
    /// Of a token that was issued to this client.
    pub(crate) fn new(client: Option<&str>, expected: String, found: String) -> Self {
        let found = match client {
            Some(client) => format!("{found} (client {})", shown(client)),
            None => found,
        };
        Self { expected, found }
    }

    /// Describes the claims of a token with a valid signature.
    pub(super) fn of_claims(
        fault: ClaimsFault,
        claims: &UnverifiedClaims<'_>,
        header: &[u8],
        policy: &ClaimsPolicy,
        now: UnixTime,
    ) -> Self {
        let (expected, found) = match fault {
            ClaimsFault::Algorithm => {
                let allowed: Vec<_> = policy.algorithms.iter().map(|one| one.name()).collect();
                let expected = format!("alg of {}", shown_list(&allowed));
                (expected, "another alg".to_owned())
            }
            ClaimsFault::HeaderType => (expected_typ(policy.profile), found_typ(header)),
            ClaimsFault::OtherToken(claim) => (
                "an access token".to_owned(),
                format!("the claim {claim} of another kind of token"),
            ),
            ClaimsFault::Issuer => (
                format!("iss {}", shown(policy.issuer.as_str())),
                "another iss".to_owned(),
            ),
            ClaimsFault::Audience => {
                let audience = claims.audience.as_ref().map_or(&[][..], Value::strings);
                let found = format!("aud {}", shown_list(audience));
                (expected_audience(policy), found)
            }
            ClaimsFault::Missing("aud") => (expected_audience(policy), "no aud".to_owned()),
            ClaimsFault::Missing(claim) => {
                let required = match policy.profile {
                    TokenProfile::Jwt => "iss, aud and exp",
                    TokenProfile::Rfc9068 => {
                        "iss, aud, exp, sub, client_id, iat and jti (RFC 9068)"
                    }
                };
                (required.to_owned(), format!("no {claim}"))
            }
            ClaimsFault::Expired => {
                let ago = |expired| format!("exp {} ago", seconds(now.saturating_since(expired)));
                let found = claims.expires_at.map_or_else(String::new, ago);
                (expected_times(policy), found)
            }
            ClaimsFault::NotYetValid => {
                let ahead = |name: &str, time: Option<UnixTime>| {
                    let ahead = time?.saturating_since(now);
                    (!ahead.is_zero()).then(|| format!("{name} {} ahead", seconds(ahead)))
                };
                let found = [("nbf", claims.not_before), ("iat", claims.issued_at)];
                let found: Vec<_> = found
                    .iter()
                    .filter_map(|(name, at)| ahead(name, *at))
                    .collect();
                (expected_times(policy), found.join(", "))
            }
            ClaimsFault::EndsBeforeItBegins => {
                ("nbf before exp".to_owned(), "nbf after exp".to_owned())
            }
            ClaimsFault::NoStart => (
                "iat or nbf, for the lifetime (max_lifetime)".to_owned(),
                "neither".to_owned(),
            ),
            ClaimsFault::Lifetime(lifetime) => {
                let limit = policy.max_lifetime.unwrap_or_default();
                let expected = format!("a lifetime of at most {} (max_lifetime)", seconds(limit));
                (expected, seconds(lifetime))
            }
        };
        Self::new(claims.client(), expected, found)
    }
}

/// The claims of a token with a valid signature that are rejected.
#[derive(Debug)]
pub(crate) struct RejectedClaims {
    pub(crate) error: TokenError,
    pub(crate) mismatch: Mismatch,
}

fn expected_audience(policy: &ClaimsPolicy) -> String {
    format!("aud with one of {}", shown_list(&policy.audiences))
}

fn expected_typ(profile: TokenProfile) -> String {
    let expected = match profile {
        TokenProfile::Jwt => r#"no typ, or "JWT", "JOSE" or "at+jwt""#,
        TokenProfile::Rfc9068 => r#"typ "at+jwt""#,
    };
    expected.to_owned()
}

fn expected_times(policy: &ClaimsPolicy) -> String {
    let leeway = seconds(policy.leeway);
    format!("nbf and iat in the past, exp in the future, with {leeway} of leeway")
}

/// The `typ` of a header whose signature is valid.
fn found_typ(header: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Type {
        typ: Option<String>,
    }
    let header = decode_base64url(header).unwrap_or_default();
    match serde_json::from_slice(&header) {
        Ok(Type { typ: Some(typ) }) => format!("typ {}", shown(&typ)),
        _ => "no typ".to_owned(),
    }
}

fn seconds(duration: Duration) -> String {
    format!("{} s", duration.as_secs())
}

/// A value in quotation marks, escaped and cut.
pub(crate) fn shown(text: &str) -> String {
    // The start of a compact JWS: a token within a token is not shown either.
    if text.contains("eyJ") {
        return "[not shown]".to_owned();
    }
    match text.char_indices().nth(MAX_SHOWN) {
        Some((end, _)) => format!("{:?}…", text.get(..end).unwrap_or_default()),
        None => format!("{text:?}"),
    }
}

/// A list of values, cut.
pub(crate) fn shown_list<T: AsRef<str>>(list: &[T]) -> String {
    let mut text = String::from("[");
    for (index, one) in list.iter().take(MAX_LISTED).enumerate() {
        let separator = if index == 0 { "" } else { ", " };
        let _infallible = write!(text, "{separator}{}", shown(one.as_ref()));
    }
    if let Some(more) = list.len().checked_sub(MAX_LISTED).filter(|more| *more > 0) {
        let _infallible = write!(text, ", and {more} more");
    }
    text.push(']');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_escaped_and_bounded() {
        assert_eq!(
            shown("a\n\u{1b}[31m\"b\u{202e}"),
            r#""a\n\u{1b}[31m\"b\u{202e}""#
        );
        let (short, long) = ("é".repeat(MAX_SHOWN), "é".repeat(MAX_SHOWN + 1));
        assert_eq!(shown(&short), format!("\"{short}\""));
        assert_eq!(shown(&long), format!("\"{short}\"…"));
        assert_eq!(shown("a eyJhbGciOiJub25lIn0.e30."), "[not shown]");
        assert_eq!(shown_list::<&str>(&[]), "[]");
        assert_eq!(shown_list(&["a", "b"]), r#"["a", "b"]"#);
        let many = shown_list(&vec!["\n".repeat(5_000); 5_000]);
        assert!(
            many.ends_with(", and 4992 more]") && many.len() < 2_000,
            "{many}"
        );
    }
}
