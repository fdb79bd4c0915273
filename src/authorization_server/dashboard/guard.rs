//! Middleware that checks the host name and adds security headers to every response.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, header};

use super::layout::ErrorPage;
use super::{AuthorizationServer, Inner};

/// Allows only the dashboard's style sheet, script, icon and forms; nothing inline.
const CSP: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

const HEADERS: [(HeaderName, &str); 7] = [
    (header::CONTENT_SECURITY_POLICY, CSP),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        "same-origin",
    ),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
];

pub(super) async fn guard(
    State(server): State<AuthorizationServer>,
    request: Request,
    next: Next,
) -> Response {
    let mut response = if is_allowed_host(&server.0, &request) {
        next.run(request).await
    } else {
        ErrorPage::misdirected(server.base_url()).into_response()
    };
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Whether all host names of the request are this server's.
///
/// Prevents DNS rebinding: a web site that resolves its host name to loopback would have the same
/// origin as the dashboard.
fn is_allowed_host(server: &Inner, request: &Request) -> bool {
    let host_headers = request
        .headers()
        .get_all(header::HOST)
        .iter()
        .map(|host| host.to_str().unwrap_or_default());
    // Present in HTTP/2 and in requests with an absolute target (RFC 9112 §3.2.2).
    let authority = request.uri().authority().map(http::uri::Authority::as_str);
    let mut names = host_headers.chain(authority).peekable();
    names.peek().is_some() && names.all(|name| is_own_name(server, name))
}

fn is_own_name(server: &Inner, name: &str) -> bool {
    // Browsers omit the default port.
    let normalize = |name: &str| {
        name.strip_suffix(":80")
            .unwrap_or(name)
            .to_ascii_lowercase()
    };
    let (name, own) = (normalize(name), normalize(server.authority()));
    let port = own
        .find(':')
        .and_then(|colon| own.get(colon..))
        .unwrap_or_default();
    let is_loopback = |host: &str| name.strip_prefix(host).is_some_and(|rest| rest == port);
    name == own
        || ["127.0.0.1", "localhost", "[::1]"]
            .into_iter()
            .any(is_loopback)
}
