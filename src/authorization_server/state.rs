//! The state of the server: applications, roles and signing keys.

use std::collections::{BTreeSet, HashSet};

use serde_json::Map;

use super::applications::{DEFAULT_SCOPE, Registration, Role};
use super::assertion_settings::{AssertionSettings, FederatedCredential, ISSUER};
use super::signing_keys::{KeyRing, SigningKey, constant_time_eq, new_kid, random_secret};
use crate::clock::UnixTime;
use crate::error::ConfigError;
use crate::jwt::Algorithm;

/// App ID's limits for a tenant.
const MAX_APPLICATIONS: usize = 200;
const MAX_ROLES: usize = 50;

/// Applications, roles and keys. Updated on a copy, so that a failed update has no effect.
#[derive(Clone, Debug)]
pub(super) struct State {
    pub(super) applications: Vec<Registration>,
    pub(super) roles: Vec<Role>,
    pub(super) keys: KeyRing,
}

impl State {
    pub(super) fn new(
        tenant_id: &str,
        algorithm: Algorithm,
        now: UnixTime,
    ) -> Result<Self, ConfigError> {
        let key = SigningKey::generate(new_kid(tenant_id), algorithm, now)?;
        Ok(Self {
            applications: Vec::new(),
            roles: Vec::new(),
            keys: KeyRing::new(key),
        })
    }

    pub(super) fn register(&mut self, name: &str) -> Result<Registration, ConfigError> {
        self.register_as(name, "regularwebapp")
    }

    pub(super) fn register_as(
        &mut self,
        name: &str,
        kind: &str,
    ) -> Result<Registration, ConfigError> {
        let registration = Registration {
            client_id: uuid::Uuid::new_v4().to_string(),
            secret: random_secret()?,
            name: name.to_owned(),
            kind: kind.to_owned(),
            scopes: Vec::new(),
            role_ids: Vec::new(),
            claims: Map::new(),
            assertions: AssertionSettings::default(),
        };
        registration.check()?;
        if self.applications.len() >= MAX_APPLICATIONS {
            return Err(ConfigError::without_value(
                "applications",
                "there are 200 already, the most that a tenant can have",
            ));
        }
        self.applications.push(registration.clone());
        Ok(registration)
    }

    pub(super) fn application(&self, client_id: &str) -> Option<&Registration> {
        self.applications
            .iter()
            .find(|application| application.client_id == client_id)
    }

    pub(super) fn application_mut(&mut self, client_id: &str) -> Option<&mut Registration> {
        self.applications
            .iter_mut()
            .find(|application| application.client_id == client_id)
    }

    /// Updates one application; `None` if it does not exist.
    pub(super) fn update_application(
        &mut self,
        client_id: &str,
        change: impl FnOnce(&mut Registration) -> Result<(), ConfigError>,
    ) -> Result<Option<Registration>, ConfigError> {
        let Some(application) = self.application_mut(client_id) else {
            return Ok(None);
        };
        change(application)?;
        Ok(Some(application.clone()))
    }

    /// Returns whether it existed.
    pub(super) fn delete_application(&mut self, client_id: &str) -> bool {
        let before = self.applications.len();
        self.applications
            .retain(|application| application.client_id != client_id);
        self.applications.len() < before
    }

    pub(super) fn add_role(&mut self, role: Role) -> Result<Role, ConfigError> {
        role.check()?;
        if self.roles.len() >= MAX_ROLES {
            return Err(ConfigError::without_value(
                "roles",
                "there are 50 already, the most that a tenant can have",
            ));
        }
        self.roles.push(role.clone());
        Ok(role)
    }

    pub(super) fn has_role(&self, id: &str) -> bool {
        self.roles.iter().any(|role| role.id == id)
    }

    /// Returns whether it existed.
    pub(super) fn delete_role(&mut self, id: &str) -> bool {
        let before = self.roles.len();
        self.roles.retain(|role| role.id != id);
        for application in &mut self.applications {
            application.role_ids.retain(|role| role != id);
        }
        self.roles.len() < before
    }

    /// Returns the application with this id and secret.
    pub(super) fn authenticate(&self, client_id: &str, secret: &str) -> Option<&Registration> {
        self.application(client_id)
            .filter(|application| constant_time_eq(secret, &application.secret))
    }

    /// Returns the application with this trusted issuer and subject, and its credential.
    pub(super) fn federated_application(
        &self,
        issuer: &str,
        subject: &str,
    ) -> Option<(&Registration, &FederatedCredential)> {
        self.federated_credentials()
            .find(|(_, credential)| credential.issuer == issuer && credential.subject == subject)
    }

    fn federated_credentials(&self) -> impl Iterator<Item = (&Registration, &FederatedCredential)> {
        self.applications.iter().flat_map(|application| {
            let credentials = application.assertions.federated_credentials.iter();
            credentials.map(move |credential| (application, credential))
        })
    }

    /// Updates the assertions of one application; `None` if it does not exist.
    pub(super) fn update_assertions(
        &mut self,
        client_id: &str,
        change: impl FnOnce(&mut AssertionSettings),
    ) -> Result<Option<Registration>, ConfigError> {
        let changed = self.update_application(client_id, |application| {
            change(&mut application.assertions);
            application.check()
        })?;
        match self.has_unique_federated_credentials() {
            true => Ok(changed),
            false => Err(ConfigError::without_value(
                ISSUER,
                "has a federated credential with the same subject already",
            )),
        }
    }

    /// Whether an issuer and a subject identify one application, and are given once.
    fn has_unique_federated_credentials(&self) -> bool {
        let mut seen = HashSet::new();
        self.federated_credentials().all(
            |(
                _,
                FederatedCredential {
                    issuer, subject, ..
                },
            )| seen.insert((issuer, subject)),
        )
    }

    /// The names of the roles that are assigned to an application.
    pub(super) fn role_names(&self, application: &Registration) -> Vec<String> {
        let assigned = self
            .roles
            .iter()
            .filter(|role| application.role_ids.contains(&role.id));
        assigned.map(|role| role.name.clone()).collect()
    }

    /// The scopes that are assigned to an application directly or through its roles.
    pub(super) fn assigned_scopes(&self, application: &Registration) -> BTreeSet<String> {
        let role_scopes = self
            .roles
            .iter()
            .filter(|role| application.role_ids.contains(&role.id));
        let role_scopes =
            role_scopes.flat_map(|role| role.access.iter().flat_map(|(_, scopes)| scopes));
        application
            .scopes
            .iter()
            .chain(role_scopes)
            .cloned()
            .collect()
    }

    /// Scopes that a token can have: the default one, and those of applications and roles. At most
    /// 100 of 100 bytes, because clients bound the metadata that they read.
    pub(super) fn known_scopes(&self) -> Vec<String> {
        let applications = self.applications.iter();
        let assigned: BTreeSet<_> = applications
            .flat_map(|application| self.assigned_scopes(application))
            .filter(|scope| scope.len() <= 100)
            .collect();
        std::iter::once(DEFAULT_SCOPE.to_owned())
            .chain(assigned.into_iter().take(99))
            .collect()
    }

    /// Validates a state that was loaded from a file, which may have been edited.
    pub(super) fn is_valid(&self) -> bool {
        let Self {
            applications,
            roles,
            ..
        } = self;
        are_distinct_ids(
            applications
                .iter()
                .map(|application| application.client_id.as_str()),
        ) && are_distinct_ids(roles.iter().map(|role| role.id.as_str()))
            && are_distinct_ids(self.keys.all().iter().map(|ring_key| ring_key.key.kid()))
            && applications
                .iter()
                .all(|application| application.check().is_ok())
            && self.has_unique_federated_credentials()
            && roles.iter().all(|role| role.check().is_ok())
            && applications
                .iter()
                .flat_map(|application| &application.role_ids)
                .all(|id| self.has_role(id))
    }
}

/// Whether all ids consist of letters, digits and `-`, like generated ones, and are unique.
fn are_distinct_ids<'a>(mut ids: impl Iterator<Item = &'a str>) -> bool {
    let is_id =
        |id: &str| !id.is_empty() && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let mut seen = HashSet::new();
    ids.all(|id| is_id(id) && seen.insert(id))
}
