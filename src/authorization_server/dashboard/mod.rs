//! The dashboard: HTML pages for all functions of the server, at `/`.
//!
//! ```text
//!  Host ──▶ guard ──▶ session ──▶ GET  a page
//!                        └──────▶ POST a form with the session's token ──▶ 303 to the page
//! ```
//!
//! A form that changes nothing, `/explain`, is answered with the page itself.
//!
//! Pages are rendered on the server and work without scripts. There is no login: every process
//! that can reach the loopback port has access, but other web sites must not. [`guard`] rejects
//! host names that were rebound to loopback (DNS rebinding) and forbids framing, inline scripts
//! and caching; [`session`] rejects forms that other sites send (CSRF).

mod activity;
mod application;
mod applications;
mod assertions;
mod commands;
mod explain_token;
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

/// The state of the dashboard.
#[derive(Debug)]
pub(super) struct Dashboard {
    csrf_key: CsrfKey,
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

/// Each page has one path; its forms are posted to the same path.
pub(super) fn router(server: &AuthorizationServer) -> Router<AuthorizationServer> {
    let pages = Router::new()
        .route("/", get(applications::list))
        .route(
            "/applications/new",
            get(applications::new).post(applications::add),
        )
        .route(
            "/applications/{client_id}",
            get(application::show).post(application::handle_form),
        )
        .route(
            "/applications/{client_id}/assertions",
            get(assertions::show).post(assertions::handle_form),
        )
        .route("/try", get(try_token::index).post(try_token::request))
        .route("/try/{client_id}", get(try_token::show))
        .route(
            "/explain",
            get(explain_token::index).post(explain_token::explain),
        )
        .route("/keys", get(keys::list).post(keys::handle_form))
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
