//! The settings of a resource server in a file or in variables.

mod issuer;
mod refresh;

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::time::Duration;

use serde::de::Deserializer;

use self::issuer::IssuerSettings;
use self::refresh::RefreshSettings;
use super::{
    ProtectedResource, ReadinessPolicy, ResourceServer, ResourceServerBuilder, Startup,
    TrustedIssuer,
};
use crate::error::{ConfigError, ConfigErrorKind};
use crate::key_set::{RefreshPolicy, Source};
use crate::oauth::{Endpoint, Scope};
use crate::settings::{by_commas, by_spaces, choice, flag, number, positive, table, text};

/// The settings of a resource server, to be read from a file and from environment variables.
///
/// Implements [`Deserialize`](serde::Deserialize), for TOML, YAML, JSON and variables, for example
/// with the crates figment or config. [`to_builder`](Self::to_builder) makes a builder of them, to
/// which a transport or a clock can be added.
///
/// [`guide::settings`](mod@crate::guide::settings) has every field, and examples with both crates.
/// What is absent has the default of the builder. An unknown field is an error, but not with
/// `#[serde(flatten)]`, where serde ignores it: give the settings a table.
///
/// ```
/// use tower_oauth::resource_server::ResourceServerSettings;
///
/// let settings: ResourceServerSettings = serde_json::from_str(
///     r#"{
///         "issuers": {
///             "partner": {
///                 "issuer": "https://partner.example",
///                 "audience": "orders",
///                 "allowed_clients": ["shop", "bills"]
///             }
///         },
///         "refresh": { "max_stale_seconds": 3600 }
///     }"#,
/// )?;
/// let (orders, _refresher) = settings.to_builder()?.build()?;
/// assert_eq!(orders.key_sets()[0].issuer(), "https://partner.example");
/// # Ok::<(), tower_oauth::BoxError>(())
/// ```
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResourceServerSettings {
    /// By names of the user's choice, so that another file or a variable can change a part.
    #[serde(default)]
    issuers: BTreeMap<String, IssuerSettings>,
    #[serde(default, deserialize_with = "table")]
    refresh: Option<RefreshSettings>,
    #[serde(default, deserialize_with = "number")]
    leeway_seconds: Option<u64>,
    /// Bytes.
    #[serde(default, deserialize_with = "number")]
    max_token_len: Option<usize>,
    #[serde(default, deserialize_with = "number")]
    max_cached_tokens: Option<u64>,
    /// Bytes.
    #[serde(default, deserialize_with = "number")]
    max_cache_size: Option<u64>,
    #[serde(default, deserialize_with = "number")]
    max_concurrent_verifications: Option<usize>,
    #[serde(default, deserialize_with = "text")]
    realm: Option<String>,
    /// The identifier of the protected resource (RFC 9728).
    #[serde(default, deserialize_with = "text")]
    resource: Option<String>,
    #[serde(default, deserialize_with = "text")]
    resource_name: Option<String>,
    #[serde(default, deserialize_with = "by_spaces")]
    scopes_supported: Option<Vec<Scope>>,
    #[serde(default, deserialize_with = "by_commas")]
    allow_http: Option<Vec<String>>,
    #[serde(default, deserialize_with = "flag")]
    allow_loopback_http: Option<bool>,
    #[serde(default, deserialize_with = "text")]
    user_agent: Option<String>,
    #[serde(default, deserialize_with = "readiness")]
    readiness: Option<ReadinessPolicy>,
    #[serde(default, deserialize_with = "startup")]
    startup: Option<StartupMode>,
    #[serde(default, deserialize_with = "positive")]
    startup_timeout_seconds: Option<NonZeroU64>,
}

/// A [`Startup`] without its time limit.
#[derive(Clone, Copy, Debug)]
enum StartupMode {
    Background,
    Require,
    Wait,
}

fn readiness<'de, D>(deserializer: D) -> Result<Option<ReadinessPolicy>, D::Error>
where
    D: Deserializer<'de>,
{
    let choices = [("all", ReadinessPolicy::All), ("any", ReadinessPolicy::Any)];
    choice(deserializer, &choices)
}

fn startup<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<StartupMode>, D::Error> {
    let choices = [
        ("background", StartupMode::Background),
        ("require", StartupMode::Require),
        ("wait", StartupMode::Wait),
    ];
    choice(deserializer, &choices)
}

impl ResourceServerSettings {
    /// Makes a builder of these settings.
    ///
    /// Reads the files of initial keys, and does no other I/O.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use tower_oauth::authorization_server::AuthorizationServer;
    /// # use tower_oauth::resource_server::Algorithm;
    /// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
    /// # let shop = issuer.register("shop")?;
    /// # let json = serde_json::json!({
    /// #     "issuers": { "local": { "issuer": issuer.issuer(), "audience": "orders" } }
    /// # });
    /// # let document = json.to_string();
    /// use tower_oauth::resource_server::ResourceServerSettings;
    ///
    /// let settings: ResourceServerSettings = serde_json::from_str(&document)?;
    /// let orders = settings
    ///     .to_builder()?
    ///     .transport(issuer.transport()) // an `AuthorizationServer` in the same process
    ///     .start()
    ///     .await?;
    /// assert!(orders.validate(&issuer.mint(&shop).audience(["orders"]).sign()).await.is_ok());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// If there is no issuer, an issuer lacks a field that it needs or has one that its provider
    /// does not use, a file of initial keys cannot be used, or the values of fields do not fit
    /// together. The error names the setting with its path, such as `issuers.sso.realm`. What
    /// [`build`](ResourceServerBuilder::build) reports is reported there.
    pub fn to_builder(&self) -> Result<ResourceServerBuilder, ConfigError> {
        self.to_builder_with(|_name, issuer| issuer)
    }

    /// Makes a builder of these settings, and changes each issuer before it is added.
    ///
    /// For what no file can say, such as a closure. `change` gets the name of the issuer in the
    /// settings, in alphabetical order. [`TrustedIssuer::issuer`] is what a preset derives, and
    /// [`guide::settings`](mod@crate::guide::settings#several-issuers) has an example with it.
    ///
    /// ```
    /// use tower_oauth::resource_server::ResourceServerSettings;
    ///
    /// let settings: ResourceServerSettings = serde_json::from_str(
    ///     r#"{ "issuers": { "k8s": {
    ///         "issuer": "https://kubernetes.default.svc.cluster.local",
    ///         "audience": "orders",
    ///         "allowed_clients": "system:serviceaccount:shop:frontend"
    ///     } } }"#,
    /// )?;
    /// // Service accounts of Kubernetes are named by `sub` alone.
    /// let builder = settings.to_builder_with(|name, issuer| match name {
    ///     "k8s" => issuer.client_id_from(|token| token.subject().map(str::to_owned)),
    ///     _ => issuer,
    /// })?;
    /// builder.build()?;
    /// # Ok::<(), tower_oauth::BoxError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`to_builder`](Self::to_builder).
    pub fn to_builder_with(
        &self,
        mut change: impl FnMut(&str, TrustedIssuer) -> TrustedIssuer,
    ) -> Result<ResourceServerBuilder, ConfigError> {
        let resource = self.protected_resource()?;
        let identifier = resource.as_ref().map(ProtectedResource::identifier);
        let defaults = RefreshPolicy::new();
        let refresh = self.refresh.as_ref();
        let refresh = refresh.map_or_else(|| defaults.clone(), |refresh| refresh.apply(&defaults));
        let mut issuers = self.issuers.iter().map(|(name, settings)| {
            let path = format!("issuers.{name}.");
            let issuer = settings.trusted_issuer(&path, identifier, &refresh)?;
            let issuer = change(name, issuer);
            // Checked when it is built, too, but there without the name of the issuer.
            let in_settings = |error: ConfigError| with_path(error, &path);
            let policy = issuer.policy(Duration::ZERO).map_err(in_settings)?;
            if matches!(issuer.source, Source::Discovery) {
                let url = Endpoint::new(policy.issuer.as_str());
                url.map_err(|error| in_settings(error.with_setting("issuer")))?;
            }
            Ok(issuer)
        });
        let first = issuers.next().unwrap_or_else(|| {
            let reason = "must have at least one issuer";
            Err(ConfigError::missing("issuers", reason))
        });
        let builder = ResourceServer::from_issuer(first?);
        let builder = issuers.try_fold(builder, |builder, issuer| {
            Ok::<_, ConfigError>(builder.add_issuer(issuer?))
        })?;
        self.configure(builder.refresh(refresh), resource)
    }

    /// Sets what is not of an issuer.
    fn configure(
        &self,
        mut builder: ResourceServerBuilder,
        resource: Option<ProtectedResource>,
    ) -> Result<ResourceServerBuilder, ConfigError> {
        if let Some(seconds) = self.leeway_seconds {
            builder = builder.leeway(Duration::from_secs(seconds));
        }
        if let Some(bytes) = self.max_token_len {
            builder = builder.max_token_len(bytes);
        }
        if let Some(limit) = self.max_cached_tokens {
            builder = builder.max_cached_tokens(limit);
        }
        if let Some(bytes) = self.max_cache_size {
            builder = builder.max_cache_size(bytes);
        }
        if let Some(limit) = self.max_concurrent_verifications {
            builder = builder.max_concurrent_verifications(limit);
        }
        if let Some(realm) = &self.realm {
            builder = builder.realm(realm);
        }
        if let Some(resource) = resource {
            builder = builder.protected_resource(resource);
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
        if let Some(policy) = self.readiness {
            builder = builder.readiness(policy);
        }
        if let Some(startup) = self.startup()? {
            builder = builder.startup(startup);
        }
        Ok(builder)
    }

    fn startup(&self) -> Result<Option<Startup>, ConfigError> {
        let timeout = self.startup_timeout_seconds;
        let timeout = timeout.map(|seconds| Duration::from_secs(seconds.get()));
        let (setting, reason) = match (self.startup, timeout) {
            (None, None) => return Ok(None),
            (Some(StartupMode::Background), None) => return Ok(Some(Startup::Background)),
            (Some(StartupMode::Require), Some(limit)) => return Ok(Some(Startup::Require(limit))),
            (Some(StartupMode::Wait), Some(limit)) => return Ok(Some(Startup::Wait(limit))),
            (Some(StartupMode::Require | StartupMode::Wait), None) => {
                ("startup", "requires `startup_timeout_seconds`")
            }
            (None | Some(StartupMode::Background), Some(_)) => (
                "startup_timeout_seconds",
                "requires `startup` to be `wait` or `require`",
            ),
        };
        let error = ConfigError::without_value(setting, reason);
        Err(error.with_kind(ConfigErrorKind::Conflict))
    }

    fn protected_resource(&self) -> Result<Option<ProtectedResource>, ConfigError> {
        let Some(identifier) = &self.resource else {
            let described = [
                ("resource_name", self.resource_name.is_some()),
                ("scopes_supported", self.scopes_supported.is_some()),
            ];
            let described = described.into_iter().find(|(_, is_set)| *is_set);
            return described.map_or(Ok(None), |(setting, _)| {
                let error = ConfigError::without_value(setting, "requires `resource`");
                Err(error.with_kind(ConfigErrorKind::Conflict))
            });
        };
        let mut resource = ProtectedResource::new(identifier)?;
        if let Some(name) = &self.resource_name {
            resource = resource.resource_name(name);
        }
        if let Some(scopes) = &self.scopes_supported {
            resource = resource.scopes_supported(scopes.iter().cloned());
        }
        Ok(Some(resource))
    }
}

/// Names the setting as in the settings, where the builder has another name for it.
fn with_path(error: ConfigError, path: &str) -> ConfigError {
    let setting = match error.setting() {
        "require_claim" => "required_claims",
        "require_scopes" => "required_scopes",
        setting => setting,
    };
    let setting = format!("{path}{setting}");
    error.with_setting(setting)
}
