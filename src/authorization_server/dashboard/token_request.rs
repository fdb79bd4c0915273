//! Token requests from the dashboard, and the last outcome for each application.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Request, StatusCode, header};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use url::form_urlencoded;

use super::super::applications::Registration;
use super::AuthorizationServer;
use crate::transport::Transport;

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

/// Sends a request to the token endpoint, including its injected faults.
pub(super) async fn request_token(
    server: &AuthorizationServer,
    application: &Registration,
    scope: &str,
    audience: &str,
) -> Outcome {
    let request = Request::post(server.token_endpoint().as_str())
        .header(
            header::AUTHORIZATION,
            format!("Basic {}", basic_credentials(application)),
        )
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(Bytes::from(form_body(scope, audience)));
    let Ok(request) = request else {
        return Outcome::Failed("The request could not be built.".to_owned());
    };
    let transport = server.transport();
    match tokio::time::timeout(TIMEOUT, transport.send(request, super::MAX_BODY)).await {
        Err(_) => Outcome::Failed(format!(
            "There was no answer within {} s.",
            TIMEOUT.as_secs()
        )),
        Ok(Err(error)) => Outcome::Failed(format!("The request failed: {error}.")),
        Ok(Ok(response)) => parse_response(response.status(), response.body()),
    }
}

/// The request body (RFC 6749 §4.4.2), with the `audience` parameter of App ID.
fn form_body(scope: &str, audience: &str) -> String {
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.append_pair("grant_type", "client_credentials");
    for (name, value) in [("scope", scope), ("audience", audience)] {
        if !value.is_empty() {
            form.append_pair(name, value);
        }
    }
    form.finish()
}

fn parse_response(status: StatusCode, body: &[u8]) -> Outcome {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |name: &str| body.get(name).and_then(Value::as_str).map(str::to_owned);
    if let (StatusCode::OK, Some(token)) = (status, text("access_token")) {
        return Outcome::Issued(token.into());
    }
    match text("error") {
        Some(error) => Outcome::Error {
            status,
            error,
            description: text("error_description").unwrap_or_default(),
        },
        None => Outcome::Failed(format!("The answer was {status}, and no token response.")),
    }
}

/// The credentials of Basic authentication (RFC 7617 §2).
pub(super) fn basic_credentials(application: &Registration) -> String {
    STANDARD.encode(format!(
        "{}:{}",
        application.client_id,
        application.secret.expose_secret()
    ))
}
