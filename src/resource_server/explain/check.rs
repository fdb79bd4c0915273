//! One check of a token.

use std::fmt;

use serde::ser::{Serialize, SerializeStruct, Serializer};

use crate::resource_server::RejectionKind;

/// The checks, in the order of the validation.
pub(super) const NAMES: [&str; 25] = [
    "length",
    "characters",
    "segments",
    "header",
    "alg",
    "crit",
    "kid",
    "claims",
    "iss",
    "key_set",
    "key",
    "signature",
    "typ",
    "token_use",
    "aud",
    "exp",
    "iat",
    "nbf",
    "lifetime",
    "profile",
    "required_claims",
    "client",
    "require",
    "scope",
    "cnf",
];

/// Those that only some issuers have.
pub(super) const OPTIONAL: [&str; 4] = ["lifetime", "profile", "required_claims", "require"];

/// How a [`Check`] of an [`Explanation`](super::Explanation) ended.
///
/// ```
/// use tower_oauth::resource_server::CheckOutcome;
///
/// assert_eq!(CheckOutcome::Failed.as_str(), "failed");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CheckOutcome {
    /// The token is rejected for this.
    Failed,
    /// The token is good in this respect.
    Passed,
    /// Not looked at, because an earlier check failed.
    Skipped,
}

impl CheckOutcome {
    /// A stable name, which the serialized form has.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Passed => "passed",
            Self::Skipped => "skipped",
        }
    }
}

/// One check of an [`Explanation`](super::Explanation): what was expected, and what was found.
///
/// `Display` has both on one line, and the cure. `Serialize` has the members `name`, `outcome`
/// (`failed`, `passed` or `skipped`), `rejection`, `expected`, `found` and `cure`; each of the last
/// four is a string or `null`.
///
/// The checks of a token, in their order:
///
/// | name | what is checked |
/// | --- | --- |
/// | `length` | the token's length in bytes (`max_token_len`) |
/// | `characters` | only visible ASCII characters (RFC 7515 §7.1) |
/// | `segments` | three segments of base64url |
/// | `header` | the header is a JSON object |
/// | `alg` | the algorithm is supported, and one of `algorithms` |
/// | `crit` | no header parameter that changes the meaning of a token |
/// | `kid` | the form of the key id |
/// | `claims` | the claims are a JSON object, each registered claim of its type |
/// | `iss` | the issuer is trusted |
/// | `key_set` | the issuer's key set is usable |
/// | `key` | the key set has the key of the token |
/// | `signature` | the signature is that of the key |
/// | `typ` | the type is that of an access token (RFC 9068 §4) |
/// | `token_use` | no claim of an ID token or another kind of token |
/// | `aud` | the audience is one of this server's |
/// | `exp` | the token is not expired, `leeway` included |
/// | `iat` | the token was not issued in the future |
/// | `nbf` | the token is valid already, and before `exp` |
/// | `lifetime` | the lifetime is at most `max_lifetime`; only if it is set |
/// | `profile` | the claims that RFC 9068 §2.2 requires; only with that profile |
/// | `required_claims` | the values that `require_claim` sets; only if there are any |
/// | `client` | the client is one of `allowed_clients` |
/// | `require` | the closures of `require`; only if there are any |
/// | `scope` | the scopes of `require_scopes` |
/// | `cnf` | the token is bound to no key (RFC 7800) |
/// | `other` | only if the keys change during the explanation: explain the token again |
///
/// ```
/// use tower_oauth::ResourceServer;
/// use tower_oauth::resource_server::RejectionKind;
///
/// let (orders, _refresher) = ResourceServer::builder("https://as.example", "orders").build()?;
/// let explanation = orders.explain("a b");
/// let check = explanation.check("characters").ok_or("no such check")?;
/// assert_eq!(check.expected(), Some("visible ASCII characters"));
/// assert_eq!(check.found(), Some("' ' at byte 1"));
/// assert_eq!(check.rejection(), Some(RejectionKind::Malformed));
/// assert!(check.cure().is_some());
/// # Ok::<(), tower_oauth::BoxError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Check {
    name: &'static str,
    outcome: CheckOutcome,
    rejection: Option<RejectionKind>,
    expected: Option<String>,
    found: Option<String>,
    cure: Option<String>,
}

impl Check {
    /// A check with this outcome of the validation.
    pub(super) fn new(name: &'static str, outcome: Result<(), RejectionKind>) -> Self {
        let rejection = outcome.err();
        Self {
            outcome: match rejection {
                None => CheckOutcome::Passed,
                Some(_) => CheckOutcome::Failed,
            },
            rejection,
            ..Self::skipped(name)
        }
    }

    pub(super) fn passed(name: &'static str) -> Self {
        Self::new(name, Ok(()))
    }

    pub(super) fn failed(name: &'static str, kind: RejectionKind) -> Self {
        Self::new(name, Err(kind))
    }

    pub(super) fn skipped(name: &'static str) -> Self {
        Self {
            name,
            outcome: CheckOutcome::Skipped,
            rejection: None,
            expected: None,
            found: None,
            cure: None,
        }
    }

    pub(super) fn expects(mut self, expected: impl Into<String>) -> Self {
        self.expected = Some(expected.into());
        self
    }

    pub(super) fn finds(mut self, found: impl Into<String>) -> Self {
        self.found = Some(found.into());
        self
    }

    /// Sets the cure of a check that failed.
    pub(super) fn cure_by(mut self, cure: impl Into<String>) -> Self {
        if self.outcome == CheckOutcome::Failed {
            self.cure = Some(cure.into());
        }
        self
    }

    /// The name: that of the claim or header parameter, or of the step. [`Check`] lists them.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// How the check ended.
    #[must_use]
    pub fn outcome(&self) -> CheckOutcome {
        self.outcome
    }

    /// The kind of rejection that this check alone causes; `None` unless it failed.
    #[must_use]
    pub fn rejection(&self) -> Option<RejectionKind> {
        self.rejection
    }

    /// What the settings of this server expect.
    #[must_use]
    pub fn expected(&self) -> Option<&str> {
        self.expected.as_deref()
    }

    /// What the token has, escaped and cut to 200 characters a value.
    #[must_use]
    pub fn found(&self) -> Option<&str> {
        self.found.as_deref()
    }

    /// What to do about it; `None` unless the check failed.
    #[must_use]
    pub fn cure(&self) -> Option<&str> {
        self.cure.as_deref()
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)?;
        if let Some(found) = &self.found {
            let verb = match self.name {
                "alg" | "aud" | "iss" | "kid" | "typ" => " is",
                _ => ":",
            };
            write!(f, "{verb} {found}")?;
        }
        if let Some(expected) = &self.expected {
            let what = match self.name {
                "aud" | "iss" => "trusted",
                _ => "expected",
            };
            write!(f, ", {what}: {expected}")?;
        }
        if let Some(cure) = &self.cure {
            write!(f, ". {cure}")?;
        }
        Ok(())
    }
}

impl Serialize for Check {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut check = serializer.serialize_struct("Check", 6)?;
        check.serialize_field("name", self.name)?;
        check.serialize_field("outcome", self.outcome.as_str())?;
        check.serialize_field("rejection", &self.rejection.map(RejectionKind::as_str))?;
        check.serialize_field("expected", &self.expected)?;
        check.serialize_field("found", &self.found)?;
        check.serialize_field("cure", &self.cure)?;
        check.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documentation_lists_each_check_in_order() {
        let rows = include_str!("check.rs")
            .lines()
            .filter_map(|line| line.strip_prefix("/// | `"))
            .filter_map(|row| row.split_once('`'));
        let documented: Vec<&str> = rows.map(|(name, _)| name).collect();
        assert_eq!(documented, [&NAMES[..], &["other"]].concat());
    }

    #[test]
    fn the_documentation_lists_each_serialized_member() {
        let documentation = include_str!("check.rs");
        let json = serde_json::to_value(Check::failed("aud", RejectionKind::InvalidAudience));
        let json = json.unwrap();
        let names: Vec<&String> = json.as_object().unwrap().keys().collect();
        assert_eq!(
            names,
            ["cure", "expected", "found", "name", "outcome", "rejection"]
        );
        for name in names {
            assert!(documentation.contains(&format!("`{name}`")), "{name}");
        }
        assert_eq!(json["outcome"], "failed");
        assert!(json["cure"].is_null());
    }
}
