//! A development authorization server: real tokens and keys, without anything to install.
//!
//! **For development and tests only.** It listens on loopback, keeps secrets in memory or in a
//! plain file, and lets whoever holds its handle mint any token.
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
//! It speaks IBM Cloud App ID's dialect, on the paths that App ID has: `/oauth/{v3,v4}/{tenant}`
//! with `token`, `publickeys`, `.well-known/openid-configuration` and `introspect`, and
//! `/management/v4/{tenant}/applications`. The metadata of version 4 is also where
//! [RFC 8414 §3.1](https://www.rfc-editor.org/rfc/rfc8414#section-3.1) places it:
//! `/.well-known/oauth-authorization-server/oauth/v4/{tenant}`. Called over a socket
//! ([`AuthorizationServerBuilder::bind`]) or in-process, without one
//! ([`AuthorizationServer::transport`]).
//!
//! Over a socket it has a dashboard at `/`: applications and their credentials, tokens to try,
//! keys, the last requests, and faults to switch on and off. It answers to loopback names only,
//! works without scripts, and lets nobody in but whoever can reach the port: there is no login.
//!
//! # Examples
//!
//! A service, its caller and their issuer in one test, without a socket:
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
//! // What no real issuer would give you:
//! let expired = server.mint(&shop).expired().sign();
//! server.fail_next(EndpointKind::Keys, 2, Fault::Garbage);
//! # let _ = (token, expired);
//! # Ok(())
//! # }
//! ```

mod activity;
mod applications;
mod builder;
mod dashboard;
mod endpoints;
mod error_response;
mod extractor;
mod faults;
mod in_process;
mod introspection;
mod issuance;
mod management;
mod mint;
mod persistence;
mod signing_keys;
mod state;
mod state_file;
mod token_endpoint;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use self::activity::ActivityLog;
pub use self::applications::RegisteredApplication;
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

/// A development authorization server. Cheap to clone; clones share everything.
#[derive(Clone, Debug)]
pub struct AuthorizationServer(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    tenant_id: String,
    /// Scheme, host and port, without a slash at the end.
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
    /// Settings, with a default for each.
    pub fn builder() -> AuthorizationServerBuilder {
        AuthorizationServerBuilder::new()
    }

    /// The `iss` of its (version 4) tokens: `{base}/oauth/v4/{tenant}`.
    ///
    /// # Panics
    ///
    /// Never: the URL was checked when the server was built.
    #[must_use]
    pub fn issuer(&self) -> Issuer {
        Issuer::new(self.0.issuer(Version::V4))
            .expect("a URL that was checked when the server was built")
    }

    /// Where it publishes its keys.
    ///
    /// # Panics
    ///
    /// Never: the URL was checked when the server was built.
    #[must_use]
    pub fn jwks_uri(&self) -> Endpoint {
        self.endpoint("publickeys")
    }

    /// Where tokens are asked for.
    ///
    /// # Panics
    ///
    /// Never: the URL was checked when the server was built.
    #[must_use]
    pub fn token_endpoint(&self) -> Endpoint {
        self.endpoint("token")
    }

    fn endpoint(&self, name: &str) -> Endpoint {
        let url = format!("{}/{name}", self.0.oauth_url(Version::V4));
        Endpoint::new(url).expect("a URL that was checked when the server was built")
    }

    /// The tenant that it serves.
    #[must_use]
    pub fn tenant_id(&self) -> &str {
        &self.0.tenant_id
    }

    /// Where applications are managed: `{base}/management/v4/{tenant}`.
    #[must_use]
    pub fn management_url(&self) -> String {
        format!("{}/management/v4/{}", self.0.base_url, self.0.tenant_id)
    }

    /// What the management API expects as a bearer token.
    #[must_use]
    pub fn management_token(&self) -> &secrecy::SecretString {
        &self.0.management_token
    }

    /// The address of the server itself, without a path.
    #[must_use]
    pub fn base_url(&self) -> &str {
        &self.0.base_url
    }

    /// Registers an application.
    ///
    /// # Errors
    ///
    /// If the name has no character or more than 50, there are 200 applications already, or the
    /// state file cannot be written.
    pub fn register(&self, name: &str) -> Result<RegisteredApplication, ConfigError> {
        let registered = self.0.update(|state| state.register(name))?;
        Ok(RegisteredApplication::new(self.clone(), registered))
    }

    /// The registered applications.
    #[must_use]
    pub fn applications(&self) -> Vec<RegisteredApplication> {
        let applications = self.0.state().applications.clone();
        applications
            .into_iter()
            .map(|registration| RegisteredApplication::new(self.clone(), registration))
            .collect()
    }

    /// A token with any claims and faults that a test needs; good unless it is spoiled.
    pub fn mint(&self, application: &RegisteredApplication) -> TokenMint {
        TokenMint::new(
            self.clone(),
            application.client_id().to_owned(),
            &application.granted_scopes(),
        )
    }

    /// Signs with a new key from now on. The old key goes on being published for as long as
    /// tokens that it signed may live, but of more than 50 keys the oldest goes. Returns the new
    /// `kid`.
    ///
    /// # Errors
    ///
    /// If the state file cannot be written.
    pub fn rotate(&self) -> Result<String, ConfigError> {
        self.rotate_to(self.0.algorithm)
    }

    /// As [`rotate`](Self::rotate), to a key for another algorithm.
    ///
    /// # Errors
    ///
    /// If the state file cannot be written.
    pub fn rotate_to(&self, algorithm: Algorithm) -> Result<String, ConfigError> {
        let now = self.0.clock.now();
        // Made before the lock is taken: an RSA key takes a while.
        let key = SigningKey::generate(new_kid(&self.0.tenant_id), algorithm, now)?;
        let kid = key.kid().to_owned();
        self.0.update(|state| {
            state.keys.rotate(key, now, self.0.token_lifetime);
            Ok(kid)
        })
    }

    /// Stops publishing a key at once, as after its private half was lost. Withdrawing the
    /// current key rotates first. Returns whether there was such a key.
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

    /// The keys that are published now, the current one first.
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

    /// Spoils every answer of these endpoints until [`clear_faults`](Self::clear_faults).
    pub fn fail(&self, endpoint: EndpointKind, fault: Fault) {
        self.0.faults.add(endpoint, None, fault);
    }

    /// Spoils the next answers of these endpoints. Faults of one endpoint take their turns in
    /// the order in which they were added.
    pub fn fail_next(&self, endpoint: EndpointKind, responses: usize, fault: Fault) {
        self.0.faults.add(endpoint, Some(responses), fault);
    }

    /// Ends all faults.
    pub fn clear_faults(&self) {
        self.0.faults.clear();
    }

    /// How many requests have come to these endpoints, spoiled ones included.
    #[must_use]
    pub fn requests(&self, endpoint: EndpointKind) -> usize {
        self.0.faults.requests(endpoint)
    }

    /// Its endpoints as a service, to be served or called in any way. Without the dashboard, which
    /// has no login.
    pub fn router(&self) -> axum::Router {
        endpoints::router(self.clone())
    }

    /// Its endpoints and its dashboard, as [`BoundServer::serve`] serves them on loopback. To be
    /// called by tests: whoever reaches the dashboard reads every secret. It answers only under
    /// the [`base_url`](Self::base_url) and loopback names with its port.
    pub fn router_with_dashboard(&self) -> axum::Router {
        endpoints::router_with_dashboard(self.clone())
    }

    /// A transport that calls the endpoints in-process: no socket, no port.
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

    /// Version 3 tokens name a bare host.
    fn issuer(&self, version: Version) -> String {
        match version {
            Version::V3 => self.authority().to_owned(),
            Version::V4 => self.oauth_url(Version::V4),
        }
    }

    /// Host and port.
    fn authority(&self) -> &str {
        self.base_url
            .split_once("://")
            .map_or(&self.base_url, |(_, authority)| authority)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Changes are made on a copy: what a panic interrupted was not put in place.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes a copy of the state, writes it down, and puts it in place: all or nothing.
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
