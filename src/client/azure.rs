//! Workload identity of Azure: a client of Microsoft Entra without a secret.

use std::path::PathBuf;

use super::builder::TokenManagerBuilder;
use super::client_assertion::ClientAssertion;
use super::environment;
use super::token_manager::TokenManager;
use crate::error::ConfigError;
use crate::provider;

const CLIENT_ID: &str = "AZURE_CLIENT_ID";
const TENANT_ID: &str = "AZURE_TENANT_ID";
const TOKEN_FILE: &str = "AZURE_FEDERATED_TOKEN_FILE";
const AUTHORITY_HOST: &str = "AZURE_AUTHORITY_HOST";

/// The default of `AZURE_AUTHORITY_HOST`.
const PUBLIC_CLOUD: &str = "https://login.microsoftonline.com/";

const HINT: &str = "Azure workload identity sets it for pods with the label \
                    `azure.workload.identity/use: \"true\"` and an annotated service account";

impl TokenManager {
    /// A builder for a manager of tokens of Microsoft Entra, for a workload of Azure Kubernetes
    /// Service.
    ///
    /// The client authenticates with the token of its service account, as a client assertion
    /// ([RFC 7523 §2.2](https://www.rfc-editor.org/rfc/rfc7523#section-2.2)). Workload identity sets
    /// `AZURE_CLIENT_ID`, `AZURE_TENANT_ID` and `AZURE_FEDERATED_TOKEN_FILE`, which is read again
    /// for each token request, and may set `AZURE_AUTHORITY_HOST`, by default
    /// `https://login.microsoftonline.com/`. The token endpoint is discovered, as with
    /// [`for_issuer`](Self::for_issuer).
    ///
    /// [`scope`](TokenManagerBuilder::scope) is required: the `…/.default` of the one API that the
    /// token is for.
    ///
    /// ```
    /// # fn manager() -> Result<(), tower_oauth::ConfigError> {
    /// use tower_oauth::TokenManager;
    ///
    /// let tokens = TokenManager::azure_workload_identity()?
    ///     .scope("api://6e74172b-be56-4843-9ff4-e66a39bb12e3/.default")
    ///     .start()?;
    /// # Ok(())
    /// # }
    /// // Outside of Azure
    /// let error = manager().unwrap_err();
    /// assert_eq!(error.setting(), "AZURE_CLIENT_ID");
    /// ```
    ///
    /// # Errors
    ///
    /// If one of the first three variables is not set, the tenant is not a GUID, or the authority
    /// host is not an origin. The error names the variable. Whether the file can be read shows the
    /// first token request, because it may be mounted later.
    pub fn azure_workload_identity() -> Result<TokenManagerBuilder, ConfigError> {
        let client_id = environment::required_text(CLIENT_ID, HINT)?;
        let tenant = environment::required_text(TENANT_ID, HINT)?;
        let file = PathBuf::from(environment::required(TOKEN_FILE, HINT)?);
        let authority = match environment::optional(AUTHORITY_HOST) {
            Some(host) => environment::text(AUTHORITY_HOST, host)?,
            None => PUBLIC_CLOUD.to_owned(),
        };
        let authority = provider::entra_authority(&authority)
            .map_err(|error| error.with_setting(AUTHORITY_HOST))?;
        let issuer = provider::entra_at(&authority, &tenant)
            .map_err(|error| error.with_setting(TENANT_ID))?;
        // Entra requires the client id: the subject of the assertion is the service account.
        let client = ClientAssertion::from_file(file).with_client_id(client_id);
        Self::for_issuer(issuer, client)
    }
}
