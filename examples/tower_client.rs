//! A tower client on hyper-util. The layer adds the token to requests to the resource's origin.
//!
//! ```console
//! $ export OAUTH_SERVER_URL=https://as.example CLIENT_ID=… CLIENT_SECRET=…
//! $ cargo run --example tower_client -- http://localhost:8082/
//! ```

#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a program, not a library"
)]

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tower::{ServiceBuilder, ServiceExt as _};
use tower_oauth::{BoxError, ClientCredentials, Endpoint, Issuer, TokenManager};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let url = std::env::args().nth(1).ok_or("usage: tower_client URL")?;
    let credentials =
        ClientCredentials::new(std::env::var("CLIENT_ID")?, std::env::var("CLIENT_SECRET")?);
    let issuer = Issuer::new(std::env::var("OAUTH_SERVER_URL")?)?;
    let tokens = TokenManager::for_issuer(issuer, credentials)?
        .allow_loopback_http()
        .start()?;

    let client = ServiceBuilder::new()
        .layer(
            tokens
                .layer([Endpoint::new(&url)?])
                .retry_with_cloned_body(),
        )
        .service(Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>());

    let response = client
        .oneshot(Request::get(url).body(Full::default())?)
        .await?;
    println!("{}", response.status());
    println!(
        "{}",
        String::from_utf8_lossy(&response.into_body().collect().await?.to_bytes())
    );
    Ok(())
}
