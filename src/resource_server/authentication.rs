//! Authentication of a request, from its header fields to an [`AuthContext`] or a reason to reject.

use http::{HeaderMap, Request, Response, Uri, header};

use super::context::{CachedToken, VerifiedBy};
use super::server::IssuerState;
use super::verification_limit::{Permit, PermitFuture, Unavailable};
use super::{
    AuthContext, Rejection, RejectionKind, RejectionResponse, ResourceServer, credentials,
};
use crate::clock::UnixTime;
use crate::jwt::{Segments, TokenError, UnverifiedToken, decode_base64url};
use crate::key_set::{RefreshReason, SelectError, Wait};
use crate::oauth::Issuer;

/// The outcome for a request that is not rejected.
pub(super) enum Authentication {
    /// The token is valid.
    Complete(AuthContext),
    /// Await this, then authenticate again.
    Pending(Pending),
}

/// What a request awaits before it is authenticated again.
pub(super) enum Pending {
    /// A refresh of the key set, whose result may have the key. A request awaits one at most.
    Keys(Wait),
    /// A permit to verify the signature.
    Permit(PermitFuture),
}

/// What a request has awaited so far.
#[derive(Debug, Default)]
pub(super) struct Attempt {
    pub(super) awaited_keys: bool,
    pub(super) permit: Option<Permit>,
}

impl ResourceServer {
    /// Authenticates a request without awaiting anything.
    pub(super) fn authenticate(
        &self,
        headers: &HeaderMap,
        uri: &Uri,
        attempt: Attempt,
    ) -> Result<Authentication, RejectionKind> {
        let token = credentials::extract(headers, uri)?; // RFC 6750 §2.1
        if token.len() > self.0.max_token_len {
            return Err(RejectionKind::TokenTooLong);
        }
        let now = self.0.clock.now();
        if let Some(context) = self.cached(token, now) {
            return Ok(Authentication::Complete(context));
        }
        self.validate_token(token, now, attempt)
    }

    /// Looks up the token in the cache, and removes it if it is no longer valid.
    fn cached(&self, token: &[u8], now: UnixTime) -> Option<AuthContext> {
        let cached = self.0.cache.get(token, now)?;
        let state = self.0.issuers.get(cached.issuer_index())?;
        if cached.is_still_valid(&state.keys, now) {
            self.0.cache_hits.increment();
            return Some(cached.into());
        }
        self.0.cache.remove(token);
        None
    }

    /// Validates a token: cheap checks first, then the signature, then the claims.
    // Not inlined, so that a cache hit has a small stack frame.
    #[inline(never)]
    fn validate_token(
        &self,
        token: &[u8],
        now: UnixTime,
        attempt: Attempt,
    ) -> Result<Authentication, RejectionKind> {
        let segments = Segments::split(credentials::check_visible_ascii(token)?)?; // RFC 7515 §7.1
        let header = self.0.header_cache.parse(segments.header)?; // RFC 7515 §4
        let payload = String::from_utf8(decode_base64url(segments.payload)?)
            .map_err(|_| RejectionKind::Malformed)?;
        let find_issuer = |claimed: &str, expires_at| self.find_issuer(claimed, expires_at, now);
        // Ends the parse of a token that is rejected below.
        let check = |claimed: &str, expires_at| find_issuer(claimed, expires_at).map(drop);
        let limits = self.0.size_limits;
        // RFC 7519 §7.2
        let unverified = UnverifiedToken::parse(&segments, &header, &payload, limits, &check)?;
        let (index, state, issuer) = find_issuer(unverified.issuer()?, unverified.expires_at())?;
        let policy = &state.policy;
        if !policy.algorithms.contains(&header.algorithm) {
            return Err(RejectionKind::UnsupportedAlgorithm);
        }
        let snapshot = state.keys.load();
        let keys = snapshot.usable(now).ok_or(RejectionKind::KeysUnavailable)?;
        let pending = |wait| Authentication::Pending(Pending::Keys(wait));
        let refresh = |reason: RefreshReason<'_>| state.keys.request_refresh(reason).map(pending);
        // Only a token that would pass with a newer key may cause a fetch.
        let would_pass = || unverified.would_pass_claims(policy, now).is_ok();
        let keys = match keys.select(&header, snapshot.revoked(), policy.max_candidate_keys) {
            Ok(keys) => keys,
            Err(SelectError::Revoked) => return Err(RejectionKind::RevokedKey),
            Err(SelectError::NoMatch) => return Err(RejectionKind::UnsupportedAlgorithm),
            Err(SelectError::Ambiguous) => return Err(RejectionKind::AmbiguousKey),
            Err(SelectError::UnknownKid) => {
                let kid = header.key_id.as_deref().unwrap_or_default();
                let may_refresh = !attempt.awaited_keys
                    && !state.keys.is_in_negative_cache(kid, &snapshot, now)
                    && would_pass();
                if may_refresh && let Some(wait) = refresh(RefreshReason::UnknownKey(kid, now)) {
                    return Ok(wait);
                }
                return Err(RejectionKind::UnknownKey);
            }
        };
        let permit = match attempt.permit {
            Some(permit) => permit,
            None => match self.0.verification_limit.try_acquire() {
                Ok(permit) => permit,
                Err(Unavailable::Wait(permit)) => {
                    return Ok(Authentication::Pending(Pending::Permit(permit)));
                }
                Err(Unavailable::Overloaded) => return Err(RejectionKind::Overloaded),
            },
        };
        let may_refresh =
            !attempt.awaited_keys && state.keys.refreshes_on_invalid_signature() && would_pass();
        let (verified, key) = match unverified.verify_signature(keys.as_slice()) {
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
        let claims = valid.claims(policy.subject_is_client);
        let validated = CachedToken::new(
            issuer.clone(),
            payload.into(),
            claims,
            verified_by,
            &self.0.responses,
            &self.0.clock,
        );
        // Under a verification limit, a token should need only one permit.
        let bypass_admission = self.0.verification_limit.is_enabled();
        self.0.cache.insert(token, &validated, bypass_admission);
        Ok(Authentication::Complete(validated.into()))
    }

    /// Finds the trusted issuer with this name or alias: its index in the list of the resource
    /// server, its state, and its name as the token spells it. Fails if this `exp` has passed by
    /// the issuer's leeway. A token is only ever verified with the keys of this issuer.
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

    /// Such a token ends up in the logs of every server on the way (RFC 9700 §4.3.2).
    pub(super) fn warn_token_in_query(&self) {
        if self.0.token_in_query.allows(self.0.clock.now()) {
            crate::trace::warn!(
                target: "tower_oauth::resource_server",
                "a request has its access token in the query, where it is ignored \
                 (logged once a minute)"
            );
        }
    }

    pub(super) fn reject(&self, kind: RejectionKind, grpc: bool) -> Rejection {
        crate::trace::debug!(
            target: "tower_oauth::resource_server",
            reason = kind.as_str(),
            "request rejected"
        );
        self.0.responses.reject(kind, grpc)
    }
}

/// Request extension that marks an anonymous request.
///
/// Holds the rejection for a route that requires a token.
#[derive(Clone, Debug)]
pub(super) struct Anonymous(pub(super) Rejection);

/// Keeps the credentials out of the `Debug` output of the request.
///
/// One field is enough: a request with several is rejected before.
pub(super) fn mark_sensitive<B>(request: &mut Request<B>) {
    if let Some(credentials) = request.headers_mut().get_mut(header::AUTHORIZATION) {
        credentials.set_sensitive(true);
    }
}

/// Builds the response to a rejected request, with the rejection as an extension.
pub(super) fn rejection_response<B, R: RejectionResponse<B>>(
    on_rejection: &R,
    rejection: Rejection,
) -> Response<B> {
    let mut response = on_rejection.response(&rejection);
    response.extensions_mut().insert(rejection);
    response
}
