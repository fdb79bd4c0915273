//! The builder of a token manager and its task.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::ClientCredentials;
use super::renewal::schedule::RenewalPolicy;
use super::renewal::task::{RenewalTask, Renewer};
use super::state::{RenewalResults, SharedState};
use super::token_endpoint::TokenEndpoint;
use super::token_manager::TokenManager;
use super::token_request::TokenRequest;
use crate::clock::{Clock, SystemClock};
use crate::error::{ConfigError, ConfigErrorKind};
use crate::metadata;
use crate::oauth::{Audience, Scope};
use crate::transport::{Transport, default_transport};

/// Longer timeouts are cut to this.
const MAX_TIMEOUT: Duration = Duration::from_secs(86_400);

/// The default of `max_waiters`.
const DEFAULT_MAX_WAITERS: usize = 1024;

/// A builder of a [`TokenManager`]. All defaults are suitable for production.
#[derive(Debug)]
#[must_use]
pub struct TokenManagerBuilder {
    endpoint: TokenEndpoint,
    token_request: TokenRequest,
    policy: RenewalPolicy,
    transport: Option<Arc<dyn Transport>>,
    clock: Arc<dyn Clock>,
    allow_loopback_http: bool,
    max_waiters: usize,
}

impl TokenManagerBuilder {
    pub(super) fn new(endpoint: TokenEndpoint, credentials: ClientCredentials) -> Self {
        Self {
            endpoint,
            token_request: TokenRequest::new(credentials),
            policy: RenewalPolicy::default(),
            transport: None,
            clock: Arc::new(SystemClock),
            allow_loopback_http: false,
            max_waiters: DEFAULT_MAX_WAITERS,
        }
    }

    /// Adds a scope to the request. Default: none, so that the server chooses the scopes.
    pub fn scope(mut self, scope: Scope) -> Self {
        self.token_request.scopes.push(scope);
        self
    }

    /// Adds scopes to the request.
    pub fn scopes(mut self, scopes: impl IntoIterator<Item = Scope>) -> Self {
        self.token_request.scopes.extend(scopes);
        self
    }

    /// Sends the parameter `audience`, which App ID and Auth0 support. Default: none.
    pub fn audience(mut self, audience: Audience) -> Self {
        self.token_request.audience = Some(audience);
        self
    }

    /// Sends the parameter `resource`, the absolute URI of a protected resource
    /// ([RFC 8707 §2](https://www.rfc-editor.org/rfc/rfc8707#section-2)).
    ///
    /// May be called more than once. Default: none.
    pub fn resource(mut self, resource: impl Into<String>) -> Self {
        self.token_request.resources.push(resource.into());
        self
    }

    /// Adds an extension parameter to the request.
    ///
    /// Parameters with a dedicated method, such as `scope`, are an error of [`build`](Self::build).
    pub fn parameter(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.token_request.add_parameter(name.into(), value.into());
        self
    }

    /// Sets the HTTP transport. Default: `ReqwestTransport` (feature `reqwest`).
    pub fn transport(mut self, transport: impl Transport) -> Self {
        self.transport = Some(Arc::new(transport));
        self
    }

    /// Sets the clock that token expiry is checked against. Default: [`SystemClock`].
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Sets the time limit of one token request, including discovery. Default: 10 seconds.
    pub fn request_timeout(mut self, limit: Duration) -> Self {
        self.policy.request_timeout = limit.min(MAX_TIMEOUT);
        self
    }

    /// Sets the longest that a call waits for a token, including retries. Default: 40 seconds.
    pub fn acquire_timeout(mut self, limit: Duration) -> Self {
        self.policy.acquire_timeout = limit.min(MAX_TIMEOUT);
        self
    }

    /// Sets how long before its expiry a token is renewed.
    ///
    /// Default: a fifth of its lifetime, and at least 30 seconds. The minimum is 15 seconds, the
    /// maximum half of the lifetime.
    pub fn renew_before_expiry(mut self, lead: Duration) -> Self {
        self.policy.lead = Some(lead);
        self
    }

    /// Limits the number of calls that wait for a token at the same time.
    ///
    /// Default: 1,024; minimum: 1. Calls that wait for the successor of a rejected token count as
    /// well. While the token endpoint is down, each waiting call holds a request in memory.
    ///
    /// Beyond the limit, a call without a token fails at once with an error of kind
    /// [`Overloaded`](crate::error::ErrorKind::Overloaded), and a call whose token was rejected
    /// returns the response of the resource server. Calls do not wait while a token is available.
    pub fn max_waiters(mut self, calls: usize) -> Self {
        self.max_waiters = calls;
        self
    }

    /// Allows a token endpoint with plain `http` on loopback, for development and tests.
    pub fn allow_loopback_http(mut self) -> Self {
        self.allow_loopback_http = true;
        self
    }

    /// Builds the manager and its [`Renewer`], which the caller has to poll or spawn.
    ///
    /// Does no I/O and spawns nothing.
    ///
    /// # Errors
    ///
    /// If a setting is invalid: no transport, empty credentials, a
    /// [`parameter`](Self::parameter) that has a dedicated method, a `resource` that is not an
    /// absolute URI, `max_waiters` of 0, or plain `http` without
    /// [`allow_loopback_http`](Self::allow_loopback_http).
    pub fn build(self) -> Result<(TokenManager, Renewer), ConfigError> {
        let Self {
            endpoint,
            token_request,
            policy,
            transport,
            clock,
            allow_loopback_http,
            max_waiters,
        } = self;
        token_request.check()?;
        if max_waiters == 0 {
            return Err(ConfigError::new("max_waiters", "0", "must be at least 1"));
        }
        match &endpoint {
            TokenEndpoint::Fixed(url) => url
                .check_plain_http(allow_loopback_http)
                .map_err(|error| error.with_setting("token endpoint"))?,
            TokenEndpoint::Discovered(discovery) => {
                for candidate in metadata::well_known_urls(&discovery.issuer)? {
                    candidate
                        .check_plain_http(allow_loopback_http)
                        .map_err(|error| error.with_setting("issuer"))?;
                }
            }
        }
        let transport = default_transport(transport)?;
        let state = Arc::new(SharedState::new(clock));
        let (wake, wakeups) = mpsc::channel(1);
        let (results, latest) = watch::channel(RenewalResults::default());
        let manager = TokenManager::new(Arc::clone(&state), wake, latest, &policy, max_waiters);
        let task = RenewalTask {
            endpoint,
            token_request,
            policy,
            allow_loopback_http,
            transport,
            state,
            wakeups,
            results,
        };
        Ok((manager, Renewer::new(task)))
    }

    /// Builds the manager and spawns its task on the current tokio runtime.
    ///
    /// The first token is requested when it is first needed. The task ends when the last clone of
    /// the manager is dropped.
    ///
    /// # Errors
    ///
    /// As [`build`](Self::build), or if called outside of a tokio runtime.
    pub fn start(self) -> Result<TokenManager, ConfigError> {
        let runtime = tokio::runtime::Handle::try_current().map_err(|_| {
            ConfigError::without_value("tokio runtime", "is missing: call `start` within one")
                .with_kind(ConfigErrorKind::Unavailable)
        })?;
        let (manager, renewer) = self.build()?;
        runtime.spawn(renewer);
        Ok(manager)
    }
}
