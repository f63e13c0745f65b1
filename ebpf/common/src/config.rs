//! What the agent tells the programs about the node.

use crate::plain::plain;
use crate::{Ipv4, Ipv6, Ticks};

/// The only element of `config`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Config {
    /// The cookie of the node's own network namespace (SO_NETNS_COOKIE).
    pub netns_cookie: u64,
    /// [`config_flags`].
    pub flags: u32,
    /// The address that translated IPv4 traffic leaves with; 0: none, such traffic is dropped.
    pub node_v4: Ipv4,
    /// The address that translated IPv6 traffic leaves with; all zero: none.
    pub node_v6: Ipv6,
    /// First source port (machine order) for translated traffic; outside of the range that the
    /// kernel hands out itself (ip_local_port_range).
    pub snat_port_min: u16,
    /// Last source port (machine order), inclusive.
    pub snat_port_max: u16,
    /// When idle flows end.
    pub timeouts: Timeouts,
}

/// Bits of [`Config::flags`].
pub mod config_flags {
    /// Pods' traffic that leaves the cluster gets the node's address.
    pub const MASQUERADE: u32 = 1 << 0;
}

/// Idle timeouts of flows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Timeouts {
    /// TCP before the server has answered.
    pub tcp_new: Ticks,
    /// TCP with both ends heard.
    pub tcp_established: Ticks,
    /// TCP after a FIN or RST; closed connections keep their source port for a shorter time.
    pub tcp_closing: Ticks,
    /// UDP (and anything else) before an answer.
    pub other_new: Ticks,
    /// UDP (and anything else) with both ends heard.
    pub other_established: Ticks,
}

/// The value of `cidrs_v4` and `cidrs_v6` (LPM tries keyed by prefix): [`cidr_flags`].
pub type Cidr = u32;

/// Bits of [`Cidr`].
pub mod cidr_flags {
    /// Sources in it are pods of this cluster: masqueraded when they leave.
    pub const MASQUERADE_SOURCE: u32 = 1 << 0;
    /// Destinations in it are inside the cluster (pods, services, nodes) or excepted: never
    /// masqueraded.
    pub const NO_MASQUERADE_DESTINATION: u32 = 1 << 1;
}

/// The data of the key of `source_ranges_v4` and `source_ranges_v6`: the prefix length counts the 32
/// bits of the service first, then the address's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct SourceRange<A> {
    /// The service (machine order; always matched whole).
    pub service_id: u32,
    /// The network's address.
    pub addr: A,
}

plain! {
    Config = 56,
    Timeouts = 20,
    SourceRange<Ipv4> = 8,
    SourceRange<Ipv6> = 20,
}
