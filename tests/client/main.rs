//! The client: token requests, the layer, transports, and App ID. Where both ends share code, the
//! resource server too.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    unreachable_pub,
    reason = "tests"
)]

mod app_id;
mod certificates;
mod client_authentication;
mod file_token;
mod first_mistakes;
mod layer;
mod mtls;
mod network;
mod other_runtime;
mod plain_http;
mod platforms;
mod providers;
mod resource_metadata;
mod scope_upgrade;
mod secret_files;
mod service_transport;
mod settings;
#[path = "../support/mod.rs"]
mod support;
mod token_exchange;
mod token_manager;
mod token_managers;
mod token_responses;
mod token_source;
mod tower_and_reqwest;
