//! What allows an application to authenticate with assertions: public keys, and trusted issuers.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::error::{ConfigError, ErrorKind};
use crate::key_set::{KeySet, SkipReason};
use crate::oauth::Issuer;

/// The names of the settings in errors.
pub(super) const JWKS: &str = "JWK Set";
pub(super) const ISSUER: &str = "issuer";
pub(super) const SUBJECT: &str = "subject";
pub(super) const FEDERATED_CREDENTIALS: &str = "federated credentials";

/// Bytes of one JWK Set, indented as in the state file.
const MAX_JWKS_LENGTH: usize = 16 * 1024;

/// Bytes of an issuer or a subject.
const MAX_NAME_LENGTH: usize = 2048;

/// Federated credentials of one application.
const MAX_FEDERATED_CREDENTIALS: usize = 4;

/// The members of a JWK that are stored: those of public keys (RFC 7517 §4, RFC 7518 §6,
/// RFC 8037 §2).
const PUBLIC_MEMBERS: [&str; 10] = [
    "alg", "crv", "e", "key_ops", "kid", "kty", "n", "use", "x", "y",
];

/// The `aud` that assertions of an application must have.
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), tower_oauth::BoxError> {
/// # use tower_oauth::authorization_server::AuthorizationServer;
/// # use tower_oauth::resource_server::Algorithm;
/// use tower_oauth::authorization_server::ExpectedAudience;
///
/// # let issuer = AuthorizationServer::builder().algorithm(Algorithm::Es256).build()?;
/// let shop = issuer.register("shop")?;
/// assert_eq!(shop.assertion_audience(), ExpectedAudience::Issuer);
/// shop.set_assertion_audience(ExpectedAudience::TokenEndpoint)?; // as Entra does
/// assert_eq!(shop.assertion_audience(), ExpectedAudience::TokenEndpoint);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ExpectedAudience {
    /// The issuer identifier, with or without a trailing slash, as rfc7523bis requires.
    #[default]
    Issuer,
    /// The URL of the token endpoint, as Entra and Ory Hydra require it.
    TokenEndpoint,
}

/// The assertions of an application.
#[derive(Clone, Debug, Default)]
pub(super) struct AssertionSettings {
    /// The keys with which the application signs.
    pub(super) jwks: Option<JwkSet>,
    pub(super) federated_credentials: Vec<FederatedCredential>,
    pub(super) audience: ExpectedAudience,
}

/// A trusted issuer, and the subject of its tokens that identifies the application.
#[derive(Clone, Debug)]
pub(super) struct FederatedCredential {
    pub(super) issuer: String,
    pub(super) subject: String,
    pub(super) jwks: JwkSet,
}

impl AssertionSettings {
    pub(super) fn keys(&self) -> Option<&Arc<KeySet>> {
        self.jwks.as_ref().map(JwkSet::keys)
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let credentials = &self.federated_credentials;
        if credentials.len() > MAX_FEDERATED_CREDENTIALS {
            return Err(ConfigError::without_value(
                FEDERATED_CREDENTIALS,
                format!("must be at most {MAX_FEDERATED_CREDENTIALS}"),
            ));
        }
        credentials.iter().try_for_each(FederatedCredential::check)
    }
}

impl FederatedCredential {
    fn check(&self) -> Result<(), ConfigError> {
        let Self {
            issuer, subject, ..
        } = self;
        Issuer::new(issuer)?;
        if subject.is_empty() || subject.chars().any(char::is_control) {
            let reason = "must not be empty or contain control characters";
            return Err(ConfigError::without_value(SUBJECT, reason));
        }
        for (setting, value) in [(ISSUER, issuer), (SUBJECT, subject)] {
            if value.len() > MAX_NAME_LENGTH {
                return Err(ConfigError::without_value(
                    setting,
                    format!("must be at most {MAX_NAME_LENGTH} bytes"),
                ));
            }
        }
        Ok(())
    }
}

/// The assertions of an application as JSON, in the state file and in the management API.
#[derive(Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct AssertionsDocument {
    jwks: Option<Value>,
    federated_credentials: Vec<FederatedCredentialDocument>,
    assertion_audience: ExpectedAudience,
}

#[derive(PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FederatedCredentialDocument {
    issuer: String,
    subject: String,
    jwks: Value,
}

impl AssertionsDocument {
    /// Whether it has the defaults only.
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl From<&AssertionSettings> for AssertionsDocument {
    fn from(settings: &AssertionSettings) -> Self {
        let AssertionSettings {
            jwks,
            federated_credentials,
            audience,
        } = settings;
        let credentials = federated_credentials.iter();
        let credentials = credentials.map(|credential| {
            let FederatedCredential {
                issuer,
                subject,
                jwks,
            } = credential.clone();
            FederatedCredentialDocument {
                issuer,
                subject,
                jwks: Value::clone(&jwks.document),
            }
        });
        Self {
            jwks: jwks.as_ref().map(|jwks| Value::clone(&jwks.document)),
            federated_credentials: credentials.collect(),
            assertion_audience: *audience,
        }
    }
}

impl TryFrom<AssertionsDocument> for AssertionSettings {
    type Error = ConfigError;

    fn try_from(document: AssertionsDocument) -> Result<Self, ConfigError> {
        let AssertionsDocument {
            jwks,
            federated_credentials,
            assertion_audience,
        } = document;
        let credentials = federated_credentials.into_iter();
        let credentials = credentials.map(|credential| {
            let FederatedCredentialDocument {
                issuer,
                subject,
                jwks,
            } = credential;
            Ok(FederatedCredential {
                issuer,
                subject,
                jwks: JwkSet::from_value(&jwks)?,
            })
        });
        Ok(Self {
            jwks: jwks.as_ref().map(JwkSet::from_value).transpose()?,
            federated_credentials: credentials.collect::<Result<_, ConfigError>>()?,
            audience: assertion_audience,
        })
    }
}

/// A JWK Set of public keys (RFC 7517 §5). Cheap to clone: each assertion takes a clone, before its
/// signature is verified.
#[derive(Clone, Debug)]
pub(super) struct JwkSet {
    /// The set with the public members of its keys, to be stored and shown.
    document: Arc<Value>,
    keys: Arc<KeySet>,
}

impl JwkSet {
    /// Parses a set that is given as a value, or as the text of one.
    pub(super) fn from_value(value: &Value) -> Result<Self, ConfigError> {
        match value {
            Value::String(text) => Self::parse(text),
            value => Self::parse(&value.to_string()),
        }
    }

    /// Parses a set. A member that is no public key for signatures is not used; a secret one makes
    /// the set invalid.
    pub(super) fn parse(text: &str) -> Result<Self, ConfigError> {
        let invalid = |reason: String| ConfigError::without_value(JWKS, reason);
        let keys = KeySet::from_json(text.as_bytes()).map_err(|error| match error.kind() {
            ErrorKind::NoUsableKey => {
                let reasons = std::error::Error::source(&error).map(ToString::to_string);
                let reasons = reasons.unwrap_or_default();
                invalid(format!("must have a public key for signatures; {reasons}"))
            }
            // The text of the parser may quote the document.
            _ => invalid(
                "must be a JSON object with an array `keys` of at most 100 members".to_owned(),
            ),
        })?;
        let is_secret = |reason| matches!(reason, SkipReason::PrivateKey | SkipReason::Symmetric);
        if keys.skipped().any(|key| is_secret(key.reason())) {
            return Err(invalid(
                "must not have private or symmetric keys".to_owned(),
            ));
        }
        let document = public_members(text);
        if format!("{document:#}").len() > MAX_JWKS_LENGTH {
            return Err(invalid(format!(
                "must be at most {} KiB",
                MAX_JWKS_LENGTH / 1024
            )));
        }
        // What is stored is what the next start parses.
        match KeySet::from_json(document.to_string().as_bytes()) {
            Ok(stored) if have_the_same_keys(&stored, &keys) => Ok(Self {
                document: Arc::new(document),
                keys: Arc::new(stored),
            }),
            _ => Err(invalid(
                "must have only keys that are objects, without a member that is given twice or that \
                 contradicts its certificate"
                    .to_owned(),
            )),
        }
    }

    pub(super) fn document(&self) -> &Value {
        &self.document
    }

    pub(super) fn keys(&self) -> &Arc<KeySet> {
        &self.keys
    }

    /// `kid` and algorithms of each key, sorted.
    pub(super) fn summary(&self) -> Vec<(String, String)> {
        summary(&self.keys)
    }
}

fn summary(keys: &KeySet) -> Vec<(String, String)> {
    let used = keys.used_keys().map(|(kid, key)| {
        let algorithms: Vec<&str> = key.algorithms().map(|algorithm| algorithm.name()).collect();
        (kid.unwrap_or_default().to_owned(), algorithms.join(", "))
    });
    let mut used: Vec<_> = used.collect();
    used.sort_unstable();
    used
}

/// Whether the same members are used, and the others skipped for the same reasons.
fn have_the_same_keys(one: &KeySet, other: &KeySet) -> bool {
    let skipped =
        |keys: &KeySet| -> Vec<SkipReason> { keys.skipped().map(|key| key.reason()).collect() };
    summary(one) == summary(other) && skipped(one) == skipped(other)
}

/// The set without members that public keys do not need. What is stored and shown has no other.
fn public_members(text: &str) -> Value {
    let document: Value =
        serde_json::from_str(text.trim_start_matches('\u{feff}')).unwrap_or_default();
    let members = document.get("keys").and_then(Value::as_array);
    let public = members.into_iter().flatten().filter_map(Value::as_object);
    let public = public.map(|jwk| -> Map<String, Value> {
        let is_public = |name: &str| PUBLIC_MEMBERS.contains(&name);
        let members = jwk.iter().filter(|(name, _)| is_public(name));
        members
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect()
    });
    json!({ "keys": public.collect::<Vec<_>>() })
}
