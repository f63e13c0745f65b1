//! The frontends that a Service asks for.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Family, FrontendKind, Service, ServicePort};
use crate::maps::FrontendKey;

/// Where node ports are served.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct NodePortAddresses {
    /// The node's addresses.
    pub addresses: Vec<IpAddr>,
    /// Whether the node's own processes reach them on loopback.
    pub loopback: bool,
}

/// What is asked for a key: the index of the Service's port and what the frontend is.
pub(super) type Wanted = BTreeMap<FrontendKey, (usize, FrontendKind)>;

/// All keys that a Service claims. Where it names one key twice, the first kind in
/// [`FrontendKind`]'s order counts.
pub(super) fn wanted(service: &Service, nodes: &NodePortAddresses) -> Wanted {
    let mut found = Wanted::new();
    for (i, port) in service.ports.iter().enumerate() {
        for (key, kind) in port_frontends(service, port, nodes) {
            let entry = found.entry(key).or_insert((i, kind));
            if (kind, i) < (entry.1, entry.0) {
                *entry = (i, kind);
            }
        }
    }
    found
}

fn port_frontends<'a>(
    service: &'a Service,
    port: &'a ServicePort,
    nodes: &'a NodePortAddresses,
) -> impl Iterator<Item = (FrontendKey, FrontendKind)> + 'a {
    let on = move |addrs: &'a [IpAddr], kind| {
        addrs
            .iter()
            .map(move |addr| (FrontendKey::new(*addr, port.port, port.protocol), kind))
    };
    on(&service.cluster_ips, FrontendKind::ClusterIp)
        .chain(on(&service.load_balancer_ips, FrontendKind::LoadBalancer))
        .chain(on(&service.external_ips, FrontendKind::ExternalIp))
        .chain(node_port_frontends(service, port, nodes))
}

fn node_port_frontends<'a>(
    service: &'a Service,
    port: &'a ServicePort,
    nodes: &'a NodePortAddresses,
) -> impl Iterator<Item = (FrontendKey, FrontendKind)> + 'a {
    let addresses = nodes
        .addresses
        .iter()
        .copied()
        .map(|addr| (addr, FrontendKind::NodePort));
    let loopback = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]
        .into_iter()
        .filter(|_| nodes.loopback)
        .map(|addr| (addr, FrontendKind::LoopbackNodePort));
    port.node_port.into_iter().flat_map(move |number| {
        addresses
            .clone()
            .chain(loopback.clone())
            .filter(|(addr, _)| service.has_family(Family::of(*addr)))
            .map(move |(addr, kind)| (FrontendKey::new(addr, number, port.protocol), kind))
    })
}
