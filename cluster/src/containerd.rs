//! containerd, one per node: its configuration, and the images that it is given by hand.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::cgroups::Hierarchies;
use crate::layout::{Layout, Machine};
use crate::spawn::{self, Part};
use crate::{images, logs};

const START_TIMEOUT: Duration = Duration::from_secs(30);
/// Plugins that a node does not need, and that would look for devices or tools that are not there.
const UNUSED: &str = r#"["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.blockfile", "io.containerd.snapshotter.v1.erofs", "io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing", "io.containerd.nri.v1.nri"]"#;

/// Directories of a node's CNI plugin and its configuration.
pub struct CniDirectories {
    /// Executables.
    pub bin: PathBuf,
    /// Network configuration lists.
    pub conf: PathBuf,
}

impl CniDirectories {
    /// Those of a node.
    pub fn of(layout: &Layout, node: Machine) -> Self {
        let cni = layout.machine_state(node).join("cni");
        Self {
            bin: cni.join("bin"),
            conf: cni.join("net.d"),
        }
    }
}

/// The containerd of a node, with its configuration written.
pub fn part(layout: &Layout, node: Machine, major: u32) -> Result<Part> {
    let config = layout.machine_state(node).join("containerd.toml");
    let cni = CniDirectories::of(layout, node);
    for directory in [&cni.bin, &cni.conf, &layout.machine_run(node)] {
        fs::create_dir_all(directory)?;
    }
    fs::write(&config, configuration(layout, node, major))?;
    Ok(Part {
        name: "containerd",
        machine: node,
        program: "containerd".into(),
        arguments: vec!["--config".into(), config.display().to_string()],
        host_port: None,
    })
}

fn configuration(layout: &Layout, node: Machine, major: u32) -> String {
    let state = layout.machine_state(node);
    let run = layout.machine_run(node);
    let common = format!(
        r#"root = "{root}"
state = "{state}"
disabled_plugins = {UNUSED}
[grpc]
address = "{socket}"
[plugins."io.containerd.internal.v1.opt"]
path = "{opt}"
"#,
        root = state.join("containerd").display(),
        state = run.join("containerd").display(),
        socket = layout.containerd_socket(node).display(),
        opt = state.join("containerd/opt").display(),
    );
    let cni = CniDirectories::of(layout, node);
    let runc = run.join("runc");
    if major >= 2 {
        format!("version = 3\n{common}{}", cri_version_2(&cni, &runc))
    } else {
        format!("version = 2\n{common}{}", cri_version_1(&cni, &runc))
    }
}

/// containerd 1.6 and 1.7. Unprivileged machines may not lower a process's OOM score below their own.
fn cri_version_1(cni: &CniDirectories, runc: &Path) -> String {
    format!(
        r#"[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{pause}"
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true
stream_server_address = "127.0.0.1"
stream_server_port = "0"
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "overlayfs"
default_runtime_name = "runc"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false
Root = "{runc}"
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{bin}"
conf_dir = "{conf}"
"#,
        pause = images::PAUSE,
        runc = runc.display(),
        bin = cni.bin.display(),
        conf = cni.conf.display(),
    )
}

/// containerd 2, which splits the CRI plugin in three.
fn cri_version_2(cni: &CniDirectories, runc: &Path) -> String {
    format!(
        r#"[plugins."io.containerd.grpc.v1.cri"]
stream_server_address = "127.0.0.1"
stream_server_port = "0"
[plugins."io.containerd.cri.v1.images"]
snapshotter = "overlayfs"
[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "{pause}"
[plugins."io.containerd.cri.v1.runtime"]
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true
[plugins."io.containerd.cri.v1.runtime".containerd]
default_runtime_name = "runc"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
SystemdCgroup = false
Root = "{runc}"
[plugins."io.containerd.cri.v1.runtime".cni]
bin_dir = "{bin}"
conf_dir = "{conf}"
"#,
        pause = images::PAUSE,
        runc = runc.display(),
        bin = cni.bin.display(),
        conf = cni.conf.display(),
    )
}

/// The major version of the installed containerd.
pub fn major_version() -> Result<u32> {
    let output = Command::new("containerd").arg("--version").output();
    let text = String::from_utf8(output.context("cannot run containerd")?.stdout)?;
    parse_major(&text).with_context(|| format!("containerd's version is not understood: {text:?}"))
}

/// `containerd github.com/containerd/containerd 1.6.20~ds1 REVISION`; some builds put a `v` before the number.
fn parse_major(text: &str) -> Option<u32> {
    let version = text.split_whitespace().nth(2)?.trim_start_matches('v');
    version.split('.').next()?.parse().ok()
}

/// Waits until the part answers on its socket.
pub fn wait_until_ready(layout: &Layout, part: &Part) -> Result<()> {
    let socket = layout.containerd_socket(part.machine);
    let deadline = Instant::now() + START_TIMEOUT;
    while UnixStream::connect(&socket).is_err() {
        let dead = part.pid_file(layout).running().is_none();
        if dead || Instant::now() > deadline {
            let what = if dead { "ended" } else { "does not answer" };
            let tail = logs::tail(&part.log(layout), 10);
            bail!("containerd of {} {what}; {tail}", part.machine.name());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Gives a node an image archive; the same image again changes nothing.
pub fn import(
    layout: &Layout,
    hierarchies: &Hierarchies,
    node: Machine,
    archive: &Path,
) -> Result<()> {
    let mut command = Command::new("ctr");
    spawn::settle(&mut command, layout, hierarchies, node)?;
    let output = command
        .arg("--address")
        .arg(layout.containerd_socket(node))
        .args(["--namespace", "k8s.io", "images", "import"])
        .arg(archive)
        .output()
        .context("cannot run ctr")?;
    succeed(&output).with_context(|| {
        let archive = archive.display();
        format!("cannot import {archive} into containerd of {}", node.name())
    })
}

fn succeed(output: &Output) -> Result<()> {
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// Sockets of the node's shims, which containerd keeps outside its own directories.
pub fn shim_sockets(layout: &Layout, node: Machine) -> Vec<PathBuf> {
    let tasks = layout
        .machine_run(node)
        .join("containerd/io.containerd.runtime.v2.task/k8s.io");
    let Ok(bundles) = fs::read_dir(tasks) else {
        return Vec::new();
    };
    let addresses = bundles
        .flatten()
        .filter_map(|bundle| fs::read_to_string(bundle.path().join("address")).ok());
    addresses
        .filter_map(|address| address.trim().strip_prefix("unix://").map(PathBuf::from))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_distributions_are_understood() {
        let debian = "containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1+deb12u1";
        assert_eq!(parse_major(debian), Some(1));
        let upstream = "containerd github.com/containerd/containerd/v2 v2.1.4 75cb2b7193";
        assert_eq!(parse_major(upstream), Some(2));
        assert_eq!(parse_major("containerd"), None);
    }

    #[test]
    fn each_major_version_gets_the_configuration_it_reads() {
        let layout = Layout::new("x").unwrap();
        let one = configuration(&layout, Machine::Node(1), 1);
        assert!(one.starts_with("version = 2") && one.contains("sandbox_image"));
        let two = configuration(&layout, Machine::Node(1), 2);
        assert!(two.starts_with("version = 3") && two.contains("pinned_images"));
    }
}
