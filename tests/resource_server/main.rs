//! The resource server: requests, tokens, the token cache, readiness, and what they count.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    unreachable_pub,
    reason = "tests"
)]

mod allocations;
mod claim_shapes;
mod concurrent_verifications;
mod differential;
mod events;
mod explain;
mod frameworks;
mod http_surface;
mod json_and_claims;
mod keep_token;
mod metrics;
mod pipeline;
mod protected_resource;
mod providers;
mod public_names;
mod readiness;
mod rejection_responses;
mod requirements;
mod settings;
mod several_resources;
#[path = "../support/mod.rs"]
mod support;
mod token_and_header;
mod token_cache;
mod trusted_issuer;
