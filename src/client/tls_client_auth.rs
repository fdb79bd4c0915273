//! Client authentication with the TLS certificate of the client.

use super::authentication::ClientAuthentication;
use super::box_future::BoxFuture;
use super::token_request::{RequestPart, TokenRequest};
use crate::error::{ConfigError, Error};

/// Added to `invalid_client`.
const CERTIFICATE_HINT: &str = "the server saw no client certificate, or not the one that is \
    registered for the client: pass a transport with it \
    (`ReqwestTransport::with_client_certificate`), and check that the server, and each proxy before \
    it, requests client certificates at this URL";

const PLAIN_HTTP_HINT: &str = "the URL is plain http, which never shows a client certificate: the \
    token endpoint must be https";

/// Authenticates the client with its TLS certificate: `tls_client_auth` and
/// `self_signed_tls_client_auth` ([RFC 8705 §2](https://www.rfc-editor.org/rfc/rfc8705#section-2)).
///
/// The request has the client id and no secret. The certificate is that of the transport:
/// `ReqwestTransport::with_client_certificate` reads it from files, also after a rotation. After
/// discovery, token requests go to the token endpoint of `mtls_endpoint_aliases`, if the metadata
/// have it ([RFC 8705 §5](https://www.rfc-editor.org/rfc/rfc8705#section-5)).
///
/// A server may bind the token to the certificate (RFC 8705 §3). Requests to the resource server
/// then have to show the same certificate.
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), tower_oauth::BoxError> {
/// # use http_body_util::BodyExt as _;
/// # let transport = tower_oauth::transport::ServiceTransport::new(tower::service_fn(
/// #     async |request: http::Request<http_body_util::Full<bytes::Bytes>>| {
/// #         let body = if request.uri().path().contains("/.well-known/") {
/// #             serde_json::json!({
/// #                 "issuer": "https://as.example",
/// #                 "token_endpoint": "https://as.example/token",
/// #                 "mtls_endpoint_aliases": { "token_endpoint": "https://mtls.as.example/token" },
/// #             })
/// #         } else {
/// #             let url = request.uri().to_string();
/// #             let form = request.into_body().collect().await?.to_bytes();
/// #             let token = format!("{url}?{}", String::from_utf8_lossy(&form));
/// #             serde_json::json!({ "access_token": token, "token_type": "Bearer" })
/// #         };
/// #         Ok::<_, tower_oauth::BoxError>(http::Response::new(body.to_string()))
/// #     },
/// # ));
/// use tower_oauth::{Issuer, TlsClientAuth, TokenManager};
///
/// let issuer = Issuer::new("https://as.example")?;
/// let tokens = TokenManager::for_issuer(issuer, TlsClientAuth::new("orders"))?
///     .transport(transport) // its tokens are the URL and the form of each request
///     .start()?;
/// let sent = tokens.access_token().await?;
/// assert_eq!(
///     sent.expose_secret(),
///     "https://mtls.as.example/token?grant_type=client_credentials&client_id=orders"
/// );
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct TlsClientAuth {
    client_id: String,
}

impl TlsClientAuth {
    /// The client with this id.
    pub fn new(client_id: impl Into<String>) -> Self {
        Self {
            client_id: client_id.into(),
        }
    }
}

impl ClientAuthentication for TlsClientAuth {
    fn authenticate<'a>(
        &'a self,
        request: &'a mut TokenRequest,
    ) -> BoxFuture<'a, Result<(), Error>> {
        // RFC 8705 §2: the request must contain the client id.
        request.append("client_id", &self.client_id);
        let hint = match request.endpoint().is_plain_http() {
            true => PLAIN_HTTP_HINT,
            false => CERTIFICATE_HINT,
        };
        request.add_refusal_hint(RequestPart::ClientAuthentication, hint);
        Box::pin(async { Ok(()) })
    }

    fn client_id(&self) -> Option<&str> {
        Some(&self.client_id)
    }

    fn uses_mtls(&self) -> bool {
        true
    }

    fn check(&self) -> Result<(), ConfigError> {
        match self.client_id.is_empty() {
            true => Err(ConfigError::missing("client id", "must not be empty")),
            false => Ok(()),
        }
    }
}
