//! The keys of one issuer, and how they are refreshed.
//!
//! ```text
//! fetcher ──▶ bytes ──jwk──▶ KeySet ──publish──▶ snapshot ◀──load── requests
//!    ▲                                                                 │
//!    └───── schedule ◀───── refresher ◀───── on-demand refresh ◀───────┘ (unknown `kid`)
//! ```
//!
//! Requests read an immutable snapshot. Only the refresh task fetches, one at a time.

mod cache_control;
mod compromised;
mod config;
mod fetcher;
mod handle;
pub(crate) mod initial_keys;
mod jwk;
mod negative_cache;
mod on_demand;
mod policy;
mod rate_limit;
mod refresh_cause;
mod refresher;
mod revocation;
mod revoked;
mod schedule;
mod set;
mod skip_reason;
mod snapshot;
mod state;
mod status;

pub(crate) use self::config::RefresherConfig;
pub(crate) use self::fetcher::Source;
pub(crate) use self::handle::KeySetHandle;
pub(crate) use self::jwk::JwkLeniency;
pub(crate) use self::on_demand::{RefreshReason, Wait};
pub use self::policy::RefreshPolicy;
pub use self::refresh_cause::RefreshCause;
pub use self::set::KeySet;
pub(crate) use self::set::SelectError;
pub use self::skip_reason::SkipReason;
pub(crate) use self::snapshot::Snapshot;
pub use self::status::{KeySetState, KeySetStatus, RefreshCounts};
