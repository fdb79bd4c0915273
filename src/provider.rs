//! The issuers of known providers, for both ends: how their names are composed.
//!
//! Each function checks the parts and returns the issuer as the tokens of the provider spell it.

use crate::error::ConfigError;
use crate::oauth::{Endpoint, Issuer, Origin};

/// A realm of Keycloak. `url` is that of the server, with its `http-relative-path`.
pub(crate) fn keycloak(url: &str, realm: &str) -> Result<Issuer, ConfigError> {
    let base = Endpoint::new(url).map_err(|error| error.with_setting("url"))?;
    if base.url().query().is_some() {
        let reason = "must not have a query";
        return Err(ConfigError::without_value("url", reason));
    }
    let url = url.trim_end_matches('/');
    let reason = "must be the name of a realm: letters, digits, `-`, `.`, `_` and `~`; for other \
                  names, use `TrustedIssuer::new` or `TokenManager::for_issuer` with the `issuer` \
                  of its metadata";
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || "-._~".contains(c);
    let realm = name("realm", realm, reason, is_allowed)?;
    Issuer::new(format!("{url}/realms/{realm}"))
}

/// A tenant of Microsoft Entra ID, for tokens of version 2.
pub(crate) fn entra(tenant: &str) -> Result<Issuer, ConfigError> {
    entra_at(&Origin::new("https://login.microsoftonline.com")?, tenant)
}

/// The host of a cloud of Microsoft, as the variable `AZURE_AUTHORITY_HOST` has it.
pub(crate) fn entra_authority(host: &str) -> Result<Origin, ConfigError> {
    let origin = Origin::new(host)?;
    match origin.as_str() {
        // An older name of the cloud in China, whose issuers have the new one.
        "https://login.chinacloudapi.cn" => Origin::new("https://login.partner.microsoftonline.cn"),
        _ => Ok(origin),
    }
}

/// A tenant of the cloud with this host.
pub(crate) fn entra_at(authority: &Origin, tenant: &str) -> Result<Issuer, ConfigError> {
    let tenant = entra_tenant(tenant)?;
    Issuer::new(format!("{authority}/{tenant}/v2.0"))
}

/// A tenant of the public cloud, for tokens of version 1.
pub(crate) fn entra_v1(tenant: &str) -> Result<Issuer, ConfigError> {
    let tenant = entra_tenant(tenant)?;
    Issuer::new(format!("https://sts.windows.net/{tenant}/"))
}

/// The id of a tenant, in lower case as in tokens.
pub(crate) fn entra_tenant(tenant: &str) -> Result<String, ConfigError> {
    let reason = if ["common", "organizations", "consumers"].contains(&tenant) {
        "stands for many tenants, and no token names it as its issuer: use the id of one tenant"
    } else {
        "must be the id of the tenant, a GUID: tokens do not name its domain"
    };
    guid("tenant", tenant, reason)
}

/// A tenant of Auth0, by its domain or a custom domain. The slash at the end is part of the name.
pub(crate) fn auth0(domain: &str) -> Result<Issuer, ConfigError> {
    Issuer::new(format!("https://{}/", host("domain", domain)?))
}

/// A custom authorization server of Okta.
pub(crate) fn okta(domain: &str, authorization_server: &str) -> Result<Issuer, ConfigError> {
    let domain = host("domain", domain)?;
    let reason = "must be the id of a custom authorization server, such as `default`";
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    let id = name(
        "authorization_server",
        authorization_server,
        reason,
        is_allowed,
    )?;
    Issuer::new(format!("https://{domain}/oauth2/{id}"))
}

/// A user pool of Amazon Cognito.
pub(crate) fn cognito(region: &str, user_pool: &str) -> Result<Issuer, ConfigError> {
    let is_allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let reason = "must be the name of a region, such as `eu-west-1`";
    let region = name("region", region, reason, is_allowed)?;
    let id = user_pool.strip_prefix(region).and_then(|rest| {
        let id = rest.strip_prefix('_')?;
        (!id.is_empty() && id.chars().all(|c| c.is_ascii_alphanumeric())).then_some(id)
    });
    if id.is_none() {
        let reason = format!("must be the id of a user pool in this region: `{region}_…`");
        return Err(ConfigError::new("user_pool", user_pool, reason));
    }
    Issuer::new(format!(
        "https://cognito-idp.{region}.amazonaws.com/{user_pool}"
    ))
}

/// Google, as most tokens spell it.
pub(crate) fn google() -> Result<Issuer, ConfigError> {
    Issuer::new("https://accounts.google.com")
}

/// Google's other spelling.
pub(crate) fn google_without_scheme() -> Result<Issuer, ConfigError> {
    Issuer::new("accounts.google.com")
}

/// An instance of Zitadel.
pub(crate) fn zitadel(domain: &str) -> Result<Issuer, ConfigError> {
    Issuer::new(format!("https://{}", host("domain", domain)?))
}

/// A project of Supabase, by its reference or a custom domain.
pub(crate) fn supabase(project: &str) -> Result<Issuer, ConfigError> {
    let host = host("project", project)?;
    Issuer::new(match host.contains('.') {
        true => format!("https://{host}/auth/v1"),
        false => format!("https://{host}.supabase.co/auth/v1"),
    })
}

/// A GUID, in lower case.
pub(crate) fn guid(
    setting: &'static str,
    value: &str,
    reason: &'static str,
) -> Result<String, ConfigError> {
    const LENGTHS: [usize; 5] = [8, 4, 4, 4, 12];
    let mut groups = value.split('-');
    let is_guid = LENGTHS.iter().all(|length| {
        let is_hex = |group: &str| group.bytes().all(|byte| byte.is_ascii_hexdigit());
        let group = groups.next();
        group.is_some_and(|group| group.len() == *length && is_hex(group))
    });
    match is_guid && groups.next().is_none() {
        true => Ok(value.to_ascii_lowercase()),
        false => Err(ConfigError::new(setting, value, reason)),
    }
}

/// A host, with its port unless that is 443, as a URL has it.
fn host<'v>(setting: &'static str, value: &'v str) -> Result<&'v str, ConfigError> {
    let url = format!("https://{value}");
    match Origin::new(&url) {
        Ok(origin) if origin.as_str() == url => Ok(value),
        _ => {
            // Not shown: what precedes a host in a URL may be a password.
            let reason = "must be a host name in lower case, without a scheme and a path";
            Err(ConfigError::without_value(setting, reason))
        }
    }
}

/// A name of these characters.
fn name<'v>(
    setting: &'static str,
    value: &'v str,
    reason: &'static str,
    is_allowed: impl Fn(char) -> bool,
) -> Result<&'v str, ConfigError> {
    match !value.is_empty() && !is_dots(value) && value.chars().all(is_allowed) {
        true => Ok(value),
        false => Err(ConfigError::new(setting, value, reason)),
    }
}

/// Whether a URL parser removes this segment of a path.
fn is_dots(segment: &str) -> bool {
    matches!(segment, "." | "..")
}
