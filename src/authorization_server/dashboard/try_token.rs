//! The page that requests a token and shows its decoded header and claims.

use axum::Extension;
use axum::extract::{Path, State};
use axum::response::Redirect;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use maud::{Markup, html};
use secrecy::ExposeSecret;
use serde_json::Value;

use super::super::applications::Registration;
use super::application::find;
use super::commands::commands;
use super::explain_token;
use super::form::Form;
use super::layout::{ErrorPage, Tab, listing, page};
use super::session::Session;
use super::text::{format_date, format_duration};
use super::token_request::{Outcome, TokenRequest, request_token};
use super::{AuthorizationServer, Inner};
use crate::clock::UnixTime;

pub(super) async fn index(
    State(server): State<AuthorizationServer>,
    Extension(session): Extension<Session>,
) -> Markup {
    render(&server.0, &session, None)
}

pub(super) async fn show(
    State(server): State<AuthorizationServer>,
    Extension(session): Extension<Session>,
    Path(client_id): Path<String>,
) -> Result<Markup, ErrorPage> {
    let application = find(&server.0, &client_id)?;
    Ok(render(&server.0, &session, Some(&application)))
}

pub(super) async fn request(
    State(server): State<AuthorizationServer>,
    form: Form,
) -> Result<Redirect, ErrorPage> {
    let application = find(&server.0, form.field("application"))?;
    let scope = form.list("scope").join(" ");
    let audience = match form.field("audience") {
        "" => String::new(),
        other => find(&server.0, other)?.client_id,
    };
    let outcome = request_token(&server, &application, &scope, &audience).await;
    let client_id = application.client_id;
    let redirect = Redirect::to(&format!("/try/{client_id}"));
    server.0.dashboard.token_requests.insert(TokenRequest {
        client_id,
        scope,
        audience,
        outcome,
    });
    Ok(redirect)
}

fn render(server: &Inner, session: &Session, selected: Option<&Registration>) -> Markup {
    let applications = server.state().applications.clone();
    let exists = |client_id: &str| {
        applications
            .iter()
            .any(|application| application.client_id == client_id)
    };
    // Ignore a request whose audience was deleted since.
    let last_request = selected
        .and_then(|selected| server.dashboard.token_requests.get(&selected.client_id))
        .filter(|request| request.audience.is_empty() || exists(&request.audience));
    let is_selected =
        |one: &Registration| selected.is_some_and(|selected| selected.client_id == one.client_id);
    let scope = last_request
        .as_ref()
        .map_or("", |request| request.scope.as_str());
    let audience = last_request
        .as_ref()
        .map_or("", |request| request.audience.as_str());
    let body = html! {
        h1 { "Try it" }
        @if applications.is_empty() {
            p.empty {
                "No application is registered yet. "
                a href="/applications/new" { "Add Application" }
            }
        } @else {
            form.card method="post" action="/try" {
                (session.field())
                div.pair {
                    div {
                        label for="application" { "Application" }
                        select #application name="application" {
                            @for one in &applications {
                                option value=(one.client_id) selected[is_selected(one)] {
                                    (one.name)
                                }
                            }
                        }
                    }
                    div {
                        label for="audience" { "Audience " span.meta { "the application to call" } }
                        select #audience name="audience" {
                            option value="" { "Itself" }
                            @for one in &applications {
                                option value=(one.client_id) selected[one.client_id == audience] {
                                    (one.name)
                                }
                            }
                        }
                    }
                    div {
                        label for="scope" { "Scope " span.meta { "optional, default: all" } }
                        input #scope type="text" name="scope" value=(scope) autocomplete="off"
                            spellcheck="false" autocapitalize="none";
                    }
                }
                div.actions { button.button.primary type="submit" { "Request a token" } }
            }
        }
        @if let Some(request) = &last_request { (result(&request.outcome, server.clock.now())) }
        @if let Some(application) = selected {
            (commands(server, application, last_request.as_ref()))
        }
        (explain_token::form(server, session, audience))
    };
    let title = match last_request.as_ref().map(|request| &request.outcome) {
        None => "Try it",
        Some(Outcome::Issued(_)) => "Token issued: Try it",
        Some(Outcome::Error { .. } | Outcome::Failed(_)) => "No token: Try it",
    };
    page(Some(Tab::TryToken), title, &body)
}

fn result(outcome: &Outcome, now: UnixTime) -> Markup {
    html! {
        section.card aria-labelledby="result" {
            h2 #result { "Response" }
            @match outcome {
                Outcome::Issued(token) => (decode_token(token.expose_secret(), now)),
                Outcome::Error { status, error, description } => {
                    p { span.badge.bad { (status.as_str()) } " " code { (error) } }
                    p { (description) }
                }
                Outcome::Failed(reason) => { p { span.badge.bad { "No token" } " " (reason) } }
            }
        }
    }
}

/// Decodes header and claims without validation.
fn decode_token(token: &str, now: UnixTime) -> Markup {
    let mut parts = token.split('.').map(|part| {
        let part = URL_SAFE_NO_PAD.decode(part).unwrap_or_default();
        serde_json::from_slice::<Value>(&part).unwrap_or_default()
    });
    let (header, claims) = (
        parts.next().unwrap_or_default(),
        parts.next().unwrap_or_default(),
    );
    let pretty = |part: &Value| serde_json::to_string_pretty(part).unwrap_or_default();
    let expires_at = claims
        .get("exp")
        .and_then(Value::as_u64)
        .map(UnixTime::from_secs);
    html! {
        p {
            span.badge.good { "200" } " Token issued"
            @match expires_at {
                Some(until) if now < until => {
                    ", valid for another "
                    strong { (format_duration(until.saturating_since(now))) }
                    " (until " (format_date(until)) ")"
                }
                Some(until) => { ", " strong { "expired" } " (" (format_date(until)) ")" }
                None => ", without expiry"
            }
        }
        div.pair {
            (listing("token-header", "Header", &pretty(&header)))
            (listing("token-claims", "Claims", &pretty(&claims)))
        }
        details { summary { "The token itself" } (listing("token", "Token", token)) }
    }
}
