//! The responses of a resource server that cause a renewal: of a token that it rejects, or of one
//! that lacks a scope.

use http::{HeaderMap, StatusCode};

use super::super::scope_upgrade::required_scopes;
use super::super::unauthorized::Denial;
use super::super::{AccessToken, TokenManager, Unauthorized};
use crate::oauth::Scope;

/// Where a new token comes from, and when one is needed.
#[derive(Clone, Debug)]
pub(in crate::client) struct RenewalTrigger {
    pub(in crate::client) tokens: TokenManager,
    pub(in crate::client) on: Unauthorized,
    /// Whether a challenge may lead to a token with more scopes.
    pub(in crate::client) steps_up: bool,
}

/// Why another token is needed.
pub(in crate::client) enum Cause {
    InvalidToken,
    InsufficientScope(Vec<Scope>),
}

impl RenewalTrigger {
    /// Whether a response asks for another token. For most responses a look at the status.
    pub(in crate::client) fn cause(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
    ) -> Option<Cause> {
        match Denial::of(status, headers)? {
            Denial::Unauthenticated => self.on.matches(headers).then_some(Cause::InvalidToken),
            Denial::Forbidden if self.steps_up => {
                required_scopes(headers).map(Cause::InsufficientScope)
            }
            Denial::Forbidden => None,
        }
    }

    /// Starts the renewal of this token, for later requests.
    pub(in crate::client) fn start_renewal(&self, token: &AccessToken, cause: &Cause) {
        match cause {
            Cause::InvalidToken => {
                let _has_no_retry = self.tokens.invalidate(token);
            }
            Cause::InsufficientScope(scopes) => self.tokens.upgrade_scopes(token, scopes),
        }
    }

    /// Starts the renewal of this token, and waits for the token of a retry.
    pub(in crate::client) async fn renew_and_wait(
        &self,
        token: &AccessToken,
        cause: &Cause,
    ) -> Option<AccessToken> {
        match cause {
            Cause::InvalidToken => self.tokens.invalidate_and_wait(token).await,
            Cause::InsufficientScope(scopes) => {
                self.tokens.upgrade_scopes_and_wait(token, scopes).await
            }
        }
    }

    /// The trigger of a retry. Once for each request: what the retry lacks is not tried.
    pub(in crate::client) fn for_retry(&self) -> Self {
        Self {
            steps_up: false,
            ..self.clone()
        }
    }
}
