//! A small cluster's network: nodes with pods, a client outside, one switch.

use std::net::IpAddr;
use std::path::PathBuf;

use sluice_proxy::loader::{self, Options, XdpMode};

use super::machine::Machine;
use super::{Pins, capacity, chain, unique};

/// A node and its one pod.
pub struct Node {
    pub machine: Machine,
    pub pod: Machine,
    pub number: u8,
    pub pins: Pins,
}

/// Two nodes and a client on one network.
pub struct World {
    pub switch: Machine,
    pub node1: Node,
    pub node2: Node,
    pub client: Machine,
    ports: Vec<PathBuf>,
}

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

pub const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// The client's address.
pub fn client_ip(family: Family) -> IpAddr {
    parse(match family {
        Family::V4 => "198.18.0.100",
        Family::V6 => "fd00:198:18::100",
    })
}

/// A cluster IP.
pub fn cluster_ip(family: Family) -> IpAddr {
    parse(match family {
        Family::V4 => "10.96.0.10",
        Family::V6 => "fd00:10:96::10",
    })
}

/// An address that nothing has but a service: a load balancer's.
pub fn external_ip(family: Family) -> IpAddr {
    parse(match family {
        Family::V4 => "192.0.2.1",
        Family::V6 => "fd00:192::1",
    })
}

fn parse(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

impl Node {
    pub fn ip(&self, family: Family) -> IpAddr {
        parse(&match family {
            Family::V4 => format!("198.18.0.{}", 10 + self.number),
            Family::V6 => format!("fd00:198:18::1{}", self.number),
        })
    }

    pub fn pod_ip(&self, family: Family) -> IpAddr {
        parse(&match family {
            Family::V4 => format!("10.244.{}.2", self.number),
            Family::V6 => format!("fd00:10:244:{}::2", self.number),
        })
    }

    /// The dataplane's options for this node: hooks on its uplink and its cgroup.
    pub fn options(&self, xdp_mode: XdpMode) -> Options {
        Options {
            bpf_root: self.pins.0.clone(),
            cgroup: Some(self.machine.cgroup().to_owned()),
            devices: vec!["eth0".to_owned()],
            xdp_mode,
            capacity: capacity(),
        }
    }

    fn new(number: u8) -> Self {
        let machine = Machine::with_cgroup(&format!("node{number}"));
        for name in [
            "ipv4/ip_forward",
            "ipv6/conf/all/forwarding",
            "ipv6/conf/default/forwarding",
        ] {
            machine.sysctl(name, "1");
        }
        let pod = Machine::new(&format!("pod{number}"));
        Self {
            machine,
            pod,
            number,
            pins: Pins::new(&format!("node{number}")),
        }
    }

    /// Links the pod: its own addresses alone, and everything by way of the node.
    fn link_pod(&self) {
        machine_cable(&self.machine, "pod0", &self.pod, "eth0");
        let gateway = self.machine.link_address("pod0");
        for family in FAMILIES {
            let (via, length) = match family {
                Family::V4 => ("169.254.1.1", 32),
                Family::V6 => ("fe80::1", 128),
            };
            let ip = self.pod_ip(family);
            self.pod.ip(&format!(
                "address add {ip}/{length} dev eth0{}",
                nodad(family)
            ));
            self.pod.ip(&format!(
                "neighbour replace {via} lladdr {gateway} dev eth0 nud permanent"
            ));
            self.pod
                .ip(&format!("route add default via {via} dev eth0 onlink"));
            self.machine
                .ip(&format!("route add {ip}/{length} dev pod0"));
        }
    }

    fn route_to(&self, other: &Self) {
        for family in FAMILIES {
            let length = if family == Family::V4 { 32 } else { 128 };
            let (pod, node) = (other.pod_ip(family), other.ip(family));
            self.machine
                .ip(&format!("route add {pod}/{length} via {node}"));
        }
    }
}

fn nodad(family: Family) -> &'static str {
    if family == Family::V6 { " nodad" } else { "" }
}

/// A cable whose sending ends compute checksums: XDP sees frames as a wire would carry them.
fn machine_cable(machine: &Machine, name: &str, peer: &Machine, peer_name: &str) {
    machine.cable(name, peer, peer_name);
    machine.command("ethtool", &format!("-K {name} tx off"));
    peer.command("ethtool", &format!("-K {peer_name} tx off"));
}

impl World {
    pub fn new() -> Self {
        let switch = Machine::new("switch");
        switch.ip("link add br0 type bridge");
        switch.ip("link set br0 up");
        let mut world = Self {
            switch,
            node1: Node::new(1),
            node2: Node::new(2),
            client: Machine::new("client"),
            ports: Vec::new(),
        };
        world.plug_in();
        for node in [&world.node1, &world.node2] {
            node.link_pod();
        }
        world.node1.route_to(&world.node2);
        world.node2.route_to(&world.node1);
        world
    }

    fn plug_in(&mut self) {
        let addresses = |node: &Node| FAMILIES.map(|family| (family, node.ip(family)));
        let client = FAMILIES.map(|family| (family, client_ip(family)));
        let ends = [
            (&self.node1.machine, "port1", addresses(&self.node1)),
            (&self.node2.machine, "port2", addresses(&self.node2)),
            (&self.client, "port3", client),
        ];
        for (machine, port, addresses) in ends {
            machine_cable(&self.switch, port, machine, "eth0");
            self.switch.ip(&format!("link set {port} master br0"));
            let pin = PathBuf::from("/sys/fs/bpf").join(unique(port));
            let passed = self.switch.run(|| loader::attach_pass_all(port, &pin));
            passed.unwrap_or_else(|error| panic!("{}", chain(&error)));
            self.ports.push(pin);
            for (family, ip) in addresses {
                let length = if family == Family::V4 { 24 } else { 64 };
                machine.ip(&format!(
                    "address add {ip}/{length} dev eth0{}",
                    nodad(family)
                ));
            }
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for pin in &self.ports {
            let _ = std::fs::remove_file(pin);
        }
    }
}
