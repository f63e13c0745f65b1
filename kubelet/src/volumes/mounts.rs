//! Memory-backed directories, and finding what is mounted below a pod's directory.

use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::{Result, io};

/// Mounts a tmpfs of at most `size` bytes on `directory`, unless one is mounted there.
pub fn tmpfs(directory: &Path, size: Option<i64>) -> Result<()> {
    if below(directory)?.iter().any(|mounted| mounted == directory) {
        return Ok(());
    }
    let options = size
        .filter(|size| *size > 0)
        .map(|size| format!("size={size}"));
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(
        Some("tmpfs"),
        directory,
        Some("tmpfs"),
        flags,
        options.as_deref(),
    )
    .map_err(|errno| io("cannot mount tmpfs on", directory)(errno.into()))
}

/// Unmounts everything at and below `directory`.
pub fn unmount_below(directory: &Path) -> Result<()> {
    for mounted in below(directory)?.iter().rev() {
        // Detached: a process that still has a file open there must not keep the pod from going.
        umount2(mounted, MntFlags::MNT_DETACH)
            .map_err(|errno| io("cannot unmount", mounted)(errno.into()))?;
    }
    Ok(())
}

/// Mount points at and below `directory`, in the order in which they were mounted.
fn below(directory: &Path) -> Result<Vec<PathBuf>> {
    let table = Path::new("/proc/self/mountinfo");
    let text = std::fs::read_to_string(table).map_err(io("cannot read", table))?;
    // Mount points have no symbolic links in them.
    let real = directory
        .canonicalize()
        .unwrap_or_else(|_| directory.to_owned());
    let points = text
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(unescape);
    Ok(points.filter(|point| point.starts_with(&real)).collect())
}

/// The kernel writes blanks and backslashes as three octal digits.
fn unescape(field: &str) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let digits = tail
            .get(..3)
            .and_then(|digits| std::str::from_utf8(digits).ok());
        match digits
            .filter(|_| first == b'\\')
            .and_then(|digits| u8::from_str_radix(digits, 8).ok())
        {
            Some(byte) => {
                out.push(byte);
                rest = &tail[3..];
            }
            None => {
                out.push(first);
                rest = tail;
            }
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(out))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_unescaped() {
        assert_eq!(unescape("/a\\040b\\134c"), PathBuf::from("/a b\\c"));
        assert_eq!(unescape("/plain\\"), PathBuf::from("/plain\\"));
        assert_eq!(unescape("/x\\999"), PathBuf::from("/x\\999"));
    }
}
