//! What the loader asks the node about itself.

use std::ffi::CString;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use super::LoaderError;

/// The cookie of the current network namespace, by which socket hooks know it.
pub fn netns_cookie() -> Result<u64, LoaderError> {
    const SO_NETNS_COOKIE: libc::c_int = 71;
    let fail = |source| LoaderError::Host {
        what: "the network namespace's cookie",
        source,
    };
    // SAFETY: takes and returns integers.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(fail(io::Error::last_os_error()));
    }
    // SAFETY: just made, and nobody else's.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let (mut cookie, mut len) = (0u64, size_of::<u64>() as libc::socklen_t);
    // SAFETY: the kernel writes at most `len` bytes to `cookie`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &mut len,
        )
    };
    if result < 0 {
        Err(fail(io::Error::last_os_error()))
    } else {
        Ok(cookie)
    }
}

/// The node's memory, in bytes.
pub fn memory_bytes() -> Result<u64, LoaderError> {
    let fail = |source| LoaderError::Host {
        what: "the node's memory",
        source,
    };
    let text = std::fs::read_to_string("/proc/meminfo").map_err(fail)?;
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = total.and_then(|rest| {
        rest.trim()
            .trim_end_matches("kB")
            .trim()
            .parse::<u64>()
            .ok()
    });
    kib.map(|kib| kib * 1024)
        .ok_or_else(|| fail(io::Error::other("no MemTotal in /proc/meminfo")))
}

/// The index of an interface of the current network namespace.
pub(super) fn interface_index(name: &str) -> Result<u32, LoaderError> {
    let missing = || LoaderError::NoInterface {
        name: name.to_owned(),
    };
    let c_name = CString::new(name).map_err(|_| missing())?;
    // SAFETY: a live C string.
    match unsafe { libc::if_nametoindex(c_name.as_ptr()) } {
        0 => Err(missing()),
        index => Ok(index),
    }
}
