//! A token's bytes, judged: pure, without I/O, clocks or locks.
//!
//! The types tell how far the judgement has come; each is the only way to the next:
//!
//! ```text
//! Segments, Header ──parse──▶ UnverifiedToken ──verify_signature──▶ SignatureVerified ──validate──▶ ValidatedToken
//! ```
//!
//! RFC 7515 (compact form, header), RFC 7519 (claims), RFC 8725 and its successor (what to
//! refuse), RFC 9068 (the access token profile).

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

/// What is wrong with a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum TokenError {
    /// `aud` names none of the configured audiences.
    InvalidAudience,
    /// The signature is not the key's.
    InvalidSignature,
    /// A registered claim is missing or has another type than the standard gives it.
    InvalidClaims,
    /// `exp` has passed.
    Expired,
    /// `iss` is not the issuer whose key signed.
    UntrustedIssuer,
    /// Not three base64url parts around strict JSON objects.
    Malformed,
    /// `nbf` or `iat` is in the future.
    NotYetValid,
    /// Bound to a key of its holder (`cnf`), which a Bearer use does not prove.
    MissingProofOfPossession,
    /// Longer than any real one.
    TokenTooLong,
    /// Its objects and arrays hold more than the limits allow.
    TooManyMembers,
    /// `typ` is not one of an access token.
    UnexpectedTokenType,
    /// `alg` is none that could be allowed.
    UnsupportedAlgorithm,
}

/// A well-formed token that nobody vouches for.
#[derive(Debug)]
pub(crate) struct UnverifiedToken<'a> {
    segments: &'a Segments<'a>,
    header: Header<'a>,
    claims: Claims<'a>,
}

impl<'a> UnverifiedToken<'a> {
    /// Reads the claims strictly, and believes none of it.
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

    /// The JOSE header, good for choosing a key and nothing else.
    pub(crate) fn header(&self) -> &Header<'a> {
        &self.header
    }

    /// Whose token it says it is, and until when: nobody need doubt what speaks against it.
    pub(crate) fn glance(&self) -> Glance<'_> {
        self.claims.glance()
    }

    /// Whether the claims would pass if the signature were good. Only such a token may
    /// cause a fetch of keys.
    pub(crate) fn would_pass_claims(
        &self,
        policy: &ClaimsPolicy,
        now: UnixTime,
    ) -> Result<(), TokenError> {
        DecodedSignature::new().decode(self.segments.signature)?;
        self.claims.validate(&self.header, policy, now)
    }

    /// Verifies the signature over the very bytes that were received (RFC 7515 §5.2), by one of
    /// these keys: there is one, unless the token does not say which. Returns that key, too.
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

/// A token that its issuer signed; whether it is meant for us is still open.
#[derive(Debug)]
pub(crate) struct SignatureVerified<'a>(UnverifiedToken<'a>);

impl<'a> SignatureVerified<'a> {
    /// Checks the claims (RFC 7519 §4.1; RFC 9068 §4 in its profile).
    pub(crate) fn validate(
        self,
        policy: &ClaimsPolicy,
        now: UnixTime,
    ) -> Result<ValidatedToken<'a>, TokenError> {
        self.0.claims.validate(&self.0.header, policy, now)?;
        Ok(ValidatedToken::new(self.0.header, self.0.claims))
    }
}
