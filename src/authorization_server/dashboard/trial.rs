//! A token to try: asked for as an application asks for it, and taken apart; with the lines that
//! do the same on a command line.

use std::time::Duration;

use axum::Extension;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Redirect, Response};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{Request, StatusCode, header};
use maud::{Markup, html};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use url::form_urlencoded;

use super::super::Version;
use super::super::applications::Registration;
use super::application::find;
use super::form::Form;
use super::layout::{Problem, Tab, hidden_listing, listing, page};
use super::session::Session;
use super::text::{date, span};
use super::{AuthorizationServer, Inner};
use crate::clock::UnixTime;
use crate::transport::Transport;

/// So many are remembered.
const KEPT: usize = 16;

/// A scripted fault may never answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// What an application was answered the last time.
#[derive(Clone, Debug)]
pub(super) struct Trial {
    client_id: String,
    scope: String,
    outcome: Outcome,
}

#[derive(Clone, Debug)]
enum Outcome {
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

pub(super) async fn choose(
    State(server): State<AuthorizationServer>,
    Extension(session): Extension<Session>,
) -> Markup {
    render(&server.0, &session, None)
}

pub(super) async fn show(
    State(server): State<AuthorizationServer>,
    Extension(session): Extension<Session>,
    Path(client_id): Path<String>,
) -> Result<Markup, Problem> {
    let application = find(&server.0, &client_id)?;
    Ok(render(&server.0, &session, Some(&application)))
}

pub(super) async fn request(
    State(server): State<AuthorizationServer>,
    form: Form,
) -> Result<Response, Problem> {
    let application = find(&server.0, form.field("application"))?;
    let scope = form.list("scope").join(" ");
    let outcome = ask(&server, &application, &scope).await;
    let client_id = application.client_id;
    let to = Redirect::to(&format!("/try/{client_id}"));
    server.0.dashboard.remember(Trial { client_id, scope, outcome });
    Ok(to.into_response())
}

impl super::Dashboard {
    fn remember(&self, trial: Trial) {
        let mut trials = self.trials.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        trials.retain(|other| other.client_id != trial.client_id);
        if trials.len() == KEPT {
            trials.pop_front();
        }
        trials.push_back(trial);
    }

    fn trial_of(&self, client_id: &str) -> Option<Trial> {
        let trials = self.trials.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        trials.iter().find(|trial| trial.client_id == client_id).cloned()
    }
}

/// Asks the token endpoint itself, its faults included.
async fn ask(server: &AuthorizationServer, application: &Registration, scope: &str) -> Outcome {
    let request = Request::post(server.token_endpoint().as_str())
        .header(header::AUTHORIZATION, format!("Basic {}", basic(application)))
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(Bytes::from(token_request(scope)));
    let Ok(request) = request else { return Outcome::Unusable("The request could not be made.".to_owned()) };
    let transport = server.transport();
    match tokio::time::timeout(PATIENCE, transport.send(request, super::MAX_BODY)).await {
        Err(_) => Outcome::Unusable(format!("There was no answer within {} s.", PATIENCE.as_secs())),
        Ok(Err(error)) => Outcome::Unusable(format!("There was no usable answer: {error}.")),
        Ok(Ok(response)) => read(response.status(), response.body()),
    }
}

/// RFC 6749 §4.4.2
fn token_request(scope: &str) -> String {
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.append_pair("grant_type", "client_credentials");
    if !scope.is_empty() {
        form.append_pair("scope", scope);
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
        Some(error) => {
            Outcome::Refused { status, error, description: text("error_description").unwrap_or_default() }
        }
        None => Outcome::Unusable(format!("The answer was {status}, and no token response.")),
    }
}

/// The credentials of Basic authentication (RFC 7617 §2).
fn basic(application: &Registration) -> String {
    STANDARD.encode(format!("{}:{}", application.client_id, application.secret.expose_secret()))
}

fn render(server: &Inner, session: &Session, chosen: Option<&Registration>) -> Markup {
    let applications = server.state().applications.clone();
    let trial = chosen.and_then(|chosen| server.dashboard.trial_of(&chosen.client_id));
    let is_chosen = |one: &Registration| chosen.is_some_and(|chosen| chosen.client_id == one.client_id);
    let scope = trial.as_ref().map_or("", |trial| trial.scope.as_str());
    let body = html! {
        h1 { "Try it" }
        @if applications.is_empty() {
            p.empty { "There is no application to ask for a token. " a href="/applications/new" { "Add Application" } }
        } @else {
            form.card method="post" action="/try" {
                (session.field())
                div.pair {
                    div {
                        label for="application" { "Application" }
                        select #application name="application" {
                            @for one in &applications { option value=(one.client_id) selected[is_chosen(one)] { (one.name) } }
                        }
                    }
                    div {
                        label for="scope" { "Scope " span.meta #scope-hint { "optional: all that it has" } }
                        input #scope type="text" name="scope" value=(scope) autocomplete="off" spellcheck="false"
                            autocapitalize="none" aria-describedby="scope-hint";
                    }
                }
                div.actions { button.button.primary type="submit" { "Request a token" } }
            }
        }
        @if let Some(trial) = &trial { (result(&trial.outcome, server.clock.now())) }
        @if let Some(application) = chosen { (commands(server, application, trial.as_ref())) }
    };
    page(Some(Tab::TryIt), "Try it", &body)
}

fn result(outcome: &Outcome, now: UnixTime) -> Markup {
    html! {
        section.card aria-labelledby="result" {
            h2 #result { "Answer" }
            @match outcome {
                Outcome::Issued(token) => (taken_apart(token.expose_secret(), now)),
                Outcome::Refused { status, error, description } => {
                    p { span.badge.bad { (status.as_str()) } " " code { (error) } }
                    p { (description) }
                }
                Outcome::Unusable(reason) => { p { span.badge.bad { "No token" } " " (reason) } }
            }
        }
    }
}

/// Header and claims, read without judging them.
fn taken_apart(token: &str, now: UnixTime) -> Markup {
    let mut parts = token.split('.').map(|part| {
        let part = URL_SAFE_NO_PAD.decode(part).unwrap_or_default();
        serde_json::from_slice::<Value>(&part).unwrap_or_default()
    });
    let (header, claims) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let pretty = |part: &Value| serde_json::to_string_pretty(part).unwrap_or_default();
    let expires_at = claims.get("exp").and_then(Value::as_u64).map(UnixTime::from_secs);
    html! {
        p {
            span.badge.good { "200" } " Token issued"
            @match expires_at {
                Some(until) if now < until => {
                    ", good for another " strong { (span(until.saturating_since(now))) } " (until " (date(until)) ")"
                }
                Some(until) => { ", " strong { "expired" } " (" (date(until)) ")" }
                None => ", without an end"
            }
        }
        div.pair {
            (listing("token-header", "Header", &pretty(&header)))
            (listing("token-claims", "Claims", &pretty(&claims)))
        }
        details { summary { "The token itself" } (listing("token", "Token", token)) }
    }
}

/// The requests of App ID's guide as lines for a shell. Ids, URLs, base64 and tokens hold nothing
/// that single quotes would not.
fn commands(server: &Inner, application: &Registration, trial: Option<&Trial>) -> Markup {
    let url = server.oauth_url(Version::V4);
    let token_request = format!(
        "curl -X POST \\\n  {url}/token \\\n  -H 'Authorization: Basic {}' \\\n  \
         -H 'Content-Type: application/x-www-form-urlencoded' \\\n  -d grant_type=client_credentials",
        basic(application),
    );
    let binding =
        json!({ "clientId": application.client_id, "oauthServerUrl": url, "tenantId": server.tenant_id });
    let environment =
        format!("export APPID_SERVICE_BINDING='{binding}'\ncargo run --release --example protected_resource");
    let call = |token: &str| {
        format!("curl http://localhost:8081/protected_resource \\\n  -H \"Authorization: Bearer {token}\"")
    };
    let token = trial.and_then(|trial| match &trial.outcome {
        Outcome::Issued(token) => Some(token.expose_secret()),
        _ => None,
    });
    html! {
        section.card aria-labelledby="commands" {
            h2 #commands { "On the command line" }
            (hidden_listing("curl-token", "Request a token", "secret", &token_request))
            (listing("environment", "Start the protected resource", &environment))
            p.hint { "It needs no secret: it fetches the keys." }
            @match token {
                Some(token) => (hidden_listing("curl-call", "Call the protected resource", "token", &call(token))),
                None => (listing("curl-call", "Call the protected resource", &call("$TOKEN"))),
            }
        }
    }
}
