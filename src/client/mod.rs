//! The client: obtains access tokens with its own credentials, and puts them on requests.
//!
//! ```text
//!  caller ─ access_token() ─▶ is there a token? ──yes────────────────────────▶ token
//!                                  │ no
//!                                  ▼
//!                         wake the task, and wait ◀── one answer for all ────┐
//!                                  │                                         │
//!           task ◀─────────────────┘                                         │
//!            │  one request at a time: retried with backoff, within a limit ─┘
//!            ├─ renews the token before it expires, for as long as it is used
//!            └─ renews it at once when it was refused ◀── invalidate(), replace() ── layer
//! ```
//!
//! The task owns the request, so a caller that is cancelled cancels no other. `renewal` decides
//! when a request is sent, without I/O and without a clock; `endpoint` decides where it is sent.
//!
//! A token that a resource server refused is *suspect*: it goes on serving other calls, because
//! other resource servers may accept it, until its successor is there or it expires. A call that
//! was refused waits a short time for the successor (`replace`). If there is none in that time, the
//! response of the resource server is the caller's, and never an error of the token endpoint.
//!
//! ```text
//!  refused ─▶ another token is there? ──yes──────────────────────────────▶ send again with it
//!                 │ no
//!                 ▼
//!             one was replaced in the last 10 s? ──yes──────────────────▶ response
//!                 │ no
//!                 ▼
//!             the task renews it now ── request cannot be sent again ───▶ response
//!                 │
//!                 ├─ a successor within 5 s ────────────────────────────▶ send again with it
//!                 └─ none: the attempt failed, or the time is over ─────▶ response
//! ```

mod builder;
mod clone_body;
mod credentials;
mod endpoint;
mod future;
mod grant;
mod layer;
mod manager;
mod origin;
mod renewal;
mod renewer;
mod service;
mod shared;
mod token;

pub use self::builder::TokenManagerBuilder;
pub use self::clone_body::{CloneAnyBody, CloneBody, CloneEmptyBody, CloneNoBody};
pub use self::credentials::ClientCredentials;
pub use self::future::BearerTokenFuture;
pub use self::layer::BearerTokenLayer;
pub use self::manager::TokenManager;
pub use self::renewer::Renewer;
pub use self::service::BearerTokenService;
pub use self::token::AccessToken;
