//! The client: obtains access tokens with its own credentials, and puts them on requests.
//!
//! ```text
//!  caller ─ access_token() ─▶ token in hand? ──yes──────────────────────────▶ token
//!                                  │ no
//!                                  ▼
//!                             ring, and wait ◀─────────── one answer for all ──┐
//!                                  │                                           │
//!           task ◀─────────────────┘                                           │
//!            │  one request at a time: retried with backoff, given up in time ─┘
//!            └─ renewed before it expires, for as long as somebody uses it
//! ```
//!
//! The task owns the request, so a caller that is cancelled takes nobody else along. What is
//! asked when is decided in `renewal`, without I/O and without a clock.

mod builder;
mod credentials;
mod endpoint;
mod future;
mod grant;
mod layer;
mod manager;
mod origin;
mod renewal;
mod renewer;
mod replay;
mod service;
mod token;

pub use self::builder::TokenManagerBuilder;
pub use self::credentials::ClientCredentials;
pub use self::future::BearerTokenFuture;
pub use self::layer::BearerTokenLayer;
pub use self::manager::TokenManager;
pub use self::renewer::Renewer;
pub use self::replay::{Replay, ReplayCloned, ReplayEmpty, ReplayNever};
pub use self::service::BearerTokenService;
pub use self::token::AccessToken;
