//! What all pages share: their frame, what was just done, what went wrong, things to copy.

use axum::extract::FromRequestParts;
use axum::response::{IntoResponse, Redirect, Response};
use http::StatusCode;
use http::request::Parts;
use maud::{DOCTYPE, Markup, html};
use url::form_urlencoded;

use super::AuthorizationServer;

/// The parts of the dashboard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tab {
    Application,
    TryToken,
    Keys,
    Activity,
    Faults,
}

impl Tab {
    /// Its address and its name. App ID's guide says "in the Application tab".
    const ALL: [(Self, &str, &str); 5] = [
        (Self::Application, "/", "Application"),
        (Self::TryToken, "/try", "Try it"),
        (Self::Keys, "/keys", "Keys"),
        (Self::Activity, "/activity", "Activity"),
        (Self::Faults, "/faults", "Faults"),
    ];
}

/// A whole page.
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
                                @for (one, address, name) in Tab::ALL {
                                    li { a href=(address) aria-current=[(tab == Some(one)).then_some("page")] { (name) } }
                                }
                            }
                        }
                    }
                }
                main.width #main tabindex="-1" { (body) }
                // Announced is only what comes into a region that was there before.
                p.unseen #status role="status" {}
                footer.width { "For development and tests only: secrets are shown to whoever can reach this port." }
            }
        }
    }
}

/// What the change before this page did: a word in its address, and nothing else of it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Notice(Option<&'static str>);

const NOTICES: [(&str, &str); 13] = [
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
    ("rotated", "Tokens are signed with a new key from now on."),
    ("withdrawn", "The key was withdrawn."),
    ("gone", "There was no such key any more."),
    ("faults", "The fault was switched."),
    ("cleared", "All faults were ended."),
];

impl Notice {
    /// To a page that says what was done (303, so that reloading it does nothing again).
    pub(super) fn redirect(path: &str, key: &str) -> Redirect {
        debug_assert!(
            NOTICES.iter().any(|(known, _)| *known == key),
            "no notice for {key}"
        );
        Redirect::to(&format!("{path}?done={key}"))
    }

    /// The title of the page, with what was done in front: it is the first that is read out.
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

/// A request that has no page of its own to say what is wrong.
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
            text: "There is no such application, or not any more.".to_owned(),
        }
    }

    pub(super) fn invalid_csrf_token() -> Self {
        let text = "The form was not sent from this dashboard, or before the server was started anew. \
                    Go back, reload the page, and send it again.";
        Self {
            status: StatusCode::FORBIDDEN,
            title: "Form refused",
            text: text.to_owned(),
        }
    }

    pub(super) fn misdirected(base_url: &str) -> Self {
        Self {
            status: StatusCode::MISDIRECTED_REQUEST,
            title: "Another address",
            text: format!("This dashboard answers at {base_url} only."),
        }
    }

    pub(super) fn too_large() -> Self {
        Self {
            status: StatusCode::PAYLOAD_TOO_LARGE,
            title: "Too large",
            text: "The form is larger than any of this dashboard.".to_owned(),
        }
    }

    pub(super) fn unknown_action() -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            title: "Form refused",
            text: "The form asks for something that this page does not do.".to_owned(),
        }
    }

    pub(super) fn limit_reached(text: String) -> Self {
        Self {
            status: StatusCode::CONFLICT,
            title: "There is no room",
            text,
        }
    }

    pub(super) fn internal_error(text: String) -> Self {
        Self {
            status: StatusCode::INTERNAL_SERVER_ERROR,
            title: "That did not work",
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

/// A button that copies the text of an element; shown where scripts run.
pub(super) fn copy_button(id: &str, what: &str) -> Markup {
    html! {
        button.button.copy type="button" data-copy=(id) hidden {
            "Copy" span.unseen { " " (what) }
        }
    }
}

/// A value to read and to copy.
pub(super) fn value(id: &str, what: &str, text: &str) -> Markup {
    html! { span.value { code #(id) { (text) } (copy_button(id, what)) } }
}

/// A value that is hidden until it is asked for.
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

/// Lines to read and to copy under a heading.
pub(super) fn listing(id: &str, title: &str, text: &str) -> Markup {
    html! {
        div.listing {
            div.bar { h3 { (title) } (copy_button(id, title)) }
            (lines(id, title, text))
        }
    }
}

/// Lines that hold something secret: hidden until they are asked for, but copied as they are.
pub(super) fn hidden_listing(id: &str, title: &str, contains: &str, text: &str) -> Markup {
    html! {
        div.listing {
            div.bar { h3 { (title) } (copy_button(id, title)) }
            details { summary { "Show" span.unseen { " " (title) } ", with the " (contains) " in it" } (lines(id, title, text)) }
        }
    }
}

fn lines(id: &str, title: &str, text: &str) -> Markup {
    html! { pre tabindex="0" role="region" aria-label=(title) { code #(id) { (text) } } }
}

/// What is wrong with a field, beside it; `aria-describedby` names it.
pub(super) fn field_error(id: &str, error: Option<&str>) -> Markup {
    html! { @if let Some(error) = error { p.error id=(id) role="alert" { (error) } } }
}
