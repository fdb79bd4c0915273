//! The checks of a token, each described with what was expected and found.
//!
//! The outcome of a check is that of the function that the validation calls. What is read here
//! without it is only shown.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::check::{Check, NAMES, OPTIONAL};
use super::{claims, cure, header, keys};
use crate::clock::UnixTime;
use crate::jwt::{
    Algorithm, Claims, ClaimsCheck, ClaimsFault, ClaimsPolicy, Header, Segments, TokenError,
    TokenProfile, UnverifiedClaims, decode_base64url,
};
use crate::key_set::{KeySetHandle, KeySetStatus};
use crate::oauth::Issuer;
use crate::resource_server::context::{CachedToken, VerifiedBy};
use crate::resource_server::credentials::check_visible_ascii;
use crate::resource_server::issuer_state::IssuerState;
use crate::resource_server::issuers::MatchedIssuer;
use crate::resource_server::{AuthContext, RejectionKind, ResourceServer};
use crate::text;

/// The checks so far.
pub(super) struct Examination<'s> {
    server: &'s ResourceServer,
    token: &'s str,
    now: UnixTime,
    /// The outcome of the validation.
    rejection: Option<RejectionKind>,
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
    /// Makes the checks of a token that the validation rejects at this time, or accepts.
    pub(super) fn new(
        server: &'s ResourceServer,
        token: &'s str,
        now: UnixTime,
        rejection: Option<RejectionKind>,
    ) -> Self {
        let mut examination = Self {
            server,
            token,
            now,
            rejection,
            checks: Vec::with_capacity(NAMES.len()),
            key_set: None,
        };
        if let Some(segments) = examination.segments() {
            examination.content(&segments);
        }
        examination
    }

    /// The checks in the order of the validation, those that were not made included.
    pub(super) fn finish(mut self) -> (Vec<Check>, Option<KeySetStatus>) {
        let is_made = |name: &str, checks: &[Check]| checks.iter().any(|one| one.name() == name);
        for name in NAMES {
            if !OPTIONAL.contains(&name) && !is_made(name, &self.checks) {
                self.checks.push(Check::skipped(name));
            }
        }
        let at = |name: &str| NAMES.iter().position(|one| *one == name);
        self.checks.sort_by_key(|check| at(check.name()));
        let is_explained = |kind| self.checks.iter().any(|one| one.rejection() == Some(kind));
        if let Some(kind) = self.rejection.filter(|kind| !is_explained(*kind)) {
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
        self.add(header::characters(token, is_shown));
        if !is_shown {
            return None;
        }
        let (check, segments) = header::split(token);
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
                self.add(claims::expiry(
                    &shown,
                    &trust.state.policy,
                    expired,
                    self.now,
                ));
            }
            return;
        };
        self.registered_claims(&claims, &shown, &trust.state.policy, early.as_ref());
        self.rules(&payload, &trust, is_verified);
    }

    /// Whether no check has failed so far.
    fn has_no_failure(&self) -> bool {
        self.checks.iter().all(|check| check.rejection().is_none())
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
            header::unsupported_algorithm(&shown, error),
            Some(header::extensions(&shown, error)),
            Some(header::key_id(&shown, error)),
            header::malformed_type(&shown, error),
        ];
        let is_explained = checks.iter().flatten().any(|one| one.rejection() == error);
        let outcome = match error {
            Some(kind) if !is_explained => Err(kind),
            _ => Ok(()),
        };
        let check = Check::new("header", outcome)
            .expects("a JSON object with unique members")
            .finds(header::object(&shown, outcome))
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
            Ok(_) => header::object(shown, Ok(())),
            Err(error) => claims::wrong_claims(payload, shown, *error),
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
        let trusted = text::setting_list(names());
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
            .finds(text::shown(claimed))
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
            .expects(header::one_of(allowed))
            .finds(text::shown(header.algorithm.name()))
            .cure_by("Allow it with `algorithms`, or have the issuer sign with an allowed one");
        self.add(check);
    }

    fn typ(&mut self, header: &Header, segments: &Segments<'_>, policy: &ClaimsPolicy) {
        let bytes = decode_base64url(segments.header).unwrap_or_default();
        let shown: Map<String, Value> = serde_json::from_slice(&bytes).unwrap_or_default();
        let outcome = policy.check_type(header).map_err(kind);
        let check = Check::new("typ", outcome)
            .expects(policy.profile.expected_type())
            .finds(header::member(&shown, "typ"))
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
            .finds(keys::key_set(&status))
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
        let selected = selected.and_then(|keys| keys.accepted(|key| state.policy.accepts_key(key)));
        self.add(keys::key(header, keys, selected.as_ref().err().copied()));
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

    /// The registered claims.
    fn registered_claims(
        &mut self,
        claims: &UnverifiedClaims<'_>,
        shown: &Map<String, Value>,
        policy: &ClaimsPolicy,
        early: Option<&EarlyError>,
    ) {
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
            claims::token_use(shown, outcome(ClaimsCheck::TokenUse)),
            claims::audience(shown, policy, outcome(ClaimsCheck::Audience)),
            claims::expiry(shown, policy, expires, now),
            claims::start("iat", shown, policy, outcome(ClaimsCheck::IssuedAt), now),
            claims::start("nbf", shown, policy, outcome(ClaimsCheck::NotBefore), now),
        ];
        if let Some(limit) = policy.max_lifetime {
            let check = Check::new("lifetime", outcome(ClaimsCheck::Lifetime))
                .expects(format!("at most {} from `iat`", text::duration(limit)))
                .finds(claims::lifetime(shown))
                .cure_by("Shorten the lifetime at the issuer, or raise `max_lifetime`");
            checks.push(check);
        }
        if policy.profile == TokenProfile::Rfc9068 {
            checks.push(claims::profile(shown, outcome(ClaimsCheck::Profile)));
        }
        self.checks.extend(checks);
    }

    /// The rules of the issuer, which see verified tokens only, and the confirmation.
    ///
    /// A closure of the program gets the tokens that the validation gives to it, and no other.
    fn rules(&mut self, payload: &str, trust: &Trust<'_>, is_verified: bool) {
        let Ok(claims) = Claims::unvalidated(payload) else {
            return;
        };
        let rules = &trust.state.rules;
        let token = self.unvalidated(payload, claims, trust);
        let is_bound = token.is_bound() && !token.is_proved_by(&[]);
        let mut token = AuthContext::from(token);
        let is_valid = is_verified && self.has_no_failure();
        if is_valid {
            token = rules.with_client_name(token);
        }
        let unless = |is_made: bool, check: Check| match is_made {
            true => check,
            false => Check::skipped(check.name()),
        };
        if !(rules.required_claims.is_empty() && rules.provider_rules.is_empty()) {
            self.add(unless(is_verified, claims::required_claims(&token, rules)));
        }
        let is_named = is_valid || rules.client_name.is_none();
        let is_made = is_verified || rules.allowed_clients.is_none();
        self.add(unless(is_made && is_named, claims::client(&token, rules)));
        if !rules.predicates.is_empty() {
            let outcome = match is_verified && self.has_no_failure() {
                true => self.predicates(),
                false => None,
            };
            self.add(claims::predicates(outcome));
        }
        let is_made = is_verified || rules.required_scopes.is_empty();
        self.add(unless(is_made, claims::scope(&token, rules)));
        self.add(claims::confirmation(&token, is_bound));
    }

    /// The outcome of the closures in the validation of a token that passes every check before
    /// them; `None` if the validation has not called them, because the keys have changed since.
    fn predicates(&self) -> Option<Result<(), RejectionKind>> {
        match self.rejection {
            // Checks after the closures.
            None
            | Some(RejectionKind::InsufficientScope | RejectionKind::MissingProofOfPossession) => {
                Some(Ok(()))
            }
            Some(RejectionKind::InvalidClaims) => Some(Err(RejectionKind::InvalidClaims)),
            Some(_) => None,
        }
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
