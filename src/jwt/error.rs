//! The reasons for which a token is rejected.

/// Why a token is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum TokenError {
    /// `exp` has passed.
    Expired,
    /// `aud` has none of the configured audiences.
    InvalidAudience,
    /// A registered claim is missing or has the wrong type.
    InvalidClaims,
    /// The signature does not match the key.
    InvalidSignature,
    /// Not three base64url segments, or their JSON is not strict.
    Malformed,
    /// `nbf` or `iat` is in the future.
    NotYetValid,
    /// The token is longer than the limits allow.
    TokenTooLong,
    /// Its objects and arrays have more members than the limits allow.
    TooManyMembers,
    /// `typ` is not that of an access token.
    UnexpectedTokenType,
    /// `alg` is not supported or not allowed.
    UnsupportedAlgorithm,
    /// `iss` is not the issuer of the key.
    UntrustedIssuer,
}
