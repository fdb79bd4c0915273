//! The dashboard: a page for each thing that the server does, at `/` of its address.
//!
//! ```text
//!  Host ──▶ guard ──▶ session ──▶ GET  a page
//!                        └──────▶ POST a form with the session's token ──▶ 303 to the page
//! ```
//!
//! Rendered on the server, complete without scripts. It has no login, being for whoever can
//! reach the loopback port; so it has to keep out what a browser lets in there. [`guard`] refuses
//! names that were rebound to loopback and forbids framing, inline scripts, and storing;
//! [`session`] sees to it that a form was sent from one of these pages.

mod activity;
mod application;
mod applications;
mod commands;
mod faults;
mod form;
mod guard;
mod keys;
mod layout;
mod session;
mod text;
mod token_request;
mod try_token;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use axum::routing::get;
use http::header;

use self::session::CsrfKey;
use self::token_request::TokenRequests;
use super::extractor::MAX_BODY;
use super::{AuthorizationServer, Inner};
use crate::error::ConfigError;

/// What the dashboard itself remembers.
#[derive(Debug)]
pub(super) struct Dashboard {
    csrf_key: CsrfKey,
    /// The last tokens that were tried, one for an application.
    token_requests: TokenRequests,
}

impl Dashboard {
    pub(super) fn new() -> Result<Self, ConfigError> {
        Ok(Self {
            csrf_key: CsrfKey::new()?,
            token_requests: TokenRequests::default(),
        })
    }
}

/// Each page has one address; what it changes is posted there.
pub(super) fn router(server: &AuthorizationServer) -> Router<AuthorizationServer> {
    let pages = Router::new()
        .route("/", get(applications::list))
        .route(
            "/applications/new",
            get(applications::new).post(applications::add),
        )
        .route(
            "/applications/{client_id}",
            get(application::show).post(application::change),
        )
        .route("/try", get(try_token::index).post(try_token::request))
        .route("/try/{client_id}", get(try_token::show))
        .route("/keys", get(keys::list).post(keys::change))
        .route("/activity", get(activity::list))
        .route("/faults", get(faults::list).post(faults::switch))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(from_fn_with_state(server.clone(), session::attach_session));
    let asset = |kind: &'static str, text: &'static str| {
        get(async move || ([(header::CONTENT_TYPE, kind)], text))
    };
    pages
        .route(
            "/dashboard/style.css",
            asset("text/css; charset=utf-8", include_str!("style.css")),
        )
        .route(
            "/dashboard/script.js",
            asset("text/javascript; charset=utf-8", include_str!("script.js")),
        )
        .route(
            "/dashboard/icon.svg",
            asset("image/svg+xml", include_str!("icon.svg")),
        )
        .layer(from_fn_with_state(server.clone(), guard::guard))
}
