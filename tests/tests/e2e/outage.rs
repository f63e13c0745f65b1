//! A node's link goes down, and up again.

use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use sluice_tests::cluster::{Cluster, succeeded};
use sluice_tests::kubectl::{Kubectl, Version};
use sluice_tests::{poll, traffic};

use crate::FRONT_PODS;
use crate::network::{self, url};
use crate::services::ready_endpoints;

const PATIENCE: Duration = Duration::from_secs(40);

/// The bridge's port to node3.
struct Cable<'a>(&'a Cluster);

impl Cable<'_> {
    fn set(&self, state: &str) -> Result<()> {
        let switch = self.0.namespace("switch");
        let output = Command::new("ip")
            .args(["-n", &switch, "link", "set", "node3", state])
            .output()?;
        succeeded(&output).map(drop)
    }
}

impl Drop for Cable<'_> {
    fn drop(&mut self) {
        let _ = self.set("up");
    }
}

pub fn a_node_is_cut_off_and_comes_back(cluster: &Cluster) -> Result<()> {
    let kubectl = cluster.kubectl(Version::Installed);
    let pods = network::pods(&kubectl, "app=front")?;
    let left = pods.iter().filter(|pod| pod.node != "node3").count();
    ensure!(left < FRONT_PODS, "node3 has no pod to lose");
    let cable = Cable(cluster);
    cable.set("down")?;
    node_status(&kubectl, "NotReady")?;
    endpoints(&kubectl, left)?;
    // What is left serves without a failure.
    let url = url("198.18.0.11", 30080);
    traffic::from_machine(cluster, "client", &url, 500)?.spread_over(left)?;
    let taints = kubectl.json("get node node3")?["spec"]["taints"].to_string();
    ensure!(
        taints.contains("node.kubernetes.io/unreachable"),
        "the taints are {taints}"
    );
    cable.set("up")?;
    node_status(&kubectl, "Ready")?;
    endpoints(&kubectl, FRONT_PODS)?;
    traffic::from_machine(cluster, "client", &url, 600)?.spread_over(FRONT_PODS)
}

fn node_status(kubectl: &Kubectl, wanted: &str) -> Result<()> {
    poll::until("the node's status", PATIENCE, || {
        let line = kubectl.run("get node node3 --no-headers")?;
        ensure!(line.split_whitespace().nth(1) == Some(wanted), "{line}");
        Ok(())
    })
}

fn endpoints(kubectl: &Kubectl, pods: usize) -> Result<()> {
    poll::until("the endpoints", PATIENCE, || {
        let found = ready_endpoints(kubectl, "front-nodeport")?;
        ensure!(found == 2 * pods, "{found} endpoints are ready");
        Ok(())
    })
}
