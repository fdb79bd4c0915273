//! Shared parts of the pages: layout, notices, error pages, values with copy buttons.

use axum::extract::FromRequestParts;
use axum::response::{IntoResponse, Redirect, Response};
use http::StatusCode;
use http::request::Parts;
use maud::{DOCTYPE, Markup, html};
use url::form_urlencoded;

use super::AuthorizationServer;

/// The tabs of the dashboard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tab {
    Application,
    TryToken,
    Keys,
    Activity,
    Faults,
}

impl Tab {
    /// Path and label. "Application" is the label in App ID's documentation.
    const ALL: [(Self, &str, &str); 5] = [
        (Self::Application, "/", "Application"),
        (Self::TryToken, "/try", "Try it"),
        (Self::Keys, "/keys", "Keys"),
        (Self::Activity, "/activity", "Activity"),
        (Self::Faults, "/faults", "Faults"),
    ];
}

/// A complete page.
pub(super) fn page(tab: Option<Tab>, title: &str, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · Development authorization server" }
                link rel="icon" href="/dashboard/icon.svg" type="image/svg+xml";
                link rel="stylesheet" href="/dashboard/style.css";
                script src="/dashboard/script.js" defer {}
            }
            body {
                a.skip href="#main" { "Skip to the content" }
                header.top {
                    div.width {
                        a.brand href="/" {
                            img src="/dashboard/icon.svg" alt="" width="28" height="28";
                            span { "tower-oauth " small { "development authorization server" } }
                        }
                        nav aria-label="Dashboard" {
                            ul {
                                @for (one, path, label) in Tab::ALL {
                                    @let current = (tab == Some(one)).then_some("page");
                                    li { a href=(path) aria-current=[current] { (label) } }
                                }
                            }
                        }
                    }
                }
                main.width #main tabindex="-1" { (body) }
                // Screen readers announce changes only in a live region that exists already.
                p.unseen #status role="status" {}
                footer.width {
                    "For development and tests only: everyone who can reach this port can read "
                    "the secrets."
                }
            }
        }
    }
}

/// The result of the previous form, selected by the query parameter `done`.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Notice(Option<&'static str>);

const NOTICES: [(&str, &str); 17] = [
    (
        "added",
        "The application was added. Select it to see its credentials.",
    ),
    ("deleted", "The application was deleted."),
    ("renamed", "The name was saved."),
    ("scopes", "The scopes were saved."),
    ("roles", "The roles were saved."),
    ("role-added", "The role was added and assigned."),
    ("role-deleted", "The role was deleted."),
    ("role-gone", "There was no such role any more."),
    ("jwks", "The keys were saved."),
    ("federated", "The federated credential was added."),
    ("unfederated", "The federated credential was removed."),
    ("audience", "The audience was saved."),
    ("rotated", "Tokens are signed with a new key from now on."),
    ("withdrawn", "The key was withdrawn."),
    ("gone", "There was no such key any more."),
    ("faults", "The fault was changed."),
    ("cleared", "All faults were ended."),
];

impl Notice {
    /// Redirects to a page with a notice (303, so that a reload does not repeat the form).
    pub(super) fn redirect(path: &str, key: &str) -> Redirect {
        debug_assert!(
            NOTICES.iter().any(|(known, _)| *known == key),
            "no notice for {key}"
        );
        Redirect::to(&format!("{path}?done={key}"))
    }

    /// The page title, preceded by the notice, because screen readers read the title first.
    pub(super) fn title(self, page_title: &str) -> String {
        match self.0 {
            Some(text) => format!("{text} {page_title}"),
            None => page_title.to_owned(),
        }
    }

    pub(super) fn render(self) -> Markup {
        html! { @if let Some(text) = self.0 { p.notice role="status" { (text) } } }
    }
}

impl FromRequestParts<AuthorizationServer> for Notice {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(
        parts: &mut Parts,
        _: &AuthorizationServer,
    ) -> Result<Self, Self::Rejection> {
        let query = parts.uri.query().unwrap_or_default();
        let key = form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "done");
        let known = key.and_then(|(_, key)| NOTICES.iter().find(|(known, _)| *known == key));
        Ok(Self(known.map(|(_, text)| *text)))
    }
}

/// A page that reports an error.
#[derive(Debug)]
pub(super) struct ErrorPage {
    status: StatusCode,
    title: &'static str,
    text: String,
}

impl ErrorPage {
    pub(super) fn not_found() -> Self {
        Self {
            status: StatusCode::NOT_FOUND,
            title: "Not found",
            text: "This application does not exist, or it was deleted.".to_owned(),
        }
    }

    pub(super) fn invalid_csrf_token() -> Self {
        let text = "The form was not sent from this dashboard, or the server was restarted in \
                    between. Go back, reload the page, and send it again.";
        Self {
            status: StatusCode::FORBIDDEN,
            title: "Form refused",
            text: text.to_owned(),
        }
    }

    pub(super) fn misdirected(base_url: &str) -> Self {
        Self {
            status: StatusCode::MISDIRECTED_REQUEST,
            title: "Wrong address",
            text: format!("Open this dashboard at {base_url}."),
        }
    }

    pub(super) fn too_large() -> Self {
        Self {
            status: StatusCode::PAYLOAD_TOO_LARGE,
            title: "Too large",
            text: "The form is too large.".to_owned(),
        }
    }

    pub(super) fn unknown_action() -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            title: "Form refused",
            text: "The form contains an unknown action.".to_owned(),
        }
    }

    pub(super) fn limit_reached(text: String) -> Self {
        Self {
            status: StatusCode::CONFLICT,
            title: "Limit reached",
            text,
        }
    }

    pub(super) fn internal_error(text: String) -> Self {
        Self {
            status: StatusCode::INTERNAL_SERVER_ERROR,
            title: "Internal error",
            text,
        }
    }
}

impl IntoResponse for ErrorPage {
    fn into_response(self) -> Response {
        let body = html! {
            h1 { (self.title) }
            p { (self.text) }
            p { a.button href="/" { "To the applications" } }
        };
        (self.status, page(None, self.title, &body)).into_response()
    }
}

/// A button that copies the text of an element; hidden without scripts.
pub(super) fn copy_button(id: &str, what: &str) -> Markup {
    html! {
        button.button.copy type="button" data-copy=(id) hidden {
            "Copy" span.unseen { " " (what) }
        }
    }
}

/// A value with a copy button.
pub(super) fn value(id: &str, what: &str, text: &str) -> Markup {
    html! { span.value { code #(id) { (text) } (copy_button(id, what)) } }
}

/// A value that is hidden until it is revealed.
pub(super) fn hidden_value(id: &str, what: &str, text: &str) -> Markup {
    html! {
        span.value {
            details.reveal {
                summary { span.show { "Show" } span.hide { "Hide" } span.unseen { " " (what) } }
                code #(id) { (text) }
            }
            (copy_button(id, what))
        }
    }
}

/// Preformatted text with a heading and a copy button.
pub(super) fn listing(id: &str, title: &str, text: &str) -> Markup {
    html! {
        div.listing {
            div.bar { h3 { (title) } (copy_button(id, title)) }
            (lines(id, title, text))
        }
    }
}

/// Like [`listing`], hidden until it is revealed because it contains a secret.
pub(super) fn hidden_listing(id: &str, title: &str, contains: &str, text: &str) -> Markup {
    html! {
        div.listing {
            div.bar { h3 { (title) } (copy_button(id, title)) }
            details {
                summary { "Show" span.unseen { " " (title) } ", including the " (contains) }
                (lines(id, title, text))
            }
        }
    }
}

fn lines(id: &str, title: &str, text: &str) -> Markup {
    html! { pre tabindex="0" role="region" aria-label=(title) { code #(id) { (text) } } }
}

/// The error of a field; the field's `aria-describedby` contains `id`.
pub(super) fn field_error(id: &str, error: Option<&str>) -> Markup {
    html! { @if let Some(error) = error { p.error id=(id) role="alert" { (error) } } }
}
