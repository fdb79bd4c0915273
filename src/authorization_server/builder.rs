//! From settings to a server, in-process or on a loopback port.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use tokio::net::TcpListener;

use super::activity::ActivityLog;
use super::dashboard::Dashboard;
use super::faults::Faults;
use super::persistence::Store;
use super::signing_keys::{SigningKey, new_kid};
use super::state::State;
use super::{AuthorizationServer, Inner, signing_keys};
use crate::clock::{Clock, SystemClock};
use crate::error::ConfigError;
use crate::jwt::Algorithm;
use crate::oauth::Endpoint;

/// The tenant of App ID's guide.
const DEFAULT_TENANT_ID: &str = "39a37f57-a227-4bfe-a044-93b6e6060b61";

/// Nobody resolves this name (RFC 6761 §6.2): in-process is the only way there.
const IN_PROCESS_BASE_URL: &str = "https://authorization-server.test";

/// After a shutdown requests in flight have so long; a scripted hang would take for ever.
const SHUTDOWN_GRACE_PERIOD: Duration = Duration::from_secs(3);

/// Settings of an [`AuthorizationServer`].
#[derive(Debug)]
#[must_use]
pub struct AuthorizationServerBuilder {
    tenant_id: String,
    token_lifetime: Duration,
    algorithm: Algorithm,
    clock: Arc<dyn Clock>,
    management_token: Option<SecretString>,
    state_file: Option<PathBuf>,
}

impl AuthorizationServerBuilder {
    pub(super) fn new() -> Self {
        Self {
            tenant_id: DEFAULT_TENANT_ID.to_owned(),
            token_lifetime: Duration::from_secs(3600),
            algorithm: Algorithm::Rs256,
            clock: Arc::new(SystemClock),
            management_token: None,
            state_file: None,
        }
    }

    /// The tenant that it serves: letters, digits and `-`. Default: the one of App ID's guide.
    pub fn tenant_id(mut self, tenant_id: impl Into<String>) -> Self {
        self.tenant_id = tenant_id.into();
        self
    }

    /// How long its access tokens live. Default: an hour.
    pub fn token_lifetime(mut self, lifetime: Duration) -> Self {
        self.token_lifetime = lifetime;
        self
    }

    /// What its keys are for. Default: RS256.
    pub fn algorithm(mut self, algorithm: Algorithm) -> Self {
        self.algorithm = algorithm;
        self
    }

    /// The clock by which it issues. Default: [`SystemClock`].
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// What the management API expects as a bearer token. Default: a random one.
    pub fn management_token(mut self, token: impl Into<SecretString>) -> Self {
        self.management_token = Some(token.into());
        self
    }

    /// Keeps applications and keys in this file, so that they outlive a restart. A link is
    /// followed, and must lead to a file. Default: in memory.
    ///
    /// On Unix the file has mode 0600. One that others can read is given this mode; one that others
    /// can write, or that belongs to another user than the process runs as, is refused and not
    /// changed.
    pub fn state_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.state_file = Some(path.into());
        self
    }

    /// A server without a socket, to be called through its
    /// [`transport`](AuthorizationServer::transport).
    ///
    /// # Errors
    ///
    /// If a setting cannot be used, or the state file is damaged or of another tenant.
    pub fn build(self) -> Result<AuthorizationServer, ConfigError> {
        self.build_at(IN_PROCESS_BASE_URL.to_owned())
    }

    /// A server on a loopback port; 0 takes a free one. It answers as soon as
    /// [`BoundServer::serve`] is polled.
    ///
    /// # Errors
    ///
    /// As [`build`](Self::build), and if the port is taken.
    pub async fn bind(self, port: u16) -> Result<BoundServer, ConfigError> {
        let port_error =
            |error: std::io::Error| ConfigError::new("port", port.to_string(), error.to_string());
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], port)))
            .await
            .map_err(port_error)?;
        let address = listener.local_addr().map_err(port_error)?;
        let server = self.build_at(format!("http://{address}"))?;
        Ok(BoundServer {
            server,
            listener,
            address,
        })
    }

    fn build_at(self, base_url: String) -> Result<AuthorizationServer, ConfigError> {
        let Self {
            tenant_id,
            token_lifetime,
            algorithm,
            clock,
            management_token,
            state_file,
        } = self;
        if tenant_id.is_empty()
            || !tenant_id
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-')
        {
            return Err(ConfigError::new(
                "tenant id",
                tenant_id,
                "must consist of letters, digits and `-`",
            ));
        }
        if token_lifetime < Duration::from_secs(1) {
            return Err(ConfigError::new(
                "token lifetime",
                format!("{token_lifetime:?}"),
                "must be a second or more",
            ));
        }
        Endpoint::new(&base_url)?;
        let management_token = match management_token {
            Some(token) if token.expose_secret().is_empty() => {
                return Err(ConfigError::without_value(
                    "management token",
                    "must not be empty",
                ));
            }
            Some(token) => token,
            None => signing_keys::random_secret()?,
        };
        let store = Store::new(state_file)?;
        let state = match store.load(&tenant_id)? {
            Some(mut state) => {
                // Another algorithm than last time: it is signed with from now on.
                if state.keys.current().algorithm() != algorithm {
                    let key = SigningKey::generate(new_kid(&tenant_id), algorithm, clock.now())?;
                    state.keys.rotate(key, clock.now(), token_lifetime);
                    store.save(&tenant_id, &state)?;
                }
                state
            }
            None => {
                let state = State::new(&tenant_id, algorithm, clock.now())?;
                store.save(&tenant_id, &state)?;
                state
            }
        };
        Ok(AuthorizationServer(Arc::new(Inner {
            tenant_id,
            base_url,
            clock,
            token_lifetime,
            algorithm,
            management_token,
            state: Mutex::new(state),
            store,
            faults: Faults::default(),
            activity: ActivityLog::default(),
            dashboard: Dashboard::new()?,
        })))
    }
}

/// A server that has its port.
#[derive(Debug)]
#[must_use = "it answers only while it is served"]
pub struct BoundServer {
    server: AuthorizationServer,
    listener: TcpListener,
    address: SocketAddr,
}

impl BoundServer {
    /// The server.
    #[must_use]
    pub fn server(&self) -> &AuthorizationServer {
        &self.server
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers requests, those to the dashboard included, until `shutdown` ends; then those in
    /// flight have a moment to be answered.
    pub async fn serve(self, shutdown: impl Future<Output = ()> + Send + 'static) {
        let (shutdown_sender, mut shutdown_started) = tokio::sync::watch::channel(false);
        let shutdown = async move {
            shutdown.await;
            let _receiver_dropped = shutdown_sender.send(true);
        };
        let serving = axum::serve(self.listener, self.server.router_with_dashboard())
            .with_graceful_shutdown(shutdown);
        let grace_period = async move {
            let _ = shutdown_started.wait_for(|started| *started).await;
            tokio::time::sleep(SHUTDOWN_GRACE_PERIOD).await;
        };
        tokio::select! {
            _never_fails = serving.into_future() => {}
            () = grace_period => {}
        }
    }
}
