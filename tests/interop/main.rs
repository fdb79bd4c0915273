//! Interoperability with other programs: authorization servers, clients and reverse proxies. Each
//! module says what it needs. Without that its tests print "skipped" and pass, unless
//! `REQUIRE_INTEROP` is set, as in CI.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    unreachable_pub,
    reason = "tests"
)]

#[cfg(unix)]
mod client_keys;
#[cfg(unix)]
mod client_libraries;
#[cfg(unix)]
mod glewlwyd;
#[cfg(unix)]
mod glewlwyd_clients;
#[cfg(unix)]
mod keycloak;
#[cfg(unix)]
mod mcp;
mod node;
#[cfg(unix)]
mod node_clients;
#[cfg(unix)]
mod prometheus;
#[cfg(unix)]
mod proxies;
mod servers;
#[cfg(unix)]
#[allow(dead_code, reason = "tests/browser uses the rest")]
#[path = "../browser/session.rs"]
mod session;
#[cfg(unix)]
#[path = "../support/mod.rs"]
mod support;
