//! Authorization server metadata: RFC 8414 and OpenID Connect Discovery.
//!
//! Read by both ends: the resource server looks for `jwks_uri`, the client for
//! `token_endpoint`. `issuer` has to equal the configured one byte for byte
//! ([RFC 8414 §3.3](https://www.rfc-editor.org/rfc/rfc8414#section-3.3)).

use http::{HeaderMap, StatusCode};
use serde::Deserialize;

use crate::clock::UnixTime;
use crate::error::{ConfigError, Error, ErrorKind, Operation};
use crate::oauth::{Endpoint, Issuer};
use crate::transport::{Limits, Transport, get_json};

/// The members of a metadata document that this crate needs.
#[derive(Clone, Debug)]
pub(crate) struct Metadata {
    jwks_uri: Option<String>,
    token_endpoint: Option<String>,
}

impl Metadata {
    /// Where the keys are. Each end looks at its own member only: what is wrong with the other
    /// does not concern it.
    pub(crate) fn jwks_uri(&self, allow_loopback_http: bool) -> Result<Option<Endpoint>, Error> {
        endpoint(self.jwks_uri.as_deref(), allow_loopback_http)
    }

    /// Where tokens are asked for.
    pub(crate) fn token_endpoint(&self, allow_loopback_http: bool) -> Result<Option<Endpoint>, Error> {
        endpoint(self.token_endpoint.as_deref(), allow_loopback_http)
    }
}

fn endpoint(url: Option<&str>, allow_loopback_http: bool) -> Result<Option<Endpoint>, Error> {
    let malformed =
        |error: ConfigError| Error::new(Operation::Discovery, ErrorKind::Malformed).with_source(error);
    let Some(url) = url else { return Ok(None) };
    let endpoint = Endpoint::new(url).map_err(malformed)?;
    endpoint.check_plain_http(allow_loopback_http).map_err(malformed)?;
    Ok(Some(endpoint))
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
        return Err(ConfigError::new("issuer", base.origin(), "must not have a query"));
    }
    let mut candidates = vec![base.join_path("/.well-known/openid-configuration")?];
    let origin = base.origin();
    let path = base.url().path().trim_end_matches('/');
    candidates.push(Endpoint::new(format!("{origin}/.well-known/oauth-authorization-server{path}"))?);
    if !path.is_empty() {
        candidates.push(Endpoint::new(format!("{origin}/.well-known/openid-configuration{path}"))?);
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
    discover_with(&HeaderMap::new(), transport, issuer, allow_loopback_http, now, limits).await
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
    let unusable =
        |error: ConfigError| Error::new(Operation::Discovery, ErrorKind::Configuration).with_source(error);
    let mut first_error: Option<Error> = None;
    for url in candidates(issuer).map_err(unusable)? {
        url.check_plain_http(allow_loopback_http).map_err(unusable)?;
        let answer = get_json(transport, Operation::Discovery, &url, headers.clone(), now, limits).await;
        let error = match answer {
            Ok(answer) => match parse(answer.body(), issuer) {
                Ok(metadata) => return Ok(metadata),
                Err(error) => error.with_url(url.as_str()),
            },
            Err(error) if leads_on(error.kind()) => error,
            Err(error) => return Err(error),
        };
        // A document of another issuer tells more than a 404 elsewhere.
        let telling = error.kind() == ErrorKind::IssuerMismatch;
        if first_error.is_none() || telling {
            first_error = Some(error);
        }
    }
    Err(first_error.unwrap_or_else(|| Error::new(Operation::Discovery, ErrorKind::Malformed)))
}

/// Reads one document and compares its `issuer`.
pub(crate) fn parse(body: &[u8], issuer: &Issuer) -> Result<Metadata, Error> {
    let malformed = || Error::new(Operation::Discovery, ErrorKind::Malformed);
    // RFC 8259 §8.1: all of it, also what is read over.
    let text = std::str::from_utf8(body).map_err(|error| malformed().with_source(error))?;
    let Document { issuer: named, jwks_uri, token_endpoint } =
        serde_json::from_str(text).map_err(|error| malformed().with_source(error))?;
    if named != issuer.as_str() {
        return Err(Error::new(Operation::Discovery, ErrorKind::IssuerMismatch));
    }
    Ok(Metadata { jwks_uri, token_endpoint })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_are_appended_first_and_then_inserted_before_the_path() {
        let urls = |issuer: &str| -> Vec<String> {
            let issuer = Issuer::new(issuer).unwrap();
            candidates(&issuer).unwrap().iter().map(ToString::to_string).collect()
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
        assert_eq!(parse(body, &issuer).unwrap_err().kind(), ErrorKind::IssuerMismatch);
    }

    #[test]
    fn a_plain_http_key_set_is_refused() {
        let issuer = Issuer::new("https://as.example").unwrap();
        for jwks_uri in ["http://as.example/keys", "file:///etc/passwd", "http://127.0.0.1/keys"] {
            let body = format!(r#"{{"issuer":"https://as.example","jwks_uri":"{jwks_uri}"}}"#);
            let metadata = parse(body.as_bytes(), &issuer).unwrap();
            assert_eq!(metadata.jwks_uri(false).unwrap_err().kind(), ErrorKind::Malformed);
            assert!(metadata.token_endpoint(false).unwrap().is_none());
        }
    }
}
