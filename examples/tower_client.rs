//! A tower client on hyper-util. The layer adds the token to requests to the resource's origin.
//!
//! ```console
//! $ export ISSUER=https://as.example CLIENT_ID=… CLIENT_SECRET_FILE=…
//! $ cargo run --example tower_client -- http://localhost:8082/
//! ```

#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a program, not a library"
)]

use bytes::Bytes;
use figment::Figment;
use figment::providers::Env;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tower::{ServiceBuilder, ServiceExt as _};
use tower_oauth::client::ClientSettings;
use tower_oauth::{BoxError, Endpoint};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let url = std::env::args().nth(1).ok_or("usage: tower_client URL")?;
    let names = [
        "ISSUER",
        "CLIENT_ID",
        "CLIENT_SECRET",
        "CLIENT_SECRET_FILE",
        "AUDIENCE",
        "SCOPES",
    ];
    let settings: ClientSettings = Figment::from(Env::raw().only(&names)).extract()?;
    let tokens = settings.to_builder()?.allow_loopback_http().start()?;

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
