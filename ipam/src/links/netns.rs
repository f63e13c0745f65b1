//! Network namespaces by path, and visiting them with one thread.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, setns};
use nix::sys::statfs::{NSFS_MAGIC, fstatfs};
use thiserror::Error;

/// Why a namespace could not be opened or visited.
#[derive(Debug, Error)]
pub enum NetNsError {
    /// There is nothing at the path: the pod is gone.
    #[error("network namespace {0} does not exist")]
    Gone(PathBuf),
    /// The path is some other file.
    #[error("{0} is not a network namespace")]
    NotANamespace(PathBuf),
    /// The operating system said no.
    #[error("cannot {action} network namespace {path}: {reason}")]
    Io {
        /// "open" or "enter".
        action: &'static str,
        /// Which namespace.
        path: PathBuf,
        /// Its reason.
        reason: io::Error,
    },
}

/// An open network namespace, which lives at least as long as this.
#[derive(Debug)]
pub struct NetNs {
    file: File,
    path: PathBuf,
}

impl NetNs {
    /// Opens a namespace file such as `/run/netns/NAME` or `/proc/PID/ns/net`.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, NetNsError> {
        let path = path.as_ref().to_owned();
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(NetNsError::Gone(path));
            }
            Err(reason) => {
                return Err(NetNsError::Io {
                    action: "open",
                    path,
                    reason,
                });
            }
        };
        match fstatfs(&file) {
            Ok(stat) if stat.filesystem_type() == NSFS_MAGIC => Ok(Self { file, path }),
            // A namespace's mount is gone, its mount point is left: a common state after a crash.
            Ok(_) => Err(NetNsError::NotANamespace(path)),
            Err(errno) => Err(NetNsError::Io {
                action: "open",
                path,
                reason: errno.into(),
            }),
        }
    }

    /// The namespace that this thread is in.
    pub fn current() -> Result<Self, NetNsError> {
        Self::open("/proc/thread-self/ns/net")
    }

    /// Where it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether both are the same namespace.
    pub fn is_same(&self, other: &NetNs) -> io::Result<bool> {
        let (a, b) = (self.file.metadata()?, other.file.metadata()?);
        Ok((a.dev(), a.ino()) == (b.dev(), b.ino()))
    }

    /// The open file, for messages that name a namespace by descriptor.
    pub fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Runs `visit` with this thread inside the namespace, and comes back.
    pub fn enter<R>(&self, visit: impl FnOnce() -> R) -> Result<R, NetNsError> {
        let home = Home(Self::current()?);
        self.join()?;
        let result = visit();
        drop(home);
        Ok(result)
    }

    fn join(&self) -> Result<(), NetNsError> {
        setns(&self.file, CloneFlags::CLONE_NEWNET).map_err(|errno| NetNsError::Io {
            action: "enter",
            path: self.path.clone(),
            reason: errno.into(),
        })
    }
}

/// Brings the thread home also when the visit panics.
struct Home(NetNs);

impl Drop for Home {
    fn drop(&mut self) {
        if let Err(error) = self.0.join() {
            // Going on would configure the pod as if it were the host.
            eprintln!("sluice: cannot leave a pod's network namespace: {error}");
            std::process::abort();
        }
    }
}
