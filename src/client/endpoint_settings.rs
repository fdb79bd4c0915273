//! The settings of the requests to a token endpoint.

use std::sync::Arc;

use tokio::sync::Mutex;

use super::authentication::ClientAuthentication;
use super::endpoint_source::{EndpointState, TokenEndpointSource};
use super::grant::{ClientCredentialsGrant, Grant};
use super::parameters::Parameters;
use super::renewal::schedule::RenewalPolicy;
use super::resource_metadata::ResourceMetadata;
use super::scope_upgrade::{AllowedScopes, ScopeUpgrade};
use super::token_endpoint::TokenEndpoint;
use crate::clock::Clock;
use crate::error::{ConfigError, ConfigErrorKind};
use crate::metadata;
use crate::oauth::{Origin, ResourceIdentifier, Scope};
use crate::transport::{HttpSettings, Transport, default_transport};

/// The token endpoint of a [`TokenManagerBuilder`](super::TokenManagerBuilder), and what is sent to
/// it.
#[derive(Clone, Debug)]
#[must_use]
pub struct TokenEndpointSettings {
    /// The error is one of the arguments of `for_resource`, which `build` reports.
    pub(super) endpoint: Result<TokenEndpoint, ConfigError>,
    /// The resource whose metadata confirm the issuer.
    pub(super) resource: Option<ResourceIdentifier>,
    /// Whether the parameter `resource` with its identifier is sent.
    pub(super) sends_resource: bool,
    pub(super) client: Arc<dyn ClientAuthentication>,
    /// `None` for client credentials.
    pub(super) grant: Option<Arc<dyn Grant>>,
    /// What has the grant, if it cannot be replaced.
    pub(super) grant_owner: Option<&'static str>,
    pub(super) parameters: Parameters,
    /// The scopes that a challenge may add. `None` for the default.
    pub(super) step_up_scopes: Option<Vec<Scope>>,
    /// Whether a missing or unknown `token_type` is accepted.
    pub(super) assume_bearer: bool,
    pub(super) transport: Option<Arc<dyn Transport>>,
    /// The first argument of a setter that does not convert, which `build` reports.
    pub(super) invalid: Option<ConfigError>,
}

impl TokenEndpointSettings {
    pub(super) fn new(
        endpoint: Result<TokenEndpoint, ConfigError>,
        client: Arc<dyn ClientAuthentication>,
    ) -> Self {
        Self {
            endpoint,
            resource: None,
            sends_resource: true,
            client,
            grant: None,
            grant_owner: None,
            parameters: Parameters::default(),
            step_up_scopes: None,
            assume_bearer: false,
            transport: None,
            invalid: None,
        }
    }

    /// The converted argument of a setter. One that does not convert is an error of `build`.
    pub(super) fn convert<T>(
        &mut self,
        value: impl TryInto<T, Error: Into<ConfigError>>,
    ) -> Option<T> {
        match value.try_into() {
            Ok(value) => Some(value),
            Err(error) => {
                self.invalid.get_or_insert_with(|| error.into());
                None
            }
        }
    }

    /// Sets the grant, unless there is one that cannot be replaced.
    pub(super) fn set_grant(&mut self, grant: impl Grant) {
        match self.grant_owner {
            None => self.grant = Some(Arc::new(grant)),
            Some(owner) => {
                self.invalid.get_or_insert_with(|| grant_conflict(owner));
            }
        }
    }

    /// The default name of the manager.
    pub(super) fn default_name(&self) -> String {
        match (self.client.client_id(), &self.endpoint) {
            (Some(client_id), _) => client_id.to_owned(),
            (None, Ok(TokenEndpoint::Discovered(discovery))) => {
                discovery.issuer.as_str().to_owned()
            }
            // Its path and query may be secrets.
            (None, Ok(TokenEndpoint::Fixed(url))) => url.origin(),
            (None, Err(_)) => String::new(),
        }
    }

    pub(super) fn build(
        self,
        policy: &RenewalPolicy,
        clock: &Arc<dyn Clock>,
        http: &HttpSettings,
    ) -> Result<TokenEndpointSource, ConfigError> {
        let Self {
            endpoint,
            resource,
            sends_resource,
            client,
            grant,
            grant_owner: _,
            mut parameters,
            step_up_scopes,
            assume_bearer,
            transport,
            invalid,
        } = self;
        let mut endpoint = endpoint?;
        invalid.map_or(Ok(()), Err)?;
        client.check()?;
        let grant = grant.unwrap_or_else(|| Arc::new(ClientCredentialsGrant));
        grant.check()?;
        if client.uses_mtls() {
            endpoint.prefer_mtls();
        }
        parameters.check()?;
        let plain_http = http.plain_http()?;
        let issuer = match &endpoint {
            TokenEndpoint::Fixed(url) => {
                plain_http
                    .check(url)
                    .map_err(|error| error.with_setting("token endpoint"))?;
                None
            }
            TokenEndpoint::Discovered(discovery) => {
                for candidate in metadata::well_known_urls(&discovery.issuer)? {
                    plain_http
                        .check(&candidate)
                        .map_err(|error| error.with_setting("issuer"))?;
                }
                Some(discovery.issuer.clone())
            }
        };
        if let Some(resource) = &resource {
            plain_http
                .check(resource.url())
                .map_err(|error| error.with_setting("resource"))?;
            if sends_resource {
                parameters.add_first_resource(resource.as_str());
            }
        }
        let allowed = match (step_up_scopes, &resource) {
            (Some(scopes), _) => AllowedScopes::Only(scopes),
            (None, Some(resource)) if parameters.name_only(resource.as_str()) => {
                AllowedScopes::AnyFor {
                    resource: resource.as_str().to_owned(),
                    origin: Origin::from(resource.url().clone()),
                }
            }
            (None, _) => AllowedScopes::Only(Vec::new()),
        };
        let scope_upgrade = ScopeUpgrade::new(&parameters.scopes, allowed);
        let resource = resource.map(ResourceMetadata::new);
        Ok(TokenEndpointSource {
            client,
            grant,
            parameters,
            scope_upgrade: Arc::new(scope_upgrade),
            assume_bearer,
            issuer,
            http_client: http.client(default_transport(transport)?)?,
            clock: Arc::clone(clock),
            // The limit of the renewer would cut it off with a less specific error.
            limit: policy.request_timeout.min(policy.acquire_timeout),
            state: Mutex::new(EndpointState::new(endpoint, resource)),
        })
    }
}

/// The error of a grant beside one that cannot be replaced.
pub(super) fn grant_conflict(owner: &str) -> ConfigError {
    ConfigError::without_value("grant", format!("must not be set: {owner} has its own"))
        .with_kind(ConfigErrorKind::Conflict)
}
