//! The mount of a Kubernetes secret or projected token, whose files are replaced while a test runs.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use tempfile::TempDir;

/// Its files are symlinks through `..data`. The folder is removed when the value is dropped.
pub struct Mount {
    folder: TempDir,
    versions: AtomicUsize,
}

impl Mount {
    /// A mount without files.
    pub fn new() -> Self {
        Self {
            folder: TempDir::new().unwrap(),
            versions: AtomicUsize::new(0),
        }
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn path(&self, file: &str) -> PathBuf {
        self.folder().join(file)
    }

    /// Replaces all files at once, in the order of the kubelet: it replaces `..data`, creates the
    /// symlinks of new files, and removes the previous version. A file that the new version lacks
    /// stays as a symlink to nothing.
    pub fn write(&self, files: &[(&str, impl AsRef<[u8]>)]) {
        let version = self.versions.fetch_add(1, Ordering::SeqCst);
        let name = |version: usize| format!("..version_{version}");
        let folder = self.path(&name(version));
        fs::create_dir(&folder).unwrap();
        for (file, content) in files {
            fs::write(folder.join(file), content).unwrap();
        }
        symlink(name(version), self.path("..data_new")).unwrap();
        fs::rename(self.path("..data_new"), self.path("..data")).unwrap();
        for (file, _) in files {
            if !self.path(file).is_symlink() {
                symlink(Path::new("..data").join(file), self.path(file)).unwrap();
            }
        }
        if let Some(previous) = version.checked_sub(1) {
            fs::remove_dir_all(self.path(&name(previous))).unwrap();
        }
    }
}
