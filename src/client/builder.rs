//! The builder of a token manager and its task.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::authentication::ClientAuthentication;
use super::endpoint_settings::TokenEndpointSettings;
use super::endpoint_source::TokenEndpointSource;
use super::grant::Grant;
use super::renewal::schedule::RenewalPolicy;
use super::renewal::task::{RenewalTask, Renewer};
use super::scope_upgrade::ScopeUpgrade;
use super::state::{RenewalFlight, SharedState};
use super::token_endpoint::TokenEndpoint;
use super::token_manager::TokenManager;
use super::token_source::TokenSource;
use crate::clock::{Clock, SystemClock};
use crate::error::{ConfigError, ConfigErrorKind};
use crate::oauth::{Audience, Endpoint, Issuer, Origin, PlainHttp, ResourceIdentifier, Scope};
use crate::trace;
use crate::transport::{HttpSettings, Transport};

/// Longer timeouts are cut to this.
const MAX_TIMEOUT: Duration = Duration::from_secs(86_400);

/// The default of `max_waiters`.
const DEFAULT_MAX_WAITERS: usize = 1024;

/// The default name of a manager with a custom source.
const SOURCE_NAME: &str = "token_source";

impl TokenManager {
    /// A builder for a manager that uses this token endpoint.
    ///
    /// `client` is a [`ClientCredentials`](super::ClientCredentials) or another
    /// [`ClientAuthentication`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use tower_oauth::authorization_server::AuthorizationServer;
    /// # use tower_oauth::resource_server::Algorithm;
    /// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
    /// # let shop = issuer.register("shop")?;
    /// use tower_oauth::TokenManager;
    ///
    /// let tokens = TokenManager::builder(issuer.token_endpoint(), shop.credentials())
    ///     .transport(issuer.transport())
    ///     .start()?;
    /// assert!(tokens.access_token().await?.expires_at().is_some());
    /// # Ok(())
    /// # }
    /// ```
    pub fn builder(
        token_endpoint: Endpoint,
        client: impl ClientAuthentication,
    ) -> TokenManagerBuilder {
        TokenManagerBuilder::new(Ok(TokenEndpoint::Fixed(token_endpoint)), client)
    }

    /// A builder for a manager of the tokens of this source.
    ///
    /// [`FileToken`](super::FileToken) is a source, and
    /// [`TokenSource`](super::TokenSource#examples) has an example of another one.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use tower_oauth::authorization_server::AuthorizationServer;
    /// # use tower_oauth::resource_server::Algorithm;
    /// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
    /// # let shop = issuer.register("shop")?;
    /// use tower_oauth::TokenManager;
    ///
    /// let source = TokenManager::builder(issuer.token_endpoint(), shop.credentials())
    ///     .transport(issuer.transport())
    ///     .build_source()?; // or another implementation of `TokenSource`
    /// let tokens = TokenManager::from_source(source).name("orders").start()?;
    /// assert!(tokens.access_token().await?.expires_at().is_some());
    /// # Ok(())
    /// # }
    /// ```
    pub fn from_source(source: impl TokenSource) -> TokenManagerBuilder<Arc<dyn TokenSource>> {
        TokenManagerBuilder::from_source(source)
    }

    /// A builder for a manager that discovers the token endpoint in the issuer's metadata
    /// ([RFC 8414 §2](https://www.rfc-editor.org/rfc/rfc8414#section-2)).
    ///
    /// Discovery happens with the first token request, with the first one after an hour, and after
    /// a failure that may mean that the endpoint has moved. If a later discovery fails, the last
    /// known endpoint is used.
    ///
    /// If the issuer publishes no metadata (each well-known location responds with 404), token
    /// requests go to `{issuer}/token`, and the error of a failed request says that this URL is
    /// guessed. Metadata of another issuer are an error of kind
    /// [`IssuerMismatch`](crate::error::ErrorKind::IssuerMismatch) that names both, and nothing is
    /// sent. Metadata without a usable `token_endpoint` are an error as well, also in a later
    /// discovery. Metadata that cannot be parsed are an error only while no endpoint is known.
    ///
    /// An App ID base of version 3 (`…/oauth/v3/{tenant}`) is not an issuer identifier: use
    /// [`Binding::token_manager`][binding], or
    /// [`builder`](Self::builder) with
    /// `Binding::token_endpoint` (feature `app-id`).
    ///
    /// [binding]: https://docs.rs/tower-oauth/latest/tower_oauth/app_id/struct.Binding.html#method.token_manager
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use tower_oauth::authorization_server::AuthorizationServer;
    /// # use tower_oauth::resource_server::Algorithm;
    /// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
    /// # let shop = issuer.register("shop")?;
    /// use tower_oauth::TokenManager;
    /// use tower_oauth::authorization_server::EndpointKind;
    ///
    /// let tokens = TokenManager::for_issuer(issuer.issuer(), shop.credentials())?
    ///     .transport(issuer.transport())
    ///     .start()?;
    /// assert!(tokens.access_token().await.is_ok());
    /// assert_eq!(issuer.requests(EndpointKind::Discovery), 1);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// If the issuer is not an `https` or `http` URL. Whether plain `http` is allowed is checked by
    /// [`build`](TokenManagerBuilder::build).
    pub fn for_issuer(
        issuer: Issuer,
        client: impl ClientAuthentication,
    ) -> Result<TokenManagerBuilder, ConfigError> {
        Ok(TokenManagerBuilder::new(
            Ok(discovered_endpoint(issuer)?),
            client,
        ))
    }

    /// A builder for a manager of tokens for this protected resource
    /// ([RFC 9728](https://www.rfc-editor.org/rfc/rfc9728#section-3)).
    ///
    /// `resource` is its identifier, spelled as in its metadata, such as
    /// `https://api.example/orders`. `issuer` is the authorization server that `client` has its
    /// credentials from. The metadata never choose the issuer: they have to list the one that is
    /// named here, else the error names both, and nothing is sent to that issuer. They have to be
    /// those of this resource, byte for byte. Redirects are not followed.
    ///
    /// The metadata are read before the first token request, and again after an hour. If they
    /// cannot be read then, the last confirmation is still used. The token endpoint is discovered
    /// as with [`for_issuer`](Self::for_issuer).
    ///
    /// Token requests have the parameter `resource` with the identifier, unless
    /// [`omit_resource`](TokenManagerBuilder::omit_resource) is called. They have no `scope` unless
    /// [`scope`](TokenManagerBuilder::scope) is called, even if the metadata list scopes: a client
    /// need not have all scopes of a resource.
    ///
    /// [`guide::resource_tokens`](mod@crate::guide::resource_tokens) has the result of each
    /// document.
    ///
    /// An invalid resource or issuer is an error of [`build`](TokenManagerBuilder::build).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use http_body_util::BodyExt as _;
    /// # let network = tower_oauth::transport::ServiceTransport::new(tower::service_fn(
    /// #     async |request: http::Request<http_body_util::Full<bytes::Bytes>>| {
    /// #         let body = match request.uri().path() {
    /// #             "/.well-known/oauth-protected-resource/orders" => serde_json::json!({
    /// #                 "resource": "https://api.example/orders",
    /// #                 "authorization_servers": ["https://as.example"],
    /// #             }),
    /// #             "/.well-known/openid-configuration" => serde_json::json!({
    /// #                 "issuer": "https://as.example",
    /// #                 "token_endpoint": "https://as.example/token",
    /// #             }),
    /// #             _ => {
    /// #                 let form = request.into_body().collect().await?.to_bytes();
    /// #                 let form = String::from_utf8_lossy(&form).into_owned();
    /// #                 serde_json::json!({ "access_token": form, "token_type": "Bearer" })
    /// #             }
    /// #         };
    /// #         Ok::<_, tower_oauth::BoxError>(http::Response::new(body.to_string()))
    /// #     },
    /// # ));
    /// use tower_oauth::{ClientCredentials, Issuer, TokenManager};
    ///
    /// let issuer = Issuer::new("https://as.example")?;
    /// let credentials = ClientCredentials::new("shop", "s3cret");
    /// let tokens = TokenManager::for_resource("https://api.example/orders", issuer, credentials)
    ///     .transport(network) // the resource, and an issuer whose tokens are what it receives
    ///     .start()?;
    /// let form = tokens.access_token().await?;
    /// assert!(form.expose_secret().ends_with("&resource=https%3A%2F%2Fapi.example%2Forders"));
    /// # Ok(())
    /// # }
    /// ```
    pub fn for_resource(
        resource: impl Into<String>,
        issuer: impl TryInto<Issuer, Error: Into<ConfigError>>,
        client: impl ClientAuthentication,
    ) -> TokenManagerBuilder {
        let endpoint = issuer
            .try_into()
            .map_err(Into::into)
            .and_then(discovered_endpoint);
        let (endpoint, resource) = match (ResourceIdentifier::new(resource), endpoint) {
            (Ok(resource), endpoint) => (endpoint, Some(resource)),
            (Err(error), _) => (Err(error), None),
        };
        let mut builder = TokenManagerBuilder::new(endpoint, client);
        builder.source.resource = resource;
        builder
    }
}

/// The token endpoint of an issuer whose identifier is a URL.
fn discovered_endpoint(issuer: Issuer) -> Result<TokenEndpoint, ConfigError> {
    let base = Endpoint::new(issuer.as_str()).map_err(|error| error.with_setting("issuer"))?;
    let fallback = base.join_path("token")?;
    Ok(TokenEndpoint::discovered(issuer, fallback))
}

/// A builder of a [`TokenManager`]. All defaults are suitable for production.
///
/// `S` is where tokens come from: a token endpoint, or the [`TokenSource`] of
/// [`TokenManager::from_source`].
///
/// Clones build managers that differ in some settings, such as the targets of a
/// [`TokenManagers`](super::TokenManagers). Clones that discover the token endpoint share one
/// discovery, unless [`transport`](Self::transport) is called on the clone.
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), tower_oauth::BoxError> {
/// # use http_body_util::BodyExt as _;
/// # let echo = tower_oauth::transport::ServiceTransport::new(tower::service_fn(
/// #     async |request: http::Request<http_body_util::Full<bytes::Bytes>>| {
/// #         let form = request.into_body().collect().await?.to_bytes();
/// #         let form = String::from_utf8_lossy(&form).into_owned();
/// #         let body = serde_json::json!({ "access_token": form, "token_type": "Bearer" });
/// #         Ok::<_, tower_oauth::BoxError>(http::Response::new(body.to_string()))
/// #     },
/// # ));
/// # let endpoint = tower_oauth::Endpoint::new("https://as.example/token")?;
/// # let credentials = tower_oauth::ClientCredentials::new("shop", "s3cret");
/// use std::time::Duration;
/// use tower_oauth::TokenManager;
///
/// let tokens = TokenManager::builder(endpoint, credentials)
///     .scopes(["orders.read", "orders.write"])
///     .request_timeout(Duration::from_secs(3))
///     .renew_before_expiry(Duration::from_secs(120))
///     .transport(echo) // a token endpoint whose tokens are the forms that it receives
///     .start()?;
/// let form = tokens.access_token().await?;
/// assert!(form.expose_secret().contains("scope=orders.read+orders.write"));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct TokenManagerBuilder<S = TokenEndpointSettings> {
    pub(super) source: S,
    pub(super) manager: ManagerSettings,
}

/// The settings that do not depend on the source.
#[derive(Clone, Debug)]
pub(super) struct ManagerSettings {
    name: Option<String>,
    pub(super) policy: RenewalPolicy,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) max_waiters: usize,
    pub(super) http: HttpSettings,
}

impl<S> TokenManagerBuilder<S> {
    fn with_source(source: S) -> Self {
        Self {
            source,
            manager: ManagerSettings {
                name: None,
                policy: RenewalPolicy::default(),
                clock: Arc::new(SystemClock),
                max_waiters: DEFAULT_MAX_WAITERS,
                http: HttpSettings::default(),
            },
        }
    }

    /// Sets the name of the manager in metrics and events.
    ///
    /// It is the label `manager` of `tower_oauth_token_requests_total` and a field of the events on
    /// `tower_oauth::client`. It must not be a secret. Managers with the same name share a time
    /// series. Default: the client id, else the issuer or the origin of the token endpoint, else
    /// `token_source`. The default of the managers of [`TokenManagers`](super::TokenManagers) has
    /// the origin after it; a name that is set does not, so set one for each target.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use tower_oauth::authorization_server::AuthorizationServer;
    /// # use tower_oauth::resource_server::Algorithm;
    /// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
    /// # let shop = issuer.register("shop")?;
    /// # let metrics = metrics_exporter_prometheus::PrometheusBuilder::new().install_recorder()?;
    /// use tower_oauth::TokenManager;
    ///
    /// let tokens = TokenManager::builder(issuer.token_endpoint(), shop.credentials())
    ///     .name("orders")
    /// #   .transport(issuer.transport())
    ///     .start()?;
    /// tokens.access_token().await?;
    /// assert!(metrics.render().contains(r#"manager="orders""#)); // a `PrometheusHandle`
    /// # Ok(())
    /// # }
    /// ```
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.manager.name = Some(name.into());
        self
    }

    /// Sets the clock that token expiry is checked against. Default: [`SystemClock`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use tower_oauth::authorization_server::AuthorizationServer;
    /// # use tower_oauth::clock::{ManualClock, UnixTime};
    /// # use tower_oauth::resource_server::Algorithm;
    /// # let clock = ManualClock::at(UnixTime::from_secs(1_800_000_000));
    /// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256);
    /// # let issuer = issuer.clock(clock.clone()).build()?;
    /// # let shop = issuer.register("shop")?;
    /// use std::time::Duration;
    /// use tower_oauth::TokenManager;
    ///
    /// let tokens = TokenManager::builder(issuer.token_endpoint(), shop.credentials())
    ///     .clock(clock.clone()) // a `ManualClock`
    /// #   .transport(issuer.transport())
    ///     .start()?;
    /// let first = tokens.access_token().await?;
    /// clock.advance(Duration::from_secs(3600));
    /// let second = tokens.access_token().await?;
    /// assert_ne!(first.expose_secret(), second.expose_secret());
    /// # Ok(())
    /// # }
    /// ```
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.manager.clock = Arc::new(clock);
        self
    }

    /// Sets the time limit of one token request, including discovery. Default: 10 seconds.
    ///
    /// A request to a token endpoint takes no longer than
    /// [`acquire_timeout`](Self::acquire_timeout) either.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use tower_oauth::authorization_server::AuthorizationServer;
    /// # use tower_oauth::resource_server::Algorithm;
    /// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
    /// # let shop = issuer.register("shop")?;
    /// use std::time::Duration;
    /// use tower_oauth::TokenManager;
    /// use tower_oauth::authorization_server::{EndpointKind, Fault};
    ///
    /// let tokens = TokenManager::builder(issuer.token_endpoint(), shop.credentials())
    ///     .request_timeout(Duration::from_secs(2))
    /// #   .transport(issuer.transport())
    ///     .start()?;
    /// issuer.fail_next(EndpointKind::Token, 1, Fault::Hang);
    /// let started = tokio::time::Instant::now();
    /// assert!(tokens.access_token().await.is_ok()); // with the second request
    /// assert!(started.elapsed() < Duration::from_secs(5));
    /// # Ok(())
    /// # }
    /// ```
    pub fn request_timeout(mut self, limit: Duration) -> Self {
        self.manager.policy.request_timeout = limit.min(MAX_TIMEOUT);
        self
    }

    /// Sets the longest that a call waits for a token, including retries. Default: 40 seconds.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use tower_oauth::authorization_server::AuthorizationServer;
    /// # use tower_oauth::resource_server::Algorithm;
    /// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
    /// # let shop = issuer.register("shop")?;
    /// use std::time::Duration;
    /// use tower_oauth::TokenManager;
    /// use tower_oauth::authorization_server::{EndpointKind, Fault};
    ///
    /// let tokens = TokenManager::builder(issuer.token_endpoint(), shop.credentials())
    ///     .acquire_timeout(Duration::from_secs(5))
    /// #   .transport(issuer.transport())
    ///     .start()?;
    /// issuer.fail(EndpointKind::Token, Fault::Outage(None));
    /// let started = tokio::time::Instant::now();
    /// assert!(tokens.access_token().await.is_err());
    /// assert!(started.elapsed() <= Duration::from_secs(7));
    /// # Ok(())
    /// # }
    /// ```
    pub fn acquire_timeout(mut self, limit: Duration) -> Self {
        self.manager.policy.acquire_timeout = limit.min(MAX_TIMEOUT);
        self
    }

    /// Sets how long before its expiry a token is renewed.
    ///
    /// Default: a fifth of its lifetime, and at least 30 seconds. The minimum is 15 seconds, the
    /// maximum half of the lifetime. The renewal is up to 5 % of the lifetime earlier, at random,
    /// so that many instances do not renew together.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use tower_oauth::authorization_server::AuthorizationServer;
    /// # use tower_oauth::clock::{ManualClock, UnixTime};
    /// # use tower_oauth::resource_server::Algorithm;
    /// # let clock = ManualClock::at(UnixTime::from_secs(1_800_000_000));
    /// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256);
    /// # let issuer = issuer.clock(clock.clone()).build()?;
    /// # let shop = issuer.register("shop")?;
    /// use std::time::Duration;
    /// use tower_oauth::TokenManager;
    /// use tower_oauth::authorization_server::EndpointKind;
    ///
    /// let tokens = TokenManager::builder(issuer.token_endpoint(), shop.credentials())
    ///     .renew_before_expiry(Duration::from_secs(600))
    /// #   .transport(issuer.transport())
    /// #   .clock(clock.clone())
    ///     .start()?;
    /// tokens.access_token().await?; // it expires after an hour
    /// clock.advance_with_timers(Duration::from_secs(2800)).await;
    /// assert_eq!(issuer.requests(EndpointKind::Token), 1);
    /// clock.advance_with_timers(Duration::from_secs(220)).await;
    /// assert_eq!(issuer.requests(EndpointKind::Token), 2);
    /// # Ok(())
    /// # }
    /// ```
    pub fn renew_before_expiry(mut self, lead: Duration) -> Self {
        self.manager.policy.lead = Some(lead);
        self
    }

    /// Sets the lifetime of tokens whose lifetime is unknown. Default: 5 minutes.
    ///
    /// Servers should send `expires_in`
    /// ([RFC 6749 §5.1](https://www.rfc-editor.org/rfc/rfc6749#section-5.1)), but may omit it. A
    /// token that is a JWT counts as valid until its `exp`, if that is sooner. The maximum is a
    /// day. With less than a second such a token is not stored: each call requests another one.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use tower_oauth::clock::{Clock as _, ManualClock, UnixTime};
    /// # let clock = ManualClock::at(UnixTime::from_secs(1_800_000_000));
    /// # let silent = tower_oauth::transport::ServiceTransport::new(tower::service_fn(
    /// #     async |_: http::Request<http_body_util::Full<bytes::Bytes>>| {
    /// #         let body = r#"{"access_token":"a-token","token_type":"Bearer"}"#.to_owned();
    /// #         Ok::<_, std::convert::Infallible>(http::Response::new(body))
    /// #     },
    /// # ));
    /// # let endpoint = tower_oauth::Endpoint::new("https://as.example/token")?;
    /// # let credentials = tower_oauth::ClientCredentials::new("shop", "s3cret");
    /// use std::time::Duration;
    /// use tower_oauth::TokenManager;
    ///
    /// let lifetime = Duration::from_secs(1800);
    /// let tokens = TokenManager::builder(endpoint, credentials)
    ///     .assumed_lifetime(lifetime)
    ///     .transport(silent) // a token endpoint that sends no `expires_in`
    /// #   .clock(clock.clone())
    ///     .start()?;
    /// let token = tokens.access_token().await?;
    /// assert_eq!(token.expires_at(), Some(clock.now().saturating_add(lifetime)));
    /// # Ok(())
    /// # }
    /// ```
    pub fn assumed_lifetime(mut self, lifetime: Duration) -> Self {
        self.manager.policy.assumed_lifetime = lifetime;
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
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use tower_oauth::authorization_server::AuthorizationServer;
    /// # use tower_oauth::resource_server::Algorithm;
    /// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
    /// # let shop = issuer.register("shop")?;
    /// use tower_oauth::TokenManager;
    /// use tower_oauth::error::ErrorKind;
    ///
    /// let tokens = TokenManager::builder(issuer.token_endpoint(), shop.credentials())
    ///     .max_waiters(1)
    /// #   .transport(issuer.transport())
    ///     .start()?;
    /// let (first, second) = tokio::join!(tokens.access_token(), tokens.access_token());
    /// assert!(first.is_ok());
    /// assert_eq!(second.unwrap_err().kind(), ErrorKind::Overloaded);
    /// # Ok(())
    /// # }
    /// ```
    pub fn max_waiters(mut self, calls: usize) -> Self {
        self.manager.max_waiters = calls;
        self
    }

    /// Permits plain `http` to these hosts: metadata, token endpoint, and origins of the layer.
    ///
    /// For a network where plain `http` is protected otherwise, such as a service mesh with mutual
    /// TLS between its proxies. [`guide::security`](mod@crate::guide::security#plain-http) has what
    /// is lost.
    ///
    /// A host is an exact name, in any case, or an address; every port of it is allowed. Wildcards,
    /// URLs and link-local or metadata addresses are errors of `build`, which names each host in a
    /// `warn` event (feature `tracing`). A token endpoint in the metadata of an `https` issuer must
    /// be `https`, even so. May be called more than once.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # let credentials = tower_oauth::ClientCredentials::new("shop", "s3cret");
    /// # let keycloak = tower_oauth::transport::ServiceTransport::new(tower::service_fn(
    /// #     async |_: http::Request<http_body_util::Full<bytes::Bytes>>| {
    /// #         let body = serde_json::json!({ "access_token": "t", "token_type": "Bearer" });
    /// #         Ok::<_, tower_oauth::BoxError>(http::Response::new(body.to_string()))
    /// #     },
    /// # ));
    /// # let orders = tower::service_fn(async |request: http::Request<String>| {
    /// #     let token = request.headers().get("authorization").cloned();
    /// #     Ok::<_, std::convert::Infallible>(http::Response::new(token))
    /// # });
    /// use http::Request;
    /// use tower::{ServiceBuilder, ServiceExt as _};
    /// use tower_oauth::{Endpoint, Origin, TokenManager};
    ///
    /// let endpoint = Endpoint::new("http://keycloak.sso.svc/token")?;
    /// let tokens = TokenManager::builder(endpoint, credentials)
    ///     .allow_http(["keycloak.sso.svc", "orders"])
    /// #   .transport(keycloak)
    ///     .start()?;
    /// let layer = tokens.layer([Origin::new("http://orders:8080")?]);
    /// let client = ServiceBuilder::new().layer(layer).service(orders);
    /// let request = Request::get("http://orders:8080/").body(String::new())?;
    /// assert!(client.oneshot(request).await?.body().is_some()); // the `Authorization` field
    /// # Ok(())
    /// # }
    /// ```
    pub fn allow_http(mut self, hosts: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.manager.http.allow_http(hosts);
        self
    }
}

impl ManagerSettings {
    /// The name in metrics and events, if it and the limit of waiting calls are valid.
    pub(super) fn checked_name(&self, default: &str) -> Result<String, ConfigError> {
        let name = self.name.as_deref().unwrap_or(default);
        if name.is_empty() {
            return Err(ConfigError::missing("name", "must not be empty"));
        }
        if self.max_waiters == 0 {
            return Err(ConfigError::new("max_waiters", "0", "must be at least 1"));
        }
        Ok(name.to_owned())
    }

    /// Builds the manager of this source.
    fn build(
        self,
        source: Arc<dyn TokenSource>,
        default_name: &str,
        scope_upgrade: Arc<ScopeUpgrade>,
    ) -> Result<(TokenManager, Renewer), ConfigError> {
        let name = self.checked_name(default_name)?;
        let Self {
            name: _,
            policy,
            clock,
            max_waiters,
            http,
        } = self;
        let plain_http = http.plain_http()?.allowing_loopback();
        let state = Arc::new(SharedState::new(clock));
        let (flight, leader) = RenewalFlight::new(max_waiters);
        let manager = TokenManager::new(
            Arc::clone(&state),
            flight,
            &policy,
            plain_http,
            Arc::clone(&scope_upgrade),
        );
        let task = RenewalTask {
            name,
            source,
            policy,
            state,
            leader,
            scope_upgrade,
        };
        Ok((manager, Renewer::new(task)))
    }
}

impl TokenManagerBuilder {
    pub(super) fn new(
        endpoint: Result<TokenEndpoint, ConfigError>,
        client: impl ClientAuthentication,
    ) -> Self {
        Self::with_source(TokenEndpointSettings::new(endpoint, Arc::new(client)))
    }

    /// Sets the grant. Default: client credentials
    /// ([RFC 6749 §4.4](https://www.rfc-editor.org/rfc/rfc6749#section-4.4)).
    ///
    /// [`Grant`](super::Grant#examples) has an example. The grants of a token exchange and of a
    /// service account of Google are fixed: `build` refuses another one there.
    pub fn grant(mut self, grant: impl Grant) -> Self {
        self.source.set_grant(grant);
        self
    }

    /// Adds a scope to the request. Default: none, so that the server chooses the scopes.
    ///
    /// Takes a [`Scope`] or a text. A text that is no scope is an error of [`build`](Self::build).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use http_body_util::BodyExt as _;
    /// # let echo = tower_oauth::transport::ServiceTransport::new(tower::service_fn(
    /// #     async |request: http::Request<http_body_util::Full<bytes::Bytes>>| {
    /// #         let form = request.into_body().collect().await?.to_bytes();
    /// #         let form = String::from_utf8_lossy(&form).into_owned();
    /// #         let body = serde_json::json!({ "access_token": form, "token_type": "Bearer" });
    /// #         Ok::<_, tower_oauth::BoxError>(http::Response::new(body.to_string()))
    /// #     },
    /// # ));
    /// # let endpoint = tower_oauth::Endpoint::new("https://as.example/token")?;
    /// # let credentials = tower_oauth::ClientCredentials::new("shop", "s3cret");
    /// use tower_oauth::TokenManager;
    ///
    /// let tokens = TokenManager::builder(endpoint, credentials)
    ///     .scope("orders.read")
    ///     .transport(echo) // a token endpoint whose tokens are the forms that it receives
    ///     .start()?;
    /// let form = tokens.access_token().await?;
    /// assert_eq!(form.expose_secret(), "grant_type=client_credentials&scope=orders.read");
    /// # Ok(())
    /// # }
    /// ```
    pub fn scope(mut self, scope: impl TryInto<Scope, Error: Into<ConfigError>>) -> Self {
        let scope = self.source.convert(scope);
        self.source.parameters.scopes.extend(scope);
        self
    }

    /// Adds scopes to the request, as [`scope`](Self::scope) does.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use http_body_util::BodyExt as _;
    /// # let echo = tower_oauth::transport::ServiceTransport::new(tower::service_fn(
    /// #     async |request: http::Request<http_body_util::Full<bytes::Bytes>>| {
    /// #         let form = request.into_body().collect().await?.to_bytes();
    /// #         let form = String::from_utf8_lossy(&form).into_owned();
    /// #         let body = serde_json::json!({ "access_token": form, "token_type": "Bearer" });
    /// #         Ok::<_, tower_oauth::BoxError>(http::Response::new(body.to_string()))
    /// #     },
    /// # ));
    /// # let endpoint = tower_oauth::Endpoint::new("https://as.example/token")?;
    /// # let credentials = tower_oauth::ClientCredentials::new("shop", "s3cret");
    /// use tower_oauth::TokenManager;
    ///
    /// let configured = "orders.read orders.write";
    /// let tokens = TokenManager::builder(endpoint, credentials)
    ///     .scopes(configured.split(' '))
    ///     .transport(echo) // a token endpoint whose tokens are the forms that it receives
    ///     .start()?;
    /// let form = tokens.access_token().await?;
    /// assert!(form.expose_secret().ends_with("&scope=orders.read+orders.write"));
    /// # Ok(())
    /// # }
    /// ```
    pub fn scopes(
        self,
        scopes: impl IntoIterator<Item = impl TryInto<Scope, Error: Into<ConfigError>>>,
    ) -> Self {
        scopes.into_iter().fold(self, Self::scope)
    }

    /// Sets which scopes a resource server may ask for, in addition to those that are requested.
    ///
    /// A 403 with a Bearer challenge of `insufficient_scope` names the scopes of the operation
    /// ([RFC 6750 §3.1](https://www.rfc-editor.org/rfc/rfc6750#section-3.1)). The
    /// [layer](super::BearerTokenLayer) then causes one token request with those and the present
    /// ones, for any number of calls, and retries the request once. The new token serves all
    /// calls, and its scopes are requested from then on. A challenge with other scopes than these
    /// changes nothing.
    ///
    /// Scopes that were requested once are not asked for again, even if the server does not grant
    /// them. If it refuses the request, the present token stays in use, the same scopes are not
    /// requested for 5 minutes, and no others for 10 seconds. A challenge has at most 32 scopes of
    /// at most 256 bytes, and all challenges together add at most 32.
    ///
    /// Default: none. With [`TokenManager::for_resource`] any scope, if the layer is for the origin
    /// of the resource alone, the request names this `resource` alone, without `audience`, another
    /// `resource` or any [`parameter`](Self::parameter), and the new token is a JWT whose `aud` is
    /// the resource alone. Otherwise a resource could have the client get a token for another one.
    /// An empty list turns it off. If the server does not say which scopes it grants, set the
    /// present ones with [`scope`](Self::scope), so that they are not lost.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use tower_oauth::authorization_server::AuthorizationServer;
    /// # use tower_oauth::resource_server::{Algorithm, Startup};
    /// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
    /// # let shop = issuer.register("shop")?;
    /// # let limit = std::time::Duration::from_secs(5);
    /// # let server = shop.binding()?.resource_server()?.transport(issuer.transport());
    /// # let server = server.startup(Startup::Require(limit)).start().await?;
    /// use http::Request;
    /// use http_body_util::Full;
    /// use tower::{ServiceBuilder, ServiceExt as _};
    /// use tower_oauth::{Origin, Scope, TokenManager};
    ///
    /// shop.set_scopes(["orders.read", "orders.write"])?;
    /// let tokens = TokenManager::builder(issuer.token_endpoint(), shop.credentials())
    ///     .scope(Scope::new("orders.read")?)
    ///     .step_up_scopes([Scope::new("orders.write")?])
    /// #   .transport(issuer.transport())
    ///     .start()?;
    /// # let orders = tower::service_fn(async |_: Request<Full<bytes::Bytes>>| {
    /// #     Ok::<_, std::convert::Infallible>(http::Response::new(Full::<bytes::Bytes>::default()))
    /// # });
    /// # let require = tower_oauth::RequireScopeLayer::all(["orders.read", "orders.write"]);
    /// # let orders = ServiceBuilder::new().layer(server.layer()).layer(require).service(orders);
    /// // `orders` requires the scopes `orders.read` and `orders.write`.
    /// let layer = tokens.layer([Origin::new("https://orders.example")?]);
    /// let client = ServiceBuilder::new().layer(layer).service(orders);
    /// let request = Request::get("https://orders.example/").body(Full::default())?;
    /// assert_eq!(client.oneshot(request).await?.status(), 200);
    /// # Ok(())
    /// # }
    /// ```
    pub fn step_up_scopes(mut self, scopes: impl IntoIterator<Item = Scope>) -> Self {
        self.source.step_up_scopes = Some(scopes.into_iter().collect());
        self
    }

    /// Sends the parameter `audience`, which App ID and Auth0 support. Default: none.
    ///
    /// Takes an [`Audience`] or a text. An empty text is an error of [`build`](Self::build).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use http_body_util::BodyExt as _;
    /// # let echo = tower_oauth::transport::ServiceTransport::new(tower::service_fn(
    /// #     async |request: http::Request<http_body_util::Full<bytes::Bytes>>| {
    /// #         let form = request.into_body().collect().await?.to_bytes();
    /// #         let form = String::from_utf8_lossy(&form).into_owned();
    /// #         let body = serde_json::json!({ "access_token": form, "token_type": "Bearer" });
    /// #         Ok::<_, tower_oauth::BoxError>(http::Response::new(body.to_string()))
    /// #     },
    /// # ));
    /// # let endpoint = tower_oauth::Endpoint::new("https://as.example/token")?;
    /// # let credentials = tower_oauth::ClientCredentials::new("shop", "s3cret");
    /// use tower_oauth::TokenManager;
    ///
    /// let tokens = TokenManager::builder(endpoint, credentials)
    ///     .audience("orders")
    ///     .transport(echo) // a token endpoint whose tokens are the forms that it receives
    ///     .start()?;
    /// let form = tokens.access_token().await?;
    /// assert!(form.expose_secret().ends_with("&audience=orders"));
    /// # Ok(())
    /// # }
    /// ```
    pub fn audience(mut self, audience: impl TryInto<Audience, Error: Into<ConfigError>>) -> Self {
        self.source.parameters.audience = self.source.convert(audience);
        self
    }

    /// Sends the parameter `resource`, which identifies a protected resource
    /// ([RFC 8707 §2](https://www.rfc-editor.org/rfc/rfc8707#section-2)).
    ///
    /// RFC 8707 requires an absolute URI without a fragment. Any other text is sent too, because
    /// some servers know resources by name. It must not be empty or contain control characters.
    /// May be called more than once. Default: none.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use http_body_util::BodyExt as _;
    /// # let echo = tower_oauth::transport::ServiceTransport::new(tower::service_fn(
    /// #     async |request: http::Request<http_body_util::Full<bytes::Bytes>>| {
    /// #         let form = request.into_body().collect().await?.to_bytes();
    /// #         let form = String::from_utf8_lossy(&form).into_owned();
    /// #         let body = serde_json::json!({ "access_token": form, "token_type": "Bearer" });
    /// #         Ok::<_, tower_oauth::BoxError>(http::Response::new(body.to_string()))
    /// #     },
    /// # ));
    /// # let endpoint = tower_oauth::Endpoint::new("https://as.example/token")?;
    /// # let credentials = tower_oauth::ClientCredentials::new("shop", "s3cret");
    /// use tower_oauth::TokenManager;
    ///
    /// let tokens = TokenManager::builder(endpoint, credentials)
    ///     .resource("https://orders.example")
    ///     .resource("urn:bills")
    ///     .transport(echo) // a token endpoint whose tokens are the forms that it receives
    ///     .start()?;
    /// let form = tokens.access_token().await?;
    /// let resources = "&resource=https%3A%2F%2Forders.example&resource=urn%3Abills";
    /// assert!(form.expose_secret().ends_with(resources));
    /// # Ok(())
    /// # }
    /// ```
    pub fn resource(mut self, resource: impl Into<String>) -> Self {
        self.source.parameters.resources.push(resource.into());
        self
    }

    /// Leaves out the parameter `resource` of [`TokenManager::for_resource`].
    ///
    /// For an authorization server that refuses the parameter or fails at it. The audience of the
    /// token is then up to that server. What [`resource`](Self::resource) adds is sent all the
    /// same.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use http_body_util::BodyExt as _;
    /// # let network = tower_oauth::transport::ServiceTransport::new(tower::service_fn(
    /// #     async |request: http::Request<http_body_util::Full<bytes::Bytes>>| {
    /// #         let body = match request.uri().path() {
    /// #             "/.well-known/oauth-protected-resource/orders" => serde_json::json!({
    /// #                 "resource": "https://api.example/orders",
    /// #                 "authorization_servers": ["https://as.example"],
    /// #             }),
    /// #             "/.well-known/openid-configuration" => serde_json::json!({
    /// #                 "issuer": "https://as.example",
    /// #                 "token_endpoint": "https://as.example/token",
    /// #             }),
    /// #             _ => {
    /// #                 let form = request.into_body().collect().await?.to_bytes();
    /// #                 let form = String::from_utf8_lossy(&form).into_owned();
    /// #                 serde_json::json!({ "access_token": form, "token_type": "Bearer" })
    /// #             }
    /// #         };
    /// #         Ok::<_, tower_oauth::BoxError>(http::Response::new(body.to_string()))
    /// #     },
    /// # ));
    /// # let credentials = tower_oauth::ClientCredentials::new("shop", "s3cret");
    /// use tower_oauth::TokenManager;
    ///
    /// let (orders, issuer) = ("https://api.example/orders", "https://as.example");
    /// let tokens = TokenManager::for_resource(orders, issuer, credentials)
    ///     .omit_resource()
    ///     .transport(network) // the resource, and an issuer whose tokens are what it receives
    ///     .start()?;
    /// let form = tokens.access_token().await?;
    /// assert_eq!(form.expose_secret(), "grant_type=client_credentials");
    /// # Ok(())
    /// # }
    /// ```
    pub fn omit_resource(mut self) -> Self {
        self.source.sends_resource = false;
        self
    }

    /// Adds an extension parameter to the request.
    ///
    /// These are an error of [`build`](Self::build): a name that is empty or added twice, one with
    /// a dedicated method, such as `scope`, and one of a grant or of client authentication, such as
    /// `client_id`.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use http_body_util::BodyExt as _;
    /// # let echo = tower_oauth::transport::ServiceTransport::new(tower::service_fn(
    /// #     async |request: http::Request<http_body_util::Full<bytes::Bytes>>| {
    /// #         let form = request.into_body().collect().await?.to_bytes();
    /// #         let form = String::from_utf8_lossy(&form).into_owned();
    /// #         let body = serde_json::json!({ "access_token": form, "token_type": "Bearer" });
    /// #         Ok::<_, tower_oauth::BoxError>(http::Response::new(body.to_string()))
    /// #     },
    /// # ));
    /// # let endpoint = tower_oauth::Endpoint::new("https://as.example/token")?;
    /// # let credentials = tower_oauth::ClientCredentials::new("shop", "s3cret");
    /// use tower_oauth::TokenManager;
    ///
    /// let tokens = TokenManager::builder(endpoint, credentials)
    ///     .parameter("organization", "acme")
    ///     .transport(echo) // a token endpoint whose tokens are the forms that it receives
    ///     .start()?;
    /// let form = tokens.access_token().await?;
    /// assert!(form.expose_secret().ends_with("&organization=acme"));
    /// # Ok(())
    /// # }
    /// ```
    pub fn parameter(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.source
            .parameters
            .add_extension(name.into(), value.into());
        self
    }

    /// Uses tokens of a missing or unknown `token_type` as bearer tokens.
    ///
    /// Without it they are an error that names the type
    /// ([RFC 6749 §7.1](https://www.rfc-editor.org/rfc/rfc6749#section-7.1)). For servers that omit
    /// the type, or send another name such as `JWT`. `DPoP`, `PoP` and `mac` stay errors: a
    /// resource server rejects such a token as a bearer token. `Bearer` is accepted in any case.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # let untyped = tower_oauth::transport::ServiceTransport::new(tower::service_fn(
    /// #     async |_: http::Request<http_body_util::Full<bytes::Bytes>>| {
    /// #         let body = r#"{"access_token":"a-token","token_type":"JWT"}"#.to_owned();
    /// #         Ok::<_, std::convert::Infallible>(http::Response::new(body))
    /// #     },
    /// # ));
    /// # let endpoint = tower_oauth::Endpoint::new("https://as.example/token")?;
    /// # let credentials = tower_oauth::ClientCredentials::new("shop", "s3cret");
    /// use tower_oauth::TokenManager;
    ///
    /// let tokens = TokenManager::builder(endpoint, credentials)
    ///     .assume_bearer()
    ///     .transport(untyped) // a token endpoint whose `token_type` is `JWT`
    ///     .start()?;
    /// assert_eq!(tokens.access_token().await?.header_value(), "Bearer a-token");
    /// # Ok(())
    /// # }
    /// ```
    pub fn assume_bearer(mut self) -> Self {
        self.source.assume_bearer = true;
        self
    }

    /// Sets the HTTP transport. Default: `ReqwestTransport` (feature `reqwest`).
    ///
    /// The builder then shares its discovery with those that are cloned from it afterwards.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use tower_oauth::authorization_server::AuthorizationServer;
    /// # use tower_oauth::resource_server::Algorithm;
    /// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
    /// # let shop = issuer.register("shop")?;
    /// use tower_oauth::TokenManager;
    /// use tower_oauth::authorization_server::EndpointKind;
    ///
    /// let tokens = TokenManager::builder(issuer.token_endpoint(), shop.credentials())
    ///     .transport(issuer.transport()) // calls an `AuthorizationServer` in the same process
    ///     .start()?;
    /// tokens.access_token().await?;
    /// assert_eq!(issuer.requests(EndpointKind::Token), 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn transport(mut self, transport: impl Transport) -> Self {
        self.source.transport = Some(Arc::new(transport));
        // Metadata that were fetched with another transport are not used with this one.
        if let Ok(endpoint) = &mut self.source.endpoint {
            endpoint.unshare();
        }
        self
    }

    /// Allows an issuer, its metadata and a token endpoint with plain `http` on loopback, for
    /// development and tests.
    ///
    /// ```
    /// # let credentials = tower_oauth::ClientCredentials::new("shop", "s3cret");
    /// use tower_oauth::error::ConfigErrorKind;
    /// use tower_oauth::{Endpoint, TokenManager};
    ///
    /// let endpoint = Endpoint::new("http://127.0.0.1:6002/token")?;
    /// let builder = || TokenManager::builder(endpoint.clone(), credentials.clone());
    /// let error = builder().build().unwrap_err();
    /// assert_eq!(error.kind(), ConfigErrorKind::PlainHttp);
    /// builder().allow_loopback_http().build()?;
    /// # Ok::<(), tower_oauth::ConfigError>(())
    /// ```
    pub fn allow_loopback_http(mut self) -> Self {
        self.manager.http.allow_loopback_http = true;
        self
    }

    /// Sets the `User-Agent` of requests for metadata and tokens.
    ///
    /// Default: `tower-oauth/` and its version. It replaces that of a
    /// [`reqwest::ClientBuilder`](crate::transport::ReqwestTransport::from_builder).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # let endpoint = tower_oauth::Endpoint::new("https://as.example/token")?;
    /// # let credentials = tower_oauth::ClientCredentials::new("shop", "s3cret");
    /// use bytes::Bytes;
    /// use http::{Request, Response};
    /// use http_body_util::Full;
    /// use tower_oauth::TokenManager;
    /// use tower_oauth::transport::ServiceTransport;
    ///
    /// let server = ServiceTransport::new(tower::service_fn(async |request: Request<Full<Bytes>>| {
    ///     assert_eq!(request.headers()["user-agent"], "orders/1.2 tower-oauth");
    ///     let body = r#"{"access_token":"t","token_type":"Bearer"}"#;
    ///     Ok::<_, std::convert::Infallible>(Response::new(body.to_owned()))
    /// }));
    /// let tokens = TokenManager::builder(endpoint, credentials)
    ///     .user_agent("orders/1.2 tower-oauth")
    ///     .transport(server)
    ///     .start()?;
    /// assert!(tokens.access_token().await.is_ok());
    /// # Ok(())
    /// # }
    /// ```
    pub fn user_agent(mut self, user_agent: impl Into<String>) -> Self {
        self.manager.http.set_user_agent(user_agent);
        self
    }

    /// Builds the manager and its [`Renewer`], which the caller has to poll or spawn.
    ///
    /// Does no I/O and spawns nothing.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use tower_oauth::authorization_server::AuthorizationServer;
    /// # use tower_oauth::resource_server::Algorithm;
    /// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
    /// # let shop = issuer.register("shop")?;
    /// use tower_oauth::TokenManager;
    ///
    /// let (tokens, renewer) = TokenManager::builder(issuer.token_endpoint(), shop.credentials())
    ///     .transport(issuer.transport())
    ///     .build()?;
    /// let renewing = tokio::spawn(renewer);
    /// assert!(tokens.access_token().await.is_ok());
    /// drop(tokens); // the last clone
    /// renewing.await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// If a setting is invalid: no transport, empty credentials, a text that is no scope or no
    /// audience, a [`parameter`](Self::parameter) that has a dedicated method, an empty `resource`
    /// or one with control characters, `max_waiters` of 0, an empty name, a `user_agent` that is
    /// not a header value, or plain `http` without [`allow_http`](Self::allow_http), or on loopback
    /// without [`allow_loopback_http`](Self::allow_loopback_http).
    pub fn build(self) -> Result<(TokenManager, Renewer), ConfigError> {
        let default_name = self.source.default_name();
        let (manager, renewer) = self.build_named(&default_name)?;
        warn_of_plain_http([manager.plain_http()]);
        Ok((manager, renewer))
    }

    /// The manager of one of several targets. Plain `http` is not logged.
    pub(super) fn build_target(
        self,
        origin: &Origin,
    ) -> Result<(TokenManager, Renewer), ConfigError> {
        let default_name = format!("{} {origin}", self.source.default_name());
        self.build_named(&default_name)
    }

    fn build_named(self, default_name: &str) -> Result<(TokenManager, Renewer), ConfigError> {
        let Self { source, manager } = self;
        let source = source.build(&manager.policy, &manager.clock, &manager.http)?;
        let scope_upgrade = Arc::clone(&source.scope_upgrade);
        manager.build(Arc::new(source), default_name, scope_upgrade)
    }

    /// Builds the source alone, for a single token or another [`TokenSource`].
    ///
    /// Only the settings of the token request have an effect:
    /// [`request_timeout`](Self::request_timeout) and [`clock`](Self::clock), and not those of the
    /// renewal. [`TokenEndpointSource`] has an example.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use tower_oauth::authorization_server::AuthorizationServer;
    /// # use tower_oauth::resource_server::Algorithm;
    /// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
    /// # let shop = issuer.register("shop")?;
    /// use tower_oauth::TokenManager;
    /// use tower_oauth::client::TokenSource;
    ///
    /// let source = TokenManager::builder(issuer.token_endpoint(), shop.credentials())
    ///     .transport(issuer.transport())
    ///     .build_source()?;
    /// let response = source.fetch().await?;
    /// assert_eq!(response.expires_in().map(|lifetime| lifetime.as_secs()), Some(3600));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`build`](Self::build).
    pub fn build_source(self) -> Result<TokenEndpointSource, ConfigError> {
        let Self { source, manager } = self;
        let source = source.build(&manager.policy, &manager.clock, &manager.http)?;
        warn_of_plain_http([source.plain_http()]);
        Ok(source)
    }

    /// Builds the manager and spawns its task on the current tokio runtime.
    ///
    /// The first token is requested when it is first needed. The task ends when the last clone of
    /// the manager is dropped.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use tower_oauth::authorization_server::AuthorizationServer;
    /// # use tower_oauth::resource_server::Algorithm;
    /// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
    /// # let shop = issuer.register("shop")?;
    /// use tower_oauth::TokenManager;
    /// use tower_oauth::authorization_server::EndpointKind;
    ///
    /// let tokens = TokenManager::builder(issuer.token_endpoint(), shop.credentials())
    ///     .transport(issuer.transport())
    ///     .start()?;
    /// assert_eq!(issuer.requests(EndpointKind::Token), 0);
    /// tokens.access_token().await?;
    /// assert_eq!(issuer.requests(EndpointKind::Token), 1);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`build`](Self::build), or if called outside of a tokio runtime.
    pub fn start(self) -> Result<TokenManager, ConfigError> {
        let runtime = current_runtime()?;
        let (manager, renewer) = self.build()?;
        runtime.spawn(renewer);
        Ok(manager)
    }
}

impl TokenManagerBuilder<Arc<dyn TokenSource>> {
    pub(super) fn from_source(source: impl TokenSource) -> Self {
        Self::with_source(Arc::new(source))
    }

    /// Builds the manager and its [`Renewer`], which the caller has to poll or spawn.
    ///
    /// Does no I/O and spawns nothing.
    ///
    /// # Errors
    ///
    /// If `max_waiters` is 0, the name is empty, or a host of [`allow_http`](Self::allow_http) is
    /// not valid.
    pub fn build(self) -> Result<(TokenManager, Renewer), ConfigError> {
        let scope_upgrade = Arc::new(ScopeUpgrade::never());
        let (manager, renewer) = self
            .manager
            .build(self.source, SOURCE_NAME, scope_upgrade)?;
        warn_of_plain_http([manager.plain_http()]);
        Ok((manager, renewer))
    }

    /// Builds the manager and spawns its task on the current tokio runtime.
    ///
    /// The first token is fetched when it is first needed. The task ends when the last clone of the
    /// manager is dropped.
    ///
    /// # Errors
    ///
    /// As [`build`](Self::build), or if called outside of a tokio runtime.
    pub fn start(self) -> Result<TokenManager, ConfigError> {
        let runtime = current_runtime()?;
        let (manager, renewer) = self.build()?;
        runtime.spawn(renewer);
        Ok(manager)
    }
}

/// Once for each host of these settings.
pub(super) fn warn_of_plain_http<'a>(settings: impl IntoIterator<Item = &'a PlainHttp>) {
    let hosts = settings.into_iter().flat_map(PlainHttp::hosts);
    let hosts: BTreeSet<String> = hosts.map(ToString::to_string).collect();
    trace::warn_of_plain_http!(
        target: "tower_oauth::client",
        hosts,
        "plain http to this host is allowed: anyone who can read its traffic has the secrets and \
             tokens"
    );
}

pub(super) fn current_runtime() -> Result<tokio::runtime::Handle, ConfigError> {
    tokio::runtime::Handle::try_current().map_err(|_| {
        ConfigError::without_value("tokio runtime", "is missing: call `start` within one")
            .with_kind(ConfigErrorKind::Unavailable)
    })
}
