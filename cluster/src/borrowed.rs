//! Things outside the cluster's own directories that had to be made because the machine had none: the
//! mount of the BPF file system, directories that containerd's shims and named namespaces live in. They
//! are noted before they are made, and given back when nobody else has come to use them.

use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount, umount};

use crate::layout::{BPFFS, Layout};
use crate::{mounts, netns};

/// Directories outside the cluster's own that it puts things into, innermost first.
const SHARED: [&str; 4] = [
    "/run/containerd/s",
    "/run/containerd",
    "/opt/containerd",
    netns::DIRECTORY,
];
/// Parents of the directories of all clusters; they are ours in any case.
const PARENTS: [&str; 2] = ["/run/sluice", "/var/lib/sluice"];

/// Notes which shared directories do not exist yet, and mounts the BPF file system if nobody has.
pub fn borrow(layout: &Layout) -> io::Result<()> {
    fs::create_dir_all(layout.state())?;
    let missing = SHARED.iter().filter(|path| !Path::new(path).exists());
    for path in missing {
        note(layout, path)?;
    }
    if !mounts::is_mounted(Path::new(BPFFS), "bpf") {
        note(layout, BPFFS)?;
        mount(
            Some("bpf"),
            BPFFS,
            Some("bpf"),
            MsFlags::empty(),
            Some("mode=700"),
        )?;
    }
    Ok(())
}

/// What was noted, kept in memory because the notes themselves are removed before they are acted on.
pub struct Borrowed(String);

impl Borrowed {
    /// Reads the notes; a cluster that has none borrowed nothing.
    pub fn read(layout: &Layout) -> Self {
        Self(fs::read_to_string(list(layout)).unwrap_or_default())
    }

    /// Gives back what nobody uses. A directory with something in it stays, and so does a busy mount.
    pub fn give_back(&self) {
        if self.has(BPFFS) && has_no_pins(Path::new(BPFFS)) {
            let _ = umount(BPFFS);
        }
        let shared = SHARED.iter().filter(|path| self.has(path));
        for path in shared.chain(&PARENTS) {
            let _ = fs::remove_dir(path);
        }
    }

    fn has(&self, path: &str) -> bool {
        self.0.lines().any(|line| line == path)
    }
}

fn note(layout: &Layout, path: &str) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(list(layout))?;
    writeln!(file, "{path}")
}

fn list(layout: &Layout) -> PathBuf {
    layout.state().join("borrowed")
}

/// The kernel itself puts two iterators into a new BPF file system.
fn has_no_pins(directory: &Path) -> bool {
    let own = |name: &OsStr| name == "maps.debug" || name == "progs.debug";
    let mut entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.all(|entry| own(&entry.file_name()))
}
