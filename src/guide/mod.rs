//! Guide pages on topics that span several types.

/// # IBM Cloud App ID
#[cfg(feature = "app-id")]
#[cfg_attr(docsrs, doc(cfg(feature = "app-id")))]
#[doc = include_str!("app_id.md")]
pub mod app_id {}

/// # Architecture
#[doc = include_str!("architecture.md")]
pub mod architecture {}

/// # Clients without secrets
#[cfg(feature = "reqwest")]
#[cfg_attr(docsrs, doc(cfg(feature = "reqwest")))]
#[doc = include_str!("client_authentication.md")]
pub mod client_authentication {
    /// # Auth0
    #[doc = include_str!("client_authentication/auth0.md")]
    pub mod auth0 {}

    /// # Microsoft Entra ID
    #[doc = include_str!("client_authentication/entra.md")]
    pub mod entra {}

    /// # Google
    #[doc = include_str!("client_authentication/google.md")]
    pub mod google {}

    /// # Keycloak
    #[doc = include_str!("client_authentication/keycloak.md")]
    pub mod keycloak {}

    /// # Kubernetes
    #[doc = include_str!("client_authentication/kubernetes.md")]
    pub mod kubernetes {}

    /// # Okta
    #[doc = include_str!("client_authentication/okta.md")]
    pub mod okta {}

    /// # SPIFFE
    #[doc = include_str!("client_authentication/spiffe.md")]
    pub mod spiffe {}
}

/// # Clients
#[doc = include_str!("clients.md")]
pub mod clients {}

/// # Configuration
#[doc = include_str!("configuration.md")]
pub mod configuration {}

/// # Contributing
#[doc = include_str!("contributing.md")]
pub mod contributing {}

/// # Key set policy
#[doc = include_str!("key_sets.md")]
pub mod key_sets {}

/// # MCP servers
#[doc = include_str!("mcp.md")]
pub mod mcp {}

/// # Metrics and events
#[doc = include_str!("metrics.md")]
pub mod metrics {}

/// # Performance
#[doc = include_str!("performance.md")]
pub mod performance {}

/// # Protected resource metadata
#[doc = include_str!("protected_resource.md")]
pub mod protected_resource {}

/// # Providers
#[doc = include_str!("providers.md")]
pub mod providers {
    /// # Auth0
    #[doc = include_str!("providers/auth0.md")]
    pub mod auth0 {}

    /// # Amazon Cognito
    #[doc = include_str!("providers/cognito.md")]
    pub mod cognito {}

    /// # Microsoft Entra ID
    #[doc = include_str!("providers/entra.md")]
    pub mod entra {}

    /// # Google service accounts
    #[doc = include_str!("providers/google.md")]
    pub mod google {}

    /// # Keycloak
    #[doc = include_str!("providers/keycloak.md")]
    pub mod keycloak {}

    /// # Okta
    #[doc = include_str!("providers/okta.md")]
    pub mod okta {}

    /// # Supabase
    #[doc = include_str!("providers/supabase.md")]
    pub mod supabase {}

    /// # Zitadel
    #[doc = include_str!("providers/zitadel.md")]
    pub mod zitadel {}
}

/// # What an issuer may publish
#[doc = include_str!("published_documents.md")]
pub mod published_documents {}

/// # Recipes
#[cfg(all(feature = "axum", feature = "authorization-server"))]
#[cfg_attr(docsrs, doc(cfg(feature = "axum")))]
#[doc = include_str!("recipes.md")]
pub mod recipes {
    /// # Clients
    #[doc = include_str!("recipes/clients.md")]
    pub mod clients {}

    /// # Deployment
    #[doc = include_str!("recipes/deployment.md")]
    pub mod deployment {}

    /// # gRPC
    #[doc = include_str!("recipes/grpc.md")]
    pub mod grpc {}

    /// # HTTP services
    #[doc = include_str!("recipes/http.md")]
    pub mod http {}

    /// # WebSockets and messages
    #[doc = include_str!("recipes/messages.md")]
    pub mod messages {}
}

/// # What is refused, and why, and what to do at the issuer
#[doc = include_str!("refused_tokens.md")]
pub mod refused_tokens {}

/// # What a caller may do
#[cfg(all(
    feature = "axum",
    feature = "authorization-server",
    feature = "test-util"
))]
#[cfg_attr(docsrs, doc(cfg(feature = "axum")))]
#[doc = include_str!("requirements.md")]
pub mod requirements {}

/// # Tokens for a protected resource
#[doc = include_str!("resource_tokens.md")]
pub mod resource_tokens {}

/// # Security
#[doc = include_str!("security.md")]
pub mod security {}

/// # Settings from files and variables
#[doc = include_str!("settings.md")]
pub mod settings {}

/// # Testing without an issuer
#[cfg(all(feature = "authorization-server", feature = "test-util"))]
#[cfg_attr(docsrs, doc(cfg(feature = "authorization-server")))]
#[doc = include_str!("testing.md")]
pub mod testing {}

/// # Threat model
#[doc = include_str!("threat_model.md")]
pub mod threat_model {}

/// # Troubleshooting
#[doc = include_str!("troubleshooting.md")]
pub mod troubleshooting {}

/// # Token responses
#[doc = include_str!("token_responses.md")]
pub mod token_responses {}
