//! A network namespace for one test: the calling thread enters it, and everything that it starts is in it too.

use nix::sched::{CloneFlags, unshare};

/// Leaves the machine's network: from now on only a loopback is there.
pub fn enter() {
    assert!(
        nix::unistd::geteuid().is_root(),
        "this test needs root: it runs containers"
    );
    unshare(CloneFlags::CLONE_NEWNET).expect("a new network namespace (needs CAP_SYS_ADMIN)");
    loopback_up();
}

fn loopback_up() {
    let up = std::process::Command::new("ip")
        .args(["link", "set", "lo", "up"])
        .status();
    assert!(
        up.expect("ip (package iproute2) is installed").success(),
        "loopback goes up"
    );
}
