//! The settings of a client in a file or in variables.

mod authentication;

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use serde::de::Deserializer;

use self::authentication::{Method, algorithm, client_authentication};
use super::{
    ClientAuthentication, ClientCredentials, TokenManager, TokenManagerBuilder, TokenManagers,
    TokenManagersBuilder,
};
use crate::error::{ConfigError, ConfigErrorKind};
use crate::jwt::Algorithm;
use crate::oauth::{Audience, Endpoint, Issuer, Origin, Scope};
use crate::settings::{
    Provider, ProviderFields, by_commas, by_spaces, choice, flag, number, positive, secret,
    secrets, text,
};

/// The settings of a client, to be read from a file and from environment variables.
///
/// Implements [`Deserialize`](serde::Deserialize), for TOML, YAML, JSON and variables, for example
/// with the crates figment or config. [`to_builder`](Self::to_builder) makes a builder of them, to
/// which a transport or a clock can be added.
///
/// [`guide::settings`](mod@crate::guide::settings) has every field, and examples with both crates.
/// What is absent has the default of the builder. An unknown field is an error, but not with
/// `#[serde(flatten)]`, where serde ignores it: give the settings a table. Neither `Debug` nor an
/// error shows the client secret.
///
/// ```
/// use tower_oauth::client::ClientSettings;
///
/// let settings: ClientSettings = serde_json::from_str(
///     r#"{
///         "issuer": "https://as.example",
///         "client_id": "shop",
///         "client_secret_file": "/run/secrets/shop",
///         "audience": "orders",
///         "scopes": "orders.read orders.write"
///     }"#,
/// )?;
/// let (_tokens, _renewer) = settings.to_builder()?.build()?;
/// # Ok::<(), tower_oauth::BoxError>(())
/// ```
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientSettings {
    #[serde(default, deserialize_with = "provider")]
    provider: Option<Provider>,
    #[serde(default, deserialize_with = "text")]
    issuer: Option<Issuer>,
    #[serde(default, deserialize_with = "text")]
    token_endpoint: Option<Endpoint>,
    /// The resource whose metadata have to list the issuer (RFC 9728).
    #[serde(default, deserialize_with = "text")]
    for_resource: Option<String>,
    // The fields of the presets.
    #[serde(default, deserialize_with = "text")]
    url: Option<String>,
    #[serde(default, deserialize_with = "text")]
    realm: Option<String>,
    #[serde(default, deserialize_with = "text")]
    tenant: Option<String>,
    #[serde(default, deserialize_with = "text")]
    domain: Option<String>,
    #[serde(default, deserialize_with = "text")]
    authorization_server: Option<String>,
    #[serde(default, deserialize_with = "text")]
    region: Option<String>,
    #[serde(default, deserialize_with = "text")]
    user_pool: Option<String>,
    // The client.
    #[serde(default, deserialize_with = "text")]
    client_id: Option<String>,
    #[serde(default, deserialize_with = "secret")]
    client_secret: Option<SecretString>,
    /// Read again for each token request.
    #[serde(default, deserialize_with = "text")]
    client_secret_file: Option<PathBuf>,
    #[serde(default, deserialize_with = "client_authentication")]
    client_authentication: Option<Method>,
    /// Read again for each token request, as the two other files.
    #[serde(default, deserialize_with = "text")]
    client_key_file: Option<PathBuf>,
    #[serde(default, deserialize_with = "algorithm")]
    client_key_algorithm: Option<Algorithm>,
    #[serde(default, deserialize_with = "text")]
    client_key_id: Option<String>,
    #[serde(default, deserialize_with = "text")]
    client_certificate_file: Option<PathBuf>,
    #[serde(default, deserialize_with = "text")]
    client_assertion_file: Option<PathBuf>,
    #[serde(default, deserialize_with = "text")]
    client_assertion_audience: Option<String>,
    // The token request.
    #[serde(default, deserialize_with = "text")]
    audience: Option<Audience>,
    #[serde(default, deserialize_with = "by_commas")]
    resource: Option<Vec<String>>,
    #[serde(default, deserialize_with = "flag")]
    omit_resource: Option<bool>,
    #[serde(default, deserialize_with = "by_spaces")]
    scopes: Option<Vec<Scope>>,
    #[serde(default, deserialize_with = "by_spaces")]
    step_up_scopes: Option<Vec<Scope>>,
    /// Their values may be secrets.
    #[serde(default, deserialize_with = "secrets")]
    parameters: BTreeMap<String, SecretString>,
    #[serde(default, deserialize_with = "flag")]
    assume_bearer: Option<bool>,
    // The manager.
    #[serde(default, deserialize_with = "text")]
    name: Option<String>,
    #[serde(default, deserialize_with = "positive")]
    assumed_lifetime_seconds: Option<NonZeroU64>,
    #[serde(default, deserialize_with = "positive")]
    renew_before_expiry_seconds: Option<NonZeroU64>,
    #[serde(default, deserialize_with = "positive")]
    request_timeout_seconds: Option<NonZeroU64>,
    #[serde(default, deserialize_with = "positive")]
    acquire_timeout_seconds: Option<NonZeroU64>,
    #[serde(default, deserialize_with = "number")]
    max_waiters: Option<usize>,
    #[serde(default, deserialize_with = "by_commas")]
    allow_http: Option<Vec<String>>,
    #[serde(default, deserialize_with = "flag")]
    allow_loopback_http: Option<bool>,
    #[serde(default, deserialize_with = "text")]
    user_agent: Option<String>,
    /// By names of the user's choice.
    #[serde(default)]
    targets: BTreeMap<String, TargetSettings>,
}

/// An origin, and how its token is obtained.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct TargetSettings {
    #[serde(deserialize_with = "text")]
    origin: Option<Origin>,
    #[serde(deserialize_with = "text")]
    audience: Option<Audience>,
    #[serde(deserialize_with = "by_commas")]
    resource: Option<Vec<String>>,
    #[serde(deserialize_with = "by_spaces")]
    scopes: Option<Vec<Scope>>,
    #[serde(deserialize_with = "by_spaces")]
    step_up_scopes: Option<Vec<Scope>>,
    #[serde(deserialize_with = "text")]
    name: Option<String>,
}

impl TargetSettings {
    /// Adds what is requested for this target.
    fn configure(&self, mut builder: TokenManagerBuilder) -> TokenManagerBuilder {
        if let Some(audience) = &self.audience {
            builder = builder.audience(audience.clone());
        }
        for resource in self.resource.iter().flatten() {
            builder = builder.resource(resource);
        }
        builder = builder.scopes(self.scopes.iter().flatten().cloned());
        if let Some(scopes) = &self.step_up_scopes {
            builder = builder.step_up_scopes(scopes.iter().cloned());
        }
        if let Some(name) = &self.name {
            builder = builder.name(name);
        }
        builder
    }
}

fn provider<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Provider>, D::Error> {
    choice(deserializer, Provider::CLIENT_CHOICES)
}

impl ClientSettings {
    /// Makes a builder of these settings. Does no I/O, but for the certificate of
    /// `tls_client_auth`, which is read if the settings have its file.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use tower_oauth::authorization_server::AuthorizationServer;
    /// # use tower_oauth::resource_server::Algorithm;
    /// # use secrecy::ExposeSecret as _;
    /// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
    /// # let shop = issuer.register("shop")?;
    /// # let document = serde_json::json!({
    /// #     "issuer": issuer.issuer(),
    /// #     "client_id": shop.client_id(),
    /// #     "client_secret": shop.secret().expose_secret(),
    /// # }).to_string();
    /// use tower_oauth::client::ClientSettings;
    ///
    /// let settings: ClientSettings = serde_json::from_str(&document)?;
    /// let tokens = settings
    ///     .to_builder()?
    ///     .transport(issuer.transport()) // an `AuthorizationServer` in the same process
    ///     .start()?;
    /// assert!(tokens.access_token().await.is_ok());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// If there are `targets`, a field is missing that the client or its provider needs, one is set
    /// that the provider does not use, or the values of fields do not fit together. The error names
    /// the setting. What [`build`](TokenManagerBuilder::build) reports is reported there.
    pub fn to_builder(&self) -> Result<TokenManagerBuilder, ConfigError> {
        self.check_no_targets()?;
        self.builder(self.client()?, self.audience.as_ref())
    }

    /// Makes a builder of these settings with credentials from elsewhere. Does no I/O.
    ///
    /// For credentials that no file has, such as those of [`ClientCredentials::from_fn`] or of a
    /// binding of App ID. They are in place of `client_id`, `client_secret` and
    /// `client_secret_file`, which must not be set. `client_authentication` replaces their method,
    /// if it is set.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use tower_oauth::authorization_server::AuthorizationServer;
    /// # use tower_oauth::resource_server::Algorithm;
    /// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
    /// # let shop = issuer.register("shop")?;
    /// # let document = serde_json::json!({ "issuer": issuer.issuer() }).to_string();
    /// # let (id, secret) = (shop.client_id().to_owned(), shop.secret().clone());
    /// use tower_oauth::ClientCredentials;
    /// use tower_oauth::client::ClientSettings;
    ///
    /// let settings: ClientSettings = serde_json::from_str(&document)?;
    /// let credentials = ClientCredentials::from_fn("shop", move || {
    ///     Ok((id.clone(), secret.clone())) // read from a vault, for example
    /// });
    /// let tokens = settings
    ///     .to_builder_with_credentials(credentials)?
    ///     .transport(issuer.transport()) // an `AuthorizationServer` in the same process
    ///     .start()?;
    /// assert!(tokens.access_token().await.is_ok());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`to_builder`](Self::to_builder), and if one of the three fields is set.
    pub fn to_builder_with_credentials(
        &self,
        credentials: ClientCredentials,
    ) -> Result<TokenManagerBuilder, ConfigError> {
        let fields = [
            ("client_id", self.client_id.is_some()),
            ("client_secret", self.client_secret.is_some()),
            ("client_secret_file", self.client_secret_file.is_some()),
        ];
        if let Some((setting, _)) = fields.into_iter().find(|(_, is_set)| *is_set) {
            let reason = "is in the credentials that were given";
            let error = ConfigError::without_value(setting, reason);
            return Err(error.with_kind(ConfigErrorKind::Conflict));
        }
        self.check_no_targets()?;
        self.check_client_fields()?;
        let client = self.with_method(credentials)?;
        self.builder(client, self.audience.as_ref())
    }

    /// Reads the files of the secret, or of the signing key and its certificate, once, so that a
    /// wrong path or key is an error at startup. Blocks.
    ///
    /// The files are read again for each token request. The file of a `client_assertion` may be
    /// written after the start, so it is not read here. [`to_builder`](Self::to_builder) reads the
    /// certificate of `tls_client_auth`.
    ///
    /// ```
    /// use tower_oauth::client::ClientSettings;
    ///
    /// let settings: ClientSettings = serde_json::from_str(
    ///     r#"{
    ///         "issuer": "https://as.example",
    ///         "client_id": "shop",
    ///         "client_authentication": "private_key_jwt",
    ///         "client_key_file": "/no/such/key"
    ///     }"#,
    /// )?;
    /// assert!(settings.to_builder().is_ok());
    /// let error = settings.check_files().unwrap_err();
    /// assert_eq!(error.setting(), "client_key_file");
    /// # Ok::<(), tower_oauth::BoxError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If a file cannot be read, has no usable secret, key or certificate, or the certificate is of
    /// another key. The error names the setting.
    pub fn check_files(&self) -> Result<(), ConfigError> {
        let named = |setting: &'static str| move |error: ConfigError| error.with_setting(setting);
        if let Some(file) = &self.client_secret_file {
            let credentials = ClientCredentials::from_secret_file("not checked", file);
            let checked = credentials.check_secret();
            checked.map_err(named("client_secret_file"))?;
        }
        match (self.client_authentication, &self.client_key_file) {
            (Some(Method::PrivateKeyJwt), Some(file)) => {
                let key = self.signing_key(file);
                key.check_key().map_err(named("client_key_file"))?;
                self.client_certificate_file
                    .as_ref()
                    .map_or(Ok(()), |file| {
                        let key = key.certificate_file(file);
                        key.check_key().map_err(named("client_certificate_file"))
                    })
            }
            _ => Ok(()),
        }
    }

    fn check_no_targets(&self) -> Result<(), ConfigError> {
        if self.targets.is_empty() {
            return Ok(());
        }
        let reason = "have a token each: use `to_managers_builder`";
        let error = ConfigError::without_value("targets", reason);
        Err(error.with_kind(ConfigErrorKind::Conflict))
    }

    /// Makes a builder of these settings with their `targets`. Does no I/O, but as
    /// [`to_builder`](Self::to_builder).
    ///
    /// All targets share the client, its issuer, and the settings beside `targets`. The `audience`
    /// of a target replaces that of the client, its scopes and resources are added.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use tower_oauth::authorization_server::AuthorizationServer;
    /// # use tower_oauth::resource_server::Algorithm;
    /// # use secrecy::ExposeSecret as _;
    /// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
    /// # let shop = issuer.register("shop")?;
    /// # let document = serde_json::json!({
    /// #     "issuer": issuer.issuer(),
    /// #     "client_id": shop.client_id(),
    /// #     "client_secret": shop.secret().expose_secret(),
    /// #     "targets": {
    /// #         "orders": { "origin": "https://orders.example", "audience": "orders" },
    /// #         "bills": { "origin": "https://bills.example", "audience": "bills" },
    /// #     },
    /// # }).to_string();
    /// use tower_oauth::client::ClientSettings;
    ///
    /// let settings: ClientSettings = serde_json::from_str(&document)?;
    /// let tokens = settings
    ///     .to_managers_builder(|builder| builder.transport(issuer.transport()))?
    ///     .start()?;
    /// let orders = tokens.get("https://orders.example").ok_or("it is a target")?;
    /// assert!(orders.access_token().await.is_ok());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// `change` gets the builder that all targets have in common, for a transport or a clock.
    ///
    /// # Errors
    ///
    /// As [`to_builder`](Self::to_builder); if there is no target, or one without `origin`.
    pub fn to_managers_builder(
        &self,
        change: impl FnOnce(TokenManagerBuilder) -> TokenManagerBuilder,
    ) -> Result<TokenManagersBuilder, ConfigError> {
        let required = |setting| Err(ConfigError::missing(setting, "is required"));
        if self.targets.is_empty() {
            return required("targets".to_owned());
        }
        if self.for_resource.is_some() {
            return Err(conflict("targets", "for_resource"));
        }
        // Auth0 requires one: that of each target replaces it.
        let audiences = self.targets.values().map(|target| target.audience.as_ref());
        let audience = self.audience.as_ref();
        let audience = audience.or_else(|| audiences.flatten().next());
        let builder = change(self.builder(self.client()?, audience)?);
        let mut managers = TokenManagers::builder();
        for (name, target) in &self.targets {
            let Some(origin) = target.origin.clone() else {
                return required(format!("targets.{name}.origin"));
            };
            let lacks_audience = self.audience.is_none() && target.audience.is_none();
            if self.provider == Some(Provider::Auth0) && lacks_audience {
                return required(format!("targets.{name}.audience"));
            }
            let mut builder = builder.clone();
            if let Some(client) = &self.name {
                // Managers with the same name share a time series.
                builder = builder.name(format!("{client} {name}"));
            }
            managers = managers.target(origin, target.configure(builder));
        }
        Ok(managers)
    }

    /// The builder without the targets.
    fn builder(
        &self,
        client: Arc<dyn ClientAuthentication>,
        audience: Option<&Audience>,
    ) -> Result<TokenManagerBuilder, ConfigError> {
        let mut builder = self.with_mtls(self.for_provider(client, audience)?)?;
        if let Some(audience) = &self.audience {
            builder = builder.audience(audience.clone());
        }
        for resource in self.resource.iter().flatten() {
            builder = builder.resource(resource);
        }
        if self.omit_resource == Some(true) {
            builder = builder.omit_resource();
        }
        builder = builder.scopes(self.scopes.iter().flatten().cloned());
        if let Some(scopes) = &self.step_up_scopes {
            builder = builder.step_up_scopes(scopes.iter().cloned());
        }
        for (name, value) in &self.parameters {
            builder = builder.parameter(name, value.expose_secret());
        }
        if self.assume_bearer == Some(true) {
            builder = builder.assume_bearer();
        }
        if let Some(name) = &self.name {
            builder = builder.name(name);
        }
        if let Some(seconds) = self.assumed_lifetime_seconds {
            builder = builder.assumed_lifetime(Duration::from_secs(seconds.get()));
        }
        if let Some(seconds) = self.renew_before_expiry_seconds {
            builder = builder.renew_before_expiry(Duration::from_secs(seconds.get()));
        }
        if let Some(seconds) = self.request_timeout_seconds {
            builder = builder.request_timeout(Duration::from_secs(seconds.get()));
        }
        if let Some(seconds) = self.acquire_timeout_seconds {
            builder = builder.acquire_timeout(Duration::from_secs(seconds.get()));
        }
        if let Some(calls) = self.max_waiters {
            builder = builder.max_waiters(calls);
        }
        if let Some(hosts) = &self.allow_http {
            builder = builder.allow_http(hosts);
        }
        if self.allow_loopback_http == Some(true) {
            builder = builder.allow_loopback_http();
        }
        if let Some(user_agent) = &self.user_agent {
            builder = builder.user_agent(user_agent);
        }
        Ok(builder)
    }

    /// Where tokens are requested, and by whom.
    fn for_provider(
        &self,
        client: Arc<dyn ClientAuthentication>,
        audience: Option<&Audience>,
    ) -> Result<TokenManagerBuilder, ConfigError> {
        let mut fields = self.provider_fields();
        let builder = match self.provider {
            Some(Provider::Keycloak) => {
                TokenManager::keycloak(fields.required("url")?, fields.required("realm")?, client)
            }
            Some(Provider::Entra) => TokenManager::entra(fields.required("tenant")?, client),
            Some(Provider::Auth0) => {
                let audience = audience.ok_or_else(|| fields.missing("audience"))?;
                TokenManager::auth0(fields.required("domain")?, audience.clone(), client)
            }
            Some(Provider::Okta) => {
                let server = fields.required("authorization_server")?;
                TokenManager::okta(fields.required("domain")?, server, client)
            }
            Some(Provider::Cognito) => {
                let user_pool = fields.required("user_pool")?;
                TokenManager::cognito(fields.required("region")?, user_pool, client)
            }
            // They are no `CLIENT_CHOICES`.
            None | Some(Provider::Google | Provider::Supabase | Provider::Zitadel) => {
                self.for_issuer(&mut fields, client)
            }
        }?;
        fields.finish()?;
        if self.omit_resource.is_some() && self.for_resource.is_none() {
            let error = ConfigError::without_value("omit_resource", "requires `for_resource`");
            return Err(error.with_kind(ConfigErrorKind::Conflict));
        }
        Ok(builder)
    }

    /// Without a provider.
    fn for_issuer(
        &self,
        fields: &mut ProviderFields<'_>,
        client: Arc<dyn ClientAuthentication>,
    ) -> Result<TokenManagerBuilder, ConfigError> {
        let issuer = fields.optional("issuer").map(Issuer::new).transpose()?;
        let resource = fields.optional("for_resource");
        fields.optional("token_endpoint");
        match (issuer, &self.token_endpoint, resource) {
            (Some(issuer), None, None) => TokenManager::for_issuer(issuer, client),
            (Some(issuer), None, Some(resource)) => {
                Ok(TokenManager::for_resource(resource, issuer, client))
            }
            (None, Some(endpoint), None) => Ok(TokenManager::builder(endpoint.clone(), client)),
            (Some(_), Some(_), _) => Err(conflict("token_endpoint", "issuer")),
            (None, Some(_), Some(_)) => Err(conflict("token_endpoint", "for_resource")),
            (None, None, _) => {
                let reason = "is required, or `provider`, or `token_endpoint`";
                Err(ConfigError::missing("issuer", reason))
            }
        }
    }

    /// The fields that not every provider uses.
    fn provider_fields(&self) -> ProviderFields<'_> {
        let fields = [
            ("issuer", self.issuer.as_ref().map(Issuer::as_str)),
            (
                "token_endpoint",
                self.token_endpoint.as_ref().map(Endpoint::as_str),
            ),
            ("for_resource", self.for_resource.as_deref()),
            ("url", self.url.as_deref()),
            ("realm", self.realm.as_deref()),
            ("tenant", self.tenant.as_deref()),
            ("domain", self.domain.as_deref()),
            ("authorization_server", self.authorization_server.as_deref()),
            ("region", self.region.as_deref()),
            ("user_pool", self.user_pool.as_deref()),
        ];
        ProviderFields::new("", self.provider, fields)
    }
}

fn required(setting: &str) -> ConfigError {
    ConfigError::missing(setting, "is required")
}

fn conflict(setting: &str, other: &str) -> ConfigError {
    let error = ConfigError::without_value(setting, format!("cannot be set with `{other}`"));
    error.with_kind(ConfigErrorKind::Conflict)
}
