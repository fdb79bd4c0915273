//! The settings of an App ID application, and their sources.

use std::path::Path;

use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use super::server::{ExplicitSettings, normalized_base};
use super::sources::{
    APPID_BINDING_FILE, BINDING_VARIABLES, CE_SERVICES, JSON, MountedCredentials, SINGLE_VARIABLES,
    VCAP_SERVICES, Values, is_ce_name, is_vcap_name,
};
use super::version::Version;
use crate::error::{ConfigError, ConfigErrorKind};
use crate::oauth::{Endpoint, Issuer};

/// The settings of one application of an App ID service instance.
///
/// # Sources
///
/// The keys are `clientId`, `secret`, `tenantId`, `oauthServerUrl` (or `oAuthServerUrl`, which
/// takes precedence), `appidServiceEndpoint`, `version`, `managementUrl` and `apikey`. Each is read
/// from the first of these sources that has it:
///
/// 1. a value set with the [builder](Self::builder);
/// 2. a service binding, from exactly one of
///    - `VCAP_SERVICES` (Cloud Foundry): the first service whose name starts with
///      `AdvancedMobileAccess` or `AppID`,
///    - `CE_SERVICES` (Code Engine): the service `appid`,
///    - `APPID_SERVICE_BINDING`: the credentials as JSON text,
///    - `APPID_BINDING_FILE`: the path of a mounted Kubernetes secret, see
///      [`from_file`](Self::from_file);
/// 3. environment variables named like the keys, except `managementUrl` and `apikey`. If there is a
///    service binding, they only fill gaps: a missing `clientId` or `secret`, and the parts of the
///    server's URL. Without a service binding they are used only if one of them, or a value of the
///    builder, is a URL, so that an unrelated `version` or `secret` has no effect. If the URL is a
///    value of the builder, the variable `secret` is used, too: set the secret in the builder, or
///    use [`build`](BindingBuilder::build), which reads no environment.
///
/// Empty strings (and `null` in JSON) count as absent. Two service bindings are an error, because
/// they may have different issuers.
///
/// # The server's URL
///
/// The URL is `oauthServerUrl`, else `{appidServiceEndpoint}/oauth/v{version}/{tenantId}`. Within
/// one source, `oauthServerUrl` takes precedence (unlike in IBM's Node SDK). Trailing slashes are
/// dropped. Tenant and version are read from its path; a `tenantId` or `version` that contradicts
/// it is an error. A URL of another form, such as that of a gateway, requires a `tenantId`, and is
/// then the issuer without changes. With an `oauthServerUrl`, the variable `version` is not used,
/// and the variable `tenantId` only if the URL is a variable, too: a gateway's URL needs the
/// `tenantId` in the source that it is from, or in the builder.
///
/// ```
/// use tower_oauth::app_id::Binding;
///
/// let binding = Binding::from_json(
///     r#"{"clientId": "111c22c3-38ea-4de8-b5d4-338744d83b0f",
///         "oauthServerUrl": "https://eu-gb.appid.cloud.ibm.com/oauth/v4/39a37f57-a227"}"#,
/// )?;
/// assert_eq!(binding.tenant_id(), "39a37f57-a227");
/// assert!(binding.keys_url().as_str().ends_with("/39a37f57-a227/publickeys"));
/// assert!(binding.secret().is_none()); // a resource server needs none
/// # Ok::<(), tower_oauth::ConfigError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Binding {
    source: Option<String>,
    tenant_id: String,
    client_id: Option<String>,
    secret: Option<SecretString>,
    mounted: Option<MountedCredentials>,
    oauth_server_url: Endpoint,
    version: Version,
    issuer: Issuer,
    v3_issuer: Issuer,
    keys_url: Endpoint,
    token_endpoint: Endpoint,
    management_url: Option<Endpoint>,
    api_key: Option<SecretString>,
}

impl Binding {
    /// Returns a builder for explicit values, which take precedence over other sources.
    pub fn builder() -> BindingBuilder {
        BindingBuilder::default()
    }

    /// Reads the environment. Returns `None` if it has no App ID settings.
    ///
    /// # Errors
    ///
    /// If there are two service bindings, or one is malformed or incomplete. The error names the
    /// variable, and shows nothing of its value except the origin of a URL.
    pub fn from_env() -> Result<Option<Self>, ConfigError> {
        Self::builder().build_from_env()
    }

    /// Like [`from_env`](Self::from_env), with `lookup` in place of the environment.
    ///
    /// ```
    /// use tower_oauth::app_id::Binding;
    ///
    /// let url = "https://eu-gb.appid.cloud.ibm.com/oauth/v4/39a37f57-a227";
    /// let environment = [("oauthServerUrl", url), ("clientId", "my-client-id")];
    /// let lookup = |name: &str| {
    ///     let found = environment.iter().find(|(key, _)| *key == name);
    ///     found.map(|(_, value)| (*value).to_owned())
    /// };
    /// let binding = Binding::from_lookup(lookup)?.expect("it has a URL");
    /// assert_eq!(binding.client_id(), Some("my-client-id"));
    /// assert!(Binding::from_lookup(|_| None)?.is_none());
    /// # Ok::<(), tower_oauth::ConfigError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`from_env`](Self::from_env).
    pub fn from_lookup(
        lookup: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, ConfigError> {
        Self::builder().build_from_lookup(lookup)
    }

    /// Reads credentials as JSON text, as in `APPID_SERVICE_BINDING`.
    ///
    /// ```
    /// use tower_oauth::app_id::Binding;
    ///
    /// let binding = Binding::from_json(
    ///     r#"{"oauthServerUrl": "https://eu-gb.appid.cloud.ibm.com/oauth/v4/39a37f57-a227",
    ///         "secret": "s3cret"}"#,
    /// )?;
    /// assert!(!format!("{binding:?}").contains("s3cret"));
    /// assert!(Binding::from_json(r#"{"clientId": "my-client-id"}"#).is_err()); // no URL
    /// # Ok::<(), tower_oauth::ConfigError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If it is not a JSON object, a member is malformed, or the server's URL is missing.
    pub fn from_json(json: &str) -> Result<Self, ConfigError> {
        BindingBuilder::default().resolve(&[Values::from_json(JSON, json)?])
    }

    /// Reads the App ID credentials in the value of `VCAP_SERVICES`.
    ///
    /// ```
    /// use tower_oauth::app_id::Binding;
    ///
    /// let services = r#"{"AppID": [{"credentials": {
    ///     "clientId": "my-client-id",
    ///     "oauthServerUrl": "https://eu-gb.appid.cloud.ibm.com/oauth/v4/39a37f57-a227"
    /// }}]}"#;
    /// let binding = Binding::from_vcap_services(services)?;
    /// assert_eq!(binding.client_id(), Some("my-client-id"));
    /// assert_eq!(binding.source(), Some("VCAP_SERVICES"));
    /// # Ok::<(), tower_oauth::ConfigError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`from_json`](Self::from_json), or if there is no App ID service in it.
    pub fn from_vcap_services(json: &str) -> Result<Self, ConfigError> {
        let values = Values::from_services(VCAP_SERVICES, json, is_vcap_name)?
            .ok_or_else(|| ConfigError::missing(VCAP_SERVICES, "has no App ID service"))?;
        BindingBuilder::default().resolve(&[values])
    }

    /// Reads the App ID credentials in the value of `CE_SERVICES`.
    ///
    /// ```
    /// use tower_oauth::app_id::Binding;
    ///
    /// let services = r#"{"appid": [{"credentials": {
    ///     "clientId": "my-client-id",
    ///     "oauthServerUrl": "https://eu-gb.appid.cloud.ibm.com/oauth/v4/39a37f57-a227"
    /// }}]}"#;
    /// assert_eq!(Binding::from_ce_services(services)?.client_id(), Some("my-client-id"));
    /// # Ok::<(), tower_oauth::ConfigError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`from_json`](Self::from_json), or if there is no App ID service in it.
    pub fn from_ce_services(json: &str) -> Result<Self, ConfigError> {
        let values = Values::from_services(CE_SERVICES, json, is_ce_name)?
            .ok_or_else(|| ConfigError::missing(CE_SERVICES, "has no App ID service"))?;
        BindingBuilder::default().resolve(&[values])
    }

    /// Reads a mounted Kubernetes secret.
    ///
    /// The path is that of a JSON file, of a folder with a JSON file named `binding`, or of a
    /// folder with one file for each key. A [token manager](Self::token_manager) reads client id
    /// and secret again for each token request, so a mount may be replaced while the program runs.
    ///
    /// ```
    /// # let name = format!("tower-oauth-binding-{}", std::process::id());
    /// # let folder = std::env::temp_dir().join(name);
    /// # std::fs::create_dir_all(&folder)?;
    /// use tower_oauth::app_id::Binding;
    ///
    /// // A mounted secret with one file for each key.
    /// let url = "https://eu-gb.appid.cloud.ibm.com/oauth/v4/39a37f57-a227";
    /// std::fs::write(folder.join("oauthServerUrl"), url)?;
    /// std::fs::write(folder.join("clientId"), "my-client-id")?;
    /// let binding = Binding::from_file(&folder)?;
    /// assert_eq!(binding.client_id(), Some("my-client-id"));
    /// # std::fs::remove_dir_all(&folder)?;
    /// # Ok::<(), tower_oauth::BoxError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`from_json`](Self::from_json), or if it cannot be read or exceeds the maximum size of a
    /// Kubernetes secret (1 MiB).
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        let path = path.as_ref();
        let source = format!("App ID binding file {}", path.display());
        BindingBuilder::default().resolve(&[Values::from_file(&source, path)?])
    }

    /// The source of the credentials, such as `VCAP_SERVICES`, for messages to the operator.
    ///
    /// `None` if all are explicit, or from variables named like the keys.
    #[must_use]
    pub fn source(&self) -> Option<&str> {
        self.source.as_deref()
    }

    /// The tenant: the id of the service instance.
    #[must_use]
    pub fn tenant_id(&self) -> &str {
        &self.tenant_id
    }

    /// The client id of the application, which a resource server does not need.
    #[must_use]
    pub fn client_id(&self) -> Option<&str> {
        self.client_id.as_deref()
    }

    /// The client secret of the application, as it was when the binding was read.
    ///
    /// [`credentials`](Self::credentials) reads that of a mounted secret again.
    #[must_use]
    pub fn secret(&self) -> Option<&SecretString> {
        self.secret.as_ref()
    }

    /// Where the secret is mounted, if it is.
    pub(super) fn mounted(&self) -> Option<&MountedCredentials> {
        self.mounted.as_ref()
    }

    /// The base URL of the authorization server, without a trailing slash.
    #[must_use]
    pub fn oauth_server_url(&self) -> &Endpoint {
        &self.oauth_server_url
    }

    /// The version of the tokens and of [`oauth_server_url`](Self::oauth_server_url).
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// The issuer of version 4 tokens: the version 4 base URL, with the new host for a
    /// `bluemix.net` binding.
    ///
    /// | host of the binding | host of the issuer |
    /// | --- | --- |
    /// | `eu-gb.appid.cloud.ibm.com` | the same |
    /// | `appid-oauth.ng.bluemix.net` | `us-south.appid.cloud.ibm.com` |
    /// | `appid-oauth.stage1.ng.bluemix.net` | `us-south.appid.test.cloud.ibm.com` |
    ///
    /// ```
    /// use tower_oauth::Endpoint;
    /// use tower_oauth::app_id::Binding;
    ///
    /// let old = Endpoint::new("https://appid-oauth.ng.bluemix.net/oauth/v3/39a37f57-a227")?;
    /// let binding = Binding::builder().oauth_server_url(old).build()?;
    /// let issuer = "https://us-south.appid.cloud.ibm.com/oauth/v4/39a37f57-a227";
    /// assert_eq!(binding.issuer(), issuer);
    /// # Ok::<(), tower_oauth::ConfigError>(())
    /// ```
    #[must_use]
    pub fn issuer(&self) -> &Issuer {
        &self.issuer
    }

    /// The issuer of version 3 tokens: the host of the server's URL, and its port unless that is
    /// the default.
    #[must_use]
    pub fn v3_issuer(&self) -> &Issuer {
        &self.v3_issuer
    }

    /// The URL of the key set: `{oauth_server_url}/publickeys`.
    #[must_use]
    pub fn keys_url(&self) -> &Endpoint {
        &self.keys_url
    }

    /// The token endpoint, `{oauth_server_url}/token`, for versions 3 and 4.
    ///
    /// A version 3 base URL is not an issuer identifier: its metadata name the version 4 base URL
    /// as the issuer, so discovery (RFC 8414) fails for it.
    ///
    /// ```
    /// use tower_oauth::app_id::{Binding, Version};
    /// use tower_oauth::{ClientCredentials, Endpoint, TokenManager};
    ///
    /// let base = Endpoint::new("https://eu-gb.appid.cloud.ibm.com/oauth/v3/39a37f57")?;
    /// let binding = Binding::builder().oauth_server_url(base.clone()).build()?;
    /// assert_eq!(binding.version(), Version::V3);
    /// assert_eq!(binding.token_endpoint().as_str(), format!("{base}/token"));
    ///
    /// // With explicit credentials, form-urlencoded:
    /// let credentials = ClientCredentials::new("my-client-id", "my-secret");
    /// let tokens = TokenManager::builder(binding.token_endpoint().clone(), credentials);
    /// # let _ = tokens;
    /// # Ok::<(), tower_oauth::ConfigError>(())
    /// ```
    #[must_use]
    pub fn token_endpoint(&self) -> &Endpoint {
        &self.token_endpoint
    }

    /// The base URL of the management API, if the binding has it.
    #[must_use]
    pub fn management_url(&self) -> Option<&Endpoint> {
        self.management_url.as_ref()
    }

    /// The IAM API key for the management API, if the binding has it.
    #[must_use]
    pub fn api_key(&self) -> Option<&SecretString> {
        self.api_key.as_ref()
    }
}

/// A builder of a [`Binding`] from explicit values and other sources.
///
/// ```
/// use tower_oauth::Endpoint;
/// use tower_oauth::app_id::{Binding, Version};
///
/// let binding = Binding::builder()
///     .tenant_id("39a37f57-a227")
///     .client_id("my-client-id")
///     .secret("my-secret")
///     .service_endpoint(Endpoint::new("https://eu-gb.appid.cloud.ibm.com")?)
///     .version(Version::V4)
///     .build()?;
/// let url = "https://eu-gb.appid.cloud.ibm.com/oauth/v4/39a37f57-a227";
/// assert_eq!(binding.oauth_server_url(), url);
/// # Ok::<(), tower_oauth::ConfigError>(())
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "a builder does nothing until it is built"]
pub struct BindingBuilder {
    tenant_id: Option<String>,
    client_id: Option<String>,
    secret: Option<SecretString>,
    oauth_server_url: Option<Endpoint>,
    service_endpoint: Option<Endpoint>,
    version: Option<Version>,
    issuer: Option<Issuer>,
    management_url: Option<Endpoint>,
    api_key: Option<SecretString>,
}

impl BindingBuilder {
    /// Sets the tenant. Not required if the URL ends in it.
    pub fn tenant_id(mut self, tenant_id: impl Into<String>) -> Self {
        self.tenant_id = Some(tenant_id.into()).filter(|id| !id.is_empty());
        self
    }

    /// Sets the client id of the application.
    pub fn client_id(mut self, client_id: impl Into<String>) -> Self {
        self.client_id = Some(client_id.into()).filter(|id| !id.is_empty());
        self
    }

    /// Sets the client secret of the application.
    pub fn secret(mut self, secret: impl Into<SecretString>) -> Self {
        self.secret = Some(secret.into()).filter(|secret| !secret.expose_secret().is_empty());
        self
    }

    /// Sets the base URL of the authorization server: `https://…/oauth/v4/{tenant}`.
    pub fn oauth_server_url(mut self, url: Endpoint) -> Self {
        self.oauth_server_url = Some(url);
        self
    }

    /// Sets the service endpoint: the base URL without version and tenant.
    ///
    /// Ignored if [`oauth_server_url`](Self::oauth_server_url) is set.
    pub fn service_endpoint(mut self, url: Endpoint) -> Self {
        self.service_endpoint = Some(url);
        self
    }

    /// Sets the version of the OAuth endpoints. Not required if the URL contains it.
    pub fn version(mut self, version: Version) -> Self {
        self.version = Some(version);
        self
    }

    /// Sets the issuer of version 4 tokens. Default: derived from the URL.
    ///
    /// ```
    /// use tower_oauth::app_id::Binding;
    /// use tower_oauth::{Endpoint, Issuer};
    ///
    /// // Tokens are requested through a gateway, and issued by App ID.
    /// let issuer = Issuer::new("https://eu-gb.appid.cloud.ibm.com/oauth/v4/39a37f57-a227")?;
    /// let binding = Binding::builder()
    ///     .tenant_id("39a37f57-a227")
    ///     .oauth_server_url(Endpoint::new("https://gateway.example/appid")?)
    ///     .issuer(issuer.clone())
    ///     .build()?;
    /// assert_eq!(binding.issuer(), &issuer);
    /// assert_eq!(binding.keys_url(), "https://gateway.example/appid/publickeys");
    /// # Ok::<(), tower_oauth::ConfigError>(())
    /// ```
    pub fn issuer(mut self, issuer: Issuer) -> Self {
        self.issuer = Some(issuer);
        self
    }

    /// Sets the base URL of the management API.
    ///
    /// ```
    /// use tower_oauth::Endpoint;
    /// use tower_oauth::app_id::Binding;
    ///
    /// let host = "https://eu-gb.appid.cloud.ibm.com";
    /// let binding = Binding::builder()
    ///     .oauth_server_url(Endpoint::new(format!("{host}/oauth/v4/39a37f57-a227"))?)
    ///     .management_url(Endpoint::new(format!("{host}/management/v4/39a37f57-a227"))?)
    ///     .api_key("an-api-key")
    ///     .build()?;
    /// assert!(binding.management_url().is_some() && binding.api_key().is_some());
    /// assert!(!format!("{binding:?}").contains("an-api-key"));
    /// # Ok::<(), tower_oauth::ConfigError>(())
    /// ```
    pub fn management_url(mut self, url: Endpoint) -> Self {
        self.management_url = Some(url);
        self
    }

    /// Sets the IAM API key for the management API.
    pub fn api_key(mut self, api_key: impl Into<SecretString>) -> Self {
        self.api_key = Some(api_key.into()).filter(|key| !key.expose_secret().is_empty());
        self
    }

    /// Builds a binding from these values only.
    ///
    /// # Errors
    ///
    /// If the server's URL is missing, or values contradict each other.
    pub fn build(self) -> Result<Binding, ConfigError> {
        self.resolve(&[])
    }

    /// Builds a binding from these values and, for those not set, from the environment.
    ///
    /// Returns `None` if there is neither a URL of the server nor a service binding.
    ///
    /// # Errors
    ///
    /// As [`Binding::from_env`].
    pub fn build_from_env(self) -> Result<Option<Binding>, ConfigError> {
        let mut found = Vec::new();
        for name in BINDING_VARIABLES.into_iter().chain(SINGLE_VARIABLES) {
            match std::env::var(name) {
                Ok(value) => found.push((name, value)),
                Err(std::env::VarError::NotPresent) => {}
                Err(std::env::VarError::NotUnicode(_)) => {
                    return Err(ConfigError::without_value(name, "is not valid UTF-8"));
                }
            }
        }
        self.build_from_lookup(|name| {
            found
                .iter()
                .find(|(found, _)| *found == name)
                .map(|(_, value)| value.clone())
        })
    }

    /// Like [`build_from_env`](Self::build_from_env), with `lookup` in place of the environment.
    ///
    /// ```
    /// use tower_oauth::app_id::Binding;
    ///
    /// let url = "https://eu-gb.appid.cloud.ibm.com/oauth/v4/39a37f57-a227";
    /// let lookup = |name: &str| (name == "oauthServerUrl").then(|| url.to_owned());
    /// let binding = Binding::builder().client_id("explicit").build_from_lookup(lookup)?;
    /// assert_eq!(binding.as_ref().and_then(Binding::client_id), Some("explicit"));
    /// # Ok::<(), tower_oauth::ConfigError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Binding::from_env`].
    pub fn build_from_lookup(
        self,
        lookup: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Binding>, ConfigError> {
        let lookup = |name: &str| lookup(name).filter(|value| !value.is_empty());
        let mut layers = Vec::new();
        for name in BINDING_VARIABLES {
            let Some(value) = lookup(name) else { continue };
            layers.extend(match name {
                VCAP_SERVICES => Values::from_services(name, &value, is_vcap_name)?,
                CE_SERVICES => Values::from_services(name, &value, is_ce_name)?,
                APPID_BINDING_FILE => Some(Values::from_file(name, Path::new(&value))?),
                _ => Some(Values::from_json(name, &value)?),
            });
        }
        if layers.len() > 1 {
            let names: Vec<&str> = layers
                .iter()
                .filter_map(|layer| layer.source.as_deref())
                .collect();
            return Err(ConfigError::without_value(
                names.join(" and "),
                "all have App ID credentials: set only one of them",
            )
            .with_kind(ConfigErrorKind::Conflict));
        }
        let variables = Values {
            source: None,
            path: None,
            found: SINGLE_VARIABLES
                .into_iter()
                .filter_map(|key| Some((key, Zeroizing::new(lookup(key)?))))
                .collect(),
        };
        let explicit_url = self.oauth_server_url.is_some() || self.service_endpoint.is_some();
        if layers.is_empty() && !explicit_url && !variables.has_url() {
            return Ok(None);
        }
        layers.push(variables);
        self.resolve(&layers).map(Some)
    }

    /// Builds the binding. Earlier `layers` take precedence.
    fn resolve(self, layers: &[Values]) -> Result<Binding, ConfigError> {
        let Self {
            tenant_id,
            client_id,
            secret,
            oauth_server_url,
            service_endpoint,
            version,
            issuer,
            management_url,
            api_key,
        } = self;
        let first = |key: &'static str| {
            layers
                .iter()
                .find_map(|layer| layer.get(key))
                .map(str::to_owned)
        };
        let endpoint = |key: &'static str| {
            layers
                .iter()
                .find_map(|layer| Some((layer, layer.get(key)?)))
                .map(|(layer, url)| {
                    normalized_base(url)
                        .map_err(|error| error.with_setting(layer.setting_name(key)))
                })
                .transpose()
        };
        let explicit = ExplicitSettings { tenant_id, version };
        let server = match (oauth_server_url, service_endpoint) {
            (Some(url), _) => {
                let url = normalized_base(url.as_str())
                    .map_err(|error| error.with_setting("oauth_server_url"))?;
                explicit.resolve_oauth_url(url, layers, None, "oauth_server_url")?
            }
            (None, Some(url)) => {
                let url = normalized_base(url.as_str())
                    .map_err(|error| error.with_setting("service_endpoint"))?;
                explicit.resolve_service_endpoint(&url, layers, None)?
            }
            (None, None) => explicit.resolve(layers)?,
        };
        let parsed_issuer = match issuer {
            Some(issuer) => issuer,
            None => Issuer::new(server.issuer())?,
        };
        let with = |key: &str| layers.iter().find(|layer| layer.get(key).is_some());
        let mounted = with("secret")
            .filter(|_| secret.is_none())
            .and_then(|layer| {
                let is_from_it = |id: &Values| std::ptr::eq(id, layer);
                Some(MountedCredentials {
                    source: layer.source.clone()?,
                    path: layer.path.clone()?,
                    has_client_id: client_id.is_none() && with("clientId").is_some_and(is_from_it),
                })
            });
        Ok(Binding {
            source: layers.iter().find_map(|layer| layer.source.clone()),
            client_id: client_id.or_else(|| first("clientId")),
            secret: secret.or_else(|| first("secret").map(SecretString::from)),
            mounted,
            issuer: parsed_issuer,
            v3_issuer: Issuer::new(server.bare_host())?,
            keys_url: server.url.join_path("publickeys")?,
            token_endpoint: server.url.join_path("token")?,
            management_url: match management_url {
                Some(url) => Some(url),
                None => endpoint("managementUrl")?,
            },
            api_key: api_key.or_else(|| first("apikey").map(SecretString::from)),
            tenant_id: server.tenant_id,
            oauth_server_url: server.url,
            version: server.version,
        })
    }
}
