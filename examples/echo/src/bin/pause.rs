//! The process of a pod's sandbox: holds the namespaces open, reaps orphans where the pod shares its
//! process namespace, and ends at once when asked to. A process with number 1 ignores signals that it
//! does not handle, hence the explicit wait.

use std::process::ExitCode;

fn main() -> ExitCode {
    let signals = blocked_signals();
    loop {
        let mut signal = 0;
        // SAFETY: both pointers are to live local values for the length of the call.
        let failed = unsafe { libc::sigwait(&signals, &mut signal) } != 0;
        match signal {
            _ if failed => return ExitCode::FAILURE,
            libc::SIGCHLD => reap(),
            _ => return ExitCode::SUCCESS,
        }
    }
}

/// Blocks the signals that are waited for, so that none is lost between two waits.
fn blocked_signals() -> libc::sigset_t {
    // SAFETY: sigset_t is plain data that sigemptyset initialises; the pointers are to it.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGCHLD] {
            libc::sigaddset(&mut set, signal);
        }
        libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
        set
    }
}

fn reap() {
    // SAFETY: waitpid accepts a null status pointer.
    while unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) } > 0 {}
}
