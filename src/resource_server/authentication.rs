//! The path of a request: `decide` reads top to bottom.

use http::{HeaderMap, Request, Response, Uri, header};

use super::context::VerifiedBy;
use super::verification_limit::{NoTurn, Queue, Turn};
use super::{
    AuthContext, IssuerEntry, Rejection, RejectionKind, RejectionResponse, ResourceServer,
    credentials,
};
use crate::clock::UnixTime;
use crate::jwt::{
    ClaimsPolicy, DecodedHeader, DecodedPayload, Glance, Header, Segments, UnverifiedToken,
};
use crate::key_set::{Demand, SelectError, Wait};
use crate::oauth::Issuer;

/// What is to be done with a request that is not refused.
#[derive(Debug)]
pub(super) enum Decision {
    /// Serve it.
    Grant(AuthContext),
    /// Wait for this, then decide again.
    Await(Obstacle),
}

/// What a request that can be neither served nor refused yet has to wait for.
#[derive(Debug)]
pub(super) enum Obstacle {
    /// Its key may be newer than our set: a refresh. Nobody waits for that twice.
    Keys(Wait),
    /// Others verify their signatures: a turn.
    Turn(Queue),
}

/// What a request has waited for.
#[derive(Debug, Default)]
pub(super) struct Waited {
    pub(super) for_keys: bool,
    pub(super) turn: Option<Turn>,
}

impl Decision {
    fn for_keys(wait: Wait) -> Self {
        Self::Await(Obstacle::Keys(wait))
    }
}

/// A trusted issuer, by the name that a token has for it, and its place in the list.
#[derive(Clone, Copy)]
struct Trusted<'s> {
    index: usize,
    issuer: &'s Issuer,
    entry: &'s IssuerEntry,
}

impl ResourceServer {
    /// Judges a request without awaiting anything.
    pub(super) fn decide(
        &self,
        headers: &HeaderMap,
        uri: &Uri,
        waited: Waited,
    ) -> Result<Decision, RejectionKind> {
        let token = credentials::extract(headers, uri)?; // RFC 6750 §2.1
        if token.len() > self.0.max_token_len {
            return Err(RejectionKind::TokenTooLong);
        }
        let now = self.0.clock.now();
        if let Some(context) = self.remembered(token, now) {
            return Ok(Decision::Grant(context));
        }
        self.judge(token, now, waited)
    }

    /// The verdict of before on this very token, if it still holds.
    fn remembered(&self, token: &[u8], now: UnixTime) -> Option<AuthContext> {
        let context = self.0.cache.get(token, now)?;
        let entry = self.0.issuers.get(context.issuer_index())?;
        if context.is_current(&entry.keys, now) {
            self.0.counters.remembered();
            return Some(context);
        }
        self.0.cache.remove(token);
        None
    }

    /// Judges a token from its bytes: the cheap questions first, and the signature last but one.
    fn judge(
        &self,
        token: &[u8],
        now: UnixTime,
        waited: Waited,
    ) -> Result<Decision, RejectionKind> {
        let may_wait = !waited.for_keys;
        let segments = Segments::split(credentials::one_word(token)?)?; // RFC 7515 §7.1
        let header_cache = self.0.header_cache.load();
        let (mut header_json, is_new);
        let header = match header_cache.find(segments.header) {
            Some(seen) => {
                is_new = false;
                seen.header()
            }
            None => {
                is_new = true;
                header_json = DecodedHeader::new();
                Header::parse(header_json.decode(segments.header)?)? // RFC 7515 §4
            }
        };
        let mut payload = DecodedPayload::new();
        let payload = payload.decode(segments.payload)?;
        let glance = Glance::at(payload);
        if glance.issuer.is_some() {
            self.trusted(glance, now)?;
        }
        let payload = std::str::from_utf8(payload).map_err(|_| RejectionKind::Malformed)?;
        let unverified = UnverifiedToken::parse(&segments, header, payload, self.0.size_limits)?; // RFC 7519 §7.2
        let Trusted {
            index,
            issuer,
            entry,
        } = self.trusted(unverified.glance(), now)?;
        let policy = &entry.policy;
        if !policy.algorithms.contains(&unverified.header().algorithm) {
            return Err(RejectionKind::UnsupportedAlgorithm);
        }
        let snapshot = entry.keys.load();
        let keys = snapshot.usable(now).ok_or(RejectionKind::KeysUnavailable)?;
        let candidates = keys.select(
            unverified.header(),
            snapshot.revoked(),
            policy.max_candidate_keys,
        );
        let keys = match candidates {
            Ok(keys) => keys,
            Err(SelectError::Revoked) => return Err(RejectionKind::RevokedKey),
            Err(SelectError::NoMatch) => return Err(RejectionKind::UnsupportedAlgorithm),
            Err(SelectError::UnknownKid) => {
                let kid = unverified
                    .header()
                    .key_id
                    .as_ref()
                    .map_or("", |kid| kid.as_str());
                // Only a token that would pass but for its key may cause a fetch.
                let is_new = may_wait && !entry.keys.is_known_miss(kid, &snapshot, now);
                let plausible = is_new && unverified.would_pass_claims(policy, now).is_ok();
                let wait = plausible
                    .then(|| entry.keys.demand(Demand::UnknownKey(kid, now)))
                    .flatten();
                return wait
                    .map(Decision::for_keys)
                    .ok_or(RejectionKind::UnknownKey);
            }
        };
        let turn = match waited.turn.map_or_else(|| self.0.turns.take(), Ok) {
            Ok(turn) => turn,
            Err(NoTurn::Queue(queue)) => return Ok(Decision::Await(Obstacle::Turn(queue))),
            Err(NoTurn::Full) => return Err(RejectionKind::Overloaded),
        };
        let may_doubt = may_wait
            && entry.keys.refreshes_on_invalid_signature()
            && unverified.would_pass_claims(policy, now).is_ok();
        let (verified, key) = match unverified.verify_signature(keys.as_slice()) {
            Ok(verified) => verified, // RFC 7515 §5.2
            Err(defect) if may_doubt => {
                let wait = entry.keys.demand(Demand::BadSignature);
                return wait.map(Decision::for_keys).ok_or_else(|| defect.into());
            }
            Err(defect) => return Err(defect.into()),
        };
        drop(turn);
        let valid = verified.validate(policy, now)?; // RFC 7519 §4.1, RFC 9068 §4
        if is_new {
            self.0.header_cache.note(segments.header, valid.header());
        }
        let key = valid.header().key_id.is_some().then(|| key.fingerprint());
        let (epoch, leeway) = (snapshot.epoch(), policy.leeway);
        let provenance = VerifiedBy {
            issuer: index,
            key,
            epoch,
            leeway,
        };
        let summary = valid.summary(policy.subject_is_client);
        let challenge = self.0.challenges.parameters();
        let context = AuthContext::new(
            issuer.clone(),
            payload.into(),
            summary,
            provenance,
            challenge,
        );
        // Where turns are rare, a token should need one only.
        self.0
            .cache
            .offer(token, &context, self.0.turns.are_limited());
        Ok(Decision::Grant(context))
    }

    /// The issuer that a token says it has, if it is trusted and the token not expired: a token
    /// only ever meets the keys of its own issuer.
    fn trusted(&self, glance: Glance<'_>, now: UnixTime) -> Result<Trusted<'_>, RejectionKind> {
        let claimed = glance.issuer.ok_or(RejectionKind::InvalidClaims)?;
        let trusted = self
            .0
            .issuers
            .iter()
            .enumerate()
            .find_map(|(index, entry)| {
                let ClaimsPolicy {
                    issuer,
                    issuer_aliases,
                    ..
                } = &entry.policy;
                let issuer = std::iter::once(issuer)
                    .chain(issuer_aliases)
                    .find(|known| known.as_str().as_bytes() == claimed)?;
                Some(Trusted {
                    index,
                    issuer,
                    entry,
                })
            });
        let trusted = trusted.ok_or(RejectionKind::UntrustedIssuer)?;
        let expired = glance
            .expires_at
            .is_some_and(|date| trusted.entry.policy.is_expired(date, now));
        if expired {
            Err(RejectionKind::Expired)
        } else {
            Ok(trusted)
        }
    }

    /// RFC 9700 §4.3.2: such a token is in the logs of everything on the way.
    pub(super) fn warn_of_token_in_query(&self) {
        if self.0.token_in_query.allows(self.0.clock.now()) {
            crate::trace::warn!(
                target: "tower_oauth::resource_server",
                "a request has its access token in the query, where it is ignored (logged once a minute)"
            );
        } else {
            crate::trace::debug!(
                target: "tower_oauth::resource_server",
                "a request has its access token in the query, where it is ignored"
            );
        }
    }

    pub(super) fn reject(&self, kind: RejectionKind, grpc: bool) -> Rejection {
        self.0.counters.refused(kind);
        crate::trace::debug!(target: "tower_oauth::resource_server", reason = kind.as_str(), "request refused");
        self.0.challenges.reject(kind, grpc)
    }
}

/// Put into the extensions of a request that may be served without a token, with the answer
/// for a route that needs one after all.
#[derive(Clone, Debug)]
pub(super) struct Anonymous(pub(super) Rejection);

/// Keeps the credentials out of the `Debug` output of the request. It has one field at most: with
/// several it is refused.
pub(super) fn mark_sensitive<B>(request: &mut Request<B>) {
    if let Some(credentials) = request.headers_mut().get_mut(header::AUTHORIZATION) {
        credentials.set_sensitive(true);
    }
}

/// Makes the answer to a refused request.
pub(super) fn refuse<B, R: RejectionResponse<B>>(
    on_rejection: &R,
    rejection: Rejection,
) -> Response<B> {
    let mut response = on_rejection.response(&rejection);
    response.extensions_mut().insert(rejection);
    response
}
