//! Contexts for the unit tests of handlers.

use std::sync::Arc;

use serde::Serialize;
use serde_json::{Map, Value};

use super::AuthContext;
use super::context::{CachedToken, VerifiedBy};
use crate::clock::{Clock, SystemClock, UnixTime};
use crate::jwt::Claims;
use crate::oauth::Issuer;

/// Builds an [`AuthContext`] without a token, for the unit test of a handler.
///
/// Created by [`AuthContext::builder`]. Each method sets a claim.
///
/// ```
/// use tower_oauth::AuthContext;
///
/// /// What all tests of this service have in common.
/// fn shop() -> tower_oauth::resource_server::AuthContextBuilder {
///     AuthContext::builder()
///         .issuer("https://as.example")
///         .subject("42")
///         .client_id("shop")
///         .audience(["orders"])
/// }
///
/// let caller = shop().scopes(["orders.read"]).roles(["buyer"]).claim("plan", "pro").build();
/// assert_eq!(caller.issuer(), "https://as.example");
/// assert!(caller.has_scope("orders.read"));
/// assert_eq!(caller.claim("plan")?, Some("pro".to_owned()));
/// # Ok::<(), tower_oauth::BoxError>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct AuthContextBuilder(Map<String, Value>);

impl AuthContext {
    /// Builds a context without a token, for the unit test of a handler.
    ///
    /// Insert it into the extensions of a request. Extractors and
    /// [`RequireScopeLayer`](crate::RequireScopeLayer) treat it as that of an authenticated
    /// request.
    ///
    /// Defaults: the issuer `https://issuer.example`, and an expiry in one hour. `expires_in` uses
    /// the system clock.
    ///
    /// ```
    /// use http::{Request, Response, StatusCode};
    /// use tower::{Layer as _, ServiceExt as _, service_fn};
    /// use tower_oauth::{AuthContext, RequireScopeLayer};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), std::convert::Infallible> {
    /// let handler = RequireScopeLayer::all(["orders.read"]).layer(service_fn(
    ///     async |request: Request<()>| {
    ///         let caller = AuthContext::from_request(&request).expect("inserted by the layer");
    ///         Ok::<_, std::convert::Infallible>(Response::new(caller.has_role("buyer")))
    ///     },
    /// ));
    /// let send = async |caller: AuthContext| {
    ///     let mut request = Request::new(());
    ///     request.extensions_mut().insert(caller);
    ///     handler.clone().oneshot(request).await
    /// };
    /// let caller = AuthContext::builder().subject("shop").roles(["buyer"]);
    /// let response = send(caller.clone().scopes(["orders.read"]).build()).await?;
    /// assert_eq!((response.status(), response.body()), (StatusCode::OK, &true));
    /// assert_eq!(send(caller.build()).await?.status(), StatusCode::FORBIDDEN);
    /// # Ok(())
    /// # }
    /// ```
    #[cfg_attr(docsrs, doc(cfg(feature = "test-util")))]
    pub fn builder() -> AuthContextBuilder {
        let expires_at = SystemClock.now().as_secs().saturating_add(3600);
        AuthContextBuilder(Map::new())
            .issuer("https://issuer.example")
            .expires_at(UnixTime::from_secs(expires_at))
    }
}

impl AuthContextBuilder {
    /// Sets `iss`.
    pub fn issuer(self, issuer: impl AsRef<str>) -> Self {
        self.claim("iss", issuer.as_ref())
    }

    /// Sets `sub`.
    pub fn subject(self, subject: impl AsRef<str>) -> Self {
        self.claim("sub", subject.as_ref())
    }

    /// Sets `client_id`.
    pub fn client_id(self, client_id: impl AsRef<str>) -> Self {
        self.claim("client_id", client_id.as_ref())
    }

    /// Sets `aud`.
    pub fn audience(self, audience: impl IntoIterator<Item: AsRef<str>>) -> Self {
        self.claim("aud", strings(audience))
    }

    /// Sets `scope`.
    pub fn scopes(self, scopes: impl IntoIterator<Item: AsRef<str>>) -> Self {
        self.claim("scope", strings(scopes).join(" "))
    }

    /// Sets `roles`.
    pub fn roles(self, roles: impl IntoIterator<Item: AsRef<str>>) -> Self {
        self.claim("roles", strings(roles))
    }

    /// Sets `exp`.
    pub fn expires_at(self, time: UnixTime) -> Self {
        self.claim("exp", time.as_secs())
    }

    /// Sets any claim.
    ///
    /// # Panics
    ///
    /// If the value cannot be converted to JSON.
    pub fn claim(mut self, name: impl Into<String>, value: impl Serialize) -> Self {
        let value = serde_json::to_value(value).expect("the claim must be JSON");
        self.0.insert(name.into(), value);
        self
    }

    /// Builds the context.
    ///
    /// # Panics
    ///
    /// If a registered claim, or `client_id`, `azp` or `scope`, has the wrong type, or the issuer
    /// is not valid.
    #[must_use]
    pub fn build(self) -> AuthContext {
        let issuer = self.0.get("iss").and_then(Value::as_str);
        let issuer = Issuer::new(issuer.unwrap_or_default()).expect("the issuer must be valid");
        let payload = Value::Object(self.0).to_string();
        let claims = Claims::unvalidated(&payload).expect("the claims must have their types");
        let verified_by = VerifiedBy {
            issuer: 0,
            key: None,
            key_set_version: 0,
            leeway: std::time::Duration::ZERO,
        };
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let payload = payload.into();
        CachedToken::new(issuer, payload, claims, verified_by, &clock).into()
    }
}

fn strings(strings: impl IntoIterator<Item: AsRef<str>>) -> Vec<String> {
    let strings = strings.into_iter();
    strings.map(|one| one.as_ref().to_owned()).collect()
}
