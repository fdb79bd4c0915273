//! A JWT that was sent to the server: an assertion, or an access token of this server.
//!
//! The parsers are those of the resource server: strict base64url, strict JSON, only asymmetric
//! algorithms.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use crate::clock::UnixTime;
use crate::jwt::{
    Algorithm, Header, Segments, SizeLimits, TokenError, UnverifiedClaims, VerificationKey,
    decode_base64url, numeric_date,
};

/// The longest JWT, in bytes.
const MAX_LENGTH: usize = 16 * 1024;

/// A well-formed JWT. Nothing says yet that its signature is valid.
pub(super) struct SignedJwt<'a> {
    segments: Segments<'a>,
    header: Header,
    other_members: OtherMembers,
    claims: JwtClaims,
}

/// Members of the header beside those that select the key.
#[derive(Deserialize)]
struct OtherMembers {
    typ: Option<String>,
    jku: Option<IgnoredAny>,
    jwk: Option<IgnoredAny>,
    x5u: Option<IgnoredAny>,
}

impl<'a> SignedJwt<'a> {
    pub(super) fn parse(jwt: &'a str) -> Result<Self, TokenError> {
        if jwt.len() > MAX_LENGTH {
            return Err(TokenError::TokenTooLong);
        }
        let segments = Segments::split(jwt.as_bytes())?;
        let header = decode_base64url(segments.header)?;
        let payload = Zeroizing::new(decode_base64url(segments.payload)?);
        let payload = std::str::from_utf8(&payload).map_err(|_| TokenError::Malformed)?;
        // These reject duplicate names, too deep nesting, and wrong types of registered members.
        let parsed_header = Header::parse(&header)?;
        UnverifiedClaims::parse(payload, SizeLimits::DEFAULT, &|_, _| Ok(()))?;
        let malformed = |_| TokenError::Malformed;
        Ok(Self {
            segments,
            header: parsed_header,
            other_members: serde_json::from_slice(&header).map_err(malformed)?,
            claims: JwtClaims(serde_json::from_str(payload).map_err(malformed)?),
        })
    }

    pub(super) fn algorithm(&self) -> Algorithm {
        self.header.algorithm
    }

    pub(super) fn key_id(&self) -> Option<&str> {
        self.header.key_id.as_deref()
    }

    /// Whether `typ` is absent or one of these media types (RFC 7515 §4.1.9), without
    /// `application/`.
    pub(super) fn has_type(&self, types: &[&str]) -> bool {
        const PREFIX: &str = "application/";
        let Some(typ) = self.other_members.typ.as_deref() else {
            return true;
        };
        let short = match typ.split_at_checked(PREFIX.len()) {
            Some((prefix, rest)) if prefix.eq_ignore_ascii_case(PREFIX) => rest,
            _ => typ,
        };
        types.iter().any(|known| short.eq_ignore_ascii_case(known))
    }

    /// Whether the header has a key, or a URL of keys.
    pub(super) fn has_embedded_key(&self) -> bool {
        let OtherMembers { jku, jwk, x5u, .. } = &self.other_members;
        jku.is_some() || jwk.is_some() || x5u.is_some()
    }

    /// The claims, which are not verified.
    pub(super) fn claims(&self) -> &JwtClaims {
        &self.claims
    }

    /// Verifies the signature.
    pub(super) fn is_signed_by(&self, key: &VerificationKey) -> bool {
        let verified = self.segments.verify_signature(self.algorithm(), &[key]);
        verified.is_ok()
    }

    /// The signed bytes and the signature.
    pub(super) fn signature(&self) -> Result<(&[u8], Vec<u8>), TokenError> {
        let signature = decode_base64url(self.segments.signature)?;
        Ok((self.segments.signing_input, signature))
    }

    pub(super) fn into_claims(self) -> JwtClaims {
        self.claims
    }
}

/// The claims of a JWT.
pub(super) struct JwtClaims(pub(super) Map<String, Value>);

impl JwtClaims {
    /// A claim; `None` if it is absent or `null`.
    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    pub(super) fn string(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(Value::as_str)
    }

    /// A `NumericDate` (RFC 7519 §2).
    pub(super) fn date(&self, name: &str) -> Option<UnixTime> {
        self.get(name)
            .and_then(Value::as_f64)
            .and_then(numeric_date)
    }
}
