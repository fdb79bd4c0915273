//! Access tokens in App ID's format, encoded independently of the crate's `jwt` module.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};

use super::signing_keys::SigningKey;
use super::{Inner, Version};
use crate::clock::UnixTime;
use crate::error::ConfigError;

/// What varies between access tokens.
#[derive(Debug)]
pub(super) struct TokenParams<'a> {
    pub(super) client_id: &'a str,
    pub(super) audience: Vec<String>,
    pub(super) scope: String,
    pub(super) roles: Vec<String>,
    /// Claims that are set for the application.
    pub(super) claims: Map<String, Value>,
}

/// The header of a token.
pub(super) fn header(version: Version, key: &SigningKey) -> Map<String, Value> {
    let (typ, ver) = match version {
        Version::V3 => ("JOSE", 3),
        Version::V4 => ("JWT", 4),
    };
    members(json!({ "alg": key.algorithm().name(), "typ": typ, "kid": key.kid(), "ver": ver }))
}

/// The claims of an application's token.
pub(super) fn claims(
    server: &Inner,
    version: Version,
    params: TokenParams<'_>,
    now: UnixTime,
    lifetime: Duration,
) -> Map<String, Value> {
    let TokenParams {
        client_id,
        audience,
        scope,
        roles,
        claims: own_claims,
    } = params;
    let mut claims = members(json!({
        "iss": server.issuer(version),
        "exp": now.saturating_add(lifetime).as_secs(),
        "aud": audience_claim(version, audience),
        "sub": client_id,
        "amr": ["appid_client_credentials"],
        "iat": now.as_secs(),
        "tenant": server.tenant_id,
        "scope": scope,
    }));
    if !roles.is_empty() {
        claims.insert("roles".to_owned(), json!(roles));
    }
    claims.extend(own_claims);
    claims
}

/// The claim `aud`. Version 3 has a single audience, as a string.
pub(super) fn audience_claim(version: Version, audience: Vec<String>) -> Value {
    match version {
        Version::V3 => json!(audience.into_iter().next().unwrap_or_default()),
        Version::V4 => json!(audience),
    }
}

/// The compact serialization ([RFC 7515 §7.1](https://www.rfc-editor.org/rfc/rfc7515#section-7.1)).
pub(super) fn encode(
    header: &Map<String, Value>,
    claims: &Map<String, Value>,
    sign: impl FnOnce(&[u8]) -> Result<Vec<u8>, ConfigError>,
) -> Result<String, ConfigError> {
    let part = |members: &Map<String, Value>| URL_SAFE_NO_PAD.encode(json!(members).to_string());
    let input = format!("{}.{}", part(header), part(claims));
    let signature = sign(input.as_bytes())?;
    Ok(format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature)))
}

fn members(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(members) => members,
        _ => Map::new(),
    }
}
