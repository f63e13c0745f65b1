//! Loops that move the cluster's actual state to the desired one.
//!
//! Each loop is keyed by one object, level-triggered and idempotent: it looks at the caches, decides
//! with a pure function, and writes the difference. A missed event, a restart in the middle or a
//! second master that took over change nothing but the time it takes. The loops share one set of
//! caches ([`shared::Shared`]); none of them talks to another except through the API server.
#![forbid(unsafe_code)]

mod claim;
pub mod deployment;
mod discovery;
pub mod endpoints;
pub mod endpointslice;
mod expectations;
pub mod garbage_collector;
mod namespace;
pub mod node_ipam;
pub mod node_lifecycle;
mod pod_gc;
pub mod replicaset;
mod service_account;
mod service_pods;
mod shared;
mod taint_eviction;

use std::time::Duration;

use ipnetwork::IpNetwork;
use kube::Client;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How the controllers run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Pod networks of the cluster, at most one of each family; empty leaves pod CIDRs to somebody else.
    pub cluster_cidrs: Vec<IpNetwork>,
    /// Prefix length of a node's IPv4 pod CIDR.
    pub node_cidr_mask_size_ipv4: u8,
    /// Prefix length of a node's IPv6 pod CIDR.
    pub node_cidr_mask_size_ipv6: u8,
    /// How long a node may be silent before it counts as lost.
    pub node_monitor_grace_period: Duration,
    /// How often nodes are looked at without an event.
    pub node_monitor_period: Duration,
    /// Finished pods beyond this number are deleted, the oldest first.
    pub terminated_pod_threshold: usize,
}

impl Default for Options {
    /// Upstream's defaults, and no pod CIDRs.
    fn default() -> Self {
        Self {
            cluster_cidrs: Vec::new(),
            node_cidr_mask_size_ipv4: 24,
            node_cidr_mask_size_ipv6: 64,
            node_monitor_grace_period: Duration::from_secs(40),
            node_monitor_period: Duration::from_secs(5),
            terminated_pod_threshold: 12_500,
        }
    }
}

/// Runs all controllers until cancelled.
///
/// Then every loop is dropped where it is, also in the middle of a request: who has lost the
/// leadership must not act any more, and a half-done reconcile is completed by whoever leads next.
pub async fn run(client: Client, options: Options, stop: CancellationToken) {
    let shared = shared::Shared::new(client, options, &stop);
    let tasks = [
        spawn(deployment::run(shared.clone(), stop.clone()), &stop),
        spawn(endpoints::run(shared.clone(), stop.clone()), &stop),
        spawn(endpointslice::run(shared.clone(), stop.clone()), &stop),
        spawn(garbage_collector::run(shared.clone(), stop.clone()), &stop),
        spawn(namespace::run(shared.clone(), stop.clone()), &stop),
        spawn(node_ipam::run(shared.clone(), stop.clone()), &stop),
        spawn(node_lifecycle::run(shared.clone(), stop.clone()), &stop),
        spawn(pod_gc::run(shared.clone(), stop.clone()), &stop),
        spawn(replicaset::run(shared.clone(), stop.clone()), &stop),
        spawn(service_account::run(shared.clone(), stop.clone()), &stop),
        spawn(taint_eviction::run(shared.clone(), stop.clone()), &stop),
    ];
    shared.start(&stop);
    for ended in futures::future::join_all(tasks).await {
        if let Err(error) = ended {
            tracing::error!(%error, "a controller ended unexpectedly");
        }
    }
}

fn spawn(
    controller: impl Future<Output = ()> + Send + 'static,
    stop: &CancellationToken,
) -> JoinHandle<Option<()>> {
    tokio::spawn(stop.clone().run_until_cancelled_owned(controller))
}
