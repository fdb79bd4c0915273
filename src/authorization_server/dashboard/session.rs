//! CSRF protection: every form contains a token that is bound to a cookie.
//!
//! The token is a MAC of the cookie. Cookies are shared by all ports of a host, so another server
//! can plant a cookie, but it cannot compute the token.

use aws_lc_rs::{hmac, rand};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderValue, header};
use maud::{Markup, html};

use super::AuthorizationServer;
use crate::error::{ConfigError, ConfigErrorKind};

/// The form field of the token.
const CSRF_FIELD: &str = "csrf_token";

/// The key of the tokens, generated per process.
#[derive(Debug)]
pub(super) struct CsrfKey(hmac::Key);

impl CsrfKey {
    pub(super) fn new() -> Result<Self, ConfigError> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &rand::SystemRandom::new());
        key.map(Self).map_err(|_| {
            ConfigError::without_value("session key", "could not be generated")
                .with_kind(ConfigErrorKind::Unavailable)
        })
    }
}

/// The session of a browser, from its cookie or new.
#[derive(Clone, Debug)]
pub(super) struct Session {
    token: String,
    tag: hmac::Tag,
}

impl Session {
    /// The hidden field with the token.
    pub(super) fn field(&self) -> Markup {
        html! { input type="hidden" name=(CSRF_FIELD) value=(self.token); }
    }

    /// Whether a form contains the token of this session.
    pub(super) fn has_valid_token(&self, form: &[(String, String)]) -> bool {
        let token = form
            .iter()
            .find(|(name, _)| name == CSRF_FIELD)
            .map(|(_, value)| value);
        let token = token
            .and_then(|token| URL_SAFE_NO_PAD.decode(token).ok())
            .unwrap_or_default();
        aws_lc_rs::constant_time::verify_slices_are_equal(&token, self.tag.as_ref()).is_ok()
    }
}

/// Middleware that adds the [`Session`] to the request and sets a missing cookie.
pub(super) async fn attach_session(
    State(server): State<AuthorizationServer>,
    mut request: Request,
    next: Next,
) -> Response {
    // Cookies are shared by all ports of a host, so the name contains the port.
    let port = server
        .0
        .authority()
        .split_once(':')
        .map_or("0", |(_, port)| port);
    let name = format!("dashboard-{port}");
    let known = session_cookie(request.headers(), &name);
    let id = known.clone().unwrap_or_else(new_id);
    let tag = hmac::sign(&server.0.dashboard.csrf_key.0, id.as_bytes());
    request.extensions_mut().insert(Session {
        token: URL_SAFE_NO_PAD.encode(tag),
        tag,
    });
    let mut response = next.run(request).await;
    // Not `Strict`: a link from another site would arrive without the cookie and get a new one,
    // which would invalidate open forms. The token protects against forms of other sites.
    let cookie = format!("{name}={id}; Path=/; HttpOnly; SameSite=Lax");
    if let (None, Ok(cookie)) = (known, HeaderValue::try_from(cookie)) {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    response
}

fn new_id() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

/// The session id in the cookie, if it has the expected format.
fn session_cookie(headers: &HeaderMap, name: &str) -> Option<String> {
    let fields = headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok());
    let mut pairs = fields
        .flat_map(|field| field.split(';'))
        .filter_map(|pair| pair.trim().split_once('='));
    let (_, id) = pairs.find(|(other, _)| *other == name)?;
    (id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit())).then(|| id.to_owned())
}
