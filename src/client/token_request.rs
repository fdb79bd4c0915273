//! The token request of the client credentials grant, and the parser of its response.
//!
//! [RFC 6749 §4.4](https://www.rfc-editor.org/rfc/rfc6749#section-4.4), §5.1 and §5.2. Does no I/O.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use serde_json::Value;
use url::form_urlencoded;

use super::{AccessToken, ClientCredentials};
use crate::clock::UnixTime;
use crate::error::{ConfigError, ConfigErrorKind, Error, ErrorKind, OAuthError, Operation};
use crate::oauth::{Audience, Endpoint, Scope};
use crate::redact::Secrets;
use crate::token_response::TokenResponse;
use crate::transport::retry_after;

/// Values of extension parameters with at least this many bytes are treated as secrets.
const MIN_SECRET_LENGTH: usize = 8;

/// Parameters that have a dedicated method, or that the grant type determines.
const RESERVED_PARAMETERS: [&str; 6] = [
    "audience",
    "client_id",
    "client_secret",
    "grant_type",
    "resource",
    "scope",
];

/// The parameters of a token request.
#[derive(Clone)]
pub(super) struct TokenRequest {
    pub(super) credentials: ClientCredentials,
    pub(super) scopes: Vec<Scope>,
    pub(super) audience: Option<Audience>,
    pub(super) resources: Vec<String>,
    parameters: Vec<(String, String)>,
}

/// A token that the server issued.
#[derive(Debug)]
pub(super) struct IssuedToken {
    pub(super) token: AccessToken,
    /// `None` if the server did not send `expires_in`.
    pub(super) lifetime: Option<Duration>,
}

impl TokenRequest {
    pub(super) fn new(credentials: ClientCredentials) -> Self {
        Self {
            credentials,
            scopes: Vec::new(),
            audience: None,
            resources: Vec::new(),
            parameters: Vec::new(),
        }
    }

    pub(super) fn add_parameter(&mut self, name: String, value: String) {
        self.parameters.push((name, value));
    }

    /// The secrets that no error may quote.
    pub(super) fn secrets(&self) -> Secrets {
        let mut secrets = Secrets::default();
        self.credentials.add_to(&mut secrets);
        for (_, value) in &self.parameters {
            // It may be an assertion or a password. Shorter values are flags and numbers.
            if value.len() >= MIN_SECRET_LENGTH {
                secrets.add(value);
            }
        }
        secrets
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        self.credentials.check()?;
        for (name, _) in &self.parameters {
            // RFC 6749 §3.2: a parameter must not be included more than once.
            let is_repeated = self
                .parameters
                .iter()
                .filter(|(other, _)| other == name)
                .count()
                > 1;
            if name.is_empty() || is_repeated || RESERVED_PARAMETERS.contains(&name.as_str()) {
                let reason = "must not be empty, repeated, or a parameter that has \
                              its own builder method";
                let error = ConfigError::new("parameter", name, reason);
                return Err(if name.is_empty() {
                    error
                } else {
                    error.with_kind(ConfigErrorKind::Conflict)
                });
            }
        }
        for resource in &self.resources {
            // RFC 8707 §2: an absolute URI without a fragment.
            let is_absolute = url::Url::parse(resource).is_ok();
            if !is_absolute || resource.contains('#') {
                return Err(ConfigError::new(
                    "resource",
                    resource,
                    "must be an absolute URI without a fragment",
                ));
            }
        }
        Ok(())
    }

    /// The token request (RFC 6749 §4.4.2).
    pub(super) fn to_http(&self, endpoint: &Endpoint) -> Result<Request<Bytes>, ConfigError> {
        let Self {
            credentials,
            scopes,
            audience,
            resources,
            parameters,
        } = self;
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("grant_type", "client_credentials");
        credentials.append_to(&mut form);
        if !scopes.is_empty() {
            let scopes: Vec<&str> = scopes.iter().map(Scope::as_str).collect();
            form.append_pair("scope", &scopes.join(" "));
        }
        if let Some(audience) = audience {
            form.append_pair("audience", audience.as_str());
        }
        for resource in resources {
            form.append_pair("resource", resource);
        }
        for (name, value) in parameters {
            form.append_pair(name, value);
        }
        let mut request = Request::new(Bytes::from(form.finish()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = endpoint.to_uri()?;
        let headers = request.headers_mut();
        let form = http::HeaderValue::from_static("application/x-www-form-urlencoded");
        headers.insert(header::CONTENT_TYPE, form);
        headers.insert(
            header::ACCEPT,
            http::HeaderValue::from_static("application/json"),
        );
        if let Some(authorization) = credentials.authorization() {
            headers.insert(header::AUTHORIZATION, authorization);
        }
        Ok(request)
    }
}

impl fmt::Debug for TokenRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self
            .parameters
            .iter()
            .map(|(name, _)| name.as_str())
            .collect();
        f.debug_struct("TokenRequest")
            .field("credentials", &self.credentials)
            .field("scopes", &self.scopes)
            .field("audience", &self.audience)
            .field("resources", &self.resources)
            .field("parameters", &names)
            .finish()
    }
}

/// The error in a response (RFC 6749 §5.2, or App ID's `error_code`), without `secrets` and the
/// tokens in the response.
fn oauth_error(body: &[u8], secrets: impl FnOnce() -> Secrets) -> Option<OAuthError> {
    let response: Value = serde_json::from_slice(body).ok()?;
    // Read one by one: a member of the wrong type must not hide the others.
    let text = |name: &str| response.get(name).and_then(Value::as_str);
    let code = text("error").or_else(|| text("error_code"))?;
    let mut secrets = secrets();
    secrets.add_members(&response);
    Some(OAuthError::new(code, text("error_description"), &secrets))
}

/// Parses the response to a token request that was sent at `sent_at`; `secrets` are those of the
/// client.
pub(super) fn parse_response(
    response: &Response<Bytes>,
    sent_at: UnixTime,
    endpoint: &Endpoint,
    secrets: impl FnOnce() -> Secrets,
) -> Result<IssuedToken, Error> {
    let failed = |kind| Error::new(Operation::TokenRequest, kind).with_url(endpoint.as_str());
    let status = response.status();
    // Checked before the status: some servers send errors with status 200.
    let oauth = oauth_error(response.body(), secrets);
    if status != StatusCode::OK || oauth.is_some() {
        let is_refused = oauth.is_some() && !is_transient(status);
        let kind = if is_refused {
            ErrorKind::Refused
        } else {
            ErrorKind::Status(status)
        };
        return Err(failed(kind).with_response(
            status,
            oauth,
            retry_after(response.headers(), sent_at),
        ));
    }
    let malformed = |reason| {
        failed(ErrorKind::Malformed)
            .with_response(status, None, None)
            .with_detail(reason)
    };
    let TokenResponse {
        access_token,
        lifetime,
        scope,
    } = TokenResponse::parse(response.body()).map_err(malformed)?;
    let expires_at = lifetime.map(|lifetime| sent_at.saturating_add(lifetime));
    let scopes = scope.map(|scope| {
        scope
            .split_ascii_whitespace()
            .filter_map(|one| Scope::new(one).ok())
            .collect()
    });
    let token = AccessToken::new(access_token, expires_at, scopes)
        .ok_or_else(|| malformed("`access_token` is not a valid header value"))?;
    Ok(IssuedToken { token, lifetime })
}

/// Whether a retry may succeed.
pub(super) fn is_transient(status: StatusCode) -> bool {
    status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SENT: UnixTime = UnixTime::from_secs(1_700_000_000);

    fn response(status: u16, body: &str) -> Result<IssuedToken, Error> {
        let endpoint = Endpoint::new("https://as.example/token").unwrap();
        let mut response = Response::new(Bytes::copy_from_slice(body.as_bytes()));
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        parse_response(&response, SENT, &endpoint, Secrets::default)
    }

    fn lifetime_of(expires_in: &str) -> Option<Option<u64>> {
        let body =
            format!(r#"{{"access_token":"t","token_type":"bearer","expires_in":{expires_in}}}"#);
        response(200, &body)
            .ok()
            .map(|issued| issued.lifetime.map(|lifetime| lifetime.as_secs()))
    }

    #[test]
    fn expires_in_is_a_number_or_a_numeric_string() {
        assert_eq!(lifetime_of("3600"), Some(Some(3600)));
        assert_eq!(lifetime_of(r#""3600""#), Some(Some(3600)));
        assert_eq!(lifetime_of("3599.9"), Some(Some(3599)));
        assert_eq!(lifetime_of("null"), Some(None));
        assert_eq!(lifetime_of("1e300"), Some(Some(86_400)));
        assert_eq!(lifetime_of("18446744073709551616"), Some(Some(86_400)));
        for bad in [
            "0",
            "-1",
            "0.5",
            "-1e300",
            r#""soon""#,
            r#""""#,
            r#""NaN""#,
            "true",
            "[]",
        ] {
            assert_eq!(lifetime_of(bad), None, "{bad}");
        }
    }

    #[test]
    fn only_bearer_tokens_of_visible_ascii_are_accepted() {
        for good in [
            r#"{"access_token":"a.b-c~/+=","token_type":"Bearer"}"#,
            r#"{"access_token":"t","token_type":"BEARER","refresh_token":"r","scope":"a b"}"#,
        ] {
            response(200, good).expect(good);
        }
        for bad in [
            r#"{"access_token":"t","token_type":"mac"}"#,
            r#"{"access_token":"t","token_type":"DPoP"}"#,
            r#"{"access_token":"t"}"#,
            r#"{"access_token":"","token_type":"Bearer"}"#,
            r#"{"access_token":"a b","token_type":"Bearer"}"#,
            r#"{"access_token":"a\r\nb","token_type":"Bearer"}"#,
            r#"{"access_token":"é","token_type":"Bearer"}"#,
            r#"{"access_token":null,"token_type":"Bearer"}"#,
            r#"{"token_type":"Bearer"}"#,
            "<html>",
            "",
            "null",
        ] {
            assert_eq!(
                response(200, bad).unwrap_err().kind(),
                ErrorKind::Malformed,
                "{bad}"
            );
        }
    }

    #[test]
    fn oauth_errors_are_reported_with_any_status() {
        for (status, body) in [
            (
                400,
                r#"{"error":"invalid_scope","error_description":"no such scope"}"#,
            ),
            (
                400,
                r#"{"error":"invalid_scope","error_code":21324,"error_description":"no such scope"}"#,
            ),
            (
                401,
                r#"{"error_code":"invalid_scope","error_description":"no such scope"}"#,
            ),
            (
                200,
                r#"{"error":"invalid_scope","error_description":"no such scope","access_token":"t","token_type":"Bearer"}"#,
            ),
        ] {
            let error = response(status, body).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Refused, "{body}");
            let oauth = error.oauth_error().unwrap();
            assert_eq!(
                (oauth.code(), oauth.description()),
                ("invalid_scope", Some("no such scope"))
            );
            assert!(error.to_string().contains("invalid_scope"), "{error}");
        }
        let limited = response(429, r#"{"error_code":"too many requests"}"#).unwrap_err();
        assert_eq!(
            limited.kind(),
            ErrorKind::Status(StatusCode::TOO_MANY_REQUESTS)
        );
        assert_eq!(limited.oauth_error().unwrap().code(), "too many requests");
    }

    #[test]
    fn responses_without_an_oauth_error_are_status_errors() {
        for status in [201, 204, 301, 302, 307, 308, 404, 500] {
            let kind = response(status, "<html>").unwrap_err().kind();
            assert_eq!(
                kind,
                ErrorKind::Status(StatusCode::from_u16(status).unwrap())
            );
        }
    }

    #[test]
    fn errors_do_not_quote_the_response() {
        let error = response(200, r#"{"access_token":"s3cr3t","token_type":"mac"}"#).unwrap_err();
        assert!(!format!("{error:?} {error}").contains("s3cr3t"));
    }

    #[test]
    fn reserved_parameters_and_relative_resources_are_invalid() {
        let token_request = || TokenRequest::new(ClientCredentials::new("a", "s"));
        for name in RESERVED_PARAMETERS.into_iter().chain([""]) {
            let mut token_request = token_request();
            token_request.add_parameter(name.to_owned(), "x".to_owned());
            assert!(token_request.check().is_err(), "{name}");
        }
        for resource in ["orders", "/orders", "https://orders.example/#x"] {
            let token_request = TokenRequest {
                resources: vec![resource.to_owned()],
                ..token_request()
            };
            assert!(token_request.check().is_err(), "{resource}");
        }
    }
}
