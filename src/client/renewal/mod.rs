//! The renewal of access tokens: when a token request is sent, the task that sends it, and the
//! responses that cause one.

pub(super) mod schedule;
pub(super) mod task;
mod task_set;
pub(super) mod trigger;

pub use self::task::Renewer;
