//! Parsing and validation of JWT access tokens, and signatures of JWTs. Pure: no I/O, no clock, no
//! lock.
//!
//! Each type is one step of the validation, and the only way to the next:
//!
//! ```text
//! Segments, Header ──parse──▶ UnverifiedToken
//!     ──verify_signature──▶ SignatureVerified ──validate──▶ ValidatedToken
//! ```
//!
//! A [`PrivateKey`] signs: the assertions of the client, and the tokens of the development server.
//!
//! RFC 7515 (compact serialization, header), RFC 7519 (claims), RFC 8725 and its successor (what
//! to reject), RFC 9068 (access token profile).

mod algorithm;
mod certificate;
mod claims;
mod compact;
mod confirmation;
mod error;
mod header;
mod mismatch;
mod signing;
mod strict_json;
mod token;
mod verification_key;

pub use self::algorithm::Algorithm;
pub(crate) use self::certificate::Certificate;
pub use self::claims::TokenProfile;
pub(crate) use self::claims::{
    Claims, ClaimsCheck, ClaimsFault, ClaimsPolicy, UnverifiedClaims, numeric_date,
};
pub(crate) use self::compact::{Segments, decode_base64url};
pub(crate) use self::confirmation::Thumbprint;
pub(crate) use self::error::TokenError;
pub(crate) use self::header::{Header, is_forbidden_member, valid_key_id};
pub(crate) use self::mismatch::Mismatch;
#[cfg(feature = "authorization-server")]
pub(crate) use self::signing::KeyType;
pub(crate) use self::signing::{PrivateKey, new_token_id};
pub(crate) use self::strict_json::{SizeLimits, StrKey};
pub(crate) use self::token::UnverifiedToken;
pub(crate) use self::verification_key::{Fingerprint, InvalidKey, KeyMaterial, VerificationKey};
