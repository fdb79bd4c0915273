//! What the server remembers, in memory and in its file.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};

use super::applications::{Registration, Role};
use super::signing_keys::{KeyRing, RingKey, SigningKey, new_kid};
use crate::clock::UnixTime;
use crate::error::ConfigError;
use crate::jwt::Algorithm;

/// Applications, roles, keys. Changed as a copy, so that a change that fails changes nothing.
#[derive(Clone, Debug)]
pub(super) struct State {
    pub(super) applications: Vec<Registration>,
    pub(super) roles: Vec<Role>,
    pub(super) keys: KeyRing,
}

impl State {
    pub(super) fn new(tenant_id: &str, algorithm: Algorithm, now: UnixTime) -> Result<Self, ConfigError> {
        let key = SigningKey::generate(new_kid(tenant_id), algorithm, now)?;
        Ok(Self { applications: Vec::new(), roles: Vec::new(), keys: KeyRing::new(key) })
    }
}

/// Where the state is written down, if it is.
#[derive(Debug)]
pub(super) struct Store(Option<PathBuf>);

impl Store {
    pub(super) fn new(path: Option<PathBuf>) -> Self {
        Self(path)
    }

    /// What the file holds; `None` without a file. A damaged one is an error, never a fresh start.
    pub(super) fn load(&self, tenant_id: &str) -> Result<Option<State>, ConfigError> {
        let Some(path) = &self.0 else { return Ok(None) };
        let unusable = |reason: &str| ConfigError::new("state file", path.display().to_string(), reason);
        let text = match fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unusable(&error.to_string())),
        };
        // The parser's message may quote secrets: it is left out.
        let document: Document = serde_json::from_slice(&text).map_err(|_| unusable("is damaged"))?;
        if document.tenant_id != tenant_id {
            return Err(unusable("belongs to another tenant"));
        }
        document.into_state().ok_or_else(|| unusable("is damaged")).map(Some)
    }

    /// Writes beside the file and renames, so that it is whole at every moment.
    pub(super) fn save(&self, tenant_id: &str, state: &State) -> Result<(), ConfigError> {
        let Some(path) = &self.0 else { return Ok(()) };
        let unusable = |error: std::io::Error| {
            ConfigError::new("state file", path.display().to_string(), format!("cannot be written: {error}"))
        };
        let text = serde_json::to_vec_pretty(&Document::of(tenant_id, state))
            .map_err(|error| unusable(error.into()))?;
        write_atomically(path, &text).map_err(unusable)
    }
}

fn write_atomically(path: &Path, text: &[u8]) -> std::io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        // Left over from a crash, it could have any mode: made anew, it has ours.
        let _there_may_be_none = fs::remove_file(&beside);
        options.mode(0o600);
    }
    let mut file = options.open(&beside)?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(beside, path)
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
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

impl Document {
    fn of(tenant_id: &str, state: &State) -> Self {
        let State { applications, roles, keys } = state;
        Self {
            tenant_id: tenant_id.to_owned(),
            applications: applications.iter().cloned().map(ApplicationDocument::from).collect(),
            roles: roles.iter().cloned().map(RoleDocument::from).collect(),
            keys: keys.all().iter().map(KeyDocument::from).collect(),
        }
    }

    fn into_state(self) -> Option<State> {
        let keys = self.keys.into_iter().map(KeyDocument::into_key).collect::<Option<Vec<_>>>()?;
        Some(State {
            applications: self.applications.into_iter().map(Registration::from).collect(),
            roles: self.roles.into_iter().map(Role::from).collect(),
            keys: KeyRing::from_keys(keys)?,
        })
    }
}

impl From<Registration> for ApplicationDocument {
    fn from(one: Registration) -> Self {
        let Registration { client_id, secret, name, kind, scopes, role_ids } = one;
        Self { client_id, secret: secret.expose_secret().to_owned(), name, kind, scopes, role_ids }
    }
}

impl From<ApplicationDocument> for Registration {
    fn from(one: ApplicationDocument) -> Self {
        let ApplicationDocument { client_id, secret, name, kind, scopes, role_ids } = one;
        Self { client_id, secret: secret.into(), name, kind, scopes, role_ids }
    }
}

impl From<Role> for RoleDocument {
    fn from(Role { id, name, description, access }: Role) -> Self {
        Self { id, name, description, access }
    }
}

impl From<RoleDocument> for Role {
    fn from(RoleDocument { id, name, description, access }: RoleDocument) -> Self {
        Self { id, name, description, access }
    }
}

impl From<&RingKey> for KeyDocument {
    fn from(RingKey { key, published_until }: &RingKey) -> Self {
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
        Some(RingKey { key: Arc::new(key), published_until: self.published_until.map(UnixTime::from_secs) })
    }
}
