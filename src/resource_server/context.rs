//! The validated token, as handlers see it.

use std::collections::BTreeSet;
use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::Request;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::challenge::Responses;
use crate::clock::UnixTime;
use crate::jwt::{Claims, Fingerprint};
use crate::key_set::{KeySetHandle, Snapshot};
use crate::oauth::Issuer;

/// The validated access token of a request, an extension of that request.
///
/// Cheap to clone.
#[derive(Clone)]
pub struct AuthContext(Arc<Inner>);

// The field order is deliberate: a cache hit reads the first field, which shares a CPU cache line
// with the reference count. With many tokens, that one line is the cost of a hit.
#[repr(C)]
struct Inner {
    validity: Validity,
    /// For the `insufficient_scope` challenge of a route.
    responses: Arc<Responses>,
    issuer: Issuer,
    payload: Box<str>,
    claims: Claims,
    key: Option<Fingerprint>,
}

/// What a cache hit checks.
struct Validity {
    /// The latest version of the key set with which the token is known to be valid.
    key_set_version: AtomicU64,
    /// The index of the issuer in the list of the resource server.
    issuer: usize,
    /// The later of `nbf` and `iat`, minus the leeway.
    not_before: UnixTime,
    /// `exp` plus the leeway.
    expires: UnixTime,
}

/// Issuer, key and key set version that verified the token.
#[derive(Clone, Copy, Debug)]
pub(super) struct VerifiedBy {
    /// The index of the issuer in the list of the resource server.
    pub(super) issuer: usize,
    /// The key; `None` for a token without `kid`, whose validity depends on the whole set.
    pub(super) key: Option<Fingerprint>,
    /// The version of the key set.
    pub(super) key_set_version: u64,
    /// The clock leeway of the issuer's policy.
    pub(super) leeway: Duration,
}

impl AuthContext {
    pub(super) fn new(
        issuer: Issuer,
        payload: Box<str>,
        claims: Claims,
        verified_by: VerifiedBy,
        responses: &Arc<Responses>,
    ) -> Self {
        let VerifiedBy {
            issuer: index,
            key,
            key_set_version,
            leeway,
        } = verified_by;
        let validity = Validity {
            key_set_version: AtomicU64::new(key_set_version),
            issuer: index,
            not_before: claims.not_before.saturating_sub(leeway),
            expires: claims.expires_at.saturating_add(leeway),
        };
        let responses = Arc::clone(responses);
        Self(Arc::new(Inner {
            validity,
            responses,
            issuer,
            payload,
            claims,
            key,
        }))
    }

    /// Copies the context into a new allocation, so that its reference count is not shared.
    pub(super) fn deep_clone(&self) -> Self {
        let Inner {
            validity,
            responses,
            issuer,
            payload,
            claims,
            key,
        } = &*self.0;
        let Validity {
            key_set_version,
            issuer: index,
            not_before,
            expires,
        } = validity;
        let validity = Validity {
            key_set_version: AtomicU64::new(key_set_version.load(Ordering::Relaxed)),
            issuer: *index,
            not_before: *not_before,
            expires: *expires,
        };
        let (responses, issuer, payload) = (Arc::clone(responses), issuer.clone(), payload.clone());
        Self(Arc::new(Inner {
            validity,
            responses,
            issuer,
            payload,
            claims: claims.clone(),
            key: *key,
        }))
    }

    /// The index of the issuer in the list of the resource server.
    pub(super) fn issuer_index(&self) -> usize {
        self.0.validity.issuer
    }

    /// Whether the cached token is valid now: validating it again would give the same context.
    pub(super) fn is_still_valid(&self, keys: &KeySetHandle, now: UnixTime) -> bool {
        let validity = &self.0.validity;
        validity.not_before <= now
            && now < validity.expires
            && (keys.is_version_current(validity.key_set_version.load(Ordering::Relaxed), now)
                || self.key_is_still_published(&keys.load(), now))
    }

    /// Whether the key that verified the token is still published and not revoked. If so, stores
    /// the new version of the key set, which makes later checks cheap.
    fn key_is_still_published(&self, snapshot: &Snapshot, now: UnixTime) -> bool {
        let Inner { validity, key, .. } = &*self.0;
        let is_published =
            snapshot.usable(now).is_some() && key.is_some_and(|key| snapshot.is_key_published(key));
        if is_published {
            validity
                .key_set_version
                .store(snapshot.key_set_version(), Ordering::Relaxed);
        }
        is_published
    }

    pub(super) fn responses(&self) -> &Arc<Responses> {
        &self.0.responses
    }

    /// Returns the context of a request that passed the layer.
    #[must_use]
    pub fn from_request<B>(request: &Request<B>) -> Option<&Self> {
        request.extensions().get()
    }

    /// The issuer of the token, `iss`.
    #[must_use]
    pub fn issuer(&self) -> &Issuer {
        &self.0.issuer
    }

    /// The subject, `sub`. In an app-to-app token usually the application itself.
    #[must_use]
    pub fn subject(&self) -> Option<&str> {
        self.0.claims.subject.as_deref()
    }

    /// The client that the token was issued to: the first of `client_id`, `azp`, `appid` and `cid`
    /// that the token has, else, with an App ID binding, the `sub` of an app-to-app token.
    #[must_use]
    pub fn client_id(&self) -> Option<&str> {
        self.0.claims.client_id.as_deref()
    }

    /// The audiences, `aud`.
    pub fn audience(&self) -> impl Iterator<Item = &str> {
        self.0.claims.audience.iter().map(|one| &**one)
    }

    /// The scope tokens of `scope`, else of `scp`.
    pub fn scopes(&self) -> impl Iterator<Item = &str> {
        let scopes = self.0.claims.scopes.split(' ');
        scopes.filter(|scope| !scope.is_empty())
    }

    /// Whether the token has exactly this scope.
    #[must_use]
    pub fn has_scope(&self, scope: &str) -> bool {
        self.scopes().any(|own| own == scope)
    }

    /// When the token expires, `exp`, without leeway.
    #[must_use]
    pub fn expires_at(&self) -> UnixTime {
        self.0.claims.expires_at
    }

    /// The roles, from `roles` (Entra, App ID) and `realm_access.roles` (Keycloak).
    ///
    /// A claim of another shape is ignored.
    #[must_use]
    pub fn roles(&self) -> BTreeSet<String> {
        #[derive(Deserialize)]
        struct RealmAccess {
            roles: Vec<String>,
        }
        let own = self.claim::<Vec<String>>("roles").ok().flatten();
        let realm = self
            .claim::<RealmAccess>("realm_access")
            .ok()
            .flatten()
            .map(|access| access.roles);
        own.into_iter().chain(realm).flatten().collect()
    }

    /// Deserializes one claim; `None` if the token does not have it.
    ///
    /// # Errors
    ///
    /// If the claim is not of that type.
    pub fn claim<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, ClaimError> {
        let claims: std::collections::BTreeMap<String, &RawValue> =
            serde_json::from_str(&self.0.payload).map_err(ClaimError::new)?;
        claims
            .get(name)
            .map(|claim| serde_json::from_str(claim.get()).map_err(ClaimError::new))
            .transpose()
    }

    /// Deserializes all claims.
    ///
    /// # Errors
    ///
    /// If the claims do not have that shape.
    pub fn claims<T: DeserializeOwned>(&self) -> Result<T, ClaimError> {
        serde_json::from_str(&self.0.payload).map_err(ClaimError::new)
    }

    /// All claims, as the JSON text of the payload.
    #[must_use]
    pub fn claims_json(&self) -> &str {
        &self.0.payload
    }
}

impl fmt::Debug for AuthContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthContext")
            .field("issuer", &self.0.issuer)
            .field("subject", &self.subject())
            .field("client_id", &self.client_id())
            .field("audience", &self.audience().collect::<Vec<_>>())
            .field("scopes", &self.scopes().collect::<Vec<_>>())
            .field("expires_at", &self.expires_at())
            .finish_non_exhaustive()
    }
}

/// A claim does not have the requested type.
#[derive(Debug)]
pub struct ClaimError(serde_json::Error);

impl ClaimError {
    fn new(error: serde_json::Error) -> Self {
        Self(error)
    }
}

impl fmt::Display for ClaimError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the claim is not of the expected type")
    }
}

impl StdError for ClaimError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&self.0)
    }
}
