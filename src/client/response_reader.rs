//! Reads the response of a token endpoint: a token, or the error of the request. Does no I/O.
//!
//! [RFC 6749 §5.1](https://www.rfc-editor.org/rfc/rfc6749#section-5.1) and §5.2.

use bytes::Bytes;
use http::{Response, StatusCode};
use serde_json::value::RawValue;

use super::response_members::without_bom;
use super::token_exchange::ExpectedTokenType;
use super::token_response::{InvalidResponse, TokenResponse};
use super::token_source::is_transient_status;
use crate::clock::UnixTime;
use crate::error::{Error, ErrorKind, OAuthError, Operation, escape_and_truncate};
use crate::oauth::Endpoint;
use crate::redact::Secrets;
use crate::transport::{media_type, redirect_target, retry_after};

/// A token request that was sent.
pub(super) struct SentRequest<'r, S> {
    pub(super) endpoint: &'r Endpoint,
    pub(super) sent_at: UnixTime,
    /// Whether a missing or unknown `token_type` is accepted.
    pub(super) assume_bearer: bool,
    /// The `issued_token_type` that the response must have, if it is that to a token exchange.
    pub(super) expected_type: Option<&'r ExpectedTokenType>,
    /// The secrets of the client.
    pub(super) secrets: S,
}

impl<S: Fn() -> Secrets> SentRequest<'_, S> {
    /// Reads the response: the token, or an error that says what was expected and what was found.
    pub(super) fn read(&self, response: &Response<Bytes>) -> Result<TokenResponse, Error> {
        let status = response.status();
        let body = without_bom(response.body());
        let failed = |kind, oauth| {
            Error::new(Operation::TokenRequest, kind)
                .with_url(self.endpoint.as_str())
                .with_response(status, oauth, retry_after(response.headers(), self.sent_at))
        };
        let invalid = if status.is_success() {
            let parsed = TokenResponse::parse(body, self.assume_bearer)
                .and_then(|token| self.check_issued_type(token));
            match parsed {
                Ok(token) => return Ok(token),
                Err(invalid) => Some(invalid),
            }
        } else {
            None
        };
        // Some servers send errors with status 200.
        if let Some(oauth) = OAuthError::from_body(body, &self.secrets) {
            return Err(if is_transient_status(status) {
                failed(ErrorKind::Status(status), Some(oauth))
            } else {
                failed(ErrorKind::Refused, Some(oauth))
            });
        }
        Err(match invalid {
            Some(invalid) => {
                let error = failed(ErrorKind::Malformed, None);
                self.explain_invalid(error, invalid, response)
            }
            None => failed(ErrorKind::Status(status), None)
                .with_detail(self.explain_status(status, response)),
        })
    }

    /// RFC 8693 §2.2.1. A server that ignores the exchange may issue a token of the client itself.
    fn check_issued_type(&self, token: TokenResponse) -> Result<TokenResponse, InvalidResponse> {
        match (self.expected_type, token.issued_token_type()) {
            (None, _) => Ok(token),
            (Some(_), None) => Err(InvalidResponse::NoIssuedTokenType),
            (Some(expected), Some(issued)) if expected.is(issued) => Ok(token),
            (Some(_), Some(issued)) => Err(InvalidResponse::IssuedTokenType(issued.to_owned())),
        }
    }

    /// Adds what a successful response has instead of a token.
    fn explain_invalid(
        &self,
        error: Error,
        invalid: InvalidResponse,
        response: &Response<Bytes>,
    ) -> Error {
        let expected = "expected a JSON object with `access_token`, found";
        match invalid {
            InvalidResponse::NotAnObject => {
                error.with_detail(format!("{expected} {}", self.found(response)))
            }
            InvalidResponse::NoToken("absent") => {
                error.with_detail(format!("{expected} a JSON object without it"))
            }
            InvalidResponse::NoToken(found) => error.with_detail(format!(
                "expected a string as `access_token`, found {found}"
            )),
            InvalidResponse::InvalidToken(reason) => error.with_detail(reason),
            InvalidResponse::HasError => {
                error.with_detail("expected a token, found an `error` that is not a code")
            }
            InvalidResponse::Repeated(name) => {
                error.with_detail(format!("expected `{name}` once, found it twice"))
            }
            InvalidResponse::TokenType(found) => {
                let detail = "that is the `token_type`: `TokenManagerBuilder::assume_bearer` \
                              allows others, and a missing one";
                let found = found.map_or_else(
                    || "no token_type".to_owned(),
                    |found| self.redacted(&found, response),
                );
                error
                    .with_expected("Bearer")
                    .with_found(found)
                    .with_detail(detail)
            }
            InvalidResponse::NoIssuedTokenType => error.with_detail(
                "expected `issued_token_type` (RFC 8693 §2.2.1), found none: the server may have \
                 ignored the exchange, and issued a token of this client",
            ),
            InvalidResponse::IssuedTokenType(found) => {
                let expected = self.expected_type.map(ToString::to_string);
                error
                    .with_expected(expected.unwrap_or_default())
                    .with_found(self.redacted(&found, response))
                    .with_detail(
                        "that is the `issued_token_type`: `requested_token_type` requests another",
                    )
            }
            InvalidResponse::Lifetime(found) => error
                .with_expected("a second or more")
                .with_found(self.redacted(&found, response))
                .with_detail("that is `expires_in`"),
        }
    }

    /// What a response without a token and without an OAuth error has, by its status.
    fn explain_status(&self, status: StatusCode, response: &Response<Bytes>) -> String {
        if status.is_redirection() {
            return match redirect_target(self.endpoint, response.headers()) {
                Some(target) => format!(
                    "it redirects to {}: redirects are not followed, configure the URL of the \
                     token endpoint itself",
                    self.redacted(&target, response)
                ),
                None => "redirects are not followed".to_owned(),
            };
        }
        let is_missing = matches!(
            status,
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::GONE
        );
        let hint = if is_missing {
            "the URL is not that of a token endpoint, which accepts POST: "
        } else {
            ""
        };
        let found = self.found(response);
        format!("{hint}expected a JSON object with `error`, found {found}")
    }

    /// The kind of a body, without its text.
    fn found(&self, response: &Response<Bytes>) -> String {
        let body = without_bom(response.body()).trim_ascii();
        let json = serde_json::from_slice::<&RawValue>(body).ok();
        let kind = match (body.first(), json) {
            (None, _) => return "no body".to_owned(),
            (Some(b'{'), Some(_)) => "a JSON object without it",
            (_, Some(_)) => "JSON that is not an object",
            (Some(b'<'), None) => "HTML or XML",
            (_, None) => "a body that is not JSON",
        };
        match media_type(response.headers()) {
            Some(media_type) => {
                let media_type = (self.secrets)().redact(media_type);
                let media_type = escape_and_truncate(&media_type);
                format!("{kind} (content type {media_type})")
            }
            None => format!("{kind} (no content type)"),
        }
    }

    /// A text of the server without the secrets of request and response, escaped and cut.
    fn redacted(&self, text: &str, response: &Response<Bytes>) -> String {
        let mut secrets = (self.secrets)();
        secrets.add_members(without_bom(response.body()));
        escape_and_truncate(&secrets.redact(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SENT: UnixTime = UnixTime::from_secs(1_700_000_000);

    fn response(status: u16, body: &str) -> Result<TokenResponse, Error> {
        let endpoint = Endpoint::new("https://as.example/token").unwrap();
        let mut response = Response::new(Bytes::copy_from_slice(body.as_bytes()));
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        let request = SentRequest {
            endpoint: &endpoint,
            sent_at: SENT,
            assume_bearer: false,
            expected_type: None,
            secrets: Secrets::default,
        };
        request.read(&response)
    }

    fn lifetime_of(expires_in: &str) -> Option<Option<u64>> {
        let body =
            format!(r#"{{"access_token":"t","token_type":"bearer","expires_in":{expires_in}}}"#);
        response(200, &body)
            .ok()
            .map(|token| token.expires_in().map(|lifetime| lifetime.as_secs()))
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
            let _token = response(200, good).expect(good);
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
        for status in [301, 302, 307, 308, 404, 500] {
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
}
