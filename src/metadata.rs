//! Authorization server metadata: RFC 8414 and OpenID Connect Discovery.
//!
//! Read by both ends: the resource server looks for `jwks_uri`, the client for
//! `token_endpoint`. `issuer` has to equal the configured one byte for byte
//! ([RFC 8414 §3.3](https://www.rfc-editor.org/rfc/rfc8414#section-3.3)). What the document of an
//! `https` issuer names is `https`: only an issuer that is plain `http` on loopback can name plain
//! `http` on loopback, where that is allowed.

use http::{HeaderMap, StatusCode};
use serde::Deserialize;

use crate::clock::UnixTime;
use crate::error::{ConfigError, Error, ErrorKind, Operation, shown};
use crate::oauth::{Endpoint, Issuer};
use crate::transport::{Limits, Transport, get_json};

/// The members of a metadata document that this crate needs.
#[derive(Clone, Debug)]
pub(crate) struct Metadata {
    /// Whether the issuer is plain `http`, on loopback.
    is_plain_http: bool,
    jwks_uri: Option<String>,
    token_endpoint: Option<String>,
}

impl Metadata {
    /// Where the keys are. Each end looks at its own member only: what is wrong with the other
    /// does not concern it.
    pub(crate) fn jwks_uri(&self, allow_loopback_http: bool) -> Result<Endpoint, Error> {
        self.endpoint("jwks_uri", self.jwks_uri.as_deref(), allow_loopback_http)
    }

    /// Where tokens are asked for.
    pub(crate) fn token_endpoint(&self, allow_loopback_http: bool) -> Result<Endpoint, Error> {
        self.endpoint(
            "token_endpoint",
            self.token_endpoint.as_deref(),
            allow_loopback_http,
        )
    }

    fn endpoint(
        &self,
        name: &str,
        url: Option<&str>,
        allow_loopback_http: bool,
    ) -> Result<Endpoint, Error> {
        let malformed = || Error::new(Operation::Discovery, ErrorKind::Malformed);
        let url =
            url.ok_or_else(|| malformed().with_detail(format!("the metadata has no `{name}`")))?;
        let unusable = |error: ConfigError| malformed().with_source(error.for_setting(name));
        let endpoint = Endpoint::new(url).map_err(unusable)?;
        if endpoint.is_plain_http() && !self.is_plain_http {
            let reason = "must be https, because the issuer is";
            return Err(unusable(ConfigError::new(name, endpoint.origin(), reason)));
        }
        endpoint
            .check_plain_http(allow_loopback_http)
            .map_err(unusable)?;
        Ok(endpoint)
    }
}

/// Whether an answer means that the document is not here: it may be in the next place. A server
/// that is in trouble is not asked again in another place.
fn leads_on(kind: ErrorKind) -> bool {
    match kind {
        ErrorKind::Status(status) => {
            let in_trouble = status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error();
            !in_trouble || status == StatusCode::NOT_IMPLEMENTED
        }
        // Some page, as large as pages are.
        ErrorKind::TooLarge => true,
        _ => false,
    }
}

#[derive(Deserialize)]
struct Document {
    issuer: String,
    jwks_uri: Option<String>,
    token_endpoint: Option<String>,
}

/// Where the metadata of `issuer` may be, in the order in which they are tried.
///
/// The first is where OpenID Connect puts it and most issuers serve it; the others follow
/// [RFC 8414 §3.1](https://www.rfc-editor.org/rfc/rfc8414#section-3.1), between host and path.
pub(crate) fn candidates(issuer: &Issuer) -> Result<Vec<Endpoint>, ConfigError> {
    let base = Endpoint::new(issuer.as_str()).map_err(|error| error.for_setting("issuer"))?;
    if base.url().query().is_some() {
        return Err(ConfigError::new(
            "issuer",
            base.origin(),
            "must not have a query",
        ));
    }
    let mut candidates = vec![base.join_path("/.well-known/openid-configuration")?];
    let origin = base.origin();
    let path = base.url().path().trim_end_matches('/');
    candidates.push(Endpoint::new(format!(
        "{origin}/.well-known/oauth-authorization-server{path}"
    ))?);
    if !path.is_empty() {
        candidates.push(Endpoint::new(format!(
            "{origin}/.well-known/openid-configuration{path}"
        ))?);
    }
    Ok(candidates)
}

/// Reads the metadata of `issuer`.
///
/// A candidate that answers with something else than this issuer's document leads to the next
/// one; a server that does not answer at all is not asked again in another place.
pub(crate) async fn discover(
    transport: &dyn Transport,
    issuer: &Issuer,
    allow_loopback_http: bool,
    now: UnixTime,
    limits: Limits,
) -> Result<Metadata, Error> {
    discover_with(
        &HeaderMap::new(),
        transport,
        issuer,
        allow_loopback_http,
        now,
        limits,
    )
    .await
}

/// The same, with header fields for each request.
pub(crate) async fn discover_with(
    headers: &HeaderMap,
    transport: &dyn Transport,
    issuer: &Issuer,
    allow_loopback_http: bool,
    now: UnixTime,
    limits: Limits,
) -> Result<Metadata, Error> {
    let unusable = |error: ConfigError| {
        Error::new(Operation::Discovery, ErrorKind::Configuration).with_source(error)
    };
    let mut first_error: Option<Error> = None;
    for url in candidates(issuer).map_err(unusable)? {
        url.check_plain_http(allow_loopback_http)
            .map_err(unusable)?;
        let answer = get_json(
            transport,
            Operation::Discovery,
            &url,
            headers.clone(),
            now,
            limits,
        )
        .await;
        let error = match answer {
            Ok(answer) => match parse(answer.body(), issuer) {
                Ok(metadata) => return Ok(metadata),
                Err(error) => error.with_url(url.as_str()),
            },
            Err(error) if leads_on(error.kind()) => error,
            Err(error) => return Err(error),
        };
        if first_error
            .as_ref()
            .is_none_or(|first| rank(&error) > rank(first))
        {
            first_error = Some(error);
        }
    }
    Err(first_error.unwrap_or_else(|| Error::new(Operation::Discovery, ErrorKind::Malformed)))
}

/// Which of the errors of several places is the error of all: a document of another issuer says
/// more than a page that is no document, and that more than a 404. So the error is a 404 only if
/// each place answered 404.
fn rank(error: &Error) -> u8 {
    match error.kind() {
        ErrorKind::IssuerMismatch => 2,
        ErrorKind::Status(StatusCode::NOT_FOUND) => 0,
        _ => 1,
    }
}

/// Whether the issuer publishes no metadata: each place answered 404.
pub(crate) fn is_not_found(error: &Error) -> bool {
    error.kind() == ErrorKind::Status(StatusCode::NOT_FOUND)
}

/// Reads one document and compares its `issuer`.
pub(crate) fn parse(body: &[u8], issuer: &Issuer) -> Result<Metadata, Error> {
    let malformed = || Error::new(Operation::Discovery, ErrorKind::Malformed);
    // RFC 8259 §8.1: all of it, also what is read over.
    let text = std::str::from_utf8(body).map_err(|error| malformed().with_source(error))?;
    let Document {
        issuer: named,
        jwks_uri,
        token_endpoint,
    } = serde_json::from_str(text).map_err(|error| malformed().with_source(error))?;
    if named != issuer.as_str() {
        let detail = format!(
            "expected \"{issuer}\", found \"{}\"",
            shown(&without_secrets(&named))
        );
        return Err(Error::new(Operation::Discovery, ErrorKind::IssuerMismatch).with_detail(detail));
    }
    let is_plain_http = Endpoint::new(issuer.as_str()).is_ok_and(|issuer| issuer.is_plain_http());
    Ok(Metadata {
        is_plain_http,
        jwks_uri,
        token_endpoint,
    })
}

/// The issuer that a document names, without user information and query: neither belongs into an
/// issuer identifier (RFC 8414 §2), and either may be a secret.
fn without_secrets(named: &str) -> String {
    let (named, query) = match named.split_once('?') {
        Some((named, _)) => (named, "?…"),
        None => (named, ""),
    };
    let Some((scheme, rest)) = named.split_once("://") else {
        return format!("{named}{query}");
    };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = authority.rsplit('@').next().unwrap_or_default();
    format!("{scheme}://{host}{path}{query}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_are_appended_first_and_then_inserted_before_the_path() {
        let urls = |issuer: &str| -> Vec<String> {
            let issuer = Issuer::new(issuer).unwrap();
            candidates(&issuer)
                .unwrap()
                .iter()
                .map(ToString::to_string)
                .collect()
        };
        assert_eq!(
            urls("https://as.example/tenant/"),
            [
                "https://as.example/tenant/.well-known/openid-configuration",
                "https://as.example/.well-known/oauth-authorization-server/tenant",
                "https://as.example/.well-known/openid-configuration/tenant",
            ]
        );
        assert_eq!(
            urls("https://as.example"),
            [
                "https://as.example/.well-known/openid-configuration",
                "https://as.example/.well-known/oauth-authorization-server",
            ]
        );
    }

    #[test]
    fn a_document_of_another_issuer_is_refused() {
        let issuer = Issuer::new("https://as.example").unwrap();
        let body = br#"{"issuer":"https://as.example/","jwks_uri":"https://as.example/keys"}"#;
        let error = parse(body, &issuer).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::IssuerMismatch);
        let both = r#"expected "https://as.example", found "https://as.example/""#;
        assert!(error.to_string().ends_with(both), "{error}");
    }

    #[test]
    fn neither_user_information_nor_query_of_a_named_issuer_is_shown() {
        for (named, shown) in [
            ("https://user:secret@as.example/t", "https://as.example/t"),
            ("https://user@x:secret@as.example", "https://as.example"),
            ("https://as.example/a@b?secret", "https://as.example/a@b?…"),
            ("https://as.example?key=a/b@c", "https://as.example?…"),
            ("as.example", "as.example"),
        ] {
            assert_eq!(without_secrets(named), shown);
        }
    }

    #[test]
    fn a_plain_http_key_set_is_refused() {
        let issuer = Issuer::new("https://as.example").unwrap();
        for jwks_uri in [
            "http://as.example/keys",
            "file:///etc/passwd",
            "http://127.0.0.1/keys",
        ] {
            let body = format!(r#"{{"issuer":"https://as.example","jwks_uri":"{jwks_uri}"}}"#);
            let metadata = parse(body.as_bytes(), &issuer).unwrap();
            for allow_loopback_http in [false, true] {
                let error = metadata.jwks_uri(allow_loopback_http).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Malformed);
            }
            let missing = metadata.token_endpoint(false).unwrap_err();
            assert!(
                missing.to_string().contains("no `token_endpoint`"),
                "{missing}"
            );
        }
    }
}
