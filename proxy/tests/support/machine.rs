//! A machine (a node, a pod, a client): a network namespace, and maybe a cgroup.

use std::fs::{self, File};
use std::process::Command;

use super::cgroup::Cgroup;

/// A network namespace that lives as long as this.
pub struct Machine {
    pub name: String,
    netns: File,
    cgroup: Option<Cgroup>,
}

impl Machine {
    /// A namespace with its loopback up.
    pub fn new(name: &str) -> Self {
        let netns = std::thread::spawn(|| {
            // SAFETY: takes an integer; only this thread leaves its namespace.
            let result = unsafe { libc::unshare(libc::CLONE_NEWNET) };
            assert_eq!(
                result,
                0,
                "this test needs root: unshare: {}",
                std::io::Error::last_os_error()
            );
            File::open("/proc/thread-self/ns/net").expect("own namespace")
        });
        let machine = Self {
            name: name.to_owned(),
            netns: netns.join().expect("namespace"),
            cgroup: None,
        };
        machine.ip("link set lo up");
        machine
    }

    /// With a cgroup that its threads run in.
    pub fn with_cgroup(name: &str) -> Self {
        Self {
            cgroup: Some(Cgroup::new(name)),
            ..Self::new(name)
        }
    }

    /// Its cgroup's directory.
    pub fn cgroup(&self) -> &std::path::Path {
        &self.cgroup.as_ref().expect("a machine with a cgroup").path
    }

    /// Runs `f` on a thread that is on this machine.
    pub fn run<R: Send>(&self, f: impl FnOnce() -> R + Send) -> R {
        std::thread::scope(|scope| match scope.spawn(|| self.enter_and(f)).join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    }

    /// Puts the current thread on this machine, for good.
    pub fn enter_and<R>(&self, f: impl FnOnce() -> R) -> R {
        use std::os::fd::AsRawFd;
        // SAFETY: takes integers; only this thread moves.
        let result = unsafe { libc::setns(self.netns.as_raw_fd(), libc::CLONE_NEWNET) };
        assert_eq!(result, 0, "setns: {}", std::io::Error::last_os_error());
        if let Some(cgroup) = &self.cgroup {
            cgroup.enter();
        }
        f()
    }

    /// Runs `ip` with these arguments.
    pub fn ip(&self, arguments: &str) {
        self.command("ip", arguments);
    }

    /// Runs a program.
    pub fn command(&self, program: &str, arguments: &str) {
        let output = self.run(|| {
            Command::new(program)
                .args(arguments.split_whitespace())
                .output()
        });
        let output = output.unwrap_or_else(|e| panic!("cannot run {program}: {e}"));
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "{}: {program} {arguments}: {errors}",
            self.name
        );
    }

    /// Writes a file under /proc/sys/net, which belongs to the namespace of who writes.
    pub fn sysctl(&self, name: &str, value: &str) {
        let path = format!("/proc/sys/net/{name}");
        self.run(|| fs::write(&path, value))
            .unwrap_or_else(|e| panic!("{path}: {e}"));
    }

    /// The link address of one of its interfaces.
    pub fn link_address(&self, interface: &str) -> String {
        let output = self.run(|| {
            Command::new("ip")
                .args(["-o", "link", "show", interface])
                .output()
                .expect("ip")
        });
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut words = text.split_whitespace();
        words
            .find(|word| *word == "link/ether")
            .expect("an Ethernet interface");
        words.next().expect("a link address").to_owned()
    }

    /// Makes a veth pair whose ends are `name` here and `peer_name` on `peer`.
    pub fn cable(&self, name: &str, peer: &Self, peer_name: &str) {
        use std::os::fd::AsRawFd;
        // `ip` takes a namespace as a file of this process, by the descriptor's number.
        let path = format!("/proc/{}/fd/{}", std::process::id(), peer.netns.as_raw_fd());
        self.ip(&format!(
            "link add {name} type veth peer name {peer_name} netns {path}"
        ));
        self.ip(&format!("link set {name} up"));
        peer.ip(&format!("link set {peer_name} up"));
    }
}
