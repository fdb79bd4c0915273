//! A tonic server behind the same layer. Rejections are gRPC statuses (16, 7, 14), and the auth
//! context is in the request's extensions.
//!
//! ```console
//! $ ISSUER=https://as.example AUDIENCE=orders cargo run --example tonic_service  # PORT: 8083
//! {"listening":"http://127.0.0.1:8083"}
//! ```
//!
//! The service is written by hand to avoid generated code. A service from `tonic-build` is added in
//! the same place.

#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a program, not a library"
)]

use std::convert::Infallible;
use std::task::{Context, Poll};

use figment::Figment;
use figment::providers::Env;
use http::{Request, Response};
use tokio::net::TcpListener;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::transport::server::TcpIncoming;
use tower_oauth::resource_server::ResourceServerSettings;
use tower_oauth::{AuthContext, BoxError};

/// Responds to each call with a status that names the caller.
#[derive(Clone, Debug)]
struct Greeter;

impl NamedService for Greeter {
    const NAME: &'static str = "demo.Greeter";
}

impl tower::Service<Request<Body>> for Greeter {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let caller = AuthContext::from_request(&request)
            .and_then(AuthContext::client_id)
            .unwrap_or("unnamed");
        std::future::ready(Ok(
            tonic::Status::unimplemented(format!("hello, {caller}")).into_http()
        ))
    }
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    // The variables of one issuer; the others of `guide::settings` can be listed here as well.
    let variables = Env::raw().only(&["ISSUER", "AUDIENCE", "ALLOWED_CLIENTS"]);
    let variables = variables.map(|name| format!("issuers.main.{name}").into());
    let settings: ResourceServerSettings = Figment::from(variables).extract()?;
    let orders = settings.to_builder()?.allow_loopback_http();
    let orders = orders.start().await?;
    let port = std::env::var("PORT").unwrap_or_else(|_| "8083".into());
    let listener = TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    println!(r#"{{"listening":"http://{}"}}"#, listener.local_addr()?);
    tonic::transport::Server::builder()
        .layer(orders.layer())
        .add_service(Greeter)
        .serve_with_incoming(TcpIncoming::from(listener))
        .await?;
    Ok(())
}
