//! Which responses of a resource server reject the token.

use http::{HeaderMap, Response, StatusCode, header};

/// The responses for which a [`BearerTokenLayer`](super::BearerTokenLayer) replaces the token.
///
/// Passed to [`BearerTokenLayer::renew_on`](super::BearerTokenLayer::renew_on), which has an
/// example. At most one token is replaced in 10 seconds, with either of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Unauthorized {
    /// 401 with a Bearer challenge of `invalid_token`
    /// ([RFC 6750 §3.1](https://www.rfc-editor.org/rfc/rfc6750#section-3.1)).
    ///
    /// Over gRPC, the same challenge and `grpc-status: 16` in the header section.
    #[default]
    InvalidToken,
    /// Every 401, with any challenge or none, and every `grpc-status: 16` in the header section.
    ///
    /// For resource servers and gateways that do not say why they reject a request.
    Any,
}

/// The value of `grpc-status` for `UNAUTHENTICATED`.
const GRPC_UNAUTHENTICATED: &[u8] = b"16";

impl Unauthorized {
    /// Whether a response rejects the token.
    pub(super) fn matches<ResBody>(self, response: &Response<ResBody>) -> bool {
        let is_unauthenticated = response.status() == StatusCode::UNAUTHORIZED
            || response
                .headers()
                .get("grpc-status")
                .is_some_and(|status| status == GRPC_UNAUTHENTICATED);
        is_unauthenticated && (self == Self::Any || is_invalid_token(response.headers()))
    }
}

/// Whether a Bearer challenge has the error `invalid_token`
/// ([RFC 6750 §3.1](https://www.rfc-editor.org/rfc/rfc6750#section-3.1)).
fn is_invalid_token(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::WWW_AUTHENTICATE)
        .iter()
        .any(|challenge| {
            // Challenges are not parsed: a false positive costs one token request per 10 seconds.
            // `=` may be surrounded by white space (RFC 9110 §11.2).
            let challenge = challenge
                .as_bytes()
                .iter()
                .filter(|byte| !byte.is_ascii_whitespace());
            let challenge: Vec<u8> = challenge.map(u8::to_ascii_lowercase).collect();
            let has = |word: &[u8]| challenge.windows(word.len()).any(|window| window == word);
            has(b"bearer") && (has(br#"error="invalid_token""#) || has(b"error=invalid_token"))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_invalid_token_challenges_reject_the_token() {
        let challenged = |challenge: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::WWW_AUTHENTICATE, challenge.parse().unwrap());
            is_invalid_token(&headers)
        };
        assert!(challenged(r#"Bearer realm="x", error="invalid_token""#));
        assert!(challenged(r#"bearer error=invalid_token"#));
        assert!(challenged(
            r#"Bearer scope="appid_default", error="invalid_token""#
        ));
        assert!(challenged("Bearer realm=\"x\", error\t= \"invalid_token\""));
        assert!(!challenged("Bearer"));
        assert!(!challenged(r#"Bearer error="insufficient_scope""#));
        assert!(!challenged(r#"Basic realm="invalid_token""#));
    }
}
