//! A server of `benches/end_to_end.sh`: the document of a protected resource at its well-known
//! place, and at `/plain` the same bytes by an axum handler.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    missing_docs,
    unreachable_pub,
    reason = "a benchmark"
)]

#[path = "../examples/common/mod.rs"]
mod common;

use axum::Router;
use axum::routing::get;
use serde_json::json;
use tower_oauth::resource_server::ProtectedResource;
use tower_oauth::{ResourceServer, Scope};

#[tokio::main]
async fn main() {
    if std::env::var_os("TOKENS").is_none() {
        return println!("run it with benches/end_to_end.sh");
    }
    let scopes = ["orders.read", "orders.write"].map(|scope| Scope::new(scope).unwrap());
    let resource = ProtectedResource::new("https://api.example").unwrap();
    let resource = resource.resource_name("Orders").scopes_supported(scopes);
    let server = ResourceServer::for_resource(resource, "https://as.example").build();
    let (server, _refresher) = server.unwrap();
    let metadata = server.resource_metadata().unwrap();
    let document = metadata.document().clone();
    let router = Router::new()
        .route("/plain", get(async move || document))
        .route_service(metadata.path(), metadata.service());
    let listener = common::listen(0)
        .await
        .unwrap_or_else(|error| panic!("{error:?}"));
    let address = listener.local_addr().unwrap();
    println!("{}", json!({ "listening": format!("http://{address}") }));
    common::serve(listener, router, common::shutdown_signal()).await;
}
