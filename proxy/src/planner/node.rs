//! The own Node, as far as it matters to routing and health.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use k8s_openapi::api::core::v1 as api;

const ZONE_LABEL: &str = "topology.kubernetes.io/zone";
/// The cluster autoscaler puts this taint on a node that it is about to remove.
const TO_BE_DELETED_TAINT: &str = "ToBeDeletedByClusterAutoscaler";

/// The part of the own Node that the agent needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// `topology.kubernetes.io/zone`; empty when the node does not know its zone.
    pub zone: Box<str>,
    /// Internal addresses, then external ones, in the Node's order.
    pub addresses: Vec<IpAddr>,
    /// `spec.podCIDRs`.
    pub pod_cidrs: Vec<IpNetwork>,
    /// Being deleted, by its timestamp or by the cluster autoscaler's taint: load balancers should
    /// send no new connections here (KEP-3836).
    pub leaving: bool,
}

impl Node {
    /// Reads a Node; addresses that cannot be read (host names) are left out.
    pub fn from_api(node: &api::Node) -> Self {
        let label = |name: &str| node.metadata.labels.as_ref()?.get(name).cloned();
        Self {
            zone: label(ZONE_LABEL).unwrap_or_default().into(),
            addresses: addresses(node),
            pod_cidrs: pod_cidrs(node),
            leaving: node.metadata.deletion_timestamp.is_some() || tainted(node),
        }
    }

    /// The first address of a family: the one that translated traffic leaves with.
    pub fn primary(&self, ipv4: bool) -> Option<IpAddr> {
        self.addresses
            .iter()
            .copied()
            .find(|addr| addr.is_ipv4() == ipv4)
    }
}

fn addresses(node: &api::Node) -> Vec<IpAddr> {
    let all = || {
        node.status
            .iter()
            .flat_map(|status| status.addresses.iter().flatten())
    };
    let of = |kind: &'static str| all().filter(move |addr| addr.type_ == kind);
    of("InternalIP")
        .chain(of("ExternalIP"))
        .filter_map(|addr| addr.address.parse().ok())
        .collect()
}

fn pod_cidrs(node: &api::Node) -> Vec<IpNetwork> {
    let cidrs = node
        .spec
        .iter()
        .flat_map(|spec| spec.pod_cidrs.iter().flatten());
    cidrs.filter_map(|cidr| cidr.parse().ok()).collect()
}

fn tainted(node: &api::Node) -> bool {
    let taints = node
        .spec
        .iter()
        .flat_map(|spec| spec.taints.iter().flatten());
    taints
        .into_iter()
        .any(|taint| taint.key == TO_BE_DELETED_TAINT)
}
