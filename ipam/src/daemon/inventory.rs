//! What is allocated beside what the kernel has.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use crate::allocator::Allocator;
use crate::links::netlink::{Netlink, NetlinkError};
use crate::links::pod::Link;
use crate::links::{names, pod, routes};
use crate::protocol::{Finding, Held};

/// Our links and the routes on them. Read before the allocations: an address is assigned before its link
/// is made, and released after, so a link without an allocation is none that is on its way.
pub(super) struct Kernel {
    links: HashMap<String, Link>,
    routes: HashSet<(IpAddr, u32)>,
}

impl Kernel {
    pub(super) fn read(netlink: &mut Netlink) -> Result<Self, NetlinkError> {
        let ours = pod::links(netlink)?
            .into_iter()
            .filter(|link| link.name.starts_with(names::PREFIX));
        let links = ours.map(|link| (link.name.clone(), link)).collect();
        let routes = routes::pod_routes(netlink)?.into_iter().collect();
        Ok(Self { links, routes })
    }

    fn lacks_route(&self, link: &Link, address: IpAddr) -> bool {
        !self.routes.contains(&(address, link.index))
    }
}

/// All differences, by address.
pub(super) fn compare(kernel: &Kernel, allocations: Vec<Held>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut known = HashSet::new();
    for held in allocations {
        known.insert(held.link.clone());
        match kernel.links.get(&held.link) {
            None => findings.push(Finding::NoLink { held }),
            Some(link) => {
                let missing = held
                    .addresses
                    .iter()
                    .filter(|address| kernel.lacks_route(link, **address));
                let finding = |&address: &IpAddr| Finding::NoRoute {
                    held: held.clone(),
                    address,
                };
                findings.extend(missing.map(finding));
            }
        }
    }
    let strangers = kernel.links.keys().filter(|name| !known.contains(*name));
    findings.extend(strangers.map(|link| Finding::NoAllocation { link: link.clone() }));
    findings
}

/// Sets the missing routes to pods whose link is up.
pub(super) fn repair(netlink: &mut Netlink, allocator: &Allocator) -> Result<(), NetlinkError> {
    let kernel = Kernel::read(netlink)?;
    for (key, addresses) in allocator.owners() {
        let link = kernel
            .links
            .get(&names::host_link(key))
            .filter(|link| link.up);
        for (link, address) in link
            .iter()
            .flat_map(|link| addresses.iter().map(move |a| (link, *a)))
        {
            if kernel.lacks_route(link, address) {
                repair_one(netlink, address, link.index);
            }
        }
    }
    Ok(())
}

/// Sets one route again that somebody removed, if its link is still there.
pub(super) fn repair_one(netlink: &mut Netlink, address: IpAddr, link: u32) {
    match routes::set_pod_route(netlink, address, link) {
        Ok(()) => tracing::warn!(%address, link, "the route to a pod was missing and is back"),
        // The link went down or away in between: the pod is being removed.
        Err(error) => tracing::debug!(%address, link, %error, "the route to a pod cannot be set"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::allocator::{Allocation, Details, Owner};

    fn held(n: u8) -> Held {
        let owner = Owner::new(format!("c{n}"), "eth0");
        let addresses = vec![IpAddr::from([10, 0, 0, n])];
        Held::from(Allocation {
            owner,
            details: Details::default(),
            addresses,
        })
    }

    fn link(name: &str, index: u32) -> (String, Link) {
        let link = Link {
            index,
            name: name.into(),
            mtu: 1500,
            up: true,
            mac: Vec::new(),
            peer: None,
        };
        (name.into(), link)
    }

    #[test]
    fn each_kind_of_difference_is_found() {
        let (whole, routeless, linkless) = (held(1), held(2), held(3));
        let kernel = Kernel {
            links: HashMap::from([
                link(&whole.link, 5),
                link(&routeless.link, 6),
                link("slustranger", 7),
            ]),
            routes: HashSet::from([(whole.addresses[0], 5), (routeless.addresses[0], 99)]),
        };
        let expected = vec![
            Finding::NoRoute {
                held: routeless.clone(),
                address: routeless.addresses[0],
            },
            Finding::NoLink {
                held: linkless.clone(),
            },
            Finding::NoAllocation {
                link: "slustranger".into(),
            },
        ];
        assert_eq!(compare(&kernel, vec![whole, routeless, linkless]), expected);
    }
}
