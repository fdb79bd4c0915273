//! Initial keys from a file, which are as old as the file.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use super::jwk_set::parse_set;
use super::policy::RefreshPolicy;
use super::set::KeySet;
use crate::clock::UnixTime;
use crate::error::{ConfigError, ConfigErrorKind, Error, ErrorKind, Operation};

/// Reads a JWK Set document. Returns the file's modification time as its time of fetch.
pub(crate) fn read(path: &Path) -> Result<(KeySet, UnixTime), Error> {
    let unusable = |reason: String| {
        let setting = ConfigError::new("initial_keys_file", path.to_string_lossy(), reason)
            .with_kind(ConfigErrorKind::Unavailable);
        Error::new(Operation::JwksFetch, ErrorKind::Configuration).with_source(setting)
    };
    let limit = RefreshPolicy::new().max_body;
    let mut document = Vec::new();
    let modified = File::open(path)
        .and_then(|file| {
            let modified = file.metadata()?.modified()?;
            // One byte over the limit, to detect a document that is too large.
            file.take(u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1))
                .read_to_end(&mut document)?;
            Ok(modified)
        })
        .map_err(|error| unusable(format!("cannot be read: {error}")))?;
    if document.len() > limit {
        return Err(unusable("is too large".to_owned()));
    }
    Ok((parse_set(&document, 1)?, modified.into()))
}
