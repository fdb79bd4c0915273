//! The page that switches faults on and off, per endpoint.

use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::response::Redirect;
use maud::{Markup, html};

use super::super::faults::{EndpointKind, Fault};
use super::AuthorizationServer;
use super::form::Form;
use super::layout::{ErrorPage, Notice, Tab, page};
use super::session::Session;
use super::text::pluralize;

/// The delay of [`Fault::Latency`].
const LATENCY: Duration = Duration::from_secs(2);

/// Form value, label and fault.
type Choice = (&'static str, &'static str, Option<Fault>);

/// The choices of each endpoint.
const CHOICES: [Choice; 4] = [
    ("none", "None", None),
    ("outage", "Outage", Some(Fault::Outage(None))),
    ("latency", "Latency", Some(Fault::Latency(LATENCY))),
    ("garbage", "Garbage", Some(Fault::Garbage)),
];

/// A choice of the endpoints that authenticate clients.
const INVALID_CLIENT: Choice = (
    "invalid-client",
    "Invalid client",
    Some(Fault::InvalidClient),
);

fn choices(endpoint: EndpointKind) -> impl Iterator<Item = Choice> {
    let authenticates = matches!(endpoint, EndpointKind::Token | EndpointKind::Introspection);
    CHOICES
        .into_iter()
        .chain(authenticates.then_some(INVALID_CLIENT))
}

pub(super) async fn list(
    State(server): State<AuthorizationServer>,
    Extension(session): Extension<Session>,
    notice: Notice,
) -> Markup {
    let body = html! {
        (notice.render())
        div.heading {
            h1 { "Faults" }
            form method="post" action="/faults" {
                (session.field())
                button.button type="submit" name="endpoint" value="all" { "End all faults" }
            }
        }
        p.lead {
            "Inject faults to test clients and resource servers. Outage answers 503, latency "
            "delays responses by " (LATENCY.as_secs()) " s, garbage answers 200 with an HTML "
            "page, and invalid client answers 401. A fault stays active until it is switched off."
        }
        ul.cards {
            @for endpoint in EndpointKind::ALL { (card(&server, &session, endpoint)) }
        }
    };
    page(Some(Tab::Faults), &notice.title("Faults"), &body)
}

fn card(server: &AuthorizationServer, session: &Session, endpoint: EndpointKind) -> Markup {
    let pending = server.0.faults.pending(endpoint);
    let is_choice =
        |fault: &Fault| choices(endpoint).any(|(.., choice)| choice.as_ref() == Some(fault));
    let scripted = pending.as_ref().filter(|fault| !is_choice(fault));
    let id = format!("endpoint-{}", endpoint.name().to_ascii_lowercase());
    html! {
        li.card.fault {
            form method="post" action="/faults" {
                (session.field())
                input type="hidden" name="endpoint" value=(endpoint.name());
                div.heading {
                    h2 id=(id) { (endpoint.name()) }
                    span.meta { (pluralize(server.requests(endpoint), "request")) }
                }
                div.switch role="group" aria-labelledby=(id) {
                    @for (value, label, fault) in choices(endpoint) {
                        button type="submit" name="fault" value=(value) .fault[fault.is_some()]
                            aria-pressed=(if fault == pending { "true" } else { "false" })
                            { (label) }
                    }
                }
                @if let Some(other) = scripted {
                    p.hint { "Scripted elsewhere: " (other.name()) }
                }
            }
        }
    }
}

pub(super) async fn switch(
    State(server): State<AuthorizationServer>,
    form: Form,
) -> Result<Redirect, ErrorPage> {
    if form.field("endpoint") == "all" {
        server.clear_faults();
        return Ok(Notice::redirect("/faults", "cleared"));
    }
    let endpoint = EndpointKind::ALL
        .into_iter()
        .find(|kind| kind.name() == form.field("endpoint"));
    let endpoint = endpoint.ok_or_else(ErrorPage::unknown_action)?;
    let (.., fault) = choices(endpoint)
        .find(|(value, ..)| *value == form.field("fault"))
        .ok_or_else(ErrorPage::unknown_action)?;
    server.0.faults.replace_all(endpoint, fault);
    Ok(Notice::redirect("/faults", "faults"))
}
