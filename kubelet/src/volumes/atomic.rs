//! Replaces the files of a volume in one step: they live in a timestamped directory that the symbolic link `..data`
//! points to, and the names that containers see are links through it. Readers see all of the old files or all of
//! the new ones (the layout is upstream's `AtomicWriter`, which programs watch for).

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use k8s_openapi::jiff::Timestamp;

use super::{File, Payload, Result, io};

const DATA: &str = "..data";
const NEW_DATA: &str = "..data_tmp";

/// Makes `payload` the contents of `directory`; does nothing when it is so already.
pub fn write(directory: &Path, payload: &Payload, group: Option<u32>) -> Result<()> {
    let current = std::fs::read_link(directory.join(DATA)).ok();
    if current
        .as_ref()
        .is_some_and(|current| is_current(&directory.join(current), payload, group))
    {
        return Ok(());
    }
    let version = new_version(directory, current.as_deref())?;
    for (path, file) in payload {
        write_file(&version.join(path), file, group)?;
    }
    switch(directory, &version)?;
    link_names(directory, payload)?;
    if let Some(old) = current {
        let old = directory.join(old);
        std::fs::remove_dir_all(&old).map_err(io("cannot remove", &old))?;
    }
    Ok(())
}

fn is_current(version: &Path, payload: &Payload, group: Option<u32>) -> bool {
    let same = |(path, file): (&PathBuf, &File)| {
        let path = version.join(path);
        let mode = std::fs::metadata(&path).map(|metadata| metadata.permissions().mode() & 0o7777);
        mode.is_ok_and(|mode| mode == mode_of(file, group))
            && std::fs::read(&path).is_ok_and(|data| data == file.data)
    };
    count_files(version) == payload.len() && payload.iter().all(same)
}

fn count_files(directory: &Path) -> usize {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .map(|entry| {
            if entry.path().is_dir() {
                count_files(&entry.path())
            } else {
                1
            }
        })
        .sum()
}

fn new_version(directory: &Path, current: Option<&Path>) -> Result<PathBuf> {
    let stamp = Timestamp::now()
        .strftime("..%Y_%m_%d_%H_%M_%S.")
        .to_string();
    let free = |number: &u32| {
        let name = format!("{stamp}{number}");
        current != Some(Path::new(&name)) && !directory.join(name).exists()
    };
    let number = (0_u32..).find(free).unwrap_or_default();
    let version = directory.join(format!("{stamp}{number}"));
    super::make_dir(&version, 0o755)?;
    Ok(version)
}

/// Files of a volume with an fsGroup are readable by the group.
fn mode_of(file: &File, group: Option<u32>) -> u32 {
    if group.is_some() {
        file.mode | 0o440
    } else {
        file.mode
    }
}

fn write_file(path: &Path, file: &File, group: Option<u32>) -> Result<()> {
    if let Some(parent) = path.parent() {
        super::make_dir(parent, 0o755)?;
    }
    let mode = mode_of(file, group);
    let opened = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    let mut out = opened.map_err(io("cannot create", path))?;
    out.write_all(&file.data)
        .map_err(io("cannot write", path))?;
    if let Some(group) = group {
        chown(path, None, Some(group)).map_err(io("cannot set group of", path))?;
    }
    out.set_permissions(std::fs::Permissions::from_mode(mode))
        .map_err(io("cannot set mode of", path))
}

/// Points `..data` at the new version; the rename is the moment of the change.
fn switch(directory: &Path, version: &Path) -> Result<()> {
    let (data, new_data) = (directory.join(DATA), directory.join(NEW_DATA));
    // Left over from a kubelet that died here.
    let _ = std::fs::remove_file(&new_data);
    let target = version.file_name().unwrap_or_default();
    symlink(target, &new_data).map_err(io("cannot link", &new_data))?;
    std::fs::rename(&new_data, &data).map_err(io("cannot replace", &data))
}

/// Links the visible names through `..data` and removes those that have gone.
fn link_names(directory: &Path, payload: &Payload) -> Result<()> {
    let first = |path: &PathBuf| {
        path.components()
            .next()
            .map(|part| part.as_os_str().to_owned())
    };
    let wanted: BTreeSet<OsString> = payload.keys().filter_map(first).collect();
    for name in &wanted {
        let link = directory.join(name);
        if std::fs::symlink_metadata(&link).is_err() {
            symlink(Path::new(DATA).join(name), &link).map_err(io("cannot link", &link))?;
        }
    }
    for entry in std::fs::read_dir(directory)
        .map_err(io("cannot list", directory))?
        .flatten()
    {
        let name = entry.file_name();
        let visible = !name.to_string_lossy().starts_with("..");
        if visible && !wanted.contains(&name) {
            std::fs::remove_file(entry.path()).map_err(io("cannot remove", &entry.path()))?;
        }
    }
    Ok(())
}
