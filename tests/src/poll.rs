//! Waiting for something that nobody announces.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

const INTERVAL: Duration = Duration::from_millis(100);

/// Asks until the answer is `Ok`; the last refusal is the error when the time is over.
pub fn until<T>(what: &str, timeout: Duration, mut ask: impl FnMut() -> Result<T>) -> Result<T> {
    let deadline = Instant::now() + timeout;
    loop {
        match ask() {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() > deadline => {
                bail!("{what}: not within {} s: {error:#}", timeout.as_secs())
            }
            Err(_) => std::thread::sleep(INTERVAL),
        }
    }
}
