//! The events of rejected requests: each at `debug`, and one a minute for each reason at `warn`,
//! with and without a valid signature.

use std::sync::Arc;
use std::{fmt, iter};

use super::issuer_state::IssuerState;
use super::{Rejection, RejectionKind};
use crate::clock::Clock;
use crate::log_limit::LogLimit;
use crate::oauth::Issuer;
use crate::text;

/// The events of one resource server. They have its expected values, and what was found where the
/// signature was valid. Without a valid signature a stranger chose the token: nothing of it is
/// logged.
#[cfg_attr(not(feature = "tracing"), allow(dead_code, reason = "for events"))]
pub(super) struct RejectionEvents {
    clock: Arc<dyn Clock>,
    by_kind: Vec<KindEvents>,
}

/// The events of one reason.
#[cfg_attr(not(feature = "tracing"), allow(dead_code, reason = "for events"))]
struct KindEvents {
    kind: RejectionKind,
    expected: String,
    /// Of tokens with a valid signature.
    verified: LogLimit,
    /// Of all others, which a stranger can send: they must not hide the ones above.
    unverified: LogLimit,
}

/// Whether rejections are logged, so that what was expected and found has to be written.
pub(super) fn are_logged() -> bool {
    crate::trace::warns!("tower_oauth::resource_server")
}

impl RejectionEvents {
    pub(super) fn new(issuers: &[IssuerState], clock: Arc<dyn Clock>) -> Self {
        let events = |kind: &RejectionKind| KindEvents {
            kind: *kind,
            expected: expected(*kind, issuers),
            verified: LogLimit::new(),
            unverified: LogLimit::new(),
        };
        Self {
            clock,
            by_kind: RejectionKind::ALL.iter().map(events).collect(),
        }
    }

    /// Logs a rejection.
    #[cfg_attr(
        not(feature = "tracing"),
        expect(unused_variables, reason = "nothing is logged")
    )]
    pub(super) fn log(&self, rejection: &Rejection) {
        if !are_logged() {
            return;
        }
        let Some(own) = self.by_kind.iter().find(|own| own.kind == rejection.kind) else {
            return;
        };
        let details = &rejection.details;
        let issuer = details.issuer.as_ref().map(Issuer::as_str);
        let (expected, found) = match &details.mismatch {
            Some(mismatch) => (&*mismatch.expected, &*mismatch.found),
            None => (
                &*own.expected,
                details.found.unwrap_or_else(|| found(own.kind)),
            ),
        };
        // Of a handler, which has no mismatch.
        let scopes = rejection.required_scopes();
        let lacks_scope = own.kind == RejectionKind::InsufficientScope;
        let of_scopes = (lacks_scope && details.mismatch.is_none() && !scopes.is_empty())
            .then(|| format!("the scopes {}", text::setting_list(scopes)));
        let expected = of_scopes.as_deref().unwrap_or(expected);
        crate::trace::debug!(
            target: "tower_oauth::resource_server",
            reason = own.kind.as_str(),
            issuer,
            %expected,
            %found,
            "request rejected"
        );
        if details.has_other_event {
            return;
        }
        let limit = match &details.mismatch {
            Some(_) => &own.verified,
            None => &own.unverified,
        };
        if let Some(suppressed) = limit.permit(self.clock.now()) {
            crate::trace::warn!(
                target: "tower_oauth::resource_server",
                reason = own.kind.as_str(),
                issuer,
                %expected,
                %found,
                "a request was rejected{suppressed} (logged once a minute for each reason)"
            );
        }
    }
}

/// What a server with these issuers expects where a request is rejected for this reason.
fn expected(kind: RejectionKind, issuers: &[IssuerState]) -> String {
    let text = match kind {
        RejectionKind::AmbiguousKey => "a kid that one key has, or few keys (max_candidate_keys)",
        RejectionKind::Expired => return format!("exp in the future{}", leeway(issuers)),
        RejectionKind::Forbidden => "a token that the route permits",
        RejectionKind::InsufficientAuthentication => "another authentication of the user",
        RejectionKind::InsufficientScope => "another scope",
        RejectionKind::InvalidAudience => {
            let audiences = issuers.iter().flat_map(|one| &one.policy.audiences);
            return format!("aud with one of {}", distinct(audiences));
        }
        RejectionKind::InvalidClaims => {
            "iss, aud and exp, each registered claim of its type, and no name twice"
        }
        RejectionKind::InvalidRequest => {
            "one Authorization field of Bearer, a space and a token, and no other token or proof"
        }
        RejectionKind::InvalidSignature => "a signature by the key that the token names",
        RejectionKind::KeysUnavailable => "usable keys of the issuer, see `key_sets`",
        RejectionKind::LayerMissing => "a ResourceServerLayer",
        RejectionKind::Malformed => {
            "a signed JWT: three segments, strict base64url and JSON, no crit, b64, zip, enc or cty"
        }
        RejectionKind::MissingProofOfPossession => "a token without cnf: proofs are not supported",
        RejectionKind::MissingToken => "one Authorization field of Bearer and the token",
        RejectionKind::NotYetValid => return format!("nbf and iat in the past{}", leeway(issuers)),
        RejectionKind::Overloaded => "fewer waiting requests (max_concurrent_verifications)",
        RejectionKind::RevokedKey => "a key that is not revoked",
        RejectionKind::TokenTooLong => {
            let longest = issuers.iter().map(|one| one.max_token_len).max();
            let longest = longest.unwrap_or_default();
            return format!("at most {longest} bytes (max_token_len), and 8 KiB of header");
        }
        RejectionKind::TooManyMembers => "fewer members and elements (see max_token_len)",
        RejectionKind::UnexpectedTokenType => "an access token",
        RejectionKind::UnknownKey => "a kid of the key set of the issuer, see `key_sets`",
        RejectionKind::UnsupportedAlgorithm => {
            let algorithms = issuers.iter().flat_map(|one| &one.policy.algorithms);
            let algorithms = distinct(algorithms.map(|one| one.name()));
            return format!("one of {algorithms}, and a key for it");
        }
        RejectionKind::UntrustedClient => "one of the allowed clients",
        RejectionKind::UntrustedIssuer => {
            let names = issuers.iter().map(|one| &one.policy);
            let names = names.flat_map(|one| iter::once(&one.issuer).chain(&one.issuer_aliases));
            return format!("one of the issuers {}", distinct(names));
        }
    };
    text.to_owned()
}

/// What a request has instead, if it is nothing of a token with a valid signature.
fn found(kind: RejectionKind) -> &'static str {
    match kind {
        // Of a handler: the layer around it does not keep the token.
        RejectionKind::Forbidden
        | RejectionKind::InsufficientAuthentication
        | RejectionKind::InsufficientScope => "a token that a handler rejects",
        RejectionKind::InvalidRequest => "a malformed or repeated field",
        RejectionKind::KeysUnavailable => "no keys, or keys older than max_stale",
        RejectionKind::MissingProofOfPossession => "cnf",
        RejectionKind::MissingToken => "no token",
        RejectionKind::Overloaded => "as many waiting requests as allowed",
        RejectionKind::TokenTooLong => "more",
        _ => "not logged: the signature is not verified",
    }
}

/// The distinct values, in their order.
fn distinct<T: AsRef<str>>(values: impl Iterator<Item = T>) -> String {
    let mut list: Vec<T> = Vec::new();
    for value in values {
        if list.iter().all(|listed| listed.as_ref() != value.as_ref()) {
            list.push(value);
        }
    }
    text::setting_list(list)
}

/// The leeway, if all issuers have the same.
fn leeway(issuers: &[IssuerState]) -> String {
    let mut all = issuers.iter().map(|one| one.policy.leeway);
    match all.next() {
        Some(first) if all.all(|other| other == first) => {
            format!(", with {} s of leeway", first.as_secs())
        }
        _ => String::new(),
    }
}

impl fmt::Debug for RejectionEvents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RejectionEvents").finish_non_exhaustive()
    }
}
