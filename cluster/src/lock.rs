//! One `up` or `down` of a cluster at a time.

use std::fs::{self, File};

use anyhow::{Result, bail};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::layout::Layout;

/// Held until dropped; the kernel lets go of it when the process dies.
pub struct Lock(#[allow(dead_code, reason = "kept for its drop")] Flock<File>);

impl Lock {
    /// Locks the cluster's state directory, making it when it is missing.
    pub fn take(layout: &Layout) -> Result<Self> {
        let directory = layout.state();
        fs::create_dir_all(&directory)?;
        match Flock::lock(File::open(&directory)?, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Self(lock)),
            Err((_, Errno::EWOULDBLOCK)) => {
                let name = layout.name();
                bail!(
                    "another `sluice up` or `sluice down` of cluster {name:?} is running: wait for it"
                )
            }
            Err((_, error)) => Err(error.into()),
        }
    }
}
