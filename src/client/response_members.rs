//! The members of a token response that this crate uses. Does no I/O.
//!
//! Other members are skipped without a look at their values, so that none of them can spoil a
//! response: neither by its type, nor by its depth, nor by a number that no type holds.

use std::fmt;

use secrecy::SecretString;
use serde::de::{Deserializer as _, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

/// The members that are used.
const NAMES: [&str; 6] = [
    "access_token",
    "error",
    "expires_in",
    "issued_token_type",
    "scope",
    "token_type",
];

/// The values of the members, as they are in the body. `null` counts as absent.
#[derive(Default)]
pub(super) struct ResponseMembers<'b> {
    values: [Option<&'b RawValue>; NAMES.len()],
    repeated: Option<&'static str>,
}

impl<'b> ResponseMembers<'b> {
    /// The members of a JSON object; `None` if the body is none.
    pub(super) fn parse(body: &'b [u8]) -> Option<Self> {
        let text = std::str::from_utf8(without_bom(body)).ok()?;
        let mut json = serde_json::Deserializer::from_str(text);
        let members = json.deserialize_map(MembersVisitor).ok()?;
        json.end().ok()?;
        Some(members)
    }

    /// The first of these members that is given more than once.
    pub(super) fn repeated(&self) -> Option<&'static str> {
        self.repeated
    }

    /// The token, or the type of what is in its place.
    pub(super) fn access_token(&self) -> Result<SecretString, &'static str> {
        let token = self.get("access_token").ok_or("absent")?;
        serde_json::from_str(token.get()).map_err(|_| type_of(token))
    }

    /// The text of `token_type`.
    pub(super) fn token_type(&self) -> Option<String> {
        self.text("token_type")
    }

    /// The text of `issued_token_type`.
    pub(super) fn issued_token_type(&self) -> Option<String> {
        self.text("issued_token_type")
    }

    /// The text of `expires_in`.
    pub(super) fn expires_in(&self) -> Option<String> {
        self.text("expires_in")
    }

    /// The value of `scope`, unless it cannot be parsed.
    pub(super) fn scope(&self) -> Option<Value> {
        serde_json::from_str(self.get("scope")?.get()).ok()
    }

    /// Whether `error` says that the request failed. Some servers send an empty one with a token.
    pub(super) fn has_error(&self) -> bool {
        self.get("error")
            .is_some_and(|error| !matches!(error.get(), "\"\"" | "false" | "0"))
    }

    fn get(&self, name: &str) -> Option<&'b RawValue> {
        let at = NAMES.iter().position(|known| *known == name)?;
        self.values.get(at).copied().flatten()
    }

    /// A string, or another value as it is in the body.
    fn text(&self, name: &str) -> Option<String> {
        let raw = self.get(name)?.get();
        Some(serde_json::from_str(raw).unwrap_or_else(|_| raw.to_owned()))
    }
}

/// Removes a byte order mark, which a parser may ignore
/// ([RFC 8259 §8.1](https://www.rfc-editor.org/rfc/rfc8259#section-8.1)).
pub(super) fn without_bom(body: &[u8]) -> &[u8] {
    body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body)
}

fn type_of(value: &RawValue) -> &'static str {
    match value.get().as_bytes().first() {
        Some(b'"') => "a string",
        Some(b'{') => "an object",
        Some(b'[') => "an array",
        Some(b't' | b'f') => "a boolean",
        _ => "a number",
    }
}

struct MembersVisitor;

impl<'b> Visitor<'b> for MembersVisitor {
    type Value = ResponseMembers<'b>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'b>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = ResponseMembers::default();
        let mut seen = [false; NAMES.len()];
        while let Some(name) = map.next_key::<String>()? {
            let known = NAMES.iter().zip(&mut seen).zip(&mut members.values);
            let Some(((known, seen), slot)) = known.into_iter().find(|((k, _), _)| **k == name)
            else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            let value = map.next_value::<&RawValue>()?;
            *slot = Some(value).filter(|value| value.get() != "null");
            if std::mem::replace(seen, true) {
                members.repeated.get_or_insert(known);
            }
        }
        Ok(members)
    }
}
