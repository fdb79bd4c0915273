//! Why members of a key set are skipped.

use std::fmt;

/// Why a member of a key set was skipped.
///
/// ```
/// use tower_oauth::key_set::{KeySet, SkipReason};
///
/// let keys = KeySet::from_json(br#"{"keys":[
///     {"kty":"OKP","crv":"Ed25519","kid":"2026-11",
///      "x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"},
///     {"kty":"oct","kid":"shared","k":"c2VjcmV0"}
/// ]}"#)?;
/// let skipped = keys.skipped().next().ok_or("all are used")?;
/// assert_eq!((skipped.kid(), skipped.reason()), (Some("shared"), SkipReason::Symmetric));
/// assert_eq!(SkipReason::Symmetric.as_str(), "symmetric");
/// # Ok::<(), tower_oauth::BoxError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SkipReason {
    /// Its `alg` does not match its type, or is not supported.
    Algorithm,
    /// Another usable member has the same `kid`.
    DuplicateKeyId,
    /// Its parameters are not a valid public key.
    Invalid,
    /// It is not a JWK: not an object, duplicate names, values of the wrong type.
    Malformed,
    /// `use` or `key_ops` exclude the verification of signatures.
    NotForSignatures,
    /// It has private members, and so is compromised.
    PrivateKey,
    /// A symmetric key (`oct`), with which anyone who verifies can also sign.
    Symmetric,
    /// Its `kty` or `crv` is not supported.
    UnsupportedType,
    /// The key is too short or breakable in another way.
    Weak,
}

impl SkipReason {
    /// A stable name for logs and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Algorithm => "algorithm",
            Self::DuplicateKeyId => "duplicate_key_id",
            Self::Invalid => "invalid",
            Self::Malformed => "malformed",
            Self::NotForSignatures => "not_for_signatures",
            Self::PrivateKey => "private_key",
            Self::Symmetric => "symmetric",
            Self::UnsupportedType => "unsupported_type",
            Self::Weak => "weak",
        }
    }
}

impl fmt::Display for SkipReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
