//! A development authorization server that issues real tokens and publishes real keys.
//!
//! **For development and tests only.** It listens on loopback, stores secrets in memory or in a
//! plain file, and its handle mints any token.
//!
//! ```text
//!  register ──▶ applications ─┐
//!                             ▼
//!  POST /token ──▶ client authentication ─▶ grant ─▶ issuance ──▶ access token
//!                                                       ▲
//!  rotate, withdraw ──▶ signing keys ───────────────────┘
//!                            └──────▶ GET /publickeys
//! ```
//!
//! It implements the API of IBM Cloud App ID, on App ID's paths: `/oauth/{v3,v4}/{tenant}` with
//! `token`, `publickeys`, `.well-known/openid-configuration` and `introspect`, and
//! `/management/v4/{tenant}/applications`. The metadata of version 4 is also served at the path
//! of [RFC 8414 §3.1](https://www.rfc-editor.org/rfc/rfc8414#section-3.1),
//! `/.well-known/oauth-authorization-server/oauth/v4/{tenant}`. Call it over a socket
//! ([`AuthorizationServerBuilder::bind`]) or in-process ([`AuthorizationServer::transport`]).
//!
//! A client authenticates by its secret, by an assertion that it has signed
//! ([`RegisteredApplication::set_jwks`]), or by the token of a trusted issuer
//! ([`RegisteredApplication::add_federated_credential`]). The grants are client credentials,
//! jwt-bearer ([RFC 7523 §2.1](https://www.rfc-editor.org/rfc/rfc7523#section-2.1)) and token
//! exchange ([RFC 8693](https://www.rfc-editor.org/rfc/rfc8693)).
//!
//! The subject and actor tokens of an exchange are access tokens of this server. Their `client_id`,
//! or `sub` without one, is the client id of a registered application. So a minted token of a user
//! has both: `server.mint(&portal).claim("sub", "ann").claim("client_id", portal.client_id())`. The
//! client must be in `aud` of the subject token by its client id, or be the client that it was
//! issued to. The new token has the claims of the subject token that are about its subject, the
//! client as `client_id`, and the actor as `act`: the client, or `sub` of the actor token. It has
//! no more scopes than the subject token, and expires no later than either token.
//!
//! Used assertions are remembered in memory. After a restart, one that is still valid is accepted
//! once more.
//!
//! Over a socket it serves a dashboard at `/`: applications and their credentials, token
//! requests, keys, the last requests, and fault injection. The dashboard accepts loopback host
//! names only and works without scripts. It has no login: every process that can reach the port
//! has access.
//!
//! # Examples
//!
//! A resource server, its client and their issuer in one test, without a socket:
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), tower_oauth::BoxError> {
//! use tower_oauth::Audience;
//! use tower_oauth::authorization_server::{AuthorizationServer, EndpointKind, Fault};
//!
//! let server = AuthorizationServer::builder().build()?;
//! let shop = server.register("shop")?;
//!
//! let tokens = shop.binding()?.token_manager()?.transport(server.transport()).start()?;
//! let orders = shop.binding()?.resource_server()?.transport(server.transport()).start().await?;
//! assert!(orders.keys_available());
//! let token = tokens.access_token().await?;
//! assert_eq!(server.requests(EndpointKind::Token), 1);
//!
//! // An expired token, and two key set responses that are not JSON:
//! let expired = server.mint(&shop).expired().sign();
//! server.fail_next(EndpointKind::Keys, 2, Fault::Garbage);
//! # let _ = (token, expired);
//! # Ok(())
//! # }
//! ```

mod active_token;
mod activity;
mod applications;
mod assertion_settings;
mod assertions;
mod builder;
mod client_authentication;
mod dashboard;
mod endpoints;
mod error_response;
mod extractor;
mod faults;
mod grants;
mod in_process;
mod introspection;
mod issuance;
mod management;
mod mint;
mod parameters;
mod persistence;
mod sha256;
mod signed_jwt;
mod signing_keys;
mod state;
mod state_file;
mod token_endpoint;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use self::activity::ActivityLog;
pub use self::applications::RegisteredApplication;
pub use self::assertion_settings::ExpectedAudience;
use self::assertions::ReplayCache;
pub use self::builder::{AuthorizationServerBuilder, BoundServer};
use self::dashboard::Dashboard;
use self::faults::Faults;
pub use self::faults::{EndpointKind, Fault};
pub use self::in_process::InProcessTransport;
pub use self::mint::TokenMint;
use self::persistence::Store;
pub use self::signing_keys::PublishedKey;
use self::signing_keys::{SigningKey, new_kid};
use self::state::State;
use crate::clock::Clock;
use crate::error::ConfigError;
use crate::jwt::Algorithm;
use crate::oauth::{Endpoint, Issuer};

/// A development authorization server.
///
/// Cheap to clone: clones share their state.
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), tower_oauth::BoxError> {
/// use tower_oauth::authorization_server::{AuthorizationServer, EndpointKind};
/// use tower_oauth::resource_server::Algorithm;
/// use tower_oauth::{ResourceServer, TokenManager};
///
/// let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
/// let shop = issuer.register("shop")?;
/// let tokens = TokenManager::builder(issuer.token_endpoint(), shop.credentials())
///     .audience(tower_oauth::Audience::new("orders")?)
///     .transport(issuer.transport())
///     .start()?;
/// let token = tokens.access_token().await?;
///
/// let orders = ResourceServer::builder(issuer.issuer(), "orders");
/// let orders = orders.transport(issuer.transport()).start().await?;
/// assert!(orders.validate(token.expose_secret()).await.is_ok());
/// assert_eq!(issuer.requests(EndpointKind::Token), 1);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct AuthorizationServer(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    tenant_id: String,
    /// Scheme, host and port, without a trailing slash.
    base_url: String,
    clock: Arc<dyn Clock>,
    token_lifetime: Duration,
    algorithm: Algorithm,
    management_token: secrecy::SecretString,
    state: Mutex<State>,
    store: Store,
    faults: Faults,
    activity: ActivityLog,
    dashboard: Dashboard,
    replay_cache: ReplayCache,
}

/// The two versions of App ID's API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    V3,
    V4,
}

impl Version {
    fn as_str(self) -> &'static str {
        match self {
            Self::V3 => "v3",
            Self::V4 => "v4",
        }
    }
}

impl AuthorizationServer {
    /// Returns a builder; every setting has a default.
    pub fn builder() -> AuthorizationServerBuilder {
        AuthorizationServerBuilder::new()
    }

    /// The issuer of its version 4 tokens: `{base}/oauth/v4/{tenant}`.
    ///
    /// # Panics
    ///
    /// Never: `build` validated the URL.
    #[must_use]
    pub fn issuer(&self) -> Issuer {
        Issuer::new(self.0.issuer(Version::V4)).expect("the URL was validated by `build`")
    }

    /// The URL of its key set.
    ///
    /// ```
    /// # use tower_oauth::authorization_server::AuthorizationServer;
    /// # use tower_oauth::resource_server::Algorithm;
    /// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
    ///
    /// assert_eq!(issuer.jwks_uri(), format!("{}/publickeys", issuer.issuer()));
    /// assert_eq!(issuer.token_endpoint(), format!("{}/token", issuer.issuer()));
    /// # Ok::<(), tower_oauth::ConfigError>(())
    /// ```
    ///
    /// # Panics
    ///
    /// Never: `build` validated the URL.
    #[must_use]
    pub fn jwks_uri(&self) -> Endpoint {
        self.endpoint("publickeys")
    }

    /// The URL of its token endpoint.
    ///
    /// # Panics
    ///
    /// Never: `build` validated the URL.
    #[must_use]
    pub fn token_endpoint(&self) -> Endpoint {
        self.endpoint("token")
    }

    fn endpoint(&self, name: &str) -> Endpoint {
        let url = format!("{}/{name}", self.0.oauth_url(Version::V4));
        Endpoint::new(url).expect("the URL was validated by `build`")
    }

    /// The tenant id.
    #[must_use]
    pub fn tenant_id(&self) -> &str {
        &self.0.tenant_id
    }

    /// The URL of the management API: `{base}/management/v4/{tenant}`.
    #[must_use]
    pub fn management_url(&self) -> String {
        format!("{}/management/v4/{}", self.0.base_url, self.0.tenant_id)
    }

    /// The bearer token of the management API.
    #[must_use]
    pub fn management_token(&self) -> &secrecy::SecretString {
        &self.0.management_token
    }

    /// Scheme, host and port of the server, without a path.
    #[must_use]
    pub fn base_url(&self) -> &str {
        &self.0.base_url
    }

    /// Registers an application.
    ///
    /// ```
    /// # use tower_oauth::authorization_server::AuthorizationServer;
    /// # use tower_oauth::resource_server::Algorithm;
    /// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
    ///
    /// let shop = issuer.register("shop")?;
    /// assert_eq!(issuer.applications().len(), 1);
    /// assert_eq!(issuer.applications()[0].client_id(), shop.client_id());
    /// assert!(issuer.register("").is_err());
    /// # Ok::<(), tower_oauth::ConfigError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If the name is empty or longer than 50 characters, if there are 200 applications already,
    /// or if the state file cannot be written.
    pub fn register(&self, name: &str) -> Result<RegisteredApplication, ConfigError> {
        let registered = self.0.update(|state| state.register(name))?;
        Ok(RegisteredApplication::new(self.clone(), registered))
    }

    /// Returns the registered applications.
    #[must_use]
    pub fn applications(&self) -> Vec<RegisteredApplication> {
        let applications = self.0.state().applications.clone();
        applications
            .into_iter()
            .map(|registration| RegisteredApplication::new(self.clone(), registration))
            .collect()
    }

    /// Builds a token with any claims, header or signature. Valid by default.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use tower_oauth::authorization_server::AuthorizationServer;
    /// # use tower_oauth::resource_server::Algorithm;
    /// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
    /// # let shop = issuer.register("shop")?;
    /// use tower_oauth::ResourceServer;
    ///
    /// # let orders = ResourceServer::builder(issuer.issuer(), "orders");
    /// # let orders = orders.transport(issuer.transport()).start().await?;
    /// let token = issuer.mint(&shop).audience(["orders"]).claim("plan", "pro").sign();
    /// let caller = orders.validate(&token).await?;
    /// assert_eq!(caller.claim::<String>("plan")?.as_deref(), Some("pro"));
    /// # Ok(())
    /// # }
    /// ```
    pub fn mint(&self, application: &RegisteredApplication) -> TokenMint {
        TokenMint::new(
            self.clone(),
            application.client_id().to_owned(),
            &application.granted_scopes(),
        )
    }

    /// Generates a new signing key and returns its `kid`.
    ///
    /// The old key stays published for the lifetime of its tokens. Beyond 50 keys the oldest is
    /// removed.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use tower_oauth::authorization_server::AuthorizationServer;
    /// # use tower_oauth::resource_server::Algorithm;
    /// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
    /// # let shop = issuer.register("shop")?;
    /// use tower_oauth::ResourceServer;
    ///
    /// # let orders = ResourceServer::builder(issuer.issuer(), "orders");
    /// # let orders = orders.transport(issuer.transport()).start().await?;
    /// let old = issuer.mint(&shop).audience(["orders"]).sign();
    /// let kid = issuer.rotate()?;
    /// assert_eq!(issuer.keys()[0].kid(), kid);
    /// let new = issuer.mint(&shop).audience(["orders"]).sign();
    /// assert!(orders.validate(&new).await.is_ok()); // fetches the new key
    /// assert!(orders.validate(&old).await.is_ok());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// If the state file cannot be written.
    pub fn rotate(&self) -> Result<String, ConfigError> {
        self.rotate_to(self.0.algorithm)
    }

    /// Like [`rotate`](Self::rotate), with a key for another algorithm.
    ///
    /// ```
    /// # use tower_oauth::authorization_server::AuthorizationServer;
    /// # use tower_oauth::resource_server::Algorithm;
    /// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
    ///
    /// issuer.rotate_to(Algorithm::EdDsa)?;
    /// assert_eq!(issuer.keys()[0].algorithm(), Algorithm::EdDsa);
    /// assert_eq!(issuer.keys()[1].algorithm(), Algorithm::Es256);
    /// # Ok::<(), tower_oauth::ConfigError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If the state file cannot be written.
    pub fn rotate_to(&self, algorithm: Algorithm) -> Result<String, ConfigError> {
        let now = self.0.clock.now();
        // RSA key generation is slow, so it happens before the state is locked.
        let key = SigningKey::generate(new_kid(&self.0.tenant_id), algorithm, now)?;
        let kid = key.kid().to_owned();
        self.0.update(|state| {
            state.keys.rotate(key, now, self.0.token_lifetime);
            Ok(kid)
        })
    }

    /// Removes a key from the key set at once, as after its compromise.
    ///
    /// Withdrawing the current key rotates first. Returns whether the key existed.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use tower_oauth::authorization_server::AuthorizationServer;
    /// # use tower_oauth::resource_server::Algorithm;
    /// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
    /// # let shop = issuer.register("shop")?;
    /// use tower_oauth::ResourceServer;
    ///
    /// # let orders = ResourceServer::builder(issuer.issuer(), "orders");
    /// # let orders = orders.transport(issuer.transport()).start().await?;
    /// let token = issuer.mint(&shop).audience(["orders"]).sign();
    /// assert!(orders.validate(&token).await.is_ok());
    ///
    /// let kid = issuer.keys()[0].kid().to_owned();
    /// assert!(issuer.withdraw(&kid)?);
    /// orders.refresh_keys().await?;
    /// assert!(orders.validate(&token).await.is_err());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// If the state file cannot be written.
    pub fn withdraw(&self, kid: &str) -> Result<bool, ConfigError> {
        let is_current = self.0.state().keys.current().kid() == kid;
        if is_current {
            self.rotate()?;
        }
        self.0.update(|state| Ok(state.keys.withdraw(kid)))
    }

    /// Returns the published keys, the current one first.
    #[must_use]
    pub fn keys(&self) -> Vec<PublishedKey> {
        let now = self.0.clock.now();
        self.0
            .state()
            .keys
            .published(now)
            .map(PublishedKey::new)
            .collect()
    }

    /// Returns its key set ([RFC 7517 §5](https://www.rfc-editor.org/rfc/rfc7517#section-5)), as
    /// [`jwks_uri`](Self::jwks_uri) serves it.
    ///
    /// ```
    /// # use tower_oauth::authorization_server::AuthorizationServer;
    /// # use tower_oauth::resource_server::Algorithm;
    /// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
    /// let jwks = issuer.jwks();
    /// assert_eq!(jwks["keys"][0]["kid"], issuer.keys()[0].kid());
    /// # Ok::<(), tower_oauth::ConfigError>(())
    /// ```
    #[must_use]
    pub fn jwks(&self) -> serde_json::Value {
        let now = self.0.clock.now();
        let state = self.0.state();
        let published = state.keys.published(now);
        let jwks: Vec<_> = published.map(|ring_key| ring_key.key.jwk()).collect();
        serde_json::json!({ "keys": jwks })
    }

    /// Injects a fault into every response until [`clear_faults`](Self::clear_faults).
    ///
    /// Replaces the earlier fault of `fail` at this endpoint. Faults of
    /// [`fail_next`](Self::fail_next) apply first.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use tower_oauth::authorization_server::AuthorizationServer;
    /// # use tower_oauth::resource_server::Algorithm;
    /// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
    /// use tower_oauth::ResourceServer;
    /// use tower_oauth::authorization_server::{EndpointKind, Fault};
    ///
    /// # let orders = ResourceServer::builder(issuer.issuer(), "orders");
    /// # let orders = orders.transport(issuer.transport()).start().await?;
    /// issuer.fail(EndpointKind::Keys, Fault::Outage(None));
    /// assert!(orders.refresh_keys().await.is_err());
    /// issuer.clear_faults();
    /// assert!(orders.refresh_keys().await.is_ok());
    /// # Ok(())
    /// # }
    /// ```
    pub fn fail(&self, endpoint: EndpointKind, fault: Fault) {
        self.0.faults.set_permanent(endpoint, fault);
    }

    /// Injects a fault into the next responses.
    ///
    /// Faults of `fail_next` at one endpoint apply in the order in which they were added.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use tower_oauth::authorization_server::AuthorizationServer;
    /// # use tower_oauth::resource_server::Algorithm;
    /// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
    /// # let shop = issuer.register("shop")?;
    /// use tower_oauth::TokenManager;
    /// use tower_oauth::authorization_server::{EndpointKind, Fault};
    ///
    /// # let tokens = TokenManager::builder(issuer.token_endpoint(), shop.credentials());
    /// # let tokens = tokens.transport(issuer.transport()).start()?;
    /// issuer.fail_next(EndpointKind::Token, 1, Fault::Reset);
    /// issuer.fail_next(EndpointKind::Token, 1, Fault::Outage(None));
    /// assert!(tokens.access_token().await.is_ok()); // with the third request
    /// assert_eq!(issuer.requests(EndpointKind::Token), 3);
    /// # Ok(())
    /// # }
    /// ```
    pub fn fail_next(&self, endpoint: EndpointKind, responses: usize, fault: Fault) {
        self.0.faults.add_next(endpoint, responses, fault);
    }

    /// Removes all faults.
    pub fn clear_faults(&self) {
        self.0.faults.clear();
    }

    /// The number of requests so far, including those with an injected fault.
    #[must_use]
    pub fn requests(&self, endpoint: EndpointKind) -> usize {
        self.0.faults.requests(endpoint)
    }

    /// Returns the endpoints as an axum router, without the dashboard.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use tower_oauth::authorization_server::AuthorizationServer;
    /// # use tower_oauth::resource_server::Algorithm;
    /// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
    /// use axum::{body::Body, http::Request};
    /// use tower::ServiceExt as _;
    ///
    /// let request = Request::get(issuer.jwks_uri().as_str()).body(Body::empty())?;
    /// let response = issuer.router().oneshot(request).await?;
    /// assert_eq!(response.status(), 200);
    /// # Ok(())
    /// # }
    /// ```
    pub fn router(&self) -> axum::Router {
        endpoints::router(self.clone())
    }

    /// Returns the endpoints and the dashboard as an axum router, for tests.
    ///
    /// [`BoundServer::serve`] serves the same router on loopback. The dashboard shows every
    /// secret and has no login. It accepts only the host of [`base_url`](Self::base_url) and
    /// loopback names with its port.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use tower_oauth::authorization_server::AuthorizationServer;
    /// # use tower_oauth::resource_server::Algorithm;
    /// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
    /// use axum::{body::Body, http::Request};
    /// use tower::ServiceExt as _;
    ///
    /// let page = Request::get("/").header("host", "authorization-server.test");
    /// let page = page.body(Body::empty())?;
    /// let response = issuer.router_with_dashboard().oneshot(page).await?;
    /// assert_eq!(response.status(), 200);
    /// # Ok(())
    /// # }
    /// ```
    pub fn router_with_dashboard(&self) -> axum::Router {
        endpoints::router_with_dashboard(self.clone())
    }

    /// Returns a transport that calls the endpoints in-process, without a socket.
    #[must_use]
    pub fn transport(&self) -> InProcessTransport {
        InProcessTransport::new(self)
    }
}

impl Inner {
    fn oauth_url(&self, version: Version) -> String {
        format!(
            "{}/oauth/{}/{}",
            self.base_url,
            version.as_str(),
            self.tenant_id
        )
    }

    /// The issuer of version 3 tokens is a bare host.
    fn issuer(&self, version: Version) -> String {
        match version {
            Version::V3 => self.authority().to_owned(),
            Version::V4 => self.oauth_url(Version::V4),
        }
    }

    /// Whether this `iss` is that of a token of this server, of either version.
    fn is_issuer(&self, issuer: &str) -> bool {
        [Version::V3, Version::V4]
            .into_iter()
            .any(|version| self.issuer(version) == issuer)
    }

    /// Host and port.
    fn authority(&self) -> &str {
        self.base_url
            .split_once("://")
            .map_or(&self.base_url, |(_, authority)| authority)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // `update` works on a copy, so a panic cannot leave the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Updates a copy of the state, saves it, and replaces the state only if both succeeded.
    fn update<T>(
        &self,
        update: impl FnOnce(&mut State) -> Result<T, ConfigError>,
    ) -> Result<T, ConfigError> {
        let mut state = self.state();
        let mut updated = state.clone();
        let outcome = update(&mut updated)?;
        self.store.save(&self.tenant_id, &updated)?;
        *state = updated;
        Ok(outcome)
    }
}
