//! Loads and saves the state of the server.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::applications::{Registration, Role};
use super::assertion_settings::{AssertionSettings, AssertionsDocument};
use super::sha256::{Hash, sha256};
use super::signing_keys::{KeyRing, RingKey, SigningKey};
use super::state::State;
use super::state_file;
use crate::clock::UnixTime;
use crate::error::{ConfigError, ConfigErrorKind};
use crate::jwt::Algorithm;

/// The setting name in errors about the file.
pub(super) const STATE_FILE: &str = "state file";

/// Stores the state in a file, or not at all.
#[derive(Debug)]
pub(super) struct Store(Option<StateFile>);

#[derive(Debug)]
struct StateFile {
    path: PathBuf,
    /// Hash of the file when it was last read or written, instead of the text, which contains
    /// secrets; `None` if it did not exist.
    last_hash: Mutex<Option<Hash>>,
}

impl Store {
    /// Resolves symbolic links once, because renaming over a link would replace the link.
    pub(super) fn new(path: Option<PathBuf>) -> Result<Self, ConfigError> {
        let Some(path) = path else {
            return Ok(Self(None));
        };
        let path = state_file::resolve(&path)
            .map_err(|error| state_file_error(&path, error.to_string()))?;
        Ok(Self(Some(StateFile {
            path,
            last_hash: Mutex::new(None),
        })))
    }

    /// Loads the state; `None` without a file. A damaged file is an error and is not changed.
    pub(super) fn load(&self, tenant_id: &str) -> Result<Option<State>, ConfigError> {
        let Some(StateFile { path, last_hash }) = &self.0 else {
            return Ok(None);
        };
        let failed = |error: io::Error| state_file_error(path, error.to_string());
        let Some(contents) = state_file::read(path).map_err(failed)? else {
            return Ok(None);
        };
        // The parser's message may quote secrets, so only the position is reported.
        let document: StateDocument = serde_json::from_slice(&contents.text).map_err(|error| {
            state_file_error(
                path,
                format!(
                    "is damaged at line {}, column {}",
                    error.line(),
                    error.column()
                ),
            )
        })?;
        if document.tenant_id != tenant_id {
            return Err(state_file_error(
                path,
                format!("belongs to another tenant, `{}`", document.tenant_id),
            ));
        }
        let state = document.into_state().ok_or_else(|| {
            state_file_error(path, "is damaged: it is valid JSON, but not a valid state")
        })?;
        // Only after validation, so that a wrong path does not change another file's mode.
        contents.restrict_permissions().map_err(failed)?;
        *last_hash.lock().unwrap_or_else(PoisonError::into_inner) = Some(sha256(&contents.text));
        Ok(Some(state))
    }

    /// Saves the state atomically. It is an error if another program has changed the file since.
    /// Two programs that write at the same moment are not detected.
    pub(super) fn save(&self, tenant_id: &str, state: &State) -> Result<(), ConfigError> {
        let Some(StateFile { path, last_hash }) = &self.0 else {
            return Ok(());
        };
        let failed =
            |error: io::Error| state_file_error(path, format!("cannot be written: {error}"));
        let text = serde_json::to_vec_pretty(&StateDocument::new(tenant_id, state))
            .map_err(|error| failed(error.into()))?;
        let mut last_hash = last_hash.lock().unwrap_or_else(PoisonError::into_inner);
        let current = state_file::read(path)
            .map_err(failed)?
            .map(|contents| sha256(&contents.text));
        // A deleted file is created again.
        if current.is_some() && current != *last_hash {
            return Err(state_file_error(
                path,
                "was changed by another program: restart the server to load it",
            ));
        }
        state_file::replace(path, &text).map_err(failed)?;
        *last_hash = Some(sha256(&text));
        Ok(())
    }
}

fn state_file_error(path: &Path, reason: impl Into<String>) -> ConfigError {
    ConfigError::new(STATE_FILE, path.display().to_string(), reason)
        .with_kind(ConfigErrorKind::Unavailable)
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StateDocument {
    tenant_id: String,
    applications: Vec<ApplicationDocument>,
    roles: Vec<RoleDocument>,
    keys: Vec<KeyDocument>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ApplicationDocument {
    client_id: String,
    secret: String,
    name: String,
    #[serde(rename = "type")]
    kind: String,
    scopes: Vec<String>,
    role_ids: Vec<String>,
    #[serde(default)]
    claims: Map<String, Value>,
    /// Not written if none are set, so that versions without them can read the file.
    #[serde(default, skip_serializing_if = "AssertionsDocument::is_default")]
    assertions: AssertionsDocument,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RoleDocument {
    id: String,
    name: String,
    description: String,
    access: Vec<(String, Vec<String>)>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyDocument {
    kid: String,
    algorithm: String,
    pkcs8: String,
    created_at: u64,
    published_until: Option<u64>,
}

impl StateDocument {
    fn new(tenant_id: &str, state: &State) -> Self {
        let State {
            applications,
            roles,
            keys,
        } = state;
        Self {
            tenant_id: tenant_id.to_owned(),
            applications: applications
                .iter()
                .cloned()
                .map(ApplicationDocument::from)
                .collect(),
            roles: roles.iter().cloned().map(RoleDocument::from).collect(),
            keys: keys.all().iter().map(KeyDocument::from).collect(),
        }
    }

    fn into_state(self) -> Option<State> {
        let keys = self
            .keys
            .into_iter()
            .map(KeyDocument::into_key)
            .collect::<Option<Vec<_>>>()?;
        let applications = self.applications.into_iter();
        let applications = applications.map(ApplicationDocument::into_registration);
        let state = State {
            applications: applications.collect::<Result<_, _>>().ok()?,
            roles: self.roles.into_iter().map(Role::from).collect(),
            keys: KeyRing::from_keys(keys)?,
        };
        state.is_valid().then_some(state)
    }
}

impl From<Registration> for ApplicationDocument {
    fn from(registration: Registration) -> Self {
        let Registration {
            client_id,
            secret,
            name,
            kind,
            scopes,
            role_ids,
            claims,
            assertions,
        } = registration;
        Self {
            client_id,
            secret: secret.expose_secret().to_owned(),
            name,
            kind,
            scopes,
            role_ids,
            claims,
            assertions: AssertionsDocument::from(&assertions),
        }
    }
}

impl ApplicationDocument {
    fn into_registration(self) -> Result<Registration, ConfigError> {
        let Self {
            client_id,
            secret,
            name,
            kind,
            scopes,
            role_ids,
            claims,
            assertions,
        } = self;
        Ok(Registration {
            client_id,
            secret: secret.into(),
            name,
            kind,
            scopes,
            role_ids,
            claims,
            assertions: AssertionSettings::try_from(assertions)?,
        })
    }
}

impl From<Role> for RoleDocument {
    fn from(
        Role {
            id,
            name,
            description,
            access,
        }: Role,
    ) -> Self {
        Self {
            id,
            name,
            description,
            access,
        }
    }
}

impl From<RoleDocument> for Role {
    fn from(
        RoleDocument {
            id,
            name,
            description,
            access,
        }: RoleDocument,
    ) -> Self {
        Self {
            id,
            name,
            description,
            access,
        }
    }
}

impl From<&RingKey> for KeyDocument {
    fn from(
        RingKey {
            key,
            published_until,
        }: &RingKey,
    ) -> Self {
        Self {
            kid: key.kid().to_owned(),
            algorithm: key.algorithm().name().to_owned(),
            pkcs8: key.pkcs8().expose_secret().to_owned(),
            created_at: key.created_at().as_secs(),
            published_until: published_until.map(UnixTime::as_secs),
        }
    }
}

impl KeyDocument {
    fn into_key(self) -> Option<RingKey> {
        let algorithm = Algorithm::from_name(&self.algorithm)?;
        let pkcs8 = STANDARD.decode(&self.pkcs8).ok()?;
        let created_at = UnixTime::from_secs(self.created_at);
        let key = SigningKey::from_pkcs8(self.kid, algorithm, &pkcs8, created_at).ok()?;
        Some(RingKey {
            key: Arc::new(key),
            published_until: self.published_until.map(UnixTime::from_secs),
        })
    }
}
