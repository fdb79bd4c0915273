//! Requests tokens from a token endpoint.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::authentication::ClientAuthentication;
use super::box_future::BoxFuture;
use super::grant::Grant;
use super::parameters::Parameters;
use super::resource_metadata::ResourceMetadata;
use super::response_reader::SentRequest;
use super::scope_upgrade::ScopeUpgrade;
use super::token_endpoint::{DiscoveryContext, ResolvedEndpoint, TokenEndpoint};
use super::token_request::{TokenRequest, is_invalid_client};
use super::token_response::TokenResponse;
use super::token_source::{TokenSource, is_transient};
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Operation};
use crate::oauth::{Issuer, PlainHttp};
use crate::timer::now;
use crate::transport::{HttpClient, Limits};

/// Maximum size of a token response in bytes, after decompression.
const MAX_RESPONSE: usize = 64 * 1024;

/// Requests tokens from a token endpoint, without storing them
/// ([RFC 6749 §3.2](https://www.rfc-editor.org/rfc/rfc6749#section-3.2)).
///
/// [`TokenManagerBuilder::build_source`](super::TokenManagerBuilder::build_source) builds it. A
/// [`TokenManager`](super::TokenManager) has one of these and needs no other: use it to request a
/// single token, or to wrap it in another [`TokenSource`].
///
/// # Examples
///
/// ```
/// use tower_oauth::TokenManager;
/// use tower_oauth::authorization_server::{AuthorizationServer, EndpointKind};
/// use tower_oauth::client::TokenSource;
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), tower_oauth::BoxError> {
/// let issuer = AuthorizationServer::builder().build()?;
/// let shop = issuer.register("shop")?;
/// let source = TokenManager::builder(issuer.token_endpoint(), shop.credentials())
///     .transport(issuer.transport())
///     .build_source()?;
/// assert!(source.fetch().await?.expires_in().is_some());
/// assert!(source.fetch().await?.expires_in().is_some());
/// // No token was stored.
/// assert_eq!(issuer.requests(EndpointKind::Token), 2);
/// # Ok(())
/// # }
/// ```
///
/// [`fetch`](TokenSource::fetch) needs a tokio runtime, for its time limit.
pub struct TokenEndpointSource {
    pub(super) client: Arc<dyn ClientAuthentication>,
    pub(super) grant: Arc<dyn Grant>,
    pub(super) parameters: Parameters,
    /// The scopes that resource servers ask for.
    pub(super) scope_upgrade: Arc<ScopeUpgrade>,
    /// Whether a missing or unknown `token_type` is accepted.
    pub(super) assume_bearer: bool,
    pub(super) issuer: Option<Issuer>,
    pub(super) http_client: HttpClient,
    pub(super) clock: Arc<dyn Clock>,
    /// Time limit of one fetch, including discovery.
    pub(super) limit: Duration,
    /// Locked during a fetch: a second fetch waits, so that one discovery serves both.
    pub(super) state: Mutex<EndpointState>,
}

/// What a fetch leaves to the next one.
pub(super) struct EndpointState {
    endpoint: TokenEndpoint,
    /// The metadata that have to confirm the issuer.
    resource: Option<ResourceMetadata>,
    /// A server may quote it in a later error.
    last_token: Option<SecretString>,
}

impl EndpointState {
    pub(super) fn new(endpoint: TokenEndpoint, resource: Option<ResourceMetadata>) -> Self {
        Self {
            endpoint,
            resource,
            last_token: None,
        }
    }
}

impl TokenEndpointSource {
    pub(super) fn plain_http(&self) -> &PlainHttp {
        self.http_client.plain_http()
    }

    /// Requests a token, and again without the scopes that resource servers have asked for if the
    /// server does not grant them any more.
    async fn request_grantable_token(&self) -> Result<TokenResponse, Error> {
        match self.request_token().await {
            Err(error) if self.scope_upgrade.drop_refused(&error, self.clock.now()) => {
                self.request_token().await
            }
            result => result,
        }
    }

    /// Requests a token once, and a second time if discovery shows that the token endpoint has
    /// moved.
    async fn request_token(&self) -> Result<TokenResponse, Error> {
        let mut state = self.state.lock().await;
        let ends_at = now() + self.limit;
        let limits = || Limits {
            total: ends_at.saturating_duration_since(now()),
            max_body: MAX_RESPONSE,
        };
        let context = || DiscoveryContext {
            http_client: &self.http_client,
            now: self.clock.now(),
            limits: limits(),
        };
        let EndpointState {
            endpoint,
            resource,
            last_token,
        } = &mut *state;
        if let (Some(resource), Some(issuer)) = (resource, &self.issuer) {
            resource.confirm(issuer, context()).await?;
        }
        let resolved = endpoint.resolve(context()).await?;
        let mut result = self
            .request_token_at(&resolved, last_token.as_ref(), limits())
            .await;
        let may_have_moved = endpoint.record_result(&resolved, &result);
        // A transient failure is retried later, after a new discovery.
        if may_have_moved && result.as_ref().is_err_and(|error| !is_transient(error)) {
            let moved = endpoint.resolve(context()).await?;
            if moved.url != resolved.url {
                result = self
                    .request_token_at(&moved, last_token.as_ref(), limits())
                    .await;
                endpoint.record_result(&moved, &result);
            }
        }
        if let Ok(response) = &result {
            *last_token = Some(response.expose_secret().into());
        }
        result
    }

    /// Requests a token at this endpoint, and once more if the client is refused and its
    /// credentials, which were read for the request, have changed since.
    async fn request_token_at(
        &self,
        endpoint: &ResolvedEndpoint,
        last_token: Option<&SecretString>,
        limits: Limits,
    ) -> Result<TokenResponse, Error> {
        let ends_at = now() + limits.total;
        let limits = || Limits {
            total: ends_at.saturating_duration_since(now()),
            ..limits
        };
        let request = self.write_request(endpoint, limits()).await?;
        let result = self.send(&request, endpoint, last_token, limits()).await;
        if !request.has_read_credentials() || !result.as_ref().is_err_and(refuses_client) {
            return result;
        }
        let again = self.write_request(endpoint, limits()).await?;
        if again.has_credentials_of(&request) {
            return result;
        }
        self.send(&again, endpoint, last_token, limits()).await
    }

    async fn write_request(
        &self,
        endpoint: &ResolvedEndpoint,
        limits: Limits,
    ) -> Result<TokenRequest, Error> {
        let mut request = TokenRequest::new(endpoint.url.clone(), self.issuer.clone());
        // Grant and client authentication may wait for a key service.
        timeout(limits.total, self.write(&mut request))
            .await
            .unwrap_or_else(|_elapsed| {
                let error = Error::new(Operation::TokenRequest, ErrorKind::Timeout);
                Err(error.with_detail("from the grant or the client authentication"))
            })?;
        Ok(request)
    }

    /// Sends a token request.
    async fn send(
        &self,
        request: &TokenRequest,
        endpoint: &ResolvedEndpoint,
        last_token: Option<&SecretString>,
        limits: Limits,
    ) -> Result<TokenResponse, Error> {
        let http = request.to_http()?;
        let sent = SentRequest {
            endpoint: &endpoint.url,
            sent_at: self.clock.now(),
            assume_bearer: self.assume_bearer,
            secrets: || {
                let mut secrets = request.secrets();
                if let Some(token) = last_token {
                    secrets.add(token.expose_secret());
                }
                secrets
            },
        };
        self.http_client
            .send(Operation::TokenRequest, http, limits)
            .await
            .and_then(|response| sent.read(&response))
            .map_err(|error| request.annotate(endpoint.annotate(error)))
    }

    /// The client authentication comes last, because it may sign the rest.
    async fn write(&self, request: &mut TokenRequest) -> Result<(), Error> {
        self.grant.write(request).await?;
        self.parameters
            .append_to(request, &self.scope_upgrade.added());
        self.client.authenticate(request).await
    }
}

/// Whether the server does not accept the client's credentials.
fn refuses_client(error: &Error) -> bool {
    error.status() == Some(StatusCode::UNAUTHORIZED) || is_invalid_client(error)
}

impl TokenSource for TokenEndpointSource {
    fn fetch(&self) -> BoxFuture<'_, Result<TokenResponse, Error>> {
        Box::pin(self.request_grantable_token())
    }
}

impl fmt::Debug for TokenEndpointSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenEndpointSource")
            .field("client", &self.client)
            .field("grant", &self.grant)
            .field("parameters", &self.parameters)
            .field("issuer", &self.issuer)
            .finish_non_exhaustive()
    }
}
