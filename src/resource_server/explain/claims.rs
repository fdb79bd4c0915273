//! The checks of the claims, those of the rules of the issuer included.

use serde_json::{Map, Value};

use super::check::Check;
use super::cure;
use super::header::{member, object};
use crate::clock::UnixTime;
use crate::jwt::{ClaimsPolicy, TokenError, numeric_date};
use crate::resource_server::claim_rules::ClaimRules;
use crate::resource_server::{AuthContext, RejectionKind};
use crate::text;

/// Why claims cannot be parsed.
pub(super) fn wrong_claims(payload: &str, shown: &Map<String, Value>, error: TokenError) -> String {
    const STRINGS: [&str; 5] = ["iss", "sub", "jti", "client_id", "azp"];
    const LISTS: [&str; 2] = ["aud", "scope"];
    const TIMES: [&str; 3] = ["exp", "nbf", "iat"];
    if error == TokenError::TooManyMembers {
        return "more members, elements or strings than `max_token_len` allows".to_owned();
    }
    if shown.is_empty() {
        return match payload.trim_start().starts_with('{') {
            true => "not valid JSON".to_owned(),
            false => "no JSON object".to_owned(),
        };
    }
    let is_strings = |value: &Value| {
        let elements = value.as_array();
        value.is_string() || elements.is_some_and(|all| all.iter().all(Value::is_string))
    };
    let expected = |name: &str, value: &Value| {
        if value.is_null() && ["sub", "jti", "client_id", "azp", "scope"].contains(&name) {
            None
        } else if STRINGS.contains(&name) && !value.is_string() {
            Some("a string")
        } else if LISTS.contains(&name) && !is_strings(value) {
            Some("a string or an array of strings")
        } else if TIMES.contains(&name) && !value.is_number() {
            Some("a number")
        } else if TIMES.contains(&name) && value.as_f64().and_then(numeric_date).is_none() {
            Some("seconds since 1970")
        } else {
            None
        }
    };
    let wrong = shown.iter().filter_map(|(name, value)| {
        let expected = expected(name, value)?;
        Some(format!(
            "{name} {}, which must be {expected}",
            text::shown(value)
        ))
    });
    let wrong: Vec<String> = wrong.collect();
    match wrong.is_empty() {
        true => object(shown, Err(error.into())),
        false => text::joined(wrong.into_iter()),
    }
}

/// Claims that only tokens of another use have.
pub(super) fn token_use(claims: &Map<String, Value>, outcome: Result<(), RejectionKind>) -> Check {
    let names = ["at_hash", "c_hash", "events", "token_use", "typ"];
    let found = names.iter().filter(|name| claims.contains_key(**name));
    let found = text::joined(found.map(|name| format!("{name} {}", member(claims, name))));
    let found = match found.is_empty() {
        true => "no sign of another".to_owned(),
        false => found,
    };
    Check::new("token_use", outcome)
        .expects("an access token")
        .finds(found)
        .cure_by("This is an ID token, a refresh token or a logout token: send the access token")
}

pub(super) fn audience(
    claims: &Map<String, Value>,
    policy: &ClaimsPolicy,
    outcome: Result<(), RejectionKind>,
) -> Check {
    let issuer = claims.get("iss").and_then(Value::as_str);
    let audience = claims.get("aud");
    let found = match audience {
        Some(Value::Array(all)) => text::shown_list(all.iter().filter_map(Value::as_str)),
        Some(Value::String(one)) => text::shown_list([one]),
        _ => member(claims, "aud"),
    };
    let optional = match policy.audience_optional {
        true => ", or absent",
        false => "",
    };
    Check::new("aud", outcome)
        .expects(format!(
            "{}{optional}",
            text::setting_list(&policy.audiences)
        ))
        .finds(found)
        .cure_by(cure::audience(
            issuer.unwrap_or_default(),
            audience.is_none(),
        ))
}

/// The time in a claim.
fn time(claims: &Map<String, Value>, name: &str) -> Option<UnixTime> {
    claims.get(name)?.as_f64().and_then(numeric_date)
}

fn leeway(policy: &ClaimsPolicy) -> String {
    format!("leeway {} s", policy.leeway.as_secs())
}

pub(super) fn expiry(
    claims: &Map<String, Value>,
    policy: &ClaimsPolicy,
    outcome: Result<(), RejectionKind>,
    now: UnixTime,
) -> Check {
    let found = match time(claims, "exp") {
        None => member(claims, "exp"),
        Some(time) => {
            let verb = match time <= now {
                true => "expired",
                false => "expires",
            };
            let when = text::relative(time, now);
            format!("{verb} {when}; {} ({time})", leeway(policy))
        }
    };
    let cure = match outcome {
        Err(RejectionKind::Expired) => {
            "Request a new token, before the old one expires. If it is new, compare the clocks of \
             the issuer and of this host"
        }
        _ => "A token without `exp` is never accepted: set a lifetime at the issuer",
    };
    Check::new("exp", outcome)
        .expects("a time to come")
        .finds(found)
        .cure_by(cure)
}

/// `iat` or `nbf`.
pub(super) fn start(
    name: &'static str,
    claims: &Map<String, Value>,
    policy: &ClaimsPolicy,
    outcome: Result<(), RejectionKind>,
    now: UnixTime,
) -> Check {
    let found = match time(claims, name) {
        None => member(claims, name),
        Some(time) => {
            let when = text::relative(time, now);
            format!("{when}; {} ({time})", leeway(policy))
        }
    };
    let cure = match outcome {
        Err(RejectionKind::InvalidClaims) => "`nbf` is after `exp`: the token is never valid",
        _ => "Compare the clocks of the issuer and of this host (NTP), or set a longer `leeway`",
    };
    Check::new(name, outcome)
        .expects("absent, or a time past")
        .finds(found)
        .cure_by(cure)
}

pub(super) fn lifetime(claims: &Map<String, Value>) -> String {
    let start = time(claims, "iat").or_else(|| time(claims, "nbf"));
    match (start, time(claims, "exp")) {
        (Some(start), Some(end)) => text::duration(end.saturating_since(start)),
        (None, _) => "no iat and no nbf".to_owned(),
        (_, None) => "no exp".to_owned(),
    }
}

pub(super) fn profile(claims: &Map<String, Value>, outcome: Result<(), RejectionKind>) -> Check {
    let required = ["sub", "client_id", "iat", "jti"];
    let is_absent = |name: &&&str| claims.get(**name).is_none_or(Value::is_null);
    let missing = required.iter().filter(is_absent);
    let missing: Vec<&str> = missing.copied().collect();
    let found = match missing.is_empty() {
        true => "all of them".to_owned(),
        false => format!("no {}", missing.join(", no ")),
    };
    Check::new("profile", outcome)
        .expects("sub, client_id, iat and jti (RFC 9068 §2.2)")
        .finds(found)
        .cure_by(
            "Keycloak: switch on \"Use \"at+jwt\" as access token header type\" and add the \
             claims. Or use `TokenProfile::Jwt`",
        )
}

pub(super) fn required_claims(token: &AuthContext, rules: &ClaimRules) -> Check {
    let required = || rules.required_claims.iter();
    let of_provider = || rules.provider_rules.iter();
    let expected = required().map(|(name, accepted)| {
        let accepted = text::array(accepted, text::setting);
        format!("{} one of {accepted}", text::escaped(name))
    });
    let expected = expected.chain(of_provider().map(|rule| rule.expected.to_owned()));
    let found = required().map(|(name, _)| {
        let value: Option<Value> = token.claim(name).ok().flatten();
        let value = value.map_or_else(|| "absent".to_owned(), |value| text::shown(&value));
        format!("{} {value}", text::escaped(name))
    });
    let found = found.chain(of_provider().map(|rule| match (rule.is_met)(token) {
        true => rule.expected.to_owned(),
        false => rule.otherwise.to_owned(),
    }));
    let (expected, found) = (text::joined(expected), text::joined(found));
    let outcome = rules.check_required_claims(token);
    let outcome = outcome.and_then(|()| rules.check_provider_rules(token));
    Check::new("required_claims", outcome.map_err(|broken| broken.kind))
        .expects(expected)
        .finds(found)
        .cure_by("Values are compared as JSON: \"1\" is not 1. Add the claim at the issuer")
}

pub(super) fn client(token: &AuthContext, rules: &ClaimRules) -> Check {
    let expected = match &rules.allowed_clients {
        None => "any".to_owned(),
        Some(allowed) => format!("one of {}", text::setting_list(allowed)),
    };
    let client = token.client_id();
    let outcome = rules.check_client(token);
    Check::new("client", outcome.map_err(|broken| broken.kind))
        .expects(expected)
        .finds(client.map_or_else(|| "absent".to_owned(), text::shown))
        .cure_by(
            "Add the client to `allowed_clients`, or say where the token names it with \
             `client_id_from`; without it the first of client_id, azp, appid and cid counts",
        )
}

/// The closures of the program; skipped without their outcome.
pub(super) fn predicates(outcome: Option<Result<(), RejectionKind>>) -> Check {
    let Some(outcome) = outcome else {
        return Check::skipped("require");
    };
    Check::new("require", outcome)
        .expects("`true` of each closure that was set with `require`")
        .finds(if outcome.is_ok() { "`true`" } else { "`false`" })
        .cure_by("See the closures that the program sets with `require`")
}

pub(super) fn scope(token: &AuthContext, rules: &ClaimRules) -> Check {
    let outcome = rules.check_scopes(token).map_err(|broken| broken.kind);
    let expected = match rules.required_scopes.is_empty() {
        true => "any; routes may require more".to_owned(),
        false => format!("all of {}", text::setting_list(&rules.required_scopes)),
    };
    Check::new("scope", outcome)
        .expects(expected)
        .finds(text::shown_list(token.scopes()))
        .cure_by(
            "The client requests the scope, and the issuer allows it to this client. Only `scope` \
             and `scp` are read, not roles",
        )
}

pub(super) fn confirmation(token: &AuthContext, is_bound: bool) -> Check {
    let outcome = match is_bound {
        true => Err(RejectionKind::MissingProofOfPossession),
        false => Ok(()),
    };
    let found = match token.claim::<Value>("cnf") {
        Ok(Some(value)) => text::shown(&value),
        _ => "absent".to_owned(),
    };
    Check::new("cnf", outcome)
        .expects("absent: proofs of possession are not supported")
        .finds(found)
        .cure_by(
            "The token is bound to a key (DPoP, mutual TLS). Have the issuer issue bearer tokens \
             to this client",
        )
}
