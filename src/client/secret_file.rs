//! A client secret in a file, such as a mounted secret of Kubernetes.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;

use secrecy::SecretString;
use zeroize::Zeroizing;

use crate::error::{ConfigError, ConfigErrorKind};

/// Maximum size of the file in bytes.
const MAX_SIZE: usize = 64 * 1024;

/// Reads the secret, without line ends at its end, which editors and `echo` append. Blocks.
pub(super) fn read_secret_file(path: &Path) -> Result<SecretString, ConfigError> {
    let error = |reason: String| {
        ConfigError::without_value(format!("client secret file {}", path.display()), reason)
            .with_kind(ConfigErrorKind::Unavailable)
    };
    let unreadable = |source: std::io::Error| error(format!("cannot be read: {source}"));
    // Opening a pipe would wait for its writer.
    if !fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(error("is not a regular file".to_owned()));
    }
    // Allocated at once, because a growing buffer leaves copies of the secret behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_SIZE + 1));
    let limit = u64::try_from(MAX_SIZE + 1).unwrap_or(u64::MAX);
    let file = File::open(path).map_err(unreadable)?;
    file.take(limit)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if bytes.len() > MAX_SIZE {
        return Err(error(format!("has more than {MAX_SIZE} bytes")));
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| error("is not valid UTF-8".to_owned()))?;
    let secret = text.trim_end_matches(['\r', '\n']);
    if secret.is_empty() {
        return Err(error("is empty".to_owned()));
    }
    Ok(secret.into())
}
