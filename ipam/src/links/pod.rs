//! A pod's link: made whole or not at all, checked, and removed.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsRawFd;

use ipnetwork::IpNetwork;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use thiserror::Error;

use super::gateway;
pub use super::messages::Link;
use super::messages::{self, End, RouteFacts};
use super::names::{self, Mac};
use super::netlink::{Netlink, NetlinkError, Request};
use super::netns::{NetNs, NetNsError};
use super::routes;
use super::sysctl::{self, SysctlError};
use crate::allocator::Owner;

/// All that defines a pod's link. Addresses are at most one of each family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodLink {
    /// The name of the host's end.
    pub host: String,
    /// The name inside the pod.
    pub interface: String,
    /// Hardware address of the host's end.
    pub host_mac: Mac,
    /// Hardware address inside the pod.
    pub pod_mac: Mac,
    /// In bytes, of both ends.
    pub mtu: u32,
    /// The pod's addresses.
    pub addresses: Vec<IpAddr>,
    /// A note on the host's end for whoever looks at it.
    pub alias: String,
}

impl PodLink {
    /// The link of an owner; names and hardware addresses follow from it.
    pub fn new(owner: &Owner, addresses: Vec<IpAddr>, mtu: u32, note: &str) -> Self {
        let key = owner.key();
        Self {
            host: names::host_link(key),
            interface: owner.interface.clone(),
            host_mac: names::host_mac(key),
            pod_mac: names::pod_mac(key),
            mtu,
            addresses,
            alias: alias(owner, note),
        }
    }

    fn has_ipv6(&self) -> bool {
        self.addresses.iter().any(IpAddr::is_ipv6)
    }
}

/// IFALIASZ is 256 including the terminating zero.
fn alias(owner: &Owner, note: &str) -> String {
    let mut text = format!("sluice {owner} {note}");
    while text.len() > 255 {
        text.pop();
    }
    text.trim_end().to_owned()
}

/// One thing that is done to make a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Both ends, the pod's in its namespace.
    CreateLink,
    /// Ask for the pod end's index.
    FindPodEnd,
    /// A kernel setting inside the pod.
    PodSetting(String),
    /// Bring the pod's end up.
    PodUp,
    /// Give the pod an address.
    PodAddress(IpAddr),
    /// Tell the pod its gateway's hardware address.
    PodNeighbour(IpAddr),
    /// The pod's default route.
    PodRoute(IpAddr),
    /// A kernel setting of the host's end.
    HostSetting(String),
    /// Bring the host's end up.
    HostUp,
    /// Tell the host the pod's hardware address.
    HostNeighbour(IpAddr),
    /// The host's route to the pod.
    HostRoute(IpAddr),
}

impl fmt::Display for Step {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::CreateLink => write!(out, "create the veth pair"),
            Step::FindPodEnd => write!(out, "find the pod's end of the veth pair"),
            Step::PodSetting(name) => write!(out, "set {name} in the pod"),
            Step::PodUp => write!(out, "bring the pod's interface up"),
            Step::PodAddress(address) => write!(out, "add address {address} in the pod"),
            Step::PodNeighbour(gateway) => write!(out, "add the neighbour {gateway} in the pod"),
            Step::PodRoute(gateway) => {
                write!(out, "add the default route through {gateway} in the pod")
            }
            Step::HostSetting(name) => write!(out, "set {name} on the host"),
            Step::HostUp => write!(out, "bring the host's end up"),
            Step::HostNeighbour(address) => write!(out, "add the neighbour {address} on the host"),
            Step::HostRoute(address) => write!(out, "add the route to {address} on the host"),
        }
    }
}

/// Why a step failed.
#[derive(Debug, Error)]
pub enum Cause {
    /// The kernel refused a message.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// The kernel refused a setting.
    #[error(transparent)]
    Sysctl(#[from] SysctlError),
    /// The pod's namespace is gone or cannot be entered.
    #[error(transparent)]
    NetNs(#[from] NetNsError),
}

/// Why a link could not be made. Nothing of it is left, unless `leftover` says so.
#[derive(Debug, Error)]
#[error("cannot {step}: {cause}{}", Leftover(leftover))]
pub struct AttachError {
    /// What was being done.
    pub step: Step,
    /// Why it failed.
    pub cause: Cause,
    /// Why the unwinding failed too.
    pub leftover: Option<NetlinkError>,
}

struct Leftover<'a>(&'a Option<NetlinkError>);

impl fmt::Display for Leftover<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(error) => write!(out, "; and the link could not be removed again: {error}"),
            None => Ok(()),
        }
    }
}

impl AttachError {
    /// Whether a link with one of the names was there before.
    pub fn is_taken(&self) -> bool {
        let exists = matches!(&self.cause, Cause::Netlink(error) if error.errno() == libc::EEXIST);
        exists && self.step == Step::CreateLink
    }
}

fn failed(step: Step, cause: impl Into<Cause>) -> AttachError {
    AttachError {
        step,
        cause: cause.into(),
        leftover: None,
    }
}

/// Is asked before each step; an error makes the step fail. For tests, and free otherwise.
pub type Gate<'a> = &'a dyn Fn(&Step) -> io::Result<()>;

/// Lets every step pass.
pub fn open_gate(_: &Step) -> io::Result<()> {
    Ok(())
}

/// Makes the link between the pod's namespace and the one that the thread is in. When a step fails, all
/// that was made is removed: deleting the pair takes addresses, neighbours and routes with it.
pub fn attach(link: &PodLink, namespace: &NetNs, gate: Gate<'_>) -> Result<(), AttachError> {
    let mut host = Netlink::open().map_err(|error| failed(Step::CreateLink, error))?;
    let (host_end, pod_end) = ends(link);
    let descriptor = namespace.as_fd().as_raw_fd();
    let pair = messages::new_veth(host_end, pod_end, descriptor, link.mtu, &link.alias);
    run(&mut host, vec![(Step::CreateLink, pair)], gate)?;
    furnish(link, namespace, &mut host, gate).map_err(|error| AttachError {
        leftover: remove(&mut host, &link.host).err(),
        ..error
    })
}

fn ends(link: &PodLink) -> (End<'_>, End<'_>) {
    let host = End {
        name: &link.host,
        mac: link.host_mac,
    };
    let pod = End {
        name: &link.interface,
        mac: link.pod_mac,
    };
    (host, pod)
}

fn furnish(
    link: &PodLink,
    namespace: &NetNs,
    host: &mut Netlink,
    gate: Gate<'_>,
) -> Result<(), AttachError> {
    let pair = find(host, &link.host).map_err(|error| failed(Step::FindPodEnd, error))?;
    let index = pod_index(&pair, gate)?;
    let pod = namespace.enter(|| furnish_pod(link, index, gate));
    pod.map_err(|error| failed(Step::PodUp, error))??;
    furnish_host(link, pair.index, host, gate)
}

fn pod_index(pair: &Link, gate: Gate<'_>) -> Result<u32, AttachError> {
    let fail = |error| failed(Step::FindPodEnd, NetlinkError::from(error));
    gate(&Step::FindPodEnd).map_err(fail)?;
    let missing = || io::Error::new(io::ErrorKind::NotFound, "the host's end names no peer");
    pair.peer.ok_or_else(missing).map_err(fail)
}

/// Runs inside the pod's namespace.
fn furnish_pod(link: &PodLink, index: u32, gate: Gate<'_>) -> Result<(), AttachError> {
    let mut netlink = Netlink::open().map_err(|error| failed(Step::PodUp, error))?;
    for (name, value) in pod_settings(link) {
        ensure(Step::PodSetting(name.clone()), &name, value, gate)?;
    }
    let mut steps = vec![(Step::PodUp, messages::link_up(&link.interface))];
    for &address in &link.addresses {
        let gateway = gateway(&address);
        steps.extend([
            (
                Step::PodAddress(address),
                messages::new_address(index, address),
            ),
            (
                Step::PodNeighbour(gateway),
                messages::new_neighbour(index, gateway, link.host_mac),
            ),
            (
                Step::PodRoute(gateway),
                messages::new_default_route(index, gateway),
            ),
        ]);
    }
    run(&mut netlink, steps, gate)
}

fn furnish_host(
    link: &PodLink,
    index: u32,
    netlink: &mut Netlink,
    gate: Gate<'_>,
) -> Result<(), AttachError> {
    for (name, value) in host_settings(link) {
        ensure(Step::HostSetting(name.clone()), &name, value, gate)?;
    }
    let mut steps = vec![(
        Step::HostUp,
        messages::link_up_without_link_local(&link.host),
    )];
    for &address in &link.addresses {
        let route = messages::new_link_route(&IpNetwork::from(address), index);
        steps.extend([
            (
                Step::HostNeighbour(address),
                messages::new_neighbour(index, address, link.pod_mac),
            ),
            (Step::HostRoute(address), route),
        ]);
    }
    run(netlink, steps, gate)
}

/// Before the link goes up. Duplicate address detection would hold the link-local address back for a
/// second, on a link that has no other host; router advertisements have no sender there.
fn pod_settings(link: &PodLink) -> Vec<(String, &'static str)> {
    let name = |setting: &str| format!("net/ipv6/conf/{}/{setting}", link.interface);
    match link.has_ipv6() {
        true => vec![
            (name("disable_ipv6"), "0"),
            (name("accept_dad"), "0"),
            (name("accept_ra"), "0"),
        ],
        false => Vec::new(),
    }
}

/// The strict reverse path filter drops what a pod sends from an IPv4 address that is not routed to its
/// link, and no pod may advertise routes to the host.
fn host_settings(link: &PodLink) -> Vec<(String, &'static str)> {
    let v4 = |setting: &str| format!("net/ipv4/conf/{}/{setting}", link.host);
    let v6 = |setting: &str| format!("net/ipv6/conf/{}/{setting}", link.host);
    let mut settings = vec![(v4("rp_filter"), "1"), (v4("forwarding"), "1")];
    if link.has_ipv6() {
        settings.extend([
            (v6("disable_ipv6"), "0"),
            (v6("accept_ra"), "0"),
            (v6("forwarding"), "1"),
        ]);
    }
    settings
}

fn ensure(step: Step, name: &str, value: &str, gate: Gate<'_>) -> Result<(), AttachError> {
    if let Err(error) = gate(&step) {
        return Err(failed(step, NetlinkError::from(error)));
    }
    match sysctl::ensure(name, value) {
        Ok(_) => Ok(()),
        Err(error) => Err(failed(step, error)),
    }
}

/// Sends all steps as one batch. A step that the gate stops fails after those before it were done.
fn run(
    netlink: &mut Netlink,
    steps: Vec<(Step, Request)>,
    gate: Gate<'_>,
) -> Result<(), AttachError> {
    let (mut names, mut requests, mut stopped) = (Vec::new(), Vec::new(), None);
    for (step, request) in steps {
        if let Err(error) = gate(&step) {
            stopped = Some(failed(step, NetlinkError::from(error)));
            break;
        }
        names.push(step);
        requests.push(request);
    }
    if !requests.is_empty() {
        let outcome = netlink.execute(requests);
        outcome.map_err(|(at, error)| failed(names.swap_remove(at.min(names.len() - 1)), error))?;
    }
    stopped.map_or(Ok(()), Err)
}

/// A link of the namespace that the socket is in.
pub fn find(netlink: &mut Netlink, name: &str) -> Result<Link, NetlinkError> {
    read_link(&netlink.get(messages::get_link(name))?)
}

/// A link by its index.
pub fn find_by_index(netlink: &mut Netlink, index: u32) -> Result<Link, NetlinkError> {
    read_link(&netlink.get(messages::get_link_by_index(index))?)
}

fn read_link(message: &RouteNetlinkMessage) -> Result<Link, NetlinkError> {
    let unreadable = || io::Error::from(io::ErrorKind::InvalidData);
    Ok(Link::read(message).ok_or_else(unreadable)?)
}

/// All links of the namespace that the socket is in.
pub fn links(netlink: &mut Netlink) -> Result<Vec<Link>, NetlinkError> {
    let all = netlink.dump(messages::get_links())?;
    Ok(all.iter().filter_map(Link::read).collect())
}

/// Removes the pair by its host-side name, with all that hangs on it. `false` where there was none.
pub fn remove(netlink: &mut Netlink, host: &str) -> Result<bool, NetlinkError> {
    match netlink.execute(vec![messages::delete_link(host)]) {
        Ok(()) => Ok(true),
        Err((_, error)) if error.errno() == libc::ENODEV => Ok(false),
        Err((_, error)) => Err(error),
    }
}

/// Brings a link up, such as the loopback.
pub fn bring_up(netlink: &mut Netlink, name: &str) -> Result<(), NetlinkError> {
    netlink
        .execute(vec![messages::link_up(name)])
        .map_err(|(_, error)| error)
}

/// What differs from what [`attach`] made, one sentence each; empty where all is in place. The MTU may
/// be another: somebody may have tuned it, and the daemon's choice changes with the uplink.
pub fn verify(link: &PodLink, namespace: &NetNs) -> Result<Vec<String>, Cause> {
    let mut findings = Findings::default();
    let mut host = Netlink::open()?;
    if let Some(found) = findings.link("the host", &link.host, find(&mut host, &link.host))? {
        let routes = host_routes(&mut host)?;
        for address in &link.addresses {
            let there = |route: &RouteFacts| {
                route.destination == IpNetwork::from(*address) && route.link == Some(found.index)
            };
            findings.expect(routes.iter().any(there), || {
                format!("the host has no route to {address}")
            });
        }
    }
    namespace.enter(|| verify_pod(link, &mut findings))??;
    Ok(findings.0)
}

fn verify_pod(link: &PodLink, findings: &mut Findings) -> Result<(), Cause> {
    let mut pod = Netlink::open()?;
    let found = find(&mut pod, &link.interface);
    let Some(found) = findings.link("the pod", &link.interface, found)? else {
        return Ok(());
    };
    let addresses = addresses_of(&mut pod, found.index)?;
    let neighbours = pod.dump(messages::get_neighbours(found.index))?;
    let neighbours: Vec<_> = neighbours
        .iter()
        .filter_map(messages::read_permanent_neighbour)
        .collect();
    let routes = host_routes(&mut pod)?;
    for address in &link.addresses {
        let gateway = gateway(address);
        let neighbour = (gateway, link.host_mac.to_vec());
        let everything = messages::default_destination(&gateway);
        let default =
            |route: &RouteFacts| route.destination == everything && route.gateway == Some(gateway);
        findings.expect(addresses.contains(address), || {
            format!("the pod has no address {address}")
        });
        findings.expect(neighbours.contains(&neighbour), || {
            format!("the pod has no permanent neighbour {gateway}")
        });
        findings.expect(routes.iter().any(default), || {
            format!("the pod has no default route through {gateway}")
        });
    }
    Ok(())
}

fn addresses_of(netlink: &mut Netlink, index: u32) -> Result<Vec<IpAddr>, NetlinkError> {
    let all = netlink.dump(messages::get_addresses())?;
    let here = all
        .iter()
        .filter_map(messages::read_address)
        .filter(|(link, ..)| *link == index);
    Ok(here.map(|(_, address, _)| address).collect())
}

fn host_routes(netlink: &mut Netlink) -> Result<Vec<RouteFacts>, NetlinkError> {
    let mut routes = routes::dump(netlink, messages::get_routes(AddressFamily::Inet))?;
    routes.extend(routes::dump(
        netlink,
        messages::get_routes(AddressFamily::Inet6),
    )?);
    let read = |message: &RouteNetlinkMessage| match message {
        RouteNetlinkMessage::NewRoute(route) => RouteFacts::read(route),
        _ => None,
    };
    Ok(routes.iter().filter_map(read).collect())
}

#[derive(Default)]
struct Findings(Vec<String>);

impl Findings {
    fn expect(&mut self, holds: bool, otherwise: impl FnOnce() -> String) {
        if !holds {
            self.0.push(otherwise());
        }
    }

    fn link(
        &mut self,
        whose: &str,
        name: &str,
        found: Result<Link, NetlinkError>,
    ) -> Result<Option<Link>, NetlinkError> {
        match found {
            Ok(link) => {
                self.expect(link.up, || format!("{whose}'s link {name} is down"));
                Ok(Some(link))
            }
            Err(error) if error.errno() == libc::ENODEV => {
                self.0.push(format!("{whose} has no link {name}"));
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}
