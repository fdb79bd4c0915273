//! Token requests from the dashboard, and the last outcome for each application.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::StatusCode;
use secrecy::{ExposeSecret, SecretString};

use super::super::applications::Registration;
use super::AuthorizationServer;
use crate::client::{
    BoxFuture, ClientCredentials, Grant, TokenManager, TokenResponse, TokenSource,
};
use crate::error::{ConfigError, Error, ErrorKind};

/// Maximum number of stored token requests.
const CAPACITY: usize = 16;

/// A limit for [`Fault::Hang`], which never responds.
///
/// [`Fault::Hang`]: super::super::Fault::Hang
const TIMEOUT: Duration = Duration::from_secs(5);

/// A token request and its outcome.
#[derive(Clone, Debug)]
pub(super) struct TokenRequest {
    pub(super) client_id: String,
    pub(super) scope: String,
    /// The audience; empty for the application itself.
    pub(super) audience: String,
    pub(super) outcome: Outcome,
}

#[derive(Clone, Debug)]
pub(super) enum Outcome {
    Issued(SecretString),
    /// An error response (RFC 6749 §5.2).
    Error {
        status: StatusCode,
        error: String,
        description: String,
    },
    /// Any other response or failure, such as an injected fault.
    Failed(String),
}

impl TokenRequest {
    /// The token if one was issued.
    pub(super) fn token(&self) -> Option<&str> {
        match &self.outcome {
            Outcome::Issued(token) => Some(token.expose_secret()),
            Outcome::Error { .. } | Outcome::Failed(_) => None,
        }
    }
}

/// The last token request of each application.
#[derive(Debug, Default)]
pub(super) struct TokenRequests(Mutex<VecDeque<TokenRequest>>);

impl TokenRequests {
    pub(super) fn insert(&self, request: TokenRequest) {
        let mut requests = self.lock();
        requests.retain(|other| other.client_id != request.client_id);
        if requests.len() == CAPACITY {
            requests.pop_front();
        }
        requests.push_back(request);
    }

    pub(super) fn get(&self, client_id: &str) -> Option<TokenRequest> {
        self.lock()
            .iter()
            .find(|request| request.client_id == client_id)
            .cloned()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<TokenRequest>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The client credentials grant with the fields of the form, which the server checks.
#[derive(Debug)]
struct FormGrant {
    scope: String,
    audience: String,
}

impl Grant for FormGrant {
    fn write<'a>(
        &'a self,
        request: &'a mut crate::client::TokenRequest,
    ) -> BoxFuture<'a, Result<(), Error>> {
        request.append("grant_type", "client_credentials");
        for (name, value) in [("scope", &self.scope), ("audience", &self.audience)] {
            if !value.is_empty() {
                request.append(name, value);
            }
        }
        Box::pin(async { Ok(()) })
    }
}

/// Sends a request to the token endpoint, including its injected faults.
pub(super) async fn request_token(
    server: &AuthorizationServer,
    application: &Registration,
    scope: &str,
    audience: &str,
) -> Outcome {
    let grant = FormGrant {
        scope: scope.to_owned(),
        audience: audience.to_owned(),
    };
    let result = match token_source(server, application, grant) {
        Ok(source) => source.fetch().await,
        Err(error) => return Outcome::Failed(format!("The request could not be built: {error}.")),
    };
    result.map_or_else(
        |error| failure(&error),
        |response: TokenResponse| Outcome::Issued(response.expose_secret().into()),
    )
}

fn token_source(
    server: &AuthorizationServer,
    application: &Registration,
    grant: FormGrant,
) -> Result<impl TokenSource + use<>, ConfigError> {
    let credentials = ClientCredentials::new(&application.client_id, application.secret.clone());
    TokenManager::builder(
        server.token_endpoint(),
        credentials.client_secret_basic_raw(),
    )
    .grant(grant)
    .transport(server.transport())
    .clock(Arc::clone(&server.0.clock))
    .request_timeout(TIMEOUT)
    .allow_loopback_http()
    .build_source()
}

fn failure(error: &Error) -> Outcome {
    match (error.status(), error.oauth_error()) {
        (Some(status), Some(oauth)) => Outcome::Error {
            status,
            error: oauth.code().to_owned(),
            description: oauth.description().unwrap_or_default().to_owned(),
        },
        (Some(status), None) => {
            Outcome::Failed(format!("The answer was {status}, and no token response."))
        }
        (None, _) if error.kind() == ErrorKind::Timeout => Outcome::Failed(format!(
            "There was no answer within {} s.",
            TIMEOUT.as_secs()
        )),
        (None, _) => Outcome::Failed(format!("The request failed: {}.", error.kind())),
    }
}
