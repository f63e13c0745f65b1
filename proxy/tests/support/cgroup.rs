//! Cgroups for single threads.
//!
//! Socket hooks belong to a cgroup. Rather than to start processes, the test's own process moves into a
//! cgroup of its own, whose children are of type "threaded": threads may then be in different ones
//! (cgroups(7), "Cgroups v2 thread mode"). The last user moves the process back.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use super::unique;

/// The process's cgroup while any child is in use.
struct Root {
    path: PathBuf,
    users: u32,
}

static ROOT: Mutex<Option<Root>> = Mutex::new(None);

/// A threaded cgroup; removed at the end.
pub struct Cgroup {
    pub path: PathBuf,
}

impl Cgroup {
    pub fn new(what: &str) -> Self {
        let mut root = ROOT.lock().unwrap_or_else(|e| e.into_inner());
        let root = root.get_or_insert_with(|| Root {
            path: enter_root(),
            users: 0,
        });
        root.users += 1;
        let path = root.path.join(unique(what));
        fs::create_dir(&path).unwrap_or_else(|e| panic!("cannot make {}: {e}", path.display()));
        write(&path.join("cgroup.type"), "threaded");
        Self { path }
    }

    /// Moves the current thread in.
    pub fn enter(&self) {
        // SAFETY: takes no arguments.
        let thread = unsafe { libc::syscall(libc::SYS_gettid) };
        write(&self.path.join("cgroup.threads"), &thread.to_string());
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        remove_when_empty(&self.path);
        let mut root = ROOT.lock().unwrap_or_else(|e| e.into_inner());
        let Some(Root { path, users }) = root.as_mut() else {
            return;
        };
        *users -= 1;
        if *users == 0 {
            write(
                &mount().join("cgroup.procs"),
                &std::process::id().to_string(),
            );
            remove_when_empty(path);
            *root = None;
        }
    }
}

/// Threads that have ended leave their cgroup a moment later.
fn remove_when_empty(path: &Path) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
    while let Err(error) = fs::remove_dir(path) {
        if std::time::Instant::now() > deadline {
            eprintln!("cannot remove {}: {error}", path.display());
            return;
        }
        std::thread::yield_now();
    }
}

fn enter_root() -> PathBuf {
    let path = mount().join(unique("tests"));
    fs::create_dir(&path).unwrap_or_else(|e| panic!("cannot make {}: {e}", path.display()));
    write(&path.join("cgroup.procs"), &std::process::id().to_string());
    path
}

/// Where cgroup2 is mounted.
fn mount() -> PathBuf {
    let mounts = fs::read_to_string("/proc/mounts").expect("/proc/mounts");
    let cgroup2 = mounts.lines().find_map(|line| {
        let fields: Vec<_> = line.split(' ').collect();
        (fields.get(2) == Some(&"cgroup2")).then(|| PathBuf::from(fields[1]))
    });
    cgroup2.expect("this test needs a mounted cgroup2 hierarchy")
}

fn write(path: &Path, text: &str) {
    fs::write(path, text)
        .unwrap_or_else(|e| panic!("cannot write {text} to {}: {e}", path.display()));
}
