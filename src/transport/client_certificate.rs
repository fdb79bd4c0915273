//! An HTTPS client with a client certificate, whose files are read again when they have changed.
//!
//! The files are read for each request, because no other way sees all replacements: Kubernetes
//! replaces a symlink to a folder, and a file may be replaced within the resolution of its time.
//! The requests are those for metadata, keys and tokens, and the files are small.

use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use zeroize::Zeroizing;

use super::diagnosis::find_in_chain;
use crate::error::{BoxError, ConfigError, ConfigErrorKind};
use crate::pem::{self, Block, InvalidPem};
use crate::{secret_file, trace};

/// Maximum size of each file in bytes.
const MAX_FILE: usize = 256 * 1024;

/// Makes the builder of a client, without the certificate.
pub(super) type MakeBuilder = dyn Fn() -> reqwest::ClientBuilder + Send + Sync;

/// Builds a client with the settings that all clients have in common.
pub(super) type Build = fn(reqwest::ClientBuilder) -> reqwest::Result<reqwest::Client>;

/// The client with the certificate in these files. Clones share the client.
#[derive(Clone)]
pub(super) struct CertificateClient(Arc<Shared>);

struct Shared {
    files: CertificateFiles,
    make_builder: Box<MakeBuilder>,
    build: Build,
    /// The key of the fingerprints.
    fingerprints: RandomState,
    /// Held while a thread reads the files. Further requests wait without a thread: on a file system
    /// that hangs, each would take one.
    reading: Arc<tokio::sync::Mutex<()>>,
    /// Not locked while anything blocks.
    state: Mutex<State>,
}

struct State {
    client: reqwest::Client,
    /// Of the files that `client` was built with.
    fingerprint: u64,
    /// The failure of the last replacement. It is logged once.
    logged: Option<String>,
}

/// Where certificate and key are. Both may be in the same file.
#[derive(Clone, Debug)]
struct CertificateFiles {
    certificate: PathBuf,
    key: PathBuf,
}

impl CertificateClient {
    /// Reads the files, and builds the first client. Blocks.
    pub(super) fn new(
        certificate: PathBuf,
        key: PathBuf,
        make_builder: Box<MakeBuilder>,
        build: Build,
    ) -> Result<Self, ConfigError> {
        let files = CertificateFiles { certificate, key };
        let fingerprints = RandomState::new();
        let pem = files.read()?;
        let client = files.client(&pem, &*make_builder, build)?;
        let state = State {
            client,
            fingerprint: fingerprints.hash_one(&*pem),
            logged: None,
        };
        Ok(Self(Arc::new(Shared {
            files,
            make_builder,
            build,
            fingerprints,
            reading: Arc::default(),
            state: Mutex::new(state),
        })))
    }

    /// The client with the certificate that the files have now, or with the last usable one.
    pub(super) async fn current(&self) -> reqwest::Client {
        let shared = Arc::clone(&self.0);
        let reading = Arc::clone(&shared.reading).lock_owned().await;
        let current = secret_file::unblock(move || {
            // Until the thread ends, even if the request is dropped before.
            let _reading = reading;
            Ok::<_, BoxError>(shared.current())
        })
        .await;
        let (client, failure) = current.unwrap_or_else(|_panic| {
            let failure = "the function that makes the client builder panicked";
            (self.0.state().client.clone(), Some(failure.to_owned()))
        });
        if let Some(error) = failure {
            warn(&error);
        }
        client
    }
}

impl Shared {
    /// A thread that panics leaves a usable state: nothing that may panic changes it.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The client to use, and a failure that is to be logged. Blocks. Called by one thread at a
    /// time.
    fn current(&self) -> (reqwest::Client, Option<String>) {
        let fingerprint = self.state().fingerprint;
        let replacement = self.replacement(fingerprint);
        let mut state = self.state();
        let failure = match replacement {
            Ok(None) => None,
            Ok(Some((client, fingerprint))) => {
                state.client = client;
                state.fingerprint = fingerprint;
                None
            }
            // The last certificate may still be valid: the handshake decides.
            Err(error) => Some(error.to_string()),
        };
        let is_logged = failure == state.logged;
        state.logged.clone_from(&failure);
        (state.client.clone(), failure.filter(|_| !is_logged))
    }

    /// A new client, if the files are not those of this fingerprint.
    fn replacement(&self, fingerprint: u64) -> Result<Option<(reqwest::Client, u64)>, ConfigError> {
        let read = || {
            let pem = self.files.read()?;
            let read = self.fingerprints.hash_one(&*pem);
            if read == fingerprint {
                return Ok(None);
            }
            let client = self.files.client(&pem, &*self.make_builder, self.build)?;
            Ok(Some((client, read)))
        };
        // The files may have been replaced between the two reads.
        read().or_else(|_error: ConfigError| read())
    }
}

impl CertificateFiles {
    /// Certificates and key, as one PEM text, which is zeroized on drop.
    fn read(&self) -> Result<Zeroizing<String>, ConfigError> {
        let read = |path: &Path, what: &str| {
            secret_file::read_text(path, MAX_FILE)
                .map_err(|reason| error(what, path, reason).with_kind(ConfigErrorKind::Unavailable))
        };
        let certificate = read(&self.certificate, CERTIFICATE_FILE)?;
        let blocks = |pem, what, path: &Path| match pem::blocks(pem) {
            Err(InvalidPem::NoBlock) => Ok(Vec::new()),
            blocks => blocks.map_err(|invalid| error(what, path, invalid.to_string())),
        };
        let found = blocks(&certificate, CERTIFICATE_FILE, &self.certificate)?;
        if !found.iter().any(|block| block.label == "CERTIFICATE") {
            let reason = "has no PEM certificate (BEGIN CERTIFICATE)";
            return Err(error(CERTIFICATE_FILE, &self.certificate, reason));
        }
        let key = match self.key == self.certificate {
            true => None,
            false => Some(read(&self.key, KEY_FILE)?),
        };
        let found = match &key {
            Some(key) => blocks(key, KEY_FILE, &self.key)?,
            None => found,
        };
        let private_keys = || found.iter().filter(|block| block.is_private_key());
        if private_keys().any(Block::is_encrypted) {
            let reason = "is encrypted: it must be a private key without a passphrase";
            return Err(error(KEY_FILE, &self.key, reason));
        }
        if private_keys().next().is_none() {
            let reason = "has no PEM private key (BEGIN PRIVATE KEY)";
            return Err(error(KEY_FILE, &self.key, reason));
        }
        let key = key.as_ref().map_or("", |key| key.as_str());
        let mut pem = Zeroizing::new(String::with_capacity(certificate.len() + key.len() + 1));
        pem.push_str(&certificate);
        pem.push('\n');
        pem.push_str(key);
        Ok(pem)
    }

    fn client(
        &self,
        pem: &str,
        make_builder: &MakeBuilder,
        build: Build,
    ) -> Result<reqwest::Client, ConfigError> {
        let identity = reqwest::Identity::from_pem(pem.as_bytes());
        identity
            .and_then(|identity| build(make_builder().identity(identity)))
            .map_err(|error| self.unusable(&error))
    }

    /// The error of a client that cannot be built. rustls does not quote the files.
    fn unusable(&self, cause: &reqwest::Error) -> ConfigError {
        let tls = find_in_chain(cause, &|error| {
            error.downcast_ref::<rustls::Error>().cloned()
        });
        let reason = match tls {
            Some(rustls::Error::InconsistentKeys(_)) => {
                let certificate = self.certificate.display();
                format!("does not have the key of the certificate in {certificate}")
            }
            Some(tls) => format!("cannot be used with the certificate: {tls}"),
            None => format!("cannot be used with the certificate: {cause}"),
        };
        error(KEY_FILE, &self.key, reason)
    }
}

#[cfg_attr(
    not(feature = "tracing"),
    expect(unused_variables, reason = "nothing is logged")
)]
fn warn(error: &str) {
    trace::warn!(
        target: "tower_oauth::client",
        error = %error,
        "the client certificate cannot be replaced: the last usable one is sent"
    );
}

const CERTIFICATE_FILE: &str = "client certificate file";
const KEY_FILE: &str = "client key file";

fn error(what: &str, path: &Path, reason: impl Into<String>) -> ConfigError {
    ConfigError::without_value(format!("{what} {}", path.display()), reason)
}

impl fmt::Debug for CertificateClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.files.fmt(f)
    }
}
