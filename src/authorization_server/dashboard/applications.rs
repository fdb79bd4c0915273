//! The page of registered applications with their credentials, and the form that adds one.

use axum::Extension;
use axum::extract::State;
use axum::response::{IntoResponse, Redirect, Response};
use http::StatusCode;
use maud::{Markup, html};
use secrecy::ExposeSecret;
use serde::Serialize;

use super::super::Version;
use super::super::applications::Registration;
use super::form::{Field, Form};
use super::layout::{
    ErrorPage, Notice, Tab, field_error, hidden_listing, hidden_value, page, value,
};
use super::session::Session;
use super::text::{error_sentence, pluralize};
use super::{AuthorizationServer, Inner};

/// The members of the example response in App ID's documentation, in its order.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Credentials<'a> {
    client_id: &'a str,
    tenant_id: &'a str,
    secret: &'a str,
    name: &'a str,
    #[serde(rename = "oAuthServerUrl")]
    oauth_server_url: &'a str,
}

pub(super) async fn list(State(server): State<AuthorizationServer>, notice: Notice) -> Markup {
    let applications = server.0.state().applications.clone();
    let body = html! {
        (notice.render())
        div.heading {
            h1 { "Applications" }
            a.button.primary href="/applications/new" { "Add Application" }
        }
        @if applications.is_empty() {
            p.empty { "No application is registered yet. Add one to get credentials." }
        }
        @for application in &applications { (row(&server.0, application)) }
    };
    page(Some(Tab::Application), &notice.title("Applications"), &body)
}

/// A row that expands to the credentials.
fn row(server: &Inner, application: &Registration) -> Markup {
    let id = &application.client_id;
    let url = server.oauth_url(Version::V4);
    let credentials = Credentials {
        client_id: id,
        tenant_id: &server.tenant_id,
        secret: application.secret.expose_secret(),
        name: &application.name,
        oauth_server_url: &url,
    };
    let json = serde_json::to_string_pretty(&credentials).unwrap_or_default();
    let element = |member: &str| format!("{member}-{id}");
    html! {
        details.row id=(element("application")) {
            summary {
                span.name { (application.name) }
                span.meta {
                    (pluralize(application.scopes.len(), "scope"))
                    " · "
                    (pluralize(application.role_ids.len(), "role"))
                }
            }
            div.inside {
                dl.fields {
                    dt { "clientId" }
                    dd { (value(&element("clientId"), "clientId", id)) }
                    dt { "tenantId" }
                    dd { (value(&element("tenantId"), "tenantId", &server.tenant_id)) }
                    dt { "secret" }
                    dd { (hidden_value(&element("secret"), "secret", credentials.secret)) }
                    dt { "name" }
                    dd { (value(&element("name"), "name", &application.name)) }
                    dt { "oAuthServerUrl" }
                    dd { (value(&element("oAuthServerUrl"), "oAuthServerUrl", &url)) }
                }
                (hidden_listing(&element("json"), "As JSON", "secret", &json))
                div.actions {
                    a.button href=(format!("/try/{id}")) {
                        "Try it" span.unseen { ": " (application.name) }
                    }
                    a.button href=(format!("/applications/{id}")) {
                        "Edit" span.unseen { " " (application.name) }
                    }
                }
            }
        }
    }
}

pub(super) async fn new(Extension(session): Extension<Session>) -> Markup {
    new_application_page(&session, "", None)
}

pub(super) async fn add(
    State(server): State<AuthorizationServer>,
    Extension(session): Extension<Session>,
    form: Form,
) -> Result<Response, ErrorPage> {
    let name = form.field("name");
    match server.0.update(|state| state.register(name)) {
        Ok(added) => {
            // The fragment is its row in the list.
            let to = format!("/?done=added#application-{}", added.client_id);
            Ok(Redirect::to(&to).into_response())
        }
        Err(error) => {
            // The form has a single field.
            Field::from_error(&error)?;
            let page = new_application_page(&session, name, Some(&error_sentence(&error)));
            Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response())
        }
    }
}

/// The field for a name. Without `maxlength`, which counts UTF-16 code units, not characters.
pub(super) fn name_field(value: &str, error: Option<&str>) -> Markup {
    html! {
        label for="name" { "Name" }
        p.hint #name-hint { "1 to 50 characters" }
        input #name type="text" name="name" value=(value) autocomplete="off" required
            aria-describedby="name-hint name-error" aria-invalid=[error.map(|_| "true")]
            // Focus scrolls an invalid field into view on long pages.
            autofocus[error.is_some()];
        (field_error("name-error", error))
    }
}

fn new_application_page(session: &Session, name: &str, error: Option<&str>) -> Markup {
    let body = html! {
        h1 { "Add Application" }
        form.card method="post" action="/applications/new" {
            (session.field())
            (name_field(name, error))
            div.actions {
                button.button.primary type="submit" { "Save" }
                a.button href="/" { "Cancel" }
            }
        }
    };
    page(
        Some(Tab::Application),
        if error.is_some() {
            "Error: Add Application"
        } else {
            "Add Application"
        },
        &body,
    )
}
