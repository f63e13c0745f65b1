//! Ending processes through pidfds: once the descriptor is open and the identity confirmed, the signal
//! can reach no other process.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::cgroups::Hierarchies;
use crate::pidfile::Identity;

/// A descriptor of a process.
pub struct Process(OwnedFd);

impl Process {
    /// Opens the process with that number.
    pub fn open(pid: i32) -> io::Result<Self> {
        // SAFETY: pidfd_open takes two integers and returns a new descriptor or -1.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel just gave us this descriptor; nobody else owns it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd as i32) }))
    }

    /// Sends a signal.
    pub fn signal(&self, signal: i32) -> io::Result<()> {
        // SAFETY: the descriptor is open, and a null siginfo is allowed.
        let outcome = unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                self.0.as_raw_fd(),
                signal,
                std::ptr::null::<libc::siginfo_t>(),
                0,
            )
        };
        if outcome < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    /// Waits until the process has ended, whoever its parent is.
    fn wait(&self, timeout: Duration) -> bool {
        let mut poll = libc::pollfd {
            fd: self.0.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        let millis = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: one pollfd, valid for the length of the call.
        unsafe { libc::poll(&mut poll, 1, millis) > 0 }
    }
}

/// Asks the process to end and, when it does not within the grace, ends it.
pub fn end(identity: &Identity, grace: Duration) {
    let Ok(process) = Process::open(identity.pid) else {
        return;
    };
    if !identity.is_alive() {
        return;
    }
    let _ = process.signal(libc::SIGTERM);
    if !process.wait(grace) {
        let _ = process.signal(libc::SIGKILL);
        process.wait(grace);
    }
}

/// Kills whatever is in the cgroup until nothing is, also what its members start meanwhile; the numbers of those that could not be killed.
pub fn all_in(hierarchies: &Hierarchies, cgroup: &Path, timeout: Duration) -> Vec<i32> {
    let deadline = Instant::now() + timeout;
    loop {
        let members: Vec<i32> = hierarchies.members(cgroup).into_iter().collect();
        if members.is_empty() || Instant::now() > deadline {
            return members;
        }
        let killed = kill_members(hierarchies, cgroup, &members);
        let round = Instant::now() + ROUND;
        for process in &killed {
            process.wait(round.saturating_duration_since(Instant::now()));
        }
        if killed.is_empty() {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// How long to wait for the killed before looking again at who is there.
const ROUND: Duration = Duration::from_millis(200);

/// Opens the processes first and kills those that are members still: a number that was given to another
/// process between the two looks belongs to somebody else.
fn kill_members(hierarchies: &Hierarchies, cgroup: &Path, pids: &[i32]) -> Vec<Process> {
    let open = |pid: &i32| Some((*pid, Process::open(*pid).ok()?));
    let opened: Vec<(i32, Process)> = pids.iter().filter_map(open).collect();
    let still = hierarchies.members(cgroup);
    let members = opened.into_iter().filter(|(pid, _)| still.contains(pid));
    let kill =
        |(_, process): (i32, Process)| process.signal(libc::SIGKILL).is_ok().then_some(process);
    members.filter_map(kill).collect()
}
