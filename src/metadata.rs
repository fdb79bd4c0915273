//! Authorization server metadata: RFC 8414 and OpenID Connect Discovery.
//!
//! The resource server uses `jwks_uri`, the client `token_endpoint`, or that of
//! `mtls_endpoint_aliases`; neither looks at the members of the other. `issuer` must equal the
//! configured issuer byte for byte
//! ([RFC 8414 §3.3](https://www.rfc-editor.org/rfc/rfc8414#section-3.3)).
//!
//! The URLs in the document of an `https` issuer must be `https`: only an issuer with plain `http`
//! may name plain `http` URLs, where plain `http` is allowed.

use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::clock::UnixTime;
use crate::error::{ConfigError, Error, ErrorKind, Operation, escape_and_truncate};
use crate::oauth::{Endpoint, Issuer, IssuerDifference, PlainHttp};
use crate::transport::{HttpClient, Limits, describe_document};

/// The members of a metadata document that this crate uses.
#[derive(Clone, Debug)]
pub(crate) struct Metadata {
    issuer: Issuer,
    jwks_uri: Member,
    token_endpoint: Member,
    /// The token endpoint of `mtls_endpoint_aliases`.
    mtls_token_endpoint: Member,
}

/// A member of the document. It is validated when it is used.
#[derive(Clone, Debug)]
enum Member {
    /// Missing, `null`, or empty.
    Absent,
    Text(String),
    /// With the name of the type.
    Other(&'static str),
}

impl From<Option<&RawValue>> for Member {
    fn from(value: Option<&RawValue>) -> Self {
        let Some(json) = value.map(RawValue::get) else {
            return Self::Absent;
        };
        if let Ok(text) = serde_json::from_str::<String>(json) {
            return match &*text {
                "" => Self::Absent,
                _ => Self::Text(text),
            };
        }
        match json.bytes().next() {
            Some(b'n') => Self::Absent,
            Some(b'"') => Self::Other("an unreadable string"),
            Some(b't' | b'f') => Self::Other("a boolean"),
            Some(b'[') => Self::Other("an array"),
            Some(b'{') => Self::Other("an object"),
            _ => Self::Other("a number"),
        }
    }
}

impl Member {
    /// The text of the member with this name.
    fn text(&self, name: &str) -> Result<&str, Error> {
        let detail = match self {
            Self::Text(text) => return Ok(text),
            Self::Absent => format!("the metadata has no `{name}`"),
            Self::Other(found) => format!("`{name}` is {found}, expected a string"),
        };
        Err(malformed().with_detail(detail))
    }
}

fn malformed() -> Error {
    Error::new(Operation::Discovery, ErrorKind::Malformed)
}

impl Metadata {
    /// The URL of the key set. Members that are not used are not validated.
    pub(crate) fn jwks_uri(&self, plain_http: &PlainHttp) -> Result<Endpoint, Error> {
        self.endpoint("jwks_uri", &self.jwks_uri, plain_http)
    }

    /// The URL of the token endpoint.
    pub(crate) fn token_endpoint(&self, plain_http: &PlainHttp) -> Result<Endpoint, Error> {
        self.endpoint("token_endpoint", &self.token_endpoint, plain_http)
    }

    /// The URL of the token endpoint for a client with a certificate: that of
    /// `mtls_endpoint_aliases`, if the metadata have it
    /// ([RFC 8705 §5](https://www.rfc-editor.org/rfc/rfc8705#section-5)).
    pub(crate) fn mtls_token_endpoint(&self, plain_http: &PlainHttp) -> Result<Endpoint, Error> {
        match &self.mtls_token_endpoint {
            Member::Absent => self.token_endpoint(plain_http),
            alias => self.endpoint(MTLS_TOKEN_ENDPOINT, alias, plain_http),
        }
    }

    fn endpoint(
        &self,
        name: &str,
        url: &Member,
        plain_http: &PlainHttp,
    ) -> Result<Endpoint, Error> {
        let url = url.text(name)?.trim();
        let unusable = |error: ConfigError| malformed().with_source(error.with_setting(name));
        let endpoint = Endpoint::new(url).map_err(unusable)?;
        Endpoint::new(self.issuer.as_str())
            .and_then(|issuer| plain_http.check_named_by(&issuer, &endpoint))
            .map_err(unusable)?;
        Ok(endpoint)
    }
}

/// The name of the alias in errors.
const MTLS_TOKEN_ENDPOINT: &str = "mtls_endpoint_aliases.token_endpoint";

/// The token endpoint in the value of `mtls_endpoint_aliases`.
fn mtls_token_endpoint(aliases: Option<&RawValue>) -> Member {
    let json = aliases.map(RawValue::get);
    let Some(json) = json.filter(|json| !["null", r#""""#].contains(json)) else {
        return Member::Absent;
    };
    // A parser accepts an array as well.
    let aliases = json.starts_with('{').then(|| serde_json::from_str(json));
    match aliases {
        Some(Ok(Aliases { token_endpoint })) => token_endpoint.into(),
        _ => Member::Other("in a value that is not a valid object"),
    }
}

/// Whether the next well-known location is tried after this error. Not if the server is overloaded
/// or fails.
fn try_next_location(kind: ErrorKind) -> bool {
    match kind {
        ErrorKind::Status(status) => {
            let is_failing = status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error();
            !is_failing || status == StatusCode::NOT_IMPLEMENTED
        }
        // An HTML page, which may be large.
        ErrorKind::TooLarge => true,
        _ => false,
    }
}

/// The members as they are in the document: a value that is not used is not parsed.
#[derive(Deserialize)]
struct Document<'a> {
    #[serde(borrow)]
    issuer: Option<&'a RawValue>,
    #[serde(borrow)]
    jwks_uri: Option<&'a RawValue>,
    #[serde(borrow)]
    token_endpoint: Option<&'a RawValue>,
    #[serde(borrow)]
    mtls_endpoint_aliases: Option<&'a RawValue>,
}

/// The members of `mtls_endpoint_aliases`.
#[derive(Deserialize)]
struct Aliases<'a> {
    #[serde(borrow)]
    token_endpoint: Option<&'a RawValue>,
}

/// The well-known URLs of the metadata of `issuer`, in the order in which they are tried.
///
/// The first is that of OpenID Connect Discovery, which most issuers serve. The others insert the
/// well-known path between host and path
/// ([RFC 8414 §3.1](https://www.rfc-editor.org/rfc/rfc8414#section-3.1)).
pub(crate) fn well_known_urls(issuer: &Issuer) -> Result<Vec<Endpoint>, ConfigError> {
    let base = Endpoint::new(issuer.as_str()).map_err(|error| error.with_setting("issuer"))?;
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

/// Fetches the metadata of `issuer`.
///
/// Tries the next location if a location does not serve this issuer's document. Stops at the first
/// server that does not respond.
pub(crate) async fn discover(
    http_client: &HttpClient,
    issuer: &Issuer,
    now: UnixTime,
    limits: Limits,
) -> Result<Metadata, Error> {
    discover_with_headers(&HeaderMap::new(), http_client, issuer, now, limits).await
}

/// Like [`discover`], with header fields for each request.
pub(crate) async fn discover_with_headers(
    headers: &HeaderMap,
    http_client: &HttpClient,
    issuer: &Issuer,
    now: UnixTime,
    limits: Limits,
) -> Result<Metadata, Error> {
    let unusable = |error: ConfigError| {
        Error::new(Operation::Discovery, ErrorKind::Configuration).with_source(error)
    };
    let mut first_error: Option<Error> = None;
    let urls = well_known_urls(issuer).map_err(unusable)?;
    for url in &urls {
        let response = http_client
            .get_json(Operation::Discovery, url, headers.clone(), now, limits)
            .await;
        let error = match response {
            Ok(response) => match parse(response.body(), issuer) {
                Ok(metadata) => return Ok(metadata),
                Err(error) => describe_document(error, &response).with_url(url.as_str()),
            },
            Err(error) if try_next_location(error.kind()) => error,
            Err(error) => return Err(error),
        };
        if first_error
            .as_ref()
            .is_none_or(|first| rank(&error) > rank(first))
        {
            first_error = Some(error);
        }
    }
    let error =
        first_error.unwrap_or_else(|| Error::new(Operation::Discovery, ErrorKind::Malformed));
    Err(if is_not_found(&error) {
        let others: Vec<&str> = urls.iter().skip(1).map(Endpoint::as_str).collect();
        error.with_detail(format!(
            "nor is it at {}: check the issuer",
            others.join(" and ")
        ))
    } else {
        error
    })
}

/// Ranks the errors of several locations; the highest is reported. A document of another issuer
/// ranks above an unusable document, and that above a 404. So the reported error is a 404 only if
/// each location responded with 404.
fn rank(error: &Error) -> u8 {
    match error.kind() {
        ErrorKind::IssuerMismatch => 2,
        ErrorKind::Status(StatusCode::NOT_FOUND) => 0,
        _ => 1,
    }
}

/// Whether the issuer publishes no metadata: each location responded with 404.
pub(crate) fn is_not_found(error: &Error) -> bool {
    error.kind() == ErrorKind::Status(StatusCode::NOT_FOUND)
}

/// The text of a document, if it may be a JSON object.
pub(crate) fn document_text(body: &[u8], operation: Operation) -> Result<&str, Error> {
    let malformed = || Error::new(operation, ErrorKind::Malformed);
    // RFC 8259 §8.1: the whole document must be UTF-8, ignored members included. A parser may
    // ignore a byte order mark.
    let text = std::str::from_utf8(body).map_err(|error| malformed().with_source(error))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.trim_start().starts_with('{') {
        Ok(text)
    } else {
        Err(malformed().with_detail("expected a JSON object"))
    }
}

/// Parses a document and compares its `issuer`.
pub(crate) fn parse(body: &[u8], issuer: &Issuer) -> Result<Metadata, Error> {
    let text = document_text(body, Operation::Discovery)?;
    let document: Document<'_> =
        serde_json::from_str(text).map_err(|error| malformed().with_source(error))?;
    let named = Member::from(document.issuer);
    let named = named.text("issuer")?;
    if named != issuer.as_str() {
        let error = Error::new(Operation::Discovery, ErrorKind::IssuerMismatch)
            .with_expected(issuer.as_str())
            .with_found(escape_and_truncate(&url_for_display(named)));
        return Err(match IssuerDifference::between(issuer.as_str(), named) {
            Some(difference) => error.with_detail(difference.description()),
            None => error,
        });
    }
    Ok(Metadata {
        issuer: issuer.clone(),
        jwks_uri: document.jwks_uri.into(),
        token_endpoint: document.token_endpoint.into(),
        mtls_token_endpoint: mtls_token_endpoint(document.mtls_endpoint_aliases),
    })
}

/// Removes user information and query from the issuer or resource that a document names. An issuer
/// identifier has neither (RFC 8414 §2), and both may be secrets.
pub(crate) fn url_for_display(named: &str) -> String {
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
    fn the_well_known_path_is_appended_first_and_then_inserted_before_the_path() {
        let urls = |issuer: &str| -> Vec<String> {
            let issuer = Issuer::new(issuer).unwrap();
            well_known_urls(&issuer)
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
    fn a_document_of_another_issuer_is_an_error() {
        let issuer = Issuer::new("https://as.example").unwrap();
        let body = br#"{"issuer":"https://as.example/","jwks_uri":"https://as.example/keys"}"#;
        let error = parse(body, &issuer).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::IssuerMismatch);
        assert_eq!(error.expected(), Some("https://as.example"));
        assert_eq!(error.found(), Some("https://as.example/"));
        let both = r#"expected "https://as.example", found "https://as.example/""#;
        assert!(error.to_string().contains(both), "{error}");
    }

    #[test]
    fn the_only_difference_between_two_issuers_is_named_with_what_to_do() {
        let message = |configured: &str, named: &str| {
            let body = serde_json::json!({ "issuer": named }).to_string();
            let error = parse(body.as_bytes(), &Issuer::new(configured).unwrap()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::IssuerMismatch, "{named}");
            error.to_string()
        };
        for (named, difference) in [
            ("https://as.example/", "only the slash at the end differs"),
            ("http://as.example", "only the scheme differs"),
            ("https://as.example\n", "only white space differs"),
        ] {
            let message = message("https://as.example", named);
            assert!(message.contains(difference), "{message}");
        }
        let other = message("https://as.example", "https://other.example");
        assert!(
            other.ends_with("found \"https://other.example\""),
            "{other}"
        );
    }

    #[test]
    fn user_information_and_query_of_a_named_issuer_are_not_shown() {
        for (named, shown) in [
            ("https://user:secret@as.example/t", "https://as.example/t"),
            ("https://user@x:secret@as.example", "https://as.example"),
            ("https://as.example/a@b?secret", "https://as.example/a@b?…"),
            ("https://as.example?key=a/b@c", "https://as.example?…"),
            ("as.example", "as.example"),
        ] {
            assert_eq!(url_for_display(named), shown);
        }
    }

    #[test]
    fn a_plain_http_jwks_uri_of_an_https_issuer_is_an_error() {
        let issuer = Issuer::new("https://as.example").unwrap();
        for jwks_uri in [
            "http://as.example/keys",
            "file:///etc/passwd",
            "http://127.0.0.1/keys",
        ] {
            let body = format!(r#"{{"issuer":"https://as.example","jwks_uri":"{jwks_uri}"}}"#);
            let metadata = parse(body.as_bytes(), &issuer).unwrap();
            for plain_http in [
                PlainHttp::default(),
                PlainHttp::new(true, ["as.example"]).unwrap(),
            ] {
                let error = metadata.jwks_uri(&plain_http).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Malformed);
            }
            let missing = metadata.token_endpoint(&PlainHttp::default()).unwrap_err();
            assert!(
                missing.to_string().contains("no `token_endpoint`"),
                "{missing}"
            );
        }
    }
}
