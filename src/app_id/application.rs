//! Applications, their scopes and roles, as the management API has them.

use std::fmt;

use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::binding::Binding;
use crate::error::{ConfigError, Error, ErrorKind, Operation};
use crate::oauth::{Endpoint, Scope};

/// A registered application.
#[derive(Clone, Debug)]
pub struct Application {
    client_id: String,
    tenant_id: String,
    secret: Option<SecretString>,
    name: String,
    application_type: Option<ApplicationType>,
    oauth_server_url: Endpoint,
    discovery_endpoint: Option<Endpoint>,
    scopes: Vec<Scope>,
}

impl Application {
    /// The client id.
    #[must_use]
    pub fn client_id(&self) -> &str {
        &self.client_id
    }

    /// The tenant that it is registered with.
    #[must_use]
    pub fn tenant_id(&self) -> &str {
        &self.tenant_id
    }

    /// The client secret, if it has one.
    #[must_use]
    pub fn secret(&self) -> Option<&SecretString> {
        self.secret.as_ref()
    }

    /// The name for people.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The type, if the server told one that is known here.
    #[must_use]
    pub fn application_type(&self) -> Option<ApplicationType> {
        self.application_type
    }

    /// The base URL of the authorization server.
    #[must_use]
    pub fn oauth_server_url(&self) -> &Endpoint {
        &self.oauth_server_url
    }

    /// The address of the OpenID Connect discovery document, if the server told it.
    #[must_use]
    pub fn discovery_endpoint(&self) -> Option<&Endpoint> {
        self.discovery_endpoint.as_ref()
    }

    /// Its scopes, if the server told them here; else see
    /// [`ManagementClient::scopes`](super::ManagementClient::scopes).
    #[must_use]
    pub fn scopes(&self) -> &[Scope] {
        &self.scopes
    }

    /// The settings with which this application obtains tokens.
    ///
    /// # Errors
    ///
    /// If the tenant is not the one in the URL.
    pub fn binding(&self) -> Result<Binding, ConfigError> {
        let mut builder = Binding::builder()
            .tenant_id(&self.tenant_id)
            .client_id(&self.client_id)
            .oauth_server_url(self.oauth_server_url.clone());
        if let Some(secret) = &self.secret {
            builder = builder.secret(secret.clone());
        }
        builder.build()
    }
}

/// The name of an application: 1 to 50 characters.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ApplicationName(String);

impl ApplicationName {
    /// A name for people.
    ///
    /// # Errors
    ///
    /// If it has no character, or more than 50.
    pub fn new(name: impl Into<String>) -> Result<Self, ConfigError> {
        let name = name.into();
        match name.chars().take(MAX_NAME + 1).count() {
            0 => Err(ConfigError::without_value(
                "application name",
                "must not be empty",
            )),
            length if length > MAX_NAME => Err(ConfigError::without_value(
                "application name",
                "must not exceed 50 characters",
            )),
            _ => Ok(Self(name)),
        }
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ApplicationName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What kind of application is registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum ApplicationType {
    /// One that can keep a secret.
    RegularWebApp,
    /// One that runs in a browser.
    SinglePageApp,
}

/// A scope that App ID lets an application have: fewer than 50 lower-case letters, digits,
/// `.` and `_`, not beginning with `appid` or `openid`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ScopeName(Scope);

impl ScopeName {
    /// The scope of this name.
    ///
    /// # Errors
    ///
    /// If App ID would refuse it.
    pub fn new(name: impl AsRef<str>) -> Result<Self, ConfigError> {
        let name = name.as_ref();
        let scope = Scope::new(name)?;
        let allowed =
            |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'.' || b == b'_';
        let reason = if !name.bytes().all(allowed) {
            "may hold lower-case letters, digits, `.` and `_` only"
        } else if name.len() >= SCOPE_LENGTH {
            "must have fewer than 50 characters"
        } else if name.starts_with("appid") || name.starts_with("openid") {
            "must not begin with `appid` or `openid`"
        } else {
            return Ok(Self(scope));
        };
        Err(ConfigError::new("scope", name, reason))
    }

    /// The scope token.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl From<ScopeName> for Scope {
    fn from(name: ScopeName) -> Self {
        name.0
    }
}

impl fmt::Display for ScopeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A role that an application holds.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Role {
    id: String,
    name: String,
}

impl Role {
    /// The id, by which roles are assigned.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The name, as it stands in tokens.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// An application on the wire.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Members {
    client_id: String,
    tenant_id: String,
    secret: Option<String>,
    name: String,
    #[serde(rename = "type")]
    application_type: Option<String>,
    // The management API spells it so; bindings spell it `oauthServerUrl`.
    #[serde(rename = "oAuthServerUrl")]
    oauth_server_url: String,
    discovery_endpoint: Option<String>,
    #[serde(default)]
    scopes: Vec<String>,
}

impl Members {
    pub(super) fn application(self, url: &Endpoint) -> Result<Application, Error> {
        let endpoint = |name: &str, text: &str| {
            let endpoint = Endpoint::new(text).map_err(|error| bad_member(name, error, url))?;
            // What an https document names is https, as in metadata: a secret may go there.
            if endpoint.is_plain_http() && !url.is_plain_http() {
                let reason = "must be https, because the management API is";
                return Err(bad_member(
                    name,
                    ConfigError::without_value(name, reason),
                    url,
                ));
            }
            Ok(endpoint)
        };
        Ok(Application {
            oauth_server_url: endpoint(
                "oAuthServerUrl",
                self.oauth_server_url.trim_end_matches('/'),
            )?,
            discovery_endpoint: self
                .discovery_endpoint
                .as_deref()
                .map(|text| endpoint("discoveryEndpoint", text))
                .transpose()?,
            scopes: Scopes {
                scopes: self.scopes,
            }
            .scopes(url)?,
            application_type: match self.application_type.as_deref() {
                Some("regularwebapp") => Some(ApplicationType::RegularWebApp),
                Some("singlepageapp") => Some(ApplicationType::SinglePageApp),
                _ => None,
            },
            client_id: self.client_id,
            tenant_id: self.tenant_id,
            secret: self
                .secret
                .filter(|secret| !secret.is_empty())
                .map(SecretString::from),
            name: self.name,
        })
    }
}

#[derive(Deserialize, Serialize)]
pub(super) struct Scopes {
    pub(super) scopes: Vec<String>,
}

impl Scopes {
    pub(super) fn scopes(self, url: &Endpoint) -> Result<Vec<Scope>, Error> {
        self.scopes
            .iter()
            .map(|scope| Scope::new(scope).map_err(|error| bad_member("scopes", error, url)))
            .collect()
    }
}

/// The error of a member that cannot be used. It does not show the member: what stands there may be
/// a secret.
fn bad_member(name: &str, error: ConfigError, url: &Endpoint) -> Error {
    let error = error.for_setting(name).redact_value();
    Error::new(Operation::Management, ErrorKind::Malformed)
        .with_url(url.as_str())
        .with_source(error)
}

const MAX_NAME: usize = 50;
const SCOPE_LENGTH: usize = 50;
