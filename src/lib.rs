//! OAuth 2.0 between services, as [tower](https://docs.rs/tower) middleware: a resource server
//! layer that judges bearer tokens, a client that obtains them, and a development authorization
//! server that issues them.
//!
//! # A request
//!
//! ```text
//!                        ┌──────────── ResourceServerLayer ────────────┐
//!  Authorization: Bearer │ token ▶ issuer ▶ key ▶ signature ▶ claims   │ ──▶ your service,
//!  ──────────────────────▶   │        │       │        │         │     │     AuthContext in
//!                        │   400     401     401      401       401    │     the extensions
//!                        │           no usable keys: 503               │
//!                        └─────────────────────────────────────────────┘
//! ```
//!
//! # A key set
//!
//! A task for each issuer fetches its keys ahead of time and publishes an immutable snapshot.
//! A request reads the snapshot and never fetches; only a plausible token with a new `kid` waits,
//! at most a second, for one shared refresh. An issuer that is down is not noticed: the last good
//! keys are trusted for up to 24 hours, and then requests are answered 503, not 401. All of it,
//! with the test for each point: [`guide::key_sets`](mod@guide::key_sets).
//!
//! # A token
//!
//! A [`TokenManager`] holds one access token, renewed before it expires by one request however
//! many callers there are. Its layer puts the token on requests to the origins that it was made
//! for, and to no other.
//!
//! # Protect a service
//!
//! ```
//! # #[cfg(feature = "axum")]
//! # async fn example() -> Result<(), tower_oauth::BoxError> {
//! use axum::{Router, routing::get};
//! use tower_oauth::{Audience, AuthContext, Issuer, RequireScopeLayer, ResourceServer};
//!
//! let orders = ResourceServer::builder(Issuer::new("https://as.example")?, Audience::new("orders")?)
//!     .start() // discovers the keys, and keeps them fresh
//!     .await?;
//! let app: Router = Router::new()
//!     .route("/orders", get(list).layer(RequireScopeLayer::all(["orders.read"])))
//!     .layer(orders.layer());
//!
//! async fn list(caller: AuthContext) -> String {
//!     format!("orders of {}", caller.client_id().unwrap_or("nobody"))
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Call a service
//!
//! ```
//! # async fn example() -> Result<(), tower_oauth::BoxError> {
//! use tower_oauth::{ClientCredentials, Endpoint, Scope, TokenManager};
//!
//! let credentials = ClientCredentials::new("my-client-id", "my-secret");
//! let tokens = TokenManager::builder(Endpoint::new("https://as.example/token")?, credentials)
//!     .scope(Scope::new("orders.read")?)
//!     .start()?;
//! let token = tokens.access_token().await?; // fetched once, shared, renewed ahead of time
//! # let _ = token.expose_secret();
//! # Ok(())
//! # }
//! ```
//!
//! # Test without an issuer
//!
//! The embedded authorization server mints good tokens and wrong ones, rotates, fails when it is
//! told to, and needs no port and no real time:
//! [`guide::testing`](https://docs.rs/tower-oauth/latest/tower_oauth/guide/testing/index.html).
//!
//! # Security posture
//!
//! - `iss`, `aud` and `exp` are always required; `none` and HMAC cannot be expressed.
//! - A token only ever meets the keys of the issuer it names, and a key only its algorithm.
//! - Keys in a token's header are never used; duplicate JSON members, unknown critical headers and
//!   inexact base64url are refused; so are tokens that are bound to a key (`cnf`).
//! - No request bytes cause a fetch, but for a token that would pass with a newer key, within a
//!   fixed budget. No request bytes cause a 5xx, but for 503 where no judgement is possible.
//! - Answers come from fixed texts. Tokens and secrets are in no log, error or `Debug` output.
//! - Signatures are verified by aws-lc-rs. jsonwebtoken's process-wide provider is not used, so it
//!   does not matter what else in your build enables.
//!
//! # Features
//!
//! | feature | default | what it adds |
//! | --- | --- | --- |
//! | `reqwest` | yes | the HTTP transport for keys, metadata and tokens |
//! | `axum` | | [`AuthContext`] as an extractor |
//! | `metrics` | | counters and gauges ([`guide::metrics`](mod@guide::metrics)) |
//! | `tracing` | | events and spans on the targets `tower_oauth::key_set`, `::resource_server`, `::client` |
//! | `authorization-server` | | the development authorization server |
//! | `test-util` | | [`ManualClock`](https://docs.rs/tower-oauth/latest/tower_oauth/struct.ManualClock.html), a clock that tests move |
//!
//! A feature adds; none changes what is there without it.
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod app_id;
#[cfg(feature = "authorization-server")]
#[cfg_attr(docsrs, doc(cfg(feature = "authorization-server")))]
pub mod authorization_server;
mod backoff;
mod client;
mod clock;
mod error;
pub mod guide;
mod jwt;
mod key_set;
mod metadata;
mod metrics;
mod oauth;
mod redact;
mod resource_server;
mod timer;
mod token_response;
mod trace;
pub mod transport;

#[cfg(test)]
mod vectors;

pub use self::client::{
    AccessToken, BearerTokenFuture, BearerTokenLayer, BearerTokenService, ClientCredentials,
    CloneAnyBody, CloneBody, CloneEmptyBody, CloneNoBody, Renewer, TokenManager,
    TokenManagerBuilder,
};
#[cfg(any(test, feature = "test-util"))]
#[cfg_attr(docsrs, doc(cfg(feature = "test-util")))]
pub use self::clock::ManualClock;
pub use self::clock::{Clock, SystemClock, UnixTime};
pub use self::error::{BoxError, ConfigError, Error, ErrorKind, OAuthError, Operation};
pub use self::jwt::{Algorithm, TokenProfile};
pub use self::key_set::{
    KeySet, KeySetState, KeySetStatus, RefreshCause, RefreshCounts, RefreshPolicy, SkipReason,
};
pub use self::oauth::{Audience, Endpoint, Issuer, Scope};
#[cfg(feature = "axum")]
#[cfg_attr(docsrs, doc(cfg(feature = "axum")))]
pub use self::resource_server::AuthContextRejection;
pub use self::resource_server::{
    AuthContext, ClaimError, DefaultRejectionResponse, Refresher, Rejection, RejectionKind,
    RejectionResponse, RequireScopeFuture, RequireScopeLayer, RequireScopeService, ResourceServer,
    ResourceServerBuilder, ResourceServerLayer, ResourceServerService, ResponseFuture, Startup,
    TrustedIssuer,
};

/// The README's examples are compiled and run like those of the documentation.
#[cfg(all(doctest, feature = "axum", feature = "authorization-server"))]
#[doc = include_str!("../README.md")]
struct Readme;
