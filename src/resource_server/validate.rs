//! Validation of a token: cheap checks first, then the signature, then the claims.

use super::ResourceServer;
use super::context::{CachedToken, VerifiedBy};
use super::credentials::check_visible_ascii;
use super::issuer_state::{IssuerState, Validator};
use super::rejection::RejectionReason;
use super::rejection_kind::RejectionKind;
use super::verification_limit::{Permit, PermitFuture, Unavailable};
use crate::clock::UnixTime;
use crate::jwt::{Segments, TokenError, UnverifiedToken, decode_base64url};
use crate::key_set::{RefreshReason, SelectError, Wait};
use crate::oauth::Issuer;

/// The outcome for a token that is not rejected.
pub(super) enum Validation {
    /// The token is valid.
    Valid(CachedToken),
    /// Await this, then validate again.
    Pending(Pending),
}

/// What a validation waits for.
pub(super) enum Pending {
    /// A refresh of the key set, whose result may have the key. A request awaits one at most.
    Keys(Wait),
    /// A permit to verify the signature.
    Permit(PermitFuture),
}

/// What a validation has awaited so far.
#[derive(Debug, Default)]
pub(super) struct Attempt {
    pub(super) awaited_keys: bool,
    pub(super) permit: Option<Permit>,
}

impl Attempt {
    pub(super) fn is_first(&self) -> bool {
        !self.awaited_keys && self.permit.is_none()
    }
}

impl ResourceServer {
    /// Validates a token, and caches it.
    // Not inlined, so that a cache hit has a small stack frame.
    #[inline(never)]
    pub(super) fn validate_token(
        &self,
        token: &[u8],
        now: UnixTime,
        attempt: &mut Attempt,
    ) -> Result<Validation, RejectionReason> {
        let segments = Segments::split(check_visible_ascii(token)?)?; // RFC 7515 §7.1
        let header = self.0.header_cache.parse(segments.header)?; // RFC 7515 §4
        let payload = String::from_utf8(decode_base64url(segments.payload)?)
            .map_err(|_| RejectionKind::Malformed)?;
        let find_issuer = |claimed: &str, expires_at| {
            let found = self.find_issuer(claimed, expires_at, now)?;
            if token.len() > found.1.max_token_len {
                return Err(TokenError::TokenTooLong);
            }
            Ok(found)
        };
        // Ends the parse of a token that is rejected below.
        let check = |claimed: &str, expires_at| find_issuer(claimed, expires_at).map(drop);
        let limits = self.0.size_limits;
        // RFC 7519 §7.2
        let unverified = UnverifiedToken::parse(&segments, &header, &payload, limits, &check)?;
        let (index, issuer, name) = find_issuer(unverified.issuer()?, unverified.expires_at())?;
        let (policy, Validator::Jwt(keys_of_issuer)) = (&issuer.policy, &issuer.validator);
        if !policy.algorithms.contains(&header.algorithm) {
            return Err(RejectionKind::UnsupportedAlgorithm.into());
        }
        let snapshot = keys_of_issuer.load();
        let keys = snapshot.usable(now).ok_or(RejectionKind::KeysUnavailable)?;
        let pending = |wait| Validation::Pending(Pending::Keys(wait));
        let refresh =
            |reason: RefreshReason<'_>| keys_of_issuer.request_refresh(reason).map(pending);
        // Only a token with valid registered claims may cause a fetch. The rules of the issuer see
        // verified tokens only.
        let would_pass = || unverified.would_pass_claims(policy, now).is_ok();
        let keys = match keys.select(&header, snapshot.revoked(), policy.max_candidate_keys) {
            Ok(keys) => keys,
            Err(SelectError::Revoked) => return Err(RejectionKind::RevokedKey.into()),
            Err(SelectError::NoMatch) => return Err(RejectionKind::UnsupportedAlgorithm.into()),
            Err(SelectError::Ambiguous) => return Err(RejectionKind::AmbiguousKey.into()),
            Err(SelectError::UnknownKid) => {
                let kid = header.key_id.as_deref().unwrap_or_default();
                let may_refresh = !attempt.awaited_keys
                    && !keys_of_issuer.is_in_negative_cache(kid, &snapshot, now)
                    && would_pass();
                // A permit is not held while waiting for keys.
                attempt.permit = None;
                if may_refresh && let Some(wait) = refresh(RefreshReason::UnknownKey(kid, now)) {
                    return Ok(wait);
                }
                return Err(RejectionKind::UnknownKey.into());
            }
        };
        let permit = match attempt.permit.take() {
            Some(permit) => permit,
            None => match self.0.verification_limit.try_acquire() {
                Ok(permit) => permit,
                Err(Unavailable::Wait(permit)) => {
                    return Ok(Validation::Pending(Pending::Permit(permit)));
                }
                Err(Unavailable::Overloaded) => return Err(RejectionKind::Overloaded.into()),
            },
        };
        let may_refresh = !attempt.awaited_keys
            && keys_of_issuer.refreshes_on_invalid_signature()
            && would_pass();
        let verify = || unverified.verify_signature(keys.as_slice());
        let (verified, key) = match issuer.verification_duration.time(verify) {
            Ok(verified) => verified, // RFC 7515 §5.2
            Err(error) if may_refresh => {
                return refresh(RefreshReason::InvalidSignature).ok_or_else(|| error.into());
            }
            Err(error) => return Err(error.into()),
        };
        drop(permit);
        self.0.header_cache.insert(segments.header, &header);
        let valid = verified.validate(policy, now)?; // RFC 7519 §4.1, RFC 9068 §4
        let verified_by = VerifiedBy {
            issuer: index,
            key: header.key_id.is_some().then(|| key.fingerprint()),
            key_set_version: snapshot.key_set_version(),
            leeway: policy.leeway,
        };
        let claims = valid.claims();
        let validated = CachedToken::new(
            name.clone(),
            payload.into(),
            claims,
            verified_by,
            &self.0.clock,
        );
        // Before the token is cached, so that the rules hold for a hit.
        let validated = issuer.rules.apply(validated)?;
        // Under a verification limit, a token should need only one permit.
        let bypass_admission = self.0.verification_limit.is_enabled();
        self.0.cache.insert(token, &validated, bypass_admission);
        Ok(Validation::Valid(validated))
    }

    /// Finds the trusted issuer with this name or alias: its index in the list of the resource
    /// server, its state, and its name as the token spells it. Fails if this `exp` has passed by
    /// the issuer's leeway. A token is only ever validated with the keys of this issuer.
    fn find_issuer(
        &self,
        claimed: &str,
        expires_at: Option<UnixTime>,
        now: UnixTime,
    ) -> Result<(usize, &IssuerState, &Issuer), TokenError> {
        let mut issuers = self.0.issuers.iter().enumerate();
        let found = issuers
            .find_map(|(index, state)| Some((index, state, state.policy.find_issuer(claimed)?)))
            .ok_or(TokenError::UntrustedIssuer)?;
        if expires_at.is_some_and(|expires_at| found.1.policy.is_expired(expires_at, now)) {
            return Err(TokenError::Expired);
        }
        Ok(found)
    }
}
