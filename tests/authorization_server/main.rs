//! The development authorization server: its endpoints, and its dashboard without a browser.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "tests"
)]

mod assertion;
mod client_authentication;
mod dashboard;
mod endpoints;
mod on_behalf;
mod registered_keys;
mod token_exchange;
