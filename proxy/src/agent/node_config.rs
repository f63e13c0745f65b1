//! What the maps say about the node: its addresses, its timeouts, and whom it masquerades.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use sluice_common::{Config, Timeouts, cidr_flags, config_flags, ticks_from_millis};

use crate::config::{self, NodePortAddresses};
use crate::planner::Node;
use crate::reconciler::NodeTables;

/// Source ports for translated traffic: below what the kernel hands out itself (`ip_local_port_range`
/// begins at 32768) and below node ports. What listens on one of them is not in the way: an answer is known
/// by both its ends. Many, because a server that closes first keeps its connection's tuple for a minute.
const SNAT_PORTS: (u16, u16) = (1024, 29_999);

/// Destinations that never leave the link.
const LINK_LOCAL: [&str; 4] = ["169.254.0.0/16", "224.0.0.0/4", "fe80::/10", "ff00::/8"];

/// Keeps track of what the node is.
#[derive(Debug)]
pub struct NodeConfig {
    select: NodePortAddresses,
    /// Addresses of this network namespace's interfaces.
    local: Vec<IpAddr>,
    /// The prefixes that the configuration asks for.
    configured: BTreeMap<IpNetwork, u32>,
    tables: NodeTables,
}

impl NodeConfig {
    /// From the configuration and the cookie of the node's network namespace.
    pub fn new(config: &config::Config, netns_cookie: u64, local: Vec<(String, IpAddr)>) -> Self {
        let mut tables = NodeTables {
            config: Config {
                netns_cookie,
                snat_port_min: SNAT_PORTS.0,
                snat_port_max: SNAT_PORTS.1,
                timeouts: timeouts(&config.timeouts),
                ..Config::default()
            },
            cidrs: BTreeMap::new(),
        };
        if config.masquerades() {
            tables.config.flags |= config_flags::MASQUERADE;
            tables.cidrs = configured_cidrs(config);
        }
        let mut this = Self {
            select: config.node_port_addresses.clone(),
            local: Vec::new(),
            configured: tables.cidrs.clone(),
            tables,
        };
        this.set_local(local);
        this.set_node(&Node::default());
        this
    }

    /// What the maps should hold.
    pub const fn tables(&self) -> &NodeTables {
        &self.tables
    }

    /// Takes in the addresses of this network namespace.
    pub fn set_local(&mut self, found: Vec<(String, IpAddr)>) {
        let mut local: Vec<_> = found
            .into_iter()
            .map(|(_, addr)| addr)
            .filter(is_reachable)
            .collect();
        local.sort_unstable();
        local.dedup();
        self.local = local;
    }

    /// Takes in the Node; says whether what the maps should hold has changed.
    pub fn set_node(&mut self, node: &Node) -> bool {
        let old = self.tables.config;
        if let Some(IpAddr::V4(v4)) = self.own_address(node, true) {
            self.tables.config.node_v4 = v4.into();
        }
        if let Some(IpAddr::V6(v6)) = self.own_address(node, false) {
            self.tables.config.node_v6 = v6.into();
        }
        self.tables.config != old
    }

    /// Takes in the other Nodes' addresses; says whether what the maps should hold has changed. Nodes
    /// have routes to pods, so pods keep their addresses towards them: what a pod answers to a
    /// process of another node must come from where that process sent it.
    pub fn set_peers(&mut self, peers: impl Iterator<Item = IpAddr>) -> bool {
        if self.tables.config.flags & config_flags::MASQUERADE == 0 {
            return false;
        }
        let exempt = cidr_flags::NO_MASQUERADE_DESTINATION;
        let peers = peers.map(|peer| (IpNetwork::from(peer), exempt));
        let old = std::mem::replace(&mut self.tables.cidrs, with_outer(&self.configured, peers));
        self.tables.cidrs != old
    }

    /// The addresses that node ports are served on.
    pub fn node_port_addresses(&self, node: &Node) -> Vec<IpAddr> {
        match &self.select {
            NodePortAddresses::All => self.local.clone(),
            NodePortAddresses::In(networks) => {
                let within =
                    |addr: &&IpAddr| networks.iter().any(|network| network.contains(**addr));
                self.local.iter().filter(within).copied().collect()
            }
            NodePortAddresses::Primary => [true, false]
                .into_iter()
                .filter_map(|ipv4| self.own_address(node, ipv4))
                .collect(),
        }
    }

    /// The Node's address of a family; while it has none, one of this machine's.
    fn own_address(&self, node: &Node, ipv4: bool) -> Option<IpAddr> {
        let local = || {
            self.local
                .iter()
                .copied()
                .find(|addr| addr.is_ipv4() == ipv4)
        };
        node.primary(ipv4).or_else(local)
    }
}

fn is_reachable(addr: &IpAddr) -> bool {
    let link_local = match addr {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    !addr.is_loopback() && !addr.is_unspecified() && !link_local
}

fn configured_cidrs(config: &config::Config) -> BTreeMap<IpNetwork, u32> {
    let inside = cidr_flags::MASQUERADE_SOURCE | cidr_flags::NO_MASQUERADE_DESTINATION;
    let exempt = cidr_flags::NO_MASQUERADE_DESTINATION;
    let fixed = LINK_LOCAL.iter().filter_map(|text| text.parse().ok());
    let outside = config.non_masquerade_cidrs.iter().copied().chain(fixed);
    let mut all: BTreeMap<_, _> = outside.map(|network| (network, exempt)).collect();
    for network in &config.cluster_cidrs {
        all.insert(*network, inside);
    }
    with_outer(&all, std::iter::empty())
}

/// `known` and `more`. The longest prefix decides alone, so one inside another carries the outer
/// one's flags too.
fn with_outer(
    known: &BTreeMap<IpNetwork, u32>,
    more: impl Iterator<Item = (IpNetwork, u32)>,
) -> BTreeMap<IpNetwork, u32> {
    let flags = |network: &IpNetwork, own: u32| {
        let around = known.iter().filter(|(outer, _)| contains(outer, network));
        around.fold(own, |flags, (_, outer)| flags | outer)
    };
    let known_too = known.iter().map(|(network, own)| (*network, *own));
    known_too
        .chain(more)
        .map(|(network, own)| (network, flags(&network, own)))
        .collect()
}

fn contains(outer: &IpNetwork, inner: &IpNetwork) -> bool {
    outer.prefix() <= inner.prefix() && outer.contains(inner.ip())
}

fn timeouts(timeouts: &config::Timeouts) -> Timeouts {
    let ticks = |time: std::time::Duration| {
        ticks_from_millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
    };
    Timeouts {
        tcp_new: ticks(timeouts.tcp_new),
        tcp_established: ticks(timeouts.tcp_established),
        tcp_closing: ticks(timeouts.tcp_closing),
        other_new: ticks(timeouts.udp_new),
        other_established: ticks(timeouts.udp_established),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, FileConfig, Flags};

    fn config(flags: Flags) -> Config {
        Config::resolve(
            Flags {
                hostname_override: Some("node1".to_owned()),
                ..flags
            },
            FileConfig::default(),
        )
        .unwrap()
    }

    fn local(texts: &[&str]) -> Vec<(String, IpAddr)> {
        texts
            .iter()
            .map(|text| ("eth0".to_owned(), text.parse().unwrap()))
            .collect()
    }

    const LOCAL: [&str; 6] = [
        "127.0.0.1",
        "198.18.0.11",
        "10.0.0.1",
        "fe80::1",
        "fd00:198:18::11",
        "::1",
    ];

    #[test]
    fn node_ports_are_served_where_the_flag_says() {
        let node = Node {
            addresses: vec!["198.18.0.11".parse().unwrap()],
            ..Node::default()
        };
        for (flag, expected) in [
            (&[][..], &["10.0.0.1", "198.18.0.11", "fd00:198:18::11"][..]),
            (&["198.18.0.0/16"], &["198.18.0.11"]),
            (&["primary"], &["198.18.0.11", "fd00:198:18::11"]),
        ] {
            let flags = Flags {
                node_port_addresses: flag.iter().map(ToString::to_string).collect(),
                ..Flags::default()
            };
            let node_config = NodeConfig::new(&config(flags), 1, local(&LOCAL));
            let found: Vec<_> = node_config
                .node_port_addresses(&node)
                .iter()
                .map(ToString::to_string)
                .collect();
            assert_eq!(found, expected, "{flag:?}");
        }
    }

    #[test]
    fn a_prefix_inside_another_carries_the_flags_of_both() {
        let flags = Flags {
            masquerade: true,
            cluster_cidr: Some("10.244.0.0/16".to_owned()),
            non_masquerade_cidrs: vec!["10.0.0.0/8".to_owned()],
            ..Flags::default()
        };
        let tables = NodeConfig::new(&config(flags), 1, Vec::new()).tables;
        assert_eq!(tables.config.flags, config_flags::MASQUERADE);
        assert_eq!(tables.cidrs[&"10.244.0.0/16".parse().unwrap()], 3);
        assert_eq!(tables.cidrs[&"10.0.0.0/8".parse().unwrap()], 2);
        assert_eq!(tables.cidrs.len(), 2 + LINK_LOCAL.len());
    }

    #[test]
    fn pods_keep_their_addresses_towards_other_nodes() {
        let flags = Flags {
            masquerade: true,
            cluster_cidr: Some("10.244.0.0/16".to_owned()),
            ..Flags::default()
        };
        let mut node = NodeConfig::new(&config(flags), 1, Vec::new());
        let peers = || ["198.18.0.12", "10.244.9.9"].map(|addr| addr.parse().unwrap());
        assert!(node.set_peers(peers().into_iter()));
        assert!(!node.set_peers(peers().into_iter()));
        assert_eq!(node.tables.cidrs[&"198.18.0.12/32".parse().unwrap()], 2);
        assert_eq!(node.tables.cidrs[&"10.244.9.9/32".parse().unwrap()], 3);
        assert!(node.set_peers(std::iter::empty()));
        assert_eq!(node.tables.cidrs.len(), 1 + LINK_LOCAL.len());
    }

    #[test]
    fn without_pod_networks_nothing_is_masqueraded() {
        let tables = NodeConfig::new(
            &config(Flags {
                masquerade: true,
                ..Flags::default()
            }),
            1,
            Vec::new(),
        )
        .tables;
        assert_eq!((tables.config.flags, tables.cidrs.len()), (0, 0));
    }

    #[test]
    fn the_nodes_address_comes_from_the_node_or_else_from_the_machine() {
        let mut node_config = NodeConfig::new(&config(Flags::default()), 1, local(&LOCAL));
        assert_eq!(
            node_config.tables.config.node_v4,
            "10.0.0.1".parse::<std::net::Ipv4Addr>().unwrap().into()
        );
        let node = Node {
            addresses: vec!["198.18.0.11".parse().unwrap()],
            ..Node::default()
        };
        assert!(node_config.set_node(&node));
        assert!(!node_config.set_node(&node));
        assert_eq!(
            node_config.tables.config.node_v4,
            "198.18.0.11".parse::<std::net::Ipv4Addr>().unwrap().into()
        );
    }
}
