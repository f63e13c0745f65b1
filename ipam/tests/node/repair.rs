//! Routes that somebody removes come back, stale ones go, and others' routes stay.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use sluice_ipam::links::ROUTE_PROTOCOL;
use sluice_ipam::links::netlink::Netlink;

use super::api::FakeApi;
use super::support::{Namespace, Node, Switch, apply, cidrs, eventually, node_object};

fn routes() -> Vec<RouteMessage> {
    let mut netlink = Netlink::open().unwrap();
    let mut all = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut message = RouteMessage::default();
        message.header.address_family = family;
        let dumped = netlink
            .dump(RouteNetlinkMessage::GetRoute(message))
            .unwrap_or_default();
        all.extend(dumped.into_iter().filter_map(|message| match message {
            RouteNetlinkMessage::NewRoute(route) => Some(route),
            _ => None,
        }));
    }
    all
}

fn ip(address: &RouteAddress) -> IpAddr {
    match address {
        RouteAddress::Inet(address) => (*address).into(),
        RouteAddress::Inet6(address) => (*address).into(),
        other => panic!("{other:?}"),
    }
}

fn describe(route: &RouteMessage) -> String {
    let mut text = String::new();
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Destination(address) => {
                text = format!(
                    "{}/{}{text}",
                    ip(address),
                    route.header.destination_prefix_length
                );
            }
            RouteAttribute::Gateway(address) => text.push_str(&format!(" via {}", ip(address))),
            _ => {}
        }
    }
    if route.header.kind == RouteType::Unreachable {
        text.push_str(" unreachable");
    }
    text
}

fn is_ours(route: &RouteMessage) -> bool {
    u8::from(route.header.protocol) == ROUTE_PROTOCOL
}

/// Sorted, of the namespace that the thread is in.
pub fn our_routes() -> Vec<String> {
    let mut texts: Vec<String> = routes()
        .iter()
        .filter(|route| is_ours(route))
        .map(describe)
        .collect();
    texts.sort();
    texts
}

fn delete_ours() {
    for mut route in routes().into_iter().filter(is_ours) {
        route.attributes.retain(|attribute| {
            matches!(
                attribute,
                RouteAttribute::Destination(_)
                    | RouteAttribute::Oif(_)
                    | RouteAttribute::Priority(_)
            )
        });
        apply(vec![(RouteNetlinkMessage::DelRoute(route), 0)]);
    }
}

fn foreign_route(destination: &str, gateway: IpAddr) -> RouteMessage {
    let destination: IpNetwork = destination.parse().unwrap();
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    message.header.destination_prefix_length = destination.prefix();
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Static;
    message.header.scope = RouteScope::Universe;
    message.header.kind = RouteType::Unicast;
    message
        .attributes
        .push(RouteAttribute::Destination(destination.ip().into()));
    message
        .attributes
        .push(RouteAttribute::Gateway(gateway.into()));
    message
}

fn expected(own: u8, peers: &[u8], pods: &[IpAddr]) -> Vec<String> {
    let mut all: Vec<String> = cidrs(own)
        .iter()
        .map(|cidr| format!("{cidr} unreachable"))
        .collect();
    for peer in peers {
        let [v4, v6] = cidrs(*peer);
        all.push(format!("{v4} via 198.18.0.{peer}"));
        all.push(format!("{v6} via fd00:198:18::{peer}"));
    }
    all.extend(pods.iter().map(|pod| IpNetwork::from(*pod).to_string()));
    all.sort();
    all
}

#[test]
fn the_route_table_follows_the_nodes_and_repairs_itself() {
    let api = FakeApi::new(&[1, 2].map(node_object));
    let switch = Switch::new();
    let node = Node::joined(&switch, 1, &api);
    let space = Namespace::new();
    let pod = node.add("pod", &space).addresses;
    let settles = |node: &Node, peers: &[u8], what: &str| {
        let wanted = expected(1, peers, &pod);
        eventually(what, || node.namespace.run(our_routes) == wanted);
    };
    settles(&node, &[2], "the first peer is routed");
    let foreign = foreign_route("10.88.99.0/24", "198.18.0.2".parse().unwrap());
    let new = RouteNetlinkMessage::NewRoute(foreign.clone());
    node.namespace
        .run(|| apply(vec![(new, NLM_F_CREATE | NLM_F_EXCL)]));

    node.namespace.run(delete_ours);
    settles(&node, &[2], "deleted routes come back, also the pod's");

    api.put(node_object(3));
    settles(&node, &[2, 3], "a new node is routed");
    let mut moved = node_object(3);
    moved["status"]["addresses"][0]["address"] = "198.18.0.77".into();
    api.put(moved);
    let route = "10.88.3.0/24 via 198.18.0.77".to_string();
    eventually("a node that moved is routed to its new address", || {
        node.namespace.run(our_routes).contains(&route)
    });
    api.delete(node_object(3));
    settles(&node, &[2], "a node that left is not routed");

    // What changes while no daemon runs is made good by the next one, and nothing is taken down before.
    node.kill();
    assert_eq!(node.namespace.run(our_routes), expected(1, &[2], &pod));
    api.delete(node_object(2));
    api.put(node_object(3));
    node.namespace.run(delete_ours);
    node.start();
    settles(&node, &[3], "a successor repairs");

    let kept = node.namespace.run(|| {
        routes()
            .iter()
            .any(|route| describe(route) == describe(&foreign))
    });
    assert!(kept, "a route of somebody else was removed");
    assert!(node.findings().is_empty(), "{:?}", node.findings());
}
