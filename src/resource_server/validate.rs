//! Validation of a token: cheap checks first, then the signature, then the claims.

use std::pin::Pin;

use super::ResourceServer;
use super::context::{CachedToken, VerifiedBy};
use super::credentials::{Credentials, check_visible_ascii};
use super::issuer_state::Validator;
use super::issuers::MatchedIssuer;
use super::rejection::RejectionReason;
use super::rejection_events;
use super::rejection_kind::RejectionKind;
use super::verification_limit::{Permit, Unavailable};
use crate::clock::UnixTime;
use crate::jwt::{Segments, Thumbprint, UnverifiedToken, decode_base64url};
use crate::key_set::{KeySetHandle, RefreshReason, SelectError};

/// The outcome for a token that is not rejected.
pub(super) enum Validation {
    /// The token is valid.
    Valid(CachedToken),
    /// Await this, then validate again.
    Pending(Pending),
}

/// A wait of an authentication. Resolves to what the wait was for.
pub(super) type Pending = Pin<Box<dyn Future<Output = Awaited> + Send>>;

/// The authentication of one request or token. Each wait is followed by another try.
pub(super) struct Attempt<'r> {
    pub(super) credentials: Credentials<'r>,
    /// The sum of all waits.
    pub(super) awaited: Awaited,
    /// Whether only the outcome counts: nothing is cached or measured.
    is_dry_run: bool,
}

/// What an authentication has awaited.
#[derive(Debug, Default)]
pub(super) struct Awaited {
    /// A refresh of the key set, whose result may have the key. A request awaits one at most.
    keys: bool,
    /// A permit to verify the signature.
    permit: Option<Permit>,
}

impl<'r> Attempt<'r> {
    pub(super) fn new(credentials: Credentials<'r>) -> Self {
        Self {
            credentials,
            awaited: Awaited::default(),
            is_dry_run: false,
        }
    }

    /// An attempt that has no effects and never waits: it has awaited all that there is.
    pub(super) fn dry_run(credentials: Credentials<'r>) -> Self {
        let permit = Some(Permit::uncounted());
        Self {
            credentials,
            awaited: Awaited { keys: true, permit },
            is_dry_run: true,
        }
    }

    /// The keys whose possession the request proves (RFC 7800): none so far.
    pub(super) fn proved_keys(&self) -> &[Thumbprint] {
        &[]
    }

    pub(super) fn is_first(&self) -> bool {
        !self.awaited.keys && self.awaited.permit.is_none()
    }
}

impl Awaited {
    pub(super) fn add(&mut self, Self { keys, permit }: Self) {
        self.keys |= keys;
        if permit.is_some() {
            self.permit = permit;
        }
    }
}

impl ResourceServer {
    /// Validates a token, and offers it to the cache.
    // Not inlined, so that a cache hit has a small stack frame.
    #[inline(never)]
    pub(super) fn validate_token(
        &self,
        attempt: &mut Attempt<'_>,
        now: UnixTime,
    ) -> Result<Validation, RejectionReason> {
        let token = attempt.credentials.token();
        let segments = Segments::split(check_visible_ascii(token)?)?; // RFC 7515 §7.1
        let header = self.0.header_cache.parse(segments.header)?; // RFC 7515 §4
        let payload = String::from_utf8(decode_base64url(segments.payload)?)
            .map_err(|_| RejectionKind::Malformed)?;
        let issuers = &self.0.issuers;
        let find_issuer =
            |claimed: &str, expires_at| issuers.find(claimed, token.len(), expires_at, now);
        // Ends the parse of a token that is rejected below.
        let check = |claimed: &str, expires_at| find_issuer(claimed, expires_at).map(drop);
        let limits = issuers.size_limits();
        // RFC 7519 §7.2
        let unverified = UnverifiedToken::parse(&segments, &header, &payload, limits, &check)?;
        let issuer = find_issuer(unverified.issuer()?, unverified.expires_at())?;
        let validation = match &issuer.state.validator {
            Validator::Jwt(keys) => self.validate_jwt(&unverified, issuer, keys, attempt, now),
        };
        let of_issuer = |reason: RejectionReason| reason.of_issuer(issuer.index);
        let validation = validation.map_err(of_issuer)?;
        let Validation::Valid(validated) = validation else {
            return Ok(validation);
        };
        // Before the token is cached, so that the rules hold for a hit.
        let is_bound = validated.is_bound();
        let validated = issuer.state.rules.apply(validated).map_err(|reason| {
            let reason = match reason.kind {
                // More scopes would not help the caller, for no request proves the possession of a
                // key so far.
                RejectionKind::InsufficientScope if is_bound => {
                    RejectionKind::MissingProofOfPossession.into()
                }
                _ => reason,
            };
            of_issuer(reason)
        })?;
        if attempt.is_dry_run {
            return Ok(Validation::Valid(validated));
        }
        // Under a verification limit, a token should need only one permit.
        let bypass_admission = self.0.verification_limit.is_enabled();
        self.0.cache.insert(token, &validated, bypass_admission);
        Ok(Validation::Valid(validated))
    }

    /// Validates a token by its signature and its claims.
    fn validate_jwt(
        &self,
        unverified: &UnverifiedToken<'_>,
        MatchedIssuer { index, state, name }: MatchedIssuer<'_>,
        key_set: &KeySetHandle,
        attempt: &mut Attempt<'_>,
        now: UnixTime,
    ) -> Result<Validation, RejectionReason> {
        let (header, policy) = (unverified.header(), &state.policy);
        if !policy.algorithms.contains(&header.algorithm) {
            return Err(RejectionKind::UnsupportedAlgorithm.into());
        }
        let snapshot = key_set.load();
        let keys = snapshot.usable(now).ok_or(RejectionKind::KeysUnavailable)?;
        let await_refresh = |reason: RefreshReason<'_>| {
            let refresh = key_set.request_refresh(reason)?;
            Some(Validation::Pending(Box::pin(async {
                refresh.await;
                let keys = true;
                Awaited { keys, permit: None }
            })))
        };
        // Only a token with valid registered claims may cause a fetch, and no request proves the
        // possession of a key so far (RFC 7800). The rules of the issuer see verified tokens only.
        let would_pass =
            || !unverified.is_bound() && unverified.would_pass_claims(policy, now).is_ok();
        let awaited = &mut attempt.awaited;
        let selected = keys.select(header, snapshot.revoked(), policy.max_candidate_keys);
        let keys = match selected.and_then(|keys| keys.accepted(|key| policy.accepts_key(key))) {
            Ok(keys) => keys,
            Err(SelectError::Revoked) => return Err(RejectionKind::RevokedKey.into()),
            Err(SelectError::NoMatch) => return Err(RejectionKind::UnsupportedAlgorithm.into()),
            Err(SelectError::Ambiguous) => return Err(RejectionKind::AmbiguousKey.into()),
            Err(SelectError::OtherIssuer) => return Err(RejectionKind::UnknownKey.into()),
            Err(SelectError::UnknownKid) => {
                // A permit is not held while waiting for keys.
                awaited.permit = None;
                let kid = header.key_id.as_deref().unwrap_or_default();
                let may_refresh = !awaited.keys
                    && !key_set.is_in_negative_cache(kid, &snapshot, now)
                    && would_pass();
                let reason = RefreshReason::UnknownKey(kid, now);
                let pending = may_refresh.then(|| await_refresh(reason)).flatten();
                return pending.ok_or_else(|| RejectionKind::UnknownKey.into());
            }
        };
        let permit = match awaited.permit.take() {
            Some(permit) => permit,
            None => match self.0.verification_limit.try_acquire() {
                Ok(permit) => permit,
                Err(Unavailable::Wait(permit)) => {
                    return Ok(Validation::Pending(Box::pin(async {
                        let permit = Some(permit.await);
                        let keys = false;
                        Awaited { keys, permit }
                    })));
                }
                Err(Unavailable::Overloaded) => return Err(RejectionKind::Overloaded.into()),
            },
        };
        let may_refresh = !awaited.keys && key_set.refreshes_on_invalid_signature() && would_pass();
        let header_segment = unverified.header_segment();
        let verify = || unverified.verify_signature(keys.as_slice());
        let verified = match attempt.is_dry_run {
            true => verify(),
            false => state.verification_duration.time(verify),
        };
        let (verified, key) = match verified {
            Ok(verified) => verified, // RFC 7515 §5.2
            Err(error) if may_refresh => {
                let pending = await_refresh(RefreshReason::InvalidSignature);
                return pending.ok_or_else(|| error.into());
            }
            Err(error) => return Err(error.into()),
        };
        drop(permit);
        if !attempt.is_dry_run {
            self.0.header_cache.insert(header_segment, header);
        }
        // RFC 7519 §4.1, RFC 9068 §4
        let valid = verified.validate(policy, now, rejection_events::are_logged());
        let valid = valid.map_err(|rejected| {
            RejectionReason::with_mismatch(rejected.error, rejected.mismatch)
        })?;
        let verified_by = VerifiedBy {
            issuer: index,
            key: header.key_id.is_some().then(|| key.fingerprint()),
            key_set_version: snapshot.key_set_version(),
            leeway: policy.leeway,
        };
        let (payload, claims) = (valid.payload().into(), valid.claims());
        let clock = &self.0.clock;
        let validated = CachedToken::new(name.clone(), payload, claims, verified_by, clock);
        Ok(Validation::Valid(validated))
    }
}
