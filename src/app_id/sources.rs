//! The sources that credentials are read from.

use std::fmt;
use std::io::ErrorKind as IoErrorKind;
use std::path::{Path, PathBuf};

use secrecy::SecretString;
use serde::Deserialize;
use serde::de::{MapAccess, Visitor};
use serde_json::{Map, Value};
use zeroize::{Zeroize as _, Zeroizing};

use super::version::Version;
use crate::error::{ConfigError, ConfigErrorKind};
use crate::secret_file;

/// The values of one source. No error shows them.
pub(super) struct Values {
    /// The variable or file; `None` for variables named like the keys.
    pub(super) source: Option<String>,
    /// The file or folder, if they were read from one.
    pub(super) path: Option<PathBuf>,
    pub(super) found: Vec<(&'static str, Zeroizing<String>)>,
}

/// A mounted secret, which is replaced while the program runs.
#[derive(Clone, Debug)]
pub(super) struct MountedCredentials {
    /// The name of the mount in errors.
    pub(super) source: String,
    pub(super) path: PathBuf,
    /// Whether the client id is read from it, too.
    pub(super) has_client_id: bool,
}

impl MountedCredentials {
    /// Reads the secret, and the client id if it is there and belongs to it.
    pub(super) fn read(&self, client_id: &str) -> Result<(String, SecretString), ConfigError> {
        let values = Values::from_file(&self.source, &self.path)?;
        let secret = values.get("secret").ok_or_else(|| {
            ConfigError::missing(values.setting_name("secret"), "must be set, and is not now")
        })?;
        let mounted_id = values.get("clientId").filter(|_| self.has_client_id);
        Ok((mounted_id.unwrap_or(client_id).to_owned(), secret.into()))
    }
}

impl Values {
    pub(super) fn from_json(source: &str, json: &str) -> Result<Self, ConfigError> {
        let json = json.trim_start_matches('\u{feff}');
        let mut object: Map<String, Value> = parse(source, json)?;
        let values = Self::from_object(source, &object);
        for value in object.values_mut() {
            if let Value::String(text) = value {
                text.zeroize();
            }
        }
        values
    }

    /// The credentials of the first service, in the order of the text, whose name matches.
    pub(super) fn from_services(
        source: &str,
        json: &str,
        matches: fn(&str) -> bool,
    ) -> Result<Option<Self>, ConfigError> {
        let OrderedMembers(services) = parse(source, json)?;
        let Some((_, instances)) = services.into_iter().find(|(name, _)| matches(name)) else {
            return Ok(None);
        };
        let credentials = instances
            .get(0)
            .and_then(|instance| instance.get("credentials"));
        let Some(Value::Object(credentials)) = credentials else {
            return Err(ConfigError::without_value(
                source,
                "has an App ID service without `credentials`",
            ));
        };
        Self::from_object(source, credentials).map(Some)
    }

    fn from_object(source: &str, object: &Map<String, Value>) -> Result<Self, ConfigError> {
        let mut values = Self {
            source: Some(source.to_owned()),
            path: None,
            found: Vec::new(),
        };
        for key in KEYS {
            let text = match object.get(key) {
                None | Some(Value::Null) => continue,
                Some(Value::String(text)) => text.clone(),
                Some(Value::Number(number)) if key == "version" => number.to_string(),
                Some(_) => {
                    return Err(ConfigError::without_value(
                        values.setting_name(key),
                        "must be a string",
                    ));
                }
            };
            if !text.is_empty() {
                values.found.push((key, Zeroizing::new(text)));
            }
        }
        Ok(values)
    }

    pub(super) fn from_file(source: &str, path: &Path) -> Result<Self, ConfigError> {
        let mut values = Self::read_file(source, path)?;
        values.path = Some(path.to_owned());
        Ok(values)
    }

    fn read_file(source: &str, path: &Path) -> Result<Self, ConfigError> {
        if !path.is_dir() {
            let text = read(source, path)?.ok_or_else(|| {
                ConfigError::without_value(source, "names a file that does not exist")
                    .with_kind(ConfigErrorKind::Unavailable)
            })?;
            return Self::from_json(source, &text);
        }
        // `ibmcloud ks cluster service bind` makes a secret with this one entry.
        if let Some(text) = read(source, &path.join("binding"))? {
            return Self::from_json(source, &text);
        }
        let mut values = Self {
            source: Some(source.to_owned()),
            path: None,
            found: Vec::new(),
        };
        for key in KEYS {
            let Some(text) = read(source, &path.join(key))? else {
                continue;
            };
            // Editors and `echo` append a line end.
            let text = text.trim_end_matches(['\r', '\n']);
            if !text.is_empty() {
                values.found.push((key, Zeroizing::new(text.to_owned())));
            }
        }
        if values.found.is_empty() {
            return Err(ConfigError::missing(
                source,
                "names a folder without App ID credentials: it has neither `binding` nor \
                 `clientId`, `oauthServerUrl` and so on",
            ));
        }
        Ok(values)
    }

    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.found
            .iter()
            .find(|(found, _)| *found == key)
            .map(|(_, text)| text.as_str())
    }

    pub(super) fn has_url(&self) -> bool {
        URL_KEYS
            .into_iter()
            .chain(["appidServiceEndpoint"])
            .any(|key| self.get(key).is_some())
    }

    pub(super) fn version(&self) -> Result<Option<Version>, ConfigError> {
        let malformed =
            || ConfigError::without_value(self.setting_name("version"), "must be 3 or 4");
        self.get("version")
            .map(|text| Version::parse(text).ok_or_else(malformed))
            .transpose()
    }

    /// The name of a value in errors.
    pub(super) fn setting_name(&self, key: &str) -> String {
        match &self.source {
            Some(source) => format!("{key} of {source}"),
            None => key.to_owned(),
        }
    }
}

/// The members of a JSON object in the order of the text, which a map does not preserve.
struct OrderedMembers(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for OrderedMembers {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MembersVisitor;

        impl<'de> Visitor<'de> for MembersVisitor {
            type Value = OrderedMembers;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<OrderedMembers, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(OrderedMembers(members))
            }
        }

        deserializer.deserialize_map(MembersVisitor)
    }
}

/// Parses JSON. The error has only line and column, because that of serde_json may quote the text.
fn parse<'de, T: Deserialize<'de>>(source: &str, json: &'de str) -> Result<T, ConfigError> {
    serde_json::from_str(json).map_err(|error| {
        let reason = if error.is_data() {
            "is not a JSON object"
        } else {
            "is not valid JSON"
        };
        ConfigError::without_value(
            source,
            format!(
                "{reason} (line {}, column {})",
                error.line(),
                error.column()
            ),
        )
    })
}

/// Reads a file; `None` if it does not exist or is a folder.
fn read(source: &str, path: &Path) -> Result<Option<Zeroizing<String>>, ConfigError> {
    if path.is_dir() {
        return Ok(None);
    }
    match secret_file::read(path, MAX_FILE) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == IoErrorKind::NotFound => Ok(None),
        Err(error) => Err(ConfigError::without_value(
            source,
            format!("cannot be read from {}: {error}", path.display()),
        )
        .with_kind(ConfigErrorKind::Unavailable)),
    }
}

/// As in the Node SDK, the name *starts with* one of these and is case-sensitive.
pub(super) fn is_vcap_name(name: &str) -> bool {
    name.starts_with("AppID") || name.starts_with("AdvancedMobileAccess")
}

pub(super) fn is_ce_name(name: &str) -> bool {
    name == "appid"
}

pub(super) const VCAP_SERVICES: &str = "VCAP_SERVICES";
pub(super) const CE_SERVICES: &str = "CE_SERVICES";
const APPID_SERVICE_BINDING: &str = "APPID_SERVICE_BINDING";
pub(super) const APPID_BINDING_FILE: &str = "APPID_BINDING_FILE";
pub(super) const BINDING_VARIABLES: [&str; 4] = [
    VCAP_SERVICES,
    CE_SERVICES,
    APPID_SERVICE_BINDING,
    APPID_BINDING_FILE,
];

/// The name in errors of JSON text that was read from no variable.
pub(super) const JSON: &str = "App ID credentials";

/// The spelling of the management API first: it takes precedence.
pub(super) const URL_KEYS: [&str; 2] = ["oAuthServerUrl", "oauthServerUrl"];
const KEYS: [&str; 9] = [
    "clientId",
    "secret",
    "tenantId",
    "oAuthServerUrl",
    "oauthServerUrl",
    "appidServiceEndpoint",
    "version",
    "managementUrl",
    "apikey",
];
pub(super) const SINGLE_VARIABLES: [&str; 7] = [
    "clientId",
    "secret",
    "tenantId",
    "oAuthServerUrl",
    "oauthServerUrl",
    "appidServiceEndpoint",
    "version",
];

/// The maximum size of a Kubernetes secret in bytes.
const MAX_FILE: usize = 1 << 20;
