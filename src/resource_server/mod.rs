//! The resource server: authenticates requests by their bearer tokens.
//!
//! ```text
//!  request ─▶ bearer token? ──no──▶ 401, or 400 if malformed
//!                 │ yes
//!                 ▼
//!             header, claims ──malformed──▶ 401 invalid_token
//!                 │
//!                 ▼
//!             issuer's keys ──none usable──▶ 503, Retry-After
//!                 │        └─unknown kid──▶ one bounded wait for a refresh ─┐
//!                 ▼                                                         │
//!             signature ◀───────────────────────────────────────────────────┘
//!                 │ valid
//!                 ▼
//!             iss aud exp nbf ──any invalid──▶ 401 invalid_token
//!                 │ all valid
//!                 ▼
//!             AuthContext into the request's extensions ─▶ inner service
//! ```

mod authentication;
mod builder;
mod challenge;
mod context;
#[cfg(any(test, feature = "test-util"))]
mod context_builder;
mod credentials;
#[cfg(feature = "axum")]
mod extractor;
mod future;
mod layer;
mod log_limit;
mod rejection;
mod require_scope;
mod server;
mod service;
mod token_cache;
mod trusted_issuer;
mod verification_limit;

pub use self::builder::{Refresher, ResourceServerBuilder, Startup};
pub use self::challenge::{DefaultRejectionResponse, RejectionResponse};
pub use self::context::{AuthContext, ClaimError};
#[cfg(any(test, feature = "test-util"))]
pub use self::context_builder::AuthContextBuilder;
#[cfg(feature = "axum")]
pub use self::extractor::{AuthContextRejection, Claims};
pub use self::future::{RequireScopeFuture, ResponseFuture};
pub use self::layer::ResourceServerLayer;
pub use self::rejection::{Rejection, RejectionKind};
pub use self::require_scope::{RequireScopeLayer, RequireScopeService};
pub use self::server::ResourceServer;
pub use self::service::ResourceServerService;
pub use self::trusted_issuer::TrustedIssuer;
