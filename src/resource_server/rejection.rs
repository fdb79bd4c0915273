//! The reasons for rejecting a request.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, StatusCode, header};

use super::challenge::incomplete_headers;
use crate::clock::{Clock, SystemClock};
use crate::jwt::TokenError;
use crate::log_limit::LogLimit;
use crate::metrics::REQUESTS;
use crate::oauth::Scope;

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
    /// The token lacks a scope that the route requires.
    InsufficientScope = "insufficient_scope",
    /// `aud` names none of the configured audiences.
    InvalidAudience = "invalid_audience",
    /// A required claim is missing, or a registered claim has the wrong type.
    InvalidClaims = "invalid_claims",
    /// Several `Authorization` fields, or one that is malformed.
    InvalidRequest = "invalid_request",
    /// The signature does not verify with the named key.
    InvalidSignature = "invalid_signature",
    /// The issuer's key set is missing or too old: 503.
    KeysUnavailable = "keys_unavailable",
    /// No `ResourceServerLayer` is around a `RequireScopeLayer` or an extractor: 500.
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
    /// The token is longer than [`max_token_len`](super::ResourceServerBuilder::max_token_len), or
    /// its header than 8 KiB.
    TokenTooLong = "token_too_long",
    /// The objects and arrays of the token have too many members or elements. The limits grow with
    /// [`max_token_len`](super::ResourceServerBuilder::max_token_len).
    TooManyMembers = "too_many_members",
    /// `typ` is not the type of an access token.
    UnexpectedTokenType = "unexpected_token_type",
    /// The issuer has no key of this `kid`.
    UnknownKey = "unknown_key",
    /// `alg` is not allowed, the key with this `kid` is for another algorithm, or the token has no
    /// `kid` and no key matches.
    UnsupportedAlgorithm = "unsupported_algorithm",
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
            Self::InsufficientScope => StatusCode::FORBIDDEN,
            Self::LayerMissing => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Overloaded | Self::KeysUnavailable => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::UNAUTHORIZED,
        }
    }

    pub(super) fn error(self) -> Option<&'static str> {
        match self {
            Self::InvalidRequest => Some("invalid_request"),
            Self::InsufficientScope => Some("insufficient_scope"),
            Self::MissingToken | Self::LayerMissing | Self::Overloaded | Self::KeysUnavailable => {
                None
            }
            _ => Some("invalid_token"),
        }
    }

    /// One text for all reasons of `invalid_token`: details found before the signature is verified
    /// are for the operator only.
    pub(super) fn description(self) -> &'static str {
        match self {
            Self::InvalidRequest => "The Authorization field is malformed or repeated",
            Self::InsufficientScope => "The access token lacks a required scope",
            Self::MissingToken => "An access token is required",
            Self::LayerMissing => "The service is misconfigured",
            Self::Overloaded | Self::KeysUnavailable => {
                "Token validation is temporarily unavailable"
            }
            _ => "The access token is invalid",
        }
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
            TokenError::MissingProofOfPossession => Self::MissingProofOfPossession,
            TokenError::NotYetValid => Self::NotYetValid,
            TokenError::TokenTooLong => Self::TokenTooLong,
            TokenError::TooManyMembers => Self::TooManyMembers,
            TokenError::UnexpectedTokenType => Self::UnexpectedTokenType,
            TokenError::UnsupportedAlgorithm => Self::UnsupportedAlgorithm,
            TokenError::UntrustedIssuer => Self::UntrustedIssuer,
        }
    }
}

/// Why a request or a token is refused, before it is a [`Rejection`] with the headers of the server.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) kind: RejectionKind,
    /// With `InsufficientScope`.
    pub(super) required_scopes: Option<Arc<[Scope]>>,
}

impl<K: Into<RejectionKind>> From<K> for Refusal {
    fn from(kind: K) -> Self {
        Self {
            kind: kind.into(),
            required_scopes: None,
        }
    }
}

impl fmt::Display for RejectionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The rejection of a request: its reason and the headers of the response.
///
/// Also an extension of the response, so that outer layers can count reasons. It has no data of
/// the token.
///
/// ```
/// use http::{Request, Response};
/// use tower::{ServiceBuilder, ServiceExt as _, service_fn};
/// use tower_oauth::{Rejection, ResourceServer};
/// use tower_oauth::resource_server::RejectionKind;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (orders, _refresher) = ResourceServer::builder("https://as.example", "orders").build()?;
/// let layer = orders.layer().on_rejection(|rejection: &Rejection| {
///     let mut response = Response::new(rejection.description().to_owned());
///     *response.status_mut() = rejection.status();
///     response
/// });
/// let service = ServiceBuilder::new().layer(layer).service(service_fn(
///     |_: Request<()>| async { Ok::<_, std::convert::Infallible>(Response::default()) },
/// ));
/// let request = Request::builder().header("authorization", "Bearer a.b.c").body(())?;
/// let response = service.oneshot(request).await?;
/// assert_eq!(response.status(), 401);
/// assert_eq!(response.body(), "The access token is invalid");
/// let rejection = response.extensions().get::<Rejection>().expect("inserted by the layer");
/// assert_eq!(rejection.kind(), RejectionKind::Malformed);
/// assert_eq!(rejection.error(), Some("invalid_token"));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Rejection {
    pub(super) kind: RejectionKind,
    /// The headers of the response.
    pub(super) headers: Arc<HeaderMap>,
    pub(super) required_scopes: Option<Arc<[Scope]>>,
    pub(super) grpc: bool,
    /// Whether the challenge has the parameters of a resource server.
    pub(super) is_complete: bool,
}

impl Rejection {
    /// Rejects a request whose token lacks one of `scopes`, all of which it needs: 403.
    ///
    /// For a handler or a layer inside a [`ResourceServerLayer`](crate::ResourceServerLayer). That
    /// layer counts the rejection, and adds `realm` and `resource_metadata` to the challenge of the
    /// response: it finds the `Rejection` in the response's extensions, where
    /// [`RejectionResponse`](super::RejectionResponse) implementations and, with the feature
    /// `axum`, `IntoResponse` leave it.
    ///
    /// ```
    /// use tower_oauth::{Rejection, Scope};
    ///
    /// let rejection = Rejection::insufficient_scope([Scope::new("orders.write")?]);
    /// assert_eq!(rejection.status(), 403);
    /// assert_eq!(rejection.required_scopes()[0], "orders.write");
    /// # Ok::<(), tower_oauth::ConfigError>(())
    /// ```
    #[must_use]
    pub fn insufficient_scope(scopes: impl IntoIterator<Item = Scope>) -> Self {
        let scopes = scopes.into_iter().collect();
        Self::incomplete(RejectionKind::InsufficientScope, Some(scopes), false)
    }

    /// A rejection for which the challenge has no parameters of a resource server yet.
    pub(super) fn incomplete(
        kind: RejectionKind,
        required_scopes: Option<Arc<[Scope]>>,
        grpc: bool,
    ) -> Self {
        let scopes = required_scopes.as_deref().unwrap_or_default();
        Self {
            kind,
            headers: incomplete_headers(kind, scopes),
            required_scopes,
            grpc,
            is_complete: false,
        }
    }

    /// Rejects a request that passed no resource server, and logs what to do.
    ///
    /// The event is an error at most once a minute, because every caller can cause it.
    #[cfg_attr(
        not(feature = "tracing"),
        expect(unused_variables, reason = "nothing is logged")
    )]
    pub(super) fn layer_missing(part: &'static str, log_limit: &LogLimit, grpc: bool) -> Self {
        let kind = RejectionKind::LayerMissing;
        crate::metrics::count(REQUESTS, &[("result", kind.as_str())]);
        if log_limit.allows(SystemClock.now()) {
            crate::trace::error!(
                target: "tower_oauth::resource_server",
                reason = kind.as_str(),
                "{part} is outside of `ResourceServerLayer`, or there is none: add \
                 `.layer(server.layer())` after it on an axum router, before it in a \
                 `ServiceBuilder` (logged once a minute)"
            );
        }
        crate::trace::debug!(
            target: "tower_oauth::resource_server",
            reason = kind.as_str(),
            "request rejected"
        );
        Self::incomplete(kind, None, grpc)
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

    /// The error code ([RFC 6750 §3.1](https://www.rfc-editor.org/rfc/rfc6750#section-3.1)).
    ///
    /// `invalid_request`, `invalid_token` or `insufficient_scope`; `None` for a request without a
    /// token, and with status 500 and 503.
    #[must_use]
    pub fn error(&self) -> Option<&'static str> {
        self.kind.error()
    }

    /// A text for the caller, `error_description` of the challenge.
    ///
    /// One of a few fixed texts, without data of the token.
    #[must_use]
    pub fn description(&self) -> &'static str {
        self.kind.description()
    }

    /// The scopes that the route requires; empty unless the token lacks one.
    ///
    /// Of [`RequireScopeLayer::any`](crate::RequireScopeLayer::any), one of them is enough.
    #[must_use]
    pub fn required_scopes(&self) -> &[Scope] {
        self.required_scopes.as_deref().unwrap_or_default()
    }

    /// The value of `WWW-Authenticate`; `None` with status 500 and 503.
    #[must_use]
    pub fn www_authenticate(&self) -> Option<&HeaderValue> {
        self.headers.get(header::WWW_AUTHENTICATE)
    }

    /// The value of `Retry-After`; only with status 503.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.kind.retry_after()
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
