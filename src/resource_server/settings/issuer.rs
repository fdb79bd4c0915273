//! The settings of a trusted issuer.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::Duration;

use serde::de::{Deserializer, Error as _};
use serde_json::Value;

use super::refresh::RefreshSettings;
use super::with_path;
use crate::error::{ConfigError, ConfigErrorKind, Error};
use crate::jwt::{Algorithm, TokenProfile};
use crate::key_set::RefreshPolicy;
use crate::oauth::{Audience, Endpoint, Issuer, Scope};
use crate::resource_server::TrustedIssuer;
use crate::settings::{
    Provider, ProviderFields, by_commas, by_spaces, choice, flag, number, positive,
    required_claims, table, text,
};

/// The issuer, by its identifier or as what a provider calls it, and the rules for its tokens.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct IssuerSettings {
    #[serde(deserialize_with = "provider")]
    provider: Option<Provider>,
    #[serde(deserialize_with = "text")]
    issuer: Option<Issuer>,
    // The fields of the presets.
    #[serde(deserialize_with = "text")]
    url: Option<String>,
    #[serde(deserialize_with = "text")]
    realm: Option<String>,
    #[serde(deserialize_with = "text")]
    tenant: Option<String>,
    #[serde(deserialize_with = "text")]
    application_id: Option<String>,
    #[serde(deserialize_with = "text")]
    domain: Option<String>,
    #[serde(deserialize_with = "text")]
    authorization_server: Option<String>,
    #[serde(deserialize_with = "text")]
    region: Option<String>,
    #[serde(deserialize_with = "text")]
    user_pool: Option<String>,
    #[serde(deserialize_with = "text")]
    project: Option<String>,
    #[serde(deserialize_with = "by_commas")]
    callers: Option<Vec<String>>,
    // The keys.
    #[serde(deserialize_with = "text")]
    jwks_uri: Option<Endpoint>,
    #[serde(deserialize_with = "text")]
    initial_keys_file: Option<PathBuf>,
    #[serde(deserialize_with = "table")]
    refresh: Option<RefreshSettings>,
    // The rules for tokens.
    #[serde(deserialize_with = "by_commas")]
    audience: Option<Vec<Audience>>,
    #[serde(deserialize_with = "flag")]
    audience_optional: Option<bool>,
    #[serde(deserialize_with = "by_commas")]
    aliases: Option<Vec<Issuer>>,
    #[serde(deserialize_with = "by_commas")]
    allowed_clients: Option<Vec<String>>,
    #[serde(deserialize_with = "required_claims")]
    required_claims: BTreeMap<String, Vec<Value>>,
    #[serde(deserialize_with = "by_spaces")]
    required_scopes: Option<Vec<Scope>>,
    #[serde(deserialize_with = "profile")]
    profile: Option<TokenProfile>,
    #[serde(deserialize_with = "algorithms")]
    algorithms: Option<Vec<Algorithm>>,
    #[serde(deserialize_with = "number")]
    max_candidate_keys: Option<usize>,
    #[serde(deserialize_with = "positive")]
    max_lifetime_seconds: Option<NonZeroU64>,
    /// Bytes.
    #[serde(deserialize_with = "number")]
    max_token_len: Option<usize>,
    #[serde(deserialize_with = "number")]
    leeway_seconds: Option<u64>,
}

fn provider<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Provider>, D::Error> {
    choice(deserializer, Provider::CHOICES)
}

fn profile<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<TokenProfile>, D::Error> {
    let choices = [
        ("jwt", TokenProfile::Jwt),
        ("rfc9068", TokenProfile::Rfc9068),
    ];
    choice(deserializer, &choices)
}

fn algorithms<'de, D>(deserializer: D) -> Result<Option<Vec<Algorithm>>, D::Error>
where
    D: Deserializer<'de>,
{
    let names: Option<Vec<String>> = by_commas(deserializer)?;
    let from_name = |name: &String| {
        let reason = || D::Error::custom("must be names of supported algorithms, such as RS256");
        Algorithm::from_name(name).ok_or_else(reason)
    };
    let algorithms = names.map(|names| names.iter().map(from_name).collect());
    algorithms.transpose()
}

impl IssuerSettings {
    /// The issuer with all that is set. `path` is what errors begin with, such as `issuers.sso.`.
    ///
    /// `resource` is the audience, unless there is another.
    pub(super) fn trusted_issuer(
        &self,
        path: &str,
        resource: Option<&str>,
        refresh: &RefreshPolicy,
    ) -> Result<TrustedIssuer, ConfigError> {
        let mut issuer = self.named_issuer(path, resource)?;
        for alias in self.aliases.iter().flatten() {
            issuer = issuer.add_alias(alias.clone());
        }
        if let Some(jwks_uri) = &self.jwks_uri {
            issuer = issuer.jwks_uri(jwks_uri.clone());
        }
        if let Some(refresh_settings) = &self.refresh {
            issuer = issuer.refresh(refresh_settings.apply(refresh));
        }
        if self.audience_optional == Some(true) {
            issuer = issuer.audience_optional();
        }
        if self.provider != Some(Provider::Cognito)
            && let Some(clients) = &self.allowed_clients
        {
            issuer = issuer.allowed_clients(clients);
        }
        for (name, values) in &self.required_claims {
            issuer = issuer.require_claim(name, values.iter().cloned());
        }
        issuer = issuer.require_scopes(self.required_scopes.iter().flatten().cloned());
        if let Some(profile) = self.profile {
            issuer = issuer.profile(profile);
        }
        if let Some(algorithms) = &self.algorithms {
            issuer = issuer.algorithms(algorithms.iter().copied());
        }
        if let Some(keys) = self.max_candidate_keys {
            if !(1..=4).contains(&keys) {
                let setting = format!("{path}max_candidate_keys");
                return Err(ConfigError::new(
                    setting,
                    keys.to_string(),
                    "must be 1 to 4",
                ));
            }
            issuer = issuer.max_candidate_keys(keys);
        }
        if let Some(seconds) = self.max_lifetime_seconds {
            issuer = issuer.max_lifetime(Duration::from_secs(seconds.get()));
        }
        if let Some(bytes) = self.max_token_len {
            issuer = issuer.max_token_len(bytes);
        }
        if let Some(seconds) = self.leeway_seconds {
            issuer = issuer.leeway(Duration::from_secs(seconds));
        }
        match &self.initial_keys_file {
            Some(file) => {
                let unusable = |error| unusable_file(format!("{path}initial_keys_file"), &error);
                issuer.initial_keys_file(file).map_err(unusable)
            }
            None => Ok(issuer),
        }
    }

    /// The issuer with its audiences.
    fn named_issuer(
        &self,
        path: &str,
        resource: Option<&str>,
    ) -> Result<TrustedIssuer, ConfigError> {
        let mut fields = self.provider_fields(path);
        let mut audiences = self.audience.iter().flatten().cloned();
        let mut audience = |fields: &ProviderFields<'_>| match (audiences.next(), resource) {
            (Some(first), _) => Ok(first),
            (None, Some(resource)) => Audience::new(resource),
            (None, None) => Err(fields.missing("audience")),
        };
        let issuer = match self.provider {
            None => {
                let issuer = Issuer::new(fields.required("issuer")?)?;
                Ok(TrustedIssuer::new(issuer, audience(&fields)?))
            }
            Some(Provider::Keycloak) => {
                let (url, realm) = (fields.required("url")?, fields.required("realm")?);
                TrustedIssuer::keycloak(url, realm, audience(&fields)?)
            }
            Some(Provider::Entra) => TrustedIssuer::entra(
                fields.required("tenant")?,
                fields.required("application_id")?,
            ),
            Some(Provider::Auth0) => {
                TrustedIssuer::auth0(fields.required("domain")?, audience(&fields)?)
            }
            Some(Provider::Okta) => {
                let server = fields.required("authorization_server")?;
                TrustedIssuer::okta(fields.required("domain")?, server, audience(&fields)?)
            }
            Some(Provider::Cognito) => {
                let (region, user_pool) =
                    (fields.required("region")?, fields.required("user_pool")?);
                fields.required("allowed_clients")?;
                let clients = self.allowed_clients.iter().flatten();
                TrustedIssuer::cognito(region, user_pool, clients)
            }
            Some(Provider::Google) => {
                fields.required("callers")?;
                let callers = self.callers.iter().flatten();
                TrustedIssuer::google(audience(&fields)?, callers)
            }
            Some(Provider::Zitadel) => {
                TrustedIssuer::zitadel(fields.required("domain")?, audience(&fields)?)
            }
            Some(Provider::Supabase) => TrustedIssuer::supabase(fields.required("project")?),
        };
        let issuer = issuer.map_err(|error| with_path(error, path))?;
        self.take_rules(&mut fields);
        fields.finish()?;
        Ok(audiences.fold(issuer, TrustedIssuer::add_audience))
    }

    /// Takes what all providers use, but those that set it themselves.
    fn take_rules(&self, fields: &mut ProviderFields<'_>) {
        // It would replace the callers.
        if self.provider != Some(Provider::Google) {
            fields.optional("allowed_clients");
        }
        if !matches!(self.provider, Some(Provider::Entra | Provider::Google)) {
            fields.optional("algorithms");
        }
    }

    /// The fields that not every provider uses.
    fn provider_fields<'s>(&'s self, path: &'s str) -> ProviderFields<'s> {
        let is_set = |is_set: bool| is_set.then_some("");
        let fields = [
            ("issuer", self.issuer.as_ref().map(Issuer::as_str)),
            ("url", self.url.as_deref()),
            ("realm", self.realm.as_deref()),
            ("tenant", self.tenant.as_deref()),
            ("application_id", self.application_id.as_deref()),
            ("domain", self.domain.as_deref()),
            ("authorization_server", self.authorization_server.as_deref()),
            ("region", self.region.as_deref()),
            ("user_pool", self.user_pool.as_deref()),
            ("project", self.project.as_deref()),
            ("callers", is_set(self.callers.is_some())),
            ("allowed_clients", is_set(self.allowed_clients.is_some())),
            ("algorithms", is_set(self.algorithms.is_some())),
        ];
        ProviderFields::new(path, self.provider, fields)
    }
}

/// The error of a file of initial keys.
fn unusable_file(setting: String, error: &Error) -> ConfigError {
    let source = error.source();
    match source.and_then(|source| source.downcast_ref::<ConfigError>()) {
        Some(error) => error.clone().with_setting(setting),
        None => ConfigError::without_value(setting, format!("has no usable keys: {error}"))
            .with_kind(ConfigErrorKind::Unavailable),
    }
}
