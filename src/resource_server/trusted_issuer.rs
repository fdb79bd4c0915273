//! A trusted issuer and the policy for its tokens.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::AuthContext;
use super::claim_rules::{ClaimRules, ProviderRule};
use crate::clock::UnixTime;
use crate::error::{ConfigError, ConfigErrorKind, Error};
use crate::jwt::{Algorithm, ClaimsPolicy, TokenProfile};
use crate::key_set::{self, KeySet, RefreshPolicy, Source};
use crate::oauth::{Audience, Endpoint, Issuer, Scope};
use crate::transport::Transport;

/// An issuer whose tokens are accepted, with audience, keys and policy.
///
/// A token is only ever validated with the keys and the policy of the issuer that it names.
///
/// An issuer can put any subject, role and scope into its tokens. Of several issuers, each can thus
/// grant all scopes and roles that routes require. Bound what a partner grants with
/// [`require`](Self::require), here to one scope and no role. Only those of [`AuthContext::roles`]
/// count: a route that reads another claim, such as `resource_access` or `groups`, compares the
/// issuer.
///
/// ```
/// # #[cfg(feature = "authorization-server")]
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), tower_oauth::BoxError> {
/// # use tower_oauth::authorization_server::AuthorizationServer;
/// # let partner = AuthorizationServer::builder().build()?;
/// # let shop = partner.register("shop")?;
/// use tower_oauth::{Audience, ResourceServer, TrustedIssuer};
///
/// let trusted = TrustedIssuer::new(partner.issuer(), Audience::new("orders")?)
///     .transport(partner.transport())
///     .require(|token| token.scopes().all(|scope| scope == "orders.read"))
///     .require(|token| token.roles().next().is_none());
/// let orders = ResourceServer::from_issuer(trusted).start().await?; // or `add_issuer(trusted)`
///
/// let mint = |scope| partner.mint(&shop).audience(["orders"]).scope(scope);
/// assert!(orders.validate(&mint("orders.read").sign()).await.is_ok());
/// assert!(orders.validate(&mint("orders.read orders.read.all").sign()).await.is_err());
/// let auditor = mint("orders.read").claim("roles", ["auditor"]).sign();
/// assert!(orders.validate(&auditor).await.is_err());
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "authorization-server"))]
/// # fn main() {}
/// ```
///
/// ```
/// use tower_oauth::{Audience, Endpoint, Issuer, TrustedIssuer};
///
/// let issuer = TrustedIssuer::new(Issuer::new("https://as.example")?, Audience::new("orders")?)
///     .add_audience(Audience::new("https://orders.example")?)
///     .jwks_uri(Endpoint::new("https://as.example/keys")?);
/// # Ok::<(), tower_oauth::ConfigError>(())
/// ```
///
/// # Rules for claims
///
/// [`require_claim`], [`allowed_clients`], [`require`] and [`require_scopes`] restrict the tokens
/// that are accepted. They apply after the signature and the registered claims, in this order, and
/// never to an unverified token. The result is cached with the token: a cached token is not checked
/// again. So a closure must depend on the claims alone, not on time or other state. A token with an
/// unknown `kid` may cause a refresh of the keys, within the rate limit, with any rules.
///
/// A token that breaks one of the rules is rejected with 401, as one of an issuer that is not
/// trusted; only one that lacks a scope is rejected with 403.
///
/// ```
/// # #[cfg(feature = "authorization-server")]
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), tower_oauth::BoxError> {
/// use tower_oauth::authorization_server::{AuthorizationServer, TokenMint};
/// use tower_oauth::resource_server::RejectionKind::{
///     InsufficientScope, InvalidClaims, UntrustedClient,
/// };
/// use tower_oauth::{Audience, ResourceServer, TrustedIssuer};
///
/// let issuer = AuthorizationServer::builder().build()?;
/// let (shop, other) = (issuer.register("shop")?, issuer.register("other")?);
/// let trusted = TrustedIssuer::new(issuer.issuer(), Audience::new("orders")?)
///     .transport(issuer.transport())
///     .client_id_from(|token| token.subject().map(str::to_owned))
///     .require_claim("env", ["staging", "production"])
///     .allowed_clients([shop.client_id()])
///     .require(|token| !token.has_role("guest"))
///     .require_scopes(["orders"]);
/// let orders = ResourceServer::from_issuer(trusted).start().await?;
///
/// let mint = |client| {
///     issuer.mint(client).audience(["orders"]).scope("orders").claim("env", "staging")
/// };
/// let validate = async |token: TokenMint| match orders.validate(&token.sign()).await {
///     Ok(token) => Ok(token.client_id() == Some(shop.client_id())),
///     Err(rejection) => Err(rejection.kind()),
/// };
/// assert_eq!(validate(mint(&shop)).await, Ok(true));
/// assert_eq!(validate(mint(&shop).claim("env", "test")).await, Err(InvalidClaims));
/// assert_eq!(validate(mint(&other)).await, Err(UntrustedClient));
/// assert_eq!(validate(mint(&shop).claim("roles", vec!["guest"])).await, Err(InvalidClaims));
/// assert_eq!(validate(mint(&shop).scope("bills")).await, Err(InsufficientScope));
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "authorization-server"))]
/// # fn main() {}
/// ```
///
/// [`require_claim`]: Self::require_claim
/// [`allowed_clients`]: Self::allowed_clients
/// [`require`]: Self::require
/// [`require_scopes`]: Self::require_scopes
#[derive(Clone, Debug)]
#[must_use]
pub struct TrustedIssuer {
    policy: ClaimsPolicy,
    pub(super) rules: ClaimRules,
    /// The error of the first scope that is not valid.
    invalid_scope: Option<ConfigError>,
    pub(super) source: Source,
    pub(super) initial_keys: Option<(KeySet, UnixTime)>,
    // Without these, those of the resource server apply.
    pub(super) transport: Option<Arc<dyn Transport>>,
    pub(super) refresh: Option<RefreshPolicy>,
    pub(super) max_token_len: Option<usize>,
    leeway: Option<Duration>,
}

impl TrustedIssuer {
    /// Trusts the tokens of `issuer` for `audience`. Both are always checked.
    ///
    /// ```
    /// use tower_oauth::{Audience, Issuer, ResourceServer, TrustedIssuer};
    ///
    /// let issuer = Issuer::new("https://as.example")?;
    /// let issuer = TrustedIssuer::new(issuer, Audience::new("orders")?);
    /// let (orders, _refresher) = ResourceServer::from_issuer(issuer).build()?;
    /// assert_eq!(orders.key_sets()[0].issuer(), "https://as.example");
    /// # Ok::<(), tower_oauth::ConfigError>(())
    /// ```
    pub fn new(issuer: Issuer, audience: Audience) -> Self {
        Self::with_audiences(issuer, vec![audience])
    }

    /// Without audiences, `audience_optional` has to be set.
    pub(super) fn with_audiences(issuer: Issuer, audiences: Vec<Audience>) -> Self {
        let policy = ClaimsPolicy {
            issuer,
            issuer_aliases: Vec::new(),
            audiences,
            audience_optional: false,
            checks_key_issuers: false,
            algorithms: Algorithm::ALL.to_vec(),
            profile: TokenProfile::Jwt,
            max_candidate_keys: 1,
            leeway: Duration::ZERO, // set when the resource server is built
            max_lifetime: None,
        };
        Self {
            policy,
            rules: ClaimRules::default(),
            invalid_scope: None,
            source: Source::Discovery,
            initial_keys: None,
            transport: None,
            refresh: None,
            max_token_len: None,
            leeway: None,
        }
    }

    /// The issuer: the value of `iss` in its tokens.
    ///
    /// The presets of providers derive it. [`AuthContext::issuer`] is equal to it, unless the token
    /// names an [alias](Self::add_alias).
    ///
    /// ```
    /// use tower_oauth::TrustedIssuer;
    ///
    /// let sso = TrustedIssuer::keycloak("https://sso.example", "shop", "orders")?;
    /// assert_eq!(sso.issuer(), "https://sso.example/realms/shop");
    /// # Ok::<(), tower_oauth::ConfigError>(())
    /// ```
    #[must_use]
    pub fn issuer(&self) -> &Issuer {
        &self.policy.issuer
    }

    /// Accepts one more audience. One match is enough.
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
    ///     .add_audience(Audience::new("https://orders.example")?);
    /// let orders = ResourceServer::from_issuer(trusted)
    ///     .transport(issuer.transport())
    ///     .start()
    ///     .await?;
    /// let token = issuer.mint(&shop).audience(["https://orders.example"]).sign();
    /// assert!(orders.validate(&token).await.is_ok());
    /// # Ok(())
    /// # }
    /// ```
    pub fn add_audience(mut self, audience: Audience) -> Self {
        self.policy.audiences.push(audience);
        self
    }

    /// Accepts tokens without `aud`. Only together with [`allowed_clients`](Self::allowed_clients).
    ///
    /// For issuers whose access tokens name no resource, such as Cognito (for which
    /// [`cognito`](Self::cognito) sets it). The allowed clients then take the place of the
    /// audience. A token with another `aud` is still rejected ([RFC 7519
    /// §4.1.3](https://www.rfc-editor.org/rfc/rfc7519#section-4.1.3)).
    ///
    /// A configuration error without allowed clients, and with [`TokenProfile::Rfc9068`], which
    /// requires `aud`.
    ///
    /// ```
    /// use tower_oauth::{Audience, Issuer, ResourceServer, TrustedIssuer};
    ///
    /// let issuer = Issuer::new("https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_Example")?;
    /// let cognito = TrustedIssuer::new(issuer, Audience::new("orders")?).audience_optional();
    /// let error = ResourceServer::from_issuer(cognito.clone()).build().unwrap_err();
    /// assert_eq!(error.setting(), "audience_optional");
    ///
    /// let cognito = cognito
    ///     .require_claim("token_use", ["access"])
    ///     .allowed_clients(["7ol0h0kd3rk4b4q6n1m3v5u8a2"]);
    /// ResourceServer::from_issuer(cognito).build()?;
    /// # Ok::<(), tower_oauth::ConfigError>(())
    /// ```
    pub fn audience_optional(mut self) -> Self {
        self.policy.audience_optional = true;
        self
    }

    /// Accepts one more value of `iss` for this issuer.
    ///
    /// For an issuer that spells its name in several ways. It has the same keys under each name.
    /// [`AuthContext::issuer`] is the name in the token. Of several issuers with the same alias,
    /// the one that was added first has it. An alias that is the name of an issuer is a
    /// configuration error.
    ///
    /// ```
    /// use tower_oauth::{Audience, Issuer, ResourceServer, TrustedIssuer};
    ///
    /// let google = Issuer::new("https://accounts.google.com")?;
    /// let google = TrustedIssuer::new(google, Audience::new("orders")?)
    ///     .add_alias(Issuer::new("accounts.google.com")?);
    /// let (orders, _refresher) = ResourceServer::from_issuer(google).build()?;
    /// assert_eq!(orders.key_sets().len(), 1);
    /// # Ok::<(), tower_oauth::ConfigError>(())
    /// ```
    pub fn add_alias(mut self, issuer: Issuer) -> Self {
        self.policy.issuer_aliases.push(issuer);
        self
    }

    /// Starts with these keys, fetched at `fetched_at`. Default: none.
    ///
    /// With keys of an earlier run, tokens are accepted even if the issuer is unavailable at
    /// startup. The keys are used for `max_stale` from `fetched_at`, and replaced by the first
    /// fetched set.
    ///
    /// ```
    /// # let document = br#"{"keys":[{
    /// #     "kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
    /// # }]}"#;
    /// use tower_oauth::clock::{Clock, SystemClock};
    /// use tower_oauth::key_set::KeySet;
    /// use tower_oauth::{Audience, Issuer, ResourceServer, TrustedIssuer};
    ///
    /// let issuer = Issuer::new("https://as.example")?;
    /// let issuer = TrustedIssuer::new(issuer, Audience::new("orders")?)
    ///     .initial_keys(KeySet::from_json(document)?, SystemClock.now());
    /// let (orders, _refresher) = ResourceServer::from_issuer(issuer).build()?;
    /// assert!(orders.keys_available()); // before the first fetch
    /// # Ok::<(), tower_oauth::BoxError>(())
    /// ```
    pub fn initial_keys(mut self, keys: KeySet, fetched_at: UnixTime) -> Self {
        self.initial_keys = Some((keys, fetched_at));
        self
    }

    /// Starts with the keys of a JWK Set document in a file.
    ///
    /// As [`initial_keys`](Self::initial_keys), with the modification time of the file as
    /// `fetched_at`. The file, for example of a config map, is read immediately and only once.
    ///
    /// Protect the file: its keys decide which tokens are accepted.
    ///
    /// ```
    /// # let document = br#"{"keys":[{
    /// #     "kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
    /// # }]}"#;
    /// # let name = format!("tower-oauth-keys-{}.json", std::process::id());
    /// # let path = std::env::temp_dir().join(name);
    /// # std::fs::write(&path, document)?;
    /// use tower_oauth::{Audience, Issuer, ResourceServer, TrustedIssuer};
    ///
    /// let issuer = Issuer::new("https://as.example")?;
    /// let issuer = TrustedIssuer::new(issuer, Audience::new("orders")?)
    ///     .initial_keys_file(&path)?;
    /// # std::fs::remove_file(&path)?;
    /// let (orders, _refresher) = ResourceServer::from_issuer(issuer).build()?;
    /// assert!(orders.keys_available());
    /// # Ok::<(), tower_oauth::BoxError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If the file cannot be read or has no usable key set ([`KeySet::from_json`]).
    pub fn initial_keys_file(self, path: impl AsRef<Path>) -> Result<Self, Error> {
        let (keys, fetched_at) = key_set::initial_keys::read(path.as_ref())?;
        Ok(self.initial_keys(keys, fetched_at))
    }

    /// Fetches the keys from `jwks_uri`. Default: the `jwks_uri` of the metadata (RFC 8414).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use tower_oauth::authorization_server::AuthorizationServer;
    /// # use tower_oauth::resource_server::Algorithm;
    /// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
    /// use tower_oauth::authorization_server::EndpointKind;
    /// use tower_oauth::{Audience, ResourceServer, TrustedIssuer};
    ///
    /// let trusted = TrustedIssuer::new(issuer.issuer(), Audience::new("orders")?)
    ///     .jwks_uri(issuer.jwks_uri());
    /// let orders = ResourceServer::from_issuer(trusted)
    ///     .transport(issuer.transport())
    ///     .start()
    ///     .await?;
    /// assert!(orders.keys_available());
    /// assert_eq!(issuer.requests(EndpointKind::Discovery), 0);
    /// # Ok(())
    /// # }
    /// ```
    pub fn jwks_uri(mut self, jwks_uri: Endpoint) -> Self {
        self.source = Source::JwksUri(jwks_uri);
        self
    }

    /// Uses these keys and fetches none.
    ///
    /// ```
    /// # let document = br#"{"keys":[{
    /// #     "kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
    /// # }]}"#;
    /// use tower_oauth::key_set::KeySet;
    /// use tower_oauth::{Audience, Issuer, ResourceServer, TrustedIssuer};
    ///
    /// let issuer = Issuer::new("https://as.example")?;
    /// let issuer = TrustedIssuer::new(issuer, Audience::new("orders")?)
    ///     .keys(KeySet::from_json(document)?);
    /// let (orders, _refresher) = ResourceServer::from_issuer(issuer).build()?;
    /// assert!(orders.keys_available());
    /// assert_eq!(orders.key_sets()[0].next_refresh_in(), None);
    /// # Ok::<(), tower_oauth::BoxError>(())
    /// ```
    pub fn keys(mut self, keys: KeySet) -> Self {
        self.source = Source::Fixed(keys);
        self
    }

    /// Sets the transport for the metadata and keys of this issuer.
    ///
    /// For an issuer with another certificate authority, or behind another proxy. Default: that of
    /// the [resource server](super::ResourceServerBuilder::transport).
    ///
    /// ```
    /// use bytes::Bytes;
    /// use http::{Request, Response};
    /// use tower_oauth::transport::{SendFuture, Transport};
    /// use tower_oauth::{Audience, Issuer, ResourceServer, TrustedIssuer};
    ///
    /// /// An issuer in the same process.
    /// #[derive(Debug)]
    /// struct InProcess;
    ///
    /// impl Transport for InProcess {
    ///     fn send(&self, request: Request<Bytes>, _max_body: usize) -> SendFuture<'_> {
    ///         let body = match request.uri().path() {
    ///             "/keys" => br#"{"keys":[{"kty":"OKP","crv":"Ed25519",
    ///                 "x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#.as_slice(),
    ///             _ => br#"{"issuer":"https://local.example",
    ///                 "jwks_uri":"https://local.example/keys"}"#,
    ///         };
    ///         Box::pin(async move { Ok(Response::new(Bytes::from_static(body))) })
    ///     }
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// let local = Issuer::new("https://local.example")?;
    /// let local = TrustedIssuer::new(local, Audience::new("orders")?).transport(InProcess);
    /// let orders = ResourceServer::from_issuer(local).start().await?;
    /// assert!(orders.keys_available());
    /// # Ok(())
    /// # }
    /// ```
    pub fn transport(mut self, transport: impl Transport) -> Self {
        self.transport = Some(Arc::new(transport));
        self
    }

    /// Sets how the keys of this issuer are refreshed, and how long they are used.
    ///
    /// Default: that of the [resource server](super::ResourceServerBuilder::refresh).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use tower_oauth::authorization_server::AuthorizationServer;
    /// # use tower_oauth::resource_server::Algorithm;
    /// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
    /// use std::time::Duration;
    /// use tower_oauth::key_set::RefreshPolicy;
    /// use tower_oauth::{Audience, ResourceServer, TrustedIssuer};
    ///
    /// let hourly = RefreshPolicy::new().interval(Duration::from_secs(3600));
    /// let trusted = TrustedIssuer::new(issuer.issuer(), Audience::new("orders")?)
    ///     .refresh(hourly.min_interval(Duration::from_secs(3600)))
    ///     .transport(issuer.transport());
    /// let orders = ResourceServer::from_issuer(trusted).start().await?;
    /// let next = orders.key_sets()[0].next_refresh_in().expect("a refresh is scheduled");
    /// assert!(next > Duration::from_secs(1800));
    /// # Ok(())
    /// # }
    /// ```
    pub fn refresh(mut self, policy: RefreshPolicy) -> Self {
        self.refresh = Some(policy);
        self
    }

    /// Accepts only these signature algorithms. Default: all of [`Algorithm`], each with keys of
    /// its type. An empty list is a configuration error.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use tower_oauth::authorization_server::AuthorizationServer;
    /// # use tower_oauth::resource_server::Algorithm;
    /// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
    /// # let shop = issuer.register("shop")?;
    /// use tower_oauth::resource_server::RejectionKind;
    /// use tower_oauth::{Audience, ResourceServer, TrustedIssuer};
    ///
    /// let trusted = TrustedIssuer::new(issuer.issuer(), Audience::new("orders")?)
    ///     .algorithms([Algorithm::Rs256, Algorithm::Ps256])
    ///     .transport(issuer.transport());
    /// let orders = ResourceServer::from_issuer(trusted).start().await?;
    /// let es256 = issuer.mint(&shop).audience(["orders"]).sign();
    /// let rejection = orders.validate(&es256).await.unwrap_err();
    /// assert_eq!(rejection.kind(), RejectionKind::UnsupportedAlgorithm);
    /// # Ok(())
    /// # }
    /// ```
    pub fn algorithms(mut self, algorithms: impl IntoIterator<Item = Algorithm>) -> Self {
        self.policy.algorithms = algorithms.into_iter().collect();
        self
    }

    /// Sets the profile that tokens must follow. Default: [`TokenProfile::Jwt`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use tower_oauth::authorization_server::AuthorizationServer;
    /// # use tower_oauth::resource_server::Algorithm;
    /// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
    /// # let shop = issuer.register("shop")?;
    /// use tower_oauth::resource_server::{RejectionKind, TokenProfile};
    /// use tower_oauth::{Audience, ResourceServer, TrustedIssuer};
    ///
    /// let trusted = TrustedIssuer::new(issuer.issuer(), Audience::new("orders")?)
    ///     .profile(TokenProfile::Rfc9068)
    ///     .transport(issuer.transport());
    /// let orders = ResourceServer::from_issuer(trusted).start().await?;
    /// let mint = || issuer.mint(&shop).audience(["orders"]);
    /// assert!(orders.validate(&mint().rfc9068().sign()).await.is_ok());
    /// let rejection = orders.validate(&mint().sign()).await.unwrap_err();
    /// assert_eq!(rejection.kind(), RejectionKind::UnexpectedTokenType);
    /// # Ok(())
    /// # }
    /// ```
    pub fn profile(mut self, profile: TokenProfile) -> Self {
        self.policy.profile = profile;
        self
    }

    /// Rejects tokens with a longer lifetime, from `iat` (else `nbf`) to `exp`. Default: no limit.
    ///
    /// With a limit, tokens that have neither `iat` nor `nbf` are rejected as well.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use tower_oauth::authorization_server::AuthorizationServer;
    /// # use tower_oauth::resource_server::Algorithm;
    /// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
    /// # let shop = issuer.register("shop")?;
    /// use std::time::Duration;
    /// use tower_oauth::{Audience, ResourceServer, TrustedIssuer};
    ///
    /// let trusted = TrustedIssuer::new(issuer.issuer(), Audience::new("orders")?)
    ///     .max_lifetime(Duration::from_secs(600))
    ///     .transport(issuer.transport());
    /// let orders = ResourceServer::from_issuer(trusted).start().await?;
    /// let mint = |lifetime| issuer.mint(&shop).audience(["orders"]).expires_in(lifetime).sign();
    /// assert!(orders.validate(&mint(Duration::from_secs(600))).await.is_ok());
    /// assert!(orders.validate(&mint(Duration::from_secs(3600))).await.is_err());
    /// # Ok(())
    /// # }
    /// ```
    pub fn max_lifetime(mut self, limit: Duration) -> Self {
        self.policy.max_lifetime = Some(limit);
        self
    }

    /// Sets the clock leeway for `exp`, `nbf` and `iat` of this issuer's tokens.
    ///
    /// Default: that of the [resource server](super::ResourceServerBuilder::leeway), 60 seconds.
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
    /// use tower_oauth::{Audience, ResourceServer, TrustedIssuer};
    ///
    /// let same_clock = TrustedIssuer::new(issuer.issuer(), Audience::new("orders")?)
    ///     .leeway(Duration::ZERO)
    ///     .transport(issuer.transport());
    /// let orders = ResourceServer::from_issuer(same_clock).clock(clock.clone()).start().await?;
    /// let minute = Duration::from_secs(60);
    /// let token = issuer.mint(&shop).audience(["orders"]).expires_in(minute).sign();
    /// clock.advance(minute);
    /// assert!(orders.validate(&token).await.is_err());
    /// # Ok(())
    /// # }
    /// ```
    pub fn leeway(mut self, leeway: Duration) -> Self {
        self.leeway = Some(leeway);
        self
    }

    /// Sets the maximum length of this issuer's tokens in bytes.
    ///
    /// A longer token is rejected with [`RejectionKind::TokenTooLong`][kind] as soon as its `iss`
    /// is read. The limit of the resource server is the largest of its issuers'; it applies before
    /// the token is parsed, and scales the limits on its content.
    ///
    /// Default: that of the [resource server](super::ResourceServerBuilder::max_token_len), 16 KiB.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use tower_oauth::authorization_server::AuthorizationServer;
    /// # use tower_oauth::resource_server::Algorithm;
    /// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
    /// # let shop = issuer.register("shop")?;
    /// use tower_oauth::resource_server::RejectionKind;
    /// use tower_oauth::{Audience, ResourceServer, TrustedIssuer};
    ///
    /// let trusted = TrustedIssuer::new(issuer.issuer(), Audience::new("orders")?)
    ///     .max_token_len(1024)
    ///     .transport(issuer.transport());
    /// let orders = ResourceServer::from_issuer(trusted).start().await?;
    /// let token = issuer.mint(&shop).audience(["orders"]).claim("groups", "g".repeat(1024));
    /// let rejection = orders.validate(&token.sign()).await.unwrap_err();
    /// assert_eq!(rejection.kind(), RejectionKind::TokenTooLong);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// [kind]: super::RejectionKind::TokenTooLong
    pub fn max_token_len(mut self, bytes: usize) -> Self {
        self.max_token_len = Some(bytes);
        self
    }

    /// Sets how many keys are tried for one token, at most 4. Default: 1.
    ///
    /// It applies to tokens without `kid`, and to those whose `kid` several keys share. If more
    /// keys match the algorithm than the limit, the token is rejected with
    /// [`RejectionKind::AmbiguousKey`](super::RejectionKind::AmbiguousKey). With a limit of 1, keys
    /// that share a `kid` are not used:
    /// [`RejectionKind::UnknownKey`](super::RejectionKind::UnknownKey).
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
    /// issuer.rotate()?; // now it publishes two keys
    /// let trusted = TrustedIssuer::new(issuer.issuer(), Audience::new("orders")?)
    ///     .max_candidate_keys(2)
    ///     .transport(issuer.transport());
    /// let orders = ResourceServer::from_issuer(trusted).start().await?;
    /// let token = issuer.mint(&shop).audience(["orders"]).without_header("kid").sign();
    /// assert!(orders.validate(&token).await.is_ok());
    /// # Ok(())
    /// # }
    /// ```
    pub fn max_candidate_keys(mut self, limit: usize) -> Self {
        self.policy.max_candidate_keys = limit.clamp(1, 4);
        self
    }

    /// Requires a claim with one of these values.
    ///
    /// The values are compared as JSON: `"1"` is not `1`, and `["a"]` is not `"a"`. Called for
    /// several claims, each of them is required. A token without one is rejected with
    /// [`RejectionKind::InvalidClaims`](super::RejectionKind::InvalidClaims). No values are a
    /// configuration error.
    ///
    /// A number that is no integer of 64 bits is a configuration error, because different numbers
    /// may be equal as doubles.
    ///
    /// ```
    /// use tower_oauth::{Audience, Issuer, ResourceServer, TrustedIssuer};
    ///
    /// let issuer = Issuer::new("https://token.actions.githubusercontent.com")?;
    /// let workflows = TrustedIssuer::new(issuer, Audience::new("https://deploy.example")?)
    ///     .require_claim("repository_id", ["123456789"])
    ///     .require_claim("environment", ["staging", "production"]);
    /// ResourceServer::from_issuer(workflows.clone()).build()?;
    ///
    /// let none: [&str; 0] = [];
    /// let error = ResourceServer::from_issuer(workflows.require_claim("ref", none)).build();
    /// assert_eq!(error.unwrap_err().setting(), "require_claim");
    /// # Ok::<(), tower_oauth::ConfigError>(())
    /// ```
    pub fn require_claim(
        mut self,
        name: impl Into<String>,
        values: impl IntoIterator<Item = impl Into<Value>>,
    ) -> Self {
        let values = values.into_iter().map(Into::into).collect();
        self.rules.required_claims.push((name.into(), values));
        self
    }

    /// Accepts only tokens that were issued to these clients. Default: all clients.
    ///
    /// Compared with [`AuthContext::client_id`]. A token of another client, or of none, is rejected
    /// with [`RejectionKind::UntrustedClient`][kind]; one whose `client_id`, `azp`, `appid` or
    /// `cid` is neither a string nor `null` with
    /// [`InvalidClaims`](super::RejectionKind::InvalidClaims). An empty list is a configuration
    /// error.
    ///
    /// ```
    /// use tower_oauth::{Audience, Issuer, ResourceServer, TrustedIssuer};
    ///
    /// let issuer = Issuer::new("https://as.example")?;
    /// let issuer = TrustedIssuer::new(issuer, Audience::new("orders")?)
    ///     .allowed_clients(["shop", "warehouse"]);
    /// ResourceServer::from_issuer(issuer.clone()).build()?;
    ///
    /// let error = ResourceServer::from_issuer(issuer.allowed_clients([""])).build().unwrap_err();
    /// assert_eq!(error.setting(), "allowed_clients");
    /// # Ok::<(), tower_oauth::ConfigError>(())
    /// ```
    ///
    /// [kind]: super::RejectionKind::UntrustedClient
    pub fn allowed_clients(mut self, clients: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let clients = clients.into_iter().map(Into::into).collect();
        self.rules.allowed_clients = Some(clients);
        self
    }

    /// Sets where the client of a token is named.
    ///
    /// The closure gets each validated token, and returns what [`AuthContext::client_id`] is from
    /// then on; `None` for a token without a client. In the token that it gets, `client_id` is the
    /// default: `client_id`, else `azp`, `appid` or `cid`, the first that is present.
    ///
    /// The closure must depend on the claims alone, because its result is cached with the token.
    ///
    /// ```
    /// use tower_oauth::{Audience, AuthContext, Issuer, ResourceServer, TrustedIssuer};
    ///
    /// // Service accounts of Kubernetes are named by `sub` alone.
    /// let issuer = Issuer::new("https://kubernetes.default.svc.cluster.local")?;
    /// let cluster = TrustedIssuer::new(issuer, Audience::new("https://orders")?)
    ///     .client_id_from(|token: &AuthContext| token.subject().map(str::to_owned))
    ///     .allowed_clients(["system:serviceaccount:shop:frontend"]);
    /// ResourceServer::from_issuer(cluster).build()?;
    /// # Ok::<(), tower_oauth::ConfigError>(())
    /// ```
    pub fn client_id_from(
        mut self,
        client_id: impl Fn(&AuthContext) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        self.rules.client_name = Some(Arc::new(client_id));
        self
    }

    /// Requires a property of the claims.
    ///
    /// The closure gets each token as a handler does. A token for which it returns `false` is
    /// rejected with [`RejectionKind::InvalidClaims`](super::RejectionKind::InvalidClaims). Called
    /// several times, all must return `true`.
    ///
    /// The closure must depend on the claims alone, because its result is cached with the token.
    /// It runs in the task of the request and should not block. If it panics, that request does.
    ///
    /// ```
    /// use tower_oauth::{Audience, AuthContext, Issuer, ResourceServer, TrustedIssuer};
    ///
    /// let issuer = Issuer::new("https://as.example")?;
    /// let issuer = TrustedIssuer::new(issuer, Audience::new("orders")?)
    ///     .require(|token: &AuthContext| token.has_role("buyer") || token.has_role("seller"));
    /// ResourceServer::from_issuer(issuer).build()?;
    /// # Ok::<(), tower_oauth::ConfigError>(())
    /// ```
    pub fn require(
        mut self,
        predicate: impl Fn(&AuthContext) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.rules.predicates.push(Arc::new(predicate));
        self
    }

    /// Requires all of these scopes, on every route.
    ///
    /// A token that lacks one is rejected with 403 and
    /// [`RejectionKind::InsufficientScope`](super::RejectionKind::InsufficientScope)
    /// ([RFC 6750 §3.1](https://www.rfc-editor.org/rfc/rfc6750#section-3.1)), and the challenge
    /// names all of them. Called several times, all are required. A scope that is not valid is a
    /// configuration error. For the scopes of single routes see
    /// [`RequireScopeLayer`](super::RequireScopeLayer). The challenge of a route does not name the
    /// scopes of the issuer: let the route require them, too, because a client requests exactly
    /// the scopes of the challenge.
    ///
    /// ```
    /// use tower_oauth::{Audience, Issuer, ResourceServer, TrustedIssuer};
    ///
    /// let issuer = Issuer::new("https://as.example")?;
    /// let issuer = TrustedIssuer::new(issuer, Audience::new("orders")?);
    /// ResourceServer::from_issuer(issuer.clone().require_scopes(["orders"])).build()?;
    ///
    /// let invalid = issuer.require_scopes(["two scopes"]);
    /// let error = ResourceServer::from_issuer(invalid).build().unwrap_err();
    /// assert_eq!(error.setting(), "require_scopes");
    /// # Ok::<(), tower_oauth::ConfigError>(())
    /// ```
    pub fn require_scopes(
        mut self,
        scopes: impl IntoIterator<Item: TryInto<Scope, Error: Into<ConfigError>>>,
    ) -> Self {
        for scope in scopes {
            match scope.try_into() {
                Ok(scope) => self.rules.required_scopes.push(scope),
                Err(error) => {
                    let error: ConfigError = error.into();
                    let error = error.with_setting("require_scopes");
                    self.invalid_scope.get_or_insert(error);
                }
            }
        }
        self
    }

    /// Adds a rule for the tokens of a provider.
    pub(super) fn require_of_provider(mut self, rule: ProviderRule) -> Self {
        self.rules.provider_rules.push(rule);
        self
    }

    /// Accepts no key whose member `issuer` names another issuer.
    pub(super) fn check_key_issuers(mut self) -> Self {
        self.policy.checks_key_issuers = true;
        self
    }

    /// Whether its keys are fetched, so that it is a server that clients can probably ask.
    pub(super) fn is_fetched(&self) -> bool {
        !matches!(self.source, Source::Fixed(_))
    }

    pub(super) fn aliases(&self) -> &[Issuer] {
        &self.policy.issuer_aliases
    }

    /// Checks the settings. `leeway` is the default.
    pub(super) fn policy(&self, leeway: Duration) -> Result<ClaimsPolicy, ConfigError> {
        if self.policy.algorithms.is_empty() {
            let reason = "must not be empty";
            return Err(ConfigError::without_value("algorithms", reason));
        }
        if let Some(error) = &self.invalid_scope {
            return Err(error.clone());
        }
        self.rules.check()?;
        if self.policy.audience_optional {
            self.check_audience_optional()?;
        }
        let mut policy = self.policy.clone();
        policy.leeway = self.leeway.unwrap_or(leeway);
        Ok(policy)
    }

    /// Without an audience, the client must show that a token is meant for this server.
    fn check_audience_optional(&self) -> Result<(), ConfigError> {
        let reason = if self.rules.allowed_clients.is_none() {
            "requires `allowed_clients`"
        } else if self.policy.profile == TokenProfile::Rfc9068 {
            "cannot be used with the profile of RFC 9068, which requires `aud`"
        } else {
            return Ok(());
        };
        let error = ConfigError::without_value("audience_optional", reason);
        Err(error.with_kind(ConfigErrorKind::Conflict))
    }
}
