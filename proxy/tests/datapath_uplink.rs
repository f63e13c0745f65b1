//! Clients outside reach services by node ports and external addresses, and pods reach outside.

mod support;

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use sluice_common::frontend_flags;
use sluice_proxy::loader::{Dataplane, XdpMode};
use sluice_proxy::maps::{DropReason, Observe, Protocol};
use support::echo::{self, Conversation, PORT, ask_tcp, ask_udp};
use support::tables::{Service, configure};
use support::world::{FAMILIES, Family, World, client_ip, external_ip};

const NODE_PORT: u16 = 30080;
const FLAGS: u32 = frontend_flags::EXTERNAL | frontend_flags::NODE_PORT;

fn world(mode: XdpMode) -> (World, Dataplane) {
    let world = World::new();
    echo::serve(&world.node1.pod, "pod1");
    echo::serve(&world.node2.pod, "pod2");
    echo::serve(&world.client, "client");
    let dataplane = start(&world, mode);
    (world, dataplane)
}

fn start(world: &World, mode: XdpMode) -> Dataplane {
    let node = &world.node1;
    node.machine.run(|| {
        let mut dataplane = support::start(&node.options(mode));
        configure(node, &mut dataplane.maps);
        dataplane
    })
}

fn node_port(world: &World, family: Family, protocol: Protocol) -> Service {
    Service::new(service_id(family, protocol), protocol).frontend(
        world.node1.ip(family),
        NODE_PORT,
        FLAGS,
    )
}

fn service_id(family: Family, protocol: Protocol) -> u32 {
    match (family, protocol) {
        (Family::V4, Protocol::Tcp) => 1,
        (Family::V4, _) => 2,
        (Family::V6, Protocol::Tcp) => 3,
        (Family::V6, _) => 4,
    }
}

fn to_node_port(world: &World, family: Family) -> SocketAddr {
    SocketAddr::new(world.node1.ip(family), NODE_PORT)
}

/// With this mode: a backend on the same node sees the client, and one elsewhere sees the node.
fn node_ports_reach(mode: XdpMode) {
    let (world, mut dataplane) = world(mode);
    let backends = [(&world.node1, true, "pod1"), (&world.node2, false, "pod2")];
    for family in FAMILIES {
        for (node, local, name) in backends {
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                let service = node_port(&world, family, protocol);
                service
                    .backend(node.pod_ip(family), PORT, local)
                    .write(&mut dataplane.maps);
            }
            let to = to_node_port(&world, family);
            let seen = if local {
                client_ip(family)
            } else {
                world.node1.ip(family)
            };
            for _ in 0..3 {
                let answer = world
                    .client
                    .run(|| ask_tcp(to))
                    .unwrap_or_else(|e| panic!("{to} {name}: {e}"));
                assert_eq!((answer.server.as_str(), answer.seen.ip()), (name, seen));
                let (answer, from) = world
                    .client
                    .run(|| ask_udp(to))
                    .unwrap_or_else(|e| panic!("{to}: {e}"));
                assert_eq!(
                    (answer.server.as_str(), answer.seen.ip(), from),
                    (name, seen, to)
                );
            }
        }
    }
}

#[test]
fn node_ports_reach_backends_by_native_xdp() {
    node_ports_reach(XdpMode::Native);
}

#[test]
fn node_ports_reach_backends_by_generic_xdp() {
    node_ports_reach(XdpMode::Generic);
}

#[test]
fn node_ports_reach_backends_without_xdp() {
    node_ports_reach(XdpMode::Off);
}

#[test]
fn external_addresses_reach_backends() {
    let (world, mut dataplane) = world(XdpMode::Auto);
    for family in FAMILIES {
        let ip = external_ip(family);
        world
            .client
            .ip(&format!("route add {ip} via {}", world.node1.ip(family)));
        Service::new(service_id(family, Protocol::Tcp), Protocol::Tcp)
            .frontend(
                ip,
                80,
                frontend_flags::EXTERNAL | frontend_flags::EXTERNAL_IP,
            )
            .backend(world.node2.pod_ip(family), PORT, false)
            .write(&mut dataplane.maps);
        let answer = world
            .client
            .run(|| ask_tcp(SocketAddr::new(ip, 80)))
            .expect("answers");
        assert_eq!(answer.server, "pod2");
    }
}

#[test]
fn a_service_without_endpoints_refuses_clients_at_once() {
    let (world, mut dataplane) = world(XdpMode::Auto);
    for family in FAMILIES {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            node_port(&world, family, protocol).write(&mut dataplane.maps);
        }
        let to = to_node_port(&world, family);
        let tcp = world.client.run(|| ask_tcp(to)).expect_err("refused");
        assert_eq!(tcp.kind(), ErrorKind::ConnectionRefused);
        let udp = world.client.run(|| {
            let socket = echo::udp_socket(to)?;
            socket.connect(to)?;
            socket.send(b"who?")?;
            echo::uninterrupted(|| socket.recv(&mut [0; 64]))
        });
        assert_eq!(
            udp.expect_err("refused").kind(),
            ErrorKind::ConnectionRefused
        );
    }
    let drops = dataplane.maps.drops().expect("drops");
    assert_eq!(drops[DropReason::NoEndpoints as usize].1.packets, 4);
}

#[test]
fn a_service_with_endpoints_elsewhere_only_drops_when_its_policy_is_local() {
    let (world, mut dataplane) = world(XdpMode::Auto);
    Service::new(1, Protocol::Udp)
        .frontend(
            world.node1.ip(Family::V4),
            NODE_PORT,
            FLAGS | frontend_flags::EXTERNAL_DROP,
        )
        .write(&mut dataplane.maps);
    let to = to_node_port(&world, Family::V4);
    world
        .client
        .run(|| echo::udp_socket(to).and_then(|s| s.send_to(b"who?", to)))
        .expect("sends");
    let deadline = Instant::now() + echo::PATIENCE;
    let dropped = || {
        dataplane.maps.drops().expect("drops")[DropReason::NoLocalEndpoints as usize]
            .1
            .packets
    };
    while dropped() == 0 {
        assert!(Instant::now() < deadline, "nothing was dropped");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn pods_leave_the_cluster_with_their_nodes_address_and_keep_their_own_inside() {
    let (world, _dataplane) = world(XdpMode::Auto);
    for family in FAMILIES {
        let outside = SocketAddr::new(client_ip(family), PORT);
        let node = world.node1.ip(family);
        let tcp = world.node1.pod.run(|| ask_tcp(outside)).expect("answers");
        assert_eq!(tcp.seen.ip(), node);
        assert!(tcp.seen.port() >= 61000);
        let udp = world.node1.pod.run(|| ask_udp(outside)).expect("answers");
        assert_eq!((udp.0.seen.ip(), udp.1), (node, outside));
        let inside = SocketAddr::new(world.node2.pod_ip(family), PORT);
        let pod = world.node1.pod.run(|| ask_tcp(inside)).expect("answers");
        assert_eq!(pod.seen.ip(), world.node1.pod_ip(family));
        let client_to_pod = SocketAddr::new(world.node1.pod_ip(family), PORT);
        world
            .client
            .ip(&format!("route add {} via {node}", client_to_pod.ip()));
        assert_eq!(
            world
                .client
                .run(|| ask_tcp(client_to_pod))
                .expect("answers")
                .server,
            "pod1"
        );
        world
            .node1
            .pod
            .run(|| echo::ping(client_ip(family)))
            .expect("echo reply");
    }
}

#[test]
fn two_services_with_one_backend_do_not_collide_on_one_client_port() {
    let (world, mut dataplane) = world(XdpMode::Auto);
    for (node, local) in [(&world.node1, true), (&world.node2, false)] {
        for (id, port) in [(1, 30081), (2, 30082)] {
            Service::new(id, Protocol::Udp)
                .frontend(world.node1.ip(Family::V4), port, FLAGS)
                .backend(node.pod_ip(Family::V4), PORT, local)
                .write(&mut dataplane.maps);
        }
        world.client.run(|| {
            let first = SocketAddr::new(world.node1.ip(Family::V4), 30081);
            let second = SocketAddr::new(world.node1.ip(Family::V4), 30082);
            let socket = echo::udp_socket(first).expect("a socket");
            for to in [first, second, first, second] {
                let (_, from) =
                    echo::ask_udp_from(&socket, to).unwrap_or_else(|e| panic!("{to}: {e}"));
                assert_eq!(from, to);
            }
        });
    }
}

#[test]
fn connections_outlive_a_restart_and_the_loss_of_their_backend() {
    let (world, mut dataplane) = world(XdpMode::Auto);
    for family in FAMILIES {
        for (node, local) in [(&world.node1, true), (&world.node2, false)] {
            let service =
                node_port(&world, family, Protocol::Tcp).backend(node.pod_ip(family), PORT, local);
            service.write(&mut dataplane.maps);
            let mut conversation = world
                .client
                .run(|| Conversation::open(to_node_port(&world, family)))
                .expect("connects");
            let before = conversation.ask().expect("answers");
            drop(dataplane);
            assert_eq!(
                conversation.ask().expect("answers without an agent"),
                before
            );
            dataplane = start(&world, XdpMode::Auto);
            assert_eq!(
                conversation.ask().expect("answers with a new agent"),
                before
            );
            service.retire(&mut dataplane.maps, 0);
            assert_eq!(conversation.ask().expect("answers though retired"), before);
        }
    }
}

#[test]
fn many_short_connections_do_not_run_out_of_source_ports() {
    let (world, mut dataplane) = world(XdpMode::Auto);
    let family = Family::V4;
    node_port(&world, family, Protocol::Tcp)
        .backend(world.node2.pod_ip(family), PORT, false)
        .write(&mut dataplane.maps);
    let to = to_node_port(&world, family);
    // Three times as many as there are ports; whoever closes first keeps the tuple for a minute.
    let one_client = || {
        (0..3500).for_each(|i| {
            let answer = ask_tcp(to).unwrap_or_else(|e| panic!("connection {i}: {e}"));
            assert_eq!(answer.server, "pod2");
        });
    };
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| world.client.enter_and(one_client));
        }
    });
    let drops = dataplane.maps.drops().expect("drops");
    assert_eq!(drops[DropReason::NoSourcePort as usize].1.packets, 0);
}
