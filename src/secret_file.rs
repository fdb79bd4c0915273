//! Reading of files that contain secrets, such as the mounted secrets of Kubernetes.

use std::error::Error;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use secrecy::SecretString;
use zeroize::Zeroizing;

/// Reads a regular file of at most `max_size` bytes, which must be UTF-8. Blocks.
///
/// The text is zeroized on drop, and no other copy of it remains.
pub(crate) fn read(path: &Path, max_size: usize) -> io::Result<Zeroizing<String>> {
    let file = open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    // Allocated at once, because a growing buffer leaves copies of the secret behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(max_size + 1));
    let limit = u64::try_from(max_size + 1).unwrap_or(u64::MAX);
    file.take(limit).read_to_end(&mut bytes)?;
    if bytes.len() > max_size {
        let reason = format!("it has more than {max_size} bytes");
        return Err(io::Error::other(reason));
    }
    String::from_utf8(std::mem::take(&mut *bytes))
        .map(Zeroizing::new)
        .map_err(|error| {
            drop(Zeroizing::new(error.into_bytes()));
            io::Error::other("it is not valid UTF-8")
        })
}

/// As [`read`]. The error follows the name of the file, and has nothing of its content.
pub(crate) fn read_text(path: &Path, max_size: usize) -> Result<Zeroizing<String>, String> {
    read(path, max_size).map_err(|error| format!("cannot be read: {error}"))
}

/// Reads the only line of a file, without line ends at its end, which editors and `echo` append.
/// Blocks. The error follows the name of the file, and has nothing of its content.
pub(crate) fn read_line(path: &Path, max_size: usize) -> Result<SecretString, String> {
    let text = read_text(path, max_size)?;
    match text.trim_end_matches(['\r', '\n']) {
        "" => Err("is empty".to_owned()),
        line if line.contains(['\r', '\n']) => Err("has more than one line".to_owned()),
        line => Ok(line.into()),
    }
}

/// Runs a function that reads files on a thread that may block: a file may be on a network.
///
/// The message of a panic may contain a secret, so the error of one does not have it.
pub(crate) async fn unblock<T: Send + 'static, E: Into<BoxError> + Send + 'static>(
    read: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, BoxError> {
    match tokio::task::spawn_blocking(read).await {
        Ok(result) => result.map_err(Into::into),
        Err(_panic) => Err("the function that reads it panicked".into()),
    }
}

type BoxError = Box<dyn Error + Send + Sync>;

/// Opens a file without waiting: a pipe would wait for its writer.
#[cfg(unix)]
fn open(path: &Path) -> io::Result<File> {
    use rustix::fs::{Mode, OFlags};

    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?.into())
}

#[cfg(not(unix))]
fn open(path: &Path) -> io::Result<File> {
    File::open(path)
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;
    use tempfile::TempDir;

    use super::*;

    #[test]
    fn a_file_is_read_up_to_its_maximum_size() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("secret");
        for (content, read_as) in [
            (&b""[..], Ok("")),
            (b"1234567", Ok("1234567")),
            (b"1234567\n", Ok("1234567\n")),
            (b"1234567\r\n", Err("it has more than 8 bytes")),
            (b"\xff", Err("it is not valid UTF-8")),
        ] {
            std::fs::write(&path, content).unwrap();
            let text = read(&path, 8);
            if let Ok(text) = &text {
                assert_eq!(text.capacity(), 9, "the buffer did not grow");
            }
            let text = text.map_err(|error| error.to_string());
            let text = text.as_deref().map(String::as_str);
            assert_eq!(text.map_err(String::as_str), read_as);
        }
        let folder_error = read(folder.path(), 8).unwrap_err();
        assert_eq!(folder_error.to_string(), "it is not a regular file");
        folder.close().unwrap();
        assert_eq!(read(&path, 8).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_line_is_read_without_line_ends_and_a_second_one_is_an_error() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("secret");
        for (content, read_as) in [
            ("one", Ok("one")),
            (" one \r\n\n", Ok(" one ")),
            ("", Err("is empty")),
            ("\r\n", Err("is empty")),
            ("one\ntwo\n", Err("has more than one line")),
            ("one\rtwo", Err("has more than one line")),
            ("123456789", Err("cannot be read: it has more than 8 bytes")),
        ] {
            std::fs::write(&path, content).unwrap();
            let line = read_line(&path, 8);
            let line = line.as_ref().map(|line| line.expose_secret());
            assert_eq!(line.map_err(String::as_str), read_as);
        }
    }

    #[tokio::test]
    async fn the_error_of_a_panic_does_not_have_its_message() {
        let read = || -> Result<(), String> { panic!("s3cr3t") };
        let error = unblock(read).await.unwrap_err();
        assert_eq!(error.to_string(), "the function that reads it panicked");
        let error = unblock(|| Err::<(), _>("is empty")).await.unwrap_err();
        assert_eq!(error.to_string(), "is empty");
    }

    #[cfg(unix)]
    #[test]
    fn a_pipe_without_a_writer_is_no_file_and_is_not_waited_for() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("pipe");
        let status = std::process::Command::new("mkfifo").arg(&path).status();
        assert!(status.unwrap().success());
        let result = read(&path, 8);
        assert_eq!(result.unwrap_err().to_string(), "it is not a regular file");
    }
}
