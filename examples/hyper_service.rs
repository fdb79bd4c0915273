//! A hyper service behind the layer, without a web framework. Its settings are variables, and
//! `build` returns the refresher of the keys as a future, which the caller spawns.
//!
//! ```console
//! $ ISSUER=https://as.example AUDIENCE=orders cargo run --example hyper_service  # PORT: 8082
//! {"listening":"http://127.0.0.1:8082"}
//! $ curl -i http://localhost:8082/ -H "Authorization: Bearer $TOKEN"
//! ```

#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a program, not a library"
)]

use std::convert::Infallible;

use bytes::Bytes;
use figment::Figment;
use figment::providers::Env;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tower::{ServiceBuilder, service_fn};
use tower_oauth::resource_server::ResourceServerSettings;
use tower_oauth::{AuthContext, BoxError};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    // The variables of one issuer; the others of `guide::settings` can be listed here as well.
    let variables = Env::raw().only(&["ISSUER", "AUDIENCE", "ALLOWED_CLIENTS"]);
    let variables = variables.map(|name| format!("issuers.main.{name}").into());
    let settings: ResourceServerSettings = Figment::from(variables).extract()?;
    let (orders, refresher) = settings.to_builder()?.allow_loopback_http().build()?;
    tokio::spawn(refresher);

    let service = ServiceBuilder::new()
        .layer(orders.layer())
        .service(service_fn(hello));
    let port = std::env::var("PORT").unwrap_or_else(|_| "8082".into());
    let listener = TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    println!(r#"{{"listening":"http://{}"}}"#, listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        let service = TowerToHyperService::new(service.clone());
        tokio::spawn(async move {
            let mut server = auto::Builder::new(TokioExecutor::new());
            server.http1().timer(TokioTimer::new()); // limits the time for a header section
            server.serve_connection(TokioIo::new(stream), service).await
        });
    }
}

async fn hello(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let caller = AuthContext::from_request(&request)
        .and_then(AuthContext::subject)
        .unwrap_or("an unnamed application");
    Ok(Response::new(Full::from(format!("Hello, {caller}"))))
}
