//! Token managers for known providers.

use super::authentication::ClientAuthentication;
use super::builder::TokenManagerBuilder;
use super::token_manager::TokenManager;
use crate::error::ConfigError;
use crate::oauth::Audience;
use crate::provider;

impl TokenManager {
    /// A builder for a manager of tokens of a Keycloak realm.
    pub fn keycloak(
        url: impl AsRef<str>,
        realm: impl AsRef<str>,
        client: impl ClientAuthentication,
    ) -> Result<TokenManagerBuilder, ConfigError> {
        Self::for_issuer(provider::keycloak(url.as_ref(), realm.as_ref())?, client)
    }

    /// A builder for a manager of tokens of a Microsoft Entra tenant.
    pub fn entra(
        tenant: impl AsRef<str>,
        client: impl ClientAuthentication,
    ) -> Result<TokenManagerBuilder, ConfigError> {
        Self::for_issuer(provider::entra(tenant.as_ref())?, client)
    }

    /// A builder for a manager of tokens of an Auth0 tenant for one API.
    pub fn auth0(
        domain: impl AsRef<str>,
        audience: impl TryInto<Audience, Error: Into<ConfigError>>,
        client: impl ClientAuthentication,
    ) -> Result<TokenManagerBuilder, ConfigError> {
        let audience = audience.try_into().map_err(Into::into)?;
        let manager = Self::for_issuer(provider::auth0(domain.as_ref())?, client)?;
        Ok(manager.audience(audience))
    }

    /// A builder for a manager of tokens of a custom authorization server of Okta.
    pub fn okta(
        domain: impl AsRef<str>,
        authorization_server: impl AsRef<str>,
        client: impl ClientAuthentication,
    ) -> Result<TokenManagerBuilder, ConfigError> {
        let issuer = provider::okta(domain.as_ref(), authorization_server.as_ref())?;
        Self::for_issuer(issuer, client)
    }

    /// A builder for a manager of tokens of an Amazon Cognito user pool.
    pub fn cognito(
        region: impl AsRef<str>,
        user_pool: impl AsRef<str>,
        client: impl ClientAuthentication,
    ) -> Result<TokenManagerBuilder, ConfigError> {
        let issuer = provider::cognito(region.as_ref(), user_pool.as_ref())?;
        Self::for_issuer(issuer, client)
    }
}
