//! Fills a node's tables by hand, as the reconciler would.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use sluice_common::{Be16, backend_flags, cidr_flags, config_flags, ticks_from_millis};
use sluice_proxy::loader;
use sluice_proxy::maps::kernel::KernelMaps;
use sluice_proxy::maps::{Backend, Config, Frontend, FrontendKey, Pool, Protocol, Range, Tables};

use super::world::{FAMILIES, Family, Node};

/// Length of the tables for traffic from outside.
const MAGLEV: u32 = 251;

/// A service to be written.
pub struct Service {
    pub id: u32,
    pub frontends: Vec<(IpAddr, u16, u32)>,
    pub protocol: Protocol,
    pub affinity_millis: u64,
    /// Address, and whether it is on this node.
    pub backends: Vec<(SocketAddr, bool)>,
}

impl Service {
    pub fn new(id: u32, protocol: Protocol) -> Self {
        Self {
            id,
            frontends: Vec::new(),
            protocol,
            affinity_millis: 0,
            backends: Vec::new(),
        }
    }

    pub fn frontend(mut self, ip: IpAddr, port: u16, flags: u32) -> Self {
        self.frontends.push((ip, port, flags));
        self
    }

    pub fn backend(mut self, ip: IpAddr, port: u16, local: bool) -> Self {
        self.backends.push((SocketAddr::new(ip, port), local));
        self
    }

    /// Each service has ids and ranges of its own: backends `16 * id ..`, slots alike.
    fn backend_id(&self, index: usize) -> u32 {
        16 * self.id + index as u32
    }

    pub fn write(&self, maps: &mut KernelMaps) {
        let ids: Vec<u32> = (0..self.backends.len())
            .map(|i| self.backend_id(i))
            .collect();
        for (id, (addr, local)) in ids.iter().zip(&self.backends) {
            maps.put_backend(*id, &self.record(*addr, *local))
                .expect("backend");
        }
        let internal = Range {
            offset: 16 * self.id,
            len: ids.len() as u32,
        };
        maps.write_range(Pool::Slots, internal.offset, &ids)
            .expect("slots");
        let external = Range {
            offset: MAGLEV * self.id,
            len: if ids.is_empty() { 0 } else { MAGLEV },
        };
        let table: Vec<u32> = ids
            .iter()
            .copied()
            .cycle()
            .take(external.len as usize)
            .collect();
        maps.write_range(Pool::Maglev, external.offset, &table)
            .expect("maglev");
        for (ip, port, flags) in &self.frontends {
            let value = Frontend {
                service_id: self.id,
                flags: *flags,
                affinity: ticks_from_millis(self.affinity_millis),
                reserved: 0,
                internal,
                external,
            };
            maps.put_frontend(&FrontendKey::new(*ip, *port, self.protocol), &value)
                .expect("frontend");
        }
    }

    fn record(&self, addr: SocketAddr, local: bool) -> Backend {
        let flags = backend_flags::INTERNAL | backend_flags::EXTERNAL;
        Backend {
            addr: addr.ip().into(),
            service_id: self.id,
            port: Be16::new(addr.port()),
            flags: if local {
                flags | backend_flags::LOCAL
            } else {
                flags
            },
            reserved: [0; 2],
        }
    }

    /// Takes the backend at `index` out of the service: its record loses its eligibility.
    pub fn retire(&self, maps: &mut KernelMaps, index: usize) {
        let (addr, local) = self.backends[index];
        let record = self.record(addr, local);
        let flags = record.flags & backend_flags::LOCAL;
        maps.put_backend(self.backend_id(index), &Backend { flags, ..record })
            .expect("backend");
    }
}

/// The node's configuration, and what is inside the cluster.
pub fn configure(node: &Node, maps: &mut KernelMaps) {
    let text = |family| node.ip(family).to_string();
    configure_as(maps, &text(Family::V4), &text(Family::V6));
    let inside = cidr_flags::NO_MASQUERADE_DESTINATION;
    for network in ["10.244.0.0/16", "fd00:10:244::/56"] {
        let flags = inside | cidr_flags::MASQUERADE_SOURCE;
        maps.put_cidr(network.parse().expect("network"), flags)
            .expect("cidr");
    }
    for number in [1, 2] {
        for family in FAMILIES {
            let ip = match family {
                Family::V4 => format!("198.18.0.{}/32", 10 + number),
                Family::V6 => format!("fd00:198:18::1{number}/128"),
            };
            maps.put_cidr(ip.parse().expect("network"), inside)
                .expect("cidr");
        }
    }
}

/// The configuration of a node with these addresses.
pub fn configure_as(maps: &mut KernelMaps, v4: &str, v6: &str) {
    let (v4, v6): (Ipv4Addr, Ipv6Addr) = (v4.parse().expect("IPv4"), v6.parse().expect("IPv6"));
    let config = Config {
        netns_cookie: loader::netns_cookie().expect("cookie"),
        flags: config_flags::MASQUERADE,
        node_v4: v4.into(),
        node_v6: v6.into(),
        snat_port_min: 61000,
        snat_port_max: 65535,
        timeouts: sluice_common::Timeouts {
            tcp_new: ticks_from_millis(60_000),
            tcp_established: ticks_from_millis(7_200_000),
            tcp_closing: ticks_from_millis(10_000),
            other_new: ticks_from_millis(30_000),
            other_established: ticks_from_millis(120_000),
        },
    };
    maps.put_config(&config).expect("config");
}
