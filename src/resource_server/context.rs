//! What handlers see of a verified token.

use std::collections::BTreeSet;
use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use http::Request;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::challenge::Parameters;
use crate::clock::UnixTime;
use crate::jwt::ValidClaims;
use crate::oauth::Issuer;

/// Who calls, as the verified access token says. Found in the request's extensions.
///
/// Cheap to clone.
#[derive(Clone)]
pub struct AuthContext(Arc<Inner>);

struct Inner {
    issuer: Issuer,
    subject: Option<Box<str>>,
    client_id: Option<Box<str>>,
    audience: Box<[Box<str>]>,
    scopes: Box<[Box<str>]>,
    expires_at: UnixTime,
    payload: Box<[u8]>,
    /// For a route that wants more than this token gives.
    challenge: Arc<Parameters>,
}

impl AuthContext {
    pub(super) fn new(
        issuer: Issuer,
        claims: &ValidClaims<'_>,
        subject_is_client: bool,
        challenge: &Arc<Parameters>,
    ) -> Self {
        Self(Arc::new(Inner {
            challenge: Arc::clone(challenge),
            issuer,
            subject: claims.subject().map(Box::from),
            client_id: claims.client_id(subject_is_client).map(Box::from),
            audience: claims.audience().map(Box::from).collect(),
            scopes: claims.scopes().map(Box::from).collect(),
            expires_at: claims.expires_at(),
            payload: claims.payload().into(),
        }))
    }

    pub(super) fn challenge(&self) -> &Parameters {
        &self.0.challenge
    }

    /// The context of a request that came through the layer.
    #[must_use]
    pub fn of<B>(request: &Request<B>) -> Option<&Self> {
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
        self.0.subject.as_deref()
    }

    /// The client that the token was issued to: `client_id`, else `azp`, else, with an App ID
    /// binding, the `sub` of an app-to-app token.
    #[must_use]
    pub fn client_id(&self) -> Option<&str> {
        self.0.client_id.as_deref()
    }

    /// All members of `aud`.
    pub fn audience(&self) -> impl Iterator<Item = &str> {
        self.0.audience.iter().map(|audience| &**audience)
    }

    /// The scope tokens of `scope`, else of `scp`.
    pub fn scopes(&self) -> impl Iterator<Item = &str> {
        self.0.scopes.iter().map(|scope| &**scope)
    }

    /// Whether the token has this very scope.
    #[must_use]
    pub fn has_scope(&self, scope: &str) -> bool {
        self.scopes().any(|own| own == scope)
    }

    /// When the token expires, `exp`, without leeway.
    #[must_use]
    pub fn expires_at(&self) -> UnixTime {
        self.0.expires_at
    }

    /// The roles: those of `roles` (Entra, App ID) and of `realm_access.roles` (Keycloak).
    ///
    /// A claim of another shape gives no roles.
    #[must_use]
    pub fn roles(&self) -> BTreeSet<String> {
        #[derive(Deserialize)]
        struct RealmAccess {
            roles: Vec<String>,
        }
        let own = self.claim::<Vec<String>>("roles").ok().flatten();
        let realm = self.claim::<RealmAccess>("realm_access").ok().flatten().map(|access| access.roles);
        own.into_iter().chain(realm).flatten().collect()
    }

    /// One claim, as a type of yours; `None` if the token does not have it.
    ///
    /// # Errors
    ///
    /// If the claim is not of that type.
    pub fn claim<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, ClaimError> {
        let claims: std::collections::BTreeMap<String, &RawValue> =
            serde_json::from_slice(&self.0.payload).map_err(ClaimError::new)?;
        claims.get(name).map(|claim| serde_json::from_str(claim.get()).map_err(ClaimError::new)).transpose()
    }

    /// All claims, as a type of yours.
    ///
    /// # Errors
    ///
    /// If the claims do not have that shape.
    pub fn claims<T: DeserializeOwned>(&self) -> Result<T, ClaimError> {
        serde_json::from_slice(&self.0.payload).map_err(ClaimError::new)
    }

    /// All claims, as the JSON text of the token's payload.
    #[must_use]
    pub fn claims_json(&self) -> &str {
        // The payload was parsed as JSON, and so is UTF-8.
        std::str::from_utf8(&self.0.payload).unwrap_or_default()
    }
}

impl fmt::Debug for AuthContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthContext")
            .field("issuer", &self.0.issuer)
            .field("subject", &self.0.subject)
            .field("client_id", &self.0.client_id)
            .field("audience", &self.0.audience)
            .field("scopes", &self.0.scopes)
            .field("expires_at", &self.0.expires_at)
            .finish_non_exhaustive()
    }
}

/// A claim that is not of the type asked for.
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
