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

#[allow(
    dead_code,
    reason = "the tests of the development server use all of it"
)]
#[path = "../authorization_server/assertion.rs"]
mod assertion;
mod client_authentication;
mod explain;
mod forward_auth;
mod mcp_server;
mod other_frameworks;
mod plain_http;
mod programs;
mod protected_resource;
#[path = "../support/mod.rs"]
mod support;
