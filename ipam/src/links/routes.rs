//! The host's routes of ours: to other nodes' pods through those nodes, and "unreachable" for this node's
//! own pool, so that a connection to an address without a pod fails at once instead of leaving by the
//! default route. Routes to single pods belong to their links and are only ever repaired here.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use netlink_packet_route::route::RouteMessage;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::ROUTE_PROTOCOL;
use super::messages::{self, RouteFacts};
use super::netlink::{Netlink, NetlinkError, Request};

/// Where packets to a destination go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Way {
    /// Through a node that is on a network of this one.
    Through(IpAddr),
    /// Nowhere, with an ICMP error.
    Unreachable,
}

impl std::fmt::Display for Way {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Way::Through(gateway) => write!(out, "via {gateway}"),
            Way::Unreachable => write!(out, "unreachable"),
        }
    }
}

/// The routes that should be there.
pub type Table = BTreeMap<IpNetwork, Way>;

/// What a reconciliation did.
#[derive(Debug, Default)]
pub struct Changes {
    /// Added or corrected.
    pub set: Vec<(IpNetwork, Way)>,
    /// No longer wanted.
    pub removed: Vec<IpNetwork>,
    /// Refused by the kernel, mostly because the gateway is on no network of this node.
    pub failed: Vec<(IpNetwork, Way, NetlinkError)>,
}

/// A route that the kernel has, with its message for deleting it.
struct Present {
    facts: RouteFacts,
    message: RouteMessage,
}

impl Present {
    fn way(&self) -> Option<Way> {
        match (self.facts.gateway, self.facts.unreachable) {
            (Some(gateway), _) => Some(Way::Through(gateway)),
            (None, true) => Some(Way::Unreachable),
            // A route to a pod.
            (None, false) => None,
        }
    }
}

/// Makes the kernel's table what it should be, as far as routes are ours.
pub fn reconcile(netlink: &mut Netlink, wanted: &Table) -> Result<Changes, NetlinkError> {
    let mut changes = Changes::default();
    let present = present(netlink)?;
    for (destination, way) in wanted {
        let there =
            |route: &&Present| route.facts.destination == *destination && route.way() == Some(*way);
        if present.iter().any(|route| there(&route)) {
            continue;
        }
        match netlink.execute(vec![new_route(destination, way)]) {
            Ok(()) => changes.set.push((*destination, *way)),
            Err((_, error)) => changes.failed.push((*destination, *way, error)),
        }
    }
    for route in present {
        if is_stale(&route, wanted, &changes) {
            let destination = route.facts.destination;
            delete(netlink, route.message)?;
            changes.removed.push(destination);
        }
    }
    Ok(changes)
}

/// A route that was replaced in place is gone already.
fn is_stale(route: &Present, wanted: &Table, changes: &Changes) -> bool {
    let destination = route.facts.destination;
    let replaced = changes.set.iter().any(|(set, _)| *set == destination);
    route
        .way()
        .is_some_and(|way| wanted.get(&destination) != Some(&way))
        && !replaced
}

fn delete(netlink: &mut Netlink, message: RouteMessage) -> Result<(), NetlinkError> {
    match netlink.execute(vec![messages::delete_route(message)]) {
        Ok(()) => Ok(()),
        Err((_, error)) if error.errno() == libc::ESRCH => Ok(()),
        Err((_, error)) => Err(error),
    }
}

fn new_route(destination: &IpNetwork, way: &Way) -> Request {
    match way {
        Way::Through(gateway) => messages::new_gateway_route(destination, *gateway),
        Way::Unreachable => messages::new_unreachable_route(destination),
    }
}

/// A table that never had a route does not exist, which is no error to us.
pub(super) fn dump(
    netlink: &mut Netlink,
    message: RouteNetlinkMessage,
) -> Result<Vec<RouteNetlinkMessage>, NetlinkError> {
    match netlink.dump(message) {
        Err(error) if error.errno() == libc::ENOENT => Ok(Vec::new()),
        outcome => outcome,
    }
}

fn present(netlink: &mut Netlink) -> Result<Vec<Present>, NetlinkError> {
    let mut all = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        for message in dump(netlink, messages::get_routes(family))? {
            let RouteNetlinkMessage::NewRoute(message) = message else {
                continue;
            };
            let facts = RouteFacts::read(&message).filter(|facts| facts.protocol == ROUTE_PROTOCOL);
            all.extend(facts.map(|facts| Present { facts, message }));
        }
    }
    Ok(all)
}

/// An event that concerns our routes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A route of ours that leads through another node, or nowhere, was removed or added.
    Table,
    /// The route to a pod was removed from the link with this index.
    PodRouteLost {
        /// The pod's address.
        address: IpAddr,
        /// The host-side link.
        link: u32,
    },
    /// A link or an address of the host changed: the kernel may have dropped routes silently.
    Network,
}

/// What an rtnetlink event means for us; `None` for the many that mean nothing.
pub fn interpret(message: &RouteNetlinkMessage) -> Option<Event> {
    match message {
        RouteNetlinkMessage::DelRoute(route) => lost(&RouteFacts::read(route)?),
        RouteNetlinkMessage::NewLink(_) | RouteNetlinkMessage::DelLink(_) => {
            let link = messages::Link::read(message)?;
            (!link.name.starts_with(super::names::PREFIX)).then_some(Event::Network)
        }
        RouteNetlinkMessage::NewAddress(_) | RouteNetlinkMessage::DelAddress(_) => {
            Some(Event::Network)
        }
        _ => None,
    }
}

fn lost(route: &RouteFacts) -> Option<Event> {
    if route.protocol != ROUTE_PROTOCOL {
        return None;
    }
    match (route.gateway, route.unreachable, route.link) {
        (None, false, Some(link)) => Some(Event::PodRouteLost {
            address: route.destination.ip(),
            link,
        }),
        _ => Some(Event::Table),
    }
}

/// Sets the route to a pod on its link.
pub fn set_pod_route(
    netlink: &mut Netlink,
    address: IpAddr,
    link: u32,
) -> Result<(), NetlinkError> {
    let request = messages::new_link_route(&IpNetwork::from(address), link);
    netlink.execute(vec![request]).map_err(|(_, error)| error)
}

/// The pod addresses that the host routes to a link, by link index.
pub fn pod_routes(netlink: &mut Netlink) -> Result<Vec<(IpAddr, u32)>, NetlinkError> {
    let routes = present(netlink)?;
    let to_pods = routes.iter().filter(|route| route.way().is_none());
    Ok(to_pods
        .filter_map(|route| Some((route.facts.destination.ip(), route.facts.link?)))
        .collect())
}

/// The link that carries an address of the host, by index.
pub fn link_with_address(
    netlink: &mut Netlink,
    address: IpAddr,
) -> Result<Option<u32>, NetlinkError> {
    let all = netlink.dump(messages::get_addresses())?;
    let mut found = all.iter().filter_map(messages::read_address);
    Ok(found
        .find(|(_, own, _)| *own == address)
        .map(|(link, ..)| link))
}

/// The link of the host's default route, by index: IPv4's, else IPv6's.
pub fn link_with_default_route(netlink: &mut Netlink) -> Result<Option<u32>, NetlinkError> {
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let routes = dump(netlink, messages::get_all_routes(family))?;
        let facts = routes.iter().filter_map(|message| match message {
            RouteNetlinkMessage::NewRoute(route) => RouteFacts::read(route),
            _ => None,
        });
        let mut defaults =
            facts.filter(|facts| facts.destination.prefix() == 0 && !facts.unreachable);
        if let Some(link) = defaults.find_map(|facts| facts.link) {
            return Ok(Some(link));
        }
    }
    Ok(None)
}
