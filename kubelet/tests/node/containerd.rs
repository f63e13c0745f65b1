//! A containerd of the test's own: root, state, socket, CNI plugin. Everything of it goes when it is dropped.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::images::{self, PAUSE};

/// Stands in for a network plugin: gives a fixed address without making a link, since these tests need none.
const PLUGIN: &str = r#"#!/bin/sh
case "$CNI_COMMAND" in
ADD) echo '{"cniVersion":"0.4.0","interfaces":[{"name":"eth0","sandbox":"'"$CNI_NETNS"'"}],"ips":[{"version":"4","address":"10.88.0.2/32","interface":0},{"version":"6","address":"fd00:88::2/128","interface":0}]}' ;;
VERSION) echo '{"cniVersion":"0.4.0","supportedVersions":["0.3.1","0.4.0"]}' ;;
esac
"#;
const NETWORK: &str = r#"{"cniVersion":"0.4.0","name":"test","plugins":[{"type":"test-network"}]}"#;

/// A running containerd.
pub struct Containerd {
    directory: PathBuf,
    child: Child,
}

impl Containerd {
    /// Starts one below `directory`, with the tests' images.
    pub fn start(directory: &Path) -> Self {
        configure(directory);
        let containerd = Self {
            directory: directory.to_owned(),
            child: spawn(directory),
        };
        containerd.await_socket();
        let archive = images::archive(directory);
        let namespace = ["-n", "k8s.io", "images", "import"];
        images::run(
            Command::new("ctr")
                .arg("-a")
                .arg(containerd.socket())
                .args(namespace)
                .arg(archive),
        );
        containerd
    }

    /// Its socket.
    pub fn socket(&self) -> PathBuf {
        self.directory.join("cri.sock")
    }

    /// Kills it, as a crash does; containers go on.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again.
    pub fn restart(&mut self) {
        self.child = spawn(&self.directory);
        self.await_socket();
    }

    fn await_socket(&self) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while std::os::unix::net::UnixStream::connect(self.socket()).is_err() {
            let log = || {
                std::fs::read_to_string(self.directory.join("containerd.log")).unwrap_or_default()
            };
            assert!(
                Instant::now() < deadline,
                "containerd did not start: {}",
                log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What is left of this containerd's containers: their shims outlive it, and are found by its socket's path.
    fn kill_shims(&self) {
        let socket = self.socket().to_string_lossy().into_owned();
        for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let command = String::from_utf8_lossy(&command).replace('\0', " ");
            let pid = entry.file_name().to_string_lossy().parse::<i32>();
            if let (Ok(pid), true) = (
                pid,
                command.contains("containerd-shim") && command.contains(&socket),
            ) {
                let _ = nix::sys::signal::kill(
                    nix::unistd::Pid::from_raw(pid),
                    nix::sys::signal::Signal::SIGKILL,
                );
            }
        }
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        self.kill_shims();
        let _ = self.child.kill();
        let _ = self.child.wait();
        unmount_below(&self.directory);
    }
}

/// Detaches all mounts below a directory.
pub fn unmount_below(directory: &Path) {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(Path::new);
    let mut points: Vec<_> = points
        .filter(|point| point.starts_with(directory))
        .collect();
    points.reverse();
    for point in points {
        let _ = nix::mount::umount2(point, nix::mount::MntFlags::MNT_DETACH);
    }
}

fn configure(directory: &Path) {
    let (bin, conf) = (directory.join("cni-bin"), directory.join("cni-conf"));
    std::fs::create_dir_all(&bin).unwrap();
    std::fs::create_dir_all(&conf).unwrap();
    for name in ["test-network", "loopback"] {
        std::fs::write(bin.join(name), PLUGIN).unwrap();
        std::fs::set_permissions(bin.join(name), std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    std::fs::write(conf.join("10-test.conflist"), NETWORK).unwrap();
    let path = |name: &str| directory.join(name).display().to_string();
    let config = format!(
        r#"version = 2
root = "{root}"
state = "{state}"
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs", "io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing"]
[grpc]
address = "{socket}"
[plugins."io.containerd.internal.v1.opt"]
path = "{opt}"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE}"
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true
stream_server_address = "127.0.0.1"
stream_server_port = "0"
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "overlayfs"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false
Root = "{runc}"
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{bin}"
conf_dir = "{conf}"
"#,
        root = path("root"),
        state = path("state"),
        socket = path("cri.sock"),
        opt = path("opt"),
        runc = path("runc"),
        bin = bin.display(),
        conf = conf.display(),
    );
    std::fs::write(directory.join("containerd.toml"), config).unwrap();
}

fn spawn(directory: &Path) -> Child {
    let log = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(directory.join("containerd.log"))
        .unwrap();
    Command::new("containerd")
        .arg("--config")
        .arg(directory.join("containerd.toml"))
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .expect("containerd (package containerd) is installed")
}
