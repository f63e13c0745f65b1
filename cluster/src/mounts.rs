//! What is mounted where, read from mountinfo (proc_pid_mountinfo(5)), and how to unmount a tree.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, umount2};

/// One line of mountinfo.
#[derive(Debug, PartialEq, Eq)]
pub struct Mount {
    /// `major:minor` of the file system.
    pub device: String,
    /// Where it is mounted.
    pub target: PathBuf,
    /// Type of the file system.
    pub kind: String,
    /// Options of the superblock, such as the controllers of a cgroup hierarchy.
    pub super_options: String,
}

/// All mounts that this process sees, in the order in which they were made.
pub fn list() -> io::Result<Vec<Mount>> {
    let text = fs::read_to_string("/proc/self/mountinfo")?;
    Ok(text.lines().filter_map(parse).collect())
}

fn parse(line: &str) -> Option<Mount> {
    let (left, right) = line.split_once(" - ")?;
    let left: Vec<&str> = left.split(' ').collect();
    let mut right = right.split(' ');
    Some(Mount {
        device: (*left.get(2)?).into(),
        target: unescape(left.get(4)?),
        kind: right.next()?.into(),
        super_options: right.nth(1)?.into(),
    })
}

/// Blank, tab, newline and backslash are written as a backslash and three octal digits.
fn unescape(text: &str) -> PathBuf {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let octal = |digits: &[u8]| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok();
        match tail.get(..3).and_then(octal) {
            Some(byte) if first == b'\\' => {
                out.push(byte);
                rest = &tail[3..];
            }
            _ => {
                out.push(first);
                rest = tail;
            }
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(out))
}

/// Mount points at or below a directory, innermost first.
pub fn below(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let inside = |mount: Mount| Some(mount.target).filter(|target| target.starts_with(directory));
    let mut targets: Vec<PathBuf> = list()?.into_iter().filter_map(inside).collect();
    targets.reverse();
    Ok(targets)
}

/// Unmounts everything at or below a directory. Lazily, since a mount that a dying process still holds
/// must not stop the rest; what stays visible is an error that names it.
pub fn unmount_below(directory: &Path) -> io::Result<()> {
    for target in below(directory)? {
        let flags = MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW;
        if let Err(error) = umount2(&target, flags) {
            tracing::debug!(target = %target.display(), %error, "cannot unmount");
        }
    }
    match below(directory)?.first() {
        None => Ok(()),
        Some(left) => Err(io::Error::other(format!(
            "{} is still mounted",
            left.display()
        ))),
    }
}

/// Whether a file system of that type is mounted exactly there.
pub fn is_mounted(target: &Path, kind: &str) -> bool {
    list().is_ok_and(|mounts| {
        let last = mounts.iter().rfind(|mount| mount.target == target);
        last.is_some_and(|mount| mount.kind == kind)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_with_optional_fields_and_escapes_is_parsed() {
        let line =
            r"36 35 98:0 / /mnt/a\040b rw,noatime master:1 shared:2 - cgroup cgroup rw,cpu,cpuacct";
        let mount = parse(line).unwrap();
        assert_eq!(mount.device, "98:0");
        assert_eq!(mount.target, Path::new("/mnt/a b"));
        assert_eq!(mount.kind, "cgroup");
        assert_eq!(mount.super_options, "rw,cpu,cpuacct");
    }

    #[test]
    fn garbage_is_skipped() {
        for line in ["", " - ", "a b c - d", r"1 2 3 / /x\04 - a b c"] {
            let _ = parse(line);
        }
    }
}
