//! From watch events to the planner's memory.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::{Event, Step};
use crate::planner::{Node, ObjectName, Planner};

/// Hands events to a planner, and notices what a new list no longer names.
#[derive(Debug)]
pub struct Feed {
    own_node: ObjectName,
    /// The addresses of the other Nodes, where they are watched.
    peers: BTreeMap<ObjectName, Vec<IpAddr>>,
    /// They are not as they were when they were last asked for.
    peers_moved: bool,
    services: Listing,
    slices: Listing,
    nodes: Listing,
}

/// How far a kind's list has come.
#[derive(Debug, Default)]
struct Listing {
    complete: bool,
    /// While a list comes in: what was known before and has not been named yet.
    missing: Option<BTreeSet<ObjectName>>,
}

impl Listing {
    fn restarted(&mut self, known: BTreeSet<ObjectName>) {
        self.missing = Some(known);
    }

    fn seen(&mut self, name: &ObjectName) {
        if let Some(missing) = &mut self.missing {
            missing.remove(name);
        }
    }

    fn listed(&mut self) -> BTreeSet<ObjectName> {
        self.complete = true;
        self.missing.take().unwrap_or_default()
    }
}

impl Feed {
    /// A feed for the agent of this Node.
    pub fn new(own_node: &str) -> Self {
        Self {
            own_node: ObjectName::new("", own_node),
            peers: BTreeMap::new(),
            peers_moved: false,
            services: Listing::default(),
            slices: Listing::default(),
            nodes: Listing::default(),
        }
    }

    /// The other Nodes' addresses, when they have changed since the last call. Heartbeats change none.
    pub fn moved_peers(&mut self) -> Option<impl Iterator<Item = IpAddr>> {
        let moved = std::mem::take(&mut self.peers_moved);
        moved.then(|| self.peers.values().flatten().copied())
    }

    /// Takes in an event.
    pub fn take(&mut self, planner: &mut Planner, event: Event) {
        match event {
            Event::Service(step) => self.service(planner, step),
            Event::Slice(step) => self.slice(planner, step),
            Event::Node(step) => self.node(planner, step),
        }
    }

    /// Whether every kind has been listed whole once: before that a plan could be missing endpoints
    /// that the maps have.
    pub const fn synced(&self) -> bool {
        self.services.complete && self.slices.complete && self.nodes.complete
    }

    fn service(&mut self, planner: &mut Planner, step: Step<crate::planner::Service>) {
        match step {
            Step::Restarted => self.services.restarted(planner.service_names()),
            Step::Seen(name, service, problems) => {
                self.services.seen(&name);
                planner.set_service(&name, service, problems);
            }
            Step::Deleted(name) => planner.set_service(&name, None, Vec::new()),
            Step::Listed => {
                for name in self.services.listed() {
                    planner.set_service(&name, None, Vec::new());
                }
            }
        }
    }

    fn slice(&mut self, planner: &mut Planner, step: Step<crate::planner::EndpointSlice>) {
        match step {
            Step::Restarted => self.slices.restarted(planner.slice_names()),
            Step::Seen(name, slice, problems) => {
                self.slices.seen(&name);
                planner.set_slice(&name, slice, problems);
            }
            Step::Deleted(name) => planner.set_slice(&name, None, Vec::new()),
            Step::Listed => {
                for name in self.slices.listed() {
                    planner.set_slice(&name, None, Vec::new());
                }
            }
        }
    }

    /// An own Node that is gone leaves what was known of it in force: its addresses are still this
    /// machine's, only load balancers should stay away. A new one of that name may follow.
    fn node(&mut self, planner: &mut Planner, step: Step<Node>) {
        match step {
            Step::Seen(name, Some(node), _) if name == self.own_node => planner.set_node(node),
            Step::Deleted(name) if name == self.own_node => planner.set_node(Node {
                leaving: true,
                ..planner.node().clone()
            }),
            step => self.peer(step),
        }
    }

    fn peer(&mut self, step: Step<Node>) {
        match step {
            Step::Restarted => self.nodes.restarted(self.peers.keys().cloned().collect()),
            Step::Seen(name, node, _) => {
                self.nodes.seen(&name);
                if let Some(Node { addresses, .. }) = node {
                    let moved = self.peers.get(&name) != Some(&addresses);
                    self.peers_moved |= moved;
                    if moved {
                        self.peers.insert(name, addresses);
                    }
                }
            }
            Step::Deleted(name) => self.peers_moved |= self.peers.remove(&name).is_some(),
            Step::Listed => {
                for name in self.nodes.listed() {
                    self.peers_moved |= self.peers.remove(&name).is_some();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::planner::{Options, Service};

    fn service(ip: &str) -> Service {
        Service {
            created: 0,
            cluster_ips: vec![ip.parse().unwrap()],
            external_ips: Vec::new(),
            load_balancer_ips: Vec::new(),
            source_ranges: Vec::new(),
            ports: Vec::new(),
            internal_local: false,
            external_local: false,
            affinity: None,
            health_check_node_port: None,
        }
    }

    fn seen(name: &str, ip: &str) -> Event {
        Event::Service(Step::Seen(
            ObjectName::new("default", name),
            Some(service(ip)),
            Vec::new(),
        ))
    }

    #[test]
    fn a_second_list_touches_only_what_differs() {
        let (mut feed, mut planner) = (Feed::new("node1"), Planner::new(Options::default()));
        let lists = [
            vec![
                seen("same", "10.0.0.1"),
                seen("moved", "10.0.0.2"),
                seen("gone", "10.0.0.3"),
            ],
            vec![
                seen("same", "10.0.0.1"),
                seen("moved", "10.0.0.4"),
                seen("new", "10.0.0.5"),
            ],
        ];
        let mut touched = Vec::new();
        for list in lists {
            feed.take(&mut planner, Event::Service(Step::Restarted));
            list.into_iter()
                .for_each(|event| feed.take(&mut planner, event));
            feed.take(&mut planner, Event::Service(Step::Listed));
            touched = planner
                .drain()
                .into_iter()
                .map(|change| change.plan.service.name().to_owned())
                .collect();
        }
        assert_eq!(touched, ["gone", "moved", "new"]);
        let known: Vec<_> = planner
            .service_names()
            .iter()
            .map(|name| name.name().to_owned())
            .collect();
        assert_eq!(known, ["moved", "new", "same"]);
    }

    fn node(name: &str, addr: &str) -> Event {
        let node = Node {
            addresses: vec![addr.parse().unwrap()],
            ..Node::default()
        };
        Event::Node(Step::Seen(
            ObjectName::new("", name),
            Some(node),
            Vec::new(),
        ))
    }

    #[test]
    fn other_nodes_are_peers_until_a_list_no_longer_names_them() {
        let (mut feed, mut planner) = (Feed::new("node1"), Planner::new(Options::default()));
        let events = [
            Event::Node(Step::Restarted),
            node("node1", "198.18.0.11"),
            node("node2", "198.18.0.12"),
            node("node3", "198.18.0.13"),
            Event::Node(Step::Listed),
            Event::Node(Step::Restarted),
            node("node3", "198.18.0.33"),
            Event::Node(Step::Listed),
        ];
        for event in events {
            feed.take(&mut planner, event);
        }
        let peers = feed
            .moved_peers()
            .map(|peers| peers.map(|addr| addr.to_string()).collect());
        assert_eq!(peers, Some(vec!["198.18.0.33".to_owned()]));
        assert_eq!(planner.node().addresses.len(), 1);
        feed.take(&mut planner, node("node3", "198.18.0.33"));
        assert!(feed.moved_peers().is_none());
    }

    #[test]
    fn all_kinds_must_be_listed_before_anything_is_complete() {
        let (mut feed, mut planner) = (Feed::new("node1"), Planner::new(Options::default()));
        let lists = [
            Event::Service(Step::Listed),
            Event::Slice(Step::Listed),
            Event::Node(Step::Listed),
        ];
        for list in lists {
            assert!(!feed.synced());
            feed.take(&mut planner, list);
        }
        assert!(feed.synced());
        feed.take(&mut planner, Event::Slice(Step::Restarted));
        assert!(feed.synced());
    }
}
