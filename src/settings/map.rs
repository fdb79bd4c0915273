//! Settings that are tables.

use std::collections::BTreeMap;
use std::fmt;

use secrecy::SecretString;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde_json::Value;

use super::value::Text;

/// Claims, each with the values of which a token needs one.
///
/// A table, or a text with a JSON object, as a variable has it.
pub(crate) fn required_claims<'de, D>(
    deserializer: D,
) -> Result<BTreeMap<String, Vec<Value>>, D::Error>
where
    D: Deserializer<'de>,
{
    deserializer.deserialize_any(ClaimsVisitor)
}

struct ClaimsVisitor;

impl<'de> Visitor<'de> for ClaimsVisitor {
    type Value = BTreeMap<String, Vec<Value>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table of claims")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        let mut json = serde_json::Deserializer::from_str(text);
        let claims = json.deserialize_map(self);
        let claims = claims.and_then(|claims| json.end().map(|()| claims));
        claims.map_err(|_| {
            E::custom(
                "must be a JSON object, such as {\"token_use\":\"access\"}, with each claim once, \
                 and neither null nor an empty array",
            )
        })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut claims = BTreeMap::new();
        while let Some(name) = map.next_key()? {
            let AcceptedValues(values) = map.next_value()?;
            if claims.insert(name, values).is_some() {
                return Err(A::Error::custom("must name each claim once"));
            }
        }
        Ok(claims)
    }
}

/// One value, or an array of them.
struct AcceptedValues(Vec<Value>);

impl<'de> Deserialize<'de> for AcceptedValues {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let values = match Value::deserialize(deserializer)? {
            Value::Array(values) => values,
            value => vec![value],
        };
        // `env:` without a value in YAML.
        if values.is_empty() || values.contains(&Value::Null) {
            return Err(D::Error::custom(
                "must have at least one accepted value, and no null",
            ));
        }
        Ok(Self(values))
    }
}

/// A table, which `null` is not.
pub(crate) fn table<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    T::deserialize(deserializer).map(Some)
}

/// Texts by their names. The texts may be secrets.
pub(crate) fn secrets<'de, D>(deserializer: D) -> Result<BTreeMap<String, SecretString>, D::Error>
where
    D: Deserializer<'de>,
{
    deserializer.deserialize_any(SecretsVisitor)
}

/// Errors of the default methods would show the value.
struct SecretsVisitor;

impl SecretsVisitor {
    fn no_table<T, E: Error>() -> Result<T, E> {
        Err(E::custom("must be a table of texts"))
    }
}

impl<'de> Visitor<'de> for SecretsVisitor {
    type Value = BTreeMap<String, SecretString>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table of texts")
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<Self::Value, E> {
        Self::no_table()
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Self::Value, E> {
        Self::no_table()
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Self::Value, E> {
        Self::no_table()
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Self::Value, E> {
        Self::no_table()
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Self::Value, E> {
        Self::no_table()
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut secrets = BTreeMap::new();
        while let Some((name, Text(text))) = map.next_entry()? {
            secrets.insert(name, SecretString::from(text));
        }
        Ok(secrets)
    }
}
