//! OAuth 2.0 between services, as [tower](https://docs.rs/tower) middleware: a resource server
//! layer that validates bearer tokens, a client that obtains them, and a development authorization
//! server that issues them.
//!
//! | module | what it is for |
//! | --- | --- |
//! | [`resource_server`] | the layer that authenticates requests; how a request and a token are validated |
//! | [`key_set`] | the keys of an issuer; how they are refreshed |
//! | [`client`] | the token manager, and the layer that adds its token to requests |
//! | [`transport`] | how keys, metadata and tokens are fetched |
//! | [`error`](mod@error), [`clock`] | errors and wall-clock time, used by all modules |
//! | `app_id` | IBM Cloud App ID: service bindings and the management API |
//! | `authorization_server` | the development authorization server |
//! | [`guide`] | topics that span several modules |
//!
//! # Protect a service
//!
//! ```
//! # #[cfg(feature = "axum")]
//! # async fn example() -> Result<(), tower_oauth::BoxError> {
//! use axum::{Router, routing::get};
//! use tower_oauth::{AuthContext, RequireScopeLayer, ResourceServer};
//!
//! let orders = ResourceServer::builder("https://as.example", "orders")
//!     .start() // discovers the keys and refreshes them
//!     .await?;
//! let app: Router = Router::new()
//!     .route("/orders", get(list).layer(RequireScopeLayer::all(["orders.read"])))
//!     .layer(orders.layer());
//!
//! async fn list(caller: AuthContext) -> String {
//!     format!("orders of {}", caller.client_id().unwrap_or("unknown"))
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Call a service
//!
//! ```
//! # async fn example() -> Result<(), tower_oauth::BoxError> {
//! use tower_oauth::{ClientCredentials, Issuer, TokenManager};
//!
//! let credentials = ClientCredentials::new("my-client-id", "my-secret");
//! let tokens = TokenManager::for_issuer(Issuer::new("https://as.example")?, credentials)?
//!     .scope("orders.read")
//!     .start()?;
//! let token = tokens.access_token().await?; // requested once, shared, renewed before it expires
//! # let _ = token.expose_secret();
//! # Ok(())
//! # }
//! ```
//!
//! # Settings
//!
//! [`resource_server::ResourceServerSettings`] and [`client::ClientSettings`] are read from files
//! and environment variables: [`guide::settings`](mod@guide::settings).
//!
//! # Test without an issuer
//!
//! The embedded authorization server creates valid and invalid tokens, rotates keys, and injects
//! faults. It needs no port and no real time:
//! [`guide::testing`](https://docs.rs/tower-oauth/latest/tower_oauth/guide/testing/index.html).
//!
//! # Recipes
//!
//! [`guide::recipes`](https://docs.rs/tower-oauth/latest/tower_oauth/guide/recipes/index.html) has
//! complete programs, and [`guide::providers`](mod@guide::providers) a page for each of eight
//! providers.
//!
//! # Security posture
//!
//! [`guide::security`](mod@guide::security) has each promise with its tests, and
//! [`guide::threat_model`](mod@guide::threat_model) the attacks.
//!
//! - `iss` and `exp` are always required. So is `aud`, unless the issuer has both
//!   `audience_optional` and `allowed_clients`; a token with another `aud` is always rejected. The
//!   algorithm `none` and HMAC are not supported.
//! - A token is verified only with keys of its issuer, and a key is used only for its `alg`, or
//!   without one for the algorithms of its type.
//! - Keys in a token's header are never used. Duplicate JSON members, unknown critical headers,
//!   non-canonical base64url and tokens bound to a key (`cnf`) are rejected.
//! - A request causes a fetch only if the registered claims of its token are valid, and within a
//!   rate limit. A request causes a 5xx response only if no keys are available or the server is
//!   overloaded: 503; or if the resource server layer of a route is missing, or does not keep the
//!   token that a handler extracts: 500.
//! - Response texts are fixed. No log, error or `Debug` output contains tokens or secrets.
//! - Signatures are verified by aws-lc-rs. The features that other crates enable have no effect.
//!
//! # Features
//!
//! | feature | default | what it adds |
//! | --- | --- | --- |
//! | `app-id` | yes | IBM Cloud App ID: service bindings and the management API |
//! | `reqwest` | yes | the HTTP transport for keys, metadata and tokens |
//! | `reqwest-middleware` | | the client's layer as middleware for reqwest |
//! | `axum` | | `AuthContext`, `Claims<T>`, `Scoped<T>` and `InboundToken` as extractors; a `Rejection` as a response |
//! | `metrics` | | counters, gauges and histograms ([`guide::metrics`](mod@guide::metrics)) |
//! | `tracing` | | events and spans on `tower_oauth::key_set`, `::resource_server`, `::client` |
//! | `authorization-server` | | the development authorization server |
//! | `test-util` | | [`ManualClock`], a clock that tests control; `AuthContext::builder` |
//!
//! Features are additive.
//!
//! [`ManualClock`]: https://docs.rs/tower-oauth/latest/tower_oauth/clock/struct.ManualClock.html
#![cfg_attr(docsrs, feature(doc_cfg))]
// The documentation is that of all features: links to items and pages of a feature that is off do
// not resolve. With these three, all that have items or pages are on.
#![cfg_attr(
    not(all(
        feature = "axum",
        feature = "authorization-server",
        feature = "reqwest-middleware"
    )),
    allow(rustdoc::broken_intra_doc_links)
)]

#[cfg(feature = "app-id")]
#[cfg_attr(docsrs, doc(cfg(feature = "app-id")))]
pub mod app_id;
#[cfg(feature = "authorization-server")]
#[cfg_attr(docsrs, doc(cfg(feature = "authorization-server")))]
pub mod authorization_server;
mod backoff;
mod bounded_map;
pub mod client;
pub mod clock;
pub mod error;
pub mod guide;
mod inbound_token;
mod jwt;
pub mod key_set;
mod log_limit;
mod metadata;
mod metrics;
mod oauth;
mod pem;
mod provider;
mod redact;
pub mod resource_server;
mod secret_file;
mod settings;
mod single_flight;
mod text;
mod timer;
mod trace;
pub mod transport;

#[cfg(test)]
mod vectors;

pub use self::client::{
    ClientAssertion, ClientCredentials, FileToken, PrivateKeyJwt, SigningKey, TlsClientAuth,
    TokenExchange, TokenManager, TokenManagers,
};
pub use self::error::{BoxError, ConfigError, Error};
pub use self::oauth::{Audience, Endpoint, Issuer, Origin, Scope};
pub use self::resource_server::{
    AuthContext, Rejection, RequireLayer, RequireRoleLayer, RequireScopeLayer, ResourceServer,
    ResourceServerLayer, TrustedIssuer,
};

/// Runs the README's examples as doctests.
#[cfg(all(
    doctest,
    feature = "axum",
    feature = "authorization-server",
    feature = "reqwest-middleware"
))]
#[doc = include_str!("../README.md")]
struct Readme;
