//! The applications of the management API, with their scopes and roles.

use std::fmt;

use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::binding::Binding;
use crate::error::{ConfigError, Error, ErrorKind, Operation};
use crate::oauth::{Endpoint, PlainHttp, Scope};

/// A registered application.
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), tower_oauth::BoxError> {
/// # use tower_oauth::authorization_server::AuthorizationServer;
/// # use tower_oauth::resource_server::Algorithm;
/// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
/// use tower_oauth::Endpoint;
/// use tower_oauth::app_id::{ApplicationName, ManagementClient};
///
/// let url = Endpoint::new(issuer.management_url())?;
/// let token = issuer.management_token().clone();
/// let management = ManagementClient::new(url, token, issuer.transport())?;
/// let application = management.register(&ApplicationName::new("reports")?).await?;
/// assert_eq!(application.name(), "reports");
/// let tokens = application.binding()?.token_manager()?;
/// let tokens = tokens.transport(issuer.transport()).start()?;
/// assert!(tokens.access_token().await.is_ok());
/// # Ok(())
/// # }
/// ```
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

    /// The tenant of the application.
    #[must_use]
    pub fn tenant_id(&self) -> &str {
        &self.tenant_id
    }

    /// The client secret, if the application has one.
    #[must_use]
    pub fn secret(&self) -> Option<&SecretString> {
        self.secret.as_ref()
    }

    /// The display name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The type, if the server sent a known one.
    #[must_use]
    pub fn application_type(&self) -> Option<ApplicationType> {
        self.application_type
    }

    /// The base URL of the authorization server.
    #[must_use]
    pub fn oauth_server_url(&self) -> &Endpoint {
        &self.oauth_server_url
    }

    /// The URL of the OpenID Connect discovery document, if the server sent it.
    #[must_use]
    pub fn discovery_endpoint(&self) -> Option<&Endpoint> {
        self.discovery_endpoint.as_ref()
    }

    /// The scopes, if the response contains them; else use
    /// [`ManagementClient::scopes`](super::ManagementClient::scopes).
    #[must_use]
    pub fn scopes(&self) -> &[Scope] {
        &self.scopes
    }

    /// The binding with which this application obtains tokens.
    ///
    /// # Errors
    ///
    /// If the tenant contradicts the URL.
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
///
/// ```
/// use tower_oauth::app_id::ApplicationName;
///
/// assert_eq!(ApplicationName::new("Order reports")?.as_str(), "Order reports");
/// assert!(ApplicationName::new("r".repeat(51)).is_err());
/// # Ok::<(), tower_oauth::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ApplicationName(String);

impl ApplicationName {
    /// Creates a display name.
    ///
    /// # Errors
    ///
    /// If it is empty or has more than 50 characters.
    pub fn new(name: impl Into<String>) -> Result<Self, ConfigError> {
        let name = name.into();
        match name.chars().take(MAX_NAME_LENGTH + 1).count() {
            0 => Err(ConfigError::missing(
                "application name",
                "must not be empty",
            )),
            length if length > MAX_NAME_LENGTH => Err(ConfigError::without_value(
                "application name",
                "must not have more than 50 characters",
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

/// The type of an application.
///
/// ```
/// use tower_oauth::app_id::ApplicationType;
///
/// let json = serde_json::to_string(&ApplicationType::SinglePageApp)?;
/// assert_eq!(json, r#""singlepageapp""#);
/// # Ok::<(), tower_oauth::BoxError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum ApplicationType {
    /// A confidential client, which has a secret.
    RegularWebApp,
    /// A public client, which runs in a browser.
    SinglePageApp,
}

/// A scope that an App ID application may define.
///
/// It has fewer than 50 lower-case letters, digits, `.` and `_`, and does not begin with `appid` or
/// `openid`.
///
/// ```
/// use tower_oauth::Scope;
/// use tower_oauth::app_id::ScopeName;
///
/// assert_eq!(Scope::from(ScopeName::new("reports.read")?), "reports.read");
/// assert!(ScopeName::new("appid_default").is_err());
/// # Ok::<(), tower_oauth::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ScopeName(Scope);

impl ScopeName {
    /// Creates a scope.
    ///
    /// # Errors
    ///
    /// If App ID does not allow the name.
    pub fn new(name: impl AsRef<str>) -> Result<Self, ConfigError> {
        let name = name.as_ref();
        let scope = Scope::new(name)?;
        let allowed =
            |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'.' || b == b'_';
        let reason = if !name.bytes().all(allowed) {
            "must contain only lower-case letters, digits, `.` and `_`"
        } else if name.len() >= SCOPE_LENGTH_LIMIT {
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

/// A role of an application.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Role {
    id: String,
    name: String,
}

impl Role {
    /// The id, which is used to assign the role.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The name, which is used in tokens.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// The JSON representation of an application.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ApplicationJson {
    client_id: String,
    tenant_id: String,
    secret: Option<String>,
    name: String,
    #[serde(rename = "type")]
    application_type: Option<String>,
    // The spelling of the management API; bindings use `oauthServerUrl`.
    #[serde(rename = "oAuthServerUrl")]
    oauth_server_url: String,
    discovery_endpoint: Option<String>,
    #[serde(default)]
    scopes: Vec<String>,
}

impl ApplicationJson {
    pub(super) fn into_application(
        self,
        url: &Endpoint,
        plain_http: &PlainHttp,
    ) -> Result<Application, Error> {
        let endpoint = |name: &str, text: &str| {
            let endpoint = Endpoint::new(text).map_err(|error| invalid_member(name, error, url))?;
            // As in metadata, because a secret may be sent there.
            plain_http
                .check_named_by(url, &endpoint)
                .map_err(|error| invalid_member(name, error, url))?;
            Ok::<_, Error>(endpoint)
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
            scopes: ScopesJson {
                scopes: self.scopes,
            }
            .into_scopes(url)?,
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
pub(super) struct ScopesJson {
    pub(super) scopes: Vec<String>,
}

impl ScopesJson {
    pub(super) fn into_scopes(self, url: &Endpoint) -> Result<Vec<Scope>, Error> {
        self.scopes
            .iter()
            .map(|scope| Scope::new(scope).map_err(|error| invalid_member("scopes", error, url)))
            .collect()
    }
}

/// The error of an invalid member. It does not show the value, which may be a secret.
fn invalid_member(name: &str, error: ConfigError, url: &Endpoint) -> Error {
    let error = error.with_setting(name).clear_value();
    Error::new(Operation::Management, ErrorKind::Malformed)
        .with_url(url.as_str())
        .with_source(error)
}

const MAX_NAME_LENGTH: usize = 50;
const SCOPE_LENGTH_LIMIT: usize = 50;
