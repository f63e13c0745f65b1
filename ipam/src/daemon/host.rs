//! The node's own kernel settings, and its uplink.

use std::fs;
use std::net::IpAddr;

use crate::links::netlink::{Netlink, NetlinkError};
use crate::links::sysctl::{self, SysctlError};
use crate::links::{names, pod, routes};

/// Ethernet's, where no uplink is found.
const DEFAULT_MTU: u32 = 1500;
/// IPv6's (RFC 8200, section 5).
const MINIMUM_MTU: u32 = 1280;
const V6_FORWARDING: &str = "net/ipv6/conf/all/forwarding";

/// Turns the node into a router for its pods.
pub(super) fn prepare() -> Result<(), SysctlError> {
    sysctl::ensure("net/ipv4/ip_forward", "1")?;
    if sysctl::exists(V6_FORWARDING) {
        keep_router_advertisements()?;
        sysctl::ensure(V6_FORWARDING, "1")?;
    }
    Ok(())
}

/// An interface that forwards ignores router advertisements unless accept_ra is 2 (kernel's
/// ip-sysctl.rst), and a node that lives by them would lose its default route.
fn keep_router_advertisements() -> Result<(), SysctlError> {
    let interfaces = fs::read_dir("/proc/sys/net/ipv6/conf")
        .into_iter()
        .flatten()
        .flatten();
    for name in interfaces.filter_map(|entry| entry.file_name().into_string().ok()) {
        let host_wide = matches!(name.as_str(), "all" | "default" | "lo");
        let setting = format!("net/ipv6/conf/{name}/accept_ra");
        let forwarding = format!("net/ipv6/conf/{name}/forwarding");
        let accepts = sysctl::read(&setting).is_ok_and(|value| value == "1")
            && sysctl::read(&forwarding).is_ok_and(|value| value == "0");
        if accepts && !host_wide {
            sysctl::ensure(&setting, "2")?;
        }
    }
    Ok(())
}

/// The MTU of the link that carries one of the node's addresses, else of the default route's link, else
/// the smallest of the links to other machines.
pub(super) fn uplink_mtu(node_addresses: &[IpAddr]) -> Result<u32, NetlinkError> {
    let mut netlink = Netlink::open()?;
    for &address in node_addresses {
        if let Some(index) = routes::link_with_address(&mut netlink, address)? {
            return Ok(pod::find_by_index(&mut netlink, index)?.mtu);
        }
    }
    match routes::link_with_default_route(&mut netlink)? {
        Some(index) => Ok(pod::find_by_index(&mut netlink, index)?.mtu),
        None => smallest_mtu(&mut netlink),
    }
}

fn smallest_mtu(netlink: &mut Netlink) -> Result<u32, NetlinkError> {
    let links = pod::links(netlink)?.into_iter();
    let outward = links.filter(|link| {
        link.up
            && link.name != "lo"
            && !link.name.starts_with(names::PREFIX)
            && link.mtu >= MINIMUM_MTU
    });
    Ok(outward.map(|link| link.mtu).min().unwrap_or(DEFAULT_MTU))
}
