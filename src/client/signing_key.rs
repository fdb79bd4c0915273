//! The private key with which the client signs assertions.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::error::{ConfigError, ConfigErrorKind, Error, ErrorKind, Operation};
use crate::jwt::{Algorithm, Certificate, PrivateKey};
use crate::secret_file;

/// Maximum size of a key or certificate file in bytes.
const MAX_KEY_FILE: usize = 64 * 1024;

/// A private key that signs assertions, for [`PrivateKeyJwt`](super::PrivateKeyJwt).
///
/// The key is PEM in PKCS#8, PKCS#1 or SEC 1, not encrypted: RSA of at least 2048 bits, P-256,
/// P-384, P-521 or Ed25519. It signs with one algorithm. `Debug` does not show it, and its memory
/// is zeroized on drop.
///
/// # Examples
///
/// ```
/// # fn main() -> Result<(), tower_oauth::ConfigError> {
/// # let pem = "-----BEGIN PRIVATE KEY-----\n\
/// #     MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n\
/// #     -----END PRIVATE KEY-----\n";
/// use tower_oauth::client::{Algorithm, SigningKey};
///
/// // `pem` is "-----BEGIN PRIVATE KEY-----\n…".
/// let key = SigningKey::from_pem(pem, Algorithm::EdDsa)?.key_id("2026-11");
/// assert!(!format!("{key:?}").contains("MC4C"));
///
/// let error = SigningKey::from_pem(pem, Algorithm::Es256).unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "signing key does not sign with ES256: it is an Ed25519 key, for EdDSA"
/// );
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use]
pub struct SigningKey {
    /// `None` for that of the type of key.
    algorithm: Option<Algorithm>,
    key: KeySource,
    key_id: Option<String>,
    certificate: Option<CertificateSource>,
}

#[derive(Clone)]
enum KeySource {
    Fixed(Arc<PrivateKey>),
    /// Read for each token request.
    File(PathBuf),
}

#[derive(Clone)]
enum CertificateSource {
    Fixed(Arc<Certificate>),
    /// Read for each token request.
    File(PathBuf),
}

impl SigningKey {
    /// The key of a PEM text. Certificates beside it are ignored.
    ///
    /// # Errors
    ///
    /// If the text has no key, several keys, an encrypted one, a public one, one that does not
    /// sign with `algorithm`, or an RSA key of fewer than 2048 bits. The error says what to do, and
    /// does not contain the key.
    pub fn from_pem(
        pem: impl Into<SecretString>,
        algorithm: Algorithm,
    ) -> Result<Self, ConfigError> {
        let key = parse_key(pem.into().expose_secret(), Some(algorithm), "signing key")?;
        Ok(Self::new(KeySource::Fixed(Arc::new(key)), Some(algorithm)))
    }

    /// The key of a PEM file, which is read again for each token request.
    ///
    /// A key that is replaced, for example by cert-manager, needs no restart. If the file cannot be
    /// read, has more than 64 KiB or no such key, the token request fails with an error of kind
    /// [`Credentials`](ErrorKind::Credentials) and is retried. [`check_key`](Self::check_key) finds
    /// this at the start.
    ///
    /// ```
    /// use tower_oauth::PrivateKeyJwt;
    /// use tower_oauth::client::{Algorithm, SigningKey};
    ///
    /// let key = SigningKey::from_file("/run/tls/tls.key", Algorithm::Ps256)
    ///     .certificate_file("/run/tls/tls.crt");
    /// let client = PrivateKeyJwt::new("orders", key);
    /// # let _ = client;
    /// ```
    pub fn from_file(path: impl Into<PathBuf>, algorithm: Algorithm) -> Self {
        Self::new(KeySource::File(path.into()), Some(algorithm))
    }

    /// The key of a PEM file, with RS256 for an RSA key, and with the only algorithm of another.
    pub(super) fn from_file_of_any_type(path: impl Into<PathBuf>) -> Self {
        Self::new(KeySource::File(path.into()), None)
    }

    fn new(key: KeySource, algorithm: Option<Algorithm>) -> Self {
        Self {
            algorithm,
            key,
            key_id: None,
            certificate: None,
        }
    }

    /// Names the key in the header `kid`
    /// ([RFC 7515 §4.1.4](https://www.rfc-editor.org/rfc/rfc7515#section-4.1.4)), as the server
    /// knows it.
    pub fn key_id(mut self, key_id: impl Into<String>) -> Self {
        self.key_id = Some(key_id.into());
        self
    }

    /// Names the key by a certificate, in the header `x5t#S256`
    /// ([RFC 7515 §4.1.8](https://www.rfc-editor.org/rfc/rfc7515#section-4.1.8)).
    ///
    /// `pem` is the certificate, or a chain that begins with it. The certificate is not sent.
    ///
    /// # Errors
    ///
    /// If there is no certificate in the text, or the first one is of another key. With a key from
    /// a [file](Self::from_file) the latter is an error of the token request.
    pub fn certificate_pem(mut self, pem: &str) -> Result<Self, ConfigError> {
        let certificate = parse_certificate(pem, "certificate")?;
        if let KeySource::Fixed(key) = &self.key {
            check_certificate(&certificate, key, "certificate")?;
        }
        self.certificate = Some(CertificateSource::Fixed(Arc::new(certificate)));
        Ok(self)
    }

    /// Names the key by the certificate in a PEM file, which is read again for each token request.
    ///
    /// Otherwise as [`certificate_pem`](Self::certificate_pem).
    pub fn certificate_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.certificate = Some(CertificateSource::File(path.into()));
        self
    }

    /// Reads the files once, so that a wrong path or key is an error at startup. Blocks.
    ///
    /// ```
    /// use tower_oauth::client::{Algorithm, SigningKey};
    /// use tower_oauth::error::ConfigErrorKind;
    ///
    /// let key = SigningKey::from_file("/no/such/key", Algorithm::Es256);
    /// let error = key.check_key().unwrap_err();
    /// assert_eq!(error.kind(), ConfigErrorKind::Unavailable);
    /// assert!(error.to_string().starts_with("signing key file /no/such/key cannot be read"));
    /// ```
    ///
    /// # Errors
    ///
    /// If a file cannot be read, has no usable key or certificate, or the certificate is of another
    /// key.
    pub fn check_key(&self) -> Result<(), ConfigError> {
        self.load().map(drop)
    }

    /// Whether a file is read for each token request.
    pub(super) fn is_read(&self) -> bool {
        matches!(self.key, KeySource::File(_))
            || matches!(self.certificate, Some(CertificateSource::File(_)))
    }

    /// Signs a JWT on a thread that may block: files are read, and RSA takes milliseconds.
    pub(super) async fn sign(&self, typ: &'static str, claims: Value) -> Result<SignedJwt, Error> {
        let key = self.clone();
        let signed = secret_file::unblock(move || key.load()?.sign(typ, &claims)).await;
        signed.map_err(|source| {
            Error::new(Operation::TokenRequest, ErrorKind::Credentials).with_source(source)
        })
    }

    fn load(&self) -> Result<LoadedKey<'_>, ConfigError> {
        match self.load_once() {
            // Key and certificate may have been replaced between the two reads.
            Err(error) if error.kind() == ConfigErrorKind::Conflict && self.is_read() => {
                self.load_once()
            }
            loaded => loaded,
        }
    }

    fn load_once(&self) -> Result<LoadedKey<'_>, ConfigError> {
        let key = match &self.key {
            KeySource::Fixed(key) => Arc::clone(key),
            KeySource::File(path) => {
                let setting = format!("signing key file {}", path.display());
                let text = read_file(path, &setting)?;
                Arc::new(parse_key(&text, self.algorithm, &setting)?)
            }
        };
        let thumbprint = match &self.certificate {
            None => None,
            Some(CertificateSource::Fixed(certificate)) => {
                check_certificate(certificate, &key, "certificate")?;
                Some(certificate.thumbprint())
            }
            Some(CertificateSource::File(path)) => {
                let setting = format!("certificate file {}", path.display());
                let certificate = parse_certificate(&read_file(path, &setting)?, &setting)?;
                check_certificate(&certificate, &key, &setting)?;
                Some(certificate.thumbprint())
            }
        };
        Ok(LoadedKey {
            key,
            key_id: self.key_id.as_deref(),
            thumbprint,
        })
    }
}

/// A key that is ready to sign.
struct LoadedKey<'k> {
    key: Arc<PrivateKey>,
    key_id: Option<&'k str>,
    thumbprint: Option<String>,
}

/// A JWT, and the public key that verifies it.
pub(super) struct SignedJwt {
    pub(super) jwt: SecretString,
    pub(super) public_key: Vec<u8>,
}

impl LoadedKey<'_> {
    fn sign(&self, typ: &str, claims: &Value) -> Result<SignedJwt, ConfigError> {
        let mut header = json!({ "alg": self.key.algorithm().name(), "typ": typ });
        let names = [
            ("kid", self.key_id),
            ("x5t#S256", self.thumbprint.as_deref()),
        ];
        for (name, value) in names {
            if let (Some(value), Some(members)) = (value, header.as_object_mut()) {
                members.insert(name.to_owned(), json!(value));
            }
        }
        let jwt = self.key.sign_jwt(&header, claims);
        Ok(SignedJwt {
            jwt: jwt.map_err(|error| {
                ConfigError::without_value("signing key", error.to_string())
                    .with_kind(ConfigErrorKind::Unavailable)
            })?,
            public_key: self.key.public_key().to_vec(),
        })
    }
}

fn parse_key(
    pem: &str,
    algorithm: Option<Algorithm>,
    setting: &str,
) -> Result<PrivateKey, ConfigError> {
    PrivateKey::from_pem(pem, algorithm)
        .map_err(|error| ConfigError::without_value(setting, error.to_string()))
}

fn parse_certificate(pem: &str, setting: &str) -> Result<Certificate, ConfigError> {
    Certificate::from_pem(pem)
        .map_err(|error| ConfigError::without_value(setting, error.to_string()))
}

fn check_certificate(
    certificate: &Certificate,
    key: &PrivateKey,
    setting: &str,
) -> Result<(), ConfigError> {
    if certificate.certifies(key) {
        return Ok(());
    }
    let reason = "is of another key than the signing key: use the certificate of that key, in a \
                  chain as the first one";
    Err(ConfigError::without_value(setting, reason).with_kind(ConfigErrorKind::Conflict))
}

fn read_file(path: &Path, setting: &str) -> Result<Zeroizing<String>, ConfigError> {
    secret_file::read_text(path, MAX_KEY_FILE).map_err(|reason| {
        ConfigError::without_value(setting, reason).with_kind(ConfigErrorKind::Unavailable)
    })
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("SigningKey");
        if let Some(algorithm) = &self.algorithm {
            debug.field("algorithm", algorithm);
        }
        if let KeySource::File(path) = &self.key {
            debug.field("file", path);
        }
        if let Some(key_id) = &self.key_id {
            debug.field("key_id", key_id);
        }
        match &self.certificate {
            Some(CertificateSource::Fixed(certificate)) => {
                debug.field("x5t#S256", &certificate.thumbprint());
            }
            Some(CertificateSource::File(path)) => {
                debug.field("certificate_file", path);
            }
            None => {}
        }
        debug.finish_non_exhaustive()
    }
}
