//! Addresses of pods, and the ways between them.

use anyhow::{Result, ensure};
use serde_json::Value;
use sluice_tests::cluster::{Cluster, NODES};
use sluice_tests::kubectl::{Kubectl, Version};
use sluice_tests::traffic;

use crate::FRONT_PODS;

/// A pod's name, node and addresses.
pub struct Pod {
    /// Its name.
    pub name: String,
    /// Its node.
    pub node: String,
    /// IPv4 first.
    pub addresses: Vec<String>,
}

/// The pods with that label.
pub fn pods(kubectl: &Kubectl, label: &str) -> Result<Vec<Pod>> {
    let list = kubectl.json(&format!("get pods -l {label}"))?;
    Ok(list["items"]
        .as_array()
        .into_iter()
        .flatten()
        .map(pod)
        .collect())
}

fn pod(object: &Value) -> Pod {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
    let addresses = object["status"]["podIPs"].as_array().into_iter().flatten();
    Pod {
        name: text(&object["metadata"]["name"]),
        node: text(&object["spec"]["nodeName"]),
        addresses: addresses.map(|address| text(&address["ip"])).collect(),
    }
}

/// `http://` URL of port 8080 at an address of either family.
pub fn url(address: &str, port: u16) -> String {
    if address.contains(':') {
        format!("http://[{address}]:{port}")
    } else {
        format!("http://{address}:{port}")
    }
}

pub fn nodes_and_pods_have_addresses_of_both_families(cluster: &Cluster) -> Result<()> {
    let kubectl = cluster.kubectl(Version::Installed);
    let nodes = kubectl.json("get nodes")?;
    for node in nodes["items"].as_array().into_iter().flatten() {
        let cidrs = node["spec"]["podCIDRs"].as_array().map_or(0, Vec::len);
        ensure!(
            cidrs == 2,
            "{} has {cidrs} pod CIDRs",
            node["metadata"]["name"]
        );
    }
    let pods = pods(&kubectl, "app=front")?;
    ensure!(
        pods.len() == FRONT_PODS,
        "there are {} front pods",
        pods.len()
    );
    for node in NODES {
        let here = pods.iter().filter(|pod| pod.node == node).count();
        ensure!(
            here == FRONT_PODS / NODES.len(),
            "{node} has {here} front pods"
        );
    }
    for pod in &pods {
        let [v4, v6] = pod.addresses.as_slice() else {
            anyhow::bail!("{} has the addresses {:?}", pod.name, pod.addresses);
        };
        ensure!(v4.starts_with("10.244."), "{} has {v4}", pod.name);
        ensure!(v6.starts_with("fd00:10:244:"), "{} has {v6}", pod.name);
    }
    Ok(())
}

pub fn pods_reach_each_other_across_all_nodes(cluster: &Cluster) -> Result<()> {
    let kubectl = cluster.kubectl(Version::Installed);
    let pods = pods(&kubectl, "app=front")?;
    for from in pods.iter().step_by(2) {
        for to in &pods {
            for address in &to.addresses {
                let report = traffic::from_pod(&kubectl, &from.name, &url(address, 8080), 3)?;
                report.spread_over(1)?;
                ensure!(
                    report.backends.contains_key(&to.name),
                    "{address} is not {}",
                    to.name
                );
            }
        }
    }
    Ok(())
}

/// A pod's packets leave the cluster with its node's address; between pods its own is kept.
pub fn a_pod_appears_outside_under_its_nodes_address(cluster: &Cluster) -> Result<()> {
    let kubectl = cluster.kubectl(Version::Installed);
    let server = traffic::Server::start(cluster, "client", 9080)?;
    let pods = pods(&kubectl, "app=front")?;
    let node_number = |pod: &Pod| pod.node.trim_start_matches("node").to_string();
    for pod in &pods {
        let number = node_number(pod);
        for (outside, expected) in [
            ("198.18.0.100", format!("198.18.0.1{number}")),
            ("fd00:198:18::100", format!("fd00:198:18::1{number}")),
        ] {
            let url = format!("{}/client", url(outside, server.port));
            let seen = traffic::body_in_pod(&kubectl, &pod.name, &url)?;
            ensure!(
                seen.trim() == expected,
                "{} of {} appears as {seen}",
                pod.name,
                pod.node
            );
        }
    }
    let [first, .., last] = pods.as_slice() else {
        anyhow::bail!("there are no two pods");
    };
    for (own, address) in first.addresses.iter().zip(&last.addresses) {
        let seen = traffic::body_in_pod(
            &kubectl,
            &first.name,
            &format!("{}/client", url(address, 8080)),
        )?;
        ensure!(
            seen.trim() == own,
            "{} appears inside as {seen}",
            first.name
        );
    }
    Ok(())
}
