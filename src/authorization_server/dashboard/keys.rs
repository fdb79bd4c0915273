//! The keys that are published: the one that signs, and those that were retired.

use axum::Extension;
use axum::extract::State;
use axum::response::Redirect;
use maud::{Markup, html};

use super::super::PublishedKey;
use super::AuthorizationServer;
use super::form::Form;
use super::layout::{ErrorPage, Notice, Tab, page, value};
use super::session::Session;
use super::text::{error_sentence, format_age, format_date, format_duration};
use crate::clock::UnixTime;

pub(super) async fn list(
    State(server): State<AuthorizationServer>,
    Extension(session): Extension<Session>,
    notice: Notice,
) -> Markup {
    let now = server.0.clock.now();
    let body = html! {
        (notice.render())
        div.heading {
            h1 { "Keys" }
            form method="post" action="/keys" {
                (session.field())
                button.button.primary type="submit" name="action" value="rotate" { "Rotate" }
            }
        }
        p.lead {
            "Published at " code { (server.jwks_uri()) } ". After a rotation the old key stays published for as long "
            "as tokens that it signed may live."
        }
        ul.cards {
            @for key in &server.keys() { (card(key, &session, now)) }
        }
    };
    page(Some(Tab::Keys), &notice.title("Keys"), &body)
}

pub(super) async fn change(
    State(server): State<AuthorizationServer>,
    form: Form,
) -> Result<Redirect, ErrorPage> {
    // An RSA key takes a while to make: not on a worker of the runtime.
    let changed = tokio::task::spawn_blocking(move || match form.field("action") {
        "rotate" => server.rotate().map(|_| "rotated"),
        "withdraw" => server
            .withdraw(form.field("kid"))
            .map(|existed| if existed { "withdrawn" } else { "gone" }),
        _ => Ok("unknown"),
    });
    match changed
        .await
        .map_err(|_| ErrorPage::internal_error("No key could be made.".to_owned()))?
    {
        Ok("unknown") => Err(ErrorPage::unknown_action()),
        Ok(done) => Ok(Notice::redirect("/keys", done)),
        Err(error) => Err(ErrorPage::internal_error(error_sentence(&error))),
    }
}

fn card(key: &PublishedKey, session: &Session, now: UnixTime) -> Markup {
    let id = format!("kid-{}", key.kid());
    html! {
        li.card.key {
            dl.fields {
                dt { "State" }
                dd {
                    @match key.published_until() {
                        None => { span.badge.good { "Current" } " signs new tokens" },
                        Some(until) => {
                            span.badge { "Retired" } " published for another "
                            span title=(format_date(until)) { (format_duration(until.saturating_since(now))) }
                        }
                    }
                }
                dt { "kid" } dd { (value(&id, "kid", key.kid())) }
                dt { "Algorithm" } dd { (key.algorithm().name()) }
                dt { "Made" } dd { span title=(format_date(key.created_at())) { (format_age(key.created_at(), now)) } }
            }
            details {
                summary { "Withdraw" span.unseen { " " (key.kid()) } }
                form method="post" action="/keys" {
                    (session.field())
                    input type="hidden" name="kid" value=(key.kid());
                    p {
                        "It is published no more, as after its private half was lost: tokens that it signed are refused "
                        "as soon as resource servers have fetched the keys again."
                        @if key.is_current() { " A new key signs from then on." }
                    }
                    div.actions { button.button.danger type="submit" name="action" value="withdraw" { "Withdraw key" } }
                }
            }
        }
    }
}
