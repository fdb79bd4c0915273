//! The reasons for rejecting a request.

use std::fmt;
use std::time::Duration;

use http::StatusCode;

use crate::jwt::TokenError;

/// One table of the kinds: the type, the list and the names.
macro_rules! kinds {
    ($($(#[doc = $doc:literal])* $kind:ident = $name:literal,)*) => {
        /// The reason for a rejection.
        ///
        /// For logs, metrics and tests; callers see only the response of RFC 6750 §3.
        ///
        /// ```
        /// use tower_oauth::resource_server::RejectionKind;
        ///
        /// assert_eq!(RejectionKind::Expired.as_str(), "expired");
        /// assert_eq!(RejectionKind::Expired.status(), 401);
        /// assert!(RejectionKind::ALL.contains(&RejectionKind::Expired));
        /// ```
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum RejectionKind {
            $($(#[doc = $doc])* $kind,)*
        }

        impl RejectionKind {
            /// All kinds.
            pub const ALL: &'static [Self] = &[$(Self::$kind),*];

            /// The stable name of the kind in logs and metrics.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$kind => $name,)*
                }
            }
        }
    };
}

kinds! {
    /// More keys match the token than
    /// [`max_candidate_keys`](crate::TrustedIssuer::max_candidate_keys): it has no `kid`, or
    /// several keys share its `kid`. (With a limit of one, keys that share a `kid` are not used:
    /// `UnknownKey`.)
    AmbiguousKey = "ambiguous_key",
    /// `exp` has passed.
    Expired = "expired",
    /// The token lacks a role, or does not meet a condition of the route.
    Forbidden = "forbidden",
    /// The authentication of the user is too old or too weak for the route (RFC 9470).
    InsufficientAuthentication = "insufficient_authentication",
    /// The token lacks a scope that the route or the issuer's policy requires.
    InsufficientScope = "insufficient_scope",
    /// `aud` names none of the configured audiences.
    InvalidAudience = "invalid_audience",
    /// A required claim is missing or has another value, or a registered claim has the wrong type.
    /// See [`require_claim`](crate::TrustedIssuer::require_claim) and
    /// [`require`](crate::TrustedIssuer::require).
    InvalidClaims = "invalid_claims",
    /// The request has several credentials, or a malformed one: 400.
    ///
    /// Several `Authorization` fields, a malformed one, or one together with a `DPoP` field or an
    /// `access_token` in the query.
    InvalidRequest = "invalid_request",
    /// The signature does not verify with the named key.
    InvalidSignature = "invalid_signature",
    /// The issuer's key set is missing or too old: 503.
    KeysUnavailable = "keys_unavailable",
    /// A layer is missing, or does not keep the token: 500.
    ///
    /// No `ResourceServerLayer` is around a `RequireLayer` or an extractor, or it does not
    /// [keep the token](crate::ResourceServerLayer::keep_token) that a handler extracts.
    LayerMissing = "layer_missing",
    /// The token is not a well-formed signed JWT in compact serialization.
    Malformed = "malformed",
    /// The token is bound to a key (`cnf`) whose possession the request does not prove.
    MissingProofOfPossession = "missing_proof_of_possession",
    /// The request has no bearer token.
    MissingToken = "missing_token",
    /// `nbf` or `iat` is in the future.
    NotYetValid = "not_yet_valid",
    /// Too many requests wait for the verification limit: 503. See
    /// [`max_concurrent_verifications`][limit].
    ///
    /// [limit]: super::ResourceServerBuilder::max_concurrent_verifications
    Overloaded = "overloaded",
    /// The key was revoked with [`revoke_key`](crate::ResourceServer::revoke_key), or its issuer
    /// published its private part.
    RevokedKey = "revoked_key",
    /// The token is longer than [`max_token_len`](crate::TrustedIssuer::max_token_len), or its
    /// header than 8 KiB.
    TokenTooLong = "token_too_long",
    /// The objects and arrays of the token have too many members or elements. The limits grow with
    /// [`max_token_len`](super::ResourceServerBuilder::max_token_len).
    TooManyMembers = "too_many_members",
    /// The token is not an access token.
    ///
    /// By its `typ`, or by a claim such as `at_hash` of an ID token.
    UnexpectedTokenType = "unexpected_token_type",
    /// The issuer has no key of this `kid`.
    UnknownKey = "unknown_key",
    /// `alg` is not allowed, the key with this `kid` is for another algorithm, or the token has no
    /// `kid` and no key matches.
    UnsupportedAlgorithm = "unsupported_algorithm",
    /// The client is none of the [`allowed_clients`](crate::TrustedIssuer::allowed_clients).
    UntrustedClient = "untrusted_client",
    /// `iss` is none of the trusted issuers.
    UntrustedIssuer = "untrusted_issuer",
}

impl RejectionKind {
    /// The status of the response
    /// ([RFC 6750 §3.1](https://www.rfc-editor.org/rfc/rfc6750#section-3.1)).
    #[must_use]
    pub fn status(self) -> StatusCode {
        match self {
            Self::InvalidRequest => StatusCode::BAD_REQUEST,
            Self::Forbidden | Self::InsufficientScope => StatusCode::FORBIDDEN,
            Self::LayerMissing => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Overloaded | Self::KeysUnavailable => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::UNAUTHORIZED,
        }
    }

    pub(super) fn error(self) -> Option<&'static str> {
        match self {
            Self::InvalidRequest => Some("invalid_request"),
            Self::InsufficientScope => Some("insufficient_scope"),
            Self::InsufficientAuthentication => Some("insufficient_user_authentication"),
            Self::Forbidden
            | Self::KeysUnavailable
            | Self::LayerMissing
            | Self::MissingToken
            | Self::Overloaded => None,
            _ => Some("invalid_token"),
        }
    }

    /// One text for all reasons of `invalid_token`: details found before the signature is verified
    /// are for the operator only.
    pub(super) fn description(self) -> &'static str {
        match self {
            Self::InvalidRequest => "The Authorization field is malformed or repeated",
            Self::InsufficientScope => "The access token lacks a required scope",
            Self::InsufficientAuthentication => {
                "A more recent or stronger authentication is required"
            }
            Self::Forbidden => "The access token does not permit this request",
            Self::MissingToken => "An access token is required",
            Self::LayerMissing => "The service is misconfigured",
            Self::Overloaded | Self::KeysUnavailable => {
                "Token validation is temporarily unavailable"
            }
            _ => "The access token is invalid",
        }
    }

    /// Whether another token may change the response, so that it has `WWW-Authenticate`.
    pub(super) fn has_challenge(self) -> bool {
        self != Self::Forbidden && !self.status().is_server_error()
    }

    pub(super) fn retry_after(self) -> Option<Duration> {
        match self {
            Self::Overloaded => Some(Duration::from_secs(1)),
            Self::KeysUnavailable => Some(Duration::from_secs(5)),
            _ => None,
        }
    }
}

impl From<TokenError> for RejectionKind {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::Expired => Self::Expired,
            TokenError::InvalidAudience => Self::InvalidAudience,
            TokenError::InvalidClaims => Self::InvalidClaims,
            TokenError::InvalidSignature => Self::InvalidSignature,
            TokenError::Malformed => Self::Malformed,
            TokenError::NotYetValid => Self::NotYetValid,
            TokenError::TokenTooLong => Self::TokenTooLong,
            TokenError::TooManyMembers => Self::TooManyMembers,
            TokenError::UnexpectedTokenType => Self::UnexpectedTokenType,
            TokenError::UnsupportedAlgorithm => Self::UnsupportedAlgorithm,
            TokenError::UntrustedIssuer => Self::UntrustedIssuer,
        }
    }
}

impl fmt::Display for RejectionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
