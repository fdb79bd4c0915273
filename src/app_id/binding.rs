//! Where the settings of an App ID application come from.

use std::fmt;
use std::fs::File;
use std::io::{ErrorKind as IoErrorKind, Read};
use std::path::Path;

use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde::de::{MapAccess, Visitor};
use serde_json::{Map, Value};

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
/// 3. environment variables of the keys' own names, without `managementUrl` and `apikey`.
///    Next to a service binding they only fill gaps: a missing `clientId` or `secret`, and
///    what tells the server's URL if the binding does not. Without one, they count only if a
///    URL is among them, so that a stray `version` or `secret` means nothing.
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
    pub fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Result<Option<Self>, ConfigError> {
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

    /// Where access tokens are requested: `{oauth_server_url}/token`.
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

    fn parse(text: &str) -> Option<Self> {
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
            found.iter().find(|(found, _)| *found == name).map(|(_, value)| value.clone())
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
            let names: Vec<&str> = layers.iter().filter_map(|layer| layer.source.as_deref()).collect();
            return Err(ConfigError::without_value(
                names.join(" and "),
                "all hold App ID credentials; keep one of them",
            ));
        }
        let variables = Values {
            source: None,
            found: SINGLE_VARIABLES.into_iter().filter_map(|key| Some((key, lookup(key)?))).collect(),
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
        let first = |key: &'static str| layers.iter().find_map(|layer| layer.get(key)).map(str::to_owned);
        let endpoint = |key: &'static str| {
            layers
                .iter()
                .find_map(|layer| Some((layer, layer.get(key)?)))
                .map(|(layer, url)| base_url(url).map_err(|error| error.for_setting(layer.setting(key))))
                .transpose()
        };
        let told = Told { tenant_id, version };
        let server = match (oauth_server_url, service_endpoint) {
            (Some(url), _) => {
                let url = base_url(url.as_str()).map_err(|error| error.for_setting("oauth_server_url"))?;
                told.of_url(url, layers, None, "oauth_server_url")?
            }
            (None, Some(url)) => {
                let url = base_url(url.as_str()).map_err(|error| error.for_setting("service_endpoint"))?;
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

/// What one source holds; never shown.
struct Values {
    /// The variable or file; `None` for variables that bear the keys' own names.
    source: Option<String>,
    found: Vec<(&'static str, String)>,
}

impl Values {
    fn from_json(source: &str, json: &str) -> Result<Self, ConfigError> {
        let json = json.trim_start_matches('\u{feff}');
        let object: Map<String, Value> = parse(source, json)?;
        Self::from_object(source, &object)
    }

    /// The credentials of the first service whose name fits, in the order of the text.
    fn from_services(source: &str, json: &str, fits: fn(&str) -> bool) -> Result<Option<Self>, ConfigError> {
        let Members(services) = parse(source, json)?;
        let Some((_, instances)) = services.into_iter().find(|(name, _)| fits(name)) else {
            return Ok(None);
        };
        let credentials = instances.get(0).and_then(|instance| instance.get("credentials"));
        let Some(Value::Object(credentials)) = credentials else {
            return Err(ConfigError::without_value(source, "has an App ID service without credentials"));
        };
        Self::from_object(source, credentials).map(Some)
    }

    fn from_object(source: &str, object: &Map<String, Value>) -> Result<Self, ConfigError> {
        let mut values = Self { source: Some(source.to_owned()), found: Vec::new() };
        for key in KEYS {
            let text = match object.get(key) {
                None | Some(Value::Null) => continue,
                Some(Value::String(text)) => text.clone(),
                Some(Value::Number(number)) if key == "version" => number.to_string(),
                Some(_) => {
                    return Err(ConfigError::without_value(values.setting(key), "must be a string"));
                }
            };
            if !text.is_empty() {
                values.found.push((key, text));
            }
        }
        Ok(values)
    }

    fn from_file(source: &str, path: &Path) -> Result<Self, ConfigError> {
        if !path.is_dir() {
            let text = read(source, path)?
                .ok_or_else(|| ConfigError::without_value(source, "names a file that does not exist"))?;
            return Self::from_json(source, &text);
        }
        // `ibmcloud ks cluster service bind` makes a secret with this one entry.
        if let Some(text) = read(source, &path.join("binding"))? {
            return Self::from_json(source, &text);
        }
        let mut values = Self { source: Some(source.to_owned()), found: Vec::new() };
        for key in KEYS {
            let Some(text) = read(source, &path.join(key))? else { continue };
            // Whoever makes a secret with an editor or `echo` adds a line end to it.
            let text = text.trim_end_matches(['\r', '\n']);
            if !text.is_empty() {
                values.found.push((key, text.to_owned()));
            }
        }
        if values.found.is_empty() {
            return Err(ConfigError::without_value(
                source,
                "names a folder without App ID credentials: neither `binding` nor `clientId`, `oauthServerUrl` \
                 and the like",
            ));
        }
        Ok(values)
    }

    fn get(&self, key: &str) -> Option<&str> {
        self.found.iter().find(|(found, _)| *found == key).map(|(_, text)| text.as_str())
    }

    fn tell_url(&self) -> bool {
        URL_KEYS.into_iter().chain(["appidServiceEndpoint"]).any(|key| self.get(key).is_some())
    }

    /// How an error names one of the values.
    fn setting(&self, key: &str) -> String {
        match &self.source {
            Some(source) => format!("{key} of {source}"),
            None => key.to_owned(),
        }
    }
}

/// What the builder was told besides the URL.
struct Told {
    tenant_id: Option<String>,
    version: Option<Version>,
}

impl Told {
    fn of_layers(self, layers: &[Values]) -> Result<Server, ConfigError> {
        for layer in layers {
            if let Some((key, url)) = URL_KEYS.into_iter().find_map(|key| Some((key, layer.get(key)?))) {
                let setting = layer.setting(key);
                let url = base_url(url).map_err(|error| error.for_setting(&setting))?;
                return self.of_url(url, layers, Some(layer), &setting);
            }
            if let Some(url) = layer.get("appidServiceEndpoint") {
                let setting = layer.setting("appidServiceEndpoint");
                let url = base_url(url).map_err(|error| error.for_setting(setting))?;
                return self.of_endpoint(&url, layers, Some(layer));
            }
        }
        Err(match layers.iter().find_map(|layer| layer.source.as_deref()) {
            Some(source) => ConfigError::without_value(
                source,
                "holds neither `oauthServerUrl` nor `appidServiceEndpoint` with `version` and `tenantId`",
            ),
            None => {
                ConfigError::without_value("oauth_server_url", "is missing, and so is `service_endpoint`")
            }
        })
    }

    /// The server at `url`, which stood in `from`; other words about it must not contradict.
    fn of_url(
        self,
        url: Endpoint,
        layers: &[Values],
        from: Option<&Values>,
        setting: &str,
    ) -> Result<Server, ConfigError> {
        // Single variables only fill gaps, and a URL leaves none that they could fill.
        let heard = || {
            layers
                .iter()
                .filter(|layer| layer.source.is_some() || from.is_some_and(|from| std::ptr::eq(*layer, from)))
        };
        let tenants = self
            .tenant_id
            .iter()
            .map(|tenant| ("tenant_id".to_owned(), tenant.as_str()))
            .chain(heard().filter_map(|layer| Some((layer.setting("tenantId"), layer.get("tenantId")?))));
        let mut versions: Vec<(String, Version)> =
            self.version.map(|version| ("version".to_owned(), version)).into_iter().collect();
        for layer in heard().filter(|layer| layer.source.is_some()) {
            versions.extend(layer_version(layer)?.map(|version| (layer.setting("version"), version)));
        }
        let Some((version, tenant_id)) = of_path(&url, setting)? else {
            let missing = || {
                ConfigError::without_value(
                    setting,
                    "does not end in /oauth/v4/{tenantId}, and there is no `tenantId`",
                )
            };
            let (tenant_setting, tenant_id) = tenants.into_iter().next().ok_or_else(missing)?;
            check_tenant(&tenant_setting, tenant_id)?;
            let tenant_id = tenant_id.to_owned();
            let version = versions.first().map_or(Version::V4, |(_, version)| *version);
            return Ok(Server { url, tenant_id, version, below: None });
        };
        check_tenant(setting, &tenant_id)?;
        for (tenant_setting, tenant) in tenants {
            if tenant != tenant_id {
                return Err(ConfigError::without_value(
                    tenant_setting,
                    format!("contradicts the tenant in the path of {setting}"),
                ));
            }
        }
        for (version_setting, told) in versions {
            if told != version {
                return Err(ConfigError::new(
                    version_setting,
                    told.to_string(),
                    format!("contradicts the version in the path of {setting}"),
                ));
            }
        }
        Ok(Server::new(url, version, tenant_id))
    }

    /// The server at `{endpoint}/oauth/v{version}/{tenant}`; the endpoint stood in `from`.
    fn of_endpoint(
        self,
        endpoint: &Endpoint,
        layers: &[Values],
        from: Option<&Values>,
    ) -> Result<Server, ConfigError> {
        let setting = |key: &str, name: &str| from.map_or_else(|| name.to_owned(), |from| from.setting(key));
        let missing = |key: &str, name: &str| {
            ConfigError::without_value(setting(key, name), "is missing, and the service endpoint needs it")
        };
        let mut version = self.version;
        for layer in layers {
            if version.is_none() {
                version = layer_version(layer)?;
            }
        }
        let version = version.ok_or_else(|| missing("version", "version"))?;
        let explicit = self.tenant_id.map(|tenant| ("tenant_id".to_owned(), tenant));
        let in_layers = || {
            layers
                .iter()
                .find_map(|layer| Some((layer.setting("tenantId"), layer.get("tenantId")?.to_owned())))
        };
        let (tenant_setting, tenant_id) =
            explicit.or_else(in_layers).ok_or_else(|| missing("tenantId", "tenant_id"))?;
        check_tenant(&tenant_setting, &tenant_id)?;
        let url = endpoint.join_path(&format!("oauth/v{version}/{tenant_id}"))?;
        Ok(Server::new(url, version, tenant_id))
    }
}

/// The authorization server of one tenant.
struct Server {
    url: Endpoint,
    version: Version,
    tenant_id: String,
    /// What `/oauth/v4/{tenant}` stands below; `None` for a URL of another shape.
    below: Option<String>,
}

impl Server {
    fn new(url: Endpoint, version: Version, tenant_id: String) -> Self {
        let tail = format!("/oauth/v{version}/{tenant_id}");
        let below = url.as_str().strip_suffix(&tail).map(str::to_owned);
        Self { url, version, tenant_id, below }
    }

    /// The `iss` of version 4 tokens.
    fn issuer(&self) -> String {
        let Some(below) = &self.below else { return self.url.as_str().to_owned() };
        let host = self.url.url().host_str().unwrap_or_default();
        // The service moved hosts, and tokens name the new one wherever they were asked for.
        // The region is the label before `.bluemix.net`, as the Node SDK reads it.
        let Some(old) = host.strip_suffix(".bluemix.net") else {
            return format!("{below}/oauth/v4/{}", self.tenant_id);
        };
        let region = match old.rsplit_once('.').map_or(old, |(_, region)| region) {
            "ng" => "us-south",
            region => region,
        };
        let test = if old.split('.').any(|label| label == "stage1") { "test." } else { "" };
        format!("https://{region}.appid.{test}cloud.ibm.com/oauth/v4/{}", self.tenant_id)
    }

    /// The `iss` of version 3 tokens.
    fn bare_host(&self) -> String {
        let url = self.url.url();
        let host = url.host_str().unwrap_or_default();
        match url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        }
    }
}

/// The members of a JSON object in the order of the text, which a map would lose.
struct Members(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;

        impl<'de> Visitor<'de> for InOrder {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(InOrder)
    }
}

/// Parses JSON text; the error tells the place only, because serde_json's may quote the text.
fn parse<'de, T: Deserialize<'de>>(source: &str, json: &'de str) -> Result<T, ConfigError> {
    serde_json::from_str(json).map_err(|error| {
        let reason = if error.is_data() { "is not a JSON object" } else { "is not valid JSON" };
        ConfigError::without_value(
            source,
            format!("{reason} (line {}, column {})", error.line(), error.column()),
        )
    })
}

/// Reads a file; `None` if there is none, and an entry that is a folder counts as none.
fn read(source: &str, path: &Path) -> Result<Option<String>, ConfigError> {
    let unreadable = |error: std::io::Error| {
        ConfigError::without_value(source, format!("cannot be read from {}: {error}", path.display()))
    };
    if path.is_dir() {
        return Ok(None);
    }
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == IoErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(error)),
    };
    let mut text = String::new();
    let length = file.take(MAX_FILE + 1).read_to_string(&mut text).map_err(unreadable)?;
    if u64::try_from(length).map_or(true, |length| length > MAX_FILE) {
        return Err(ConfigError::without_value(source, "names a file of more than 1 MiB"));
    }
    Ok(Some(text))
}

/// An address without trailing slashes: App ID answers two slashes in a row with 404.
fn base_url(url: &str) -> Result<Endpoint, ConfigError> {
    let url = Endpoint::new(url.trim_end_matches('/'))?;
    if url.url().query().is_some() {
        return Err(ConfigError::new("URL", url.origin(), "must not have a query"));
    }
    Ok(url)
}

/// Version and tenant in a path that ends in `/oauth/v4/{tenant}`; `None` if nothing in it
/// is called `oauth`.
fn of_path(url: &Endpoint, setting: &str) -> Result<Option<(Version, String)>, ConfigError> {
    let segments: Vec<&str> = url.url().path_segments().map(Iterator::collect).unwrap_or_default();
    if !segments.contains(&"oauth") {
        return Ok(None);
    }
    let malformed = |reason| ConfigError::new(setting, url.origin(), reason);
    let [.., "oauth", version, tenant_id] = segments.as_slice() else {
        return Err(malformed("must end in /oauth/v4/{tenantId}"));
    };
    let version = version.strip_prefix('v').and_then(Version::parse);
    let version = version.ok_or_else(|| malformed("must name the version v3 or v4 after /oauth/"))?;
    Ok(Some((version, (*tenant_id).to_owned())))
}

fn layer_version(layer: &Values) -> Result<Option<Version>, ConfigError> {
    layer
        .get("version")
        .map(|text| {
            Version::parse(text)
                .ok_or_else(|| ConfigError::without_value(layer.setting("version"), "must be 3 or 4"))
        })
        .transpose()
}

/// A tenant becomes a segment of paths, and must come out of them as it went in.
fn check_tenant(setting: &str, tenant_id: &str) -> Result<(), ConfigError> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-_.~".contains(&b);
    if tenant_id.bytes().all(allowed) && !tenant_id.bytes().all(|b| b == b'.') {
        return Ok(());
    }
    Err(ConfigError::without_value(setting, "must hold a tenant of letters, digits, `-`, `_`, `.` and `~`"))
}

/// Node SDK: the name *starts with* one of these, in this case.
fn is_vcap_name(name: &str) -> bool {
    name.starts_with("AppID") || name.starts_with("AdvancedMobileAccess")
}

fn is_ce_name(name: &str) -> bool {
    name == "appid"
}

const VCAP_SERVICES: &str = "VCAP_SERVICES";
const CE_SERVICES: &str = "CE_SERVICES";
const APPID_SERVICE_BINDING: &str = "APPID_SERVICE_BINDING";
const APPID_BINDING_FILE: &str = "APPID_BINDING_FILE";
const BINDING_VARIABLES: [&str; 4] = [VCAP_SERVICES, CE_SERVICES, APPID_SERVICE_BINDING, APPID_BINDING_FILE];

/// How errors name JSON text that came from no variable.
const JSON: &str = "App ID credentials";

/// The spelling of the management API first: it beats the other one.
const URL_KEYS: [&str; 2] = ["oAuthServerUrl", "oauthServerUrl"];
const KEYS: [&str; 9] = [
    "clientId",
    "secret",
    "tenantId",
    "oAuthServerUrl",
    "oauthServerUrl",
    "appidServiceEndpoint",
    "version",
    "managementUrl",
    "apikey",
];
const SINGLE_VARIABLES: [&str; 7] =
    ["clientId", "secret", "tenantId", "oAuthServerUrl", "oauthServerUrl", "appidServiceEndpoint", "version"];

/// The most that a Kubernetes secret can hold.
const MAX_FILE: u64 = 1 << 20;
