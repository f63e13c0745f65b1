//! One `up` or `down` of a cluster at a time.

use std::fs::{self, File};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::layout::Layout;

/// A process that was forked but has not become its program yet holds its killed parent's lock for a moment.
const PATIENCE: Duration = Duration::from_secs(3);
const INTERVAL: Duration = Duration::from_millis(20);

/// Held until dropped; the kernel lets go of it when the process dies.
pub struct Lock(#[allow(dead_code, reason = "kept for its drop")] Flock<File>);

impl Lock {
    /// Locks the cluster's state directory, making it when it is missing.
    pub fn take(layout: &Layout) -> Result<Self> {
        let directory = layout.state();
        fs::create_dir_all(&directory)?;
        let mut file = File::open(&directory)?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => return Ok(Self(lock)),
                Err((back, Errno::EWOULDBLOCK)) if Instant::now() < deadline => file = back,
                Err((_, Errno::EWOULDBLOCK)) => bail!(
                    "another `sluice up` or `sluice down` of cluster {:?} is running: wait for it",
                    layout.name()
                ),
                Err((_, error)) => return Err(error.into()),
            }
            std::thread::sleep(INTERVAL);
        }
    }
}
