//! The page of what authenticates an application in place of its secret: keys, and trusted issuers.

use axum::Extension;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use maud::{Markup, html};

use super::super::applications::Registration;
use super::super::assertion_settings::{
    AssertionSettings, ExpectedAudience, FederatedCredential, JwkSet,
};
use super::application::find;
use super::form::{Field, Form, RejectedForm, action_form, submit_button};
use super::layout::{ErrorPage, Notice, Tab, field_error, page};
use super::session::Session;
use super::text::pluralize;
use super::{AuthorizationServer, Inner};
use crate::error::ConfigError;

/// The path of the page.
pub(super) fn path(application: &Registration) -> String {
    format!("/applications/{}/assertions", application.client_id)
}

/// What is registered, in a few words.
pub(super) fn summary(application: &Registration) -> String {
    let AssertionSettings {
        jwks,
        federated_credentials,
        ..
    } = &application.assertions;
    let keys = jwks.as_ref().map_or(0, |jwks| jwks.keys().len());
    format!(
        "{}, {}",
        pluralize(keys, "key"),
        pluralize(federated_credentials.len(), "trusted issuer")
    )
}

pub(super) async fn show(
    State(server): State<AuthorizationServer>,
    Extension(session): Extension<Session>,
    Path(client_id): Path<String>,
    notice: Notice,
) -> Result<Markup, ErrorPage> {
    let application = find(&server.0, &client_id)?;
    let rejected = RejectedForm::default();
    Ok(render(&session, &application, notice, &rejected))
}

/// Handles all forms of the page; the field `action` selects one.
pub(super) async fn handle_form(
    State(server): State<AuthorizationServer>,
    Extension(session): Extension<Session>,
    Path(client_id): Path<String>,
    form: Form,
) -> Result<Response, ErrorPage> {
    let application = find(&server.0, &client_id)?;
    let changed = match form.field("action") {
        "jwks" => set_jwks(&server.0, &application, &form).map(|()| "jwks"),
        "federated" => add_credential(&server.0, &application, &form).map(|()| "federated"),
        "unfederated" => remove_credential(&server.0, &application, &form).map(|()| "unfederated"),
        "audience" => {
            let audience =
                audience(form.field("audience")).ok_or_else(ErrorPage::unknown_action)?;
            update(&server.0, &application, |assertions| {
                assertions.audience = audience;
            })
            .map(|()| "audience")
        }
        _ => return Err(ErrorPage::unknown_action()),
    };
    Ok(match changed {
        Ok(done) => Notice::redirect(&path(&application), done).into_response(),
        Err(error) => {
            let rejected = RejectedForm::new(&form, &error)?;
            let page = render(&session, &application, Notice::default(), &rejected);
            (StatusCode::UNPROCESSABLE_ENTITY, page).into_response()
        }
    })
}

const AUDIENCES: [(&str, &str, ExpectedAudience); 2] = [
    ("issuer", "The issuer", ExpectedAudience::Issuer),
    (
        "token_endpoint",
        "The token endpoint",
        ExpectedAudience::TokenEndpoint,
    ),
];

fn audience(value: &str) -> Option<ExpectedAudience> {
    let found = AUDIENCES.iter().find(|(name, ..)| *name == value);
    found.map(|(.., audience)| *audience)
}

/// A deleted application is not an error here: the page after the redirect reports it.
fn update(
    server: &Inner,
    application: &Registration,
    change: impl FnOnce(&mut AssertionSettings),
) -> Result<(), ConfigError> {
    server
        .update(|state| state.update_assertions(&application.client_id, change))
        .map(drop)
}

fn set_jwks(server: &Inner, application: &Registration, form: &Form) -> Result<(), ConfigError> {
    let jwks = match form.field("jwks") {
        "" => None,
        text => Some(JwkSet::parse(text)?),
    };
    update(server, application, |assertions| assertions.jwks = jwks)
}

fn add_credential(
    server: &Inner,
    application: &Registration,
    form: &Form,
) -> Result<(), ConfigError> {
    let credential = FederatedCredential {
        issuer: form.field("issuer").to_owned(),
        subject: form.field("subject").to_owned(),
        jwks: JwkSet::parse(form.field("issuer_jwks"))?,
    };
    update(server, application, |assertions| {
        assertions.federated_credentials.push(credential);
    })
}

fn remove_credential(
    server: &Inner,
    application: &Registration,
    form: &Form,
) -> Result<(), ConfigError> {
    update(server, application, |assertions| {
        assertions.federated_credentials.retain(|credential| {
            credential.issuer != form.field("issuer") || credential.subject != form.field("subject")
        });
    })
}

fn render(
    session: &Session,
    application: &Registration,
    notice: Notice,
    rejected: &RejectedForm<'_>,
) -> Markup {
    let path = path(application);
    let form = |action: &str, content: Markup| action_form(session, &path, action, &content);
    let AssertionSettings {
        jwks,
        federated_credentials,
        audience,
    } = &application.assertions;
    let saved = jwks.as_ref().map(pretty_printed).unwrap_or_default();
    let text_field = |id: &str, label: &str, name: &str, field: Field| {
        let error_id = format!("{id}-error");
        let error = rejected.error("federated", field);
        html! {
            label for=(id) { (label) }
            input id=(id) type="text" name=(name) autocomplete="off" spellcheck="false"
                autocapitalize="none" required value=(rejected.value("federated", name, ""))
                aria-describedby=(error_id) aria-invalid=[error.map(|_| "true")]
                autofocus[error.is_some()];
            (field_error(&error_id, error))
        }
    };
    let jwks_field = |id: &str, label: &str, name: &str, action: &str, hint: &str, text: &str| {
        let (hint_id, error_id) = (format!("{id}-hint"), format!("{id}-error"));
        let error = rejected.error(action, Field::Jwks);
        html! {
            label for=(id) { (label) }
            p.hint id=(hint_id) { (hint) }
            textarea id=(id) name=(name) rows="8" spellcheck="false" autocapitalize="none"
                aria-describedby=(format!("{hint_id} {error_id}"))
                aria-invalid=[error.map(|_| "true")] autofocus[error.is_some()] { (text) }
            (field_error(&error_id, error))
        }
    };
    let body = html! {
        (notice.render())
        p.back {
            a href=(format!("/applications/{}", application.client_id)) { (application.name) }
        }
        h1.break { "Client authentication of " (application.name) }
        p.lead {
            "An assertion is a signed JWT that takes the place of the secret. The secret stays "
            "valid as well."
        }
        section.card {
            h2 { "Keys of the application" }
            @if let Some(jwks) = jwks { (key_list(jwks)) }
            (form("jwks", html! {
                (jwks_field(
                    "jwks",
                    "JWK Set",
                    "jwks",
                    "jwks",
                    "Public keys, for private_key_jwt and the jwt-bearer grant. Empty for none.",
                    rejected.value("jwks", "jwks", &saved),
                ))
                (submit_button("Save keys"))
            }))
        }
        section.card {
            h2 { "Trusted issuers" }
            @if federated_credentials.is_empty() {
                p.hint {
                    "None. With the issuer and the subject of a token that a platform issues, such "
                    "as Kubernetes, that token authenticates the application."
                }
            }
            @for credential in federated_credentials {
                (form("unfederated", html! {
                    dl.fields {
                        dt { "issuer" }
                        dd { code { (credential.issuer) } }
                        dt { "subject" }
                        dd { code { (credential.subject) } }
                    }
                    (key_list(&credential.jwks))
                    input type="hidden" name="issuer" value=(credential.issuer);
                    input type="hidden" name="subject" value=(credential.subject);
                    div.actions {
                        button.button.danger type="submit" {
                            "Remove" span.unseen { " " (credential.subject) }
                        }
                    }
                }))
            }
            details open[rejected.has_action("federated")] {
                summary { "Add a trusted issuer" }
                (form("federated", html! {
                    (text_field("issuer", "Issuer (iss)", "issuer", Field::Issuer))
                    (text_field("subject", "Subject (sub)", "subject", Field::Subject))
                    (jwks_field(
                        "issuer-jwks",
                        "JWK Set of the issuer",
                        "issuer_jwks",
                        "federated",
                        "Its public keys. This server does not fetch them.",
                        rejected.value("federated", "issuer_jwks", ""),
                    ))
                    (submit_button("Add trusted issuer"))
                }))
            }
        }
        section.card {
            (form("audience", html! {
                label for="audience" { "Audience (aud) of assertions" }
                select #audience name="audience" {
                    @for (value, label, choice) in AUDIENCES {
                        option value=(value) selected[choice == *audience] { (label) }
                    }
                }
                (submit_button("Save audience"))
            }))
        }
    };
    let name = format!("Client authentication of {}", application.name);
    let title = rejected.title(&name, notice);
    page(Some(Tab::Application), &title, &body)
}

fn pretty_printed(jwks: &JwkSet) -> String {
    serde_json::to_string_pretty(jwks.document()).unwrap_or_default()
}

/// The keys of a set, each with its algorithms.
fn key_list(jwks: &JwkSet) -> Markup {
    html! {
        ul {
            @for (kid, algorithms) in jwks.summary() {
                li {
                    @if kid.is_empty() { "without kid" } @else { code { (kid) } }
                    " " span.meta { (algorithms) }
                }
            }
        }
    }
}
