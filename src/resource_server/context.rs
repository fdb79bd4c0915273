//! The validated token, as handlers see it.

use std::error::Error as StdError;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::{Extensions, Request};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::clock::{Clock, UnixTime};
use crate::jwt::{Claims, Fingerprint, Thumbprint, numeric_date};
use crate::key_set::{KeySetHandle, Snapshot};
use crate::oauth::Issuer;

/// The validated access token of a request, an extension of that request.
///
/// Cheap to clone. Clones share the parsed claims: the JSON is parsed at most once for a request.
///
/// ```
/// # #[cfg(feature = "test-util")]
/// # fn main() -> Result<(), tower_oauth::resource_server::ClaimError> {
/// use tower_oauth::AuthContext;
///
/// let caller = AuthContext::builder() // in a test; else inserted by the layer
///     .client_id("shop")
///     .scopes(["orders.read"])
///     .roles(["buyer"])
///     .claim("plan", "pro")
///     .build();
/// assert_eq!(caller.client_id(), Some("shop"));
/// assert!(caller.has_scope("orders.read") && caller.has_role("buyer"));
/// assert!(caller.expires_in().as_secs() > 3000);
/// assert_eq!(caller.claim::<String>("plan")?.as_deref(), Some("pro"));
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "test-util"))]
/// # fn main() {}
/// ```
pub struct AuthContext {
    pub(super) token: CachedToken,
    /// The parsed claims, which belong to the request and not to the cached token. The first clone
    /// creates the cell that all clones share; a hit of the cache allocates none.
    parsed: OnceLock<Arc<OnceLock<ParsedClaims>>>,
}

type ParsedClaims = Result<Map<String, Value>, ClaimError>;

/// The validated claims of a token, as the token cache stores them. A clone shares the memory.
#[derive(Clone)]
pub(super) struct CachedToken(Arc<Inner>);

// The field order is deliberate: a cache hit reads the first field, which shares a CPU cache line
// with the reference count. With many tokens, that one line is the cost of a hit.
#[derive(Clone)]
#[repr(C)]
struct Inner {
    validity: Validity,
    /// For the remaining lifetime.
    clock: Arc<dyn Clock>,
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
    /// Whether the token is bound to a key.
    is_bound: bool,
}

impl Clone for Validity {
    fn clone(&self) -> Self {
        let key_set_version = self.key_set_version.load(Ordering::Relaxed).into();
        Self {
            key_set_version,
            ..*self
        }
    }
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

impl CachedToken {
    pub(super) fn new(
        issuer: Issuer,
        payload: Box<str>,
        claims: Claims,
        verified_by: VerifiedBy,
        clock: &Arc<dyn Clock>,
    ) -> Self {
        let validity = Validity {
            key_set_version: AtomicU64::new(verified_by.key_set_version),
            issuer: verified_by.issuer,
            not_before: claims.not_before.saturating_sub(verified_by.leeway),
            expires: claims.expires_at.saturating_add(verified_by.leeway),
            is_bound: claims.confirmation.is_some(),
        };
        Self(Arc::new(Inner {
            validity,
            clock: Arc::clone(clock),
            issuer,
            payload,
            claims,
            key: verified_by.key,
        }))
    }

    /// Replaces the client, before the token is cached.
    pub(super) fn with_client_id(mut self, client_id: Option<Box<str>>) -> Self {
        Arc::make_mut(&mut self.0).claims.client_id = client_id;
        self
    }

    /// Copies the claims into a new allocation, so that its reference count is not shared.
    pub(super) fn deep_clone(&self) -> Self {
        Self(Arc::new((*self.0).clone()))
    }

    /// The index of the issuer in the list of the resource server.
    pub(super) fn issuer_index(&self) -> usize {
        self.0.validity.issuer
    }

    /// Whether the token is bound to a key, whose possession each request must prove.
    pub(super) fn is_bound(&self) -> bool {
        self.0.validity.is_bound
    }

    /// Whether possession of these keys is all the proof that the token needs.
    #[cold]
    pub(super) fn is_proved_by(&self, proved: &[Thumbprint]) -> bool {
        let confirmation = self.0.claims.confirmation.as_ref();
        confirmation.is_none_or(|confirmation| confirmation.is_proved_by(proved))
    }

    /// All claims, as the JSON text of the payload.
    pub(super) fn claims_json(&self) -> &str {
        &self.0.payload
    }

    /// Estimated bytes of the claims: the payload, and the copies of some of its strings.
    pub(super) fn size(&self) -> u64 {
        let bytes = 3 * self.0.payload.len() + 48 * self.0.claims.audience.len();
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }

    /// Whether the token is valid now: validating it again would give the same context.
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
        let key = self.0.key;
        let is_published =
            snapshot.usable(now).is_some() && key.is_some_and(|key| snapshot.is_key_published(key));
        if is_published {
            let version = &self.0.validity.key_set_version;
            version.store(snapshot.key_set_version(), Ordering::Relaxed);
        }
        is_published
    }
}

impl From<CachedToken> for AuthContext {
    fn from(token: CachedToken) -> Self {
        let parsed = OnceLock::new();
        Self { token, parsed }
    }
}

impl Clone for AuthContext {
    fn clone(&self) -> Self {
        let parsed = Arc::clone(self.parsed.get_or_init(Arc::default));
        Self {
            token: self.token.clone(),
            parsed: parsed.into(),
        }
    }
}

impl AuthContext {
    /// A copy that parses the claims by itself: unlike a clone, it allocates nothing.
    pub(super) fn without_parsed_claims(&self) -> Self {
        self.token.clone().into()
    }

    fn inner(&self) -> &Inner {
        &self.token.0
    }

    /// Returns the context of a request that passed the layer.
    ///
    /// ```
    /// use http::Request;
    /// use tower_oauth::AuthContext;
    ///
    /// fn caller<B>(request: &Request<B>) -> &str {
    ///     AuthContext::from_request(request).and_then(AuthContext::client_id).unwrap_or("unknown")
    /// }
    ///
    /// let mut request = Request::new(());
    /// assert_eq!(caller(&request), "unknown");
    /// // Inserted by the layer, and here by the test:
    /// request.extensions_mut().insert(AuthContext::builder().client_id("shop").build());
    /// assert_eq!(caller(&request), "shop");
    /// ```
    #[must_use]
    pub fn from_request<B>(request: &Request<B>) -> Option<&Self> {
        Self::from_extensions(request.extensions())
    }

    /// Returns the context from the extensions of a request that passed the layer.
    ///
    /// For extensions without their request, such as those of a tonic request.
    ///
    /// ```
    /// use tonic::{Request, Status};
    /// use tower_oauth::AuthContext;
    ///
    /// fn subject<T>(request: &Request<T>) -> Result<&str, Status> {
    ///     let caller = AuthContext::from_extensions(request.extensions());
    ///     caller.and_then(AuthContext::subject).ok_or_else(|| Status::internal("no subject"))
    /// }
    ///
    /// let mut request = Request::new(());
    /// request.extensions_mut().insert(AuthContext::builder().subject("42").build());
    /// assert_eq!(subject(&request)?, "42");
    /// # Ok::<(), Status>(())
    /// ```
    #[must_use]
    pub fn from_extensions(extensions: &Extensions) -> Option<&Self> {
        extensions.get()
    }

    /// The issuer of the token, `iss`.
    #[must_use]
    pub fn issuer(&self) -> &Issuer {
        &self.inner().issuer
    }

    /// The subject, `sub`. In an app-to-app token usually the application itself.
    #[must_use]
    pub fn subject(&self) -> Option<&str> {
        self.inner().claims.subject.as_deref()
    }

    /// The client that the token was issued to.
    ///
    /// `client_id`, else `azp`, `appid` or `cid`, the first that is present and not `null`; or what
    /// the issuer's [`client_id_from`](super::TrustedIssuer::client_id_from) returns: with an App
    /// ID binding also the `sub` of an app-to-app token.
    ///
    /// ```
    /// use tower_oauth::AuthContext;
    ///
    /// let keycloak = AuthContext::builder().claim("azp", "shop").build();
    /// assert_eq!(keycloak.client_id(), Some("shop"));
    /// let both = AuthContext::builder().claim("azp", "shop").client_id("warehouse").build();
    /// assert_eq!(both.client_id(), Some("warehouse"));
    /// ```
    #[must_use]
    pub fn client_id(&self) -> Option<&str> {
        self.inner().claims.client_id.as_deref()
    }

    /// The audiences, `aud`.
    ///
    /// ```
    /// use tower_oauth::AuthContext;
    ///
    /// let caller = AuthContext::builder().audience(["orders", "bills"]).build();
    /// assert!(caller.audience().any(|audience| audience == "bills"));
    /// ```
    pub fn audience(&self) -> impl Iterator<Item = &str> {
        self.inner().claims.audience.iter().map(|one| &**one)
    }

    /// The scope tokens of `scope`, else of `scp`.
    ///
    /// Each may be a string or an array of strings, or `null`, which counts as absent. An `scp` of
    /// another type, which some issuers use for something else, grants no scope.
    ///
    /// ```
    /// use tower_oauth::AuthContext;
    ///
    /// let caller = AuthContext::builder().claim("scope", "orders.read orders.write").build();
    /// assert_eq!(caller.scopes().collect::<Vec<_>>(), ["orders.read", "orders.write"]);
    /// ```
    pub fn scopes(&self) -> impl Iterator<Item = &str> {
        let scopes = self.inner().claims.scopes.split(' ');
        scopes.filter(|scope| !scope.is_empty())
    }

    /// Whether the token has exactly this scope.
    ///
    /// A handler that needs one calls [`require_scopes`](Self::require_scopes), whose rejection
    /// names it to the client.
    ///
    /// ```
    /// use tower_oauth::AuthContext;
    ///
    /// let caller = AuthContext::builder().scopes(["orders.read"]).build();
    /// assert!(caller.has_scope("orders.read"));
    /// assert!(!caller.has_scope("orders")); // no prefixes
    /// ```
    #[must_use]
    pub fn has_scope(&self, scope: &str) -> bool {
        self.scopes().any(|own| own == scope)
    }

    /// When the token expires, `exp`, without leeway.
    ///
    /// ```
    /// use tower_oauth::AuthContext;
    /// use tower_oauth::clock::UnixTime;
    ///
    /// let expiry = UnixTime::from_secs(1_800_000_000);
    /// let caller = AuthContext::builder().expires_at(expiry).build();
    /// assert_eq!(caller.expires_at(), expiry);
    /// ```
    #[must_use]
    pub fn expires_at(&self) -> UnixTime {
        self.inner().claims.expires_at
    }

    /// The time until [`expires_at`](Self::expires_at) from now, in whole seconds.
    ///
    /// Computed at each call with the clock of the resource server. Zero from `exp` on, even while
    /// the leeway still accepts the token.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tower_oauth::AuthContext;
    /// use tower_oauth::clock::{Clock, SystemClock};
    ///
    /// // How long the response may be cached.
    /// let max_age = |caller: &AuthContext| caller.expires_in().min(Duration::from_secs(60));
    ///
    /// let soon = SystemClock.now().saturating_add(Duration::from_secs(20));
    /// let caller = AuthContext::builder().expires_at(soon).build();
    /// assert!(max_age(&caller) <= Duration::from_secs(20));
    /// ```
    #[must_use]
    pub fn expires_in(&self) -> Duration {
        self.expires_at().saturating_since(self.now())
    }

    /// The roles, from `roles` (Entra, App ID) and `realm_access.roles` (Keycloak).
    ///
    /// A role in both claims is returned twice. A claim that is not an array of strings is ignored.
    ///
    /// ```
    /// use serde_json::json;
    /// use tower_oauth::AuthContext;
    ///
    /// let entra = AuthContext::builder().claim("roles", ["buyer", "seller"]).build();
    /// assert_eq!(entra.roles().collect::<Vec<_>>(), ["buyer", "seller"]);
    /// let keycloak = AuthContext::builder().claim("realm_access", json!({ "roles": ["buyer"] }));
    /// assert!(keycloak.build().has_role("buyer"));
    /// ```
    pub fn roles(&self) -> impl Iterator<Item = &str> {
        let claims = self.parsed().ok();
        let roles = claims.and_then(|claims| claims.get("roles"));
        let realm_roles = claims.and_then(|claims| claims.get("realm_access")?.get("roles"));
        roles.into_iter().chain(realm_roles).flat_map(strings)
    }

    /// Whether the token has exactly this role.
    #[must_use]
    pub fn has_role(&self, role: &str) -> bool {
        self.roles().any(|own| own == role)
    }

    /// The roles of a client, from `resource_access.{client}.roles` (Keycloak).
    ///
    /// A claim that is not an array of strings is ignored.
    ///
    /// ```
    /// use serde_json::json;
    /// use tower_oauth::AuthContext;
    ///
    /// let access = json!({ "orders": { "roles": ["buyer"] } });
    /// let caller = AuthContext::builder().claim("resource_access", access).build();
    /// assert_eq!(caller.client_roles("orders").collect::<Vec<_>>(), ["buyer"]);
    /// assert!(caller.has_client_role("orders", "buyer") && !caller.has_role("buyer"));
    /// ```
    pub fn client_roles(&self, client: &str) -> impl Iterator<Item = &str> + use<'_> {
        let claims = self.parsed().ok();
        let access = claims.and_then(|claims| claims.get("resource_access"));
        let roles = access.and_then(|access| access.get(client)?.get("roles"));
        roles.into_iter().flat_map(strings)
    }

    /// Whether the token has exactly this role of this client.
    #[must_use]
    pub fn has_client_role(&self, client: &str, role: &str) -> bool {
        self.client_roles(client).any(|own| own == role)
    }

    /// How the user authenticated, `acr`
    /// ([RFC 9068 §2.2.1](https://www.rfc-editor.org/rfc/rfc9068#section-2.2.1)).
    ///
    /// `None` without the claim, and if it is not a string.
    ///
    /// ```
    /// use tower_oauth::AuthContext;
    ///
    /// let caller = AuthContext::builder().claim("acr", "urn:example:mfa").build();
    /// assert_eq!(caller.acr(), Some("urn:example:mfa"));
    /// ```
    #[must_use]
    pub fn acr(&self) -> Option<&str> {
        self.parsed().ok()?.get("acr")?.as_str()
    }

    /// When the user authenticated, `auth_time`
    /// ([RFC 9068 §2.2.1](https://www.rfc-editor.org/rfc/rfc9068#section-2.2.1)).
    ///
    /// `None` without the claim, and if it is not a `NumericDate` (RFC 7519 §2).
    ///
    /// ```
    /// use tower_oauth::AuthContext;
    /// use tower_oauth::clock::UnixTime;
    ///
    /// let caller = AuthContext::builder().claim("auth_time", 1_800_000_000).build();
    /// assert_eq!(caller.auth_time(), Some(UnixTime::from_secs(1_800_000_000)));
    /// ```
    #[must_use]
    pub fn auth_time(&self) -> Option<UnixTime> {
        numeric_date(self.parsed().ok()?.get("auth_time")?.as_f64()?)
    }

    /// The time by the clock of the resource server.
    pub(super) fn now(&self) -> UnixTime {
        self.inner().clock.now()
    }

    /// The clock leeway of the issuer's policy.
    pub(super) fn leeway(&self) -> Duration {
        self.inner()
            .validity
            .expires
            .saturating_since(self.expires_at())
    }

    /// Deserializes one claim; `None` if the token does not have it.
    ///
    /// A claim that is `null` counts as absent, unless `T` can be `null`, as [`Value`] can.
    /// Integers of more than 64 bits are read as `f64`.
    ///
    /// ```
    /// use tower_oauth::AuthContext;
    ///
    /// let caller = AuthContext::builder().claim("groups", ["sales", "eu"]).build();
    /// let groups: Option<Vec<String>> = caller.claim("groups")?;
    /// assert_eq!(groups.unwrap_or_default(), ["sales", "eu"]);
    /// assert_eq!(caller.claim::<u64>("region")?, None);
    /// assert!(caller.claim::<u64>("groups").is_err());
    /// # Ok::<(), tower_oauth::BoxError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If the claim is not of that type.
    pub fn claim<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, ClaimError> {
        match self.parsed()?.get(name) {
            None => Ok(None),
            Some(Value::Null) => Ok(T::deserialize(Value::Null).ok()),
            Some(claim) => T::deserialize(claim).map(Some).map_err(ClaimError::new),
        }
    }

    /// Deserializes all claims.
    ///
    /// ```
    /// use serde::Deserialize;
    /// use tower_oauth::AuthContext;
    ///
    /// #[derive(Deserialize)]
    /// struct Account {
    ///     plan: String,
    ///     #[serde(default)]
    ///     region: Option<String>,
    /// }
    ///
    /// let caller = AuthContext::builder().claim("plan", "pro").build();
    /// let Account { plan, region } = caller.claims()?;
    /// assert_eq!((plan.as_str(), region), ("pro", None));
    /// # Ok::<(), tower_oauth::BoxError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If the claims do not have that shape.
    pub fn claims<T: DeserializeOwned>(&self) -> Result<T, ClaimError> {
        T::deserialize(self.parsed()?).map_err(ClaimError::new)
    }

    /// The parsed claims, which all clones share.
    fn parsed(&self) -> Result<&Map<String, Value>, ClaimError> {
        let cell = self.parsed.get_or_init(Arc::default);
        let parse = || serde_json::from_str(self.claims_json()).map_err(ClaimError::new);
        cell.get_or_init(parse).as_ref().map_err(Clone::clone)
    }

    /// All claims, as the JSON text of the payload.
    ///
    /// ```
    /// use tower_oauth::AuthContext;
    ///
    /// let caller = AuthContext::builder().claim("plan", "pro").build();
    /// assert!(caller.claims_json().contains(r#""plan":"pro""#));
    /// ```
    #[must_use]
    pub fn claims_json(&self) -> &str {
        self.token.claims_json()
    }
}

/// The elements of an array of strings; none of any other value.
fn strings(value: &Value) -> impl Iterator<Item = &str> {
    let array = value
        .as_array()
        .filter(|all| all.iter().all(Value::is_string));
    array.into_iter().flatten().filter_map(Value::as_str)
}

impl fmt::Debug for AuthContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthContext")
            .field("issuer", &self.inner().issuer)
            .field("subject", &self.subject())
            .field("client_id", &self.client_id())
            .field("audience", &self.audience().collect::<Vec<_>>())
            .field("scopes", &self.scopes().collect::<Vec<_>>())
            .field("expires_at", &self.expires_at())
            .finish_non_exhaustive()
    }
}

/// A claim does not have the requested type.
///
/// ```
/// use std::error::Error as _;
/// use tower_oauth::AuthContext;
///
/// let caller = AuthContext::builder().claim("plan", "pro").build();
/// let error = caller.claim::<u64>("plan").unwrap_err();
/// assert_eq!(error.to_string(), "the claims do not have the expected type");
/// assert!(error.source().is_some()); // the error of serde_json, which quotes the claim
/// ```
#[derive(Clone, Debug)]
pub struct ClaimError(Arc<serde_json::Error>);

impl ClaimError {
    fn new(error: serde_json::Error) -> Self {
        Self(Arc::new(error))
    }
}

impl fmt::Display for ClaimError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the claims do not have the expected type")
    }
}

impl StdError for ClaimError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&*self.0)
    }
}
