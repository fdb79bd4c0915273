//! The claims of an access token (RFC 7519 §4.1, RFC 9068 §2.2) and their validation.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::algorithm::Algorithm;
use super::error::TokenError;
use super::header::{Header, Typ};
use super::prescan::{self, Plain};
use super::strict_json::{
    ParseState, SizeLimits, StrKey, StrictIgnored, UniqueKeys, has_long_number,
};
use super::text::{self, Strings, Text, Texts};
use crate::clock::UnixTime;
use crate::oauth::{Audience, Issuer};

/// Which tokens are accepted as access tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TokenProfile {
    /// A signed JWT with `iss`, `aud` and `exp`; `typ` absent, `JWT`, `JOSE` or `at+jwt`.
    /// What App ID, Keycloak, Entra and Cognito issue.
    #[default]
    Jwt,
    /// An [RFC 9068](https://www.rfc-editor.org/rfc/rfc9068) access token: `typ` is `at+jwt`, and
    /// `sub`, `client_id`, `iat` and `jti` are required too.
    Rfc9068,
}

/// The requirements on one issuer's tokens.
#[derive(Clone, Debug)]
pub(crate) struct ClaimsPolicy {
    pub(crate) issuer: Issuer,
    /// Other `iss` values of the same issuer, such as App ID's v3 host.
    pub(crate) issuer_aliases: Vec<Issuer>,
    /// One of them is enough. Never empty.
    pub(crate) audiences: Vec<Audience>,
    pub(crate) algorithms: Vec<Algorithm>,
    pub(crate) profile: TokenProfile,
    /// App ID: the required tenant, in the claim `tenant` or in `iss`.
    pub(crate) tenant: Option<String>,
    /// App ID: `sub` of an app-to-app token is its client.
    pub(crate) subject_is_client: bool,
    /// App ID: `scope` must be a string, which access tokens have and identity tokens do not.
    pub(crate) requires_scope: bool,
    /// How many keys are tried for a token that does not identify its key.
    pub(crate) max_candidate_keys: usize,
    pub(crate) leeway: Duration,
    pub(crate) max_lifetime: Option<Duration>,
}

impl ClaimsPolicy {
    /// Whether a token with this `exp` is expired, leeway included.
    pub(crate) fn is_expired(&self, expires_at: UnixTime, now: UnixTime) -> bool {
        now >= expires_at.saturating_add(self.leeway)
    }
}

/// The claimed `iss` and `exp`, which are enough to reject most tokens.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PrescannedClaims<'a> {
    pub(crate) issuer: Option<&'a [u8]>,
    pub(crate) expires_at: Option<UnixTime>,
}

impl<'a> PrescannedClaims<'a> {
    /// Prescans a payload for both, without parsing it.
    pub(crate) fn at(payload: &'a [u8]) -> Self {
        let mut claimed = Self::default();
        for member in prescan::members(payload) {
            match member {
                (b"iss", Plain::Text(issuer)) => claimed.issuer = Some(issuer),
                (b"exp", Plain::Number(seconds)) => {
                    claimed.expires_at = Some(UnixTime::from_secs(seconds))
                }
                _ => continue,
            }
            if claimed.issuer.is_some() && claimed.expires_at.is_some() {
                break;
            }
        }
        claimed
    }
}

/// The claims of a payload, borrowed from it.
#[derive(Debug)]
pub(crate) struct UnverifiedClaims<'a> {
    payload: &'a str,
    registered: RegisteredClaims<'a>,
}

impl<'a> UnverifiedClaims<'a> {
    /// Parses a decoded payload strictly, in one pass.
    ///
    /// A registered claim of the wrong type is an error even if the claim is not required
    /// (CVE-2026-25537).
    pub(crate) fn parse(payload: &'a str, limits: SizeLimits) -> Result<Self, TokenError> {
        if has_long_number(payload.as_bytes()) {
            return Err(TokenError::Malformed);
        }
        let mut claims = Self {
            payload,
            registered: RegisteredClaims::default(),
        };
        let mut json = serde_json::Deserializer::from_str(payload);
        let state = ParseState::new(payload, limits);
        let visitor = ClaimsVisitor {
            state: &state,
            registered: &mut claims.registered,
        };
        match visitor.deserialize(&mut json).and_then(|()| json.end()) {
            Ok(()) => Ok(claims),
            Err(error) if error.is_data() => Err(state.error_or(TokenError::InvalidClaims)),
            Err(_) => Err(TokenError::Malformed),
        }
    }

    /// The same as [`PrescannedClaims::at`], from the parsed claims.
    pub(super) fn prescanned(&self) -> PrescannedClaims<'_> {
        PrescannedClaims {
            issuer: self.registered.iss.as_deref().map(str::as_bytes),
            expires_at: self.registered.exp.map(|date| date.0),
        }
    }

    /// Validates the claims against `policy` at `now`.
    pub(super) fn validate(
        &self,
        header: &Header<'_>,
        policy: &ClaimsPolicy,
        now: UnixTime,
    ) -> Result<(), TokenError> {
        let ClaimsPolicy {
            issuer,
            issuer_aliases,
            audiences,
            algorithms,
            profile,
            tenant,
            subject_is_client: _,
            requires_scope,
            max_candidate_keys: _,
            leeway,
            max_lifetime,
        } = policy;
        let registered = &self.registered;
        if !algorithms.contains(&header.algorithm) {
            return Err(TokenError::UnsupportedAlgorithm);
        }
        match (profile, header.typ) {
            (TokenProfile::Rfc9068, Typ::AccessToken) => {}
            (TokenProfile::Jwt, Typ::Absent | Typ::Jwt | Typ::AccessToken) => {}
            _ => return Err(TokenError::UnexpectedTokenType),
        }
        // RFC 7800: such a token requires proof of possession, which a Bearer request does not
        // have. The content of `cnf` does not matter.
        if registered.has_confirmation {
            return Err(TokenError::MissingProofOfPossession);
        }
        let claimed = registered.iss.as_deref().ok_or(TokenError::InvalidClaims)?;
        if claimed != issuer.as_str()
            && !issuer_aliases.iter().any(|alias| alias.as_str() == claimed)
        {
            return Err(TokenError::UntrustedIssuer);
        }
        if let Some(expected) = tenant {
            let has_tenant = match &registered.tenant {
                Some(tenant) => tenant.0.as_deref() == Some(expected),
                // Without the claim, `iss` must contain the tenant.
                None => claimed.contains(expected.as_str()),
            };
            if !has_tenant {
                return Err(TokenError::UntrustedIssuer);
            }
        }
        // Other tokens of the same issuer: OpenID Connect Core §3.1.3.6, Back-Channel Logout §2.4,
        // Keycloak's `typ` and Cognito's `token_use`.
        if registered.is_other_token {
            return Err(TokenError::UnexpectedTokenType);
        }
        if *requires_scope && registered.scope.as_ref().is_none_or(Strings::is_array) {
            return Err(TokenError::InvalidClaims);
        }
        let audience = registered.aud.as_ref().ok_or(TokenError::InvalidClaims)?;
        if !audience.iter().any(|claimed| {
            audiences
                .iter()
                .any(|accepted| accepted.as_str() == claimed)
        }) {
            return Err(TokenError::InvalidAudience);
        }
        let expires_at = registered.exp.ok_or(TokenError::InvalidClaims)?.0;
        if policy.is_expired(expires_at, now) {
            return Err(TokenError::Expired);
        }
        let latest = now.saturating_add(*leeway);
        if [registered.nbf, registered.iat]
            .iter()
            .flatten()
            .any(|date| date.0 > latest)
        {
            return Err(TokenError::NotYetValid);
        }
        if registered
            .nbf
            .is_some_and(|not_before| not_before.0 > expires_at)
        {
            return Err(TokenError::InvalidClaims);
        }
        if let Some(limit) = max_lifetime {
            let issued_at = registered
                .iat
                .or(registered.nbf)
                .ok_or(TokenError::InvalidClaims)?
                .0;
            if expires_at.saturating_since(issued_at) > *limit {
                return Err(TokenError::InvalidClaims);
            }
        }
        if *profile == TokenProfile::Rfc9068 {
            // RFC 9068 §2.2: required besides `iss`, `aud` and `exp`.
            let complete = registered.sub.is_some()
                && registered.client_id.is_some()
                && registered.iat.is_some()
                && registered.jti;
            if !complete {
                return Err(TokenError::InvalidClaims);
            }
        }
        Ok(())
    }
}

/// A token whose signature and claims are valid.
#[derive(Debug)]
pub(crate) struct ValidatedToken<'a>(Header<'a>, UnverifiedClaims<'a>);

impl<'a> ValidatedToken<'a> {
    pub(super) fn new(header: Header<'a>, claims: UnverifiedClaims<'a>) -> Self {
        Self(header, claims)
    }

    /// The JOSE header.
    pub(crate) fn header(&self) -> &Header<'a> {
        &self.0
    }

    /// The claims that requests use, without a borrow of the payload.
    pub(crate) fn claims(&self, subject_is_client: bool) -> Claims {
        let UnverifiedClaims {
            payload,
            registered,
        } = &self.1;
        let is_app_to_app = || {
            registered.amr.as_ref().is_some_and(|amr| {
                amr.iter()
                    .any(|method| method == "appid_client_credentials")
            })
        };
        let client_id = registered.client_id.as_ref().or(registered.azp.as_ref());
        let client_id = client_id.or_else(|| {
            registered
                .sub
                .as_ref()
                .filter(|_| subject_is_client && is_app_to_app())
        });
        let date = |date: Option<NumericDate>| date.map_or(UnixTime::from_secs(0), |date| date.0);
        Claims {
            subject: text::text(payload, registered.sub.as_ref()),
            client_id: text::text(payload, client_id),
            audience: Texts::of(payload, registered.aud.as_ref()),
            scopes: Texts::of(
                payload,
                registered.scope.as_ref().or(registered.scp.as_ref()),
            ),
            expires_at: date(registered.exp),
            not_before: date(registered.nbf).max(date(registered.iat)),
        }
    }
}

/// Claims of a validated token, as ranges of its payload.
#[derive(Clone, Debug)]
pub(crate) struct Claims {
    pub(crate) subject: Option<Text>,
    /// `client_id`, else `azp`, else in App ID's app-to-app tokens `sub`.
    pub(crate) client_id: Option<Text>,
    pub(crate) audience: Texts,
    /// `scope`, else `scp`; each string may have several scopes, separated by spaces.
    pub(crate) scopes: Texts,
    pub(crate) expires_at: UnixTime,
    /// The later one of `nbf` and `iat`.
    pub(crate) not_before: UnixTime,
}

#[derive(Debug, Default)]
struct RegisteredClaims<'a> {
    iss: Option<Cow<'a, str>>,
    sub: Option<Cow<'a, str>>,
    aud: Option<Strings<'a>>,
    exp: Option<NumericDate>,
    nbf: Option<NumericDate>,
    iat: Option<NumericDate>,
    jti: bool,
    client_id: Option<Cow<'a, str>>,
    azp: Option<Cow<'a, str>>,
    scope: Option<Strings<'a>>,
    scp: Option<Strings<'a>>,
    tenant: Option<StringOrIgnored<'a>>,
    amr: Option<Strings<'a>>,
    has_confirmation: bool,
    is_other_token: bool,
}

/// Writes to a borrowed `RegisteredClaims`, which is too large to be moved.
struct ClaimsVisitor<'d, 'a, 'r> {
    state: &'d ParseState<'a>,
    registered: &'r mut RegisteredClaims<'a>,
}

impl<'de> DeserializeSeed<'de> for ClaimsVisitor<'_, 'de, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for ClaimsVisitor<'_, 'de, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a claims set")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let state = self.state;
        let mut keys = UniqueKeys::new(state);
        let strings = StringsSeed(state);
        while let Some(StrKey(key)) = map.next_key()? {
            match &*key {
                "iss" => self.registered.iss = Some(map.next_value::<StrKey<'de>>()?.0),
                "sub" => self.registered.sub = Some(map.next_value::<StrKey<'de>>()?.0),
                "aud" => self.registered.aud = Some(map.next_value_seed(strings)?),
                "exp" => self.registered.exp = Some(map.next_value()?),
                "nbf" => self.registered.nbf = Some(map.next_value()?),
                "iat" => self.registered.iat = Some(map.next_value()?),
                "jti" => self.registered.jti = map.next_value::<StrKey<'de>>().map(|_| true)?,
                "client_id" => self.registered.client_id = Some(map.next_value::<StrKey<'de>>()?.0),
                "azp" => self.registered.azp = Some(map.next_value::<StrKey<'de>>()?.0),
                "scope" => self.registered.scope = Some(map.next_value_seed(strings)?),
                "scp" => self.registered.scp = Some(map.next_value_seed(strings)?),
                "tenant" => {
                    self.registered.tenant =
                        Some(map.next_value_seed(StringOrIgnored::seed(state))?)
                }
                "amr" => self.registered.amr = Some(map.next_value_seed(strings)?),
                "cnf" => {
                    map.next_value_seed(StrictIgnored::top_level(state))?;
                    self.registered.has_confirmation = true;
                }
                "typ" => {
                    let typ = map.next_value_seed(StringOrIgnored::seed(state))?.0;
                    self.registered.is_other_token |= matches!(
                        typ.as_deref(),
                        Some("ID" | "Refresh" | "Offline" | "Logout")
                    );
                }
                "token_use" => {
                    let token_use = map.next_value_seed(StringOrIgnored::seed(state))?.0;
                    self.registered.is_other_token |= token_use.as_deref() == Some("id");
                }
                "at_hash" | "c_hash" | "events" => {
                    map.next_value_seed(StrictIgnored::top_level(state))?;
                    self.registered.is_other_token = true;
                }
                _ => map.next_value_seed(StrictIgnored::top_level(state))?,
            }
            keys.insert(key)?;
        }
        keys.finish()
    }
}

/// A string, or an ignored value of another type. For private claims of some issuers, which may
/// have any type in tokens of others.
#[derive(Debug)]
struct StringOrIgnored<'a>(Option<Cow<'a, str>>);

struct StringOrIgnoredSeed<'d, 'de>(StrictIgnored<'d, 'de>);

impl StringOrIgnored<'_> {
    fn seed<'d, 'de>(state: &'d ParseState<'de>) -> StringOrIgnoredSeed<'d, 'de> {
        StringOrIgnoredSeed(StrictIgnored::top_level(state))
    }
}

impl<'de> DeserializeSeed<'de> for StringOrIgnoredSeed<'_, 'de> {
    type Value = StringOrIgnored<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for StringOrIgnoredSeed<'_, 'de> {
    type Value = StringOrIgnored<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_borrowed_str<E>(self, string: &'de str) -> Result<Self::Value, E> {
        Ok(StringOrIgnored(Some(Cow::Borrowed(string))))
    }

    fn visit_str<E>(self, string: &str) -> Result<Self::Value, E> {
        Ok(StringOrIgnored(Some(Cow::Owned(string.to_owned()))))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(StringOrIgnored(None))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(StringOrIgnored(None))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(StringOrIgnored(None))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(StringOrIgnored(None))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(StringOrIgnored(None))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
        self.0.visit_seq(seq).map(|()| StringOrIgnored(None))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        self.0.visit_map(map).map(|()| StringOrIgnored(None))
    }
}

/// Deserializes a string or an array of strings.
#[derive(Clone, Copy)]
struct StringsSeed<'d, 'a>(&'d ParseState<'a>);

impl<'de> DeserializeSeed<'de> for StringsSeed<'_, 'de> {
    type Value = Strings<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for StringsSeed<'_, 'de> {
    type Value = Strings<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string or an array of strings")
    }

    fn visit_borrowed_str<E>(self, one: &'de str) -> Result<Self::Value, E> {
        let mut strings = Strings::default();
        strings.push(self.0.text(), Cow::Borrowed(one));
        Ok(strings)
    }

    fn visit_str<E>(self, one: &str) -> Result<Self::Value, E> {
        let mut strings = Strings::default();
        strings.push(self.0.text(), Cow::Owned(one.to_owned()));
        Ok(strings)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut strings = Strings::array();
        let mut left = self.0.max_strings();
        while let Some(StrKey(one)) = seq.next_element()? {
            left = left.checked_sub(1).ok_or_else(|| self.0.too_many())?;
            strings.push(self.0.text(), one);
        }
        Ok(strings)
    }
}

/// A `NumericDate` (RFC 7519 §2), truncated to seconds.
#[derive(Clone, Copy, Debug)]
struct NumericDate(UnixTime);

impl<'de> Deserialize<'de> for NumericDate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct DateVisitor;

        /// Above this a double does not represent every second.
        const LIMIT: u64 = 1 << 53;

        impl Visitor<'_> for DateVisitor {
            type Value = NumericDate;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("seconds since the epoch")
            }

            fn visit_u64<E: serde::de::Error>(self, seconds: u64) -> Result<NumericDate, E> {
                if seconds >= LIMIT {
                    return Err(E::custom("out of range"));
                }
                Ok(NumericDate(UnixTime::from_secs(seconds)))
            }

            fn visit_f64<E: serde::de::Error>(self, seconds: f64) -> Result<NumericDate, E> {
                // `Duration` rejects negative, infinite and NaN values.
                let seconds = Duration::try_from_secs_f64(seconds).map_err(E::custom)?;
                self.visit_u64(seconds.as_secs())
            }
        }

        // Not `deserialize_any`, which differs with serde_json's `arbitrary_precision`.
        deserializer.deserialize_f64(DateVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prescan_agrees_with_the_strict_parser() {
        let issuers = [
            r#""iss":"https://as.example""#,
            r#""iss":"https:\/\/as.example""#,
            r#""iss":"\u0068ttps://as.example""#,
            r#""i\u0073s":"https://as.example""#,
            r#""iss" : "https://as.example""#,
            r#""iss":"""#,
            r#""iss":"\"""#,
            r#""iss":"ä""#,
        ];
        let dates = [
            "1",
            "0",
            "1700000000",
            "1.7e9",
            "1700000000.5",
            "1700000000E0",
            "17e8",
            "9007199254740991",
        ];
        let others = [
            r#""a":"\"iss\":\"x\"""#,
            r#""a":["iss","exp"]"#,
            r#""a":{"iss":"x","exp":2}"#,
            r#""a":[{"exp":3}]"#,
            r#""a":-1"#,
            r#""a":false"#,
            r#""iss ":"x","exp2":3"#,
        ];
        let mut found = (0, 0);
        for issuer in issuers {
            for date in dates.map(|date| format!(r#""exp":{date}"#)) {
                for other in others {
                    for [one, two, three] in [
                        [issuer, &date, other],
                        [&date, other, issuer],
                        [other, issuer, &date],
                        [&date, issuer, other],
                    ] {
                        let payload = format!("{{{one},{two},{three}}}");
                        let (claimed, claims) = (
                            PrescannedClaims::at(payload.as_bytes()),
                            UnverifiedClaims::parse(&payload, SizeLimits::DEFAULT).unwrap(),
                        );
                        let parsed = claims.prescanned();
                        assert!(
                            claimed.issuer.is_none() || claimed.issuer == parsed.issuer,
                            "{payload}"
                        );
                        assert!(
                            claimed.expires_at.is_none() || claimed.expires_at == parsed.expires_at,
                            "{payload}"
                        );
                        found.0 += usize::from(claimed.issuer.is_some());
                        found.1 += usize::from(claimed.expires_at.is_some());
                    }
                }
            }
        }
        assert!(found.0 > 100 && found.1 > 100, "{found:?}");
    }
}
