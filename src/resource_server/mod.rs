//! The resource server: authenticates requests by their bearer tokens.
//!
//! [`ResourceServer::builder`] is the entry point. [`ResourceServerLayer`] authenticates requests,
//! [`RequireScopeLayer`], [`RequireRoleLayer`] and [`RequireLayer`] check what the token must have
//! besides, and handlers read the [`AuthContext`].
//!
//! # A request
//!
//! The layer, [`ResourceServer::authenticate`] and [`ResourceServer::validate`] share this code.
//! Only a request that waits is boxed. After the wait it starts again at the token cache.
//!
//! ```text
//!  request ─▶ one bearer token? ──no──▶ 401, or 400 if malformed
//!                 │ yes
//!                 ▼
//!             in the token cache, and still valid? ──yes──────────┐
//!                 │ no                                            │
//!                 ▼                                               │
//!             validate the token ──invalid──▶ 401, seldom 403     │
//!                 │    ├──no usable keys─────▶ 503, Retry-After   │
//!                 │    ├──unknown kid────────▶ wait for a refresh, once
//!                 │    └──verification limit─▶ wait, or 503       │
//!                 │ valid                                         │
//!                 ▼                                               │
//!             may this request use it? (bound tokens) ◀───────────┘
//!                 │ yes              └──no──▶ 401 invalid_token
//!                 ▼
//!             AuthContext into the request's extensions
//!                 │
//!                 ▼
//!             inner layers, such as RequireScopeLayer, and the service
//!                 │
//!                 ▼
//!             response: the challenge of a Rejection in its extensions is
//!             completed; the request is counted, once
//! ```
//!
//! # A token
//!
//! Validation goes from cheap to expensive. Only a token whose registered claims are valid causes a
//! refresh of the keys.
//!
//! ```text
//!  header.payload.signature          RFC 7515 §7.1; strict base64url and JSON
//!     │
//!     ▼
//!  iss is trusted, exp has not passed
//!     │
//!     ▼
//!  alg and kid select a key of this issuer
//!     │
//!     ▼
//!  signature verifies                RFC 7515 §5.2
//!     │
//!     ▼
//!  typ, iss, aud, exp, nbf, iat      RFC 7519 §4.1, RFC 9068 §4
//!     │
//!     ▼
//!  claims, client, predicates, scopes that the TrustedIssuer requires
//!     │
//!     ▼
//!  cached from the second request on, with its confirmation (cnf, RFC 7800)
//! ```

mod authenticate;
mod builder;
mod challenge;
mod claim_rules;
mod context;
#[cfg(any(test, feature = "test-util"))]
mod context_builder;
mod credentials;
mod explain;
#[cfg(feature = "axum")]
mod extractor;
mod future;
mod header_cache;
mod in_flight;
mod issuer_state;
mod issuers;
mod layer;
mod mcp_headers;
mod presets;
mod problem_json;
mod protected_resource;
mod protected_resource_service;
mod readiness;
mod rejection;
mod rejection_events;
mod rejection_kind;
mod rejection_response;
mod require;
mod require_role;
mod require_scope;
mod requirement;
mod responses;
#[cfg(feature = "axum")]
mod scoped;
mod server;
mod service;
mod settings;
mod sharded_arc;
mod shared_settings;
mod token_cache;
mod trusted_issuer;
mod validate;
mod verification_limit;

pub use self::builder::{Refresher, ResourceServerBuilder, Startup};
pub use self::context::{AuthContext, ClaimError};
#[cfg(any(test, feature = "test-util"))]
#[cfg_attr(docsrs, doc(cfg(feature = "test-util")))]
pub use self::context_builder::AuthContextBuilder;
pub use self::explain::{Check, CheckOutcome, Explanation};
#[cfg(feature = "axum")]
#[cfg_attr(docsrs, doc(cfg(feature = "axum")))]
pub use self::extractor::{AuthContextRejection, Claims};
pub use self::future::ResponseFuture;
pub use self::layer::ResourceServerLayer;
pub use self::mcp_headers::McpHeaders;
pub use self::problem_json::ProblemJson;
pub use self::protected_resource::{ProtectedResource, ProtectedResourceMetadata};
pub use self::protected_resource_service::ProtectedResourceMetadataService;
pub use self::readiness::ReadinessPolicy;
pub use self::rejection::Rejection;
pub use self::rejection_kind::RejectionKind;
pub use self::rejection_response::{DefaultRejectionResponse, RejectionResponse};
pub use self::require::{RequireFuture, RequireLayer, RequireService};
pub use self::require_role::RequireRoleLayer;
pub use self::require_scope::RequireScopeLayer;
pub use self::requirement::Requirement;
#[cfg(feature = "axum")]
#[cfg_attr(docsrs, doc(cfg(feature = "axum")))]
pub use self::scoped::{RequiredScopes, Scoped};
pub use self::server::ResourceServer;
pub use self::service::ResourceServerService;
pub use self::settings::ResourceServerSettings;
pub use self::trusted_issuer::TrustedIssuer;
pub use crate::inbound_token::InboundToken;
pub use crate::jwt::{Algorithm, TokenProfile};
