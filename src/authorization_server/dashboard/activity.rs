//! The page of the last requests and their outcomes.

use std::collections::HashMap;

use axum::extract::State;
use maud::{Markup, html};

use super::super::activity::Entry;
use super::super::faults::EndpointKind;
use super::AuthorizationServer;
use super::layout::{Tab, page};
use super::text::{format_age, format_date, format_elapsed};
use crate::clock::UnixTime;

pub(super) async fn list(State(server): State<AuthorizationServer>) -> Markup {
    let now = server.0.clock.now();
    let entries = server.0.activity.entries();
    let names: HashMap<String, String> = {
        let state = server.0.state();
        state
            .applications
            .iter()
            .map(|application| (application.client_id.clone(), application.name.clone()))
            .collect()
    };
    let body = html! {
        div.heading {
            h1 { "Activity" }
            a.button href="/activity" { "Reload" }
        }
        p.lead { "The last requests to the token, keys, discovery and introspection endpoints." }
        @if entries.is_empty() {
            p.empty { "No request has come yet." }
        } @else {
            // Explicit roles, because the narrow layout removes the implicit ones.
            table.activity role="table" {
                caption.unseen { "The last requests, the latest first" }
                thead role="rowgroup" {
                    tr role="row" {
                        @for heading in ["Endpoint", "Outcome", "Application", "Took", "When"] {
                            th role="columnheader" scope="col" { (heading) }
                        }
                    }
                }
                tbody role="rowgroup" {
                    @for entry in &entries { (row(entry, &names, now)) }
                }
            }
        }
    };
    page(Some(Tab::Activity), "Activity", &body)
}

fn row(entry: &Entry, names: &HashMap<String, String>, now: UnixTime) -> Markup {
    let who = entry
        .client_id
        .as_ref()
        .map(|id| names.get(id).unwrap_or(id));
    html! {
        tr role="row" {
            td.endpoint role="cell" { (entry.endpoint.name()) }
            td.outcome role="cell" { (outcome(entry)) }
            td.who .none[who.is_none()] role="cell" { (who.map_or("–", String::as_str)) }
            td.took role="cell" { (format_elapsed(entry.duration)) }
            td.when role="cell" title=(format_date(entry.at)) { (format_age(entry.at, now)) }
        }
    }
}

fn outcome(entry: &Entry) -> Markup {
    let text = match (entry.status, entry.error) {
        (None, _) => "the caller left before an answer",
        (Some(_), Some(error)) => error,
        (Some(status), None) if status == http::StatusCode::NOT_MODIFIED => "not modified",
        (Some(status), None) if status.is_success() => match entry.endpoint {
            _ if entry.fault.is_some_and(|fault| fault != "latency") => "altered",
            EndpointKind::Token => "token issued",
            _ => "answered",
        },
        (Some(status), None) => status.canonical_reason().unwrap_or("refused"),
    };
    let good = entry.status.is_some_and(|status| status.as_u16() < 400) && text != "altered";
    let status = entry.status.as_ref().map_or("–", http::StatusCode::as_str);
    html! {
        span.badge .good[good] .bad[!good] { (status) }
        " " (text)
        @if let Some(fault) = entry.fault { " " span.badge.warn { "fault: " (fault) } }
    }
}
