//! Where things are pinned.
//!
//! `ROOT/v1/` holds the maps of ABI version 1, `ROOT/links/` the links: they outlive versions of the
//! ABI, so that a new version replaces the programs on them.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use sluice_common::ABI_VERSION;

use super::LoaderError;

/// The magic number of a BPF filesystem (linux/magic.h).
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;

/// Directory of the maps of this ABI version.
pub(crate) fn maps_dir(root: &Path) -> PathBuf {
    root.join(format!("v{ABI_VERSION}"))
}

/// Directory of the links.
pub(super) fn links_dir(root: &Path) -> PathBuf {
    root.join("links")
}

/// Makes the directories; fails when they are not on a BPF filesystem.
pub(super) fn prepare(root: &Path) -> Result<(), LoaderError> {
    make_dir(&maps_dir(root))?;
    make_dir(&links_dir(root))
}

/// Makes a directory on a BPF filesystem.
pub(super) fn make_dir(dir: &Path) -> Result<(), LoaderError> {
    let existing = dir
        .ancestors()
        .find(|dir| dir.exists())
        .unwrap_or(Path::new("/"));
    if !is_bpffs(existing).map_err(|source| pin_error(existing, source))? {
        return Err(LoaderError::NotBpffs {
            path: dir.to_owned(),
        });
    }
    fs::create_dir_all(dir).map_err(|source| pin_error(dir, source))
}

fn is_bpffs(path: &Path) -> io::Result<bool> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: all zero is valid for this structure of integers.
    let mut stat: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: a live C string, and a structure that the kernel fills.
    if unsafe { libc::statfs(path.as_ptr(), &mut stat) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(stat.f_type as i64 == BPF_FS_MAGIC)
}

/// The pins of all links.
pub(super) fn links(root: &Path) -> Result<Vec<PathBuf>, LoaderError> {
    entries(&links_dir(root))
}

/// Removes the links for which `keep` says no, which detaches their programs.
pub(super) fn remove_links(root: &Path, keep: impl Fn(&Path) -> bool) -> Result<(), LoaderError> {
    for pin in links(root)? {
        if !keep(&pin) {
            remove(&pin)?;
        }
    }
    Ok(())
}

/// Removes the maps of all ABI versions, and the directories.
pub(super) fn remove_maps(root: &Path) -> Result<(), LoaderError> {
    for dir in entries(root)? {
        if dir.is_dir() {
            for pin in entries(&dir)? {
                remove(&pin)?;
            }
            fs::remove_dir(&dir).map_err(|source| pin_error(&dir, source))?;
        }
    }
    match fs::remove_dir(root) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(pin_error(root, source)),
        _ => Ok(()),
    }
}

/// Removes a pin; one that is not there is no error.
pub(super) fn remove(pin: &Path) -> Result<(), LoaderError> {
    match fs::remove_file(pin) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(pin_error(pin, source)),
        _ => Ok(()),
    }
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>, LoaderError> {
    let list = match fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(|source| pin_error(dir, source))?,
    };
    let path = |entry: io::Result<fs::DirEntry>| {
        Ok(entry.map_err(|source| pin_error(dir, source))?.path())
    };
    list.map(path).collect()
}

fn pin_error(path: &Path, source: io::Error) -> LoaderError {
    LoaderError::Pin {
        path: path.to_owned(),
        source,
    }
}
