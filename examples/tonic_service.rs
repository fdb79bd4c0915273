//! A tonic server behind the same layer. Rejections are gRPC statuses (16, 7, 14), and the auth
//! context is in the request's extensions.
//!
//! ```console
//! $ ISSUER=https://as.example AUDIENCE=orders cargo run --example tonic_service
//! ```
//!
//! The service is written by hand to avoid generated code. A service from `tonic-build` is added in
//! the same place.

use std::convert::Infallible;
use std::task::{Context, Poll};

use http::{Request, Response};
use tonic::body::Body;
use tonic::server::NamedService;
use tower_oauth::{AuthContext, BoxError, ResourceServer};

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
    let (issuer, audience) = (std::env::var("ISSUER")?, std::env::var("AUDIENCE")?);
    let orders = ResourceServer::builder(issuer, audience)
        .allow_loopback_http()
        .start()
        .await?;
    tonic::transport::Server::builder()
        .layer(orders.layer())
        .add_service(Greeter)
        .serve("127.0.0.1:8083".parse()?)
        .await?;
    Ok(())
}
