//! The file that a state is kept in: found, read, closed to others, replaced as a whole.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

/// More than the limits of applications, roles and keys lead to.
const MAX_BYTES: u64 = 32 << 20;

/// A file that was read and has passed [`read`]'s checks. Its mode is as it was.
pub(super) struct StateFileContents {
    file: File,
    pub(super) text: Vec<u8>,
}

impl StateFileContents {
    /// Whoever else could read it until now cannot from now on.
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

/// The file itself, be it there or not.
pub(super) fn resolve(path: &Path) -> io::Result<PathBuf> {
    match (fs::canonicalize(path), fs::symlink_metadata(path)) {
        (Err(error), Ok(_)) if is_missing(&error) => {
            // Its target may be on a disk that is yet to be mounted: no reason to begin anew.
            Err(invalid("is a link that leads nowhere"))
        }
        (Err(_), Err(error)) if is_missing(&error) => std::path::absolute(path),
        (resolved, _) => resolved,
    }
}

/// What is there, if anything. The path may be a mistake: nothing is changed, and nothing is opened
/// that would wait for a writer or never end.
pub(super) fn read(path: &Path) -> io::Result<Option<StateFileContents>> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => {}
        Ok(_) => return Err(invalid("is no file")),
        Err(error) if is_missing(&error) => return Ok(None),
        Err(error) => return Err(error),
    }
    let file = match File::open(path) {
        Err(error) if is_missing(&error) => return Ok(None),
        opened => opened?,
    };
    // What counts is the file that was opened: another may have been put in its place by then.
    let opened = file.metadata()?;
    if !opened.is_file() {
        return Err(invalid("is no file"));
    }
    #[cfg(unix)]
    check_owner_and_mode(path, &opened)?;
    let mut text = Vec::new();
    (&file).take(MAX_BYTES).read_to_end(&mut text)?;
    if (&file).read(&mut [0])? > 0 {
        return Err(invalid("is too large"));
    }
    Ok(Some(StateFileContents { file, text }))
}

/// Refuses a file whose text another user could have written: they would choose the keys.
#[cfg(unix)]
fn check_owner_and_mode(path: &Path, opened: &fs::Metadata) -> io::Result<()> {
    use std::os::unix::fs::MetadataExt as _;
    let user = rustix::process::geteuid().as_raw();
    if opened.uid() != user {
        let owner = opened.uid();
        return Err(invalid(format!(
            "belongs to another user (uid {owner}) than the one of this process (uid {user}): use another \
             file, or run `chown {user}` on it",
        )));
    }
    if opened.mode() & 0o022 != 0 {
        let mode = opened.mode() & 0o777;
        return Err(invalid(format!(
            "can be changed by other users (mode {mode:03o}): run `chmod 600 {}`",
            path.display()
        )));
    }
    Ok(())
}

/// Writes beside the file and renames, so that it is whole at every moment.
pub(super) fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    // A name that nobody can foresee, and a file that nobody made before.
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
        // Should this fail too, the first error says more.
        let _removed = fs::remove_file(&temporary);
    }
    written?;
    // The file is in place. That a file system cannot say when its folder has reached the disk,
    // as some cannot, undoes nothing.
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
