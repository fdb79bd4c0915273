//! Key sets: the keys of an issuer, and how they are refreshed.
//!
//! A [`KeySet`] is parsed from a JWK Set document. [`RefreshPolicy`] sets how often it is refreshed
//! and how long it is used, and [`KeySetStatus`] reports the result.
//! [`guide::key_sets`](mod@crate::guide::key_sets) lists every rule with its test.
//!
//! # A key set
//!
//! ```text
//!  fetch ──▶ document ──parse──▶ KeySet ──publish──▶ snapshot ◀──read── requests
//!    ▲                                                                     │
//!    └──── schedule ◀──── one task per issuer ◀──── on-demand refresh ◀────┘ (unknown `kid`)
//! ```
//!
//! Requests read an immutable snapshot and never fetch. Only the task fetches, one request at a
//! time. A failed fetch leaves the snapshot in use until it is older than
//! [`max_stale`](RefreshPolicy::max_stale).

mod cache_control;
mod compromised;
mod config;
mod fetcher;
mod handle;
pub(crate) mod initial_keys;
mod jwk;
mod jwk_set;
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
mod skipped_key;
mod snapshot;
mod state;
mod status;

pub(crate) use self::config::RefresherConfig;
pub(crate) use self::fetcher::Source;
pub(crate) use self::handle::KeySetHandle;
pub(crate) use self::on_demand::RefreshReason;
pub use self::policy::RefreshPolicy;
pub use self::refresh_cause::RefreshCause;
pub use self::set::KeySet;
pub(crate) use self::set::SelectError;
pub use self::skip_reason::SkipReason;
pub use self::skipped_key::SkippedKey;
pub(crate) use self::snapshot::Snapshot;
pub use self::status::{KeySetState, KeySetStatus, RefreshCounts};
