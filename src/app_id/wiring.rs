//! The resource server and the token manager of a binding.

use serde::{Deserialize, Deserializer};

use super::Binding;
use crate::client::{ClientCredentials, TokenManager, TokenManagerBuilder};
use crate::error::ConfigError;
use crate::oauth::Audience;
use crate::resource_server::{AuthContext, ResourceServer, ResourceServerBuilder, TrustedIssuer};

impl Binding {
    /// Returns a builder of a resource server for the application of this binding.
    ///
    /// It accepts tokens of version 4 and 3 with this tenant and this audience. It rejects tokens
    /// without a string `scope`: every access token of App ID has one, and no identity token does.
    /// The scope `appid_default` is not required, because a token for explicitly requested scopes
    /// lacks it. To require it, add
    /// [`RequireScopeLayer::all(["appid_default"])`](crate::RequireScopeLayer).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use tower_oauth::authorization_server::AuthorizationServer;
    /// # use tower_oauth::resource_server::Algorithm;
    /// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
    /// # let shop = issuer.register("shop")?;
    /// let binding = shop.binding()?; // or `Binding::from_env()?`
    /// let server = binding.resource_server()?.transport(issuer.transport()).start().await?;
    /// let caller = server.validate(&issuer.mint(&shop).sign()).await?;
    /// assert_eq!(caller.client_id(), binding.client_id());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// If the binding has no client id: use
    /// [`resource_server_for`](Self::resource_server_for) instead.
    pub fn resource_server(&self) -> Result<ResourceServerBuilder, ConfigError> {
        let client_id = self.client_id().ok_or_else(|| {
            ConfigError::missing(
                "audience",
                "must be set: the App ID binding has no client id",
            )
        })?;
        Ok(self.resource_server_for(Audience::new(client_id)?))
    }

    /// Returns a builder of a resource server for this tenant and `audience`.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use tower_oauth::authorization_server::AuthorizationServer;
    /// # use tower_oauth::resource_server::Algorithm;
    /// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
    /// # let shop = issuer.register("shop")?;
    /// use tower_oauth::Audience;
    ///
    /// let builder = shop.binding()?.resource_server_for(Audience::new("orders")?);
    /// let orders = builder.transport(issuer.transport()).start().await?;
    /// let token = issuer.mint(&shop).audience(["orders"]).sign();
    /// assert!(orders.validate(&token).await.is_ok());
    /// # Ok(())
    /// # }
    /// ```
    pub fn resource_server_for(&self, audience: Audience) -> ResourceServerBuilder {
        ResourceServer::from_issuer(self.trusted_issuer(audience))
    }

    /// Returns the tenant as an issuer of tokens for `audience`.
    ///
    /// For a resource server with other settings of the issuer, such as a second audience, or with
    /// several tenants or issuers. Each tenant has all rules of
    /// [`resource_server`](Self::resource_server). Version 3 tokens name a host alone, which the
    /// tenants of a region share: they are accepted from the tenant that was added first.
    ///
    /// ```
    /// use tower_oauth::{Audience, ResourceServer, app_id::Binding};
    ///
    /// let binding = Binding::from_json(
    ///     r#"{"oauthServerUrl": "https://eu-gb.appid.cloud.ibm.com/oauth/v4/39a37f57-a227"}"#,
    /// )?;
    /// let tenant = binding.trusted_issuer(Audience::new("orders")?);
    /// let tenant = tenant.add_audience(Audience::new("https://orders.example")?);
    /// let (orders, refresher) = ResourceServer::from_issuer(tenant).build()?;
    /// assert!(orders.key_sets()[0].issuer().as_str().ends_with("/oauth/v4/39a37f57-a227"));
    /// # Ok::<(), tower_oauth::ConfigError>(())
    /// ```
    pub fn trusted_issuer(&self, audience: Audience) -> TrustedIssuer {
        self.apply_to(TrustedIssuer::new(self.issuer().clone(), audience))
    }

    /// Adds the rules of [`resource_server`](Self::resource_server) to an issuer that was made from
    /// settings.
    ///
    /// These are the issuer of version 3 tokens, the URL of the keys, the tenant, and how a token
    /// names its client. `issuer` has to be that of this binding, [`issuer`](Self::issuer).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use tower_oauth::authorization_server::AuthorizationServer;
    /// # use tower_oauth::resource_server::Algorithm;
    /// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
    /// # let shop = issuer.register("shop")?;
    /// use tower_oauth::resource_server::ResourceServerSettings;
    ///
    /// let binding = shop.binding()?; // or `Binding::from_env()?`
    /// let settings: ResourceServerSettings = serde_json::from_value(serde_json::json!({
    ///     "issuers": { "app_id": { "issuer": binding.issuer(), "audience": "orders" } },
    ///     "refresh": { "max_stale_seconds": 3600 },
    /// }))?;
    /// let orders = settings
    ///     .to_builder_with(|_name, issuer| binding.apply_to(issuer))?
    ///     .transport(issuer.transport())
    ///     .start()
    ///     .await?;
    /// let caller = orders.validate(&issuer.mint(&shop).audience(["orders"]).sign()).await?;
    /// assert_eq!(caller.client_id(), binding.client_id());
    /// # Ok(())
    /// # }
    /// ```
    pub fn apply_to(&self, issuer: TrustedIssuer) -> TrustedIssuer {
        let tenant = self.tenant_id().to_owned();
        issuer
            .add_alias(self.v3_issuer().clone())
            .jwks_uri(self.keys_url().clone())
            .client_id_from(client_id)
            .require(move |token| is_access_token_of(&tenant, token))
    }

    /// Returns the credentials of this application, for the method of client authentication that
    /// App ID expects.
    ///
    /// Client id and secret of a [mounted secret](Self::from_file) are read again for each token
    /// request, so that a replaced mount needs no restart.
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
    /// let binding = shop.binding()?; // or `Binding::from_env()?`
    /// let credentials = binding.credentials()?.client_secret_post(); // another method
    /// let tokens = TokenManager::builder(binding.token_endpoint().clone(), credentials)
    ///     .transport(issuer.transport())
    ///     .start()?;
    /// assert!(tokens.access_token().await.is_ok());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// If the binding has no client id or no secret.
    pub fn credentials(&self) -> Result<ClientCredentials, ConfigError> {
        let missing =
            |what: &str| ConfigError::missing(what, "must be set: the App ID binding has none");
        let client_id = self.client_id().ok_or_else(|| missing("client id"))?;
        let secret = self.secret().ok_or_else(|| missing("client secret"))?;
        let credentials = match self.mounted().cloned() {
            None => ClientCredentials::new(client_id, secret.clone()),
            Some(mounted) => {
                let fixed_id = client_id.to_owned();
                ClientCredentials::from_fn(client_id, move || Ok(mounted.read(&fixed_id)?))
            }
        };
        Ok(credentials.client_secret_basic_raw())
    }

    /// Returns a builder of a token manager for this application.
    ///
    /// Corresponds to `getApplicationIdentityToken` of the Node SDK, with a cache. By default, the
    /// token has the scope `appid_default` and every scope assigned to the application, and the
    /// application itself as its audience.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use tower_oauth::authorization_server::AuthorizationServer;
    /// # use tower_oauth::resource_server::Algorithm;
    /// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
    /// # let shop = issuer.register("shop")?;
    /// let binding = shop.binding()?; // or `Binding::from_env()?`
    /// let tokens = binding.token_manager()?.transport(issuer.transport()).start()?;
    /// let token = tokens.access_token().await?;
    /// let scopes = token.scopes().unwrap_or_default();
    /// assert!(scopes.iter().any(|scope| scope == "appid_default"));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// If the binding has no client id or no secret.
    pub fn token_manager(&self) -> Result<TokenManagerBuilder, ConfigError> {
        let credentials = self.credentials()?;
        Ok(TokenManager::builder(
            self.token_endpoint().clone(),
            credentials,
        ))
    }
}

/// Whether this is an access token of the tenant: a string `scope`, which identity tokens lack, and
/// the tenant in the claim `tenant`, else in `iss`. Tenants share the version 3 issuer.
fn is_access_token_of(tenant: &str, token: &AuthContext) -> bool {
    #[derive(Deserialize)]
    struct AccessToken {
        #[serde(default, deserialize_with = "string")]
        tenant: Option<String>,
        #[serde(rename = "scope")]
        _scope: String,
    }
    /// Unlike an `Option`, rejects `null`: a claim of another type is not an absent one.
    fn string<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
        String::deserialize(deserializer).map(Some)
    }
    match serde_json::from_str::<AccessToken>(token.claims_json()) {
        Ok(claims) => match claims.tenant {
            Some(claimed) => claimed == tenant,
            None => token.issuer().as_str().rsplit('/').next() == Some(tenant),
        },
        Err(_) => false,
    }
}

/// The client: named by a claim, else in app-to-app tokens by `sub`.
fn client_id(token: &AuthContext) -> Option<String> {
    #[derive(Deserialize)]
    struct AuthenticationMethods {
        amr: Vec<String>,
    }
    let is_app_to_app = || {
        serde_json::from_str(token.claims_json()).is_ok_and(|claims: AuthenticationMethods| {
            claims
                .amr
                .iter()
                .any(|one| one == "appid_client_credentials")
        })
    };
    let client = token.client_id();
    client
        .or_else(|| token.subject().filter(|_| is_app_to_app()))
        .map(str::to_owned)
}
