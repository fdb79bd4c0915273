//! Parsing and validation of JWT access tokens. Pure: no I/O, no clock, no lock.
//!
//! Each type is one step of the validation, and the only way to the next:
//!
//! ```text
//! Segments, Header ──parse──▶ UnverifiedToken
//!     ──verify_signature──▶ SignatureVerified ──validate──▶ ValidatedToken
//! ```
//!
//! RFC 7515 (compact serialization, header), RFC 7519 (claims), RFC 8725 and its successor (what
//! to reject), RFC 9068 (access token profile).

mod algorithm;
mod claims;
mod compact;
mod glance;
mod header;
mod strict_json;
mod text;
mod verification_key;

pub use self::algorithm::Algorithm;
pub use self::claims::TokenProfile;
pub(crate) use self::claims::{Claims, ClaimsPolicy, Glance, Summary, ValidatedToken};
use self::compact::DecodedSignature;
pub(crate) use self::compact::{DecodedHeader, DecodedPayload, Segments, decode_base64url};
pub(crate) use self::header::{CachedHeader, Header, KeyId};
pub(crate) use self::strict_json::{SizeLimits, StrKey};
pub(crate) use self::text::Text;
pub(crate) use self::verification_key::{Fingerprint, InvalidKey, KeyMaterial, VerificationKey};
use crate::clock::UnixTime;

/// Why a token is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum TokenError {
    /// `aud` has none of the configured audiences.
    InvalidAudience,
    /// The signature does not match the key.
    InvalidSignature,
    /// A registered claim is missing or has the wrong type.
    InvalidClaims,
    /// `exp` has passed.
    Expired,
    /// `iss` is not the issuer of the key.
    UntrustedIssuer,
    /// Not three base64url segments, or their JSON is not strict.
    Malformed,
    /// `nbf` or `iat` is in the future.
    NotYetValid,
    /// Bound to a key of its holder (`cnf`), whose possession a Bearer request does not prove.
    MissingProofOfPossession,
    /// The token is longer than the limits allow.
    TokenTooLong,
    /// Its objects and arrays have more members than the limits allow.
    TooManyMembers,
    /// `typ` is not that of an access token.
    UnexpectedTokenType,
    /// `alg` is not supported or not allowed.
    UnsupportedAlgorithm,
}

/// A well-formed token whose signature is not verified yet.
#[derive(Debug)]
pub(crate) struct UnverifiedToken<'a> {
    segments: &'a Segments<'a>,
    header: Header<'a>,
    claims: Claims<'a>,
}

impl<'a> UnverifiedToken<'a> {
    /// Parses the claims strictly. None of them is trusted yet.
    pub(crate) fn parse(
        segments: &'a Segments<'a>,
        header: Header<'a>,
        payload: &'a str,
        limits: SizeLimits,
    ) -> Result<Self, TokenError> {
        let claims = Claims::parse(payload, limits)?;
        Ok(Self {
            segments,
            header,
            claims,
        })
    }

    /// The JOSE header. Safe to use for selecting a key only.
    pub(crate) fn header(&self) -> &Header<'a> {
        &self.header
    }

    /// The claimed `iss` and `exp`. Safe to use for rejecting a token before its signature is
    /// verified, never for accepting one.
    pub(crate) fn glance(&self) -> Glance<'_> {
        self.claims.glance()
    }

    /// Whether the claims are valid, assuming a valid signature. Only such a token may cause a
    /// refresh of keys.
    pub(crate) fn would_pass_claims(
        &self,
        policy: &ClaimsPolicy,
        now: UnixTime,
    ) -> Result<(), TokenError> {
        DecodedSignature::new().decode(self.segments.signature)?;
        self.claims.validate(&self.header, policy, now)
    }

    /// Verifies the signature over the received bytes (RFC 7515 §5.2) by one of `keys`, and
    /// returns that key. There are several keys only if the token does not identify one.
    pub(crate) fn verify_signature<'k>(
        self,
        keys: &[&'k VerificationKey],
    ) -> Result<(SignatureVerified<'a>, &'k VerificationKey), TokenError> {
        let mut signature = DecodedSignature::new();
        let signature = signature.decode(self.segments.signature)?;
        let message = self.segments.signing_input;
        let algorithm = self.header.algorithm;
        let verifies = |key: &&&VerificationKey| key.verify(algorithm, message, signature).is_ok();
        let key = keys
            .iter()
            .find(verifies)
            .ok_or(TokenError::InvalidSignature)?;
        Ok((SignatureVerified(self), key))
    }
}

/// A token with a valid signature whose claims are not validated yet.
#[derive(Debug)]
pub(crate) struct SignatureVerified<'a>(UnverifiedToken<'a>);

impl<'a> SignatureVerified<'a> {
    /// Validates the claims (RFC 7519 §4.1; RFC 9068 §4 with that profile).
    pub(crate) fn validate(
        self,
        policy: &ClaimsPolicy,
        now: UnixTime,
    ) -> Result<ValidatedToken<'a>, TokenError> {
        self.0.claims.validate(&self.0.header, policy, now)?;
        Ok(ValidatedToken::new(self.0.header, self.0.claims))
    }
}
