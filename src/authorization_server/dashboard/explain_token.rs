//! The form for a token that is pasted, and why a resource server accepts or rejects it.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use maud::{Markup, html};

use super::super::applications::{RegisteredApplication, Registration};
use super::application::find;
use super::form::Form;
use super::layout::{ErrorPage, Tab, page};
use super::session::Session;
use super::text::error_sentence;
use super::{AuthorizationServer, Inner};
use crate::error::ConfigError;
use crate::resource_server::{Check, CheckOutcome, Explanation};

/// A limit for the fetch of the keys, which an injected fault may delay.
const TIMEOUT: Duration = Duration::from_secs(5);

pub(super) async fn index(
    State(server): State<AuthorizationServer>,
    Extension(session): Extension<Session>,
) -> Markup {
    let body = html! { h1 { "Explain a token" } (form(&server.0, &session, "")) };
    page(Some(Tab::TryToken), "Explain a token", &body)
}

/// Nothing changes, and the token is not kept: the response is the page itself.
pub(super) async fn explain(
    State(server): State<AuthorizationServer>,
    Extension(session): Extension<Session>,
    fields: Form,
) -> Result<Markup, ErrorPage> {
    let resource = find(&server.0, fields.field("resource"))?;
    let client_id = resource.client_id.clone();
    let explanation = examine(&server, resource, fields.field("token"))
        .await
        .map_err(|error| ErrorPage::internal_error(error_sentence(&error)))?;
    let title = match explanation.is_accepted() {
        true => "Accepted: Explain a token",
        false => "Rejected: Explain a token",
    };
    let body = html! {
        h1 { "Explain a token" }
        (form(&server.0, &session, &client_id))
        (result(&explanation))
    };
    Ok(page(Some(Tab::TryToken), title, &body))
}

/// The card with the form; nothing without an application.
pub(super) fn form(server: &Inner, session: &Session, selected: &str) -> Markup {
    let applications = server.state().applications.clone();
    html! {
        @if !applications.is_empty() {
            form.card method="post" action="/explain" {
                (session.field())
                h2 { "Why is a token accepted or rejected?" }
                label for="pasted" { "Token " span.meta { "without Bearer" } }
                textarea #pasted name="token" rows="4" required autocomplete="off"
                    spellcheck="false" autocapitalize="none" {}
                label for="resource" { "Resource " span.meta { "the application that is called" } }
                select #resource name="resource" {
                    @for one in &applications {
                        option value=(one.client_id) selected[one.client_id == selected] {
                            (one.name)
                        }
                    }
                }
                div.actions { button.button type="submit" { "Explain" } }
            }
        }
    }
}

/// Explains a token as a resource server of this application does that has just been started.
async fn examine(
    server: &AuthorizationServer,
    resource: Registration,
    token: &str,
) -> Result<Explanation, ConfigError> {
    let binding = RegisteredApplication::new(server.clone(), resource).binding()?;
    let (resource, refresher) = binding
        .resource_server()?
        .transport(server.transport())
        .clock(Arc::clone(&server.0.clock))
        .allow_loopback_http()
        .build()?;
    let mut refresher = pin!(refresher);
    let keys = async {
        tokio::select! {
            () = resource.wait_for_keys() => {}
            () = &mut refresher => {}
        }
    };
    // Without keys the explanation names the error.
    let _timeout = tokio::time::timeout(TIMEOUT, keys).await;
    Ok(resource.explain(token))
}

fn result(explanation: &Explanation) -> Markup {
    let mut checks: Vec<&Check> = explanation.checks().iter().collect();
    checks.sort_by_key(|check| match check.outcome() {
        CheckOutcome::Failed => 0,
        CheckOutcome::Passed => 1,
        _ => 2,
    });
    html! {
        section.card aria-labelledby="explanation" {
            h2 #explanation { "Explanation" }
            p {
                @match explanation.rejection() {
                    None => { span.badge.good { "Accepted" } }
                    Some(kind) => {
                        span.badge.bad { (kind.status().as_str()) } " Rejected: " code { (kind) }
                    }
                }
            }
            dl.fields {
                @for check in checks {
                    dt { (check.name()) }
                    dd { (row(check)) }
                }
            }
        }
    }
}

fn row(check: &Check) -> Markup {
    let outcome = check.outcome();
    html! {
        span.badge .good[outcome == CheckOutcome::Passed] .bad[outcome == CheckOutcome::Failed] {
            (outcome.as_str())
        }
        @if let Some(found) = check.found() { " " (found) }
        @if let Some(expected) = check.expected() {
            " " span.meta { "expected: " (expected) }
        }
        @if let Some(cure) = check.cure() { p { (cure) } }
    }
}
