//! The builder of a server, and a server that is bound to a loopback port.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use tokio::net::TcpListener;

use super::activity::ActivityLog;
use super::assertions::ReplayCache;
use super::dashboard::Dashboard;
use super::faults::Faults;
use super::persistence::Store;
use super::signing_keys::{SigningKey, new_kid};
use super::state::State;
use super::{AuthorizationServer, Inner, signing_keys};
use crate::clock::{Clock, SystemClock};
use crate::error::{ConfigError, ConfigErrorKind};
use crate::jwt::Algorithm;
use crate::oauth::Endpoint;

/// The tenant id in App ID's documentation.
const DEFAULT_TENANT_ID: &str = "39a37f57-a227-4bfe-a044-93b6e6060b61";

/// `.test` names do not resolve (RFC 6761 §6.2), so this URL works in-process only.
const IN_PROCESS_BASE_URL: &str = "https://authorization-server.test";

/// Time for requests in flight to finish. Bounded, because [`Fault::Hang`] never finishes.
///
/// [`Fault::Hang`]: super::Fault::Hang
const SHUTDOWN_GRACE_PERIOD: Duration = Duration::from_secs(3);

/// A builder for an [`AuthorizationServer`].
///
/// ```
/// use std::time::Duration;
/// use tower_oauth::authorization_server::AuthorizationServer;
/// use tower_oauth::resource_server::Algorithm;
///
/// let issuer = AuthorizationServer::builder()
///     .tenant_id("acme")
///     .algorithm(Algorithm::EdDsa)
///     .token_lifetime(Duration::from_secs(600))
///     .build()?;
/// assert!(issuer.issuer().as_str().ends_with("/oauth/v4/acme"));
/// assert_eq!(issuer.keys()[0].algorithm(), Algorithm::EdDsa);
/// # Ok::<(), tower_oauth::ConfigError>(())
/// ```
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

    /// Sets the tenant id: letters, digits and `-`. Default: the one in App ID's documentation.
    pub fn tenant_id(mut self, tenant_id: impl Into<String>) -> Self {
        self.tenant_id = tenant_id.into();
        self
    }

    /// Sets the lifetime of access tokens. Default: one hour.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use tower_oauth::resource_server::Algorithm;
    /// use std::time::Duration;
    /// use tower_oauth::TokenManager;
    /// use tower_oauth::authorization_server::AuthorizationServer;
    /// use tower_oauth::client::TokenSource as _;
    ///
    /// let lifetime = Duration::from_secs(600);
    /// let issuer = AuthorizationServer::builder().token_lifetime(lifetime);
    /// # let issuer = issuer.algorithm(Algorithm::Es256);
    /// let issuer = issuer.build()?;
    /// let shop = issuer.register("shop")?;
    /// let source = TokenManager::builder(issuer.token_endpoint(), shop.credentials())
    ///     .transport(issuer.transport())
    ///     .build_source()?;
    /// assert_eq!(source.fetch().await?.expires_in(), Some(lifetime));
    /// # Ok(())
    /// # }
    /// ```
    pub fn token_lifetime(mut self, lifetime: Duration) -> Self {
        self.token_lifetime = lifetime;
        self
    }

    /// Sets the signature algorithm. Default: RS256.
    pub fn algorithm(mut self, algorithm: Algorithm) -> Self {
        self.algorithm = algorithm;
        self
    }

    /// Sets the clock for issued tokens and keys. Default: [`SystemClock`].
    ///
    /// ```
    /// use std::time::Duration;
    /// use tower_oauth::authorization_server::AuthorizationServer;
    /// use tower_oauth::clock::{ManualClock, UnixTime};
    /// # use tower_oauth::resource_server::Algorithm;
    ///
    /// let start = UnixTime::from_secs(1_800_000_000);
    /// let clock = ManualClock::at(start);
    /// let issuer = AuthorizationServer::builder().clock(clock.clone());
    /// # let issuer = issuer.algorithm(Algorithm::Es256);
    /// let issuer = issuer.build()?;
    /// clock.advance(Duration::from_secs(60));
    /// issuer.rotate()?;
    /// assert_eq!(issuer.keys()[0].created_at(), start.saturating_add(Duration::from_secs(60)));
    /// # Ok::<(), tower_oauth::ConfigError>(())
    /// ```
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Sets the bearer token of the management API. Default: a random token.
    ///
    /// ```
    /// use secrecy::ExposeSecret as _;
    /// use tower_oauth::authorization_server::AuthorizationServer;
    /// # use tower_oauth::resource_server::Algorithm;
    ///
    /// let issuer = AuthorizationServer::builder().management_token("for-tests");
    /// # let issuer = issuer.algorithm(Algorithm::Es256);
    /// let issuer = issuer.build()?;
    /// assert_eq!(issuer.management_token().expose_secret(), "for-tests");
    /// # Ok::<(), tower_oauth::ConfigError>(())
    /// ```
    pub fn management_token(mut self, token: impl Into<SecretString>) -> Self {
        self.management_token = Some(token.into());
        self
    }

    /// Stores applications and keys in this file across restarts. Default: in memory.
    ///
    /// A symbolic link is followed and must lead to a file. On Unix the file gets mode 0600. An
    /// existing file that other users can read is changed to this mode. A file that other users
    /// can write, or that belongs to another user than the process, is an error and stays as it
    /// is.
    ///
    /// ```
    /// # let name = format!("tower-oauth-state-{}.json", std::process::id());
    /// # let path = std::env::temp_dir().join(name);
    /// # use tower_oauth::resource_server::Algorithm;
    /// use tower_oauth::authorization_server::AuthorizationServer;
    ///
    /// let start = || {
    ///     let builder = AuthorizationServer::builder().state_file(&path);
    ///     builder.algorithm(Algorithm::Es256).build()
    /// };
    /// start()?.register("shop")?;
    /// assert_eq!(start()?.applications()[0].name(), "shop"); // after a restart
    /// # std::fs::remove_file(&path)?;
    /// # Ok::<(), tower_oauth::BoxError>(())
    /// ```
    pub fn state_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.state_file = Some(path.into());
        self
    }

    /// Builds a server without a socket.
    ///
    /// Call it through its [`transport`](AuthorizationServer::transport).
    ///
    /// # Errors
    ///
    /// If a setting is invalid, or if the state file is damaged or belongs to another tenant.
    pub fn build(self) -> Result<AuthorizationServer, ConfigError> {
        self.build_at(IN_PROCESS_BASE_URL.to_owned())
    }

    /// Builds a server on a loopback port; 0 selects a free port.
    ///
    /// It accepts requests once [`BoundServer::serve`] is polled.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use tower_oauth::resource_server::Algorithm;
    /// use tower_oauth::TokenManager;
    /// use tower_oauth::authorization_server::AuthorizationServer;
    ///
    /// let bound = AuthorizationServer::builder().algorithm(Algorithm::Es256).bind(0).await?;
    /// let issuer = bound.server().clone();
    /// tokio::spawn(bound.serve(std::future::pending())); // until the process ends
    /// let shop = issuer.register("shop")?;
    /// let tokens = TokenManager::builder(issuer.token_endpoint(), shop.credentials())
    ///     .allow_loopback_http()
    ///     .start()?;
    /// assert!(tokens.access_token().await.is_ok());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Like [`build`](Self::build), and if the port is in use.
    pub async fn bind(self, port: u16) -> Result<BoundServer, ConfigError> {
        let port_error = |error: std::io::Error| {
            ConfigError::new("port", port.to_string(), error.to_string())
                .with_kind(ConfigErrorKind::Unavailable)
        };
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
                "must be at least one second",
            ));
        }
        Endpoint::new(&base_url)?;
        let management_token = match management_token {
            Some(token) if token.expose_secret().is_empty() => {
                return Err(ConfigError::missing(
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
                // The algorithm has changed since the state was saved: rotate to it.
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
            replay_cache: ReplayCache::default(),
        })))
    }
}

/// A server that is bound to a port.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), tower_oauth::BoxError> {
/// # use tower_oauth::resource_server::Algorithm;
/// use tower_oauth::authorization_server::AuthorizationServer;
///
/// let bound = AuthorizationServer::builder().algorithm(Algorithm::Es256).bind(0).await?;
/// assert!(bound.address().ip().is_loopback());
/// let base_url = format!("http://{}", bound.address());
/// assert_eq!(bound.server().base_url(), base_url);
///
/// let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
/// let serving = tokio::spawn(bound.serve(async { stopped.await.unwrap_or_default() }));
/// drop(stop);
/// serving.await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "requests are answered only while `serve` is polled"]
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

    /// The address that it listens on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves the endpoints and the dashboard until `shutdown` completes.
    ///
    /// Requests in flight then have three seconds to finish.
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
