//! OAuth 2.0 between services, as tower middleware.
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod app_id;
mod backoff;
mod clock;
mod error;
mod metadata;
mod oauth;
pub mod transport;

#[cfg(any(test, feature = "test-util"))]
pub use self::clock::ManualClock;
pub use self::clock::{Clock, SystemClock, UnixTime};
pub use self::error::{BoxError, ConfigError, Error, ErrorKind, OAuthError, Operation};
pub use self::oauth::{Audience, Endpoint, Issuer, Scope};
