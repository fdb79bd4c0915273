//! The checks of a token, each described with what was expected and found.
//!
//! The outcome of a check is that of the function that the validation calls. What is read here
//! without it is only shown.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::check::{Check, CheckOutcome, NAMES, OPTIONAL};
use super::{cure, text};
use crate::clock::UnixTime;
use crate::jwt::{
    Algorithm, Claims, ClaimsCheck, ClaimsFault, ClaimsPolicy, Header, Segments, TokenError,
    TokenProfile, UnverifiedClaims, decode_base64url, is_forbidden_member, valid_key_id,
};
use crate::key_set::{KeySet, KeySetHandle, KeySetStatus, SelectError};
use crate::oauth::Issuer;
use crate::resource_server::claim_rules::ClaimRules;
use crate::resource_server::context::{CachedToken, VerifiedBy};
use crate::resource_server::credentials::check_visible_ascii;
use crate::resource_server::issuer_state::IssuerState;
use crate::resource_server::issuers::MatchedIssuer;
use crate::resource_server::{AuthContext, RejectionKind, ResourceServer};

/// The checks so far.
pub(super) struct Examination<'s> {
    server: &'s ResourceServer,
    token: &'s str,
    now: UnixTime,
    checks: Vec<Check>,
    key_set: Option<KeySetStatus>,
}

/// What the claims of a token are checked against.
struct Trust<'s> {
    state: &'s IssuerState,
    /// The issuer of the token; `None` if it is not trusted. The checks are those of the only
    /// issuer then, without its keys.
    matched: Option<MatchedIssuer<'s>>,
}

/// The failure that ends the parse of the claims early in the validation.
struct EarlyError {
    issuer: String,
    error: TokenError,
}

impl<'s> Examination<'s> {
    pub(super) fn new(server: &'s ResourceServer, token: &'s str, now: UnixTime) -> Self {
        let mut examination = Self {
            server,
            token,
            now,
            checks: Vec::with_capacity(NAMES.len()),
            key_set: None,
        };
        if let Some(segments) = examination.segments() {
            examination.content(&segments);
        }
        examination
    }

    /// The checks in the order of the validation, those that were not made included.
    pub(super) fn finish(
        mut self,
        rejection: Option<RejectionKind>,
    ) -> (Vec<Check>, Option<KeySetStatus>) {
        let is_made = |name: &str, checks: &[Check]| checks.iter().any(|one| one.name() == name);
        for name in NAMES {
            if !OPTIONAL.contains(&name) && !is_made(name, &self.checks) {
                self.checks.push(Check::skipped(name));
            }
        }
        let at = |name: &str| NAMES.iter().position(|one| *one == name);
        self.checks.sort_by_key(|check| at(check.name()));
        let is_explained = |kind| self.checks.iter().any(|one| one.rejection() == Some(kind));
        if let Some(kind) = rejection.filter(|kind| !is_explained(*kind)) {
            let other = Check::failed("other", kind).finds("a change of the keys meanwhile");
            self.checks.push(other.cure_by("Explain the token again"));
        }
        (self.checks, self.key_set)
    }

    fn add(&mut self, check: Check) {
        self.checks.push(check);
    }

    /// Length, characters and segments. `None` if there is nothing more to look at.
    fn segments(&mut self) -> Option<Segments<'s>> {
        let (token, limit) = (self.token, self.server.0.issuers.max_token_len());
        let outcome = if token.is_empty() {
            Err(RejectionKind::MissingToken)
        } else if token.len() > limit {
            Err(RejectionKind::TokenTooLong)
        } else {
            Ok(())
        };
        if outcome.is_err() {
            self.add(self.length(outcome, limit));
            return None;
        }
        let is_shown = check_visible_ascii(token.as_bytes()).is_ok();
        self.add(characters(token, is_shown));
        if !is_shown {
            return None;
        }
        let (check, segments) = split(token);
        self.add(check);
        segments
    }

    fn length(&self, outcome: Result<(), RejectionKind>, limit: usize) -> Check {
        let cure = match self.token {
            "" => "Send the token",
            _ => {
                "Have the issuer leave out groups and roles that no service needs, or raise \
                 `max_token_len`; proxies limit header fields as well"
            }
        };
        Check::new("length", outcome)
            .expects(format!("1 to {limit} bytes"))
            .finds(text::count(self.token.len(), "byte"))
            .cure_by(cure)
    }

    /// All checks of the decoded token.
    fn content(&mut self, segments: &Segments<'s>) {
        let header = self.header(segments);
        let payload = self.payload(segments);
        let Some(payload) = payload else {
            self.length_for(None);
            if let Some(header) = &header {
                self.algorithm(header, None);
            }
            return;
        };
        let shown: Map<String, Value> = serde_json::from_str(&payload).unwrap_or_default();
        let (claims, early) = self.parse(&payload, &shown);
        let trust = self.issuer(claims.as_ref(), early.as_ref(), &shown);
        self.length_for(trust.as_ref());
        let policy = trust.as_ref().map(|trust| &trust.state.policy);
        if let Some(header) = &header {
            self.algorithm(header, policy);
        }
        let Some(trust) = trust else { return };
        let is_verified = match (&trust.matched, &header) {
            (Some(matched), Some(header)) => self.signature(segments, header, matched.state),
            (Some(matched), None) => {
                self.keys_of(matched.state);
                false
            }
            (None, _) => false,
        };
        if let Some(header) = &header {
            self.typ(header, segments, &trust.state.policy);
        }
        let Some(claims) = claims else {
            if early.is_some_and(|early| early.error == TokenError::Expired) {
                let expired = Err(RejectionKind::Expired);
                self.add(expiry(&shown, &trust.state.policy, expired, self.now));
            }
            return;
        };
        let is_valid = self.registered_claims(&claims, &shown, &trust.state.policy, early.as_ref());
        let is_valid = is_valid && self.has_passed("typ") && self.has_passed("iss");
        self.rules(&payload, &trust, is_verified, is_valid);
    }

    fn has_passed(&self, name: &str) -> bool {
        let mut checks = self.checks.iter();
        checks.any(|one| one.name() == name && one.outcome() == CheckOutcome::Passed)
    }

    /// The length, by the limit of the issuer if it is known.
    fn length_for(&mut self, trust: Option<&Trust<'_>>) {
        let matched = trust.and_then(|trust| trust.matched.as_ref());
        let limit = self.server.0.issuers.max_token_len();
        let limit = matched.map_or(limit, |matched| matched.state.max_token_len);
        let outcome = match self.token.len() > limit {
            true => Err(RejectionKind::TokenTooLong),
            false => Ok(()),
        };
        self.add(self.length(outcome, limit));
    }

    /// The header, and the checks of it that need no issuer.
    fn header(&mut self, segments: &Segments<'_>) -> Option<Arc<Header>> {
        let bytes = decode_base64url(segments.header).ok()?;
        let shown: Map<String, Value> = serde_json::from_slice(&bytes).unwrap_or_default();
        let header = self.server.0.header_cache.parse(segments.header);
        let error = header.as_ref().err().map(|error| (*error).into());
        let checks = [
            unsupported_algorithm(&shown, error),
            Some(extensions(&shown, error)),
            Some(key_id(&shown, error)),
            malformed_type(&shown, error),
        ];
        let is_explained = checks.iter().flatten().any(|one| one.rejection() == error);
        let outcome = match error {
            Some(kind) if !is_explained => Err(kind),
            _ => Ok(()),
        };
        let check = Check::new("header", outcome)
            .expects("a JSON object with unique members")
            .finds(object(&shown, outcome))
            .cure_by("The token is damaged, or no JWT");
        self.add(check);
        self.checks.extend(checks.into_iter().flatten());
        header.ok()
    }

    /// The decoded claims; `None` if they are no base64url or no UTF-8.
    fn payload(&mut self, segments: &Segments<'_>) -> Option<String> {
        let bytes = decode_base64url(segments.payload).ok()?;
        let payload = String::from_utf8(bytes).ok();
        if payload.is_none() {
            let check = Check::failed("claims", RejectionKind::Malformed);
            let check = check.expects("UTF-8").finds("other bytes");
            self.add(check.cure_by("The token is damaged, or encrypted"));
        }
        payload
    }

    /// Parses the claims to the end, even where the validation stops.
    fn parse<'p>(
        &mut self,
        payload: &'p str,
        shown: &Map<String, Value>,
    ) -> (Option<UnverifiedClaims<'p>>, Option<EarlyError>) {
        let issuers = &self.server.0.issuers;
        let early = std::cell::OnceCell::new();
        let check = |claimed: &str, expires_at| {
            if let Err(error) = issuers.find(claimed, self.token.len(), expires_at, self.now) {
                let issuer = claimed.to_owned();
                let _first_error = early.set(EarlyError { issuer, error });
            }
            Ok(())
        };
        let claims = UnverifiedClaims::parse(payload, issuers.size_limits(), &check);
        let outcome = match &claims {
            Ok(_) => Ok(()),
            Err(error) => Err((*error).into()),
        };
        let found = match &claims {
            Ok(_) => object(shown, Ok(())),
            Err(error) => wrong_claims(payload, shown, *error),
        };
        let check = Check::new("claims", outcome)
            .expects("a JSON object with unique members; registered claims of their types")
            .finds(found)
            .cure_by("Change the claim at the issuer: a mapper or a rule there has made it");
        self.add(check);
        (claims.ok(), early.into_inner())
    }

    /// The issuer, and what the token is checked against.
    fn issuer(
        &mut self,
        claims: Option<&UnverifiedClaims<'_>>,
        early: Option<&EarlyError>,
        shown: &Map<String, Value>,
    ) -> Option<Trust<'s>> {
        let issuers = &self.server.0.issuers;
        let names = || {
            let policies = issuers.iter().map(|state| &state.policy);
            policies.flat_map(|policy| [&policy.issuer].into_iter().chain(&policy.issuer_aliases))
        };
        let trusted = text::list(names());
        let first = early.map(|early| early.issuer.as_str());
        let claimed = first.or_else(|| claims.and_then(|claims| claims.issuer().ok()));
        let Some(claimed) = claimed.or_else(|| shown.get("iss").and_then(Value::as_str)) else {
            let check = match claims {
                Some(_) => Check::failed("iss", RejectionKind::InvalidClaims),
                None => Check::skipped("iss"),
            };
            let check = check.expects(trusted).finds("absent");
            self.add(check.cure_by("The token does not name its issuer (RFC 9068 §2.2)"));
            return self.only_issuer();
        };
        // Length and expiry are other checks.
        let matched = issuers.find(claimed, 0, None, self.now);
        let outcome = match &matched {
            Ok(_) => Ok(()),
            Err(error) => Err((*error).into()),
        };
        let check = Check::new("iss", outcome)
            .expects(trusted)
            .finds(text::json(claimed))
            .cure_by(cure::issuer(claimed, names().map(Issuer::as_str)));
        self.add(check);
        match matched {
            Ok(matched) => Some(Trust {
                state: matched.state,
                matched: Some(matched),
            }),
            Err(_) => self.only_issuer(),
        }
    }

    /// The checks of the only issuer, for a token of another one.
    fn only_issuer(&self) -> Option<Trust<'s>> {
        let mut states = self.server.0.issuers.iter();
        match (states.next(), states.next()) {
            (Some(state), None) => Some(Trust {
                state,
                matched: None,
            }),
            _ => None,
        }
    }

    fn algorithm(&mut self, header: &Header, policy: Option<&ClaimsPolicy>) {
        let outcome = policy.map_or(Ok(()), |policy| policy.check_algorithm(header));
        let outcome = outcome.map_err(kind);
        let allowed = policy.map_or(Algorithm::ALL, |policy| &policy.algorithms);
        let check = Check::new("alg", outcome)
            .expects(one_of(allowed))
            .finds(text::json(header.algorithm.name()))
            .cure_by("Allow it with `algorithms`, or have the issuer sign with an allowed one");
        self.add(check);
    }

    fn typ(&mut self, header: &Header, segments: &Segments<'_>, policy: &ClaimsPolicy) {
        let bytes = decode_base64url(segments.header).unwrap_or_default();
        let shown: Map<String, Value> = serde_json::from_slice(&bytes).unwrap_or_default();
        let expected = match policy.profile {
            TokenProfile::Rfc9068 => "\"at+jwt\"",
            TokenProfile::Jwt => "absent, \"JWT\", \"JOSE\" or \"at+jwt\"",
        };
        let outcome = policy.check_type(header).map_err(kind);
        let check = Check::new("typ", outcome)
            .expects(expected)
            .finds(member(&shown, "typ"))
            .cure_by(
                "Send an access token, not an ID token, a logout token or a proof. Only with the \
                 profile of RFC 9068 must `typ` be \"at+jwt\"",
            );
        self.add(check);
    }

    /// The key set of the issuer.
    fn keys_of(&mut self, state: &'s IssuerState) -> Option<&'s KeySetHandle> {
        let handle = state.validator.keys()?;
        let status = handle.status(self.now);
        let snapshot = handle.load();
        let outcome = match snapshot.usable(self.now) {
            Some(_) => Ok(()),
            None => Err(RejectionKind::KeysUnavailable),
        };
        let check = Check::new("key_set", outcome)
            .expects("a usable key set")
            .finds(key_set(&status))
            .cure_by(
                "The keys of the issuer must be reachable from here: see the error, and the log \
                 of `tower_oauth::key_set`",
            );
        self.add(check);
        self.key_set = Some(status);
        Some(handle)
    }

    /// Key and signature. Returns whether the signature is good.
    fn signature(
        &mut self,
        segments: &Segments<'_>,
        header: &Header,
        state: &'s IssuerState,
    ) -> bool {
        let Some(handle) = self.keys_of(state) else {
            return false;
        };
        let snapshot = handle.load();
        let Some(keys) = snapshot.usable(self.now) else {
            return false;
        };
        let limit = state.policy.max_candidate_keys;
        let selected = keys.select(header, snapshot.revoked(), limit);
        self.add(key(header, keys, selected.as_ref().err().copied()));
        let Ok(candidates) = selected else {
            return false;
        };
        let verified = segments.verify_signature(header.algorithm, candidates.as_slice());
        let found = match (&verified, candidates.as_slice().len()) {
            (Ok(_), _) => "good".to_owned(),
            (Err(TokenError::Malformed), _) => "no base64url".to_owned(),
            (Err(_), tried) => {
                let keys = text::count(tried, "key");
                format!("not that of {keys} of the issuer, for these bytes")
            }
        };
        let outcome = match &verified {
            Ok(_) => Ok(()),
            Err(error) => Err((*error).into()),
        };
        let check = Check::new("signature", outcome)
            .expects("that of the key")
            .finds(found)
            .cure_by(
                "The token was altered or cut, or signed with another key: one of another \
                 environment, or a new key under an old `kid` \
                 (`RefreshPolicy::refresh_on_invalid_signature`)",
            );
        self.add(check);
        verified.is_ok()
    }

    /// The registered claims. Returns whether all of them are valid.
    fn registered_claims(
        &mut self,
        claims: &UnverifiedClaims<'_>,
        shown: &Map<String, Value>,
        policy: &ClaimsPolicy,
        early: Option<&EarlyError>,
    ) -> bool {
        let now = self.now;
        let outcome = |check| {
            let outcome = claims.check(check, policy, now);
            outcome.map_err(kind)
        };
        let is_expired = early.is_some_and(|early| early.error == TokenError::Expired);
        let expires = match is_expired {
            true => Err(RejectionKind::Expired),
            false => outcome(ClaimsCheck::Expiry),
        };
        let mut checks = vec![
            token_use(shown, outcome(ClaimsCheck::TokenUse)),
            audience(shown, policy, outcome(ClaimsCheck::Audience)),
            expiry(shown, policy, expires, now),
            start("iat", shown, policy, outcome(ClaimsCheck::IssuedAt), now),
            start("nbf", shown, policy, outcome(ClaimsCheck::NotBefore), now),
        ];
        if let Some(limit) = policy.max_lifetime {
            let check = Check::new("lifetime", outcome(ClaimsCheck::Lifetime))
                .expects(format!("at most {} from `iat`", text::duration(limit)))
                .finds(lifetime(shown))
                .cure_by("Shorten the lifetime at the issuer, or raise `max_lifetime`");
            checks.push(check);
        }
        if policy.profile == TokenProfile::Rfc9068 {
            checks.push(profile(shown, outcome(ClaimsCheck::Profile)));
        }
        let is_valid = checks.iter().all(|check| check.rejection().is_none());
        self.checks.extend(checks);
        is_valid
    }

    /// The rules of the issuer, which see verified tokens only, and the confirmation.
    fn rules(&mut self, payload: &str, trust: &Trust<'_>, is_verified: bool, is_valid: bool) {
        let Ok(claims) = Claims::unvalidated(payload) else {
            return;
        };
        let rules = &trust.state.rules;
        let token = self.unvalidated(payload, claims, trust);
        let is_bound = token.is_bound() && !token.is_proved_by(&[]);
        let mut token = AuthContext::from(token);
        // A closure of the program gets valid tokens only.
        let is_named = is_verified && is_valid || rules.client_name.is_none();
        if is_verified && is_valid {
            token = rules.with_client_name(token);
        }
        let unless = |is_made: bool, check: Check| match is_made {
            true => check,
            false => Check::skipped(check.name()),
        };
        let is_made = is_verified || rules.allowed_clients.is_none();
        self.add(unless(is_made && is_named, client(&token, rules)));
        let is_made = is_verified || rules.required_scopes.is_empty();
        self.add(unless(is_made, scope(&token, rules)));
        if !rules.required_claims.is_empty() {
            self.add(unless(is_verified, required_claims(&token, rules)));
        }
        if !rules.predicates.is_empty() {
            let check = if is_verified && is_valid {
                let outcome = rules.check_predicates(&token).map_err(|broken| broken.kind);
                Check::new("require", outcome)
                    .expects("`true` of each closure that was set with `require`")
                    .finds(if outcome.is_ok() { "`true`" } else { "`false`" })
                    .cure_by("See the closures that the program sets with `require`")
            } else {
                Check::skipped("require")
            };
            self.add(check);
        }
        self.add(confirmation(&token, is_bound));
    }

    /// A token that is only shown, or has a good signature.
    fn unvalidated(&self, payload: &str, claims: Claims, trust: &Trust<'_>) -> CachedToken {
        let issuer = trust.matched.as_ref().map(|matched| matched.name);
        let verified_by = VerifiedBy {
            issuer: trust.matched.as_ref().map_or(0, |matched| matched.index),
            key: None,
            key_set_version: 0,
            leeway: trust.state.policy.leeway,
        };
        let issuer = issuer.unwrap_or(&trust.state.policy.issuer).clone();
        CachedToken::new(
            issuer,
            payload.into(),
            claims,
            verified_by,
            &self.server.0.clock,
        )
    }
}

/// The kind of rejection of a check of the claims.
fn kind(fault: ClaimsFault) -> RejectionKind {
    TokenError::from(fault).into()
}

fn characters(token: &str, is_shown: bool) -> Check {
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
fn split(token: &str) -> (Check, Option<Segments<'_>>) {
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
fn object(members: &Map<String, Value>, outcome: Result<(), RejectionKind>) -> String {
    let names = text::joined(members.keys().map(|name| text::escaped(name)));
    match outcome {
        Ok(()) if members.is_empty() => "an empty object".to_owned(),
        Ok(()) => format!("an object with {names}"),
        Err(RejectionKind::TooManyMembers) => "too many members".to_owned(),
        Err(_) if members.is_empty() => "no JSON object".to_owned(),
        Err(_) => format!("an object with {names}, one of them twice or nested too deep"),
    }
}

/// A member as JSON, or "absent".
fn member(members: &Map<String, Value>, name: &str) -> String {
    let value = members.get(name);
    value.map_or_else(|| "absent".to_owned(), text::json)
}

fn one_of(algorithms: &[Algorithm]) -> String {
    let names: Vec<&str> = algorithms.iter().map(|one| one.name()).collect();
    format!("one of {}", names.join(", "))
}

/// `alg` of a header that cannot be parsed; that of another depends on the issuer.
fn unsupported_algorithm(
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
            "Whoever can verify HMAC can sign as well: have the issuer sign with RS256, ES256 or \
             EdDSA. Auth0: the signing algorithm of the API is a setting of it"
        }
        Some("none") => "An unsigned token is never accepted",
        _ => "Have the issuer sign with one of these algorithms",
    };
    let check = Check::new("alg", outcome).expects(one_of(Algorithm::ALL));
    Some(check.finds(member(header, "alg")).cure_by(cure))
}

/// Members that change the meaning of a token.
fn extensions(header: &Map<String, Value>, error: Option<RejectionKind>) -> Check {
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

fn key_id(header: &Map<String, Value>, error: Option<RejectionKind>) -> Check {
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
fn malformed_type(header: &Map<String, Value>, error: Option<RejectionKind>) -> Option<Check> {
    let typ = header.get("typ").filter(|typ| !typ.is_string())?;
    let check = Check::failed("typ", error?).expects("a string");
    Some(check.finds(text::json(typ)))
}

/// Why claims cannot be parsed.
fn wrong_claims(payload: &str, shown: &Map<String, Value>, error: TokenError) -> String {
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
        } else if TIMES.contains(&name) && value.as_u64().is_none_or(|time| time >= 1 << 53) {
            Some("seconds since 1970")
        } else {
            None
        }
    };
    let wrong = shown.iter().filter_map(|(name, value)| {
        let expected = expected(name, value)?;
        Some(format!(
            "{name} {}, which must be {expected}",
            text::json(value)
        ))
    });
    let wrong: Vec<String> = wrong.collect();
    match wrong.is_empty() {
        true => object(shown, Err(error.into())),
        false => text::joined(wrong.into_iter()),
    }
}

/// The state of a key set, its last error, its keys, and those that were skipped.
fn key_set(status: &KeySetStatus) -> String {
    let issuer = text::escaped(status.issuer().as_str());
    let keys = text::count(status.usable_key_count(), "usable key");
    let mut found = format!("{} with {keys}, of {issuer}", status.state().as_str());
    if let Some(age) = status.age() {
        found += &format!(", fetched {} ago", text::duration(age));
    }
    if let Some(error) = status.last_error().or_else(|| status.metadata_error()) {
        found += &format!("; last error: {}", text::escaped(&error.to_string()));
    }
    let skipped = status.skipped().map(|(kid, reason)| {
        let kid = kid.map_or_else(|| "no kid".to_owned(), text::json);
        format!("{kid} ({reason})")
    });
    let skipped = text::joined(skipped);
    if !skipped.is_empty() {
        found += &format!("; skipped: {skipped}");
    }
    found
}

/// The selection of the key.
fn key(header: &Header, keys: &KeySet, error: Option<SelectError>) -> Check {
    let kid = header.key_id.as_deref();
    let algorithm = header.algorithm;
    let outcome = match error {
        None => Ok(()),
        Some(SelectError::Revoked) => Err(RejectionKind::RevokedKey),
        Some(SelectError::NoMatch) => Err(RejectionKind::UnsupportedAlgorithm),
        Some(SelectError::Ambiguous) => Err(RejectionKind::AmbiguousKey),
        Some(SelectError::UnknownKid) => Err(RejectionKind::UnknownKey),
    };
    let mut skipped = keys.skipped();
    let skipped = skipped.find_map(|(own, reason)| (own == kid).then_some(reason));
    let cure = match (error, skipped) {
        (Some(SelectError::Revoked), _) => {
            "The key was revoked here, or its issuer has published its private part: request a \
             new token"
                .to_owned()
        }
        (Some(SelectError::NoMatch), _) => {
            "The algorithm of the token is not that of the key: see `alg` and `kty` in the key set"
                .to_owned()
        }
        (Some(SelectError::Ambiguous), _) => {
            "Give each key a `kid` at the issuer, or set `max_candidate_keys`".to_owned()
        }
        (_, Some(reason)) if kid.is_some() => {
            format!("The key set has this key, but it is not used: {reason}")
        }
        _ => "The token is older than the keys, newer than this key set (`refresh_keys` fetches \
              it; `validate` does so at most once in 15 seconds), or of another environment with \
              the same issuer"
            .to_owned(),
    };
    let kid = kid.map_or_else(
        || "no kid".to_owned(),
        |kid| format!("kid {}", text::json(kid)),
    );
    let mut all: Vec<String> = keys
        .used_keys()
        .map(|(kid, key)| {
            let kid = kid.map_or_else(|| "no kid".to_owned(), text::json);
            let algorithms: Vec<&str> = key.algorithms().map(Algorithm::name).collect();
            format!("{kid} ({})", algorithms.join(" "))
        })
        .collect();
    all.sort_unstable();
    Check::new("key", outcome)
        .expects(format!("one of {}", text::joined(all.into_iter())))
        .finds(format!("{kid} for {algorithm}"))
        .cure_by(cure)
}

/// Claims that only tokens of another use have.
fn token_use(claims: &Map<String, Value>, outcome: Result<(), RejectionKind>) -> Check {
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

fn audience(
    claims: &Map<String, Value>,
    policy: &ClaimsPolicy,
    outcome: Result<(), RejectionKind>,
) -> Check {
    let issuer = claims.get("iss").and_then(Value::as_str);
    let audience = claims.get("aud");
    let found = match audience {
        Some(Value::Array(all)) => text::list(all.iter().filter_map(Value::as_str)),
        Some(Value::String(one)) => text::list([one]),
        _ => member(claims, "aud"),
    };
    let optional = match policy.audience_optional {
        true => ", or absent",
        false => "",
    };
    Check::new("aud", outcome)
        .expects(format!("{}{optional}", text::list(&policy.audiences)))
        .finds(found)
        .cure_by(cure::audience(
            issuer.unwrap_or_default(),
            audience.is_none(),
        ))
}

/// The time in a claim.
fn time(claims: &Map<String, Value>, name: &str) -> Option<UnixTime> {
    let value = claims.get(name)?;
    let seconds = value.as_u64().or_else(|| whole_seconds(value.as_f64()?));
    seconds.map(UnixTime::from_secs)
}

/// A time without its fraction.
fn whole_seconds(seconds: f64) -> Option<u64> {
    let duration = std::time::Duration::try_from_secs_f64(seconds).ok()?;
    Some(duration.as_secs())
}

fn leeway(policy: &ClaimsPolicy) -> String {
    format!("leeway {} s", policy.leeway.as_secs())
}

fn expiry(
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
fn start(
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

fn lifetime(claims: &Map<String, Value>) -> String {
    let start = time(claims, "iat").or_else(|| time(claims, "nbf"));
    match (start, time(claims, "exp")) {
        (Some(start), Some(end)) => text::duration(end.saturating_since(start)),
        (None, _) => "no iat and no nbf".to_owned(),
        (_, None) => "no exp".to_owned(),
    }
}

fn profile(claims: &Map<String, Value>, outcome: Result<(), RejectionKind>) -> Check {
    let required = ["sub", "client_id", "iat", "jti"];
    let missing = required.iter().filter(|name| !claims.contains_key(**name));
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

fn required_claims(token: &AuthContext, rules: &ClaimRules) -> Check {
    let required = || rules.required_claims.iter();
    let expected = text::joined(required().map(|(name, accepted)| {
        let accepted = text::joined(accepted.iter().map(text::json));
        format!("{} one of [{accepted}]", text::escaped(name))
    }));
    let found = text::joined(required().map(|(name, _)| {
        let value: Option<Value> = token.claim(name).ok().flatten();
        let value = value.map_or_else(|| "absent".to_owned(), |value| text::json(&value));
        format!("{} {value}", text::escaped(name))
    }));
    let outcome = rules.check_required_claims(token);
    Check::new("required_claims", outcome.map_err(|broken| broken.kind))
        .expects(expected)
        .finds(found)
        .cure_by("Values are compared as JSON: \"1\" is not 1. Add the claim at the issuer")
}

fn client(token: &AuthContext, rules: &ClaimRules) -> Check {
    let expected = match &rules.allowed_clients {
        None => "any".to_owned(),
        Some(allowed) => format!("one of {}", text::list(allowed)),
    };
    let client = token.client_id();
    let outcome = rules.check_client(token);
    Check::new("client", outcome.map_err(|broken| broken.kind))
        .expects(expected)
        .finds(client.map_or_else(|| "absent".to_owned(), text::json))
        .cure_by(
            "Add the client to `allowed_clients`, or say where the token names it with \
             `client_id_from`; without it the first of client_id, azp, appid and cid counts",
        )
}

fn scope(token: &AuthContext, rules: &ClaimRules) -> Check {
    let outcome = rules.check_scopes(token).map_err(|broken| broken.kind);
    let expected = match rules.required_scopes.is_empty() {
        true => "any; routes may require more".to_owned(),
        false => format!("all of {}", text::list(&rules.required_scopes)),
    };
    Check::new("scope", outcome)
        .expects(expected)
        .finds(text::list(token.scopes()))
        .cure_by(
            "The client requests the scope, and the issuer allows it to this client. Only `scope` \
             and `scp` are read, not roles",
        )
}

fn confirmation(token: &AuthContext, is_bound: bool) -> Check {
    let outcome = match is_bound {
        true => Err(RejectionKind::MissingProofOfPossession),
        false => Ok(()),
    };
    let found = match token.claim::<Value>("cnf") {
        Ok(Some(value)) => text::json(&value),
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
