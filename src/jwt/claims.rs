//! The claims of an access token (RFC 7519 §4.1, RFC 9068 §2.2) and their validation.

use std::borrow::Cow;
use std::time::Duration;

use serde::de::{Error, MapAccess};

use super::algorithm::Algorithm;
use super::confirmation::Confirmation;
use super::error::TokenError;
use super::header::{Header, Typ};
use super::strict_json::{self, FromMembers, MemberValue, SizeLimits, Value, has_long_number};
use super::verification_key::VerificationKey;
use crate::clock::UnixTime;
use crate::oauth::{Audience, Issuer};

/// Which tokens are accepted as access tokens.
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), tower_oauth::BoxError> {
/// # use tower_oauth::authorization_server::AuthorizationServer;
/// # use tower_oauth::resource_server::Algorithm;
/// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
/// # let shop = issuer.register("shop")?;
/// use tower_oauth::resource_server::TokenProfile;
/// use tower_oauth::{Audience, ResourceServer, TrustedIssuer};
///
/// let trusted = TrustedIssuer::new(issuer.issuer(), Audience::new("orders")?)
///     .profile(TokenProfile::Rfc9068)
///     .transport(issuer.transport());
/// let orders = ResourceServer::from_issuer(trusted).start().await?;
/// let mint = || issuer.mint(&shop).audience(["orders"]).rfc9068();
/// assert!(orders.validate(&mint().sign()).await.is_ok());
/// assert!(orders.validate(&mint().without("jti").sign()).await.is_err());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TokenProfile {
    /// A signed JWT with `iss`, `aud` and `exp`.
    ///
    /// What App ID, Keycloak, Entra and Cognito issue. `typ` is absent, `JWT`, `JOSE` or `at+jwt`,
    /// in any case, also with `application/` before it.
    #[default]
    Jwt,
    /// An [RFC 9068](https://www.rfc-editor.org/rfc/rfc9068) access token: `typ` is `at+jwt` or
    /// `application/at+jwt`, and `sub`, `client_id`, `iat` and `jti` are required too.
    Rfc9068,
}

impl TokenProfile {
    /// The `typ` that is accepted, in words.
    pub(crate) fn expected_type(self) -> &'static str {
        match self {
            Self::Jwt => r#"absent, "JWT", "JOSE" or "at+jwt""#,
            Self::Rfc9068 => r#""at+jwt""#,
        }
    }
}

/// The requirements on one issuer's tokens.
#[derive(Clone, Debug)]
pub(crate) struct ClaimsPolicy {
    pub(crate) issuer: Issuer,
    /// Other `iss` values of the same issuer.
    pub(crate) issuer_aliases: Vec<Issuer>,
    /// One of them is enough. Empty only with `audience_optional`.
    pub(crate) audiences: Vec<Audience>,
    /// Whether `aud` may be absent. It must match if it is present.
    pub(crate) audience_optional: bool,
    /// Whether a key whose member `issuer` names another issuer verifies no token.
    pub(crate) checks_key_issuers: bool,
    pub(crate) algorithms: Vec<Algorithm>,
    pub(crate) profile: TokenProfile,
    /// How many keys are tried for a token that does not identify its key.
    pub(crate) max_candidate_keys: usize,
    pub(crate) leeway: Duration,
    pub(crate) max_lifetime: Option<Duration>,
}

impl ClaimsPolicy {
    /// The trusted name that equals this `iss`: the issuer's or an alias.
    pub(crate) fn find_issuer(&self, claimed: &str) -> Option<&Issuer> {
        std::iter::once(&self.issuer)
            .chain(&self.issuer_aliases)
            .find(|name| name.as_str() == claimed)
    }

    /// Whether this key may verify tokens of the issuer.
    pub(crate) fn accepts_key(&self, key: &VerificationKey) -> bool {
        // Entra publishes one set for all tenants. A key of all has a template as its issuer.
        let is_trusted =
            |issuer: &str| issuer.contains("{tenantid}") || self.find_issuer(issuer).is_some();
        !self.checks_key_issuers || key.is_for_issuer(is_trusted)
    }

    /// Checks that `alg` is allowed.
    pub(crate) fn check_algorithm(&self, header: &Header) -> Result<(), ClaimsFault> {
        match self.algorithms.contains(&header.algorithm) {
            true => Ok(()),
            false => Err(ClaimsFault::Algorithm),
        }
    }

    /// Checks that the `typ` of the header is that of an access token (RFC 9068 §4).
    pub(crate) fn check_type(&self, header: &Header) -> Result<(), ClaimsFault> {
        match (self.profile, header.typ) {
            (_, Typ::AccessToken) | (TokenProfile::Jwt, Typ::Absent | Typ::Jwt) => Ok(()),
            _ => Err(ClaimsFault::HeaderType),
        }
    }

    /// Whether a token with this `exp` is expired, leeway included.
    pub(crate) fn is_expired(&self, expires_at: UnixTime, now: UnixTime) -> bool {
        now >= expires_at.saturating_add(self.leeway)
    }

    /// The latest `nbf` and `iat` that are accepted, leeway included.
    fn latest_start(&self, now: UnixTime) -> UnixTime {
        now.saturating_add(self.leeway)
    }
}

/// One check of the claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClaimsCheck {
    /// `iss` is trusted.
    Issuer,
    /// The token is not one of another use, such as an ID token.
    TokenUse,
    /// `aud`
    Audience,
    /// `exp`
    Expiry,
    /// `iat`
    IssuedAt,
    /// `nbf`
    NotBefore,
    /// The limit on the lifetime.
    Lifetime,
    /// The claims that the profile requires.
    Profile,
}

impl ClaimsCheck {
    /// The order in which [`UnverifiedClaims::validate`] makes the checks.
    const ALL: [Self; 8] = [
        Self::Issuer,
        Self::TokenUse,
        Self::Audience,
        Self::Expiry,
        Self::IssuedAt,
        Self::NotBefore,
        Self::Lifetime,
        Self::Profile,
    ];
}

/// The claims of a payload, borrowed from it.
#[derive(Debug, Default)]
pub(crate) struct UnverifiedClaims<'a> {
    issuer: Option<Cow<'a, str>>,
    subject: Option<Cow<'a, str>>,
    pub(super) audience: Option<Value<'a>>,
    pub(super) expires_at: Option<UnixTime>,
    pub(super) not_before: Option<UnixTime>,
    pub(super) issued_at: Option<UnixTime>,
    token_id: Option<Cow<'a, str>>,
    client_id: Option<Cow<'a, str>>,
    azp: Option<Cow<'a, str>>,
    appid: Option<Cow<'a, str>>,
    cid: Option<Cow<'a, str>>,
    scope: Option<Value<'a>>,
    scp: Option<Value<'a>>,
    pub(super) has_confirmation: bool,
    /// The claim that shows that this is no access token.
    other_token: Option<&'static str>,
}

/// Which check of the claims a token fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClaimsFault {
    /// `alg` is not one of the policy's.
    Algorithm,
    /// `typ` of the header is not that of an access token.
    HeaderType,
    /// This claim shows that it is no access token.
    OtherToken(&'static str),
    Issuer,
    Audience,
    /// This required claim is absent.
    Missing(&'static str),
    Expired,
    /// `nbf` or `iat` is in the future.
    NotYetValid,
    /// `nbf` is after `exp`.
    EndsBeforeItBegins,
    /// The lifetime is limited, and neither `iat` nor `nbf` is present.
    NoStart,
    /// The lifetime exceeds its limit.
    Lifetime(Duration),
}

impl From<ClaimsFault> for TokenError {
    fn from(fault: ClaimsFault) -> Self {
        match fault {
            ClaimsFault::Algorithm => Self::UnsupportedAlgorithm,
            ClaimsFault::HeaderType | ClaimsFault::OtherToken(_) => Self::UnexpectedTokenType,
            ClaimsFault::Issuer => Self::UntrustedIssuer,
            ClaimsFault::Audience => Self::InvalidAudience,
            ClaimsFault::Expired => Self::Expired,
            ClaimsFault::NotYetValid => Self::NotYetValid,
            ClaimsFault::Missing(_)
            | ClaimsFault::EndsBeforeItBegins
            | ClaimsFault::NoStart
            | ClaimsFault::Lifetime(_) => Self::InvalidClaims,
        }
    }
}

impl<'de> FromMembers<'de> for UnverifiedClaims<'de> {
    fn read<A: MapAccess<'de>>(
        &mut self,
        name: &str,
        value: MemberValue<'_, 'de, A>,
    ) -> Result<(), A::Error> {
        let date = |seconds| numeric_date(seconds).ok_or_else(|| A::Error::custom("out of range"));
        match name {
            "iss" => self.issuer = Some(value.string()?),
            "aud" => self.audience = Some(value.strings()?),
            "exp" => self.expires_at = Some(date(value.number()?)?),
            "nbf" => self.not_before = Some(date(value.number()?)?),
            "iat" => self.issued_at = Some(date(value.number()?)?),
            // Registered and optional: `null` counts as absent, another type is an error.
            "sub" => self.subject = value.optional_string()?,
            "jti" => self.token_id = value.optional_string()?,
            "client_id" => self.client_id = value.optional_string()?,
            "azp" => self.azp = value.optional_string()?,
            "scope" => self.scope = value.optional_strings()?,
            // Private claims of some issuers may have any type in tokens of others.
            "appid" => self.appid = value.string_or_other()?,
            "cid" => self.cid = value.string_or_other()?,
            "scp" => self.scp = value.strings_or_other()?,
            other => self.read_other(other, &value.any()?),
        }
        Ok(())
    }
}

impl UnverifiedClaims<'_> {
    /// Reads a claim that is neither registered nor names a client or scopes.
    fn read_other(&mut self, name: &str, value: &Value<'_>) {
        match (name, value) {
            ("cnf", _) => self.has_confirmation = true,
            // ID tokens: OpenID Connect Core §3.1.3.6, §3.3.2.11.
            ("at_hash" | "c_hash", Value::Null) => {}
            ("at_hash", _) => self.other_token = Some("at_hash"),
            ("c_hash", _) => self.other_token = Some("c_hash"),
            // Logout tokens, Back-Channel Logout §2.4, and security event tokens, RFC 8417 §2.2: an
            // object. A claim of other issuers may have any type.
            ("events", Value::Object) => self.other_token = Some("events"),
            // Keycloak
            ("typ", Value::String(typ))
                if matches!(&**typ, "ID" | "Refresh" | "Offline" | "Logout") =>
            {
                self.other_token = Some("typ");
            }
            // Cognito
            ("token_use", Value::String(usage)) if usage == "id" => {
                self.other_token = Some("token_use");
            }
            _ => {}
        }
    }
}

/// A `NumericDate` (RFC 7519 §2), truncated to seconds; `None` if it is out of range.
pub(crate) fn numeric_date(seconds: f64) -> Option<UnixTime> {
    /// From here on a double does not represent every second.
    const LIMIT: u64 = 1 << 53;
    // `Duration` rejects negative, infinite and NaN values.
    let since_epoch = Duration::try_from_secs_f64(seconds).ok()?.as_secs();
    (since_epoch < LIMIT).then(|| UnixTime::from_secs(since_epoch))
}

impl<'a> UnverifiedClaims<'a> {
    /// Parses a decoded payload strictly, in one pass.
    ///
    /// A registered claim of the wrong type is an error even if the claim is not required
    /// (CVE-2026-25537). `null` counts as absent, but for `iss`, `aud`, `exp`, `nbf`, `iat` and
    /// `cnf`: there it is another type.
    /// `check` gets `iss`, and `exp` if it precedes, as soon as `iss` is read, and both again when
    /// `exp` is. Its error ends the parse.
    pub(crate) fn parse(
        payload: &'a str,
        limits: SizeLimits,
        check: &dyn Fn(&str, Option<UnixTime>) -> Result<(), TokenError>,
    ) -> Result<Self, TokenError> {
        if has_long_number(payload.as_bytes()) {
            return Err(TokenError::Malformed);
        }
        let check = |name: &str, claims: &Self| match (name, &claims.issuer) {
            ("iss" | "exp", Some(issuer)) => check(issuer, claims.expires_at),
            _ => Ok(()),
        };
        strict_json::parse(payload, limits, TokenError::InvalidClaims, &check)
    }

    /// The claimed issuer.
    pub(crate) fn issuer(&self) -> Result<&str, TokenError> {
        self.issuer.as_deref().ok_or(TokenError::InvalidClaims)
    }

    /// Validates header and claims against `policy` at `now`.
    pub(super) fn validate(
        &self,
        header: &Header,
        policy: &ClaimsPolicy,
        now: UnixTime,
    ) -> Result<(), ClaimsFault> {
        policy.check_algorithm(header)?;
        policy.check_type(header)?;
        let mut checks = ClaimsCheck::ALL.iter();
        checks.try_for_each(|check| self.check(*check, policy, now))
    }

    /// Makes one check of the claims.
    pub(crate) fn check(
        &self,
        check: ClaimsCheck,
        policy: &ClaimsPolicy,
        now: UnixTime,
    ) -> Result<(), ClaimsFault> {
        match check {
            ClaimsCheck::Issuer => self.check_issuer(policy),
            ClaimsCheck::TokenUse => match self.other_token {
                Some(claim) => Err(ClaimsFault::OtherToken(claim)),
                None => Ok(()),
            },
            ClaimsCheck::Audience => self.check_audience(policy),
            ClaimsCheck::Expiry => self.check_expiry(policy, now),
            ClaimsCheck::IssuedAt => match self.issued_at > Some(policy.latest_start(now)) {
                true => Err(ClaimsFault::NotYetValid),
                false => Ok(()),
            },
            ClaimsCheck::NotBefore => self.check_not_before(policy, now),
            ClaimsCheck::Lifetime => self.check_lifetime(policy),
            ClaimsCheck::Profile => self.check_profile(policy),
        }
    }

    fn check_issuer(&self, policy: &ClaimsPolicy) -> Result<(), ClaimsFault> {
        let issuer = self.issuer.as_deref().ok_or(ClaimsFault::Missing("iss"))?;
        match policy.find_issuer(issuer) {
            Some(_) => Ok(()),
            None => Err(ClaimsFault::Issuer),
        }
    }

    fn check_audience(&self, policy: &ClaimsPolicy) -> Result<(), ClaimsFault> {
        let is_accepted = |claimed: &Cow<'_, str>| {
            let mut accepted = policy.audiences.iter();
            accepted.any(|accepted| accepted.as_str() == claimed)
        };
        match &self.audience {
            Some(audience) if audience.strings().iter().any(is_accepted) => Ok(()),
            Some(_) => Err(ClaimsFault::Audience),
            None if policy.audience_optional => Ok(()),
            None => Err(ClaimsFault::Missing("aud")),
        }
    }

    fn check_expiry(&self, policy: &ClaimsPolicy, now: UnixTime) -> Result<(), ClaimsFault> {
        let expires_at = self.expires_at.ok_or(ClaimsFault::Missing("exp"))?;
        match policy.is_expired(expires_at, now) {
            true => Err(ClaimsFault::Expired),
            false => Ok(()),
        }
    }

    fn check_not_before(&self, policy: &ClaimsPolicy, now: UnixTime) -> Result<(), ClaimsFault> {
        if self.not_before > Some(policy.latest_start(now)) {
            return Err(ClaimsFault::NotYetValid);
        }
        if self.expires_at.is_some() && self.not_before > self.expires_at {
            return Err(ClaimsFault::EndsBeforeItBegins);
        }
        Ok(())
    }

    fn check_lifetime(&self, policy: &ClaimsPolicy) -> Result<(), ClaimsFault> {
        let Some(limit) = policy.max_lifetime else {
            return Ok(());
        };
        let expires_at = self.expires_at.ok_or(ClaimsFault::Missing("exp"))?;
        let start = self.issued_at.or(self.not_before);
        let lifetime = expires_at.saturating_since(start.ok_or(ClaimsFault::NoStart)?);
        if lifetime > limit {
            return Err(ClaimsFault::Lifetime(lifetime));
        }
        Ok(())
    }

    /// RFC 9068 §2.2: required besides `iss`, `aud` and `exp`.
    fn check_profile(&self, policy: &ClaimsPolicy) -> Result<(), ClaimsFault> {
        let required = [
            ("sub", self.subject.is_some()),
            ("client_id", self.client_id.is_some()),
            ("iat", self.issued_at.is_some()),
            ("jti", self.token_id.is_some()),
        ];
        let missing = required.iter().find(|(_, is_present)| !is_present);
        match (policy.profile, missing) {
            (TokenProfile::Rfc9068, Some((name, _))) => Err(ClaimsFault::Missing(name)),
            _ => Ok(()),
        }
    }

    /// The client that the token was issued to.
    pub(super) fn client(&self) -> Option<&str> {
        let names = [&self.client_id, &self.azp, &self.appid, &self.cid];
        names.into_iter().find_map(Option::as_deref)
    }
}

/// A token whose signature and claims are valid.
#[derive(Debug)]
pub(crate) struct ValidatedToken<'t> {
    pub(super) claims: &'t UnverifiedClaims<'t>,
    pub(super) payload: &'t str,
}

impl ValidatedToken<'_> {
    /// The claims as the token spells them.
    pub(crate) fn payload(&self) -> &str {
        self.payload
    }

    /// Copies the claims that requests use.
    pub(crate) fn claims(&self) -> Claims {
        let claims = self.claims;
        let audience = claims.audience.as_ref().map_or(&[][..], Value::strings);
        let scopes = claims.scope.as_ref().or(claims.scp.as_ref());
        let scopes = scopes.map_or(&[][..], Value::strings);
        let epoch = UnixTime::from_secs(0);
        Claims {
            subject: claims.subject.as_deref().map(Box::from),
            client_id: claims.client().map(Box::from),
            audience: audience.iter().map(|one| Box::from(&**one)).collect(),
            scopes: scopes.join(" ").into(),
            expires_at: claims.expires_at.unwrap_or(epoch),
            not_before: claims.not_before.max(claims.issued_at).unwrap_or(epoch),
            confirmation: (claims.has_confirmation)
                .then(|| Box::new(Confirmation::from_payload(self.payload))),
        }
    }
}

/// The claims of a validated token that requests use.
#[derive(Clone, Debug)]
pub(crate) struct Claims {
    pub(crate) subject: Option<Box<str>>,
    /// The first of `client_id`, `azp`, `appid` and `cid` that is present and not `null`, unless
    /// the rules of the issuer name another.
    pub(crate) client_id: Option<Box<str>>,
    pub(crate) audience: Box<[Box<str>]>,
    /// The scopes of `scope`, else of `scp`, separated by spaces.
    pub(crate) scopes: Box<str>,
    pub(crate) expires_at: UnixTime,
    /// The later one of `nbf` and `iat`.
    pub(crate) not_before: UnixTime,
    /// The keys to which the token is bound.
    pub(crate) confirmation: Option<Box<Confirmation>>,
}

impl Claims {
    /// Parses claims that are not validated: of a context that a test builds, which has no token,
    /// and of a token whose rejection is explained.
    pub(crate) fn unvalidated(payload: &str) -> Result<Self, TokenError> {
        let limits = SizeLimits::for_max_token_len(usize::MAX);
        let claims = &UnverifiedClaims::parse(payload, limits, &|_, _| Ok(()))?;
        Ok(ValidatedToken { claims, payload }.claims())
    }
}
