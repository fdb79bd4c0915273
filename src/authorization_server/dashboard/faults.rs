//! Faults to switch on and off, endpoint by endpoint.

use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::response::Redirect;
use maud::{Markup, html};

use super::super::faults::{EndpointKind, Fault};
use super::AuthorizationServer;
use super::form::Form;
use super::layout::{Done, Problem, Tab, page};
use super::session::Session;
use super::text::count;

/// How much later an answer comes.
const LATENCY: Duration = Duration::from_secs(2);

/// What an endpoint can be switched to.
const CHOICES: [(&str, &str, Option<Fault>); 4] = [
    ("none", "None", None),
    ("outage", "Outage", Some(Fault::Outage(None))),
    ("latency", "Latency", Some(Fault::Latency(LATENCY))),
    ("garbage", "Garbage", Some(Fault::Garbage)),
];

pub(super) async fn list(
    State(server): State<AuthorizationServer>,
    Extension(session): Extension<Session>,
    done: Done,
) -> Markup {
    let body = html! {
        (done.show())
        div.heading {
            h1 { "Faults" }
            form method="post" action="/faults" {
                (session.field())
                button.button type="submit" name="endpoint" value="all" { "End all faults" }
            }
        }
        p.lead {
            "Let this server fail, and see what clients and resource servers do. Outage answers 503, latency answers "
            (LATENCY.as_secs()) " s later, garbage answers 200 with a page of HTML. A fault lasts until it is ended."
        }
        ul.cards {
            @for endpoints in EndpointKind::ALL { (card(&server, &session, endpoints)) }
        }
    };
    page(Some(Tab::Faults), &done.title("Faults"), &body)
}

fn card(server: &AuthorizationServer, session: &Session, endpoints: EndpointKind) -> Markup {
    let now = server.0.faults.next(endpoints);
    let id = format!("endpoint-{}", endpoints.name().to_ascii_lowercase());
    html! {
        li.card.fault {
            form method="post" action="/faults" {
                (session.field())
                input type="hidden" name="endpoint" value=(endpoints.name());
                div.heading {
                    h2 id=(id) { (endpoints.name()) }
                    span.meta { (count(server.requests(endpoints), "request")) }
                }
                div.switch role="group" aria-labelledby=(id) {
                    @for (word, label, fault) in CHOICES {
                        button type="submit" name="fault" value=(word) .fault[fault.is_some()]
                            aria-pressed=(if fault == now { "true" } else { "false" }) { (label) }
                    }
                }
                @if let Some(other) = now.filter(|now| CHOICES.iter().all(|(.., fault)| fault.as_ref() != Some(now))) {
                    p.hint { "Scripted elsewhere: " (other.name()) }
                }
            }
        }
    }
}

pub(super) async fn switch(
    State(server): State<AuthorizationServer>,
    form: Form,
) -> Result<Redirect, Problem> {
    if form.field("endpoint") == "all" {
        server.clear_faults();
        return Ok(Done::at("/faults", "cleared"));
    }
    let endpoints = EndpointKind::ALL
        .into_iter()
        .find(|one| one.name() == form.field("endpoint"));
    let choice = CHOICES
        .into_iter()
        .find(|(word, ..)| *word == form.field("fault"));
    let (Some(endpoints), Some((.., fault))) = (endpoints, choice) else {
        return Err(Problem::unknown_action());
    };
    server.0.faults.replace(endpoints, fault);
    Ok(Done::at("/faults", "faults"))
}
