//! Files of keys and certificates: written whole or not at all, secrets with mode 0600.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use super::PkiError;

pub(super) struct Directory(PathBuf);

impl Directory {
    pub(super) fn open(path: PathBuf) -> Result<Self, PkiError> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(&path)
            .map_err(|source| PkiError::File {
                action: "create",
                path: path.clone(),
                source,
            })?;
        Ok(Self(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Held while files are looked for and made.
    pub(super) fn lock(&self) -> Result<Flock<File>, PkiError> {
        let path = self.file(".lock");
        let fail = |source| PkiError::File {
            action: "lock",
            path: path.clone(),
            source,
        };
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(fail)?;
        Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| fail(errno.into()))
    }

    pub(super) fn read(&self, name: &str) -> Result<Option<String>, PkiError> {
        let path = self.file(name);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(source) => Err(PkiError::File {
                action: "read",
                path,
                source,
            }),
        }
    }

    pub(super) fn write(&self, name: &str, text: &str) -> Result<(), PkiError> {
        write(&self.file(name), text, 0o644)
    }

    pub(super) fn write_secret(&self, name: &str, text: &str) -> Result<(), PkiError> {
        write(&self.file(name), text, 0o600)
    }
}

/// A bare file name lies in the working directory.
fn directory_of(path: &Path) -> &Path {
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    parent.unwrap_or(Path::new("."))
}

/// Replaces a file in one step, so that a reader or a crash never sees half of it.
pub(super) fn write(path: &Path, text: &str, mode: u32) -> Result<(), PkiError> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = PathBuf::from(name);
    let attempt = || {
        let _ = fs::remove_file(&temporary);
        let mut file = OpenOptions::new()
            .create_new(true)
            .write(true)
            .mode(mode)
            .open(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        File::open(directory_of(path))?.sync_all()
    };
    attempt().map_err(|source| {
        let _ = fs::remove_file(&temporary);
        PkiError::File {
            action: "write",
            path: path.to_owned(),
            source,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_name_is_in_the_working_directory() {
        assert_eq!(directory_of(Path::new("admin.conf")), Path::new("."));
        assert_eq!(directory_of(Path::new("a/admin.conf")), Path::new("a"));
        assert_eq!(directory_of(Path::new("/admin.conf")), Path::new("/"));
    }
}
