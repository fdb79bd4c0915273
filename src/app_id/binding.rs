//! Where the settings of an App ID application come from.

use std::fmt;
use std::path::Path;

use secrecy::{ExposeSecret, SecretString};

use super::server::{Told, base_url};
use super::sources::{
    APPID_BINDING_FILE, BINDING_VARIABLES, CE_SERVICES, JSON, SINGLE_VARIABLES, VCAP_SERVICES,
    Values, is_ce_name, is_vcap_name,
};
use crate::error::ConfigError;
use crate::oauth::{Endpoint, Issuer};

/// The settings of one application of an App ID service instance.
///
/// # Where they come from
///
/// For each of the keys `clientId`, `secret`, `tenantId`, `oauthServerUrl` (or
/// `oAuthServerUrl`, which wins over it), `appidServiceEndpoint`, `version`, `managementUrl`
/// and `apikey`, the first of these that holds it:
///
/// 1. a value set with the [builder](Self::builder);
/// 2. a service binding, from exactly one of
///    - `VCAP_SERVICES` (Cloud Foundry): the first service whose name starts with
///      `AdvancedMobileAccess` or `AppID`,
///    - `CE_SERVICES` (Code Engine): the service `appid`,
///    - `APPID_SERVICE_BINDING`: the credentials as JSON text,
///    - `APPID_BINDING_FILE`: the path of a mounted Kubernetes secret, see
///      [`from_file`](Self::from_file);
/// 3. environment variables of the keys' own names, without `managementUrl` and `apikey`. Next to a
///    service binding they only fill gaps: a missing `clientId` or `secret`, and what tells the
///    server's URL if the binding does not. Without one, they count only if a URL is among them, so
///    that a stray `version` or `secret` means nothing.
///
/// Empty strings (and `null` in JSON) count as absent. Two service bindings at once are an
/// error, because they may name two issuers.
///
/// # The server's URL
///
/// `oauthServerUrl`, else `{appidServiceEndpoint}/oauth/v{version}/{tenantId}`; within one
/// source the URL wins over the endpoint (IBM's Node SDK has it the other way round).
/// Trailing slashes are dropped. Its path tells tenant and version; a `tenantId` or `version`
/// that contradicts it is an error. A URL of another shape, such as that of a gateway, is
/// taken if a `tenantId` comes with it, and is then the issuer as it stands.
#[derive(Clone, Debug)]
pub struct Binding {
    source: Option<String>,
    tenant_id: String,
    client_id: Option<String>,
    secret: Option<SecretString>,
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
    /// Starts with explicit values, which win over those of any other source.
    pub fn builder() -> BindingBuilder {
        BindingBuilder::default()
    }

    /// Reads the environment; `None` if nothing in it tells of App ID.
    ///
    /// # Errors
    ///
    /// If there are two service bindings, or one is malformed or incomplete. The error
    /// names the variable and shows none of its text but the origin of a URL.
    pub fn from_env() -> Result<Option<Self>, ConfigError> {
        Self::builder().build_from_env()
    }

    /// Like [`from_env`](Self::from_env), with `lookup` in place of the environment.
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
    /// # Errors
    ///
    /// If it is no JSON object, a member is malformed, or the server's URL cannot be told.
    pub fn from_json(json: &str) -> Result<Self, ConfigError> {
        BindingBuilder::default().resolve(&[Values::from_json(JSON, json)?])
    }

    /// Reads the credentials of App ID in the value of `VCAP_SERVICES`.
    ///
    /// # Errors
    ///
    /// As [`from_json`](Self::from_json), or if there is no App ID service in it.
    pub fn from_vcap_services(json: &str) -> Result<Self, ConfigError> {
        let values = Values::from_services(VCAP_SERVICES, json, is_vcap_name)?
            .ok_or_else(|| ConfigError::without_value(VCAP_SERVICES, "holds no App ID service"))?;
        BindingBuilder::default().resolve(&[values])
    }

    /// Reads the credentials of App ID in the value of `CE_SERVICES`.
    ///
    /// # Errors
    ///
    /// As [`from_json`](Self::from_json), or if there is no App ID service in it.
    pub fn from_ce_services(json: &str) -> Result<Self, ConfigError> {
        let values = Values::from_services(CE_SERVICES, json, is_ce_name)?
            .ok_or_else(|| ConfigError::without_value(CE_SERVICES, "holds no App ID service"))?;
        BindingBuilder::default().resolve(&[values])
    }

    /// Reads a mounted Kubernetes secret: a file of JSON, a folder that holds one under the
    /// name `binding`, or a folder with one file for each key.
    ///
    /// # Errors
    ///
    /// As [`from_json`](Self::from_json), or if it cannot be read or is larger than a
    /// Kubernetes secret can be (1 MiB).
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        let path = path.as_ref();
        let source = format!("App ID binding file {}", path.display());
        BindingBuilder::default().resolve(&[Values::from_file(&source, path)?])
    }

    /// What the credentials were read from, such as `VCAP_SERVICES`, for messages to the
    /// operator; `None` if all were explicit.
    #[must_use]
    pub fn source(&self) -> Option<&str> {
        self.source.as_deref()
    }

    /// The tenant: the id of the service instance.
    #[must_use]
    pub fn tenant_id(&self) -> &str {
        &self.tenant_id
    }

    /// The client id of the application; a resource server can do without it.
    #[must_use]
    pub fn client_id(&self) -> Option<&str> {
        self.client_id.as_deref()
    }

    /// The client secret of the application.
    #[must_use]
    pub fn secret(&self) -> Option<&SecretString> {
        self.secret.as_ref()
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

    /// The issuer of version 4 tokens: the version 4 base URL, on today's host if the
    /// binding is from the days of `bluemix.net`.
    ///
    /// | binding | issuer |
    /// | --- | --- |
    /// | `https://eu-gb.appid.cloud.ibm.com/oauth/v4/T` | the same |
    /// | `https://appid-oauth.ng.bluemix.net/oauth/v3/T` | `https://us-south.appid.cloud.ibm.com/oauth/v4/T` |
    /// | `https://appid-oauth.stage1.ng.bluemix.net/oauth/v3/T` | `https://us-south.appid.test.cloud.ibm.com/oauth/v4/T` |
    #[must_use]
    pub fn issuer(&self) -> &Issuer {
        &self.issuer
    }

    /// The issuer of version 3 tokens: the host (and port, if it is not the scheme's own) of
    /// the server's URL, without a scheme.
    #[must_use]
    pub fn v3_issuer(&self) -> &Issuer {
        &self.v3_issuer
    }

    /// Where the public keys are: `{oauth_server_url}/publickeys`.
    #[must_use]
    pub fn keys_url(&self) -> &Endpoint {
        &self.keys_url
    }

    /// Where access tokens are requested: `{oauth_server_url}/token`, for version 3 and 4 alike.
    ///
    /// A base of version 3 is no issuer identifier: its metadata name the version 4 base as the
    /// issuer, so discovery (RFC 8414) does not apply to it.
    ///
    /// ```
    /// use tower_oauth::app_id::{Binding, Version};
    /// use tower_oauth::{ClientCredentials, Endpoint, TokenManager};
    ///
    /// let base = Endpoint::new("https://eu-gb.appid.cloud.ibm.com/oauth/v3/39a37f57/")?;
    /// let binding = Binding::builder().oauth_server_url(base).build()?;
    /// assert_eq!(binding.version(), Version::V3);
    /// assert_eq!(binding.token_endpoint().as_str(), "https://eu-gb.appid.cloud.ibm.com/oauth/v3/39a37f57/token");
    ///
    /// // With credentials of your own, form-urlencoded:
    /// let credentials = ClientCredentials::new("my-client-id", "my-secret");
    /// let tokens = TokenManager::builder(binding.token_endpoint().clone(), credentials);
    /// # let _ = tokens;
    /// # Ok::<(), tower_oauth::ConfigError>(())
    /// ```
    #[must_use]
    pub fn token_endpoint(&self) -> &Endpoint {
        &self.token_endpoint
    }

    /// The base URL of the management API, if the binding holds it.
    #[must_use]
    pub fn management_url(&self) -> Option<&Endpoint> {
        self.management_url.as_ref()
    }

    /// The IAM API key for the management API, if the binding holds it.
    #[must_use]
    pub fn api_key(&self) -> Option<&SecretString> {
        self.api_key.as_ref()
    }
}

/// The version of App ID's OAuth endpoints and of the tokens that they issue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Version {
    /// Tokens of 2017 to 2019: `aud` is a string, `iss` a bare host.
    V3,
    /// Tokens since then.
    V4,
}

impl Version {
    /// The number: 3 or 4.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::V3 => 3,
            Self::V4 => 4,
        }
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        match text {
            "3" => Some(Self::V3),
            "4" => Some(Self::V4),
            _ => None,
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.number().fmt(f)
    }
}

/// Explicit values of a [`Binding`]; see there for what they win over.
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
    /// The tenant. Not needed if the URL ends in it.
    pub fn tenant_id(mut self, tenant_id: impl Into<String>) -> Self {
        self.tenant_id = Some(tenant_id.into()).filter(|id| !id.is_empty());
        self
    }

    /// The client id of the application.
    pub fn client_id(mut self, client_id: impl Into<String>) -> Self {
        self.client_id = Some(client_id.into()).filter(|id| !id.is_empty());
        self
    }

    /// The client secret of the application.
    pub fn secret(mut self, secret: impl Into<SecretString>) -> Self {
        self.secret = Some(secret.into()).filter(|secret| !secret.expose_secret().is_empty());
        self
    }

    /// The base URL of the authorization server: `https://…/oauth/v4/{tenant}`.
    pub fn oauth_server_url(mut self, url: Endpoint) -> Self {
        self.oauth_server_url = Some(url);
        self
    }

    /// The address of the service, from which version and tenant make the base URL; ignored
    /// next to [`oauth_server_url`](Self::oauth_server_url).
    pub fn service_endpoint(mut self, url: Endpoint) -> Self {
        self.service_endpoint = Some(url);
        self
    }

    /// The version of the OAuth endpoints. Not needed if the URL tells it.
    pub fn version(mut self, version: Version) -> Self {
        self.version = Some(version);
        self
    }

    /// The issuer of version 4 tokens, where it does not follow from the URL.
    pub fn issuer(mut self, issuer: Issuer) -> Self {
        self.issuer = Some(issuer);
        self
    }

    /// The base URL of the management API.
    pub fn management_url(mut self, url: Endpoint) -> Self {
        self.management_url = Some(url);
        self
    }

    /// The IAM API key for the management API.
    pub fn api_key(mut self, api_key: impl Into<SecretString>) -> Self {
        self.api_key = Some(api_key.into()).filter(|key| !key.expose_secret().is_empty());
        self
    }

    /// The binding of these values alone.
    ///
    /// # Errors
    ///
    /// If they do not tell the server's URL, or contradict each other.
    pub fn build(self) -> Result<Binding, ConfigError> {
        self.resolve(&[])
    }

    /// The binding of these values and, for what is not set, of the environment. `None` if
    /// neither tells the server's URL nor is there a service binding.
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
                "all hold App ID credentials; keep one of them",
            ));
        }
        let variables = Values {
            source: None,
            found: SINGLE_VARIABLES
                .into_iter()
                .filter_map(|key| Some((key, lookup(key)?)))
                .collect(),
        };
        let explicit_url = self.oauth_server_url.is_some() || self.service_endpoint.is_some();
        if layers.is_empty() && !explicit_url && !variables.tell_url() {
            return Ok(None);
        }
        layers.push(variables);
        self.resolve(&layers).map(Some)
    }

    /// Puts the binding together; of `layers`, earlier ones win.
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
                    base_url(url).map_err(|error| error.for_setting(layer.setting(key)))
                })
                .transpose()
        };
        let told = Told { tenant_id, version };
        let server = match (oauth_server_url, service_endpoint) {
            (Some(url), _) => {
                let url = base_url(url.as_str())
                    .map_err(|error| error.for_setting("oauth_server_url"))?;
                told.of_url(url, layers, None, "oauth_server_url")?
            }
            (None, Some(url)) => {
                let url = base_url(url.as_str())
                    .map_err(|error| error.for_setting("service_endpoint"))?;
                told.of_endpoint(&url, layers, None)?
            }
            (None, None) => told.of_layers(layers)?,
        };
        let parsed_issuer = match issuer {
            Some(issuer) => issuer,
            None => Issuer::new(server.issuer())?,
        };
        Ok(Binding {
            source: layers.iter().find_map(|layer| layer.source.clone()),
            client_id: client_id.or_else(|| first("clientId")),
            secret: secret.or_else(|| first("secret").map(SecretString::from)),
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
