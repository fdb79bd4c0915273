//! Which responses of a resource server reject the token.

use http::{HeaderMap, StatusCode};

use super::challenge::challenges;

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

/// Whether a resource server rejects the token, or denies what it is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Denial {
    /// 401, or `UNAUTHENTICATED` over gRPC.
    Unauthenticated,
    /// 403, or `PERMISSION_DENIED` over gRPC.
    Forbidden,
}

impl Denial {
    /// By the status, or by `grpc-status` in the header section.
    pub(super) fn of(status: StatusCode, headers: &HeaderMap) -> Option<Self> {
        match status {
            StatusCode::UNAUTHORIZED => Some(Self::Unauthenticated),
            StatusCode::FORBIDDEN => Some(Self::Forbidden),
            _ => match headers.get("grpc-status")?.as_bytes() {
                b"16" => Some(Self::Unauthenticated),
                b"7" => Some(Self::Forbidden),
                _ => None,
            },
        }
    }
}

impl Unauthorized {
    /// Whether a 401 with these headers rejects the token.
    pub(super) fn matches(self, headers: &HeaderMap) -> bool {
        self == Self::Any || is_invalid_token(headers)
    }
}

/// Whether a Bearer challenge has the error `invalid_token`
/// ([RFC 6750 §3.1](https://www.rfc-editor.org/rfc/rfc6750#section-3.1)).
fn is_invalid_token(headers: &HeaderMap) -> bool {
    challenges(headers).any(|challenge| {
        let error = challenge.parameter("error");
        challenge.is_of("Bearer")
            && error.is_some_and(|error| error.eq_ignore_ascii_case("invalid_token"))
    })
}

#[cfg(test)]
mod tests {
    use http::header;

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
        assert!(challenged(
            r#"Basic realm="x", Bearer error="invalid_token""#
        ));
        assert!(!challenged("Bearer"));
        assert!(!challenged(r#"Bearer error="insufficient_scope""#));
        assert!(!challenged(r#"Basic realm="invalid_token""#));
        assert!(!challenged(r#"Bearer realm="error=invalid_token""#));
        assert!(!challenged(r#"Bearer, DPoP error="invalid_token""#));
    }
}
