//! The members of a key set that are not used.

use std::fmt;

use serde::ser::{Serialize, SerializeStruct, Serializer};

use super::skip_reason::SkipReason;
use crate::error::escape_and_truncate;

/// A member of a key set that is not used, and why.
///
/// `Display` and `Serialize` show the `kid` escaped, and cut to 200 characters.
///
/// ```
/// use tower_oauth::key_set::{KeySet, SkipReason};
///
/// let keys = KeySet::from_json(br#"{"keys":[
///     {"kty":"OKP","crv":"Ed25519","kid":"2026-11",
///      "x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"},
///     {"kty":"OKP","crv":"Ed448","kid":"2026-12","x":"AAAA"}
/// ]}"#)?;
/// let skipped = keys.skipped().next().ok_or("all are used")?;
/// assert_eq!(skipped.kid(), Some("2026-12"));
/// assert_eq!(skipped.reason(), SkipReason::UnsupportedType);
/// assert_eq!(skipped.detail(), "crv Ed448 is not supported, expected Ed25519");
/// assert_eq!(
///     serde_json::to_value(skipped)?,
///     serde_json::json!({
///         "kid": "2026-12",
///         "reason": "unsupported_type",
///         "detail": "crv Ed448 is not supported, expected Ed25519",
///     })
/// );
/// # Ok::<(), tower_oauth::BoxError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SkippedKey {
    kid: Option<Box<str>>,
    skip: Skip,
}

/// Why a member is skipped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Skip {
    reason: SkipReason,
    /// What was expected and found. Texts of the document in it are escaped and short.
    detail: Box<str>,
}

impl Skip {
    pub(super) fn new(reason: SkipReason, detail: impl Into<Box<str>>) -> Self {
        let detail = detail.into();
        Self { reason, detail }
    }
}

impl SkippedKey {
    pub(super) fn new(kid: Option<Box<str>>, skip: Skip) -> Self {
        Self { kid, skip }
    }

    /// Its `kid`, if that is readable. Not escaped.
    #[must_use]
    pub fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// The reason.
    #[must_use]
    pub fn reason(&self) -> SkipReason {
        self.skip.reason
    }

    /// What was found, and what was expected. The text may change.
    #[must_use]
    pub fn detail(&self) -> &str {
        &self.skip.detail
    }
}

impl fmt::Display for SkippedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kid {
            Some(kid) => write!(f, "kid \"{}\": {}", escape_and_truncate(kid), self.detail()),
            None => write!(f, "without kid: {}", self.detail()),
        }
    }
}

impl Serialize for SkippedKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut skipped = serializer.serialize_struct("SkippedKey", 3)?;
        skipped.serialize_field("kid", &self.kid().map(escape_and_truncate))?;
        skipped.serialize_field("reason", self.reason().as_str())?;
        skipped.serialize_field("detail", self.detail())?;
        skipped.end()
    }
}
