//! Token managers for known providers.

use super::authentication::ClientAuthentication;
use super::builder::TokenManagerBuilder;
use super::token_manager::TokenManager;
use crate::error::ConfigError;
use crate::oauth::Audience;
use crate::provider;

impl TokenManager {
    /// A builder for a manager of tokens of a Keycloak realm.
    ///
    /// `url` is that of the server, such as `https://sso.example`. The audience of the token is
    /// what the mappers of the client add; Keycloak ignores a parameter for it.
    /// [`guide::providers::keycloak`](mod@crate::guide::providers::keycloak) says what to set. The
    /// token endpoint is discovered, as with [`for_issuer`](Self::for_issuer).
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/provider.rs"));
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # let network = Provider::keycloak();
    /// use tower_oauth::{ClientCredentials, TokenManager};
    ///
    /// let credentials = ClientCredentials::new("shop", "s3cret");
    /// let tokens = TokenManager::keycloak("https://sso.example", "shop", credentials)?
    /// #   .transport(network.clone())
    ///     .start()?;
    /// let token = tokens.access_token().await?;
    /// assert!(token.expires_at().is_some());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// If `url` is not an `https` or `http` URL, or `realm` has characters other than letters,
    /// digits, `-`, `.`, `_` and `~`. Whether plain `http` is allowed is checked by
    /// [`build`](TokenManagerBuilder::build).
    pub fn keycloak(
        url: impl AsRef<str>,
        realm: impl AsRef<str>,
        client: impl ClientAuthentication,
    ) -> Result<TokenManagerBuilder, ConfigError> {
        Self::for_issuer(provider::keycloak(url.as_ref(), realm.as_ref())?, client)
    }

    /// A builder for a manager of tokens of a Microsoft Entra tenant.
    ///
    /// `tenant` is its id, a GUID. [`scope`](TokenManagerBuilder::scope) is required: Entra issues
    /// a token for the one API whose `…/.default` it is.
    /// [`guide::providers::entra`](mod@crate::guide::providers::entra) says what to set. The token
    /// endpoint is discovered, as with [`for_issuer`](Self::for_issuer).
    ///
    /// With [`PrivateKeyJwt`](super::PrivateKeyJwt), set
    /// [`AssertionAudience::TokenEndpoint`](super::AssertionAudience::TokenEndpoint): Entra expects
    /// it.
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/provider.rs"));
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # let network = Provider::entra();
    /// use tower_oauth::{ClientCredentials, Scope, TokenManager};
    ///
    /// let credentials = ClientCredentials::new("9d1a6b9f-0c0d-4a39-8d57-4a8d2a4a0c11", "s3cret");
    /// let tenant = "72f988bf-86f1-41af-91ab-2d7cd011db47";
    /// let tokens = TokenManager::entra(tenant, credentials)?
    ///     .scope(Scope::new("api://6e74172b-be56-4843-9ff4-e66a39bb12e3/.default")?)
    /// #   .transport(network.clone())
    ///     .start()?;
    /// let token = tokens.access_token().await?;
    /// assert!(token.expires_at().is_some());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// If `tenant` is not a GUID.
    pub fn entra(
        tenant: impl AsRef<str>,
        client: impl ClientAuthentication,
    ) -> Result<TokenManagerBuilder, ConfigError> {
        Self::for_issuer(provider::entra(tenant.as_ref())?, client)
    }

    /// A builder for a manager of tokens of an Auth0 tenant for one API.
    ///
    /// `domain` is that of the tenant. `audience` is the identifier of the API, which Auth0
    /// requires as the parameter `audience`.
    /// [`guide::providers::auth0`](mod@crate::guide::providers::auth0) says what to set. The token
    /// endpoint is discovered, as with [`for_issuer`](Self::for_issuer).
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/provider.rs"));
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # let network = Provider::auth0();
    /// use tower_oauth::{ClientCredentials, TokenManager};
    ///
    /// let credentials = ClientCredentials::new("K1AUPhZq8mRi0Q0p", "s3cret").client_secret_post();
    /// let api = "https://orders.example";
    /// let tokens = TokenManager::auth0("shop.eu.auth0.com", api, credentials)?
    /// #   .transport(network.clone())
    ///     .start()?;
    /// let token = tokens.access_token().await?;
    /// assert!(token.expires_at().is_some());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// If `domain` is not a host name in lower case, or the audience is empty.
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
    ///
    /// `authorization_server` is its id, such as `default`. [`scope`](TokenManagerBuilder::scope)
    /// is required, unless the server has default scopes.
    /// [`guide::providers::okta`](mod@crate::guide::providers::okta) says what to set. The token
    /// endpoint is discovered, as with [`for_issuer`](Self::for_issuer).
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/provider.rs"));
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # let network = Provider::okta();
    /// use tower_oauth::{ClientCredentials, Scope, TokenManager};
    ///
    /// let credentials = ClientCredentials::new("0oabv6kx4qq6h1U5l0h7", "s3cret");
    /// let tokens = TokenManager::okta("shop.okta.com", "default", credentials)?
    ///     .scope(Scope::new("orders.read")?)
    /// #   .transport(network.clone())
    ///     .start()?;
    /// let token = tokens.access_token().await?;
    /// assert!(token.expires_at().is_some());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// If `domain` is not a host name in lower case, or `authorization_server` is not an id.
    pub fn okta(
        domain: impl AsRef<str>,
        authorization_server: impl AsRef<str>,
        client: impl ClientAuthentication,
    ) -> Result<TokenManagerBuilder, ConfigError> {
        let issuer = provider::okta(domain.as_ref(), authorization_server.as_ref())?;
        Self::for_issuer(issuer, client)
    }

    /// A builder for a manager of tokens of an Amazon Cognito user pool.
    ///
    /// The pool needs a domain: its token endpoint is there, and the metadata name it. Without a
    /// [`scope`](TokenManagerBuilder::scope) the token has all scopes of the app client.
    /// [`guide::providers::cognito`](mod@crate::guide::providers::cognito) says what to set. The
    /// token endpoint is discovered, as with [`for_issuer`](Self::for_issuer).
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/provider.rs"));
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # let network = Provider::cognito();
    /// use tower_oauth::{ClientCredentials, Scope, TokenManager};
    ///
    /// let credentials = ClientCredentials::new("7ol0h0kd3rk4b4q6n1m3v5u8a2", "s3cret");
    /// let tokens = TokenManager::cognito("eu-west-1", "eu-west-1_Example1", credentials)?
    ///     .scope(Scope::new("orders/read")?)
    /// #   .transport(network.clone())
    ///     .start()?;
    /// let token = tokens.access_token().await?;
    /// assert!(token.expires_at().is_some());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// If `region` is not the name of a region, or `user_pool` is not a user pool in it.
    pub fn cognito(
        region: impl AsRef<str>,
        user_pool: impl AsRef<str>,
        client: impl ClientAuthentication,
    ) -> Result<TokenManagerBuilder, ConfigError> {
        let issuer = provider::cognito(region.as_ref(), user_pool.as_ref())?;
        Self::for_issuer(issuer, client)
    }
}
