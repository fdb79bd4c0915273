//! OAuth 2.0 between services, as tower middleware.
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod app_id;
mod backoff;
mod clock;
mod error;
mod jwt;
mod key_set;
mod metadata;
mod oauth;
mod resource_server;
mod trace;
pub mod transport;

#[cfg(test)]
mod vectors;

#[cfg(any(test, feature = "test-util"))]
pub use self::clock::ManualClock;
pub use self::clock::{Clock, SystemClock, UnixTime};
pub use self::error::{BoxError, ConfigError, Error, ErrorKind, OAuthError, Operation};
pub use self::jwt::{Algorithm, TokenProfile};
pub use self::key_set::{KeySet, KeySetState, KeySetStatus, RefreshPolicy, SkipReason};
pub use self::oauth::{Audience, Endpoint, Issuer, Scope};
#[cfg(feature = "axum")]
#[cfg_attr(docsrs, doc(cfg(feature = "axum")))]
pub use self::resource_server::AuthContextRejection;
pub use self::resource_server::{
    AuthContext, Challenge, ClaimError, Refresher, Rejection, RejectionKind, RejectionResponse,
    RequireScopeFuture, RequireScopeLayer, RequireScopeService, ResourceServer, ResourceServerBuilder,
    ResourceServerLayer, ResourceServerService, ResponseFuture, StartUp, TrustedIssuer,
};
