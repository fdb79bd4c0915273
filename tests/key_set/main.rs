//! A key set from its source to its end: fetches, faults, rotation, revocation.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    unreachable_pub,
    reason = "tests"
)]

mod fault_matrix;
mod properties;
mod published;
mod rotation;
mod source;
#[path = "../support/mod.rs"]
mod support;
