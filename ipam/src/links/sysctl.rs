//! Kernel settings under /proc/sys/net, of the network namespace that the thread is in.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// A setting that could not be read or written.
#[derive(Debug, Error)]
#[error("cannot set {name}={value}: {reason}")]
pub struct SysctlError {
    /// Like `net.ipv4.ip_forward`, with slashes.
    pub name: String,
    /// What it should have become.
    pub value: String,
    /// The reason.
    pub reason: io::Error,
}

fn path(name: &str) -> PathBuf {
    Path::new("/proc/sys").join(name)
}

/// The setting's value without the newline. Names are paths: `net/ipv4/ip_forward`, because interface
/// names may contain dots.
pub fn read(name: &str) -> io::Result<String> {
    Ok(fs::read_to_string(path(name))?.trim_end().to_owned())
}

/// Makes sure of a value. Writes only where it differs: /proc/sys may be read-only, and some writes wait
/// for the kernel's network lock or have effects of their own.
pub fn ensure(name: &str, value: &str) -> Result<bool, SysctlError> {
    let set = || {
        if read(name)? == value {
            return Ok(false);
        }
        fs::write(path(name), value).map(|()| true)
    };
    set().map_err(|reason| SysctlError {
        name: name.to_owned(),
        value: value.to_owned(),
        reason,
    })
}

/// Whether the kernel has the setting.
pub fn exists(name: &str) -> bool {
    path(name).exists()
}
