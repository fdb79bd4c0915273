//! The trusted issuers of a resource server.

use super::issuer_state::IssuerState;
use crate::clock::UnixTime;
use crate::jwt::{SizeLimits, TokenError};
use crate::oauth::Issuer;

/// The trusted issuers, and the limits for tokens whose issuer is not known yet.
#[derive(Debug)]
pub(super) struct Issuers {
    /// An index is never reused: cached tokens have it.
    list: Vec<IssuerState>,
    /// The largest of the issuers' limits.
    max_token_len: usize,
    size_limits: SizeLimits,
}

/// The trusted issuer of a token.
#[derive(Clone, Copy, Debug)]
pub(super) struct MatchedIssuer<'a> {
    /// For [`Issuers::get`].
    pub(super) index: usize,
    pub(super) state: &'a IssuerState,
    /// As the token spells it: the issuer's name or an alias.
    pub(super) name: &'a Issuer,
}

impl Issuers {
    pub(super) fn new(list: Vec<IssuerState>) -> Self {
        let max_token_len = list.iter().map(|issuer| issuer.max_token_len).max();
        let max_token_len = max_token_len.unwrap_or_default();
        Self {
            list,
            max_token_len,
            size_limits: SizeLimits::for_max_token_len(max_token_len),
        }
    }

    #[inline]
    pub(super) fn max_token_len(&self) -> usize {
        self.max_token_len
    }

    pub(super) fn size_limits(&self) -> SizeLimits {
        self.size_limits
    }

    #[inline]
    pub(super) fn get(&self, index: usize) -> Option<&IssuerState> {
        self.list.get(index)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &IssuerState> {
        self.list.iter()
    }

    /// Finds the issuer with this name or alias. Fails if the token has expired, or is too long for
    /// the issuer. A token is only ever validated as one of this issuer.
    pub(super) fn find(
        &self,
        claimed: &str,
        token_len: usize,
        expires_at: Option<UnixTime>,
        now: UnixTime,
    ) -> Result<MatchedIssuer<'_>, TokenError> {
        let mut issuers = self.list.iter().enumerate();
        let found = issuers.find_map(|(index, state)| {
            let name = state.policy.find_issuer(claimed)?;
            Some(MatchedIssuer { index, state, name })
        });
        let found = found.ok_or(TokenError::UntrustedIssuer)?;
        if expires_at.is_some_and(|expires_at| found.state.policy.is_expired(expires_at, now)) {
            return Err(TokenError::Expired);
        }
        if token_len > found.state.max_token_len {
            return Err(TokenError::TokenTooLong);
        }
        Ok(found)
    }
}
