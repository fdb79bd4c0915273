//! The state file: path resolution, safe reading, permissions, and atomic replacement.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

/// More than the limits of applications, roles and keys allow.
const MAX_FILE_SIZE: u64 = 64 << 20;

/// The contents of a file that passed the checks of [`read`]. Its mode is unchanged.
pub(super) struct StateFileContents {
    file: File,
    pub(super) text: Vec<u8>,
}

impl StateFileContents {
    /// Sets mode 0600 if other users have any access.
    pub(super) fn restrict_permissions(&self) -> io::Result<()> {
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            if self.file.metadata()?.permissions().mode() & 0o077 != 0 {
                self.file
                    .set_permissions(fs::Permissions::from_mode(0o600))?;
            }
        }
        Ok(())
    }
}

/// Resolves symbolic links. The file need not exist.
pub(super) fn resolve(path: &Path) -> io::Result<PathBuf> {
    match (fs::canonicalize(path), fs::symlink_metadata(path)) {
        (Err(error), Ok(_)) if is_missing(&error) => {
            // The target may be on a disk that is not mounted yet, so do not start with new state.
            Err(invalid("is a symbolic link that leads nowhere"))
        }
        (Err(_), Err(error)) if is_missing(&error) => std::path::absolute(path),
        (resolved, _) => resolved,
    }
}

/// Reads the file if it exists. The path may be wrong, so nothing is changed, and pipes and
/// devices, which may block or never end, are not opened.
pub(super) fn read(path: &Path) -> io::Result<Option<StateFileContents>> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => {}
        Ok(_) => return Err(invalid("is no file: use the path of a regular file")),
        Err(error) if is_missing(&error) => return Ok(None),
        Err(error) => return Err(error),
    }
    let file = match File::open(path) {
        Err(error) if is_missing(&error) => return Ok(None),
        opened => opened?,
    };
    // Check the opened file: the path may refer to another file by now.
    let opened = file.metadata()?;
    if !opened.is_file() {
        return Err(invalid("is no file: use the path of a regular file"));
    }
    #[cfg(unix)]
    check_owner_and_mode(path, &opened)?;
    let mut text = Vec::new();
    (&file).take(MAX_FILE_SIZE).read_to_end(&mut text)?;
    if (&file).read(&mut [0])? > 0 {
        return Err(invalid("is too large for a state file"));
    }
    Ok(Some(StateFileContents { file, text }))
}

/// Rejects a file that another user could have written: that user would control the keys.
#[cfg(unix)]
fn check_owner_and_mode(path: &Path, opened: &fs::Metadata) -> io::Result<()> {
    use std::os::unix::fs::MetadataExt as _;
    let user = rustix::process::geteuid().as_raw();
    if opened.uid() != user {
        let owner = opened.uid();
        return Err(invalid(format!(
            "belongs to another user (uid {owner}) than this process (uid {user}): use another \
             file, or run `chown {user}` on it",
        )));
    }
    if opened.mode() & 0o022 != 0 {
        let mode = opened.mode() & 0o777;
        return Err(invalid(format!(
            "is writable by other users (mode {mode:03o}): run `chmod 600 {}`",
            path.display()
        )));
    }
    Ok(())
}

/// Replaces the file atomically: writes a temporary file in the same folder and renames it.
pub(super) fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    // An unpredictable name, and `create_new`, so that no other user can prepare the file.
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}.new", uuid::Uuid::new_v4().simple()));
    let temporary = PathBuf::from(temporary);
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&temporary)?;
    let written = file
        .write_all(text)
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // If this fails too, the first error is more useful.
        let _removed = fs::remove_file(&temporary);
    }
    written?;
    // The file is in place, and some file systems cannot sync folders: ignore the result.
    #[cfg(unix)]
    let _synced = path
        .parent()
        .map_or(Ok(()), |folder| File::open(folder)?.sync_all());
    Ok(())
}

fn is_missing(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

fn invalid(reason: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, reason.into())
}
