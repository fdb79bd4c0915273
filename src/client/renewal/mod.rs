//! The renewal of access tokens: when a token request is sent, and the task that sends it.

pub(super) mod schedule;
pub(super) mod task;

pub use self::task::Renewer;
