//! The rules of an issuer for tokens that are valid otherwise.

use std::fmt;
use std::sync::Arc;

use serde_json::Value;

use super::context::CachedToken;
use super::rejection::RejectionReason;
use super::{AuthContext, ClaimError, RejectionKind};
use crate::error::{ConfigError, ConfigErrorKind};
use crate::jwt::Mismatch;
use crate::oauth::Scope;
use crate::text;

type ClientName = dyn Fn(&AuthContext) -> Option<String> + Send + Sync;
type Predicate = dyn Fn(&AuthContext) -> bool + Send + Sync;

/// The claims that name the client of a token, see [`AuthContext::client_id`].
const CLIENT_CLAIMS: [&str; 4] = ["client_id", "azp", "appid", "cid"];

/// A property that only access tokens of a provider have.
#[derive(Clone, Copy, Debug)]
pub(super) struct ProviderRule {
    /// In words, for the log.
    pub(super) expected: &'static str,
    /// What a token has that breaks it.
    pub(super) otherwise: &'static str,
    pub(super) is_met: fn(&AuthContext) -> bool,
}

/// What a token must have besides a valid signature and valid registered claims.
///
/// Applied once, before the token is cached: never to an unverified token.
#[derive(Clone, Default)]
pub(super) struct ClaimRules {
    pub(super) client_name: Option<Arc<ClientName>>,
    /// Claims, each with its accepted values.
    pub(super) required_claims: Vec<(String, Vec<Value>)>,
    pub(super) provider_rules: Vec<ProviderRule>,
    pub(super) allowed_clients: Option<Vec<String>>,
    pub(super) predicates: Vec<Arc<Predicate>>,
    pub(super) required_scopes: Vec<Scope>,
}

impl ClaimRules {
    /// Checks that the rules can be met.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let mut required = self.required_claims.iter();
        if let Some((name, _)) = required.find(|(_, values)| values.is_empty()) {
            let reason = "must have at least one accepted value";
            return Err(
                ConfigError::new("require_claim", name, reason).with_kind(ConfigErrorKind::Missing)
            );
        }
        // Numbers beyond 64 bits and fractions are read as doubles, so different ones may be equal.
        let mut required = self.required_claims.iter();
        if let Some((name, _)) = required.find(|(_, values)| values.iter().any(has_double)) {
            let reason = "must not have a number that is no integer of 64 bits";
            return Err(ConfigError::new("require_claim", name, reason));
        }
        match &self.allowed_clients {
            Some(clients) if clients.is_empty() => {
                let reason = "must name at least one client";
                Err(ConfigError::missing("allowed_clients", reason))
            }
            Some(clients) if clients.iter().any(String::is_empty) => {
                let reason = "must not have an empty client id";
                Err(ConfigError::without_value("allowed_clients", reason))
            }
            _ => Ok(()),
        }
    }

    /// Applies the rules to a token whose signature and registered claims are valid. The returned
    /// token has the client name of the rules.
    ///
    /// The scopes come last: a token that breaks another rule is no valid token (401), and only a
    /// valid one lacks a scope (403).
    pub(super) fn apply(&self, token: CachedToken) -> Result<CachedToken, RejectionReason> {
        if self.is_empty() {
            return Ok(token);
        }
        let token = self.with_client_name(AuthContext::from(token));
        self.check_required_claims(&token)?;
        self.check_provider_rules(&token)?;
        self.check_client(&token)?;
        self.check_predicates(&token)?;
        self.check_scopes(&token)?;
        Ok(token.token)
    }

    /// Names the client of a validated token.
    pub(super) fn with_client_name(&self, mut token: AuthContext) -> AuthContext {
        if let Some(client_name) = &self.client_name {
            let client = client_name(&token);
            token.token = token.token.with_client_id(client.map(Into::into));
        }
        token
    }

    fn is_empty(&self) -> bool {
        self.client_name.is_none()
            && self.required_claims.is_empty()
            && self.provider_rules.is_empty()
            && self.allowed_clients.is_none()
            && self.predicates.is_empty()
            && self.required_scopes.is_empty()
    }

    pub(super) fn check_required_claims(&self, token: &AuthContext) -> Result<(), RejectionReason> {
        for (name, accepted) in &self.required_claims {
            let claim: Option<Value> = read(token, name)?;
            if !claim.as_ref().is_some_and(|claim| accepted.contains(claim)) {
                let kind = RejectionKind::InvalidClaims;
                let name = text::escaped(name);
                let accepted = text::array(accepted, text::setting);
                let expected = format!("the claim {name} with one of {accepted}");
                let found = claim.map_or_else(
                    || "no such claim".to_owned(),
                    |claim| format!("the claim {name} with {}", text::shown(&claim)),
                );
                return Err(mismatch(kind, token, expected, found));
            }
        }
        Ok(())
    }

    pub(super) fn check_provider_rules(&self, token: &AuthContext) -> Result<(), RejectionReason> {
        let mut rules = self.provider_rules.iter();
        let Some(broken) = rules.find(|rule| !(rule.is_met)(token)) else {
            return Ok(());
        };
        let kind = RejectionKind::InvalidClaims;
        let found = broken.otherwise.to_owned();
        Err(mismatch(kind, token, broken.expected.to_owned(), found))
    }

    pub(super) fn check_client(&self, token: &AuthContext) -> Result<(), RejectionReason> {
        let Some(allowed) = &self.allowed_clients else {
            return Ok(());
        };
        // A client claim of the wrong type must not make another claim name the client. One that is
        // `null` counts as absent.
        let is_wrong = |claim: Value| !(claim.is_string() || claim.is_null());
        for name in CLIENT_CLAIMS {
            if read(token, name)?.is_some_and(is_wrong) {
                let expected = "a string that names the client".to_owned();
                let found = format!("the claim {name} of another type");
                let kind = RejectionKind::InvalidClaims;
                return Err(mismatch(kind, token, expected, found));
            }
        }
        let client = token.client_id();
        if !client.is_some_and(|client| allowed.iter().any(|one| one == client)) {
            let expected = format!("one of the clients {}", text::setting_list(allowed));
            let found = match client {
                Some(_) => "another client".to_owned(),
                None => "no claim that names the client".to_owned(),
            };
            let kind = RejectionKind::UntrustedClient;
            return Err(mismatch(kind, token, expected, found));
        }
        Ok(())
    }

    pub(super) fn check_predicates(&self, token: &AuthContext) -> Result<(), RejectionReason> {
        let mut predicates = self.predicates.iter();
        let Some(failed) = predicates.position(|predicate| !predicate(token)) else {
            return Ok(());
        };
        let expected = format!("true of the rule {} of `require`", failed + 1);
        let kind = RejectionKind::InvalidClaims;
        Err(mismatch(kind, token, expected, "false".to_owned()))
    }

    pub(super) fn check_scopes(&self, token: &AuthContext) -> Result<(), RejectionReason> {
        let mut required = self.required_scopes.iter();
        if required.all(|one| token.has_scope(one.as_str())) {
            return Ok(());
        }
        let expected = format!(
            "all of the scopes {}",
            text::setting_list(&self.required_scopes)
        );
        let found = found_scopes(token);
        let kind = RejectionKind::InsufficientScope;
        Err(RejectionReason {
            required_scopes: Some(self.required_scopes.as_slice().into()),
            ..mismatch(kind, token, expected, found)
        })
    }
}

/// A rejection of a token that breaks a rule.
fn mismatch(
    kind: RejectionKind,
    token: &AuthContext,
    expected: String,
    found: String,
) -> RejectionReason {
    let mismatch = Mismatch::new(token.client_id(), expected, found);
    RejectionReason::with_mismatch(kind, Some(mismatch))
}

/// The scopes of a token, for the log.
pub(super) fn found_scopes(token: &AuthContext) -> String {
    format!("scopes {}", text::shown_list(token.scopes()))
}

/// Whether a value has a number that is compared as a double.
fn has_double(value: &Value) -> bool {
    match value {
        // Not `is_f64`, which depends on serde_json's feature `arbitrary_precision`.
        Value::Number(number) => !(number.is_u64() || number.is_i64()),
        Value::Array(elements) => elements.iter().any(has_double),
        Value::Object(members) => members.values().any(has_double),
        Value::Null | Value::Bool(_) | Value::String(_) => false,
    }
}

fn read(token: &AuthContext, name: &str) -> Result<Option<Value>, RejectionKind> {
    let unreadable = |_: ClaimError| RejectionKind::InvalidClaims;
    // A claim that is `null` is `Some(Value::Null)`.
    token.claim::<Value>(name).map_err(unreadable)
}

impl fmt::Debug for ClaimRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClaimRules")
            .field("required_claims", &self.required_claims)
            .field("allowed_clients", &self.allowed_clients)
            .field("required_scopes", &self.required_scopes)
            .finish_non_exhaustive()
    }
}
