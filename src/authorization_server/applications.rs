//! Registered applications, their scopes and roles.

use std::collections::HashSet;
use std::hash::Hash;

use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value, json};

use super::assertion_settings::{AssertionSettings, ExpectedAudience, FederatedCredential, JwkSet};
use super::{AuthorizationServer, Version};
use crate::app_id::Binding;
use crate::client::ClientCredentials;
use crate::error::ConfigError;
use crate::oauth::Scope;

/// App ID's limits for an application.
const MAX_SCOPES: usize = 50;
const MAX_NAME: usize = 50;

/// Bytes of the claims that are set for one application, as JSON: longer tokens are rejected.
const MAX_CLAIMS_LENGTH: usize = 8192;

/// The scope that App ID grants to every token request without `scope`.
pub(super) const DEFAULT_SCOPE: &str = "appid_default";

/// An application as it is stored.
#[derive(Clone, Debug)]
pub(super) struct Registration {
    pub(super) client_id: String,
    pub(super) secret: SecretString,
    pub(super) name: String,
    /// `regularwebapp` or `singlepageapp`; the secret of the latter is not accepted.
    pub(super) kind: String,
    pub(super) scopes: Vec<String>,
    pub(super) role_ids: Vec<String>,
    /// Claims of its tokens, which replace those that the server sets.
    pub(super) claims: Map<String, Value>,
    /// The keys and issuers whose assertions authenticate it, in place of its secret.
    pub(super) assertions: AssertionSettings,
}

/// A role: a named set of scopes of applications.
#[derive(Clone, Debug)]
pub(super) struct Role {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) description: String,
    /// Client id of an application, with scopes of that application.
    pub(super) access: Vec<(String, Vec<String>)>,
}

impl Registration {
    /// Validates an application from the API, the dashboard or the state file.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        check_name(&self.name)?;
        if !matches!(self.kind.as_str(), "regularwebapp" | "singlepageapp") {
            return Err(ConfigError::without_value(
                "type",
                "must be regularwebapp or singlepageapp",
            ));
        }
        if self.secret.expose_secret().is_empty() {
            return Err(ConfigError::without_value("secret", "must not be empty"));
        }
        if self.scopes.len() > MAX_SCOPES {
            return Err(ConfigError::without_value("scopes", "must be at most 50"));
        }
        if json!(self.claims).to_string().len() > MAX_CLAIMS_LENGTH {
            return Err(ConfigError::without_value(
                "claims",
                "must be at most 8192 bytes of JSON",
            ));
        }
        self.assertions.check()?;
        match self
            .scopes
            .iter()
            .find(|scope| Scope::new(scope.as_str()).is_err())
        {
            None => Ok(()),
            Some(bad) => Err(ConfigError::new("scope", bad, "must be a scope token")),
        }
    }

    pub(super) fn set_name(&mut self, name: &str) -> Result<(), ConfigError> {
        name.clone_into(&mut self.name);
        self.check()
    }

    pub(super) fn set_scopes(&mut self, scopes: Vec<String>) -> Result<(), ConfigError> {
        self.scopes = scopes;
        self.check()
    }

    fn set_claim(&mut self, name: &str, value: Value) -> Result<(), ConfigError> {
        self.claims.insert(name.to_owned(), value);
        self.check()
    }
}

impl Role {
    /// Validates a role from the API, the dashboard or the state file.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        check_name(&self.name)?;
        self.access
            .iter()
            .try_for_each(|(_, scopes)| check_app_id_scopes(scopes))
    }
}

/// Removes duplicates in linear time; the order of first occurrence is preserved.
pub(super) fn distinct<T: Copy + Eq + Hash>(items: impl Iterator<Item = T>) -> Vec<T> {
    let mut seen = HashSet::new();
    items.filter(|item| seen.insert(*item)).collect()
}

/// Checks scopes by the rule of App ID's management API, which is narrower than RFC 6749 §3.3.
pub(super) fn check_app_id_scopes(scopes: &[String]) -> Result<(), ConfigError> {
    match scopes.iter().find(|scope| !is_scope_name(scope)) {
        None => Ok(()),
        Some(bad) => {
            let reason = "must consist of fewer than 50 lower-case letters, digits, `.` and `_`, \
                          and not start with appid or openid";
            Err(ConfigError::new("scope", bad, reason))
        }
    }
}

fn check_name(name: &str) -> Result<(), ConfigError> {
    match name.chars().take(MAX_NAME + 1).count() {
        1..=MAX_NAME => Ok(()),
        _ => Err(ConfigError::without_value(
            "name",
            "must have 1 to 50 characters",
        )),
    }
}

fn is_scope_name(scope: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_');
    (1..50).contains(&scope.len())
        && scope.bytes().all(allowed)
        && !scope.starts_with("appid")
        && !scope.starts_with("openid")
}

/// A registered application, with its credentials.
///
/// ```
/// # use tower_oauth::authorization_server::AuthorizationServer;
/// # use tower_oauth::resource_server::Algorithm;
/// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
/// # let shop = issuer.register("shop")?;
///
/// assert_eq!(shop.name(), "shop");
/// assert_eq!(shop.credentials().client_id(), shop.client_id());
/// assert_eq!(shop.binding()?.client_id(), Some(shop.client_id()));
/// # Ok::<(), tower_oauth::ConfigError>(())
/// ```
#[derive(Clone, Debug)]
pub struct RegisteredApplication {
    server: AuthorizationServer,
    registration: Registration,
}

impl RegisteredApplication {
    pub(super) fn new(server: AuthorizationServer, registration: Registration) -> Self {
        Self {
            server,
            registration,
        }
    }

    /// Its client id.
    #[must_use]
    pub fn client_id(&self) -> &str {
        &self.registration.client_id
    }

    /// Its secret, as a type of the crate `secrecy`.
    ///
    /// [`credentials`](Self::credentials) has the secret for a token manager, without that crate.
    #[must_use]
    pub fn secret(&self) -> &SecretString {
        &self.registration.secret
    }

    /// Its display name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.registration.name
    }

    /// Its credentials for a [`TokenManager`](crate::TokenManager).
    pub fn credentials(&self) -> ClientCredentials {
        ClientCredentials::new(self.client_id(), self.secret().clone())
    }

    /// Replaces the scopes that are assigned to it.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use tower_oauth::authorization_server::AuthorizationServer;
    /// # use tower_oauth::resource_server::Algorithm;
    /// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
    /// # let shop = issuer.register("shop")?;
    /// use tower_oauth::TokenManager;
    ///
    /// shop.set_scopes(["orders.read"])?;
    /// # let tokens = TokenManager::builder(issuer.token_endpoint(), shop.credentials());
    /// # let tokens = tokens.transport(issuer.transport()).start()?;
    /// let token = tokens.access_token().await?; // without `scope` in its request
    /// let scopes = token.scopes().unwrap_or_default();
    /// assert!(scopes.iter().any(|scope| scope == "orders.read"));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// If there are more than 50 scopes, or one is not a scope token (RFC 6749 §3.3). The
    /// management API accepts App ID's scope names only: fewer than 50 lower-case letters, digits,
    /// `.` and `_`, not starting with `appid` or `openid`.
    pub fn set_scopes(
        &self,
        scopes: impl IntoIterator<Item: AsRef<str>>,
    ) -> Result<(), ConfigError> {
        let scopes = scopes.into_iter().map(|scope| scope.as_ref().to_owned());
        let scopes = scopes.collect();
        self.update(|application| application.set_scopes(scopes))
    }

    /// Sets a claim of its tokens: those of the token endpoint, and those that are minted.
    ///
    /// A claim that the server sets by default, such as `aud`, is replaced; but a minted token has
    /// its `scope` from [`set_scopes`](Self::set_scopes).
    /// [`TokenMint::claim`](super::TokenMint::claim) sets a claim of one token.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower_oauth::BoxError> {
    /// # use tower_oauth::authorization_server::AuthorizationServer;
    /// # use tower_oauth::resource_server::Algorithm;
    /// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
    /// # let shop = issuer.register("shop")?;
    /// use tower_oauth::{ResourceServer, TokenManager};
    ///
    /// shop.set_claim("client_id", shop.client_id())?;
    /// shop.set_claim("roles", ["clerk"])?;
    /// # let tokens = TokenManager::builder(issuer.token_endpoint(), shop.credentials());
    /// # let tokens = tokens.transport(issuer.transport()).start()?;
    /// # let orders = ResourceServer::builder(issuer.issuer(), shop.client_id());
    /// # let orders = orders.transport(issuer.transport()).start().await?;
    /// let token = tokens.access_token().await?;
    /// let caller = orders.validate(token.expose_secret()).await?;
    /// assert_eq!(caller.client_id(), Some(shop.client_id()));
    /// assert!(caller.has_role("clerk"));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// If the claims that are set for the application exceed 8192 bytes of JSON.
    pub fn set_claim(&self, name: &str, value: impl Into<Value>) -> Result<(), ConfigError> {
        let value = value.into();
        self.update(|application| application.set_claim(name, value))
    }

    /// Sets the public keys with which it signs assertions (`private_key_jwt`,
    /// [RFC 7523](https://www.rfc-editor.org/rfc/rfc7523)), as a JWK Set or as the text of one.
    ///
    /// Its assertions have its client id as `iss` and `sub`, the issuer as `aud`, a `jti` that is
    /// new, and an `exp` within an hour. An algorithm is accepted if a key is for it. The secret
    /// stays valid: an application of App ID always has one.
    ///
    /// ```
    /// # use tower_oauth::authorization_server::AuthorizationServer;
    /// # use tower_oauth::resource_server::Algorithm;
    /// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
    /// # let shop = issuer.register("shop")?;
    /// use serde_json::json;
    ///
    /// // RFC 8037 appendix A.2
    /// shop.set_jwks(json!({ "keys": [{
    ///     "kty": "OKP",
    ///     "crv": "Ed25519",
    ///     "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
    /// }] }))?;
    /// assert!(shop.set_jwks("{}").is_err());
    /// # Ok::<(), tower_oauth::ConfigError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If it is not a JWK Set, has no public key for signatures, has a private or symmetric key, or
    /// exceeds 16 KiB.
    pub fn set_jwks(&self, jwks: impl Into<Value>) -> Result<(), ConfigError> {
        let jwks = JwkSet::from_value(&jwks.into())?;
        self.update_assertions(|assertions| assertions.jwks = Some(jwks))
    }

    /// Adds a federated credential: tokens of `issuer` with this `sub`, signed by a key of `jwks`,
    /// authenticate the application.
    ///
    /// So workloads authenticate with the token that their platform issues to them: Kubernetes,
    /// GitHub Actions, SPIFFE. The token has this server's issuer as its only `aud`, and expires
    /// within a day. It may be sent more than once.
    ///
    /// The keys are these; the server fetches none. A JWT-SVID without `iss` is that of the trust
    /// domain: `issuer` is `spiffe://` and its name.
    ///
    /// ```
    /// # use tower_oauth::authorization_server::AuthorizationServer;
    /// # use tower_oauth::resource_server::Algorithm;
    /// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
    /// # let shop = issuer.register("shop")?;
    /// let jwks = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"cluster-1",
    ///     "x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
    /// let cluster = "https://kubernetes.default.svc.cluster.local";
    /// shop.add_federated_credential(cluster, "system:serviceaccount:shop:default", jwks)?;
    /// # Ok::<(), tower_oauth::ConfigError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Like [`set_jwks`](Self::set_jwks), and if `issuer` is no issuer, `subject` is empty, an
    /// application has this issuer and subject already, or this one has four federated credentials.
    pub fn add_federated_credential(
        &self,
        issuer: &str,
        subject: &str,
        jwks: impl Into<Value>,
    ) -> Result<(), ConfigError> {
        let credential = FederatedCredential {
            issuer: issuer.to_owned(),
            subject: subject.to_owned(),
            jwks: JwkSet::from_value(&jwks.into())?,
        };
        self.update_assertions(|assertions| {
            assertions.federated_credentials.push(credential);
        })
    }

    /// The `aud` that its assertions must have.
    #[must_use]
    pub fn assertion_audience(&self) -> ExpectedAudience {
        let state = self.server.0.state();
        let current = state.application(self.client_id());
        current.unwrap_or(&self.registration).assertions.audience
    }

    /// Sets the `aud` that its assertions must have. Default: [`ExpectedAudience::Issuer`].
    ///
    /// # Errors
    ///
    /// If the state file cannot be written.
    pub fn set_assertion_audience(&self, audience: ExpectedAudience) -> Result<(), ConfigError> {
        self.update_assertions(|assertions| assertions.audience = audience)
    }

    fn update_assertions(
        &self,
        change: impl FnOnce(&mut AssertionSettings),
    ) -> Result<(), ConfigError> {
        self.server.0.update(|state| {
            let changed = state.update_assertions(self.client_id(), change)?;
            changed.map(drop).ok_or_else(deleted)
        })
    }

    fn update(
        &self,
        change: impl FnOnce(&mut Registration) -> Result<(), ConfigError>,
    ) -> Result<(), ConfigError> {
        self.server
            .0
            .update(|state| match state.application_mut(self.client_id()) {
                Some(application) => change(application),
                None => Err(deleted()),
            })
    }

    /// The scopes of a token that was requested without `scope`.
    pub(super) fn granted_scopes(&self) -> Vec<String> {
        let state = self.server.0.state();
        let assigned = state
            .application(self.client_id())
            .map(|application| state.assigned_scopes(application));
        std::iter::once(DEFAULT_SCOPE.to_owned())
            .chain(assigned.unwrap_or_default())
            .collect()
    }

    /// Its App ID service credentials, including the secret, as in a service binding.
    ///
    /// ```
    /// # use tower_oauth::authorization_server::AuthorizationServer;
    /// # use tower_oauth::resource_server::Algorithm;
    /// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
    /// # let shop = issuer.register("shop")?;
    /// use tower_oauth::app_id::Binding;
    ///
    /// // The value of `APPID_SERVICE_BINDING` of a service under test.
    /// let json = shop.service_credentials().to_string();
    /// assert_eq!(Binding::from_json(&json)?.client_id(), Some(shop.client_id()));
    /// # Ok::<(), tower_oauth::ConfigError>(())
    /// ```
    #[must_use]
    pub fn service_credentials(&self) -> Value {
        let url = self.server.0.oauth_url(Version::V4);
        json!({
            "tenantId": self.server.tenant_id(),
            "clientId": self.client_id(),
            "secret": self.secret().expose_secret(),
            "name": self.name(),
            "oAuthServerUrl": url,
            "oauthServerUrl": url,
            "managementUrl": self.server.management_url(),
        })
    }

    /// Its App ID binding, which builds resource servers and token managers.
    ///
    /// # Errors
    ///
    /// If the tenant id is not valid in App ID.
    pub fn binding(&self) -> Result<Binding, ConfigError> {
        Binding::from_json(&self.service_credentials().to_string())
    }
}

fn deleted() -> ConfigError {
    ConfigError::without_value("application", "has been deleted")
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::hash::Hasher;

    use super::*;

    /// Counts its comparisons.
    #[derive(Clone, Copy)]
    struct Counted<'a>(u32, &'a Cell<usize>);

    impl PartialEq for Counted<'_> {
        fn eq(&self, other: &Self) -> bool {
            self.1.set(self.1.get() + 1);
            self.0 == other.0
        }
    }

    impl Eq for Counted<'_> {}

    impl Hash for Counted<'_> {
        fn hash<H: Hasher>(&self, hasher: &mut H) {
            self.0.hash(hasher);
        }
    }

    #[test]
    fn distinct_takes_linear_time() {
        let compared = Cell::new(0);
        // The most that fit into a request body.
        let count = 30_000;
        let unique = distinct((0..count).chain(0..count).map(|n| Counted(n, &compared)));
        assert!(
            unique.iter().map(|counted| counted.0).eq(0..count),
            "each item once, in order"
        );
        assert!(
            compared.get() < 10 * 30_000,
            "{} comparisons",
            compared.get()
        );
    }
}
