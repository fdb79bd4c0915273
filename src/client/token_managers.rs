//! Several token managers: each origin has its own token.

use std::sync::Arc;

use super::builder::{current_runtime, warn_of_plain_http};
use super::renewal::Renewer;
use super::targets::Target;
use super::{BearerTokenLayer, TokenManager, TokenManagerBuilder};
use crate::error::{ConfigError, ConfigErrorKind};
use crate::oauth::Origin;

/// The token managers of several targets: origins that each need another token.
///
/// For a client that calls several services, each of which needs another audience, resource or
/// scope. A target is a [`TokenManagerBuilder`]; the clones of one builder share its settings and
/// one discovery. One task renews all tokens, each as a [`TokenManager`] does: a slow or failed
/// token request delays no other target.
///
/// This is a handle on shared state and cheap to clone. The task ends with the last clone,
/// including the clones in layers and services, and the managers of [`get`](Self::get).
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), tower_oauth::BoxError> {
/// # use http_body_util::BodyExt as _;
/// # let sso_server = tower_oauth::transport::ServiceTransport::new(tower::service_fn(
/// #     async |request: http::Request<http_body_util::Full<bytes::Bytes>>| {
/// #         let body = match request.uri().path() {
/// #             "/.well-known/openid-configuration" => serde_json::json!({
/// #                 "issuer": "https://sso.example",
/// #                 "token_endpoint": "https://sso.example/token",
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
/// # let http = tower::service_fn(async |request: http::Request<String>| {
/// #     let token = request.headers()["authorization"].clone();
/// #     Ok::<_, std::convert::Infallible>(http::Response::new(token))
/// # });
/// use http::Request;
/// use tower::{ServiceBuilder, ServiceExt as _};
/// use tower_oauth::{Issuer, TokenManager, TokenManagers};
///
/// let sso = TokenManager::for_issuer(Issuer::new("https://sso.example")?, credentials)?
///     .transport(sso_server); // an issuer whose tokens are the forms that it receives
/// let tokens = TokenManagers::builder()
///     .target("https://orders.example", sso.clone().audience("orders"))
///     .target("https://bills.example", sso.scope("bills.read"))
///     .start()?;
///
/// // `http` responds with the `Authorization` field that it receives.
/// let client = ServiceBuilder::new().layer(tokens.layer()).service(http);
/// let request = Request::get("https://orders.example/").body(String::new())?;
/// let token = client.clone().oneshot(request).await?.into_body();
/// assert_eq!(token, "Bearer grant_type=client_credentials&audience=orders");
/// let request = Request::get("https://bills.example/").body(String::new())?;
/// let token = client.oneshot(request).await?.into_body();
/// assert_eq!(token, "Bearer grant_type=client_credentials&scope=bills.read");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct TokenManagers(Arc<[Manager]>);

#[derive(Debug)]
struct Manager {
    origin: Origin,
    tokens: TokenManager,
}

impl TokenManagers {
    /// A builder without targets.
    pub fn builder() -> TokenManagersBuilder {
        TokenManagersBuilder {
            targets: Vec::new(),
        }
    }

    /// Returns a layer that adds to each request the token of its origin.
    ///
    /// Requests to other origins get no token. The layer also is middleware for reqwest, with the
    /// feature `reqwest-middleware`.
    ///
    /// [`allow_origin_form`](BearerTokenLayer::allow_origin_form) has an effect only if there is
    /// one target, whose origin is allowed: a URI without an authority does not say which target it
    /// is for.
    pub fn layer(&self) -> BearerTokenLayer {
        let target = |manager: &Manager| Target::new(&manager.tokens, [manager.origin.clone()]);
        BearerTokenLayer::new(self.0.iter().map(target))
    }

    /// The token manager of the target with this origin, for use by hand.
    ///
    /// Takes an [`Origin`] or a text. `None` if there is no such target, or the text is no origin.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use tower_oauth::authorization_server::AuthorizationServer;
    /// # use tower_oauth::resource_server::Algorithm;
    /// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
    /// # let shop = issuer.register("shop")?;
    /// use tower_oauth::{TokenManager, TokenManagers};
    ///
    /// # let sso = TokenManager::builder(issuer.token_endpoint(), shop.credentials());
    /// # let sso = sso.transport(issuer.transport());
    /// let tokens = TokenManagers::builder().target("https://orders.example", sso).start()?;
    /// let orders = tokens.get("https://orders.example").ok_or("no such target")?;
    /// assert!(orders.access_token().await?.expires_at().is_some());
    /// assert!(tokens.get("https://bills.example").is_none());
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn get(&self, origin: impl AsRef<str>) -> Option<&TokenManager> {
        let origin = Origin::new(origin).ok()?;
        let manager = self.0.iter().find(|manager| manager.origin == origin);
        manager.map(|manager| &manager.tokens)
    }
}

/// A builder of [`TokenManagers`].
///
/// ```
/// # fn main() -> Result<(), tower_oauth::BoxError> {
/// # let credentials = tower_oauth::ClientCredentials::new("shop", "s3cret");
/// use tower_oauth::error::ConfigErrorKind;
/// use tower_oauth::{Endpoint, TokenManager, TokenManagers};
///
/// let sso = TokenManager::builder(Endpoint::new("https://sso.example/token")?, credentials);
/// let builder = TokenManagers::builder().target("https://orders.example", sso.clone());
/// let (_tokens, _renewer) = builder.clone().build()?;
///
/// let twice = builder.target("https://orders.example:443", sso).build().unwrap_err();
/// assert_eq!(twice.kind(), ConfigErrorKind::Conflict);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct TokenManagersBuilder {
    targets: Vec<(Result<Origin, ConfigError>, TokenManagerBuilder)>,
}

impl TokenManagersBuilder {
    /// Adds a target: an origin, and how its token is obtained.
    ///
    /// Takes an [`Origin`], or a text of one. A text that is no origin is an error of
    /// [`build`](Self::build).
    ///
    /// The default [name](TokenManagerBuilder::name) of the manager is that of the builder and the
    /// origin: `my-client-id https://orders.example`.
    pub fn target(
        mut self,
        origin: impl TryInto<Origin, Error: Into<ConfigError>>,
        tokens: TokenManagerBuilder,
    ) -> Self {
        let origin = origin.try_into().map_err(Into::into);
        self.targets.push((origin, tokens));
        self
    }

    /// Builds the managers and one [`Renewer`] for all, which the caller has to poll or spawn.
    ///
    /// Does no I/O and spawns nothing.
    ///
    /// # Errors
    ///
    /// - If there is no target, or an origin is added twice.
    /// - If an origin is not valid, or is plain `http` beyond loopback without
    ///   [`allow_http`](TokenManagerBuilder::allow_http): no token would be sent to it.
    /// - As [`TokenManagerBuilder::build`], for each target. The error names the target.
    pub fn build(self) -> Result<(TokenManagers, Renewer), ConfigError> {
        if self.targets.is_empty() {
            return Err(ConfigError::missing(
                "target",
                "must be added at least once",
            ));
        }
        let mut managers: Vec<Manager> = Vec::new();
        let mut renewers = Vec::new();
        for (origin, builder) in self.targets {
            let origin = origin.map_err(|error| error.with_setting("target"))?;
            if managers.iter().any(|other| other.origin == origin) {
                let error = ConfigError::new("target", origin.as_str(), "must be added only once");
                return Err(error.with_kind(ConfigErrorKind::Conflict));
            }
            let (tokens, renewer) = builder.build_target(&origin).map_err(|error| {
                let setting = format!("{} of the target {origin}", error.setting());
                error.with_setting(setting)
            })?;
            tokens
                .plain_http()
                .check(origin.endpoint())
                .map_err(|error| error.with_setting("target"))?;
            managers.push(Manager { origin, tokens });
            renewers.push(renewer);
        }
        warn_of_plain_http(managers.iter().map(|manager| manager.tokens.plain_http()));
        Ok((TokenManagers(managers.into()), Renewer::all(renewers)))
    }

    /// Builds the managers and spawns their task on the current tokio runtime.
    ///
    /// The first token of a target is requested when it is first needed.
    ///
    /// # Errors
    ///
    /// As [`build`](Self::build), or if called outside of a tokio runtime.
    pub fn start(self) -> Result<TokenManagers, ConfigError> {
        let runtime = current_runtime()?;
        let (managers, renewer) = self.build()?;
        runtime.spawn(renewer);
        Ok(managers)
    }
}
