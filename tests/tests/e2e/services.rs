//! Services as clients see them, from every side.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use sluice_tests::cluster::{Cluster, NODES};
use sluice_tests::kubectl::{Kubectl, Version};
use sluice_tests::{poll, traffic};

use crate::FRONT_PODS;
use crate::network::url;

const REQUESTS: u32 = 600;
const NODE_PORT: u16 = 30080;
const PACE: [&str; 2] = ["--pause-ms", "5"];

/// Cluster IPs of a Service, IPv4 first.
pub fn cluster_ips(kubectl: &Kubectl, service: &str) -> Result<Vec<String>> {
    let object = kubectl.json(&format!("get service {service}"))?;
    let ips = object["spec"]["clusterIPs"]
        .as_array()
        .context("there are no cluster IPs")?;
    Ok(ips
        .iter()
        .filter_map(Value::as_str)
        .map(str::to_string)
        .collect())
}

/// Ready endpoints of a Service over both families.
pub fn ready_endpoints(kubectl: &Kubectl, service: &str) -> Result<usize> {
    let slices = kubectl.json(&format!(
        "get endpointslices -l kubernetes.io/service-name={service}"
    ))?;
    let slices = slices["items"].as_array().into_iter().flatten();
    let endpoints = slices.flat_map(|slice| slice["endpoints"].as_array().into_iter().flatten());
    Ok(endpoints
        .filter(|endpoint| endpoint["conditions"]["ready"] == true)
        .count())
}

pub fn cluster_ips_from_a_pod(cluster: &Cluster) -> Result<()> {
    let kubectl = cluster.kubectl(Version::Installed);
    for ip in both_families(&kubectl)? {
        traffic::from_pod(&kubectl, "client", &url(&ip, 80), REQUESTS)?.spread_over(FRONT_PODS)?;
        let datagrams = url(&ip, 7).replace("http://", "udp://");
        traffic::from_pod(&kubectl, "client", &datagrams, REQUESTS)?.spread_over(FRONT_PODS)?;
    }
    Ok(())
}

pub fn cluster_ips_from_a_node(cluster: &Cluster) -> Result<()> {
    let kubectl = cluster.kubectl(Version::Installed);
    for ip in both_families(&kubectl)? {
        let datagrams = url(&ip, 7).replace("http://", "udp://");
        for (node, url) in NODES
            .iter()
            .flat_map(|node| [(node, url(&ip, 80)), (node, datagrams.clone())])
        {
            traffic::from_machine(cluster, node, &url, REQUESTS)
                .and_then(|report| report.spread_over(FRONT_PODS))
                .with_context(|| format!("{node} to {url}"))?;
        }
    }
    Ok(())
}

fn both_families(kubectl: &Kubectl) -> Result<Vec<String>> {
    let ips = cluster_ips(kubectl, "front")?;
    ensure!(ips.len() == 2, "the Service has the cluster IPs {ips:?}");
    Ok(ips)
}

/// Each node has two of the six backends: the others are reached through other nodes.
pub fn node_ports_from_outside(cluster: &Cluster) -> Result<()> {
    for address in [
        "198.18.0.11",
        "198.18.0.12",
        "198.18.0.13",
        "fd00:198:18::11",
        "fd00:198:18::12",
        "fd00:198:18::13",
    ] {
        let url = url(address, NODE_PORT);
        traffic::from_machine(cluster, "client", &url, REQUESTS)
            .and_then(|report| report.spread_over(FRONT_PODS))
            .with_context(|| url.clone())?;
    }
    Ok(())
}

pub fn the_second_tier_is_called_by_its_service(cluster: &Cluster) -> Result<()> {
    let kubectl = cluster.kubectl(Version::Installed);
    let ip = cluster_ips(&kubectl, "front")?.remove(0);
    let answer = traffic::body_in_pod(&kubectl, "client", &format!("{}/back", url(&ip, 80)))?;
    ensure!(
        answer.starts_with("front-") && answer.contains("pod=back-"),
        "the answer is {answer:?}"
    );
    Ok(())
}

pub fn configuration_reaches_the_pods(cluster: &Cluster) -> Result<()> {
    let kubectl = cluster.kubectl(Version::Installed);
    let ip = cluster_ips(&kubectl, "front")?.remove(0);
    let get =
        |path: &str| traffic::body_in_pod(&kubectl, "client", &format!("{}{path}", url(&ip, 80)));
    let file = get("/config")?;
    ensure!(
        file.contains("key motd of the ConfigMap echo"),
        "the mounted file says {file:?}"
    );
    let greeting = get("/")?;
    ensure!(
        greeting.starts_with("hello pod=front-"),
        "the environment says {greeting:?}"
    );
    Ok(())
}

pub fn scaling_changes_the_backends_without_a_failed_request(cluster: &Cluster) -> Result<()> {
    let kubectl = cluster.kubectl(Version::Installed);
    let ip = cluster_ips(&kubectl, "front")?.remove(0);
    let inside = traffic::Background::from_pod(&kubectl, "client", &url(&ip, 80), &PACE)?;
    let outside = traffic::Background::from_machine(
        cluster,
        "client",
        &url("198.18.0.11", NODE_PORT),
        &PACE,
    )?;
    for replicas in [3, FRONT_PODS] {
        kubectl.run(&format!("scale deployment/front --replicas={replicas}"))?;
        kubectl.run("rollout status deployment/front --timeout=60s")?;
        poll::until("the endpoints", Duration::from_secs(30), || {
            let found = ready_endpoints(&kubectl, "front")?;
            ensure!(found == 2 * replicas, "{found} endpoints are ready");
            Ok(())
        })?;
    }
    inside.stop()?.all_answered().context("from a pod")?;
    outside.stop()?.all_answered().context("from outside")
}
