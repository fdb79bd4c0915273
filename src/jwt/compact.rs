//! The compact form: three base64url parts between two dots (RFC 7515 §3.1, §7.1).

use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use base64::{Engine as _, decoded_len_estimate};
use smallvec::SmallVec;

use super::Defect;

/// The encoded header may be this long; real ones have about 150 bytes.
const MAX_HEADER: usize = 8 * 1024;

/// The longest signature that exists here: RSA with 8192 bits.
const MAX_SIGNATURE: usize = 1024;

/// Headers and payloads seldom have more bytes.
const USUAL: usize = 1024;

/// The parts of a token, still encoded, borrowed from it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segments<'t> {
    pub(crate) header: &'t str,
    pub(crate) payload: &'t str,
    pub(crate) signature: &'t str,
    /// What was signed: header and payload with the dot between them.
    pub(crate) signing_input: &'t str,
}

impl<'t> Segments<'t> {
    /// Splits a token; nothing is decoded or copied.
    pub(crate) fn split(token: &'t str) -> Result<Self, Defect> {
        let (signing_input, signature) = token.rsplit_once('.').ok_or(Defect::Malformed)?;
        let (header, payload) = signing_input.split_once('.').ok_or(Defect::Malformed)?;
        // A third dot is refused here already: it also is no character of base64url.
        if payload.contains('.') || header.is_empty() || signature.is_empty() {
            return Err(Defect::Malformed);
        }
        if header.len() > MAX_HEADER {
            return Err(Defect::TooLarge);
        }
        Ok(Self { header, payload, signature, signing_input })
    }
}

/// Decodes exact base64url: no padding, no other character, no stray trailing bits
/// (RFC 7515 §2, rfc8725bis §3.14).
///
/// On the stack, but for parts of unusual length: most tokens that are refused cost no allocation.
pub(crate) fn decode_base64url(encoded: &str) -> Result<SmallVec<[u8; USUAL]>, Defect> {
    let mut bytes = SmallVec::new();
    bytes.resize(decoded_len_estimate(encoded.len()), 0);
    let len = URL_SAFE_NO_PAD.decode_slice(encoded, &mut bytes).map_err(|_| Defect::Malformed)?;
    bytes.truncate(len);
    Ok(bytes)
}

/// A decoded signature, on the stack.
pub(crate) struct Base64Url {
    bytes: [u8; MAX_SIGNATURE],
    len: usize,
}

impl Base64Url {
    pub(crate) fn decode(encoded: &str) -> Result<Self, Defect> {
        let mut bytes = [0; MAX_SIGNATURE];
        let len = URL_SAFE_NO_PAD.decode_slice(encoded, &mut bytes).map_err(|_| Defect::Malformed)?;
        Ok(Self { bytes, len })
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_has_exactly_three_parts() {
        assert!(Segments::split("a.b.c").is_ok());
        for bad in ["", "a", "a.b", "a.b.c.d", "a.b.c.d.e", "..", ".b.c", "a.b."] {
            assert_eq!(Segments::split(bad).unwrap_err(), Defect::Malformed, "{bad:?}");
        }
        assert_eq!(Segments::split(&".".repeat(65_000)).unwrap_err(), Defect::Malformed);
    }

    #[test]
    fn a_header_of_unusual_length_is_refused_unread() {
        let header = "a".repeat(MAX_HEADER + 1);
        assert_eq!(Segments::split(&format!("{header}.b.c")).unwrap_err(), Defect::TooLarge);
    }

    #[test]
    fn base64url_is_exact() {
        assert_eq!(decode_base64url("-_8").unwrap().as_slice(), [0xfb, 0xff]);
        assert_eq!(decode_base64url(&"A".repeat(8000)).unwrap().len(), 6000);
        for bad in ["-_8=", "+/8", "-_ 8", "-_8\n", "-_8\0", "-_9", "A", "AAAAA", "A?AA"] {
            assert_eq!(decode_base64url(bad).unwrap_err(), Defect::Malformed, "{bad:?}");
        }
        assert!(Base64Url::decode(&"A".repeat(1366)).is_ok());
        assert!(Base64Url::decode(&"A".repeat(1370)).is_err());
    }
}
