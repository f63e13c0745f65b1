//! Named network namespaces as iproute2 keeps them: a bind mount in /run/netns that holds the namespace
//! open. `ip netns exec NAME-node1 ...` therefore works on them.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Context, Result, anyhow};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

/// Where named namespaces are mounted.
pub const DIRECTORY: &str = "/run/netns";

/// The file of a named namespace.
pub fn path(name: &str) -> PathBuf {
    Path::new(DIRECTORY).join(name)
}

/// Opens the named namespace, making it first when it is missing.
pub fn ensure(name: &str) -> Result<File> {
    if !is_mounted(name) {
        create(name).with_context(|| format!("cannot create network namespace {name}"))?;
    }
    open(name)
}

/// Opens a namespace that exists.
pub fn open(name: &str) -> Result<File> {
    File::open(path(name)).with_context(|| format!("cannot open network namespace {name}"))
}

/// Whether the name stands for a namespace, rather than for a plain file that a crash left behind.
pub fn is_mounted(name: &str) -> bool {
    let device = |path: &Path| fs::metadata(path).map(|meta| meta.dev());
    match (device(&path(name)), device(Path::new("/proc/self/ns/net"))) {
        (Ok(named), Ok(nsfs)) => named == nsfs,
        _ => false,
    }
}

/// The namespace's inode, which identifies it for as long as it exists.
pub fn inode(name: &str) -> io::Result<u64> {
    fs::metadata(path(name)).map(|meta| meta.ino())
}

/// Removes the name; the namespace itself goes with the last process and socket in it.
pub fn remove(name: &str) -> io::Result<()> {
    let path = path(name);
    while is_mounted(name) {
        umount2(&path, MntFlags::MNT_DETACH)?;
    }
    match fs::remove_file(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Runs `work` on a thread of its own inside the namespace. Threads that `work` starts are inside, too.
pub fn within<T: Send>(namespace: &File, work: impl FnOnce() -> T + Send) -> Result<T> {
    thread::scope(|scope| {
        let inside = scope.spawn(|| -> io::Result<T> {
            setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET)?;
            Ok(work())
        });
        let outcome = inside.join().map_err(|_| anyhow!("a worker panicked"))?;
        outcome.context("cannot enter the network namespace")
    })
}

/// The same for a future, on a runtime that lives as long as it runs.
pub fn block_on_within<T: Send, F: Future<Output = Result<T>>>(
    namespace: &File,
    work: impl FnOnce() -> F + Send,
) -> Result<T> {
    within(namespace, || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(work())
    })?
}

fn create(name: &str) -> Result<()> {
    fs::create_dir_all(DIRECTORY)?;
    let path = path(name);
    File::create(&path)?;
    let made = on_fresh_namespace(|own| {
        mount(
            Some(own),
            &path,
            None::<&str>,
            MsFlags::MS_BIND,
            None::<&str>,
        )
    });
    if made.is_err() {
        // The plain file would look like a namespace to `ip netns list`.
        let _ = fs::remove_file(&path);
    }
    made
}

/// Runs `work` in a new namespace and hands it the path under which that namespace can be mounted.
fn on_fresh_namespace(work: impl FnOnce(&Path) -> nix::Result<()> + Send) -> Result<()> {
    thread::scope(|scope| {
        let inside = scope.spawn(|| -> nix::Result<()> {
            unshare(CloneFlags::CLONE_NEWNET)?;
            work(Path::new("/proc/thread-self/ns/net"))
        });
        inside.join().map_err(|_| anyhow!("a worker panicked"))??;
        Ok(())
    })
}

/// Runs `work` in a namespace that nobody else sees and that is gone afterwards.
pub fn on_scratch_namespace<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let inside = scope.spawn(|| -> io::Result<T> {
            unshare(CloneFlags::CLONE_NEWNET)?;
            Ok(work())
        });
        inside
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("a worker panicked")))
    })
}
