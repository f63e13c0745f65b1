//! SIGTERM and SIGINT as something that a thread waits for. Process number 1 of a container ignores
//! them unless it handles them.

/// Blocks the two signals in this thread and all that it starts; call it first.
pub fn block() -> Termination {
    // SAFETY: sigset_t is plain data that sigemptyset initialises; all pointers are to it.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, libc::SIGTERM);
        libc::sigaddset(&mut set, libc::SIGINT);
        libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
        Termination(set)
    }
}

/// The blocked signals.
pub struct Termination(libc::sigset_t);

impl Termination {
    /// Returns when the process was asked to end.
    pub fn wait(&self) {
        let mut signal = 0;
        // SAFETY: both pointers are to live values for the length of the call.
        unsafe { libc::sigwait(&self.0, &mut signal) };
    }
}
