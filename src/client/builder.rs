//! From settings to a token manager and the task behind it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::ClientCredentials;
use super::endpoint::TokenEndpoint;
use super::grant::Grant;
use super::manager::TokenManager;
use super::renewal::RenewalPolicy;
use super::renewer::{Renewer, Task};
use super::shared::{Progress, Shared};
use crate::clock::{Clock, SystemClock};
use crate::error::ConfigError;
use crate::metadata;
use crate::oauth::{Audience, Scope};
use crate::transport::{Transport, default_transport};

/// No wait of a manager is longer, whatever it is set to.
const LONGEST: Duration = Duration::from_secs(86_400);

/// Calls that may wait for a token at the same time, unless another limit is set.
const MAX_WAITERS: usize = 1024;

/// Settings of a [`TokenManager`]; every default is right for production.
#[derive(Debug)]
#[must_use]
pub struct TokenManagerBuilder {
    endpoint: TokenEndpoint,
    grant: Grant,
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
            grant: Grant::new(credentials),
            policy: RenewalPolicy::default(),
            transport: None,
            clock: Arc::new(SystemClock),
            allow_loopback_http: false,
            max_waiters: MAX_WAITERS,
        }
    }

    /// Asks for this scope, too. Default: none, which means what the server grants by itself.
    pub fn scope(mut self, scope: Scope) -> Self {
        self.grant.scopes.push(scope);
        self
    }

    /// Asks for these scopes, too.
    pub fn scopes(mut self, scopes: impl IntoIterator<Item = Scope>) -> Self {
        self.grant.scopes.extend(scopes);
        self
    }

    /// Sends `audience`: whom the token is meant for, where the server knows this parameter
    /// (App ID, Auth0). Default: none.
    pub fn audience(mut self, audience: Audience) -> Self {
        self.grant.audience = Some(audience);
        self
    }

    /// Sends `resource`: an absolute URI of the protected resource
    /// ([RFC 8707 §2](https://www.rfc-editor.org/rfc/rfc8707#section-2)). May be called more than
    /// once. Default: none.
    pub fn resource(mut self, resource: impl Into<String>) -> Self {
        self.grant.resources.push(resource.into());
        self
    }

    /// Sends an extra parameter that the server wants.
    ///
    /// Parameters of the protocol have methods of their own and are refused here when the
    /// manager is built.
    pub fn parameter(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.grant.add_parameter(name.into(), value.into());
        self
    }

    /// How tokens are asked for. Default: `ReqwestTransport` (feature `reqwest`).
    pub fn transport(mut self, transport: impl Transport) -> Self {
        self.transport = Some(Arc::new(transport));
        self
    }

    /// The clock by which tokens expire. Default: [`SystemClock`].
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Time limit of one token request, discovery included. Default: 10 seconds.
    pub fn request_timeout(mut self, limit: Duration) -> Self {
        self.policy.attempt = limit.min(LONGEST);
        self
    }

    /// How long a caller waits at most, all retries included. Default: 40 seconds.
    pub fn acquire_timeout(mut self, limit: Duration) -> Self {
        self.policy.acquire_timeout = limit.min(LONGEST);
        self
    }

    /// How long before its expiry a token is renewed. Default: a fifth of its life, at least
    /// 30 seconds where it lives for a minute or more. Never less than 15 seconds, never more
    /// than half of its life.
    pub fn renew_before_expiry(mut self, ahead: Duration) -> Self {
        self.policy.ahead = Some(ahead);
        self
    }

    /// How many calls may wait for a token, or for the successor of a refused one, at the same
    /// time. Default: 1,024; at least 1. While the token endpoint is down, each of them holds a
    /// request in memory.
    ///
    /// Beyond that a call for a token fails at once, with an error of kind
    /// [`Overloaded`](crate::ErrorKind::Overloaded), and a call whose token was refused gets the
    /// response of the resource server. Calls do not wait while there is a token.
    pub fn max_waiters(mut self, calls: usize) -> Self {
        self.max_waiters = calls;
        self
    }

    /// Permits a token endpoint with plain `http` on this machine: development and tests.
    pub fn allow_loopback_http(mut self) -> Self {
        self.allow_loopback_http = true;
        self
    }

    /// Makes the manager, and the future that obtains its tokens. Does no I/O and spawns
    /// nothing: the caller runs the [`Renewer`].
    ///
    /// # Errors
    ///
    /// If a setting cannot be used: no transport, empty credentials, a parameter of the protocol
    /// as an extra one, a `resource` that is no absolute URI, `max_waiters` of 0, plain `http`
    /// without [`allow_loopback_http`](Self::allow_loopback_http).
    pub fn build(self) -> Result<(TokenManager, Renewer), ConfigError> {
        let Self {
            endpoint,
            grant,
            policy,
            transport,
            clock,
            allow_loopback_http,
            max_waiters,
        } = self;
        grant.check()?;
        if max_waiters == 0 {
            return Err(ConfigError::new("max_waiters", "0", "must be at least 1"));
        }
        match &endpoint {
            TokenEndpoint::Fixed(url) => url.check_plain_http(allow_loopback_http)?,
            TokenEndpoint::Discovered(discovery) => {
                for candidate in metadata::candidates(&discovery.issuer)? {
                    candidate.check_plain_http(allow_loopback_http)?;
                }
            }
        }
        let transport = default_transport(transport)?;
        let shared = Arc::new(Shared::new(clock));
        let (demand, demands) = mpsc::channel(1);
        let (progress, seen) = watch::channel(Progress::default());
        let manager = TokenManager::new(Arc::clone(&shared), demand, seen, &policy, max_waiters);
        let task = Task {
            endpoint,
            grant,
            policy,
            allow_loopback_http,
            transport,
            shared,
            demands,
            progress,
        };
        Ok((manager, Renewer::new(task)))
    }

    /// Makes the manager and spawns the task behind it on the current tokio runtime. The first
    /// token is asked for when it is first needed.
    ///
    /// The task ends when the last clone of the manager is dropped.
    ///
    /// # Errors
    ///
    /// As [`build`](Self::build), and outside of a tokio runtime.
    pub fn start(self) -> Result<TokenManager, ConfigError> {
        let runtime = tokio::runtime::Handle::try_current().map_err(|_| {
            ConfigError::without_value("runtime", "is needed: call `start` within tokio's")
        })?;
        let (manager, renewer) = self.build()?;
        runtime.spawn(renewer);
        Ok(manager)
    }
}
