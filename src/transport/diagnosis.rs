//! What a failed fetch most likely means, in words for the operator.
//!
//! For the mistakes of first deployments. The texts have no secret: of a URL they show scheme, host,
//! port and path.

use std::error::Error as StdError;
use std::io::{Error as IoError, ErrorKind as IoErrorKind};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode, header};

use crate::error::{Error, ErrorKind, Operation, escape_and_truncate};
use crate::oauth::Endpoint;

/// The beginning of the error of a name that the system cannot resolve.
const NAME_NOT_RESOLVED: &str = "failed to lookup address information";

/// How much of an error page is searched for a hint.
const PAGE_START: usize = 4096;

/// Host and port of a URL.
pub(super) fn authority(url: &Endpoint) -> String {
    let host = url.url().host_str().unwrap_or_default();
    let port = url.url().port_or_known_default().unwrap_or_default();
    format!("{host}:{port}")
}

/// The first result of `find` for an error and its sources.
pub(super) fn find_in_chain<T>(
    error: &(dyn StdError + 'static),
    find: &dyn Fn(&(dyn StdError + 'static)) -> Option<T>,
) -> Option<T> {
    if let Some(found) = find(error) {
        return Some(found);
    }
    // The `source` of an `io::Error` skips the error that it wraps.
    let wrapped = error.downcast_ref::<IoError>().and_then(IoError::get_ref);
    match wrapped {
        Some(wrapped) => find_in_chain(wrapped, find),
        None => find_in_chain(error.source()?, find),
    }
}

/// Why there is no response from `url`, by the errors of the system and of the HTTP parser.
pub(super) fn describe_connection(
    url: &Endpoint,
    error: &(dyn StdError + 'static),
) -> Option<String> {
    let authority = authority(url);
    find_in_chain(error, &|error| {
        let text = error.to_string();
        if text.starts_with(NAME_NOT_RESOLVED) {
            let host = url.url().host_str().unwrap_or_default();
            return Some(format!("the name {host} cannot be resolved"));
        }
        if text.starts_with("invalid HTTP") && url.is_plain_http() {
            return Some(format!(
                "the response of {authority} is not HTTP: if the port is one for TLS, use https"
            ));
        }
        if text == "connection closed before message completed" {
            return Some(format!("{authority} closed the connection"));
        }
        match error.downcast_ref::<IoError>()?.kind() {
            IoErrorKind::ConnectionRefused => Some(format!(
                "connection refused by {authority}: no server listens there"
            )),
            IoErrorKind::ConnectionReset
            | IoErrorKind::ConnectionAborted
            | IoErrorKind::BrokenPipe
            | IoErrorKind::UnexpectedEof => Some(format!("{authority} closed the connection")),
            IoErrorKind::HostUnreachable | IoErrorKind::NetworkUnreachable => {
                Some(format!("there is no route to {authority}"))
            }
            _ => None,
        }
    })
}

/// What was expected where a time limit has passed.
pub(crate) fn within(limit: Duration) -> String {
    // Tenths, because the limit may be what an earlier request has left of it.
    let tenths = (limit.as_secs_f64() * 10.0).round() / 10.0;
    format!("a response within {tenths} s")
}

/// Where a redirect leads, and that it is not followed.
pub(super) fn describe_redirect(
    operation: Operation,
    url: &Endpoint,
    response: &Response<Bytes>,
) -> Option<String> {
    let status = response.status();
    if !status.is_redirection() || status == StatusCode::NOT_MODIFIED {
        return None;
    }
    let cure = match operation {
        Operation::Discovery => "configure the issuer as its metadata name it",
        Operation::ResourceMetadata => "configure the resource as its metadata name it",
        _ => "configure the URL that it redirects to",
    };
    Some(match redirect_target(url, response.headers()) {
        Some(target) => format!(
            "it redirects to {}, and redirects are not followed: {cure}",
            escape_and_truncate(&target)
        ),
        None => format!("redirects are not followed: {cure}"),
    })
}

/// The target of a redirect of `url`, without user information, query and fragment. Not cut, so
/// that secrets in it can be found.
pub(crate) fn redirect_target(url: &Endpoint, headers: &HeaderMap) -> Option<String> {
    let location = headers.get(header::LOCATION)?.to_str().ok()?;
    let mut target = url.url().join(location).ok()?;
    target.set_query(None);
    target.set_fragment(None);
    // Fails for a URL without a host, which has neither.
    let _ = target.set_username("");
    let _ = target.set_password(None);
    Some(target.into())
}

/// The media type of a response, without its parameters
/// ([RFC 9110 §8.3.1](https://www.rfc-editor.org/rfc/rfc9110#section-8.3.1)).
pub(crate) fn media_type(headers: &HeaderMap) -> Option<&str> {
    let content_type = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    content_type.split(';').next().map(str::trim)
}

/// Whether an error response over plain `http` says that the port is one for TLS, as nginx, Apache
/// and Go do.
pub(super) fn describe_error_page(url: &Endpoint, response: &Response<Bytes>) -> Option<String> {
    if !url.is_plain_http() || response.status() != StatusCode::BAD_REQUEST {
        return None;
    }
    let body = response.body();
    let start = body.get(..PAGE_START).unwrap_or(body);
    let says_tls = start.windows(5).any(|word| word == b"HTTPS")
        || start.windows(3).any(|word| word == b"SSL");
    says_tls.then(|| format!("{} is a port for TLS: use https", authority(url)))
}

/// Adds to the error of a document that could not be parsed that it is not JSON.
pub(crate) fn describe_document(error: Error, response: &Response<Bytes>) -> Error {
    if error.kind() != ErrorKind::Malformed {
        return error;
    }
    let is_markup = response.body().trim_ascii_start().starts_with(b"<");
    match media_type(response.headers()) {
        Some(media_type) if !media_type.to_ascii_lowercase().contains("json") => {
            let media_type = escape_and_truncate(media_type);
            error.with_detail(format!(
                "JSON is expected, and the content type is {media_type}"
            ))
        }
        _ if is_markup => error.with_detail("JSON is expected, and the document is HTML or XML"),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Endpoint {
        Endpoint::new(text).expect(text)
    }

    fn response(status: u16, field: Option<(&'static str, &str)>, body: &str) -> Response<Bytes> {
        let mut response = Response::builder().status(status);
        if let Some((name, value)) = field {
            response = response.header(name, value);
        }
        response
            .body(Bytes::copy_from_slice(body.as_bytes()))
            .unwrap()
    }

    #[test]
    fn a_redirect_is_shown_without_its_query() {
        let keys = url("https://as.example:8443/realms/x/keys");
        for (location, shown) in [
            (
                "https://login.example/keys",
                "to https://login.example/keys, and",
            ),
            ("/auth/keys", "to https://as.example:8443/auth/keys, and"),
            ("keys2", "to https://as.example:8443/realms/x/keys2, and"),
            ("//sso.example:9/keys", "to https://sso.example:9/keys, and"),
            (
                "http://as.example/keys?code=secret#secret",
                "to http://as.example/keys, and",
            ),
            (
                "https://user:secret@as.example/",
                "to https://as.example/, and",
            ),
            ("/a\u{1b}[31m\n", "followed"),
            ("https://[", "redirects are not followed"),
        ] {
            let redirect = Response::builder()
                .status(302)
                .header(header::LOCATION, location.replace('\n', " "))
                .body(Bytes::new());
            let Ok(redirect) = redirect else {
                continue; // not a header value
            };
            let text = describe_redirect(Operation::JwksFetch, &keys, &redirect).unwrap();
            assert!(text.contains(shown), "{location}: {text}");
            assert!(!text.contains("secret"), "{text}");
            assert!(
                text.contains("redirects are not followed: configure the URL"),
                "{text}"
            );
        }
        let long = format!("/{}", "a".repeat(10_000));
        let long = response(301, Some(("location", &long)), "");
        let text = describe_redirect(Operation::Discovery, &keys, &long).unwrap();
        assert!(text.len() < 400, "{text}");
        assert!(
            text.ends_with("configure the issuer as its metadata name it"),
            "{text}"
        );
        for status in [200, 304, 404] {
            let other = response(status, Some(("location", "/keys")), "");
            assert_eq!(describe_redirect(Operation::JwksFetch, &keys, &other), None);
        }
    }

    #[test]
    fn a_document_that_is_not_json_is_described_by_its_content_type() {
        let describe = |content_type: Option<&str>, body| {
            let field = content_type.map(|value| ("content-type", value));
            let error = Error::new(Operation::JwksFetch, ErrorKind::Malformed);
            describe_document(error, &response(200, field, body)).to_string()
        };
        for (content_type, body, shown) in [
            (
                Some("text/html; charset=utf-8"),
                "<html>",
                "the content type is text/html",
            ),
            (Some("text/plain"), "{", "the content type is text/plain"),
            (None, "\n<!doctype html>", "the document is HTML or XML"),
            (
                Some("application/json"),
                "<html>",
                "the document is HTML or XML",
            ),
        ] {
            let text = describe(content_type, body);
            assert!(text.contains(shown), "{text}");
        }
        for content_type in [
            None,
            Some("application/json"),
            Some("application/jwk-set+JSON"),
        ] {
            let text = describe(content_type, "{");
            assert!(text.ends_with("the response could not be parsed"), "{text}");
        }
        let long = format!("text/{}", "x".repeat(10_000));
        assert!(describe(Some(&long), "").len() < 500);
        let other = Error::new(Operation::JwksFetch, ErrorKind::NoUsableKey);
        let html = response(200, Some(("content-type", "text/html")), "");
        let text = describe_document(other, &html).to_string();
        assert!(!text.contains("content type"), "{text}");
    }

    #[test]
    fn a_page_about_tls_on_plain_http_is_recognized() {
        for (page, is_about_tls) in [
            (
                "<center>The plain HTTP request was sent to HTTPS port</center>",
                true,
            ),
            ("Client sent an HTTP request to an HTTPS server.", true),
            (
                "Reason: You're speaking plain HTTP to an SSL-enabled server port.",
                true,
            ),
            ("Bad Request", false),
            ("", false),
        ] {
            let response = response(400, None, page);
            let found = describe_error_page(&url("http://keycloak:8443/keys"), &response);
            assert_eq!(found.is_some(), is_about_tls, "{page}");
            assert_eq!(
                describe_error_page(&url("https://keycloak/"), &response),
                None
            );
        }
    }

    #[test]
    fn errors_of_the_system_name_host_and_port() {
        let keys = url("https://keycloak/keys");
        for (kind, shown) in [
            (
                IoErrorKind::ConnectionRefused,
                "connection refused by keycloak:443",
            ),
            (
                IoErrorKind::ConnectionReset,
                "keycloak:443 closed the connection",
            ),
            (IoErrorKind::HostUnreachable, "no route to keycloak:443"),
        ] {
            // Wrapped, as clients do.
            let error = IoError::other(IoError::from(kind));
            let text = describe_connection(&keys, &error).unwrap();
            assert!(text.contains(shown), "{text}");
        }
        let other = IoError::from(IoErrorKind::OutOfMemory);
        assert_eq!(describe_connection(&keys, &other), None);
        assert_eq!(describe_connection(&keys, &std::fmt::Error), None);
    }

    #[test]
    fn a_limit_is_shown_in_tenths_of_a_second() {
        for (millis, shown) in [(5000, "5 s"), (2940, "2.9 s"), (300, "0.3 s"), (0, "0 s")] {
            let text = within(Duration::from_millis(millis));
            assert_eq!(text, format!("a response within {shown}"));
        }
    }
}
