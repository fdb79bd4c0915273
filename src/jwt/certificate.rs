//! The certificate of a signing key, which an assertion names by its thumbprint.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::signing::PrivateKey;
use crate::pem::{self, InvalidPem};

/// A certificate (RFC 5280).
pub(crate) struct Certificate {
    der: Vec<u8>,
}

/// Why a text has no usable certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InvalidCertificate {
    Pem(InvalidPem),
    /// There are only blocks of other kinds.
    NoCertificate,
}

impl fmt::Display for InvalidCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pem(error) => error.fmt(f),
            Self::NoCertificate => {
                f.write_str("has no certificate: it needs a line `-----BEGIN CERTIFICATE-----`")
            }
        }
    }
}

impl Certificate {
    /// The first certificate of a PEM text: in a chain, that of the client.
    pub(crate) fn from_pem(text: &str) -> Result<Self, InvalidCertificate> {
        let blocks = pem::blocks(text).map_err(InvalidCertificate::Pem)?;
        let first = blocks.iter().find(|block| block.label == "CERTIFICATE");
        let first = first.ok_or(InvalidCertificate::NoCertificate)?;
        let der = first.decode().map_err(InvalidCertificate::Pem)?;
        Ok(Self { der: der.to_vec() })
    }

    /// The value of `x5t#S256` (RFC 7515 §4.1.8).
    pub(crate) fn thumbprint(&self) -> String {
        URL_SAFE_NO_PAD.encode(digest(&SHA256, &self.der))
    }

    /// Whether it certifies the public key of this private key.
    ///
    /// Finds a certificate of another key, a mistake. It is no check of the certificate, which is
    /// not parsed: DER contains the public key as it is (RFC 5280 §4.1.2.7). A compressed point,
    /// which RFC 5480 §2.2 leaves optional, would not be found.
    pub(crate) fn certifies(&self, key: &PrivateKey) -> bool {
        memchr::memmem::find(&self.der, key.public_key()).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8705, appendix A.
    const RFC_8705: &str = "-----BEGIN CERTIFICATE-----
MIIBBjCBrAIBAjAKBggqhkjOPQQDAjAPMQ0wCwYDVQQDDARtdGxzMB4XDTE4MTAx
ODEyMzcwOVoXDTIyMDUwMjEyMzcwOVowDzENMAsGA1UEAwwEbXRsczBZMBMGByqG
SM49AgEGCCqGSM49AwEHA0IABNcnyxwqV6hY8QnhxxzFQ03C7HKW9OylMbnQZjjJ
/Au08/coZwxS7LfA4vOLS9WuneIXhbGGWvsDSb0tH6IxLm8wCgYIKoZIzj0EAwID
SQAwRgIhAP0RC1E+vwJD/D1AGHGzuri+hlV/PpQEKTWUVeORWz83AiEA5x2eXZOV
bUlJSGQgjwD5vaUaKlLR50Q2DmFfQj1L+SY=
-----END CERTIFICATE-----
";

    #[test]
    fn the_thumbprint_of_the_certificate_of_rfc_8705_is_that_of_its_appendix() {
        let certificate = Certificate::from_pem(RFC_8705).unwrap();
        let expected = "A4DtL2JmUMhAsvJj5tKyn64SqzmuXbMrJa0n761y5v0";
        assert_eq!(certificate.thumbprint(), expected);
    }
}
