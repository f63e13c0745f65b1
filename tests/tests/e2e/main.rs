//! The whole cluster end to end: real kernel, real containerd, unmodified kubectl.
//!
//! The scenarios share one cluster and run in this order; the last one takes it down and looks for traces.

mod faults;
mod kubectl_reads;
mod kubectl_streams;
mod kubectl_writes;
mod network;
mod outage;
mod removal;
mod services;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use sluice_tests::cluster::Cluster;
use sluice_tests::kubectl::{Kubectl, Version};
use sluice_tests::poll;
use sluice_tests::runner::{self, Scenario};

const EXAMPLE: &str = include_str!("../../../examples/echo.yaml");
const FRONT_PODS: usize = 6;

const SCENARIOS: &[Scenario<Cluster>] = &[
    (
        "network::nodes_and_pods_have_addresses_of_both_families",
        network::nodes_and_pods_have_addresses_of_both_families,
    ),
    (
        "network::pods_reach_each_other_across_all_nodes",
        network::pods_reach_each_other_across_all_nodes,
    ),
    (
        "network::a_pod_appears_outside_under_its_nodes_address",
        network::a_pod_appears_outside_under_its_nodes_address,
    ),
    (
        "services::cluster_ips_from_a_pod",
        services::cluster_ips_from_a_pod,
    ),
    (
        "services::cluster_ips_from_a_node",
        services::cluster_ips_from_a_node,
    ),
    (
        "services::node_ports_from_outside",
        services::node_ports_from_outside,
    ),
    (
        "services::the_second_tier_is_called_by_its_service",
        services::the_second_tier_is_called_by_its_service,
    ),
    (
        "services::configuration_reaches_the_pods",
        services::configuration_reaches_the_pods,
    ),
    (
        "services::scaling_changes_the_backends_without_a_failed_request",
        services::scaling_changes_the_backends_without_a_failed_request,
    ),
    (
        "kubectl::gets_and_describes_installed",
        kubectl_reads::installed,
    ),
    ("kubectl::gets_and_describes_newest", kubectl_reads::newest),
    ("kubectl::writes_installed", kubectl_writes::installed),
    ("kubectl::writes_newest", kubectl_writes::newest),
    (
        "kubectl::bad_manifests_installed",
        kubectl_writes::bad_manifests_installed,
    ),
    (
        "kubectl::bad_manifests_newest",
        kubectl_writes::bad_manifests_newest,
    ),
    ("kubectl::streams_installed", kubectl_streams::installed),
    ("kubectl::streams_newest", kubectl_streams::newest),
    (
        "faults::the_proxy_is_killed_under_load",
        faults::the_proxy_is_killed_under_load,
    ),
    (
        "faults::the_kubelet_is_killed_under_load",
        faults::the_kubelet_is_killed_under_load,
    ),
    (
        "faults::the_address_daemon_is_killed_under_load",
        faults::the_address_daemon_is_killed_under_load,
    ),
    (
        "faults::containerd_is_killed_under_load",
        faults::containerd_is_killed_under_load,
    ),
    (
        "faults::the_master_is_killed_while_it_is_written_to",
        faults::the_master_is_killed_while_it_is_written_to,
    ),
    (
        "outage::a_node_is_cut_off_and_comes_back",
        outage::a_node_is_cut_off_and_comes_back,
    ),
    (
        "removal::a_half_done_up_is_removed",
        removal::a_half_done_up_is_removed,
    ),
    ("removal::down_leaves_nothing", removal::down_leaves_nothing),
];

fn main() -> ExitCode {
    match start() {
        Ok(cluster) => runner::run(&cluster, SCENARIOS, Cluster::logs),
        Err(error) => {
            println!("{error:?}\n\ntest result: FAILED. the cluster did not come up");
            ExitCode::FAILURE
        }
    }
}

/// A cluster with the example ready on it.
fn start() -> Result<Cluster> {
    let cluster = Cluster::new("e2e")?;
    let ready = || -> Result<()> {
        println!("{}", cluster.up()?);
        deploy(&cluster.kubectl(Version::Installed))
    };
    ready().with_context(|| cluster.logs())?;
    Ok(cluster)
}

fn deploy(kubectl: &Kubectl) -> Result<()> {
    kubectl.apply(EXAMPLE)?;
    for deployment in ["front", "back"] {
        kubectl.run(&format!(
            "rollout status deployment/{deployment} --timeout=90s"
        ))?;
    }
    kubectl.run("wait --for=condition=Ready pod/client --timeout=60s")?;
    poll::until("the front's endpoints", Duration::from_secs(20), || {
        services::ready_endpoints(kubectl, "front").and_then(|found| {
            anyhow::ensure!(found == 2 * FRONT_PODS, "{found} endpoints are ready");
            Ok(())
        })
    })
}
