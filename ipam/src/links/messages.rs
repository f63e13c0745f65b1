//! The rtnetlink messages that we send, and what we read from those that we get.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::RawFd;

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoKind, InfoVeth, LinkAttribute,
    LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope,
    RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::ROUTE_PROTOCOL;
use super::names::Mac;
use super::netlink::Request;

const EVERYTHING_V4: Ipv4Network = match Ipv4Network::new_checked(Ipv4Addr::UNSPECIFIED, 0) {
    Some(network) => network,
    None => panic!("0.0.0.0/0 is a network"),
};
const EVERYTHING_V6: Ipv6Network = match Ipv6Network::new_checked(Ipv6Addr::UNSPECIFIED, 0) {
    Some(network) => network,
    None => panic!("::/0 is a network"),
};

fn request(message: RouteNetlinkMessage, flags: u16) -> Request {
    Request { message, flags }
}

fn family(address: &IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

/// One end of a veth pair that is to be made.
pub(super) struct End<'a> {
    pub(super) name: &'a str,
    pub(super) mac: Mac,
}

/// A veth pair: `host` here, `pod` in the namespace behind the descriptor.
pub(super) fn new_veth(
    host: End<'_>,
    pod: End<'_>,
    namespace: RawFd,
    mtu: u32,
    alias: &str,
) -> Request {
    let mut peer = end(&pod, mtu);
    peer.attributes.push(LinkAttribute::NetNsFd(namespace));
    let mut message = end(&host, mtu);
    message
        .attributes
        .push(LinkAttribute::IfAlias(alias.to_owned()));
    message.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Veth),
        LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
    ]));
    request(
        RouteNetlinkMessage::NewLink(message),
        NLM_F_CREATE | NLM_F_EXCL,
    )
}

fn end(end: &End<'_>, mtu: u32) -> LinkMessage {
    let mut message = named_link(end.name);
    message
        .attributes
        .push(LinkAttribute::Address(end.mac.to_vec()));
    message.attributes.push(LinkAttribute::Mtu(mtu));
    message
}

fn named_link(name: &str) -> LinkMessage {
    let mut message = LinkMessage::default();
    message
        .attributes
        .push(LinkAttribute::IfName(name.to_owned()));
    message
}

/// Asks for a link by name.
pub(super) fn get_link(name: &str) -> RouteNetlinkMessage {
    RouteNetlinkMessage::GetLink(named_link(name))
}

/// Asks for a link by index.
pub(super) fn get_link_by_index(index: u32) -> RouteNetlinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    RouteNetlinkMessage::GetLink(message)
}

/// Deletes a link by name.
pub(super) fn delete_link(name: &str) -> Request {
    request(RouteNetlinkMessage::DelLink(named_link(name)), 0)
}

fn up(mut message: LinkMessage) -> Request {
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    request(RouteNetlinkMessage::SetLink(message), 0)
}

/// Brings a link up.
pub(super) fn link_up(name: &str) -> Request {
    up(named_link(name))
}

/// Brings a link up that shall have no IPv6 link-local address: nobody needs one at the host's end, and
/// without it the kernel sends nothing into the pod unasked.
pub(super) fn link_up_without_link_local(name: &str) -> Request {
    let mut message = named_link(name);
    let mode = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
    let specific = LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![mode])]);
    message.attributes.push(specific);
    up(message)
}

/// Adds a /32 or /128. IPv6 without duplicate address detection: the allocator knows better, and the
/// address is usable at once.
pub(super) fn new_address(index: u32, address: IpAddr) -> Request {
    let mut message = AddressMessage::default();
    message.header.family = family(&address);
    message.header.index = index;
    message.header.prefix_len = if address.is_ipv4() { 32 } else { 128 };
    message.attributes.push(AddressAttribute::Local(address));
    message.attributes.push(AddressAttribute::Address(address));
    if address.is_ipv6() {
        message
            .attributes
            .push(AddressAttribute::Flags(AddressFlags::Nodad));
    }
    request(
        RouteNetlinkMessage::NewAddress(message),
        NLM_F_CREATE | NLM_F_EXCL,
    )
}

/// Adds a neighbour that needs no resolution and never expires.
pub(super) fn new_neighbour(index: u32, address: IpAddr, mac: Mac) -> Request {
    let mut message = NeighbourMessage::default();
    message.header.family = family(&address);
    message.header.ifindex = index;
    message.header.state = NeighbourState::Permanent;
    let destination = match address {
        IpAddr::V4(address) => NeighbourAddress::Inet(address),
        IpAddr::V6(address) => NeighbourAddress::Inet6(address),
    };
    message
        .attributes
        .push(NeighbourAttribute::Destination(destination));
    message
        .attributes
        .push(NeighbourAttribute::LinkLayerAddress(mac.to_vec()));
    request(
        RouteNetlinkMessage::NewNeighbour(message),
        NLM_F_CREATE | NLM_F_REPLACE,
    )
}

fn route(destination: &IpNetwork, kind: RouteType) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family(&destination.ip());
    message.header.destination_prefix_length = destination.prefix();
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::from(ROUTE_PROTOCOL);
    message.header.kind = kind;
    if destination.prefix() > 0 {
        let address = RouteAddress::from(destination.network());
        message
            .attributes
            .push(RouteAttribute::Destination(address));
    }
    message
}

fn replace_route(message: RouteMessage) -> Request {
    request(
        RouteNetlinkMessage::NewRoute(message),
        NLM_F_CREATE | NLM_F_REPLACE,
    )
}

/// The pod's default route. The gateway is in no subnet of the pod, hence `onlink`.
pub(super) fn new_default_route(index: u32, gateway: IpAddr) -> Request {
    let everything = default_destination(&gateway);
    let mut message = route(&everything, RouteType::Unicast);
    message.header.flags = RouteFlags::Onlink;
    message.attributes.push(RouteAttribute::Oif(index));
    message
        .attributes
        .push(RouteAttribute::Gateway(gateway.into()));
    replace_route(message)
}

/// 0.0.0.0/0 or ::/0.
pub(super) fn default_destination(family_of: &IpAddr) -> IpNetwork {
    match family_of {
        IpAddr::V4(_) => IpNetwork::V4(EVERYTHING_V4),
        IpAddr::V6(_) => IpNetwork::V6(EVERYTHING_V6),
    }
}

/// A route to what is directly on a link.
pub(super) fn new_link_route(destination: &IpNetwork, index: u32) -> Request {
    replace_route(link_route(destination, index))
}

fn link_route(destination: &IpNetwork, index: u32) -> RouteMessage {
    let mut message = route(destination, RouteType::Unicast);
    message.attributes.push(RouteAttribute::Oif(index));
    if destination.is_ipv4() {
        message.header.scope = RouteScope::Link;
    }
    message
}

/// A route through another machine.
pub(super) fn new_gateway_route(destination: &IpNetwork, gateway: IpAddr) -> Request {
    let mut message = route(destination, RouteType::Unicast);
    message
        .attributes
        .push(RouteAttribute::Gateway(gateway.into()));
    replace_route(message)
}

/// A route that answers with "host unreachable".
pub(super) fn new_unreachable_route(destination: &IpNetwork) -> Request {
    replace_route(route(destination, RouteType::Unreachable))
}

/// Deletes a route as it was dumped.
pub(super) fn delete_route(mut message: RouteMessage) -> Request {
    message.header.flags = RouteFlags::empty();
    message.attributes.retain(|attribute| {
        matches!(
            attribute,
            RouteAttribute::Destination(_)
                | RouteAttribute::Gateway(_)
                | RouteAttribute::Oif(_)
                | RouteAttribute::Priority(_)
                | RouteAttribute::Table(_)
        )
    });
    request(RouteNetlinkMessage::DelRoute(message), 0)
}

/// Asks for our routes of a family, filtered by the kernel: other protocols' tables can be large.
pub(super) fn get_routes(family: AddressFamily) -> RouteNetlinkMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family;
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::from(ROUTE_PROTOCOL);
    RouteNetlinkMessage::GetRoute(message)
}

/// Asks for all routes of a family in the main table.
pub(super) fn get_all_routes(family: AddressFamily) -> RouteNetlinkMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family;
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    RouteNetlinkMessage::GetRoute(message)
}

/// Asks for all addresses.
pub(super) fn get_addresses() -> RouteNetlinkMessage {
    RouteNetlinkMessage::GetAddress(AddressMessage::default())
}

/// Asks for all neighbours on a link.
pub(super) fn get_neighbours(index: u32) -> RouteNetlinkMessage {
    let mut message = NeighbourMessage::default();
    message.attributes.push(NeighbourAttribute::IfIndex(index));
    RouteNetlinkMessage::GetNeighbour(message)
}

/// Asks for all links.
pub(super) fn get_links() -> RouteNetlinkMessage {
    RouteNetlinkMessage::GetLink(LinkMessage::default())
}

/// What we want to know of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its index in its namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Whether it is administratively up.
    pub up: bool,
    /// The hardware address.
    pub mac: Vec<u8>,
    /// The other end's index, of a veth.
    pub peer: Option<u32>,
}

impl Link {
    /// From a message about a link.
    pub fn read(message: &RouteNetlinkMessage) -> Option<Self> {
        let (RouteNetlinkMessage::NewLink(message) | RouteNetlinkMessage::DelLink(message)) =
            message
        else {
            return None;
        };
        let mut link = Link {
            index: message.header.index,
            name: String::new(),
            mtu: 0,
            up: message.header.flags.contains(LinkFlags::Up),
            mac: Vec::new(),
            peer: None,
        };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name.clone_from(name),
                LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
                LinkAttribute::Address(mac) => link.mac.clone_from(mac),
                LinkAttribute::Link(index) => link.peer = Some(*index),
                _ => {}
            }
        }
        Some(link)
    }
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}

/// What we want to know of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RouteFacts {
    pub(super) destination: IpNetwork,
    pub(super) gateway: Option<IpAddr>,
    pub(super) link: Option<u32>,
    pub(super) unreachable: bool,
    pub(super) protocol: u8,
}

impl RouteFacts {
    pub(super) fn read(message: &RouteMessage) -> Option<Self> {
        let header = &message.header;
        let unspecified: IpAddr = match header.address_family {
            AddressFamily::Inet => Ipv4Addr::UNSPECIFIED.into(),
            AddressFamily::Inet6 => Ipv6Addr::UNSPECIFIED.into(),
            _ => return None,
        };
        let find =
            |pick: fn(&RouteAttribute) -> Option<IpAddr>| message.attributes.iter().find_map(pick);
        let destination = find(|attribute| match attribute {
            RouteAttribute::Destination(address) => ip(address),
            _ => None,
        });
        let network = destination.unwrap_or(unspecified);
        Some(Self {
            destination: IpNetwork::new(network, header.destination_prefix_length).ok()?,
            gateway: find(|attribute| match attribute {
                RouteAttribute::Gateway(address) => ip(address),
                _ => None,
            }),
            link: message
                .attributes
                .iter()
                .find_map(|attribute| match attribute {
                    RouteAttribute::Oif(index) => Some(*index),
                    _ => None,
                }),
            unreachable: header.kind == RouteType::Unreachable,
            protocol: header.protocol.into(),
        })
    }
}

/// The link and address of a message about an address.
pub(super) fn read_address(message: &RouteNetlinkMessage) -> Option<(u32, IpAddr, u8)> {
    let RouteNetlinkMessage::NewAddress(message) = message else {
        return None;
    };
    // A veth's own address is Local; Address is that of the peer, or the same.
    let local = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            AddressAttribute::Local(address) => Some(*address),
            _ => None,
        });
    let any = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        });
    Some((
        message.header.index,
        local.or(any)?,
        message.header.prefix_len,
    ))
}

/// Address and hardware address of a permanent neighbour.
pub(super) fn read_permanent_neighbour(message: &RouteNetlinkMessage) -> Option<(IpAddr, Vec<u8>)> {
    let RouteNetlinkMessage::NewNeighbour(message) = message else {
        return None;
    };
    if message.header.state != NeighbourState::Permanent {
        return None;
    }
    let address = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => {
                Some(IpAddr::V4(*address))
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => {
                Some(IpAddr::V6(*address))
            }
            _ => None,
        })?;
    let mac = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            NeighbourAttribute::LinkLayerAddress(mac) => Some(mac.clone()),
            _ => None,
        })?;
    Some((address, mac))
}
