//! The providers that settings can name, and the fields that each uses.

use std::fmt;

use crate::error::{ConfigError, ConfigErrorKind};

/// A provider with presets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Provider {
    Auth0,
    Cognito,
    Entra,
    Google,
    Keycloak,
    Okta,
    Supabase,
    Zitadel,
}

impl Provider {
    /// By the names in settings.
    pub(crate) const CHOICES: &'static [(&'static str, Self)] = &[
        ("auth0", Self::Auth0),
        ("cognito", Self::Cognito),
        ("entra", Self::Entra),
        ("google", Self::Google),
        ("keycloak", Self::Keycloak),
        ("okta", Self::Okta),
        ("supabase", Self::Supabase),
        ("zitadel", Self::Zitadel),
    ];

    /// Those whose token endpoint a client uses.
    pub(crate) const CLIENT_CHOICES: &'static [(&'static str, Self)] = &[
        ("auth0", Self::Auth0),
        ("cognito", Self::Cognito),
        ("entra", Self::Entra),
        ("keycloak", Self::Keycloak),
        ("okta", Self::Okta),
    ];
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut choices = Self::CHOICES.iter();
        let choice = choices.find(|(_, provider)| provider == self);
        f.write_str(choice.map_or("", |(name, _)| name))
    }
}

/// The fields that depend on the provider. Those that are not taken are not used by it.
pub(crate) struct ProviderFields<'s> {
    path: &'s str,
    provider: Option<Provider>,
    set: Vec<(&'static str, &'s str)>,
}

impl<'s> ProviderFields<'s> {
    /// `path` is what errors begin with, such as `issuers.sso.`.
    pub(crate) fn new(
        path: &'s str,
        provider: Option<Provider>,
        fields: impl IntoIterator<Item = (&'static str, Option<&'s str>)>,
    ) -> Self {
        let set = fields
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)));
        Self {
            path,
            provider,
            set: set.collect(),
        }
    }

    /// Takes a field that may be absent.
    pub(crate) fn optional(&mut self, name: &str) -> Option<&'s str> {
        let at = self.set.iter().position(|(field, _)| *field == name)?;
        Some(self.set.swap_remove(at).1)
    }

    /// Takes a field that must be there.
    pub(crate) fn required(&mut self, name: &str) -> Result<&'s str, ConfigError> {
        self.optional(name).ok_or_else(|| self.missing(name))
    }

    /// The error of a field that must be there.
    pub(crate) fn missing(&self, name: &str) -> ConfigError {
        let reason = match self.provider {
            Some(provider) => format!("is required by the provider `{provider}`"),
            None => "is required without a `provider`".to_owned(),
        };
        ConfigError::missing(format!("{}{name}", self.path), reason)
    }

    /// Checks that all fields were taken.
    pub(crate) fn finish(self) -> Result<(), ConfigError> {
        let Some((name, _)) = self.set.first() else {
            return Ok(());
        };
        let reason = match self.provider {
            Some(provider) => format!("is not used by the provider `{provider}`"),
            None => "is used only with a `provider`".to_owned(),
        };
        let error = ConfigError::without_value(format!("{}{name}", self.path), reason);
        Err(error.with_kind(ConfigErrorKind::Conflict))
    }
}
