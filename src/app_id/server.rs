//! The authorization server that a binding speaks of: its URL, and what follows from it.

use super::binding::Version;
use super::sources::{URL_KEYS, Values};
use crate::error::ConfigError;
use crate::oauth::Endpoint;

/// What the builder was told besides the URL.
pub(super) struct Told {
    pub(super) tenant_id: Option<String>,
    pub(super) version: Option<Version>,
}

impl Told {
    pub(super) fn of_layers(self, layers: &[Values]) -> Result<Server, ConfigError> {
        for layer in layers {
            if let Some((key, url)) = URL_KEYS
                .into_iter()
                .find_map(|key| Some((key, layer.get(key)?)))
            {
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
        Err(
            match layers.iter().find_map(|layer| layer.source.as_deref()) {
                Some(source) => ConfigError::without_value(
                    source,
                    "holds neither `oauthServerUrl` nor `appidServiceEndpoint` with `version` and `tenantId`",
                ),
                None => ConfigError::without_value(
                    "oauth_server_url",
                    "is missing, and so is `service_endpoint`",
                ),
            },
        )
    }

    /// The server at `url`, which stood in `from`; other words about it must not contradict.
    pub(super) fn of_url(
        self,
        url: Endpoint,
        layers: &[Values],
        from: Option<&Values>,
        setting: &str,
    ) -> Result<Server, ConfigError> {
        // Single variables only fill gaps, and a URL leaves none that they could fill.
        let heard = || {
            layers.iter().filter(|layer| {
                layer.source.is_some() || from.is_some_and(|from| std::ptr::eq(*layer, from))
            })
        };
        let tenants = self
            .tenant_id
            .iter()
            .map(|tenant| ("tenant_id".to_owned(), tenant.as_str()))
            .chain(
                heard()
                    .filter_map(|layer| Some((layer.setting("tenantId"), layer.get("tenantId")?))),
            );
        let mut versions: Vec<(String, Version)> = self
            .version
            .map(|version| ("version".to_owned(), version))
            .into_iter()
            .collect();
        for layer in heard().filter(|layer| layer.source.is_some()) {
            versions.extend(
                layer
                    .version()?
                    .map(|version| (layer.setting("version"), version)),
            );
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
            let version = versions
                .first()
                .map_or(Version::V4, |(_, version)| *version);
            return Ok(Server {
                url,
                tenant_id,
                version,
                below: None,
            });
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
    pub(super) fn of_endpoint(
        self,
        endpoint: &Endpoint,
        layers: &[Values],
        from: Option<&Values>,
    ) -> Result<Server, ConfigError> {
        let setting =
            |key: &str, name: &str| from.map_or_else(|| name.to_owned(), |from| from.setting(key));
        let missing = |key: &str, name: &str| {
            ConfigError::without_value(
                setting(key, name),
                "is missing, and the service endpoint needs it",
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
                Some((layer.setting("tenantId"), layer.get("tenantId")?.to_owned()))
            })
        };
        let (tenant_setting, tenant_id) = explicit
            .or_else(in_layers)
            .ok_or_else(|| missing("tenantId", "tenant_id"))?;
        check_tenant(&tenant_setting, &tenant_id)?;
        let url = endpoint.join_path(&format!("oauth/v{version}/{tenant_id}"))?;
        Ok(Server::new(url, version, tenant_id))
    }
}

/// The authorization server of one tenant.
pub(super) struct Server {
    pub(super) url: Endpoint,
    pub(super) version: Version,
    pub(super) tenant_id: String,
    /// What `/oauth/v4/{tenant}` stands below; `None` for a URL of another shape.
    below: Option<String>,
}

impl Server {
    fn new(url: Endpoint, version: Version, tenant_id: String) -> Self {
        let tail = format!("/oauth/v{version}/{tenant_id}");
        let below = url.as_str().strip_suffix(&tail).map(str::to_owned);
        Self {
            url,
            version,
            tenant_id,
            below,
        }
    }

    /// The `iss` of version 4 tokens.
    pub(super) fn issuer(&self) -> String {
        let Some(below) = &self.below else {
            return self.url.as_str().to_owned();
        };
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

/// An address without trailing slashes: App ID answers two slashes in a row with 404.
pub(super) fn base_url(url: &str) -> Result<Endpoint, ConfigError> {
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

/// Version and tenant in a path that ends in `/oauth/v4/{tenant}`; `None` if nothing in it
/// is called `oauth`.
fn of_path(url: &Endpoint, setting: &str) -> Result<Option<(Version, String)>, ConfigError> {
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
        version.ok_or_else(|| malformed("must name the version v3 or v4 after /oauth/"))?;
    Ok(Some((version, (*tenant_id).to_owned())))
}

/// A tenant becomes a segment of paths, and must come out of them as it went in.
fn check_tenant(setting: &str, tenant_id: &str) -> Result<(), ConfigError> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-_.~".contains(&b);
    if tenant_id.bytes().all(allowed) && !tenant_id.bytes().all(|b| b == b'.') {
        return Ok(());
    }
    Err(ConfigError::without_value(
        setting,
        "must hold a tenant of letters, digits, `-`, `_`, `.` and `~`",
    ))
}
