//! Assertions: JWTs that prove which application sent a request
//! ([RFC 7523 §3](https://www.rfc-editor.org/rfc/rfc7523#section-3)).
//!
//! ```text
//!  16 KiB, strict JSON, alg, typ, no jwk, jku, x5u
//!    ──▶ application by iss and sub ──▶ key by kid and alg ──▶ signature
//!    ──▶ aud ──▶ exp, nbf, iat ──▶ jti, which an application uses once
//! ```
//!
//! Two kinds of registration allow them. With a JWK Set, the application signs: `iss` and `sub` are
//! its client id. With a federated credential, a trusted issuer signs, and `sub` names the workload:
//! a service account of Kubernetes, a job of GitHub Actions, a SPIFFE ID. Such a JWT lies in a file
//! and is sent again until it expires, so `jti` is not checked.
//!
//! Keys are those of the registration. No request makes the server fetch keys.
//!
//! An unknown application gets the response of an invalid signature, after about the same work: one
//! signature is verified in any case.

mod decoy_keys;
mod replay;

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use self::decoy_keys::decoy_key;
pub(super) use self::replay::ReplayCache;
use self::replay::ReplayError;
use super::applications::Registration;
use super::assertion_settings::ExpectedAudience;
use super::error_response::ErrorResponse;
use super::signed_jwt::{JwtClaims, SignedJwt};
use super::{Inner, Version};
use crate::clock::UnixTime;
use crate::jwt::VerificationKey;
use crate::key_set::KeySet;

/// How far `nbf` and `iat` may be in the future, and `exp` beyond its limit: clocks differ.
const LEEWAY: Duration = Duration::from_secs(60);

/// How far in the future `exp` of an assertion may be that the application signed.
const MAX_LIFETIME: Duration = Duration::from_secs(3600);

/// The same for a trusted issuer, whose tokens may be projected for a day.
const MAX_FEDERATED_LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// What an assertion is sent for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AssertionPurpose {
    /// Client authentication, with the type of RFC 7523 §2.2.
    ClientAuthentication,
    /// Client authentication with a JWT-SVID, draft-ietf-oauth-spiffe-client-auth.
    SpiffeClientAuthentication,
    /// The jwt-bearer grant (RFC 7523 §2.1).
    Grant,
}

impl AssertionPurpose {
    /// The explicit types that are accepted. Any other JWT of the same key, such as an access token
    /// (`at+jwt`), a DPoP proof or a logout token, is no assertion (RFC 8725 §3.11).
    fn types(self) -> &'static [&'static str] {
        match self {
            // rfc7523bis §4
            Self::ClientAuthentication => &["JWT", "client-authentication+jwt"],
            Self::SpiffeClientAuthentication | Self::Grant => &["JWT"],
        }
    }
}

/// Why an assertion is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AssertionError {
    /// No application is registered for it, no key of the application fits, or the signature is
    /// invalid. The response does not say which.
    Unauthenticated,
    /// What is wrong with the JWT itself, or with the claims of one whose signature is valid.
    Invalid(&'static str),
    /// Too many assertions of the application are still valid.
    TooMany,
}

impl AssertionError {
    /// The response, by `refuse` with a description.
    pub(super) fn into_response(
        self,
        refuse: impl FnOnce(&'static str) -> ErrorResponse,
    ) -> ErrorResponse {
        match self {
            Self::Unauthenticated => refuse("the assertion is not that of a registered client"),
            Self::Invalid(reason) => refuse(reason),
            Self::TooMany => ErrorResponse::overloaded(
                "too many assertions of this client are still valid: use a shorter lifetime",
            ),
        }
    }
}

/// Verifies an assertion and returns the application that it identifies.
pub(super) fn verify(
    server: &Inner,
    version: Version,
    assertion: &str,
    purpose: AssertionPurpose,
) -> Result<Registration, AssertionError> {
    use AssertionError::{Invalid, Unauthenticated};
    let jwt = SignedJwt::parse(assertion).map_err(|_| {
        Invalid("the assertion is not a JWT of at most 16 KiB with a supported alg")
    })?;
    if jwt.has_embedded_key() {
        return Err(Invalid("the header of the assertion has jwk, jku or x5u"));
    }
    if !jwt.has_type(purpose.types()) {
        return Err(Invalid("typ of the assertion is not that of an assertion"));
    }
    let signer = find_signer(server, jwt.claims(), purpose)?;
    let key = signer
        .as_ref()
        .and_then(|signer| select(&signer.keys, &jwt));
    // So that the time does not show what is registered.
    let is_signed = jwt.is_signed_by(key.unwrap_or_else(|| decoy_key(jwt.algorithm())));
    let (Some(signer), Some(_), true) = (&signer, key, is_signed) else {
        return Err(Unauthenticated);
    };
    let now = server.clock.now();
    check_audience(server, version, jwt.claims(), signer)?;
    let expires_at = check_times(jwt.claims(), signer, now)?;
    if !signer.is_federated {
        let id = jwt.claims().string("jti").filter(|id| !id.is_empty());
        let id = id.ok_or(Invalid("jti of the assertion is missing"))?;
        let client_id = &signer.application.client_id;
        server
            .replay_cache
            .insert(client_id, id, expires_at, now)
            .map_err(|error| match error {
                ReplayError::Seen => Invalid("the assertion was used before: jti must be new"),
                ReplayError::Full => AssertionError::TooMany,
            })?;
    }
    Ok(signer.application.clone())
}

/// The application that an assertion claims to identify, and the keys that may have signed it.
struct Signer {
    application: Registration,
    keys: Arc<KeySet>,
    /// Whether the keys are those of a trusted issuer.
    is_federated: bool,
}

/// `None` if there is no such application.
fn find_signer(
    server: &Inner,
    claims: &JwtClaims,
    purpose: AssertionPurpose,
) -> Result<Option<Signer>, AssertionError> {
    use AssertionError::Invalid;
    let subject = claims.string("sub");
    let subject = subject.ok_or(Invalid("sub of the assertion is missing"))?;
    let is_spiffe = purpose == AssertionPurpose::SpiffeClientAuthentication;
    let issuer = match claims.string("iss") {
        Some(issuer) => issuer,
        // JWT-SVID §3: `iss` is optional. The trust domain has signed it.
        None if is_spiffe => {
            trust_domain(subject).ok_or(Invalid("sub of the assertion is not a SPIFFE ID"))?
        }
        None => return Err(Invalid("iss of the assertion is missing")),
    };
    if is_spiffe && trust_domain(subject).is_none() {
        return Err(Invalid("sub of the assertion is not a SPIFFE ID"));
    }
    let state = server.state();
    if issuer == subject {
        let registered = state.application(subject).and_then(|application| {
            let keys = application.assertions.keys()?.clone();
            Some((application, keys))
        });
        return Ok(registered.map(|(application, keys)| Signer {
            application: application.clone(),
            keys,
            is_federated: false,
        }));
    }
    // An access token of this server is no assertion, even if its keys are registered.
    if server.is_issuer(issuer) {
        return Ok(None);
    }
    let registered = state.federated_application(issuer, subject);
    Ok(registered.map(|(application, credential)| Signer {
        application: application.clone(),
        keys: credential.jwks.keys().clone(),
        is_federated: true,
    }))
}

/// The trust domain of a SPIFFE ID, `spiffe://example.org/path`.
fn trust_domain(spiffe_id: &str) -> Option<&str> {
    const SCHEME: &str = "spiffe://";
    let (domain, _path) = spiffe_id.strip_prefix(SCHEME)?.split_once('/')?;
    match domain.is_empty() {
        true => None,
        false => spiffe_id.get(..SCHEME.len() + domain.len()),
    }
}

/// The key with the `kid` of the assertion, if it is for its algorithm. Without a `kid`, the only
/// key for the algorithm.
fn select<'k>(keys: &'k KeySet, jwt: &SignedJwt<'_>) -> Option<&'k VerificationKey> {
    let mut fitting = keys.used_keys().filter(|(kid, key)| {
        (jwt.key_id().is_none() || jwt.key_id() == *kid) && key.supports(jwt.algorithm())
    });
    let (_, key) = fitting.next()?;
    fitting.next().is_none().then_some(key)
}

/// The audience is one string, so that no other server accepts the assertion (rfc7523bis §3).
/// Kubernetes and SPIRE write it as an array of one.
fn check_audience(
    server: &Inner,
    version: Version,
    claims: &JwtClaims,
    signer: &Signer,
) -> Result<(), AssertionError> {
    let audience = match claims.get("aud") {
        Some(Value::Array(all)) if signer.is_federated && all.len() == 1 => all.first(),
        other => other,
    };
    let audience = audience.and_then(Value::as_str);
    match signer.application.assertions.audience {
        ExpectedAudience::Issuer => {
            let issuer = server.issuer(version);
            let is_issuer = |audience: &str| {
                audience == issuer || audience.strip_suffix('/') == Some(issuer.as_str())
            };
            match audience.is_some_and(is_issuer) {
                true => Ok(()),
                false => Err(AssertionError::Invalid(
                    "aud of the assertion must be the issuer, as one string",
                )),
            }
        }
        ExpectedAudience::TokenEndpoint => {
            let endpoint = format!("{}/token", server.oauth_url(version));
            match audience == Some(endpoint.as_str()) {
                true => Ok(()),
                false => Err(AssertionError::Invalid(
                    "aud of the assertion must be the token endpoint, as one string",
                )),
            }
        }
    }
}

/// Checks `exp`, `nbf` and `iat`, and returns `exp`.
fn check_times(
    claims: &JwtClaims,
    signer: &Signer,
    now: UnixTime,
) -> Result<UnixTime, AssertionError> {
    let invalid = |reason| Err(AssertionError::Invalid(reason));
    let Some(expires_at) = claims.date("exp") else {
        return invalid("exp of the assertion is missing");
    };
    if now >= expires_at {
        return invalid("the assertion has expired");
    }
    let limit = match signer.is_federated {
        true => MAX_FEDERATED_LIFETIME,
        false => MAX_LIFETIME,
    };
    if expires_at > now.saturating_add(limit).saturating_add(LEEWAY) {
        return invalid("exp of the assertion is too far in the future");
    }
    let latest_start = Some(now.saturating_add(LEEWAY));
    if claims.date("nbf") > latest_start || claims.date("iat") > latest_start {
        return invalid("nbf or iat of the assertion is in the future");
    }
    Ok(expires_at)
}
