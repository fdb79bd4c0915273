//! The reasons for rejecting a request.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, StatusCode, header};

use crate::jwt::TokenError;

/// The reason for a rejection.
///
/// For logs, metrics and tests; callers see only the response of RFC 6750 §3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RejectionKind {
    /// `aud` names none of the configured audiences.
    InvalidAudience,
    /// The signature does not verify with the named key.
    InvalidSignature,
    /// Too many requests wait for the verification limit: 503. See
    /// [`max_concurrent_verifications`][limit].
    ///
    /// [limit]: crate::ResourceServerBuilder::max_concurrent_verifications
    Overloaded,
    /// A required claim is missing, or a registered claim has the wrong type.
    InvalidClaims,
    /// `exp` has passed.
    Expired,
    /// The token lacks a scope that the route requires.
    InsufficientScope,
    /// Several `Authorization` fields, or one that is malformed.
    InvalidRequest,
    /// `iss` is none of the trusted issuers.
    UntrustedIssuer,
    /// The issuer's key set is missing or too old: 503.
    KeysUnavailable,
    /// The token is not a well-formed signed JWT in compact serialization.
    Malformed,
    /// The request has no bearer token.
    MissingToken,
    /// `nbf` or `iat` is in the future.
    NotYetValid,
    /// The key was revoked with [`revoke_key`](crate::ResourceServer::revoke_key), or its issuer
    /// published its private part.
    RevokedKey,
    /// The token is bound to a key (`cnf`) whose possession the request does not prove.
    MissingProofOfPossession,
    /// The token is longer than [`max_token_len`](crate::ResourceServerBuilder::max_token_len), or
    /// its header than 8 KiB.
    TokenTooLong,
    /// The objects and arrays of the token have too many members or elements. The limits grow with
    /// [`max_token_len`](crate::ResourceServerBuilder::max_token_len).
    TooManyMembers,
    /// `typ` is not the type of an access token.
    UnexpectedTokenType,
    /// The issuer has no key of this `kid`.
    UnknownKey,
    /// `alg` is not allowed or does not match the key; or the token has no `kid` and matches no key
    /// or too many.
    UnsupportedAlgorithm,
}

impl RejectionKind {
    /// All kinds.
    pub const ALL: [Self; 19] = [
        Self::InvalidAudience,
        Self::InvalidSignature,
        Self::Overloaded,
        Self::InvalidClaims,
        Self::Expired,
        Self::InsufficientScope,
        Self::InvalidRequest,
        Self::UntrustedIssuer,
        Self::KeysUnavailable,
        Self::Malformed,
        Self::MissingToken,
        Self::NotYetValid,
        Self::RevokedKey,
        Self::MissingProofOfPossession,
        Self::TokenTooLong,
        Self::TooManyMembers,
        Self::UnexpectedTokenType,
        Self::UnknownKey,
        Self::UnsupportedAlgorithm,
    ];

    /// The stable name of the kind in logs and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidAudience => "invalid_audience",
            Self::InvalidSignature => "invalid_signature",
            Self::Overloaded => "overloaded",
            Self::InvalidClaims => "invalid_claims",
            Self::Expired => "expired",
            Self::InsufficientScope => "insufficient_scope",
            Self::InvalidRequest => "invalid_request",
            Self::UntrustedIssuer => "untrusted_issuer",
            Self::KeysUnavailable => "keys_unavailable",
            Self::Malformed => "malformed",
            Self::MissingToken => "missing_token",
            Self::NotYetValid => "not_yet_valid",
            Self::RevokedKey => "revoked_key",
            Self::MissingProofOfPossession => "missing_proof_of_possession",
            Self::TokenTooLong => "token_too_long",
            Self::TooManyMembers => "too_many_members",
            Self::UnexpectedTokenType => "unexpected_token_type",
            Self::UnknownKey => "unknown_key",
            Self::UnsupportedAlgorithm => "unsupported_algorithm",
        }
    }

    /// The status of the response (RFC 6750 §3.1).
    #[must_use]
    pub fn status(self) -> StatusCode {
        match self {
            Self::InvalidRequest => StatusCode::BAD_REQUEST,
            Self::InsufficientScope => StatusCode::FORBIDDEN,
            Self::Overloaded | Self::KeysUnavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::InvalidAudience
            | Self::InvalidSignature
            | Self::InvalidClaims
            | Self::Expired
            | Self::UntrustedIssuer
            | Self::Malformed
            | Self::MissingToken
            | Self::NotYetValid
            | Self::RevokedKey
            | Self::MissingProofOfPossession
            | Self::TokenTooLong
            | Self::TooManyMembers
            | Self::UnexpectedTokenType
            | Self::UnknownKey
            | Self::UnsupportedAlgorithm => StatusCode::UNAUTHORIZED,
        }
    }
}

impl From<TokenError> for RejectionKind {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::InvalidAudience => Self::InvalidAudience,
            TokenError::InvalidSignature => Self::InvalidSignature,
            TokenError::InvalidClaims => Self::InvalidClaims,
            TokenError::Expired => Self::Expired,
            TokenError::UntrustedIssuer => Self::UntrustedIssuer,
            TokenError::Malformed => Self::Malformed,
            TokenError::NotYetValid => Self::NotYetValid,
            TokenError::MissingProofOfPossession => Self::MissingProofOfPossession,
            TokenError::TokenTooLong => Self::TokenTooLong,
            TokenError::TooManyMembers => Self::TooManyMembers,
            TokenError::UnexpectedTokenType => Self::UnexpectedTokenType,
            TokenError::UnsupportedAlgorithm => Self::UnsupportedAlgorithm,
        }
    }
}

impl fmt::Display for RejectionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The headers of a response, built once to make rejections cheap.
#[derive(Debug)]
pub(super) struct ResponseTemplate {
    headers: HeaderMap,
    retry_after: Option<Duration>,
}

impl ResponseTemplate {
    fn new() -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Self {
            headers,
            retry_after: None,
        }
    }

    /// A response with a challenge (RFC 6750 §3).
    pub(super) fn challenge(challenge: HeaderValue) -> Arc<Self> {
        let mut template = Self::new();
        template.headers.insert(header::WWW_AUTHENTICATE, challenge);
        Arc::new(template)
    }

    /// A response with `Retry-After` (RFC 9110 §10.2.3).
    pub(super) fn retry_after(wait: Duration) -> Arc<Self> {
        let mut template = Self {
            retry_after: Some(wait),
            ..Self::new()
        };
        template
            .headers
            .insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs()));
        Arc::new(template)
    }
}

/// The rejection of a request: its reason and the headers of the response.
///
/// Also an extension of the response, so that outer layers can count reasons. It has no data of
/// the token.
#[derive(Clone, Debug)]
pub struct Rejection {
    kind: RejectionKind,
    template: Arc<ResponseTemplate>,
    grpc: bool,
}

impl Rejection {
    pub(super) fn new(kind: RejectionKind, template: Arc<ResponseTemplate>, grpc: bool) -> Self {
        Self {
            kind,
            template,
            grpc,
        }
    }

    /// The reason for the rejection.
    #[must_use]
    pub fn kind(&self) -> RejectionKind {
        self.kind
    }

    /// The status of the response. The response to a gRPC call always has 200 instead.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.kind.status()
    }

    /// The value of `WWW-Authenticate`; `None` with status 503.
    #[must_use]
    pub fn www_authenticate(&self) -> Option<&HeaderValue> {
        self.template.headers.get(header::WWW_AUTHENTICATE)
    }

    /// The value of `Retry-After`; only with status 503.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.template.retry_after
    }

    /// The headers of the response.
    pub(super) fn headers(&self) -> &HeaderMap {
        &self.template.headers
    }

    /// Whether the request was a gRPC call: `POST` over HTTP/2 with `content-type:
    /// application/grpc`.
    #[must_use]
    pub fn is_grpc(&self) -> bool {
        self.grpc
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "request rejected: {}", self.kind)
    }
}

impl std::error::Error for Rejection {}
