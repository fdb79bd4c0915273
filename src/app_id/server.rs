//! The authorization server of a binding: its URL, version, tenant and issuer.

use super::sources::{URL_KEYS, Values};
use super::version::Version;
use crate::error::{ConfigError, ConfigErrorKind};
use crate::oauth::Endpoint;

/// The settings of the builder, besides the URLs, that determine the server.
pub(super) struct ExplicitSettings {
    pub(super) tenant_id: Option<String>,
    pub(super) version: Option<Version>,
}

impl ExplicitSettings {
    pub(super) fn resolve(self, layers: &[Values]) -> Result<OAuthServer, ConfigError> {
        for layer in layers {
            if let Some((key, url)) = URL_KEYS
                .into_iter()
                .find_map(|key| Some((key, layer.get(key)?)))
            {
                let setting = layer.setting_name(key);
                let url = normalized_base(url).map_err(|error| error.with_setting(&setting))?;
                return self.resolve_oauth_url(url, layers, Some(layer), &setting);
            }
            if let Some(url) = layer.get("appidServiceEndpoint") {
                let setting = layer.setting_name("appidServiceEndpoint");
                let url = normalized_base(url).map_err(|error| error.with_setting(setting))?;
                return self.resolve_service_endpoint(&url, layers, Some(layer));
            }
        }
        Err(
            match layers.iter().find_map(|layer| layer.source.as_deref()) {
                Some(source) => ConfigError::missing(
                    source,
                    "has neither `oauthServerUrl` nor `appidServiceEndpoint` with `version` and \
                     `tenantId`",
                ),
                None => ConfigError::missing(
                    "oauth_server_url",
                    "is missing: set it or `service_endpoint`",
                ),
            },
        )
    }

    /// The server at `url`, which was read from `from`. Other settings must not contradict the URL.
    pub(super) fn resolve_oauth_url(
        self,
        url: Endpoint,
        layers: &[Values],
        from: Option<&Values>,
        setting: &str,
    ) -> Result<OAuthServer, ConfigError> {
        // Single variables only fill gaps, and a URL in a binding leaves none.
        let applicable = || {
            layers.iter().filter(|layer| {
                layer.source.is_some() || from.is_some_and(|from| std::ptr::eq(*layer, from))
            })
        };
        let tenants = self
            .tenant_id
            .iter()
            .map(|tenant| ("tenant_id".to_owned(), tenant.as_str()))
            .chain(applicable().filter_map(|layer| {
                Some((layer.setting_name("tenantId"), layer.get("tenantId")?))
            }));
        let mut versions: Vec<(String, Version)> = self
            .version
            .map(|version| ("version".to_owned(), version))
            .into_iter()
            .collect();
        for layer in applicable().filter(|layer| layer.source.is_some()) {
            versions.extend(
                layer
                    .version()?
                    .map(|version| (layer.setting_name("version"), version)),
            );
        }
        let Some((version, tenant_id)) = parse_path(&url, setting)? else {
            let missing = || {
                ConfigError::without_value(
                    setting,
                    "must end in /oauth/v4/{tenantId} if `tenantId` is not set",
                )
            };
            let (tenant_setting, tenant_id) = tenants.into_iter().next().ok_or_else(missing)?;
            check_tenant(&tenant_setting, tenant_id)?;
            let tenant_id = tenant_id.to_owned();
            let version = versions
                .first()
                .map_or(Version::V4, |(_, version)| *version);
            return Ok(OAuthServer {
                url,
                tenant_id,
                version,
                prefix: None,
            });
        };
        check_tenant(setting, &tenant_id)?;
        for (tenant_setting, tenant) in tenants {
            if tenant != tenant_id {
                return Err(ConfigError::without_value(
                    tenant_setting,
                    format!("contradicts the tenant in the path of {setting}"),
                )
                .with_kind(ConfigErrorKind::Conflict));
            }
        }
        for (version_setting, explicit) in versions {
            if explicit != version {
                return Err(ConfigError::new(
                    version_setting,
                    explicit.to_string(),
                    format!("contradicts the version in the path of {setting}"),
                )
                .with_kind(ConfigErrorKind::Conflict));
            }
        }
        Ok(OAuthServer::new(url, version, tenant_id))
    }

    /// The server at `{endpoint}/oauth/v{version}/{tenant}`. The endpoint was read from `from`.
    pub(super) fn resolve_service_endpoint(
        self,
        endpoint: &Endpoint,
        layers: &[Values],
        from: Option<&Values>,
    ) -> Result<OAuthServer, ConfigError> {
        let setting = |key: &str, name: &str| {
            from.map_or_else(|| name.to_owned(), |from| from.setting_name(key))
        };
        let missing = |key: &str, name: &str| {
            ConfigError::missing(
                setting(key, name),
                "must be set together with the service endpoint",
            )
        };
        let mut version = self.version;
        for layer in layers {
            if version.is_none() {
                version = layer.version()?;
            }
        }
        let version = version.ok_or_else(|| missing("version", "version"))?;
        let explicit = self
            .tenant_id
            .map(|tenant| ("tenant_id".to_owned(), tenant));
        let in_layers = || {
            layers.iter().find_map(|layer| {
                Some((
                    layer.setting_name("tenantId"),
                    layer.get("tenantId")?.to_owned(),
                ))
            })
        };
        let (tenant_setting, tenant_id) = explicit
            .or_else(in_layers)
            .ok_or_else(|| missing("tenantId", "tenant_id"))?;
        check_tenant(&tenant_setting, &tenant_id)?;
        let url = endpoint.join_path(&format!("oauth/v{version}/{tenant_id}"))?;
        Ok(OAuthServer::new(url, version, tenant_id))
    }
}

/// The authorization server of one tenant.
pub(super) struct OAuthServer {
    pub(super) url: Endpoint,
    pub(super) version: Version,
    pub(super) tenant_id: String,
    /// The URL before `/oauth/v4/{tenant}`; `None` for a URL of another shape.
    prefix: Option<String>,
}

impl OAuthServer {
    fn new(url: Endpoint, version: Version, tenant_id: String) -> Self {
        let tail = format!("/oauth/v{version}/{tenant_id}");
        let prefix = url.as_str().strip_suffix(&tail).map(str::to_owned);
        Self {
            url,
            version,
            tenant_id,
            prefix,
        }
    }

    /// The `iss` of version 4 tokens.
    pub(super) fn issuer(&self) -> String {
        let Some(prefix) = &self.prefix else {
            return self.url.as_str().to_owned();
        };
        let host = self.url.url().host_str().unwrap_or_default();
        // Tokens of the old hosts have the issuer of the new hosts. The region is the label before
        // `.bluemix.net`, as in the Node SDK.
        let Some(old) = host.strip_suffix(".bluemix.net") else {
            return format!("{prefix}/oauth/v4/{}", self.tenant_id);
        };
        let region = match old.rsplit_once('.').map_or(old, |(_, region)| region) {
            "ng" => "us-south",
            region => region,
        };
        let test = if old.split('.').any(|label| label == "stage1") {
            "test."
        } else {
            ""
        };
        format!(
            "https://{region}.appid.{test}cloud.ibm.com/oauth/v4/{}",
            self.tenant_id
        )
    }

    /// The `iss` of version 3 tokens.
    pub(super) fn bare_host(&self) -> String {
        let url = self.url.url();
        let host = url.host_str().unwrap_or_default();
        match url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        }
    }
}

/// Removes trailing slashes: App ID responds to two slashes in a row with 404.
///
/// Plain `http` is refused where the URL is used.
pub(super) fn normalized_base(url: &str) -> Result<Endpoint, ConfigError> {
    let url = Endpoint::new(url.trim_end_matches('/'))?;
    if url.url().query().is_some() {
        return Err(ConfigError::new(
            "URL",
            url.origin(),
            "must not have a query",
        ));
    }
    Ok(url)
}

/// Parses version and tenant of a path that ends in `/oauth/v4/{tenant}`; `None` if it has no
/// segment `oauth`.
fn parse_path(url: &Endpoint, setting: &str) -> Result<Option<(Version, String)>, ConfigError> {
    let segments: Vec<&str> = url
        .url()
        .path_segments()
        .map(Iterator::collect)
        .unwrap_or_default();
    if !segments.contains(&"oauth") {
        return Ok(None);
    }
    let malformed = |reason| ConfigError::new(setting, url.origin(), reason);
    let [.., "oauth", version, tenant_id] = segments.as_slice() else {
        return Err(malformed("must end in /oauth/v4/{tenantId}"));
    };
    let version = version.strip_prefix('v').and_then(Version::parse);
    let version =
        version.ok_or_else(|| malformed("must have the version v3 or v4 after /oauth/"))?;
    Ok(Some((version, (*tenant_id).to_owned())))
}

/// Checks that a tenant is a path segment without percent-encoding.
fn check_tenant(setting: &str, tenant_id: &str) -> Result<(), ConfigError> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-_.~".contains(&b);
    if tenant_id.bytes().all(allowed) && !tenant_id.bytes().all(|b| b == b'.') {
        return Ok(());
    }
    Err(ConfigError::without_value(
        setting,
        "must contain a tenant of letters, digits, `-`, `_`, `.` and `~`",
    ))
}
