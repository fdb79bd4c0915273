//! Requests tokens from a token endpoint.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

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
use super::token_request::TokenRequest;
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
    /// The assertions that were read for the last request, but for one that the server refused:
    /// it may take each assertion once.
    sent_assertions: Vec<SecretString>,
}

impl EndpointState {
    pub(super) fn new(endpoint: TokenEndpoint, resource: Option<ResourceMetadata>) -> Self {
        Self {
            endpoint,
            resource,
            last_token: None,
            sent_assertions: Vec::new(),
        }
    }
}

impl TokenEndpointSource {
    pub(super) fn plain_http(&self) -> &PlainHttp {
        self.http_client.plain_http()
    }

    /// Requests a token with this grant instead of the configured one. No copy of it remains.
    pub(super) async fn fetch_with(&self, grant: &dyn Grant) -> Result<TokenResponse, Error> {
        let mut state = self.state.lock().await;
        self.request_token_with(&mut state, grant).await
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

    async fn request_token(&self) -> Result<TokenResponse, Error> {
        let mut state = self.state.lock().await;
        let result = self.request_token_with(&mut state, &*self.grant).await;
        if let Ok(response) = &result {
            state.last_token = Some(response.expose_secret().into());
        }
        result
    }

    /// Requests a token once, and a second time if discovery shows that the token endpoint has
    /// moved.
    async fn request_token_with(
        &self,
        state: &mut EndpointState,
        grant: &dyn Grant,
    ) -> Result<TokenResponse, Error> {
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
            sent_assertions,
        } = state;
        if let (Some(resource), Some(issuer)) = (resource, &self.issuer) {
            resource.confirm(issuer, context()).await?;
        }
        let resolved = endpoint.resolve(context()).await?;
        let mut history = History {
            last_token: last_token.as_ref(),
            sent_assertions,
        };
        let mut result = self
            .request_token_at(&resolved, grant, &mut history, limits())
            .await;
        let may_have_moved = endpoint.record_result(&resolved, &result);
        // A transient failure is retried later, after a new discovery.
        if may_have_moved && result.as_ref().is_err_and(|error| !is_transient(error)) {
            let moved = endpoint.resolve(context()).await?;
            if moved.url != resolved.url {
                result = self
                    .request_token_at(&moved, grant, &mut history, limits())
                    .await;
                endpoint.record_result(&moved, &result);
            }
        }
        result
    }

    /// Requests a token at this endpoint, and once more if the client is refused and its
    /// credentials, which were read for the request, have changed since.
    async fn request_token_at(
        &self,
        endpoint: &ResolvedEndpoint,
        grant: &dyn Grant,
        history: &mut History<'_>,
        limits: Limits,
    ) -> Result<TokenResponse, Error> {
        let ends_at = now() + limits.total;
        let limits = || Limits {
            total: ends_at.saturating_duration_since(now()),
            ..limits
        };
        let request = self.write_request(endpoint, grant, limits()).await?;
        let error = match self.send(&request, endpoint, history, limits()).await {
            Err(error) if request.has_read_credentials() => error,
            result => return result,
        };
        if !request.is_refusal_of_credentials(&error) {
            return Err(error);
        }
        let again = self.write_request(endpoint, grant, limits()).await?;
        if again.has_credentials_of(&request) {
            return Err(error);
        }
        self.send(&again, endpoint, history, limits()).await
    }

    async fn write_request(
        &self,
        endpoint: &ResolvedEndpoint,
        grant: &dyn Grant,
        limits: Limits,
    ) -> Result<TokenRequest, Error> {
        let mut request =
            TokenRequest::new(endpoint.url.clone(), self.issuer.clone(), self.clock.now());
        // Grant and client authentication may wait for a key service.
        timeout(limits.total, self.write(grant, &mut request))
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
        history: &mut History<'_>,
        limits: Limits,
    ) -> Result<TokenResponse, Error> {
        let http = request.to_http()?;
        // Before the request is sent: this future may be dropped while the server reads it.
        let assertions = request.read_assertions().cloned().collect();
        let sent_before = std::mem::replace(history.sent_assertions, assertions);
        let sent = SentRequest {
            endpoint: &endpoint.url,
            sent_at: self.clock.now(),
            assume_bearer: self.assume_bearer,
            expected_type: request.expected_type(),
            secrets: || {
                let mut secrets = request.secrets();
                if let Some(token) = history.last_token {
                    secrets.add(token.expose_secret());
                }
                secrets
            },
        };
        let result = self
            .http_client
            .send(Operation::TokenRequest, http, limits)
            .await
            .and_then(|response| sent.read(&response));
        result.map_err(|error| {
            let error = endpoint.annotate(error);
            let Some(refused) = request.refused_assertion(&error) else {
                return request.annotate(error);
            };
            let is_refused =
                |other: &SecretString| other.expose_secret() == refused.assertion.expose_secret();
            if sent_before.iter().any(is_refused) {
                return request.annotate(refused.explain_reuse(error));
            }
            history.sent_assertions.retain(|other| !is_refused(other));
            request.annotate(error)
        })
    }

    /// The client authentication comes last, because it may sign the rest.
    async fn write(&self, grant: &dyn Grant, request: &mut TokenRequest) -> Result<(), Error> {
        grant.write(request).await?;
        self.parameters
            .append_to(request, &self.scope_upgrade.added());
        self.client.authenticate(request).await
    }
}

/// What earlier requests left behind.
struct History<'s> {
    last_token: Option<&'s SecretString>,
    sent_assertions: &'s mut Vec<SecretString>,
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
