//! After `sluice down` nothing is left, however the cluster was left.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Result, ensure};
use sluice_tests::cluster::Cluster;
use sluice_tests::{poll, traces};

fn nothing_left(name: &str) -> Result<()> {
    // The kernel takes namespaces apart in the background; names and mounts are gone at once.
    poll::until("nothing is left", Duration::from_secs(10), || {
        let left = traces::of(name);
        ensure!(left.is_empty(), "left:\n{}", left.join("\n"));
        Ok(())
    })
}

/// `up` is killed at several moments; `down` removes what there is of it.
pub fn a_half_done_up_is_removed(_: &Cluster) -> Result<()> {
    let half = Cluster::new("half")?;
    for millis in [30, 150, 700, 2500] {
        let mut up = half
            .up_command()
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        std::thread::sleep(Duration::from_millis(millis));
        up.kill()?;
        up.wait()?;
        half.down()?;
        nothing_left(&half.name)?;
    }
    Ok(())
}

pub fn down_leaves_nothing(cluster: &Cluster) -> Result<()> {
    ensure!(
        !traces::of(&cluster.name).is_empty(),
        "the search for traces finds nothing at all"
    );
    cluster.down()?;
    nothing_left(&cluster.name)?;
    let again = cluster.down()?;
    ensure!(again.contains("there is no cluster"), "{again}");
    Ok(())
}
