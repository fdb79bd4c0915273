//! A trusted issuer at run time: its policy, and how its tokens are validated.

use super::claim_rules::ClaimRules;
use super::context::CachedToken;
use crate::clock::UnixTime;
use crate::jwt::ClaimsPolicy;
use crate::key_set::KeySetHandle;
use crate::metrics::Histogram;
use crate::oauth::Audience;

/// One trusted issuer.
#[derive(Debug)]
pub(super) struct IssuerState {
    pub(super) policy: ClaimsPolicy,
    pub(super) rules: ClaimRules,
    pub(super) max_token_len: usize,
    pub(super) validator: Validator,
    pub(super) verification_duration: Histogram,
}

impl IssuerState {
    /// The same issuer with the same keys, for tokens that must have this audience.
    pub(super) fn for_audience(&self, audience: &Audience) -> Self {
        Self {
            policy: ClaimsPolicy {
                audiences: vec![audience.clone()],
                audience_optional: false,
                ..self.policy.clone()
            },
            rules: self.rules.clone(),
            max_token_len: self.max_token_len,
            validator: self.validator.clone(),
            verification_duration: self.verification_duration.clone(),
        }
    }
}

/// How the tokens of an issuer are validated.
#[derive(Clone, Debug)]
pub(super) enum Validator {
    /// By the signature of a JWT, with the keys of the issuer.
    Jwt(KeySetHandle),
}

impl Validator {
    /// Whether a cached token is still valid: validating it again would give the same result.
    pub(super) fn is_still_valid(&self, token: &CachedToken, now: UnixTime) -> bool {
        match self {
            Self::Jwt(keys) => token.is_still_valid(keys, now),
        }
    }

    /// Whether tokens can be validated now.
    pub(super) fn is_ready(&self, now: UnixTime) -> bool {
        match self {
            Self::Jwt(keys) => keys.load().usable(now).is_some(),
        }
    }

    /// Waits until [`is_ready`](Self::is_ready), or until it can no longer become so.
    pub(super) async fn wait_until_ready(&self, now: impl Fn() -> UnixTime) {
        match self {
            Self::Jwt(keys) => keys.wait_until_usable(now).await,
        }
    }

    /// The key set of an issuer that signs its tokens.
    pub(super) fn keys(&self) -> Option<&KeySetHandle> {
        match self {
            Self::Jwt(keys) => Some(keys),
        }
    }
}
