//! On a machine that lacks something, `sluice up` says what and how to get it, and changes nothing.

use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Result, ensure};
use sluice_tests::cluster::Cluster;
use sluice_tests::traces;

const NOBODY: u32 = 65534;

/// Fails unless the command fails, says every one of the texts on its standard error, and left no trace.
fn refused(cluster: &Cluster, mut command: Command, texts: &[&str]) -> Result<()> {
    let output = command.output()?;
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(
        output.status.code() == Some(1),
        "{}: {complaint}",
        output.status
    );
    for text in texts {
        ensure!(complaint.contains(text), "{text:?} is not in {complaint:?}");
    }
    let left = traces::of(&cluster.name);
    ensure!(left.is_empty(), "left:\n{}", left.join("\n"));
    Ok(())
}

#[test]
fn without_root() -> Result<()> {
    let cluster = Cluster::new("noroot")?;
    // A copy, since the build directory may be closed to others.
    let directory = tempfile::Builder::new()
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .tempdir()?;
    let copy = directory.path().join("sluice");
    std::fs::copy(cluster.up_command().get_program(), &copy)?;
    let mut command = Command::new(copy);
    command
        .args(cluster.up_command().get_args())
        .uid(NOBODY)
        .gid(NOBODY);
    refused(&cluster, command, &["root is missing", "sudo"])
}

#[test]
fn without_containerd() -> Result<()> {
    let cluster = Cluster::new("noruntime")?;
    let mut command = cluster.up_command();
    command.env("PATH", "/nonexistent");
    let lacks = [
        "containerd is missing: apt-get install containerd",
        "runc is missing: apt-get install runc",
    ];
    refused(&cluster, command, &lacks)
}

#[test]
fn without_cgroup2() -> Result<()> {
    let cluster = Cluster::new("nocgroup")?;
    let up = cluster.up_command();
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "sh", "-c", r#"umount -l "$0" && exec "$@""#])
        .arg(sluice_tests::traffic::cgroup2()?)
        .arg(up.get_program())
        .args(up.get_args());
    refused(
        &cluster,
        command,
        &["cgroup2 is missing", "mount -t cgroup2"],
    )
}

#[test]
fn with_a_name_that_is_somebody_elses() -> Result<()> {
    let cluster = Cluster::new("theirs")?;
    let theirs = sluice_tests::traffic::cgroup2()?.join(&cluster.name);
    std::fs::create_dir(&theirs)?;
    let output = cluster.up_command().output();
    let down = cluster.sluice("down").output();
    let still_there = theirs.is_dir();
    std::fs::remove_dir(&theirs)?;
    let complaint = String::from_utf8_lossy(&output?.stderr).into_owned();
    ensure!(complaint.contains("not known to be ours"), "{complaint}");
    ensure!(
        !down?.status.success() && still_there,
        "down touched what is somebody else's"
    );
    Ok(())
}
