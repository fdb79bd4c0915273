//! The checks of the form of a token and of its header.

use serde_json::{Map, Value};

use super::check::Check;
use crate::jwt::{Algorithm, Segments, decode_base64url, is_forbidden_member, valid_key_id};
use crate::resource_server::RejectionKind;
use crate::text;

pub(super) fn characters(token: &str, is_shown: bool) -> Check {
    let outcome = match is_shown {
        true => Ok(()),
        false => Err(RejectionKind::Malformed),
    };
    let other = token.char_indices().find(|(_, c)| !c.is_ascii_graphic());
    let found = match other {
        None => "only these".to_owned(),
        Some((at, c)) => format!("{c:?} at byte {at}"),
    };
    let starts_with_scheme = token
        .get(..7)
        .is_some_and(|start| start.eq_ignore_ascii_case("bearer "));
    let cure = match starts_with_scheme {
        true => "Pass the token without `Bearer`",
        false => "Remove white space and line ends, such as the one at the end of a file",
    };
    Check::new("characters", outcome)
        .expects("visible ASCII characters")
        .finds(found)
        .cure_by(cure)
}

/// Splits a token. A token with a segment that is no base64url is split, too.
pub(super) fn split(token: &str) -> (Check, Option<Segments<'_>>) {
    const EXPECTED: &str = "3 segments of base64url, separated by dots";
    let failed = |kind, found: &str, cure: &str| {
        let check = Check::failed("segments", kind).expects(EXPECTED);
        check.finds(found).cure_by(cure)
    };
    let malformed = |found: &str, cure: &str| failed(RejectionKind::Malformed, found, cure);
    let segments = match Segments::split(token.as_bytes()) {
        Ok(segments) => segments,
        Err(error) => {
            let kind = RejectionKind::from(error);
            let parts = token.split('.').count();
            let check = match (kind, parts) {
                (RejectionKind::TokenTooLong, _) => {
                    failed(kind, "a header of more than 8 KiB", "Shorten the header")
                }
                (_, 1) => failed(
                    kind,
                    "1 part, an opaque token",
                    "Only signed JWTs are validated here. Auth0 and Better Auth issue them to \
                     clients that request an `audience` or `resource`; some servers have a \
                     setting for the format of access tokens",
                ),
                (_, 5) => failed(
                    kind,
                    "5 parts, an encrypted token (JWE)",
                    "Have the issuer sign access tokens without encrypting them",
                ),
                (_, 3) => failed(
                    kind,
                    "an empty part, or a signature of more than 1366 characters",
                    "The token is cut or unsigned (`alg` none)",
                ),
                _ => failed(kind, &text::count(parts, "part"), "Copy the whole token"),
            };
            return (check, None);
        }
    };
    let parts = [
        ("header", segments.header),
        ("payload", segments.payload),
        ("signature", segments.signature),
    ];
    let wrong = parts
        .into_iter()
        .find(|(_, part)| decode_base64url(part).is_err());
    let check = match wrong {
        None => {
            let [header, payload, signature] = parts.map(|(_, part)| part.len());
            let found = format!("3 segments of {header}, {payload} and {signature} characters");
            Check::passed("segments").expects(EXPECTED).finds(found)
        }
        Some((name, part)) => {
            let found = format!("a {name} that is no base64url");
            let cure = if part.contains(&b'=') {
                "Remove the padding (`=`): RFC 7515 §2 has none"
            } else if part.contains(&b'"') || part.contains(&b'\'') {
                "Remove the quotes around the token"
            } else {
                "The token is cut, or was encoded with another alphabet (`+`, `/`)"
            };
            malformed(&found, cure)
        }
    };
    (check, Some(segments))
}

/// What a document with these members is called.
pub(super) fn object(members: &Map<String, Value>, outcome: Result<(), RejectionKind>) -> String {
    let names = text::joined(members.keys().map(|name| text::shown_text(name)));
    match outcome {
        Ok(()) if members.is_empty() => "an empty object".to_owned(),
        Ok(()) => format!("an object with {names}"),
        Err(RejectionKind::TooManyMembers) => "too many members".to_owned(),
        Err(_) if members.is_empty() => "no JSON object".to_owned(),
        Err(_) => format!("an object with {names}, one of them twice or nested too deep"),
    }
}

/// A member as JSON, or "absent".
pub(super) fn member(members: &Map<String, Value>, name: &str) -> String {
    let value = members.get(name);
    value.map_or_else(|| "absent".to_owned(), text::shown)
}

pub(super) fn one_of(algorithms: &[Algorithm]) -> String {
    let names: Vec<&str> = algorithms.iter().map(|one| one.name()).collect();
    format!("one of {}", names.join(", "))
}

/// `alg` of a header that cannot be parsed; that of another depends on the issuer.
pub(super) fn unsupported_algorithm(
    header: &Map<String, Value>,
    error: Option<RejectionKind>,
) -> Option<Check> {
    let kind = error?;
    let name = header.get("alg").and_then(Value::as_str);
    let is_supported = name.is_some_and(|name| Algorithm::from_name(name).is_some());
    let outcome = match kind {
        RejectionKind::UnsupportedAlgorithm => Err(kind),
        _ if header.is_empty() => return Some(Check::skipped("alg")),
        _ if is_supported => Ok(()),
        _ => Err(RejectionKind::UnsupportedAlgorithm),
    };
    let cure = match name {
        Some("HS256" | "HS384" | "HS512") => {
            "Anyone who can verify HMAC can sign as well: have the issuer sign with RS256, ES256 or \
             EdDSA. Auth0: the signing algorithm of the API is a setting of it"
        }
        Some("none") => "An unsigned token is never accepted",
        _ => "Have the issuer sign with one of these algorithms",
    };
    let check = Check::new("alg", outcome).expects(one_of(Algorithm::ALL));
    Some(check.finds(member(header, "alg")).cure_by(cure))
}

/// Members that change the meaning of a token.
pub(super) fn extensions(header: &Map<String, Value>, error: Option<RejectionKind>) -> Check {
    let names = header.keys().filter(|name| is_forbidden_member(name));
    let found = text::joined(names.map(|name| format!("{name} {}", member(header, name))));
    let outcome = match error {
        Some(_) if !found.is_empty() => Err(RejectionKind::Malformed),
        _ => Ok(()),
    };
    let found = match found.is_empty() {
        true => "absent".to_owned(),
        false => found,
    };
    Check::new("crit", outcome)
        .expects("no crit, b64, cty, enc, zip")
        .finds(found)
        .cure_by("Have the issuer sign plain JWTs: no extension of JWS is supported")
}

pub(super) fn key_id(header: &Map<String, Value>, error: Option<RejectionKind>) -> Check {
    let is_valid = match header.get("kid") {
        None => true,
        Some(Value::String(kid)) => valid_key_id(kid.into()).is_some(),
        Some(_) => false,
    };
    let outcome = match error {
        Some(_) if !is_valid => Err(RejectionKind::Malformed),
        _ => Ok(()),
    };
    Check::new("kid", outcome)
        .expects("absent, or a string of 1 to 255 bytes without control characters")
        .finds(member(header, "kid"))
        .cure_by("Give the key of the issuer another `kid`")
}

/// `typ` of a header that cannot be parsed; that of another depends on the issuer.
pub(super) fn malformed_type(
    header: &Map<String, Value>,
    error: Option<RejectionKind>,
) -> Option<Check> {
    let typ = header.get("typ").filter(|typ| !typ.is_string())?;
    let check = Check::failed("typ", error?).expects("a string");
    Some(check.finds(text::shown(typ)))
}
