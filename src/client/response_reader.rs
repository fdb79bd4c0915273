//! Reads the response of a token endpoint: a token, or the error of the request. Does no I/O.
//!
//! [RFC 6749 §5.1](https://www.rfc-editor.org/rfc/rfc6749#section-5.1) and §5.2.

use bytes::Bytes;
use http::{Response, StatusCode};

use super::token_response::TokenResponse;
use super::token_source::is_transient_status;
use crate::clock::UnixTime;
use crate::error::{Error, ErrorKind, OAuthError, Operation};
use crate::oauth::Endpoint;
use crate::redact::Secrets;
use crate::transport::retry_after;

/// Reads the response to a token request that was sent at `sent_at`; `secrets` are those of the
/// client.
pub(super) fn read_response(
    response: &Response<Bytes>,
    sent_at: UnixTime,
    endpoint: &Endpoint,
    secrets: impl FnOnce() -> Secrets,
) -> Result<TokenResponse, Error> {
    let failed = |kind| Error::new(Operation::TokenRequest, kind).with_url(endpoint.as_str());
    let status = response.status();
    // Checked before the status: some servers send errors with status 200.
    let oauth = OAuthError::from_body(response.body(), secrets);
    if status != StatusCode::OK || oauth.is_some() {
        let is_refused = oauth.is_some() && !is_transient_status(status);
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
    TokenResponse::parse(response.body()).map_err(|reason| {
        failed(ErrorKind::Malformed)
            .with_response(status, None, None)
            .with_detail(reason)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SENT: UnixTime = UnixTime::from_secs(1_700_000_000);

    fn response(status: u16, body: &str) -> Result<TokenResponse, Error> {
        let endpoint = Endpoint::new("https://as.example/token").unwrap();
        let mut response = Response::new(Bytes::copy_from_slice(body.as_bytes()));
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        read_response(&response, SENT, &endpoint, Secrets::default)
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
}
