//! What a token has instead of what is expected, in words, for the log.

use std::fmt;

use serde::Deserialize;

use super::claims::{ClaimsFault, ClaimsPolicy, TokenProfile, UnverifiedClaims};
use super::compact::decode_base64url;
use super::error::TokenError;
use super::strict_json::Value;
use crate::clock::UnixTime;
use crate::text;

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
            Some(client) => format!("{found} (client {})", text::shown(client)),
            None => found,
        };
        Self { expected, found }
    }

    /// Describes the claims of a token with a valid signature.
    pub(super) fn from_fault(
        fault: ClaimsFault,
        claims: &UnverifiedClaims<'_>,
        header: &[u8],
        policy: &ClaimsPolicy,
        now: UnixTime,
    ) -> Self {
        let (expected, found) = match fault {
            ClaimsFault::Algorithm => {
                let allowed: Vec<_> = policy.algorithms.iter().map(|one| one.name()).collect();
                let expected = format!("alg of {}", text::setting_list(allowed));
                (expected, "another alg".to_owned())
            }
            ClaimsFault::HeaderType => {
                let expected = format!("typ {}", policy.profile.expected_type());
                (expected, found_typ(header))
            }
            ClaimsFault::OtherToken(claim) => (
                "an access token".to_owned(),
                format!("the claim {claim} of another kind of token"),
            ),
            ClaimsFault::Issuer => (
                format!("iss {}", text::setting(policy.issuer.as_str())),
                "another iss".to_owned(),
            ),
            ClaimsFault::Audience => {
                let audience = claims.audience.as_ref().map_or(&[][..], Value::strings);
                let found = format!("aud {}", text::shown_list(audience));
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
                let ago = |expired| format!("exp {}", text::relative(expired, now));
                let found = claims.expires_at.map_or_else(String::new, ago);
                (expected_times(policy), found)
            }
            ClaimsFault::NotYetValid => {
                let ahead = |name: &str, time: Option<UnixTime>| {
                    let time = time.filter(|time| *time > now)?;
                    Some(format!("{name} {}", text::relative(time, now)))
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
                let expected = format!(
                    "a lifetime of at most {} (max_lifetime)",
                    text::duration(limit)
                );
                (expected, text::duration(lifetime))
            }
        };
        Self::new(claims.client(), expected, found)
    }
}

/// The claims of a token with a valid signature that are rejected.
#[derive(Debug)]
pub(crate) struct RejectedClaims {
    pub(crate) error: TokenError,
    pub(crate) mismatch: Option<Mismatch>,
}

fn expected_audience(policy: &ClaimsPolicy) -> String {
    let optional = match policy.audience_optional {
        true => ", or no aud",
        false => "",
    };
    let audiences = text::setting_list(&policy.audiences);
    format!("aud with one of {audiences}{optional}")
}

fn expected_times(policy: &ClaimsPolicy) -> String {
    let leeway = policy.leeway.as_secs();
    format!("nbf and iat in the past, exp in the future, with {leeway} s of leeway")
}

/// The `typ` of a header whose signature is valid.
fn found_typ(header: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Type {
        typ: Option<String>,
    }
    let header = decode_base64url(header).unwrap_or_default();
    match serde_json::from_slice(&header) {
        Ok(Type { typ: Some(typ) }) => format!("typ {}", text::shown(&typ)),
        _ => "no typ".to_owned(),
    }
}
