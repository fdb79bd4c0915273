//! The resource server: the handle and its shared state.

use std::sync::Arc;
use std::task::Poll;

use super::ProtectedResource;
use super::header_cache::HeaderCache;
use super::issuer_state::IssuerState;
use super::issuers::Issuers;
use super::protected_resource::ProtectedResourceMetadata;
use super::readiness::ReadinessPolicy;
use super::rejection_events::RejectionEvents;
use super::responses::Responses;
use super::sharded_arc::ShardedArc;
use super::shared_settings::{CheckedResource, SharedSettings};
use super::token_cache::TokenCache;
use super::verification_limit::VerificationLimit;
use crate::clock::Clock;
use crate::error::{ConfigError, Error};
use crate::key_set::{KeySetHandle, KeySetStatus};
use crate::log_limit::LogLimit;
use crate::metrics::{Counter, TOKEN_CACHE_HITS, TOKEN_CACHE_MISSES};
use crate::oauth::{Audience, Issuer};

/// Authenticates requests by bearer tokens of trusted issuers.
///
/// A handle to shared state, cheap to clone. The background refresh of the keys stops when the
/// last clone is dropped, including those in layers and services.
///
/// # Examples
///
/// ```
/// use http::{Request, Response, StatusCode};
/// use tower::{ServiceBuilder, ServiceExt, service_fn};
/// use tower_oauth::{Audience, AuthContext, Issuer, ResourceServer, TrustedIssuer};
/// use tower_oauth::key_set::KeySet;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let document = br#"{"keys":[{
/// #     "kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
/// # }]}"#;
/// let issuer = TrustedIssuer::new(Issuer::new("https://as.example")?, Audience::new("orders")?)
///     .keys(KeySet::from_json(document)?);
/// let orders = ResourceServer::from_issuer(issuer).start().await?;
///
/// let service = ServiceBuilder::new().layer(orders.layer()).service(service_fn(
///     |request: Request<String>| async move {
///         let context = AuthContext::from_request(&request).expect("inserted by the layer");
///         Ok::<_, std::convert::Infallible>(Response::new(format!("{:?}", context.subject())))
///     },
/// ));
///
/// // Without a token: 401 with a challenge.
/// let response = service.oneshot(Request::new(String::new())).await?;
/// assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
/// assert_eq!(response.headers()["www-authenticate"], r#"Bearer realm="resource""#);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct ResourceServer(pub(super) Arc<Inner>);

// The field order is deliberate: the fields that a hit of the token cache reads come first.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Inner {
    pub(super) cache: TokenCache,
    pub(super) issuers: Issuers,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) cache_hits: Counter,
    pub(super) cache_misses: Counter,
    pub(super) responses: ShardedArc<Responses>,
    pub(super) header_cache: HeaderCache,
    pub(super) verification_limit: VerificationLimit,
    pub(super) token_in_query: LogLimit,
    pub(super) metadata: Option<ProtectedResourceMetadata>,
    pub(super) settings: SharedSettings,
}

impl Inner {
    /// A server with empty caches.
    pub(super) fn new(
        issuers: Vec<IssuerState>,
        clock: Arc<dyn Clock>,
        verification_limit: VerificationLimit,
        resource: CheckedResource,
        settings: SharedSettings,
    ) -> Self {
        let events = RejectionEvents::new(&issuers, Arc::clone(&clock));
        Self {
            cache: TokenCache::new(settings.cache),
            issuers: Issuers::new(issuers),
            clock,
            cache_hits: Counter::without_label(TOKEN_CACHE_HITS),
            cache_misses: Counter::without_label(TOKEN_CACHE_MISSES),
            responses: ShardedArc::new(Responses::new(resource.challenge, events)),
            header_cache: HeaderCache::default(),
            verification_limit,
            token_in_query: LogLimit::new(),
            metadata: resource.metadata,
            settings,
        }
    }
}

impl ResourceServer {
    /// Returns a server for one more resource, with tokens of the same issuers.
    ///
    /// For several services in one process, such as one per mount of a router. The keys are shared:
    /// one fetch and one schedule for all, and [`revoke_key`](Self::revoke_key) and
    /// [`refresh_keys`](Self::refresh_keys) of any of them hold for all. The refresh stops when the
    /// last of them is dropped.
    ///
    /// The new server has its own audience, which is the identifier of its resource, its own
    /// challenges, document and token cache. A token for one resource is rejected at the others.
    /// The rules of each [`TrustedIssuer`](crate::TrustedIssuer) apply, except
    /// [`audience_optional`](crate::TrustedIssuer::audience_optional): without `aud`, nothing shows
    /// which of the resources a token is for. So an issuer whose tokens have none, as Cognito's
    /// usually, needs another server that is built apart. The realm, readiness, the bounds of the
    /// cache and the limit on concurrent verifications are those of this server; all together share
    /// that limit.
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
    /// let orders = ResourceServer::for_resource("https://api.example/orders", issuer.issuer())
    ///     .transport(issuer.transport())
    ///     .start()
    ///     .await?;
    /// let bills = orders.also("https://api.example/bills")?;
    ///
    /// let token = issuer.mint(&shop).audience(["https://api.example/bills"]).sign();
    /// assert!(bills.validate(&token).await.is_ok());
    /// assert!(orders.validate(&token).await.is_err());
    /// let document = bills.resource_metadata().expect("the resource is named");
    /// assert_eq!(document.path(), "/.well-known/oauth-protected-resource/bills");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// If the identifier is not valid, see [`ProtectedResource::new`], is plain `http` where the
    /// builder does not allow it, or the document has more than 16 KiB.
    pub fn also(
        &self,
        resource: impl TryInto<ProtectedResource, Error: Into<ConfigError>>,
    ) -> Result<Self, ConfigError> {
        let resource = resource.try_into().map_err(Into::into)?;
        let audience = Audience::new(resource.identifier())?;
        self.sharing_keys(&audience, Some(resource))
    }

    /// Returns a server for one more audience, with the same issuers and keys.
    ///
    /// As [`also`](Self::also), but the audience need not be a URL, and there is no document. For a
    /// part of the program that no client discovers, such as a consumer of messages beside a
    /// service.
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
    /// let queue = orders.also_with_audience("orders-queue")?;
    ///
    /// let token = issuer.mint(&shop).audience(["orders-queue"]).sign();
    /// assert!(queue.validate(&token).await.is_ok());
    /// assert!(orders.validate(&token).await.is_err());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// If the audience is not valid, see [`Audience::new`].
    pub fn also_with_audience(
        &self,
        audience: impl TryInto<Audience, Error: Into<ConfigError>>,
    ) -> Result<Self, ConfigError> {
        let audience = audience.try_into().map_err(Into::into)?;
        self.sharing_keys(&audience, None)
    }

    fn sharing_keys(
        &self,
        audience: &Audience,
        resource: Option<ProtectedResource>,
    ) -> Result<Self, ConfigError> {
        let Inner {
            issuers,
            clock,
            verification_limit,
            settings,
            ..
        } = &*self.0;
        let resource = settings.check_resource(resource)?;
        let issuers = issuers.iter().map(|issuer| issuer.for_audience(audience));
        Ok(Self(Arc::new(Inner::new(
            issuers.collect(),
            Arc::clone(clock),
            verification_limit.clone(),
            resource,
            settings.clone(),
        ))))
    }

    /// Whether usable keys are available, for readiness probes.
    ///
    /// Of every issuer, or of any: see [`readiness`](super::ResourceServerBuilder::readiness).
    /// Fixed keys are always available. [`key_sets`](Self::key_sets) reports each issuer. Revoked
    /// keys still count: if all are revoked, tokens get 401, and the server stays ready.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use tower_oauth::authorization_server::AuthorizationServer;
    /// # use tower_oauth::resource_server::Algorithm;
    /// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
    /// use http::StatusCode;
    /// use tower_oauth::ResourceServer;
    ///
    /// let (orders, refresher) = ResourceServer::builder(issuer.issuer(), "orders")
    ///     .transport(issuer.transport())
    ///     .build()?;
    /// let readyz = || match orders.keys_available() {
    ///     true => StatusCode::OK,
    ///     false => StatusCode::SERVICE_UNAVAILABLE,
    /// };
    /// assert_eq!(readyz(), 503);
    /// # tokio::spawn(refresher);
    /// # orders.wait_for_keys().await;
    /// // After the first fetch:
    /// assert_eq!(readyz(), 200);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn keys_available(&self) -> bool {
        let now = self.0.clock.now();
        let mut issuers = self.0.issuers.iter();
        let is_ready = |issuer: &IssuerState| issuer.validator.is_ready(now);
        match self.0.settings.readiness {
            ReadinessPolicy::All => issuers.all(is_ready),
            ReadinessPolicy::Any => issuers.any(is_ready),
        }
    }

    /// Waits until [`keys_available`](Self::keys_available).
    ///
    /// Also returns when the [`Refresher`](super::Refresher) has stopped, because then no keys can
    /// arrive. It is about the readiness of the server, not about one issuer: after a 503 wait for
    /// [`Rejection::retry_after`](super::Rejection::retry_after) before you validate a token again.
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
    /// tokio::spawn(refresher);
    /// orders.wait_for_keys().await;
    /// assert!(orders.keys_available());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn wait_for_keys(&self) {
        let now = || self.0.clock.now();
        let mut waits: Vec<_> = self
            .0
            .issuers
            .iter()
            .map(|issuer| Box::pin(issuer.validator.wait_until_ready(now)))
            .collect();
        std::future::poll_fn(|cx| {
            waits.retain_mut(|wait| wait.as_mut().poll(cx).is_pending());
            let is_done = match self.0.settings.readiness {
                ReadinessPolicy::All => waits.is_empty(),
                ReadinessPolicy::Any => waits.is_empty() || self.keys_available(),
            };
            if is_done {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }

    /// Returns the metadata of the protected resource, if the resource is named.
    ///
    /// ```
    /// use tower_oauth::ResourceServer;
    ///
    /// let server = ResourceServer::for_resource("https://api.example/orders", "https://as.example");
    /// let (server, _refresher) = server.build()?;
    /// let metadata = server.resource_metadata().expect("the resource is named");
    /// assert_eq!(metadata.path(), "/.well-known/oauth-protected-resource/orders");
    ///
    /// let unnamed = ResourceServer::builder("https://as.example", "orders");
    /// let (unnamed, _refresher) = unnamed.build()?;
    /// assert!(unnamed.resource_metadata().is_none());
    /// # Ok::<(), tower_oauth::ConfigError>(())
    /// ```
    ///
    /// [`ProtectedResourceMetadata::service`] adds it to a router.
    #[must_use]
    pub fn resource_metadata(&self) -> Option<&ProtectedResourceMetadata> {
        self.0.metadata.as_ref()
    }

    /// Returns the status of each issuer's key set, in the order of addition.
    ///
    /// Issuers of [settings](super::ResourceServerSettings) are added in the alphabetical order of
    /// their names.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use tower_oauth::authorization_server::AuthorizationServer;
    /// # use tower_oauth::resource_server::Algorithm;
    /// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
    /// use tower_oauth::ResourceServer;
    /// use tower_oauth::key_set::KeySetState;
    ///
    /// let orders = ResourceServer::builder(issuer.issuer(), "orders")
    ///     .transport(issuer.transport())
    ///     .start()
    ///     .await?;
    /// for status in orders.key_sets() {
    ///     assert_eq!(status.issuer(), &issuer.issuer());
    ///     assert_eq!(status.state(), KeySetState::Healthy);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn key_sets(&self) -> Vec<KeySetStatus> {
        let now = self.0.clock.now();
        self.all_keys().map(|keys| keys.status(now)).collect()
    }

    /// Returns the number of cached tokens, for tests and dashboards.
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
    /// # let orders = ResourceServer::builder(issuer.issuer(), "orders");
    /// # let orders = orders.transport(issuer.transport()).start().await?;
    /// let token = issuer.mint(&shop).audience(["orders"]).sign();
    /// orders.validate(&token).await?;
    /// assert_eq!(orders.cached_token_count(), 0);
    /// orders.validate(&token).await?; // cached from the second request on
    /// assert_eq!(orders.cached_token_count(), 1);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn cached_token_count(&self) -> u64 {
        u64::try_from(self.0.cache.len()).unwrap_or(u64::MAX)
    }

    /// Fetches the keys of every issuer now, regardless of schedule and rate limits.
    ///
    /// Returns the result of a fetch that started after this call. Waits while the
    /// [`Refresher`](super::Refresher) is not polled.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use tower_oauth::authorization_server::AuthorizationServer;
    /// # use tower_oauth::resource_server::Algorithm;
    /// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
    /// use tower_oauth::ResourceServer;
    ///
    /// let orders = ResourceServer::builder(issuer.issuer(), "orders")
    ///     .transport(issuer.transport())
    ///     .start()
    ///     .await?;
    /// issuer.rotate()?;
    /// orders.refresh_keys().await?;
    /// assert_eq!(orders.key_sets()[0].usable_key_count(), 2);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// If the keys of an issuer could not be fetched. The previous keys stay in use.
    pub async fn refresh_keys(&self) -> Result<(), Error> {
        // Request all refreshes before awaiting the first one, so that they run concurrently.
        let refreshes: Vec<_> = self.all_keys().map(KeySetHandle::refresh_keys).collect();
        let mut first_error = Ok(());
        for refresh in refreshes {
            first_error = first_error.and(refresh.await);
        }
        first_error
    }

    /// Revokes a key immediately, for the lifetime of this resource server and of those that share
    /// its keys (see [`also`](Self::also)).
    ///
    /// For the time between the loss of a private key and the reaction of its issuer. The
    /// revocation persists even if the issuer still publishes the key. Tokens with this `kid` are
    /// rejected, and so are tokens of the key that has this `kid` now, under any other `kid`.
    ///
    /// An alias that several issuers share denotes all of them. Returns whether an issuer of this
    /// name is trusted by this resource server, and has keys. It does not say whether there is a
    /// key of this `kid`: one that the set does not have is revoked in advance.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use tower_oauth::authorization_server::AuthorizationServer;
    /// # use tower_oauth::resource_server::Algorithm;
    /// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
    /// # let shop = issuer.register("shop")?;
    /// use tower_oauth::ResourceServer;
    /// use tower_oauth::resource_server::RejectionKind;
    ///
    /// let orders = ResourceServer::builder(issuer.issuer(), "orders")
    ///     .transport(issuer.transport())
    ///     .start()
    ///     .await?;
    /// let token = issuer.mint(&shop).audience(["orders"]).sign();
    /// assert!(orders.validate(&token).await.is_ok());
    ///
    /// let kid = issuer.keys()[0].kid().to_owned();
    /// assert!(orders.revoke_key(&issuer.issuer(), &kid));
    /// let rejection = orders.validate(&token).await.unwrap_err();
    /// assert_eq!(rejection.kind(), RejectionKind::RevokedKey);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use = "an issuer that is not trusted here has no keys to revoke"]
    pub fn revoke_key(&self, issuer: &Issuer, kid: &str) -> bool {
        let issuers = self.0.issuers.iter();
        let named = issuers.filter(|state| state.policy.find_issuer(issuer.as_str()).is_some());
        let keys = named.filter_map(|state| state.validator.keys());
        keys.inspect(|keys| keys.revoke_key(kid)).count() > 0
    }

    /// The key set of each issuer that has one, in the order of addition.
    pub(super) fn all_keys(&self) -> impl Iterator<Item = &KeySetHandle> {
        let issuers = self.0.issuers.iter();
        issuers.filter_map(|issuer| issuer.validator.keys())
    }
}
