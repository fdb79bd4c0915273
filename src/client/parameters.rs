//! The parameters of each token request of a manager: scopes, audience, resources, extensions.

use std::fmt;

use super::token_request::{MIN_SECRET_LENGTH, TokenRequest};
use crate::error::{ConfigError, ConfigErrorKind};
use crate::oauth::{Audience, Scope};

/// Parameters that have a dedicated method, or that grant or client authentication determine.
const RESERVED_PARAMETERS: [&str; 14] = [
    "actor_token",
    "actor_token_type",
    "assertion",
    "audience",
    "client_assertion",
    "client_assertion_type",
    "client_id",
    "client_secret",
    "grant_type",
    "requested_token_type",
    "resource",
    "scope",
    "subject_token",
    "subject_token_type",
];

/// The parameters that are added to each grant.
#[derive(Clone, Default)]
pub(super) struct Parameters {
    pub(super) scopes: Vec<Scope>,
    pub(super) audience: Option<Audience>,
    pub(super) resources: Vec<String>,
    extensions: Vec<(String, String)>,
}

impl Parameters {
    pub(super) fn add_extension(&mut self, name: String, value: String) {
        self.extensions.push((name, value));
    }

    /// Adds the resource that the manager is for, unless it is among the others.
    pub(super) fn add_first_resource(&mut self, resource: &str) {
        if !self.resources.iter().any(|other| other == resource) {
            self.resources.insert(0, resource.to_owned());
        }
    }

    /// Whether the request is for this resource, and nothing in it is for another.
    pub(super) fn name_only(&self, resource: &str) -> bool {
        self.resources == [resource] && self.audience.is_none() && self.extensions.is_empty()
    }

    /// Checks that the parameters can be sent. Called when the source is built.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        for (name, _) in &self.extensions {
            // RFC 6749 §3.2: a parameter must not be included more than once.
            let is_repeated = self
                .extensions
                .iter()
                .filter(|(other, _)| other == name)
                .count()
                > 1;
            if name.is_empty() || is_repeated || RESERVED_PARAMETERS.contains(&name.as_str()) {
                let reason = "must not be empty, repeated, or a parameter that has \
                              its own builder method";
                let error = ConfigError::new("parameter", name, reason);
                return Err(if name.is_empty() {
                    error
                } else {
                    error.with_kind(ConfigErrorKind::Conflict)
                });
            }
        }
        for resource in &self.resources {
            // RFC 8707 §2 requires an absolute URI without a fragment; some servers know names.
            if resource.is_empty() {
                return Err(ConfigError::missing("resource", "must not be empty"));
            }
            if resource.contains(char::is_control) {
                let reason = "must not contain control characters";
                return Err(ConfigError::new("resource", resource, reason));
            }
        }
        Ok(())
    }

    /// `added` are scopes in addition to the configured ones.
    pub(super) fn append_to(&self, request: &mut TokenRequest, added: &[Scope]) {
        let scopes = self.scopes.iter().chain(added).map(Scope::as_str);
        let scopes: Vec<&str> = scopes.collect();
        if !scopes.is_empty() {
            request.append("scope", &scopes.join(" "));
        }
        if let Some(audience) = &self.audience {
            request.append("audience", audience.as_str());
        }
        for resource in &self.resources {
            request.append("resource", resource);
        }
        for (name, value) in &self.extensions {
            // It may be an assertion or a password. Shorter values are flags and numbers.
            if value.len() >= MIN_SECRET_LENGTH {
                request.append_secret(name, &value.as_str().into());
            } else {
                request.append(name, value);
            }
        }
    }
}

impl fmt::Debug for Parameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.extensions.iter().map(|e| e.0.as_str()).collect();
        f.debug_struct("Parameters")
            .field("scopes", &self.scopes)
            .field("audience", &self.audience)
            .field("resources", &self.resources)
            .field("extensions", &names)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_parameters_and_resources_with_control_characters_are_invalid() {
        for name in RESERVED_PARAMETERS.into_iter().chain([""]) {
            let mut parameters = Parameters::default();
            parameters.add_extension(name.to_owned(), "x".to_owned());
            assert!(parameters.check().is_err(), "{name}");
        }
        for (resource, is_valid) in [
            ("https://orders.example", true),
            ("urn:orders", true),
            ("orders", true),
            ("/orders", true),
            ("https://orders.example/#x", true),
            ("Bestellungen für A & B", true),
            ("", false),
            ("a\nb", false),
            ("a\u{7f}", false),
            ("a\0", false),
        ] {
            let parameters = Parameters {
                resources: vec![resource.to_owned()],
                ..Parameters::default()
            };
            assert_eq!(parameters.check().is_ok(), is_valid, "{resource}");
        }
    }
}
