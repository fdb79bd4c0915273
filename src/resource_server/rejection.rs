//! Why one request was refused.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, StatusCode, header};

use crate::jwt::TokenError;

/// Why a request was refused.
///
/// For logs, metrics and tests; callers see no more than the answer of RFC 6750 §3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RejectionKind {
    /// `aud` names none of the configured audiences.
    InvalidAudience,
    /// The signature is not that of the named key.
    InvalidSignature,
    /// Too many signatures wait to be verified
    /// ([`max_concurrent_verifications`](crate::ResourceServerBuilder::max_concurrent_verifications)).
    /// Not the caller's fault: 503.
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
    /// There is no usable key set to judge by. Not the caller's fault: 503.
    KeysUnavailable,
    /// The token is no signed JWT in compact form, or not a strict one.
    Malformed,
    /// There is no bearer token.
    MissingToken,
    /// `nbf` or `iat` is in the future.
    NotYetValid,
    /// The key of this `kid` was revoked here ([`revoke_key`](crate::ResourceServer::revoke_key)),
    /// or its issuer published its private half.
    RevokedKey,
    /// The token is bound to a key of its holder (`cnf`), which a bearer token does not prove.
    MissingProofOfPossession,
    /// The token is longer than the limit.
    TokenTooLong,
    /// The objects and arrays of the token hold more members or elements than the limits allow,
    /// which grow with [`max_token_len`](crate::ResourceServerBuilder::max_token_len).
    TooManyMembers,
    /// `typ` is not that of an access token.
    UnexpectedTokenType,
    /// The issuer has no key of this `kid`.
    UnknownKey,
    /// `alg` is not allowed, or not the algorithm of the key; or a token without `kid` fits no key,
    /// or several.
    UnsupportedAlgorithm,
}

impl RejectionKind {
    /// Every kind, for those who count them.
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

    /// A stable name for logs and metrics.
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

    /// The status of the answer (RFC 6750 §3.1).
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

/// What an answer has to say, in fields that are made once: a refusal has to be cheap.
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

    /// The caller has to do something about it (RFC 6750 §3).
    pub(super) fn challenge(challenge: HeaderValue) -> Arc<Self> {
        let mut template = Self::new();
        template.headers.insert(header::WWW_AUTHENTICATE, challenge);
        Arc::new(template)
    }

    /// It can be judged later, perhaps (RFC 9110 §10.2.3).
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

/// A refused request: why, and what the answer has to say.
///
/// It is also put into the response's extensions, so that outer layers can count the causes.
/// It holds nothing of the token.
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

    /// Why the request was refused.
    #[must_use]
    pub fn kind(&self) -> RejectionKind {
        self.kind
    }

    /// The status of the answer; of a gRPC answer it is always 200.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.kind.status()
    }

    /// The value of `WWW-Authenticate`. None if the request cannot be judged (503).
    #[must_use]
    pub fn www_authenticate(&self) -> Option<&HeaderValue> {
        self.template.headers.get(header::WWW_AUTHENTICATE)
    }

    /// The value of `Retry-After`, if the request cannot be judged now.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.template.retry_after
    }

    /// What stands in the header of the answer.
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
        write!(f, "the request was refused: {}", self.kind)
    }
}

impl std::error::Error for Rejection {}
