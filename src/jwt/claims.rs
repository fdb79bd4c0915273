//! The claims of an access token (RFC 7519 §4.1, RFC 9068 §2.2) and what is expected of them.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::glance::{self, Plain};
use super::header::{Header, Typ};
use super::json::{Document, Name, Names, SizeLimits, Skip, has_long_number};
use super::text::{Strings, Text, Texts, place};
use super::{Algorithm, TokenError};
use crate::clock::UnixTime;
use crate::oauth::{Audience, Issuer};

/// How strictly a token has to be an access token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TokenProfile {
    /// A signed JWT with `iss`, `aud` and `exp`; `typ` absent, `JWT`, `JOSE` or `at+jwt`.
    /// What App ID, Keycloak, Entra and Cognito issue.
    #[default]
    Jwt,
    /// [RFC 9068](https://www.rfc-editor.org/rfc/rfc9068) to the letter: `typ` is `at+jwt`, and
    /// `sub`, `client_id`, `iat` and `jti` are there too.
    Rfc9068,
}

/// What one issuer's tokens have to be like.
#[derive(Clone, Debug)]
pub(crate) struct ClaimsPolicy {
    pub(crate) issuer: Issuer,
    /// Other spellings of the same issuer, such as App ID's v3 host.
    pub(crate) issuer_aliases: Vec<Issuer>,
    /// Any one of them is enough. Never empty.
    pub(crate) audiences: Vec<Audience>,
    pub(crate) algorithms: Vec<Algorithm>,
    pub(crate) profile: TokenProfile,
    /// App ID: the tenant that has to be named, by the claim `tenant` or by the issuer.
    pub(crate) tenant: Option<String>,
    /// App ID: `sub` is the client of an app-to-app token.
    pub(crate) subject_is_client: bool,
    /// App ID: every access token has a string `scope`, and no identity token has one.
    pub(crate) requires_scope: bool,
    /// How many keys are tried where a token does not say which signed it.
    pub(crate) max_candidate_keys: usize,
    pub(crate) leeway: Duration,
    pub(crate) max_lifetime: Option<Duration>,
}

impl ClaimsPolicy {
    /// Whether tokens that expire then are refused now.
    pub(crate) fn is_expired(&self, expires_at: UnixTime, now: UnixTime) -> bool {
        now >= expires_at.saturating_add(self.leeway)
    }
}

/// What tells most tokens that are refused: whose they are, and until when they are good.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Glance<'a> {
    pub(crate) issuer: Option<&'a [u8]>,
    pub(crate) expires_at: Option<UnixTime>,
}

impl<'a> Glance<'a> {
    /// As far as it can be told without reading the claims.
    pub(crate) fn at(payload: &'a [u8]) -> Self {
        let mut glance = Self::default();
        for member in glance::members(payload) {
            match member {
                (b"iss", Plain::Text(issuer)) => glance.issuer = Some(issuer),
                (b"exp", Plain::Number(seconds)) => {
                    glance.expires_at = Some(UnixTime::from_secs(seconds))
                }
                _ => continue,
            }
            if glance.issuer.is_some() && glance.expires_at.is_some() {
                break;
            }
        }
        glance
    }
}

/// Claims as they stand in the payload, borrowed from it.
#[derive(Debug)]
pub(crate) struct Claims<'a> {
    payload: &'a str,
    raw: Raw<'a>,
}

impl<'a> Claims<'a> {
    /// Reads a decoded payload, strictly and once.
    ///
    /// A registered claim of the wrong type is an error even where the claim is not required
    /// (CVE-2026-25537).
    pub(crate) fn parse(payload: &'a str, limits: SizeLimits) -> Result<Self, TokenError> {
        if has_long_number(payload.as_bytes()) {
            return Err(TokenError::Malformed);
        }
        let mut claims = Self {
            payload,
            raw: Raw::default(),
        };
        let mut json = serde_json::Deserializer::from_str(payload);
        let document = Document::new(payload, limits);
        let visitor = RawVisitor {
            document: &document,
            raw: &mut claims.raw,
        };
        match visitor.deserialize(&mut json).and_then(|()| json.end()) {
            Ok(()) => Ok(claims),
            Err(error) if error.is_data() => Err(document.defect(TokenError::InvalidClaims)),
            Err(_) => Err(TokenError::Malformed),
        }
    }

    /// As [`Glance::at`] has it, now that they have been read.
    pub(super) fn glance(&self) -> Glance<'_> {
        Glance {
            issuer: self.raw.iss.as_deref().map(str::as_bytes),
            expires_at: self.raw.exp.map(|date| date.0),
        }
    }

    /// Every check that looks at claims; `now` comes from outside.
    pub(super) fn check(
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
        let raw = &self.raw;
        if !algorithms.contains(&header.algorithm) {
            return Err(TokenError::UnsupportedAlgorithm);
        }
        match (profile, header.typ) {
            (TokenProfile::Rfc9068, Typ::AccessToken) => {}
            (TokenProfile::Jwt, Typ::Absent | Typ::Jwt | Typ::AccessToken) => {}
            _ => return Err(TokenError::UnexpectedTokenType),
        }
        // RFC 7800: such a token is worth nothing without a proof of the key, and a Bearer
        // request has none. Whatever `cnf` holds.
        if raw.has_confirmation {
            return Err(TokenError::MissingProofOfPossession);
        }
        let claimed = raw.iss.as_deref().ok_or(TokenError::InvalidClaims)?;
        if claimed != issuer.as_str()
            && !issuer_aliases.iter().any(|alias| alias.as_str() == claimed)
        {
            return Err(TokenError::UntrustedIssuer);
        }
        if let Some(expected) = tenant {
            let named = match &raw.tenant {
                Some(tenant) => tenant.0.as_deref() == Some(expected),
                // Without the claim the issuer has to say which tenant it is.
                None => claimed.contains(expected.as_str()),
            };
            if !named {
                return Err(TokenError::UntrustedIssuer);
            }
        }
        // Tokens of the same issuer that are no access tokens: OpenID Connect Core §3.1.3.6,
        // Back-Channel Logout §2.4, and what Keycloak (`typ`) and Cognito (`token_use`) say.
        if raw.is_other_token {
            return Err(TokenError::UnexpectedTokenType);
        }
        if *requires_scope && raw.scope.as_ref().is_none_or(Strings::is_array) {
            return Err(TokenError::InvalidClaims);
        }
        let audience = raw.aud.as_ref().ok_or(TokenError::InvalidClaims)?;
        if !audience
            .iter()
            .any(|named| audiences.iter().any(|own| own.as_str() == named))
        {
            return Err(TokenError::InvalidAudience);
        }
        let expires_at = raw.exp.ok_or(TokenError::InvalidClaims)?.0;
        if policy.is_expired(expires_at, now) {
            return Err(TokenError::Expired);
        }
        let latest = now.saturating_add(*leeway);
        if [raw.nbf, raw.iat]
            .iter()
            .flatten()
            .any(|date| date.0 > latest)
        {
            return Err(TokenError::NotYetValid);
        }
        if raw.nbf.is_some_and(|not_before| not_before.0 > expires_at) {
            return Err(TokenError::InvalidClaims);
        }
        if let Some(limit) = max_lifetime {
            let issued_at = raw.iat.or(raw.nbf).ok_or(TokenError::InvalidClaims)?.0;
            if expires_at.saturating_since(issued_at) > *limit {
                return Err(TokenError::InvalidClaims);
            }
        }
        if *profile == TokenProfile::Rfc9068 {
            // RFC 9068 §2.2: these are required besides `iss`, `aud` and `exp`.
            let complete =
                raw.sub.is_some() && raw.client_id.is_some() && raw.iat.is_some() && raw.jti;
            if !complete {
                return Err(TokenError::InvalidClaims);
            }
        }
        Ok(())
    }
}

/// The claims of a token that passed every check.
#[derive(Debug)]
pub(crate) struct ValidatedToken<'a>(Header<'a>, Claims<'a>);

impl<'a> ValidatedToken<'a> {
    pub(super) fn vouched_for(header: Header<'a>, claims: Claims<'a>) -> Self {
        Self(header, claims)
    }

    /// The header that came with them.
    pub(crate) fn header(&self) -> &Header<'a> {
        &self.0
    }

    /// What the rest of the crate asks of them, without a hold on the payload.
    pub(crate) fn summary(&self, subject_is_client: bool) -> Summary {
        let Claims { payload, raw } = &self.1;
        let of_an_app = || {
            raw.amr.as_ref().is_some_and(|amr| {
                amr.iter()
                    .any(|method| method == "appid_client_credentials")
            })
        };
        let client_id = raw.client_id.as_ref().or(raw.azp.as_ref());
        let client_id = client_id.or_else(|| {
            raw.sub
                .as_ref()
                .filter(|_| subject_is_client && of_an_app())
        });
        let date = |date: Option<NumericDate>| date.map_or(UnixTime::from_secs(0), |date| date.0);
        Summary {
            subject: place(payload, raw.sub.as_ref()),
            client_id: place(payload, client_id),
            audience: Texts::of(payload, raw.aud.as_ref()),
            scopes: Texts::of(payload, raw.scope.as_ref().or(raw.scp.as_ref())),
            expires_at: date(raw.exp),
            not_before: date(raw.nbf).max(date(raw.iat)),
        }
    }
}

/// Claims of a token that passed every check, as places in its payload.
#[derive(Clone, Debug)]
pub(crate) struct Summary {
    pub(crate) subject: Option<Text>,
    /// `client_id`, else `azp`, else in App ID's app-to-app tokens `sub`.
    pub(crate) client_id: Option<Text>,
    pub(crate) audience: Texts,
    /// `scope`, else `scp`; each may hold several scope tokens with spaces between them.
    pub(crate) scopes: Texts,
    pub(crate) expires_at: UnixTime,
    /// The later one of `nbf` and `iat`.
    pub(crate) not_before: UnixTime,
}

#[derive(Debug, Default)]
struct Raw<'a> {
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
    tenant: Option<Lenient<'a>>,
    amr: Option<Strings<'a>>,
    has_confirmation: bool,
    is_other_token: bool,
}

/// Fills in what it is given: it is too large to be handed from one to the other.
struct RawVisitor<'d, 'a, 'r> {
    document: &'d Document<'a>,
    raw: &'r mut Raw<'a>,
}

impl<'de> DeserializeSeed<'de> for RawVisitor<'_, 'de, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for RawVisitor<'_, 'de, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a claims set")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let document = self.document;
        let mut names = Names::of(document);
        let strings = StringsSeed(document);
        while let Some(Name(name)) = map.next_key()? {
            match &*name {
                "iss" => self.raw.iss = Some(map.next_value::<Name<'de>>()?.0),
                "sub" => self.raw.sub = Some(map.next_value::<Name<'de>>()?.0),
                "aud" => self.raw.aud = Some(map.next_value_seed(strings)?),
                "exp" => self.raw.exp = Some(map.next_value()?),
                "nbf" => self.raw.nbf = Some(map.next_value()?),
                "iat" => self.raw.iat = Some(map.next_value()?),
                "jti" => self.raw.jti = map.next_value::<Name<'de>>().map(|_| true)?,
                "client_id" => self.raw.client_id = Some(map.next_value::<Name<'de>>()?.0),
                "azp" => self.raw.azp = Some(map.next_value::<Name<'de>>()?.0),
                "scope" => self.raw.scope = Some(map.next_value_seed(strings)?),
                "scp" => self.raw.scp = Some(map.next_value_seed(strings)?),
                "tenant" => self.raw.tenant = Some(map.next_value_seed(Lenient::seed(document))?),
                "amr" => self.raw.amr = Some(map.next_value_seed(strings)?),
                "cnf" => {
                    map.next_value_seed(Skip::top_level(document))?;
                    self.raw.has_confirmation = true;
                }
                "typ" => {
                    let typ = map.next_value_seed(Lenient::seed(document))?.0;
                    self.raw.is_other_token |= matches!(
                        typ.as_deref(),
                        Some("ID" | "Refresh" | "Offline" | "Logout")
                    );
                }
                "token_use" => {
                    let token_use = map.next_value_seed(Lenient::seed(document))?.0;
                    self.raw.is_other_token |= token_use.as_deref() == Some("id");
                }
                "at_hash" | "c_hash" | "events" => {
                    map.next_value_seed(Skip::top_level(document))?;
                    self.raw.is_other_token = true;
                }
                _ => map.next_value_seed(Skip::top_level(document))?,
            }
            names.note(name)?;
        }
        names.finish()
    }
}

/// A string, or some other value, which is not looked at: of claims that are private to some
/// issuers, and so mean nothing in the tokens of others.
#[derive(Debug)]
struct Lenient<'a>(Option<Cow<'a, str>>);

struct LenientSeed<'d, 'de>(Skip<'d, 'de>);

impl Lenient<'_> {
    fn seed<'d, 'de>(document: &'d Document<'de>) -> LenientSeed<'d, 'de> {
        LenientSeed(Skip::top_level(document))
    }
}

impl<'de> DeserializeSeed<'de> for LenientSeed<'_, 'de> {
    type Value = Lenient<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for LenientSeed<'_, 'de> {
    type Value = Lenient<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_borrowed_str<E>(self, string: &'de str) -> Result<Self::Value, E> {
        Ok(Lenient(Some(Cow::Borrowed(string))))
    }

    fn visit_str<E>(self, string: &str) -> Result<Self::Value, E> {
        Ok(Lenient(Some(Cow::Owned(string.to_owned()))))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(Lenient(None))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(Lenient(None))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(Lenient(None))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(Lenient(None))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Lenient(None))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
        self.0.visit_seq(seq).map(|()| Lenient(None))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        self.0.visit_map(map).map(|()| Lenient(None))
    }
}

/// Reads a string or an array of strings.
#[derive(Clone, Copy)]
struct StringsSeed<'d, 'a>(&'d Document<'a>);

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
        while let Some(Name(one)) = seq.next_element()? {
            left = left.checked_sub(1).ok_or_else(|| self.0.too_many())?;
            strings.push(self.0.text(), one);
        }
        Ok(strings)
    }
}

/// A `NumericDate` (RFC 7519 §2); its fraction is cut off.
#[derive(Clone, Copy, Debug)]
struct NumericDate(UnixTime);

impl<'de> Deserialize<'de> for NumericDate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct DateVisitor;

        /// Above this a double no longer tells seconds apart; no date is that far away.
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
                // `Duration` refuses what is negative, infinite or no number.
                let seconds = Duration::try_from_secs_f64(seconds).map_err(E::custom)?;
                self.visit_u64(seconds.as_secs())
            }
        }

        // Not `any`: whatever else a build enables in serde_json, this is read as a number.
        deserializer.deserialize_f64(DateVisitor)
    }
}
