//! Services: frontends, backends, and the ranges that join them.
//!
//! A "service" of this ABI is one port of one Kubernetes Service in one address family: what
//! kube-proxy calls a service port name. Ids of services and backends are dense and start at 1 (0
//! means none), because arrays are indexed by them. A backend id belongs to one service: an endpoint
//! that serves two services has two ids.
//!
//! The eligible backends of a service are a [`Range`] of a big shared `u32` array. A range is
//! immutable once a frontend points at it: the agent writes a new one, replaces the frontend's value
//! (one atomic update), and reuses the old one only after programs that may still read it have ended.

use crate::plain::plain;
use crate::{Be16, Ipv4, Ipv6, Ticks};

/// The key of `frontends_v4` and `frontends_v6`: where clients send.
///
/// Port 0 with protocol 0 stands for the address as a whole: what a port without an entry of its own
/// does (see [`frontend_flags::ADDRESS`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct FrontendKey<A> {
    /// Destination address.
    pub addr: A,
    /// Destination port.
    pub port: Be16,
    /// IANA protocol number.
    pub protocol: u8,
    /// Zero.
    pub pad: u8,
}

impl<A> FrontendKey<A> {
    /// The key of `protocol` at `addr`:`port`.
    #[inline(always)]
    pub const fn new(addr: A, port: Be16, protocol: u8) -> Self {
        Self {
            addr,
            port,
            protocol,
            pad: 0,
        }
    }

    /// The key of the address as a whole.
    #[inline(always)]
    pub const fn address(addr: A) -> Self {
        Self::new(addr, Be16(0), 0)
    }
}

/// Entries `offset .. offset + len` of a shared array.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct Range {
    /// First entry.
    pub offset: u32,
    /// Number of entries; 0 is the empty range whatever its offset.
    pub len: u32,
}

/// The value of `frontends_v4` and `frontends_v6`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct Frontend {
    /// Service, from 1; the index of its counters.
    pub service_id: u32,
    /// [`frontend_flags`].
    pub flags: u32,
    /// ClientIP session affinity: how long after its last use an entry holds; 0 is no affinity.
    pub affinity: Ticks,
    /// Zero.
    pub reserved: u32,
    /// Backends for traffic from the cluster itself (socket hooks, pod links): a range of `slots`,
    /// from which one is drawn at random; a backend in it twice has twice the weight.
    pub internal: Range,
    /// Backends for traffic from outside: a range of `maglev`, indexed by the flow's hash.
    pub external: Range,
}

/// Bits of [`Frontend::flags`].
pub mod frontend_flags {
    /// Reachable from outside: the uplink's programs serve it. Unset for cluster IPs.
    pub const EXTERNAL: u32 = 1 << 0;
    /// `internal` is empty but the service has endpoints elsewhere: drop instead of reject.
    pub const INTERNAL_DROP: u32 = 1 << 1;
    /// `external` is empty but the service has endpoints elsewhere: drop instead of reject.
    pub const EXTERNAL_DROP: u32 = 1 << 2;
    /// externalTrafficPolicy: Local: `external` holds only backends of this node.
    pub const EXTERNAL_LOCAL: u32 = 1 << 3;
    /// Only for sockets of the node's own network namespace (node ports on loopback).
    pub const HOST_ONLY: u32 = 1 << 4;
    /// Clients from outside must be in one of the service's source ranges.
    pub const SOURCE_RANGES: u32 = 1 << 5;
    /// A whole address (port 0, protocol 0): TCP, UDP and SCTP to a port that has no frontend is
    /// rejected instead of passed on. Ranges are empty and the service id may be 0.
    pub const ADDRESS: u32 = 1 << 6;
    /// For display: a node port.
    pub const NODE_PORT: u32 = 1 << 8;
    /// For display: an external IP or a load balancer's address.
    pub const EXTERNAL_IP: u32 = 1 << 9;
    /// For display: a cluster IP.
    pub const CLUSTER_IP: u32 = 1 << 10;
    /// For display: a pod's host port.
    pub const HOST_PORT: u32 = 1 << 11;
}

/// An element of `backends`, at the index of its id. All zero: not in use.
///
/// Written by plain stores while programs run, so the agent writes it before anything refers to it,
/// clears the eligibility bits when it leaves its service, and keeps address and port as they were
/// until the id is reused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct Backend {
    /// Address; IPv4 is IPv4-mapped.
    pub addr: Ipv6,
    /// The service it belongs to.
    pub service_id: u32,
    /// Port.
    pub port: Be16,
    /// [`backend_flags`].
    pub flags: u16,
    /// Zero.
    pub reserved: [u32; 2],
}

/// Bits of [`Backend::flags`].
pub mod backend_flags {
    /// The endpoint is on this node.
    pub const LOCAL: u16 = 1 << 0;
    /// In the service's internal range; affinity and remembered choices keep it only while set.
    pub const INTERNAL: u16 = 1 << 1;
    /// In the service's external range; affinity keeps it only while set.
    pub const EXTERNAL: u16 = 1 << 2;
}

/// The key of `affinity`: one client of one service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct AffinityKey {
    /// Who: an address (IPv4 as IPv4-mapped), or a network namespace's cookie in the last two words.
    pub client: Ipv6,
    /// The service.
    pub service_id: u32,
    /// [`AffinityClient`].
    pub kind: u32,
}

/// What [`AffinityKey::client`] holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum AffinityClient {
    /// The client's address, as the uplink's programs see it.
    Address = 0,
    /// The cookie of the client's network namespace: a socket that connects has no address yet, and
    /// a pod is one namespace.
    Namespace = 1,
}

impl AffinityKey {
    /// The key of a client known by its address.
    #[inline(always)]
    pub const fn address(client: Ipv6, service_id: u32) -> Self {
        Self {
            client,
            service_id,
            kind: AffinityClient::Address as u32,
        }
    }

    /// The key of a client known by its network namespace's cookie.
    #[inline(always)]
    pub const fn namespace(cookie: u64, service_id: u32) -> Self {
        let client = Ipv6([0, 0, (cookie >> 32) as u32, cookie as u32]);
        Self {
            client,
            service_id,
            kind: AffinityClient::Namespace as u32,
        }
    }
}

/// The value of `affinity`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct AffinityValue {
    /// The backend that the client keeps.
    pub backend_id: u32,
    /// When it was last used.
    pub last_seen: Ticks,
}

plain! {
    FrontendKey<Ipv4> = 8,
    FrontendKey<Ipv6> = 20,
    Range = 8,
    Frontend = 32,
    Backend = 32,
    AffinityKey = 24,
    AffinityValue = 8,
}
