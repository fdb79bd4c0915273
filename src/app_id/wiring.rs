//! From a binding to the two ends.

use super::Binding;
use crate::error::ConfigError;
use crate::oauth::Audience;
use crate::resource_server::{ResourceServer, ResourceServerBuilder, TrustedIssuer};

impl Binding {
    /// A resource server that accepts the tokens of this tenant which are meant for the
    /// application of this binding.
    ///
    /// Tokens of version 4 and 3 are accepted, and keys as App ID publishes them; a token of
    /// another tenant is refused. For the default scope add a
    /// [`RequireScopeLayer::all(["appid_default"])`](crate::RequireScopeLayer).
    ///
    /// ```
    /// use tower_oauth::app_id::Binding;
    ///
    /// let binding = Binding::from_json(
    ///     r#"{"clientId": "111c22c3-38ea-4de8-b5d4-338744d83b0f",
    ///         "oauthServerUrl": "https://eu-gb.appid.cloud.ibm.com/oauth/v4/39a37f57-a227-4bfe-a044-93b6e6060b61"}"#,
    /// )?;
    /// let (resource_server, refresher) = binding.resource_server()?.build()?;
    /// # Ok::<(), tower_oauth::ConfigError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If the binding has no client id: then say whom the tokens are for with
    /// [`resource_server_for`](Self::resource_server_for).
    pub fn resource_server(&self) -> Result<ResourceServerBuilder, ConfigError> {
        let client_id = self.client_id().ok_or_else(|| {
            ConfigError::without_value("audience", "is required: the App ID binding has no client id")
        })?;
        Ok(self.resource_server_for(Audience::new(client_id)?))
    }

    /// A resource server that accepts the tokens of this tenant which are meant for `audience`.
    pub fn resource_server_for(&self, audience: Audience) -> ResourceServerBuilder {
        let aliases = vec![self.v3_issuer().clone()];
        let issuer = TrustedIssuer::new(self.issuer().clone(), audience)
            .jwks_uri(self.keys_url().clone())
            .app_id(self.tenant_id().to_owned(), aliases);
        ResourceServer::trusting(issuer)
    }
}
