//! The forms of a page: their markup, their extractor, which always validates the CSRF token, and
//! what is shown of a rejected one.

use axum::extract::{FromRequest, Request};
use bytes::Bytes;
use maud::{Markup, html};
use url::form_urlencoded;

use super::super::applications::distinct;
use super::super::assertion_settings::{FEDERATED_CREDENTIALS, ISSUER, JWKS, SUBJECT};
use super::AuthorizationServer;
use super::layout::{ErrorPage, Notice};
use super::session::Session;
use super::text::error_sentence;
use crate::error::ConfigError;

/// A form with a valid CSRF token.
#[derive(Debug)]
pub(super) struct Form(Vec<(String, String)>);

impl Form {
    /// A field, trimmed; empty if absent.
    pub(super) fn field(&self, name: &str) -> &str {
        let first = self.0.iter().find(|(other, _)| other == name);
        first.map(|(_, value)| value.trim()).unwrap_or_default()
    }

    /// All values of a field, such as those of checkboxes.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |(other, _)| other == name)
            .map(|(_, value)| value.trim())
    }

    /// A field as a list that is separated by white space or commas, without duplicates.
    pub(super) fn list(&self, name: &str) -> Vec<String> {
        let members = self
            .field(name)
            .split(|c: char| c.is_whitespace() || c == ',');
        distinct(members.filter(|member| !member.is_empty()))
            .into_iter()
            .map(str::to_owned)
            .collect()
    }
}

/// The fields that can be invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    Name,
    Scopes,
    Jwks,
    Issuer,
    Subject,
}

impl Field {
    /// The field that an error is about. Errors about anything else, such as the state file or a
    /// limit, get a page without the form.
    pub(super) fn from_error(error: &ConfigError) -> Result<Self, ErrorPage> {
        match error.setting() {
            "name" => Ok(Self::Name),
            "scope" | "scopes" => Ok(Self::Scopes),
            JWKS => Ok(Self::Jwks),
            ISSUER => Ok(Self::Issuer),
            SUBJECT => Ok(Self::Subject),
            "applications" | "roles" | FEDERATED_CREDENTIALS => {
                Err(ErrorPage::limit_reached(error_sentence(error)))
            }
            _ => Err(ErrorPage::internal_error(error_sentence(error))),
        }
    }
}

/// The rejected form of a page and its error, if there is one.
#[derive(Default)]
pub(super) struct RejectedForm<'a>(Option<(&'a Form, Field, String)>);

impl<'a> RejectedForm<'a> {
    /// An error that is not about a field is the page of that error.
    pub(super) fn new(form: &'a Form, error: &ConfigError) -> Result<Self, ErrorPage> {
        let field = Field::from_error(error)?;
        Ok(Self(Some((form, field, error_sentence(error)))))
    }

    /// The title of the page, which begins with the error.
    pub(super) fn title(&self, name: &str, notice: Notice) -> String {
        match self.0 {
            Some(_) => format!("Error: {name}"),
            None => notice.title(name),
        }
    }

    /// Whether it is the form with this `action`.
    pub(super) fn has_action(&self, action: &str) -> bool {
        self.with_action(action).is_some()
    }

    /// The error of a field of the form with this `action`.
    pub(super) fn error(&self, action: &str, field: Field) -> Option<&str> {
        self.with_action(action)
            .filter(|(_, rejected, _)| *rejected == field)
            .map(|(.., error)| error.as_str())
    }

    /// What was typed into a field of the form with this `action`, which a rejected form keeps, or
    /// else what is saved.
    pub(super) fn value<'v>(&'v self, action: &str, name: &str, saved: &'v str) -> &'v str {
        self.with_action(action)
            .map_or(saved, |(form, ..)| form.field(name))
    }

    fn with_action(&self, action: &str) -> Option<&(&'a Form, Field, String)> {
        let rejected = self.0.as_ref();
        rejected.filter(|(form, ..)| form.field("action") == action)
    }
}

/// A form that is sent to `path`, with the CSRF token; the field `action` says which one it is.
pub(super) fn action_form(session: &Session, path: &str, action: &str, content: &Markup) -> Markup {
    html! {
        form method="post" action=(path) {
            (session.field())
            input type="hidden" name="action" value=(action);
            (content)
        }
    }
}

pub(super) fn submit_button(label: &str) -> Markup {
    html! { div.actions { button.button.primary type="submit" { (label) } } }
}

impl FromRequest<AuthorizationServer> for Form {
    type Rejection = ErrorPage;

    async fn from_request(
        request: Request,
        server: &AuthorizationServer,
    ) -> Result<Self, ErrorPage> {
        let session = request.extensions().get::<Session>().cloned();
        let body = Bytes::from_request(request, server)
            .await
            .map_err(|_| ErrorPage::too_large())?;
        let form: Vec<(String, String)> = form_urlencoded::parse(&body).into_owned().collect();
        match session.is_some_and(|session| session.has_valid_token(&form)) {
            true => Ok(Self(form)),
            false => Err(ErrorPage::invalid_csrf_token()),
        }
    }
}
