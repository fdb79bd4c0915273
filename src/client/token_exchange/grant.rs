//! The grant of a token exchange.

use std::fmt;
use std::sync::Arc;

use super::super::box_future::BoxFuture;
use super::super::grant::Grant;
use super::super::token_manager::TokenManager;
use super::super::token_request::TokenRequest;
use super::{ExpectedTokenType, TokenTypeIdentifier};
use crate::error::{Error, Operation};
use crate::inbound_token::InboundToken;

const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";

/// What each exchange has besides its subject token.
#[derive(Clone, Debug, Default)]
pub(super) struct ExchangeSettings {
    pub(super) subject_token_type: TokenTypeIdentifier,
    pub(super) requested_token_type: Option<TokenTypeIdentifier>,
    /// Who acts on behalf of the subject.
    pub(super) actor: Option<TokenManager>,
}

/// One exchange ([RFC 8693 §2.1](https://www.rfc-editor.org/rfc/rfc8693#section-2.1)).
pub(super) struct TokenExchangeGrant {
    settings: Arc<ExchangeSettings>,
    subject: InboundToken,
}

impl TokenExchangeGrant {
    pub(super) fn new(settings: &Arc<ExchangeSettings>, subject: InboundToken) -> Self {
        let settings = Arc::clone(settings);
        Self { settings, subject }
    }
}

impl Grant for TokenExchangeGrant {
    fn write<'a>(&'a self, request: &'a mut TokenRequest) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            let ExchangeSettings {
                subject_token_type,
                requested_token_type,
                actor,
            } = &*self.settings;
            request.expect_token_type(match requested_token_type {
                Some(requested) => ExpectedTokenType::Requested(requested.clone()),
                None => ExpectedTokenType::ForResourceServers,
            });
            request.append("grant_type", GRANT_TYPE);
            request.append_secret("subject_token", &self.subject.expose_secret().into());
            request.append("subject_token_type", subject_token_type.as_str());
            if let Some(actor) = actor {
                let token = actor.access_token().await.map_err(no_actor)?;
                request.append_secret("actor_token", &token.expose_secret().into());
                let token_type = TokenTypeIdentifier::AccessToken;
                request.append("actor_token_type", token_type.as_str());
            }
            if let Some(requested) = requested_token_type {
                request.append("requested_token_type", requested.as_str());
            }
            Ok(())
        })
    }
}

/// The URL of the actor's token request is not that of the exchange.
fn no_actor(error: Error) -> Error {
    Error::new(Operation::TokenRequest, error.kind())
        .with_detail("there is no actor token")
        .with_source(error)
}

impl fmt::Debug for TokenExchangeGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenExchangeGrant").finish_non_exhaustive()
    }
}
