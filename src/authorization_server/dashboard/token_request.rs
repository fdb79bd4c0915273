//! Asking for a token as an application asks for it, and remembering what came of it.

use std::collections::VecDeque;
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Request, StatusCode, header};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use url::form_urlencoded;

use super::super::applications::Registration;
use super::{AuthorizationServer, Dashboard};
use crate::transport::Transport;

/// So many are remembered.
const KEPT: usize = 16;

/// A scripted fault may never answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// What an application was answered the last time.
#[derive(Clone, Debug)]
pub(super) struct Trial {
    pub(super) client_id: String,
    pub(super) scope: String,
    /// Whom the token is for; empty for the application itself.
    pub(super) audience: String,
    pub(super) outcome: Outcome,
}

#[derive(Clone, Debug)]
pub(super) enum Outcome {
    Issued(SecretString),
    /// An error response (RFC 6749 §5.2).
    Refused {
        status: StatusCode,
        error: String,
        description: String,
    },
    /// Anything else, such as what a fault makes.
    Unusable(String),
}

impl Trial {
    /// The token, if there is one.
    pub(super) fn token(&self) -> Option<&str> {
        match &self.outcome {
            Outcome::Issued(token) => Some(token.expose_secret()),
            Outcome::Refused { .. } | Outcome::Unusable(_) => None,
        }
    }
}

impl Dashboard {
    pub(super) fn remember(&self, trial: Trial) {
        let mut trials = self.trials();
        trials.retain(|other| other.client_id != trial.client_id);
        if trials.len() == KEPT {
            trials.pop_front();
        }
        trials.push_back(trial);
    }

    pub(super) fn trial_of(&self, client_id: &str) -> Option<Trial> {
        self.trials()
            .iter()
            .find(|trial| trial.client_id == client_id)
            .cloned()
    }

    fn trials(&self) -> MutexGuard<'_, VecDeque<Trial>> {
        self.trials.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks the token endpoint itself, its faults included.
pub(super) async fn ask(
    server: &AuthorizationServer,
    application: &Registration,
    scope: &str,
    audience: &str,
) -> Outcome {
    let request = Request::post(server.token_endpoint().as_str())
        .header(
            header::AUTHORIZATION,
            format!("Basic {}", basic(application)),
        )
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(Bytes::from(token_request(scope, audience)));
    let Ok(request) = request else {
        return Outcome::Unusable("The request could not be made.".to_owned());
    };
    let transport = server.transport();
    match tokio::time::timeout(PATIENCE, transport.send(request, super::MAX_BODY)).await {
        Err(_) => Outcome::Unusable(format!(
            "There was no answer within {} s.",
            PATIENCE.as_secs()
        )),
        Ok(Err(error)) => Outcome::Unusable(format!("There was no usable answer: {error}.")),
        Ok(Ok(response)) => read(response.status(), response.body()),
    }
}

/// RFC 6749 §4.4.2, with the `audience` of App ID.
fn token_request(scope: &str, audience: &str) -> String {
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.append_pair("grant_type", "client_credentials");
    for (name, value) in [("scope", scope), ("audience", audience)] {
        if !value.is_empty() {
            form.append_pair(name, value);
        }
    }
    form.finish()
}

fn read(status: StatusCode, body: &[u8]) -> Outcome {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |name: &str| body.get(name).and_then(Value::as_str).map(str::to_owned);
    if let (StatusCode::OK, Some(token)) = (status, text("access_token")) {
        return Outcome::Issued(token.into());
    }
    match text("error") {
        Some(error) => Outcome::Refused {
            status,
            error,
            description: text("error_description").unwrap_or_default(),
        },
        None => Outcome::Unusable(format!("The answer was {status}, and no token response.")),
    }
}

/// The credentials of Basic authentication (RFC 7617 §2).
pub(super) fn basic(application: &Registration) -> String {
    STANDARD.encode(format!(
        "{}:{}",
        application.client_id,
        application.secret.expose_secret()
    ))
}
