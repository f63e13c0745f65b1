//! Links, addresses, neighbours and routes over rtnetlink, without a shell and without an async runtime,
//! so that the plugin starts fast; the daemon uses the same code.
//!
//! A pod's link is a veth pair whose one end is made inside the pod's namespace. There is no bridge and no
//! shared segment: the pod has its addresses as /32 and /128, a default route through the link-local
//! gateways [`GATEWAY_V4`] and [`GATEWAY_V6`], and permanent neighbour entries for them, which hold the
//! hardware address of the host's end. So nobody has to answer ARP or neighbour solicitations, and the
//! host's end needs no address. The host routes each pod address to its link.

pub mod names;
pub mod netlink;
pub mod netns;
pub mod pod;
pub mod routes;
pub mod sysctl;

mod messages;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The IPv4 gateway that every pod sees.
pub const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
/// The IPv6 gateway that every pod sees.
pub const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

/// rtm_protocol of the routes that are ours, in no use by anybody known to iproute2. Routes with
/// another protocol are never touched.
pub const ROUTE_PROTOCOL: u8 = 83;

/// The gateway of an address's family.
pub fn gateway(address: &IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => GATEWAY_V4.into(),
        IpAddr::V6(_) => GATEWAY_V6.into(),
    }
}
