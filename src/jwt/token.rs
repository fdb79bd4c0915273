//! The steps of validating a token, one type for each.

use std::sync::Arc;

use zeroize::Zeroizing;

use super::algorithm::Algorithm;
use super::claims::{ClaimsPolicy, UnverifiedClaims, ValidatedToken};
use super::compact::{Segments, decode_base64url};
use super::error::TokenError;
use super::header::Header;
use super::mismatch::{Mismatch, RejectedClaims};
use super::strict_json::SizeLimits;
use super::verification_key::VerificationKey;
use crate::clock::UnixTime;

/// A well-formed token whose signature is not verified yet.
#[derive(Debug)]
pub(crate) struct UnverifiedToken<'a> {
    segments: &'a Segments<'a>,
    header: &'a Arc<Header>,
    payload: &'a str,
    claims: UnverifiedClaims<'a>,
}

impl<'a> UnverifiedToken<'a> {
    /// Parses the claims strictly. None of them is trusted yet. An error of `check`, which gets
    /// `iss` and `exp`, ends the parse.
    pub(crate) fn parse(
        segments: &'a Segments<'a>,
        header: &'a Arc<Header>,
        payload: &'a str,
        limits: SizeLimits,
        check: &dyn Fn(&str, Option<UnixTime>) -> Result<(), TokenError>,
    ) -> Result<Self, TokenError> {
        let claims = UnverifiedClaims::parse(payload, limits, check)?;
        Ok(Self {
            segments,
            header,
            payload,
            claims,
        })
    }

    pub(crate) fn header(&self) -> &'a Arc<Header> {
        self.header
    }

    /// The header as the token spells it.
    pub(crate) fn header_segment(&self) -> &'a [u8] {
        self.segments.header
    }

    /// The claimed issuer. Safe to use for rejecting a token before its signature is verified,
    /// never for accepting one.
    pub(crate) fn issuer(&self) -> Result<&str, TokenError> {
        self.claims.issuer()
    }

    /// The claimed `exp`. Safe to use for the same.
    pub(crate) fn expires_at(&self) -> Option<UnixTime> {
        self.claims.expires_at
    }

    /// Whether the token is bound to a key, whose possession its sender must prove (RFC 7800).
    pub(crate) fn is_bound(&self) -> bool {
        self.claims.has_confirmation
    }

    /// Whether the claims are valid, assuming a valid signature. Only such a token may cause a
    /// refresh of keys.
    pub(crate) fn would_pass_claims(
        &self,
        policy: &ClaimsPolicy,
        now: UnixTime,
    ) -> Result<(), TokenError> {
        self.segments.decode_signature()?;
        Ok(self.claims.validate(self.header, policy, now)?)
    }

    /// Verifies the signature over the received bytes (RFC 7515 §5.2) by one of `keys`, and
    /// returns that key. There are several keys only if the token does not identify one.
    pub(crate) fn verify_signature<'k>(
        &self,
        keys: &[&'k VerificationKey],
    ) -> Result<(SignatureVerified<'_>, &'k VerificationKey), TokenError> {
        let key = self
            .segments
            .verify_signature(self.header.algorithm, keys)?;
        Ok((SignatureVerified(self), key))
    }
}

impl Segments<'_> {
    /// Verifies the signature by one of `keys`, and returns that key.
    pub(crate) fn verify_signature<'k>(
        &self,
        algorithm: Algorithm,
        keys: &[&'k VerificationKey],
    ) -> Result<&'k VerificationKey, TokenError> {
        let signature = &*self.decode_signature()?;
        let message = self.signing_input;
        let verifies = |key: &&&VerificationKey| key.verify(algorithm, message, signature).is_ok();
        let key = keys.iter().find(verifies);
        key.copied().ok_or(TokenError::InvalidSignature)
    }

    /// Decodes the signature. It is zeroized on drop: together with header and payload it is the
    /// token.
    fn decode_signature(&self) -> Result<Zeroizing<Vec<u8>>, TokenError> {
        decode_base64url(self.signature).map(Zeroizing::new)
    }
}

/// A token with a valid signature whose claims are not validated yet.
#[derive(Debug)]
pub(crate) struct SignatureVerified<'t>(&'t UnverifiedToken<'t>);

impl<'t> SignatureVerified<'t> {
    /// Validates the claims (RFC 7519 §4.1; RFC 9068 §4 with that profile). A rejection says what
    /// was expected and found if `describes` is set.
    pub(crate) fn validate(
        self,
        policy: &ClaimsPolicy,
        now: UnixTime,
        describes: bool,
    ) -> Result<ValidatedToken<'t>, Box<RejectedClaims>> {
        let Self(token) = self;
        match token.claims.validate(token.header, policy, now) {
            Ok(()) => Ok(ValidatedToken {
                claims: &token.claims,
                payload: token.payload,
            }),
            Err(fault) => {
                let header = token.segments.header;
                let describe = || Mismatch::from_fault(fault, &token.claims, header, policy, now);
                let mismatch = describes.then(describe);
                let error = fault.into();
                Err(Box::new(RejectedClaims { error, mismatch }))
            }
        }
    }
}
