//! The page of published keys, current and retired.

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
            "Published at " code { (server.jwks_uri()) }
            ". After a rotation the old key stays published until its last token has expired."
        }
        ul.cards {
            @for key in &server.keys() { (card(key, &session, now)) }
        }
    };
    page(Some(Tab::Keys), &notice.title("Keys"), &body)
}

pub(super) async fn handle_form(
    State(server): State<AuthorizationServer>,
    form: Form,
) -> Result<Redirect, ErrorPage> {
    // RSA key generation is slow and must not block the runtime.
    let changed = tokio::task::spawn_blocking(move || match form.field("action") {
        "rotate" => server.rotate().map(|_| "rotated"),
        "withdraw" => server
            .withdraw(form.field("kid"))
            .map(|existed| if existed { "withdrawn" } else { "gone" }),
        _ => Ok("unknown"),
    });
    match changed
        .await
        .map_err(|_| ErrorPage::internal_error("The key could not be generated.".to_owned()))?
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
                            span title=(format_date(until)) {
                                (format_duration(until.saturating_since(now)))
                            }
                        }
                    }
                }
                dt { "kid" } dd { (value(&id, "kid", key.kid())) }
                dt { "Algorithm" } dd { (key.algorithm().name()) }
                dt { "Created" }
                dd {
                    span title=(format_date(key.created_at())) {
                        (format_age(key.created_at(), now))
                    }
                }
            }
            details {
                summary { "Withdraw" span.unseen { " " (key.kid()) } }
                form method="post" action="/keys" {
                    (session.field())
                    input type="hidden" name="kid" value=(key.kid());
                    p {
                        "Removes the key from the key set, as after its compromise. Resource "
                        "servers reject its tokens once they have refreshed their keys."
                        @if key.is_current() { " A new key is generated first." }
                    }
                    div.actions {
                        button.button.danger type="submit" name="action" value="withdraw" {
                            "Withdraw key"
                        }
                    }
                }
            }
        }
    }
}
