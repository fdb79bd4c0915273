//! The issuer of `benches/end_to_end.sh`: writes 10,000 tokens to the file `TOKENS`, one per line,
//! and serves the keys.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    missing_docs,
    unreachable_pub,
    reason = "a benchmark"
)]

#[path = "../examples/common/mod.rs"]
mod common;
#[allow(dead_code, reason = "other benchmarks use the rest")]
#[path = "support/tokens.rs"]
mod tokens;

use std::time::SystemTime;

use axum::Router;
use axum::routing::get;
use serde_json::json;
use tokens::Signer;

const DISTINCT: usize = 10_000;

#[tokio::main]
async fn main() {
    let Ok(file) = std::env::var("TOKENS") else {
        return println!("run it with benches/end_to_end.sh");
    };
    let signer = Signer::new("RS256");
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let token = |number| signer.token(&tokens::header("RS256"), &tokens::claims_at(now, number));
    let tokens: Vec<String> = (0..DISTINCT).map(token).collect();
    std::fs::write(file, tokens.join("\n")).unwrap();
    let jwks = signer.jwks();
    let router = Router::new().route("/keys", get(async move || jwks));
    let listener = common::listen(0)
        .await
        .unwrap_or_else(|error| panic!("{error:?}"));
    let address = listener.local_addr().unwrap();
    let settings = json!({
        "issuer": tokens::ISSUER,
        "audience": tokens::AUDIENCE,
        "jwks_uri": format!("http://{address}/keys"),
    });
    println!("{settings}");
    common::serve(listener, router, common::shutdown_signal()).await;
}
