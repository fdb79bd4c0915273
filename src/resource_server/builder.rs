//! The builder of a resource server, and the future that refreshes its keys.

use std::collections::HashSet;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::challenge::DEFAULT_REALM;
use super::issuer_state::{IssuerState, Validator};
use super::readiness::ReadinessPolicy;
use super::server::Inner;
use super::shared_settings::SharedSettings;
use super::token_cache;
use super::verification_limit::VerificationLimit;
use super::{ProtectedResource, ResourceServer, TrustedIssuer};
use crate::clock::{Clock, SystemClock};
use crate::error::{ConfigError, ConfigErrorKind, Error, ErrorKind, Operation};
use crate::key_set::{KeySetHandle, RefreshPolicy, RefresherConfig, Source};
use crate::metadata;
use crate::metrics::{self, Histogram, VERIFICATION_DURATION};
use crate::oauth::{Audience, Issuer};
use crate::trace;
use crate::transport::{HttpSettings, Transport, default_transport};

impl ResourceServer {
    /// Builds a resource server that accepts tokens of `issuer` for `audience`.
    ///
    /// The keys are found by discovery (RFC 8414). Strings are converted, and
    /// [`build`][build] and [`start`][start] report one that is not valid. [`TrustedIssuer`] takes
    /// typed values.
    ///
    /// ```
    /// use tower_oauth::{Audience, ResourceServer};
    ///
    /// ResourceServer::builder("https://as.example", Audience::new("orders")?).build()?;
    /// let error = ResourceServer::builder("https://as.example", "").build().unwrap_err();
    /// assert_eq!(error.setting(), "audience");
    /// # Ok::<(), tower_oauth::ConfigError>(())
    /// ```
    ///
    /// [build]: ResourceServerBuilder::build
    /// [start]: ResourceServerBuilder::start
    pub fn builder(
        issuer: impl TryInto<Issuer, Error: Into<ConfigError>>,
        audience: impl TryInto<Audience, Error: Into<ConfigError>>,
    ) -> ResourceServerBuilder {
        let issuer = issuer.try_into().map_err(Into::into);
        let audience = audience.try_into().map_err(Into::into);
        ResourceServerBuilder::new(
            issuer.and_then(|issuer| Ok(TrustedIssuer::new(issuer, audience?))),
        )
    }

    /// Builds a resource server that accepts the tokens of a [`TrustedIssuer`].
    ///
    /// For more settings than an issuer and one audience.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use tower_oauth::authorization_server::AuthorizationServer;
    /// # use tower_oauth::resource_server::Algorithm;
    /// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
    /// # let shop = issuer.register("shop")?;
    /// use tower_oauth::{Audience, ResourceServer, TrustedIssuer};
    ///
    /// let trusted = TrustedIssuer::new(issuer.issuer(), Audience::new("orders")?)
    ///     .allowed_clients(["shop"]);
    /// let orders = ResourceServer::from_issuer(trusted)
    ///     .transport(issuer.transport())
    ///     .start()
    ///     .await?;
    /// let token = issuer.mint(&shop).audience(["orders"]);
    /// assert!(orders.validate(&token.claim("client_id", "shop").sign()).await.is_ok());
    /// # Ok(())
    /// # }
    /// ```
    pub fn from_issuer(issuer: TrustedIssuer) -> ResourceServerBuilder {
        ResourceServerBuilder::new(Ok(issuer))
    }

    /// Builds a resource server that describes itself to clients, and accepts tokens of `issuer`.
    ///
    /// The audience is the identifier of the resource, which clients send as `resource` (RFC 8707).
    /// For another audience, use [`builder`](Self::builder) and
    /// [`protected_resource`](ResourceServerBuilder::protected_resource).
    ///
    /// ```
    /// use tower_oauth::ResourceServer;
    ///
    /// let (orders, _refresher) =
    ///     ResourceServer::for_resource("https://api.example/orders", "https://as.example").build()?;
    /// let metadata = orders.resource_metadata().expect("the resource is named");
    /// assert_eq!(metadata.path(), "/.well-known/oauth-protected-resource/orders");
    /// # Ok::<(), tower_oauth::ConfigError>(())
    /// ```
    pub fn for_resource(
        resource: impl TryInto<ProtectedResource, Error: Into<ConfigError>>,
        issuer: impl TryInto<Issuer, Error: Into<ConfigError>>,
    ) -> ResourceServerBuilder {
        let resource = match resource.try_into() {
            Ok(resource) => resource,
            Err(error) => return ResourceServerBuilder::new(Err(error.into())),
        };
        Self::builder(issuer, resource.identifier()).protected_resource(resource)
    }
}

/// Builds a [`ResourceServer`]. All defaults suit production.
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), tower_oauth::BoxError> {
/// # use tower_oauth::authorization_server::AuthorizationServer;
/// # use tower_oauth::resource_server::Algorithm;
/// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
/// # let shop = issuer.register("shop")?;
/// use std::time::Duration;
/// use tower_oauth::ResourceServer;
/// use tower_oauth::key_set::RefreshPolicy;
///
/// let orders = ResourceServer::builder(issuer.issuer(), "orders")
///     .transport(issuer.transport()) // an `AuthorizationServer` in the same process
///     .refresh(RefreshPolicy::strict())
///     .leeway(Duration::from_secs(10))
///     .realm("orders")
///     .start()
///     .await?;
/// let caller = orders.validate(&issuer.mint(&shop).audience(["orders"]).sign()).await?;
/// assert_eq!(caller.issuer(), &issuer.issuer());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use]
pub struct ResourceServerBuilder {
    /// The issuers, or the error of the first invalid value, which [`build`](Self::build) returns.
    issuers: Result<Vec<TrustedIssuer>, ConfigError>,
    transport: Option<Arc<dyn Transport>>,
    clock: Arc<dyn Clock>,
    refresh: RefreshPolicy,
    leeway: Duration,
    max_token_len: usize,
    realm: String,
    protected_resource: Option<ProtectedResource>,
    http: HttpSettings,
    startup: Startup,
    readiness: ReadinessPolicy,
    cache: token_cache::Limits,
    max_verifications: Option<usize>,
}

/// How [`start`](ResourceServerBuilder::start) waits for the first keys.
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), tower_oauth::BoxError> {
/// # use tower_oauth::authorization_server::AuthorizationServer;
/// # use tower_oauth::resource_server::Algorithm;
/// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
/// use tower_oauth::ResourceServer;
/// use tower_oauth::resource_server::Startup;
///
/// let orders = ResourceServer::builder(issuer.issuer(), "orders")
///     .transport(issuer.transport())
///     .startup(Startup::Background)
///     .start()
///     .await?;
/// assert!(!orders.keys_available()); // the first fetch is under way
/// orders.wait_for_keys().await;
/// assert!(orders.keys_available());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Startup {
    /// Returns immediately. Until keys are available, requests get a 503.
    ///
    /// A test awaits [`wait_for_keys`](super::ResourceServer::wait_for_keys) before its first
    /// request.
    Background,
    /// Waits for keys, and fails if they are not available in time.
    ///
    /// Longer than [`fetch_timeout`](crate::key_set::RefreshPolicy::fetch_timeout), 5 s by default:
    /// before that, the error of an issuer that does not respond has no URL.
    Require(Duration),
    /// Waits for keys up to this long, then starts without.
    Wait(Duration),
}

impl Default for Startup {
    /// Waits for keys up to 10 seconds, then starts without.
    fn default() -> Self {
        Self::Wait(Duration::from_secs(10))
    }
}

impl ResourceServerBuilder {
    pub(super) fn new(issuer: Result<TrustedIssuer, ConfigError>) -> Self {
        Self {
            issuers: issuer.map(|issuer| vec![issuer]),
            transport: None,
            clock: Arc::new(SystemClock),
            refresh: RefreshPolicy::new(),
            leeway: Duration::from_secs(60),
            max_token_len: 16 * 1024,
            realm: DEFAULT_REALM.to_owned(),
            protected_resource: None,
            http: HttpSettings::default(),
            startup: Startup::default(),
            readiness: ReadinessPolicy::All,
            cache: token_cache::DEFAULT_LIMITS,
            max_verifications: None,
        }
    }

    /// Accepts the tokens of one more issuer.
    ///
    /// It can grant every scope and role that routes require: [`TrustedIssuer`] has an example that
    /// bounds them.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// use tower_oauth::authorization_server::AuthorizationServer;
    /// use tower_oauth::{Audience, ResourceServer, TrustedIssuer};
    ///
    /// let issuer = AuthorizationServer::builder().build()?;
    /// let partner = AuthorizationServer::builder().tenant_id("partner").build()?; // another issuer
    /// let shop = partner.register("shop")?;
    /// let trusted = TrustedIssuer::new(partner.issuer(), Audience::new("partners")?)
    ///     .transport(partner.transport());
    /// let orders = ResourceServer::builder(issuer.issuer(), "orders")
    ///     .transport(issuer.transport())
    ///     .add_issuer(trusted)
    ///     .start()
    ///     .await?;
    /// // Each issuer has its own audience.
    /// let mint = || partner.mint(&shop);
    /// assert!(orders.validate(&mint().audience(["partners"]).sign()).await.is_ok());
    /// assert!(orders.validate(&mint().audience(["orders"]).sign()).await.is_err());
    /// # Ok(())
    /// # }
    /// ```
    pub fn add_issuer(mut self, issuer: TrustedIssuer) -> Self {
        if let Ok(issuers) = &mut self.issuers {
            issuers.push(issuer);
        }
        self
    }

    /// Sets the transport for metadata and keys. Default: `ReqwestTransport` (feature `reqwest`).
    ///
    /// For issuers [without their own](TrustedIssuer::transport).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use tower_oauth::authorization_server::AuthorizationServer;
    /// # use tower_oauth::resource_server::Algorithm;
    /// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
    /// use tower_oauth::ResourceServer;
    /// use tower_oauth::authorization_server::EndpointKind;
    ///
    /// let orders = ResourceServer::builder(issuer.issuer(), "orders")
    ///     .transport(issuer.transport()) // calls an `AuthorizationServer` in the same process
    ///     .start()
    ///     .await?;
    /// assert!(orders.keys_available());
    /// assert_eq!(issuer.requests(EndpointKind::Keys), 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn transport(mut self, transport: impl Transport) -> Self {
        self.transport = Some(Arc::new(transport));
        self
    }

    /// Sets the clock for `exp`, `nbf` and `iat`, and for the age of keys. Default:
    /// [`SystemClock`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use tower_oauth::authorization_server::AuthorizationServer;
    /// # use tower_oauth::resource_server::Algorithm;
    /// use std::time::Duration;
    /// use tower_oauth::ResourceServer;
    /// use tower_oauth::clock::{ManualClock, UnixTime};
    ///
    /// let clock = ManualClock::at(UnixTime::from_secs(1_800_000_000));
    /// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256);
    /// # let issuer = issuer.clock(clock.clone()).build()?;
    /// # let shop = issuer.register("shop")?;
    /// let orders = ResourceServer::builder(issuer.issuer(), "orders")
    ///     .transport(issuer.transport())
    ///     .clock(clock.clone())
    ///     .start()
    ///     .await?;
    /// let token = issuer.mint(&shop).audience(["orders"]).sign();
    /// assert!(orders.validate(&token).await.is_ok());
    /// clock.advance(Duration::from_secs(2 * 3600)); // the token expires after an hour
    /// assert!(orders.validate(&token).await.is_err());
    /// # Ok(())
    /// # }
    /// ```
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Sets how key sets are refreshed, and how long they are used.
    ///
    /// For issuers [without their own](TrustedIssuer::refresh) policy.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use tower_oauth::authorization_server::AuthorizationServer;
    /// # use tower_oauth::resource_server::Algorithm;
    /// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
    /// use std::time::Duration;
    /// use tower_oauth::ResourceServer;
    /// use tower_oauth::authorization_server::EndpointKind;
    /// use tower_oauth::key_set::RefreshPolicy;
    ///
    /// // The issuer withdraws keys often: look every minute.
    /// let minute = Duration::from_secs(60);
    /// let orders = ResourceServer::builder(issuer.issuer(), "orders")
    ///     .transport(issuer.transport())
    ///     .refresh(RefreshPolicy::new().interval(minute).max_interval(minute))
    ///     .start()
    ///     .await?;
    /// # tokio::time::sleep(Duration::from_secs(600)).await;
    /// // Ten minutes later:
    /// assert!(issuer.requests(EndpointKind::Keys) > 10);
    /// # let _ = orders;
    /// # Ok(())
    /// # }
    /// ```
    pub fn refresh(mut self, policy: RefreshPolicy) -> Self {
        self.refresh = policy;
        self
    }

    /// Sets the leeway for clock differences in `exp`, `nbf` and `iat`. Default: 60 seconds.
    ///
    /// For issuers [without their own](TrustedIssuer::leeway).
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
    /// use tower_oauth::ResourceServer;
    ///
    /// let orders = ResourceServer::builder(issuer.issuer(), "orders")
    ///     .leeway(Duration::from_secs(5))
    /// #   .transport(issuer.transport())
    /// #   .clock(clock.clone())
    ///     .start()
    ///     .await?;
    /// let minute = Duration::from_secs(60);
    /// let token = issuer.mint(&shop).audience(["orders"]).expires_in(minute).sign();
    /// clock.advance(minute + Duration::from_secs(4));
    /// assert!(orders.validate(&token).await.is_ok());
    /// clock.advance(Duration::from_secs(1));
    /// assert!(orders.validate(&token).await.is_err());
    /// # Ok(())
    /// # }
    /// ```
    pub fn leeway(mut self, leeway: Duration) -> Self {
        self.leeway = leeway;
        self
    }

    /// Sets the maximum length of a token in bytes. Default: 16 KiB.
    ///
    /// For issuers [without their own](TrustedIssuer::max_token_len) limit. The largest limit of an
    /// issuer applies before the token is parsed, and from 16 KiB on, it scales the limits on the
    /// content of a token. At 16 KiB they are:
    ///
    /// - 256 members in an object, including the members read so far of the objects around it;
    /// - 1,024 strings in each of `aud`, `scope` and `scp`;
    /// - 2,048 members and elements in the claims, over all objects and arrays.
    ///
    /// With 64 KiB each limit is four times as high. A token beyond them is rejected with
    /// [`RejectionKind::TooManyMembers`](super::RejectionKind::TooManyMembers). Independent of the
    /// length, a token header has at most 8 KiB and 256 members, and nesting is limited to 32
    /// levels.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// use tower_oauth::ResourceServer;
    /// use tower_oauth::resource_server::RejectionKind;
    ///
    /// let (orders, _refresher) = ResourceServer::builder("https://as.example", "orders")
    ///     .max_token_len(4 * 1024)
    ///     .build()?;
    /// let rejection = orders.validate(&"a".repeat(5 * 1024)).await.unwrap_err();
    /// assert_eq!(rejection.kind(), RejectionKind::TokenTooLong);
    /// # Ok(())
    /// # }
    /// ```
    pub fn max_token_len(mut self, bytes: usize) -> Self {
        self.max_token_len = bytes;
        self
    }

    /// Sets the maximum number of tokens in the token cache. Default: 10,000; 0 disables the cache.
    ///
    /// Raise [`max_cache_size`](Self::max_cache_size) with it: 32 MiB hold some 18,000 tokens of
    /// 900 bytes.
    ///
    /// A valid token is cached from its second request on. It is found by 128 bits of a keyed hash;
    /// two different tokens have the same hash with a probability below 2⁻⁹⁴. An entry is used
    /// only while the token has not expired and its key is still published: withdrawing, revoking
    /// or replacing the key invalidates it immediately, and so does a key set older than
    /// `max_stale`. Scopes are checked for each request. For what a cache costs, see
    /// [`guide::configuration`](mod@crate::guide::configuration).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use tower_oauth::authorization_server::AuthorizationServer;
    /// # use tower_oauth::resource_server::Algorithm;
    /// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
    /// # let shop = issuer.register("shop")?;
    /// use tower_oauth::ResourceServer;
    ///
    /// let orders = ResourceServer::builder(issuer.issuer(), "orders")
    ///     .max_cached_tokens(0) // verify the signature for each request
    /// #   .transport(issuer.transport())
    ///     .start()
    ///     .await?;
    /// let token = issuer.mint(&shop).audience(["orders"]).sign();
    /// for _request in 1..=3 {
    ///     orders.validate(&token).await?;
    /// }
    /// assert_eq!(orders.cached_token_count(), 0);
    /// # Ok(())
    /// # }
    /// ```
    pub fn max_cached_tokens(mut self, limit: u64) -> Self {
        self.cache.entries = limit;
        self
    }

    /// Sets the maximum memory of the token cache, an estimate in bytes. Default: 32 MiB.
    ///
    /// Tokens of more than 8 KiB are never cached. An entry with a token of 900 bytes takes 1 KB,
    /// and counts as nearly 2 KB: the estimate is high.
    ///
    /// Evicted entries are freed a few dozen at a time. In addition, each thread has a cache with
    /// copies of up to 128 frequent tokens, over all resource servers: some 230 KB with tokens of
    /// 900 bytes, 2 MB with tokens of 8 KiB. Its entries are checked for validity as any other.
    /// They stay until they are evicted or the thread ends, and are then zeroized.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use tower_oauth::authorization_server::AuthorizationServer;
    /// # use tower_oauth::resource_server::Algorithm;
    /// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
    /// # let shop = issuer.register("shop")?;
    /// use tower_oauth::ResourceServer;
    ///
    /// let orders = ResourceServer::builder(issuer.issuer(), "orders")
    ///     .max_cache_size(64 * 1024) // some 35 tokens
    /// #   .transport(issuer.transport())
    ///     .start()
    ///     .await?;
    /// for client in 1..=200 {
    ///     let token = issuer.mint(&shop).audience(["orders"]).claim("client", client).sign();
    ///     orders.validate(&token).await?;
    ///     orders.validate(&token).await?;
    /// }
    /// assert!(orders.cached_token_count() < 100);
    /// # Ok(())
    /// # }
    /// ```
    pub fn max_cache_size(mut self, bytes: u64) -> Self {
        self.cache.bytes = bytes;
        self
    }

    /// Limits concurrent signature verifications; at least 1. Default: no limit.
    ///
    /// Each token that names a key of its issuer costs a verification, forged or not: about 20
    /// microseconds with RSA-2048, several times that with RSA-4096, ten times and more with P-384
    /// and P-521. With a limit below the number of worker threads, a flood of forged tokens
    /// occupies no more threads than the limit, and the others continue to serve cached tokens.
    ///
    /// At the limit, further requests queue behind the forged ones. If 1,024 wait already, a
    /// request gets a 503 ([`RejectionKind::Overloaded`](super::RejectionKind::Overloaded)). With
    /// a limit, tokens are cached from their first request on, so that each needs one verification
    /// only.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use tower_oauth::authorization_server::AuthorizationServer;
    /// # use tower_oauth::resource_server::Algorithm;
    /// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
    /// # let shop = issuer.register("shop")?;
    /// use tower_oauth::ResourceServer;
    ///
    /// let orders = ResourceServer::builder(issuer.issuer(), "orders")
    ///     .max_concurrent_verifications(3) // of four worker threads
    /// #   .transport(issuer.transport())
    ///     .start()
    ///     .await?;
    /// orders.validate(&issuer.mint(&shop).audience(["orders"]).sign()).await?;
    /// assert_eq!(orders.cached_token_count(), 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn max_concurrent_verifications(mut self, limit: usize) -> Self {
        self.max_verifications = Some(limit);
        self
    }

    /// Sets the `realm` of challenges. Default: `resource`.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// use tower_oauth::ResourceServer;
    ///
    /// let (orders, _refresher) =
    ///     ResourceServer::builder("https://as.example", "orders").realm("orders").build()?;
    /// let (head, _body) = http::Request::get("/orders").body(())?.into_parts();
    /// let rejection = orders.authenticate(&head).await.unwrap_err();
    /// assert_eq!(rejection.www_authenticate().expect("a 401"), r#"Bearer realm="orders""#);
    /// # Ok(())
    /// # }
    /// ```
    pub fn realm(mut self, realm: impl Into<String>) -> Self {
        self.realm = realm.into();
        self
    }

    /// Describes the protected resource to clients
    /// ([RFC 9728](https://www.rfc-editor.org/rfc/rfc9728)). Default: no description.
    ///
    /// Each challenge names the document (`resource_metadata`). Serve it with
    /// [`ResourceServer::resource_metadata`]. The audience stays the one that was set:
    /// [`ResourceServer::for_resource`] uses the identifier. Plain `http` is accepted on loopback
    /// with [`allow_loopback_http`](Self::allow_loopback_http), and for hosts of
    /// [`allow_http`](Self::allow_http).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// use tower_oauth::ResourceServer;
    /// use tower_oauth::resource_server::ProtectedResource;
    ///
    /// let (orders, _refresher) = ResourceServer::builder("https://as.example", "orders")
    ///     .protected_resource(ProtectedResource::new("https://orders.example")?)
    ///     .build()?;
    /// let (head, _body) = http::Request::get("/orders").body(())?.into_parts();
    /// let rejection = orders.authenticate(&head).await.unwrap_err();
    /// let challenge = rejection.www_authenticate().expect("a 401").to_str()?;
    /// let metadata = "https://orders.example/.well-known/oauth-protected-resource";
    /// assert!(challenge.contains(&format!(r#"resource_metadata="{metadata}""#)));
    /// # Ok(())
    /// # }
    /// ```
    pub fn protected_resource(mut self, resource: ProtectedResource) -> Self {
        self.protected_resource = Some(resource);
        self
    }

    /// Permits plain `http` for issuers on a loopback address, for development and tests.
    ///
    /// ```
    /// use tower_oauth::ResourceServer;
    ///
    /// let builder = || ResourceServer::builder("http://127.0.0.1:6002/oauth/v4/dev", "orders");
    /// let error = builder().build().unwrap_err();
    /// assert_eq!(error.setting(), "issuer");
    /// builder().allow_loopback_http().build()?;
    /// # Ok::<(), tower_oauth::ConfigError>(())
    /// ```
    pub fn allow_loopback_http(mut self) -> Self {
        self.http.allow_loopback_http = true;
        self
    }

    /// Permits plain `http` to these hosts, for metadata and keys.
    ///
    /// For a network where plain `http` is protected otherwise, such as a service mesh with mutual
    /// TLS between its proxies. [`guide::security`](mod@crate::guide::security#plain-http) has what
    /// is lost.
    ///
    /// A host is an exact name, in any case, or an address; every port of it is allowed. Wildcards,
    /// URLs and link-local or metadata addresses are errors of [`build`](Self::build), which names
    /// each host in a `warn` event (feature `tracing`). What the metadata of an `https` issuer name
    /// must be `https`, even so. May be called more than once.
    ///
    /// ```
    /// use tower_oauth::ResourceServer;
    /// use tower_oauth::error::ConfigErrorKind;
    ///
    /// let builder = || ResourceServer::builder("http://keycloak.sso.svc/realms/shop", "orders");
    /// let error = builder().build().unwrap_err();
    /// assert_eq!(error.kind(), ConfigErrorKind::PlainHttp);
    /// builder().allow_http(["keycloak.sso.svc"]).build()?;
    /// assert!(builder().allow_http(["*.sso.svc"]).build().is_err());
    /// # Ok::<(), tower_oauth::ConfigError>(())
    /// ```
    pub fn allow_http(mut self, hosts: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.http.allow_http(hosts);
        self
    }

    /// Sets the `User-Agent` of requests for metadata and keys.
    ///
    /// Default: `tower-oauth/` and its version. It replaces that of a
    /// [`reqwest::ClientBuilder`](crate::transport::ReqwestTransport::from_builder).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use bytes::Bytes;
    /// # use http::{Request, Response};
    /// # use http_body_util::Full;
    /// # use tower_oauth::transport::ServiceTransport;
    /// use tower_oauth::ResourceServer;
    ///
    /// let issuer = ServiceTransport::new(tower::service_fn(async |request: Request<Full<Bytes>>| {
    ///     assert_eq!(request.headers()["user-agent"], "orders/1.2 tower-oauth");
    /// #     let key = r#"{"kty":"OKP","crv":"Ed25519",
    /// #         "x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
    /// #     let issuer = "https://as.example";
    /// #     let jwks_uri = "https://as.example/keys";
    /// #     let document =
    /// #         format!(r#"{{"issuer":"{issuer}","jwks_uri":"{jwks_uri}","keys":[{key}]}}"#);
    ///     // … the metadata and keys
    /// #     Ok::<_, std::convert::Infallible>(Response::new(document))
    /// }));
    /// let orders = ResourceServer::builder("https://as.example", "orders")
    ///     .user_agent("orders/1.2 tower-oauth")
    ///     .transport(issuer)
    ///     .start()
    ///     .await?;
    /// assert!(orders.keys_available());
    /// # Ok(())
    /// # }
    /// ```
    pub fn user_agent(mut self, user_agent: impl Into<String>) -> Self {
        self.http.set_user_agent(user_agent);
        self
    }

    /// Sets of which issuers keys are needed to be ready. Default: of every issuer.
    ///
    /// ```
    /// use tower_oauth::key_set::KeySet;
    /// use tower_oauth::resource_server::ReadinessPolicy;
    /// use tower_oauth::{Audience, Issuer, ResourceServer, TrustedIssuer};
    ///
    /// # let document = br#"{"keys":[{
    /// #     "kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
    /// # }]}"#;
    /// let orders = Audience::new("orders")?;
    /// let one = TrustedIssuer::new(Issuer::new("https://one.example")?, orders.clone())
    ///     .keys(KeySet::from_json(document)?);
    /// // Its keys are not fetched yet.
    /// let two = TrustedIssuer::new(Issuer::new("https://two.example")?, orders);
    ///
    /// let builder = || ResourceServer::from_issuer(one.clone()).add_issuer(two.clone());
    /// let (all, _refresher) = builder().build()?;
    /// assert!(!all.keys_available());
    /// let (any, _refresher) = builder().readiness(ReadinessPolicy::Any).build()?;
    /// assert!(any.keys_available());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn readiness(mut self, policy: ReadinessPolicy) -> Self {
        self.readiness = policy;
        self
    }

    /// Sets how [`start`](Self::start) waits for the first keys.
    ///
    /// The issuers are set by [`readiness`](Self::readiness). Default: up to 10 seconds, then it
    /// starts without. No effect on [`build`](Self::build), which waits for nothing.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use tower_oauth::authorization_server::AuthorizationServer;
    /// # use tower_oauth::resource_server::Algorithm;
    /// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
    /// use std::time::Duration;
    /// use tower_oauth::ResourceServer;
    /// use tower_oauth::authorization_server::{EndpointKind, Fault};
    /// use tower_oauth::error::ErrorKind;
    /// use tower_oauth::resource_server::Startup;
    ///
    /// issuer.fail(EndpointKind::Keys, Fault::Outage(None));
    /// let error = ResourceServer::builder(issuer.issuer(), "orders")
    ///     .transport(issuer.transport())
    ///     .startup(Startup::Require(Duration::from_secs(10)))
    ///     .start()
    ///     .await
    ///     .unwrap_err();
    /// assert!(matches!(error.kind(), ErrorKind::Status(status) if status == 503));
    /// # Ok(())
    /// # }
    /// ```
    pub fn startup(mut self, startup: Startup) -> Self {
        self.startup = startup;
        self
    }

    /// Builds the resource server and the future that refreshes its keys.
    ///
    /// Sends nothing and spawns no task: the caller runs the [`Refresher`]. Without a
    /// [`transport`](Self::transport), it reads the certificates of the system.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use tower_oauth::authorization_server::AuthorizationServer;
    /// # use tower_oauth::resource_server::Algorithm;
    /// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
    /// use tower_oauth::ResourceServer;
    ///
    /// let (orders, refresher) = ResourceServer::builder(issuer.issuer(), "orders")
    ///     .transport(issuer.transport())
    ///     .build()?;
    /// assert!(!orders.keys_available());
    /// tokio::spawn(refresher);
    /// orders.wait_for_keys().await;
    /// assert!(orders.keys_available());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// If a setting is invalid: an issuer or audience that is not valid, no transport, an empty
    /// list of algorithms, clients or values of a required claim, an optional audience without
    /// allowed clients, a duplicate issuer, an issuer for discovery that is not a URL, a `realm`
    /// that is not printable ASCII or has quotes or backslashes, a `user_agent` that is not a
    /// header value, or plain `http` without [`allow_http`](Self::allow_http), or on loopback
    /// without [`allow_loopback_http`](Self::allow_loopback_http).
    pub fn build(self) -> Result<(ResourceServer, Refresher), ConfigError> {
        let issuers = self.issuers?;
        let plain_http = self.http.plain_http()?;
        let fetched = issuers.iter().filter(|issuer| issuer.is_fetched());
        let settings = SharedSettings {
            authorization_servers: fetched.map(|issuer| issuer.issuer().clone()).collect(),
            realm: self.realm,
            plain_http: plain_http.clone(),
            cache: self.cache,
            readiness: self.readiness,
        };
        let resource = settings.check_resource(self.protected_resource)?;
        check_names(&issuers)?;
        let mut transport = self.transport;
        let mut states = Vec::with_capacity(issuers.len());
        let mut tasks: Vec<Task> = Vec::new();
        for issuer in issuers {
            let policy = issuer.policy(self.leeway)?;
            let name = policy.issuer.clone();
            let max_token_len = issuer.max_token_len.unwrap_or(self.max_token_len);
            let rules = issuer.rules;
            let label = ("issuer", policy.issuer.as_str());
            let verification_duration = Histogram::new(VERIFICATION_DURATION, &[label]);
            let state = |policy, validator| IssuerState {
                verification_duration,
                policy,
                rules,
                max_token_len,
                validator,
            };
            let jwks_uri = match issuer.source {
                Source::Fixed(keys) => {
                    let keys = KeySetHandle::fixed(name, keys);
                    states.push(state(policy, Validator::Jwt(keys)));
                    continue;
                }
                Source::JwksUri(uri) => Some(uri),
                Source::Discovery => None,
            };
            let (setting, urls) = match &jwks_uri {
                Some(uri) => ("jwks_uri", vec![uri.clone()]),
                None => ("issuer", metadata::well_known_urls(&name)?),
            };
            for url in urls {
                plain_http
                    .check(&url)
                    .map_err(|error| error.with_setting(setting))?;
            }
            let issuer_transport = match issuer.transport {
                Some(own) => own,
                // Created only if one of the issuers needs it.
                None => {
                    let shared = default_transport(transport)?;
                    transport = Some(Arc::clone(&shared));
                    shared
                }
            };
            let (keys, task) = RefresherConfig {
                issuer: name,
                jwks_uri,
                max_candidate_keys: policy.max_candidate_keys,
                policy: issuer.refresh.unwrap_or_else(|| self.refresh.clone()),
                initial_keys: issuer.initial_keys,
                http_client: self.http.client(issuer_transport)?,
                clock: Arc::clone(&self.clock),
            }
            .build();
            states.push(state(policy, Validator::Jwt(keys)));
            tasks.push(Box::pin(task));
        }
        trace::warn_of_plain_http!(
            target: "tower_oauth::key_set",
            plain_http.hosts(),
            "plain http to this host is allowed: anyone who can change its traffic can forge tokens"
        );
        metrics::describe();
        let limit = VerificationLimit::new(self.max_verifications);
        let inner = Inner::new(states, self.clock, limit, resource, settings);
        Ok((ResourceServer(Arc::new(inner)), Refresher(tasks)))
    }

    /// Builds the resource server, and spawns a refresh task for each issuer.
    ///
    /// The tasks run on the current tokio runtime and end when the last clone of the resource
    /// server is dropped. Waits for the first keys according to [`startup`](Self::startup).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use tower_oauth::authorization_server::AuthorizationServer;
    /// # use tower_oauth::resource_server::Algorithm;
    /// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
    /// # let shop = issuer.register("shop")?;
    /// use tower_oauth::ResourceServer;
    ///
    /// let orders = ResourceServer::builder(issuer.issuer(), "orders")
    ///     .transport(issuer.transport())
    ///     .start()
    ///     .await?;
    /// let caller = orders.validate(&issuer.mint(&shop).audience(["orders"]).sign()).await?;
    /// assert_eq!(caller.subject(), Some(shop.client_id()));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`build`](Self::build); with [`Startup::Require`] also if the keys are not available in
    /// time, with the error of the last fetch.
    pub async fn start(self) -> Result<ResourceServer, Error> {
        let startup = self.startup;
        let (server, refresher) = self.build()?;
        for task in refresher.0 {
            #[expect(
                clippy::disallowed_methods,
                reason = "`start` is documented to spawn; `build` does not spawn"
            )]
            tokio::spawn(task);
        }
        for keys in server.all_keys() {
            keys.mark_refresher_spawned();
        }
        let (Startup::Wait(limit) | Startup::Require(limit)) = startup else {
            return Ok(server);
        };
        let _elapsed = tokio::time::timeout(limit, server.wait_for_keys()).await;
        if matches!(startup, Startup::Require(_)) && !server.keys_available() {
            let statuses = server.key_sets();
            let mut unusable = statuses.iter().filter(|status| !status.state().is_usable());
            let error = unusable.find_map(|status| status.last_error().cloned());
            return Err(
                error.unwrap_or_else(|| Error::new(Operation::JwksFetch, ErrorKind::Timeout))
            );
        }
        Ok(server)
    }
}

/// Checks that each name is that of one issuer. Only an alias may be shared: a token under it is
/// always one of the issuer that was added first.
fn check_names(issuers: &[TrustedIssuer]) -> Result<(), ConfigError> {
    let repeated = |name: &Issuer| {
        let error = ConfigError::new("issuer", name.as_str(), "must not be added twice");
        Err(error.with_kind(ConfigErrorKind::Conflict))
    };
    let mut names = HashSet::new();
    for issuer in issuers {
        if !names.insert(issuer.issuer()) {
            return repeated(issuer.issuer());
        }
    }
    let mut aliases = issuers.iter().flat_map(TrustedIssuer::aliases);
    aliases
        .find(|alias| names.contains(alias))
        .map_or(Ok(()), repeated)
}

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Refreshes the keys of a [`ResourceServer`] while it is polled, on a tokio runtime.
///
/// Completes when the last clone of the resource server is dropped; at once if all issuers have
/// fixed [`keys`](super::TrustedIssuer::keys).
///
/// Requests may run on another runtime, or on none: they use no timer. The refresher ends the waits
/// for newer keys, at their time limit and when it is dropped. Before its first poll no request
/// waits, and a token with an unknown `kid` is rejected at once.
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), tower_oauth::BoxError> {
/// # use tower_oauth::authorization_server::AuthorizationServer;
/// # use tower_oauth::resource_server::Algorithm;
/// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
/// use tower_oauth::ResourceServer;
///
/// let (orders, refresher) = ResourceServer::builder(issuer.issuer(), "orders")
///     .transport(issuer.transport())
///     .build()?;
/// let refreshing = tokio::spawn(refresher);
/// orders.wait_for_keys().await;
/// drop(orders); // the last clone
/// refreshing.await?;
/// # Ok(())
/// # }
/// ```
#[must_use = "the keys are fetched only while this is polled"]
pub struct Refresher(Vec<Task>);

impl Future for Refresher {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.0
            .retain_mut(|task| task.as_mut().poll(cx).is_pending());
        if self.0.is_empty() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
}

impl fmt::Debug for Refresher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refresher")
            .field("issuers", &self.0.len())
            .finish()
    }
}
