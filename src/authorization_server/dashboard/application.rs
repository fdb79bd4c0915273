//! The page of one application: name, scopes, roles, deletion.

use std::collections::HashSet;

use axum::Extension;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use maud::{Markup, html};

use super::super::applications::{Registration, Role};
use super::applications::name_field;
use super::assertions;
use super::form::{Field, Form, RejectedForm, action_form, submit_button};
use super::layout::{ErrorPage, Notice, Tab, field_error, page};
use super::session::Session;
use super::text::pluralize;
use super::{AuthorizationServer, Inner};
use crate::error::ConfigError;

pub(super) async fn show(
    State(server): State<AuthorizationServer>,
    Extension(session): Extension<Session>,
    Path(client_id): Path<String>,
    notice: Notice,
) -> Result<Markup, ErrorPage> {
    let application = find(&server.0, &client_id)?;
    let rejected = RejectedForm::default();
    Ok(render(&server.0, &session, &application, notice, &rejected))
}

/// Handles all forms of the page; the field `action` selects one.
pub(super) async fn handle_form(
    State(server): State<AuthorizationServer>,
    Extension(session): Extension<Session>,
    Path(client_id): Path<String>,
    form: Form,
) -> Result<Response, ErrorPage> {
    let application = find(&server.0, &client_id)?;
    let id = &application.client_id;
    let changed = match form.field("action") {
        "rename" => update_application(&server.0, id, |application| {
            application.set_name(form.field("name"))
        })
        .map(|()| "renamed"),
        "scopes" => update_application(&server.0, id, |application| {
            application.set_scopes(form.list("scopes"))
        })
        .map(|()| "scopes"),
        "roles" => set_roles(&server.0, id, &form).map(|()| "roles"),
        "add-role" => add_role(&server.0, id, &form).map(|()| "role-added"),
        "delete-role" => {
            let deleted = server
                .0
                .update(|state| Ok(state.delete_role(form.field("role"))));
            deleted.map(|existed| if existed { "role-deleted" } else { "role-gone" })
        }
        "delete" => server
            .0
            .update(|state| Ok(state.delete_application(id)))
            .map(|_| "deleted"),
        _ => return Err(ErrorPage::unknown_action()),
    };
    Ok(match changed {
        Ok(done @ "deleted") => Notice::redirect("/", done).into_response(),
        Ok(done) => Notice::redirect(&format!("/applications/{id}"), done).into_response(),
        Err(error) => {
            let rejected = RejectedForm::new(&form, &error)?;
            let page = render(
                &server.0,
                &session,
                &application,
                Notice::default(),
                &rejected,
            );
            (StatusCode::UNPROCESSABLE_ENTITY, page).into_response()
        }
    })
}

/// The application with this id.
pub(super) fn find(server: &Inner, client_id: &str) -> Result<Registration, ErrorPage> {
    server
        .state()
        .application(client_id)
        .cloned()
        .ok_or_else(ErrorPage::not_found)
}

fn set_roles(server: &Inner, id: &str, form: &Form) -> Result<(), ConfigError> {
    let changed = server.update(|state| {
        let ticked: HashSet<&str> = form.all("role").collect();
        let known = state.roles.iter().map(|role| role.id.clone());
        let chosen = known
            .filter(|role| ticked.contains(role.as_str()))
            .collect();
        state.update_application(id, |application| {
            application.role_ids = chosen;
            Ok(())
        })
    });
    changed.map(drop)
}

/// A role with scopes of this application, assigned to it.
fn add_role(server: &Inner, id: &str, form: &Form) -> Result<(), ConfigError> {
    let role = Role {
        id: uuid::Uuid::new_v4().to_string(),
        name: form.field("role_name").to_owned(),
        description: String::new(),
        access: vec![(id.to_owned(), form.list("role_scopes"))],
    };
    server.update(|state| {
        let role = state.add_role(role)?;
        state.update_application(id, |application| {
            application.role_ids.push(role.id);
            Ok(())
        })
    })?;
    Ok(())
}

/// A deleted application is not an error here: the page after the redirect reports it.
fn update_application(
    server: &Inner,
    id: &str,
    update: impl FnOnce(&mut Registration) -> Result<(), ConfigError>,
) -> Result<(), ConfigError> {
    server
        .update(|state| state.update_application(id, update))
        .map(drop)
}

fn render(
    server: &Inner,
    session: &Session,
    application: &Registration,
    notice: Notice,
    rejected: &RejectedForm<'_>,
) -> Markup {
    let invalid = |action: &str, field: Field| rejected.error(action, field).map(|_| "true");
    let path = format!("/applications/{}", application.client_id);
    let form = |action: &str, content: Markup| action_form(session, &path, action, &content);
    let roles = server.state().roles.clone();
    let body = html! {
        (notice.render())
        p.back { a href="/" { "Applications" } }
        h1.break { (application.name) }
        section.card {
            (form("rename", html! {
                (name_field(
                    rejected.value("rename", "name", &application.name),
                    rejected.error("rename", Field::Name),
                ))
                (submit_button("Save name"))
            }))
        }
        section.card {
            (form("scopes", html! {
                label for="scopes" { "Scopes" }
                p.hint #scopes-hint {
                    "One per line. Tokens get all of them and " code { "appid_default" }
                    ", unless the token request names fewer."
                }
                textarea #scopes name="scopes" rows="4" spellcheck="false" autocapitalize="none"
                    aria-describedby="scopes-hint scopes-error"
                    aria-invalid=[invalid("scopes", Field::Scopes)]
                    autofocus[invalid("scopes", Field::Scopes).is_some()]
                    { (rejected.value("scopes", "scopes", &application.scopes.join("\n"))) }
                (field_error("scopes-error", rejected.error("scopes", Field::Scopes)))
                (submit_button("Save scopes"))
            }))
        }
        section.card {
            h2 { "Client authentication" }
            p.hint {
                "By the secret, and by assertions: "
                (assertions::summary(application)) "."
            }
            div.actions {
                a.button href=(assertions::path(application)) { "Edit keys and issuers" }
            }
        }
        section.card {
            h2 { "Roles" }
            @if roles.is_empty() {
                p.hint { "The tenant has no roles yet. A role is a named set of scopes." }
            } @else {
                (form("roles", html! {
                    fieldset {
                        legend.unseen { "Roles of this application" }
                        @for role in &roles { (role_checkbox(role, application)) }
                    }
                    (submit_button("Save roles"))
                }))
            }
            details open[rejected.has_action("add-role")] {
                summary { "Add a role" }
                (form("add-role", html! {
                    label for="role-name" { "Role name" }
                    input #role-name type="text" name="role_name" autocomplete="off" required
                        value=(rejected.value("add-role", "role_name", ""))
                        aria-describedby="role-name-error"
                        aria-invalid=[invalid("add-role", Field::Name)]
                        autofocus[invalid("add-role", Field::Name).is_some()];
                    (field_error("role-name-error", rejected.error("add-role", Field::Name)))
                    label for="role-scopes" { "Scopes of the role" }
                    input #role-scopes type="text" name="role_scopes" autocomplete="off"
                        spellcheck="false" autocapitalize="none"
                        value=(rejected.value("add-role", "role_scopes", ""))
                        aria-describedby="role-scopes-error"
                        aria-invalid=[invalid("add-role", Field::Scopes)]
                        autofocus[invalid("add-role", Field::Scopes).is_some()];
                    (field_error("role-scopes-error", rejected.error("add-role", Field::Scopes)))
                    (submit_button("Add role"))
                }))
            }
            @if !roles.is_empty() {
                details {
                    summary { "Delete a role" }
                    (form("delete-role", html! {
                        label for="role" { "Role to delete, also from other applications" }
                        select #role name="role" {
                            @for role in &roles { option value=(role.id) { (role.name) } }
                        }
                        div.actions { button.button.danger type="submit" { "Delete role" } }
                    }))
                }
            }
        }
        section.card {
            details {
                summary.dangerous { "Delete this application" }
                (form("delete", html! {
                    p { "It gets no new tokens. Issued tokens stay valid until they expire." }
                    div.actions { button.button.danger type="submit" { "Delete application" } }
                }))
            }
        }
    };
    let title = rejected.title(&application.name, notice);
    page(Some(Tab::Application), &title, &body)
}

/// A checkbox that assigns a role.
fn role_checkbox(role: &Role, application: &Registration) -> Markup {
    let id = format!("role-{}", role.id);
    let scopes: Vec<&str> = role
        .access
        .iter()
        .flat_map(|(_, scopes)| scopes)
        .map(String::as_str)
        .collect();
    html! {
        div.choice {
            input id=(id) type="checkbox" name="role" value=(role.id)
                checked[application.role_ids.contains(&role.id)];
            label for=(id) {
                (role.name) " "
                span.meta {
                    (pluralize(scopes.len(), "scope"))
                    @if !scopes.is_empty() { ": " (scopes.join(" ")) }
                }
            }
        }
    }
}
