//! What takes long and all processors: floods, faults under load, an hour of fifty replicas.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    unreachable_pub,
    reason = "tests"
)]

mod flood;
mod replicas;
#[path = "../support/mod.rs"]
mod support;
#[cfg(unix)]
mod under_load;

/// The test that measures response times holds it alone; the others share it.
static PROCESSORS: tokio::sync::RwLock<()> = tokio::sync::RwLock::const_new(());
