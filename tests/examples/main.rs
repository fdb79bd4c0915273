//! The example programs, as processes and as code. `cargo build --examples` builds them for a run
//! of these tests alone.

#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    unreachable_pub,
    reason = "tests"
)]

mod explain;
mod forward_auth;
mod mcp_server;
mod other_frameworks;
mod plain_http;
mod programs;
mod protected_resource;
#[path = "../support/mod.rs"]
mod support;
