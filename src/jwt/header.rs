//! The JOSE header (RFC 7515 §4): the members that select the key, and those that are rejected.

use std::borrow::Cow;

use serde::de::MapAccess;

use super::algorithm::Algorithm;
use super::error::TokenError;
use super::strict_json::{self, FromMembers, MemberValue, SizeLimits};

/// The longest `kid`, in bytes.
const MAX_KEY_ID: usize = 255;

/// The members of a JOSE header that are used.
///
/// `jku`, `jwk`, `x5u`, `x5c` and `x5t` are ignored: a key never comes from a token.
#[derive(Debug)]
pub(crate) struct Header {
    pub(crate) algorithm: Algorithm,
    pub(crate) key_id: Option<Box<str>>,
    pub(crate) typ: Typ,
}

/// Returns this `kid` if it has at most 255 bytes and no control characters.
pub(crate) fn valid_key_id(kid: Cow<'_, str>) -> Option<Box<str>> {
    (!kid.is_empty() && kid.len() <= MAX_KEY_ID && !kid.chars().any(char::is_control))
        .then(|| kid.into())
}

/// Whether a header with this member is rejected.
///
/// RFC 7515 §4.1.11: an unsupported extension makes the token invalid, and none is supported. `b64`
/// (RFC 7797) and `zip` change what is signed, `enc` makes it a JWE, and `cty` a nested token.
pub(crate) fn is_forbidden_member(name: &str) -> bool {
    matches!(name, "b64" | "crit" | "cty" | "enc" | "zip")
}

/// The `typ` of a token (RFC 7519 §5.1, RFC 9068 §2.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Typ {
    #[default]
    Absent,
    /// `JWT`, or `JOSE` as in App ID's v3 tokens.
    Jwt,
    /// `at+jwt` of RFC 9068.
    AccessToken,
    /// Never an access token: an ID token, a DPoP proof, a logout token, a security event.
    Other,
}

impl Typ {
    /// A media type, whose `application/` may be omitted (RFC 7515 §4.1.9), in any case.
    fn from_name(name: &str) -> Self {
        const PREFIX: &str = "application/";
        let short = match name.split_at_checked(PREFIX.len()) {
            Some((prefix, rest)) if prefix.eq_ignore_ascii_case(PREFIX) => rest,
            _ => name,
        };
        let is = |other: &str| short.eq_ignore_ascii_case(other);
        if is("JWT") || is("JOSE") {
            Self::Jwt
        } else if is("at+jwt") {
            Self::AccessToken
        } else {
            Self::Other
        }
    }
}

impl Header {
    /// Parses a decoded header strictly, in one pass, which an unsupported `alg` ends.
    pub(crate) fn parse(json: &[u8]) -> Result<Self, TokenError> {
        let json = std::str::from_utf8(json).map_err(|_| TokenError::Malformed)?;
        let check = |name: &str, members: &HeaderMembers<'_>| match (name, members.algorithm) {
            ("alg", None) => Err(TokenError::UnsupportedAlgorithm),
            _ => Ok(()),
        };
        let members = strict_json::parse(json, SizeLimits::DEFAULT, TokenError::Malformed, &check)?;
        let algorithm = members.algorithm.ok_or(TokenError::UnsupportedAlgorithm)?;
        if members.is_forbidden {
            return Err(TokenError::Malformed);
        }
        let key_id = match members.kid {
            None => None,
            Some(kid) => Some(valid_key_id(kid).ok_or(TokenError::Malformed)?),
        };
        Ok(Self {
            algorithm,
            key_id,
            typ: members.typ,
        })
    }
}

#[derive(Default)]
struct HeaderMembers<'a> {
    algorithm: Option<Algorithm>,
    kid: Option<Cow<'a, str>>,
    typ: Typ,
    is_forbidden: bool,
}

impl<'de> FromMembers<'de> for HeaderMembers<'de> {
    fn read<A: MapAccess<'de>>(
        &mut self,
        name: &str,
        value: MemberValue<'_, 'de, A>,
    ) -> Result<(), A::Error> {
        match name {
            "alg" => self.algorithm = Algorithm::from_name(&value.string()?),
            "kid" => self.kid = Some(value.string()?),
            "typ" => self.typ = Typ::from_name(&value.string()?),
            _ => {
                value.string_or_other()?;
                self.is_forbidden |= is_forbidden_member(name);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(json: &str) -> TokenError {
        Header::parse(json.as_bytes()).expect_err(json)
    }

    #[test]
    fn an_app_id_header_is_parsed() {
        let header =
            Header::parse(br#"{"alg":"RS256","typ":"JWT","kid":"appId-1","ver":4}"#).unwrap();
        assert_eq!(header.algorithm, Algorithm::Rs256);
        assert_eq!(header.key_id.as_deref(), Some("appId-1"));
        assert_eq!(header.typ, Typ::Jwt);
    }

    #[test]
    fn the_long_form_of_a_type_is_the_same_as_the_short_one() {
        let typ = |name: &str| {
            let header = serde_json::json!({ "alg": "RS256", "typ": name }).to_string();
            Header::parse(header.as_bytes()).unwrap().typ
        };
        for (short, expected) in [
            ("JWT", Typ::Jwt),
            ("jose", Typ::Jwt),
            ("at+jwt", Typ::AccessToken),
            ("AT+JWT", Typ::AccessToken),
            ("dpop+jwt", Typ::Other),
            ("logout+jwt", Typ::Other),
            ("secevent+jwt", Typ::Other),
            ("", Typ::Other),
            ("/JWT", Typ::Other),
            ("application/JWT", Typ::Other),
        ] {
            for prefix in ["application/", "Application/", "APPLICATION/"] {
                assert_eq!(
                    typ(&format!("{prefix}{short}")),
                    expected,
                    "{prefix}{short}"
                );
            }
        }
        for other in [
            "text/JWT",
            "applicatio/JWT",
            "applicationJWT",
            "é/JWT",
            "application",
        ] {
            assert_eq!(typ(other), Typ::Other, "{other}");
        }
    }

    #[test]
    fn members_that_change_the_meaning_of_the_token_are_rejected() {
        for member in [
            r#""crit":["b64"]"#,
            r#""crit":[]"#,
            r#""crit":"exp""#,
            r#""crit":null"#,
            r#""b64":false"#,
            r#""b64":true"#,
            r#""zip":"DEF""#,
            r#""enc":"A128GCM""#,
            r#""cty":"JWT""#,
        ] {
            assert_eq!(
                error(&format!(r#"{{"alg":"RS256",{member}}}"#)),
                TokenError::Malformed,
                "{member}"
            );
        }
    }

    #[test]
    fn duplicate_names_are_rejected_even_with_escapes() {
        assert_eq!(
            error(r#"{"alg":"RS256","alg":"RS256"}"#),
            TokenError::Malformed
        );
        assert_eq!(
            error(r#"{"alg":"RS256","\u0061lg":"ES256"}"#),
            TokenError::Malformed
        );
        assert_eq!(
            error(r#"{"alg":"RS256","x":1,"x":1}"#),
            TokenError::Malformed
        );
    }

    #[test]
    fn depth_and_number_of_members_are_limited() {
        let deep = format!(
            r#"{{"alg":"RS256","x":{}{}}}"#,
            "[".repeat(40),
            "]".repeat(40)
        );
        assert_eq!(error(&deep), TokenError::Malformed);
        let shallow = format!(
            r#"{{"alg":"RS256","x":{}{}}}"#,
            "[".repeat(20),
            "]".repeat(20)
        );
        assert!(Header::parse(shallow.as_bytes()).is_ok());
        let many: Vec<String> = (0..300).map(|i| format!(r#""m{i}":0"#)).collect();
        assert_eq!(
            error(&format!(r#"{{"alg":"RS256",{}}}"#, many.join(","))),
            TokenError::TooManyMembers
        );
    }
}
