//! A transport that calls the endpoints without a socket.

use std::future::poll_fn;
use std::pin::pin;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::{Request, Response};
use http_body::Body as _;
use tower_service::Service;

use super::AuthorizationServer;
use crate::transport::{SendFuture, Transport, TransportError};

/// A [`Transport`] that calls an [`AuthorizationServer`] directly.
///
/// Requests to any other server fail.
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), tower_oauth::BoxError> {
/// # use tower_oauth::authorization_server::AuthorizationServer;
/// # use tower_oauth::resource_server::Algorithm;
/// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
/// use bytes::Bytes;
/// use http::Request;
/// use tower_oauth::transport::Transport as _;
///
/// let transport = issuer.transport();
/// let keys = Request::get(issuer.jwks_uri().as_str()).body(Bytes::new())?;
/// assert_eq!(transport.send(keys, 4096).await?.status(), 200);
/// let other = Request::get("https://other.example/").body(Bytes::new())?;
/// assert!(transport.send(other, 4096).await.is_err());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct InProcessTransport {
    router: axum::Router,
    base_url: String,
}

impl InProcessTransport {
    pub(super) fn new(server: &AuthorizationServer) -> Self {
        Self {
            router: server.router(),
            base_url: format!("{}/", server.base_url()),
        }
    }
}

impl Transport for InProcessTransport {
    fn send(&self, request: Request<Bytes>, max_body: usize) -> SendFuture<'_> {
        Box::pin(async move {
            if !request.uri().to_string().starts_with(&self.base_url) {
                return Err(TransportError::connect(
                    "only the authorization server can be reached in-process",
                ));
            }
            let mut router = self.router.clone();
            // Routers are always ready and never fail.
            let Ok(response) = router.call(request.map(Body::from)).await;
            let (head, body) = response.into_parts();
            let mut body = pin!(body);
            let mut whole = BytesMut::new();
            while let Some(frame) = poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
                let frame = frame.map_err(TransportError::connect)?;
                let Ok(data) = frame.into_data() else {
                    continue;
                };
                if whole.len() + data.len() > max_body {
                    return Err(TransportError::too_large());
                }
                whole.extend_from_slice(&data);
            }
            Ok(Response::from_parts(head, whole.freeze()))
        })
    }
}
