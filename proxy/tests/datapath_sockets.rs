//! Sockets of the node reach services without a translated packet.

mod support;

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};

use sluice_common::frontend_flags;
use sluice_proxy::loader::{Dataplane, XdpMode};
use sluice_proxy::maps::{DropReason, Frontend, FrontendKey, Observe, Protocol, Tables};
use support::echo::{self, Conversation, PORT, ask_tcp, ask_udp, ask_udp_from, udp_socket};
use support::tables::{Service, configure};
use support::world::{FAMILIES, Family, World, cluster_ip};

/// A world whose node 1 runs a dataplane, with a server in every pod.
fn world() -> (World, Dataplane) {
    let world = World::new();
    echo::serve(&world.node1.pod, "pod1");
    echo::serve(&world.node2.pod, "pod2");
    let node = &world.node1;
    let dataplane = node.machine.run(|| {
        let mut dataplane = support::start(&node.options(XdpMode::Auto));
        configure(node, &mut dataplane.maps);
        dataplane
    });
    (world, dataplane)
}

/// A service with a backend on each node.
fn service(world: &World, family: Family, protocol: Protocol) -> Service {
    let id = match (family, protocol) {
        (Family::V4, Protocol::Tcp) => 1,
        (Family::V4, _) => 2,
        (Family::V6, Protocol::Tcp) => 3,
        (Family::V6, _) => 4,
    };
    Service::new(id, protocol)
        .frontend(cluster_ip(family), 80, frontend_flags::CLUSTER_IP)
        .backend(world.node1.pod_ip(family), PORT, true)
        .backend(world.node2.pod_ip(family), PORT, false)
}

/// Calls `ask` until both servers have answered; fails when one never does.
fn both_answer(mut ask: impl FnMut() -> String) {
    let mut heard = std::collections::BTreeSet::new();
    for _ in 0..100 {
        heard.insert(ask());
        if heard.len() == 2 {
            return;
        }
    }
    panic!("only {heard:?} answered in 100 tries");
}

#[test]
fn tcp_connections_spread_over_the_backends_and_name_the_service_as_their_peer() {
    let (world, mut dataplane) = world();
    for family in FAMILIES {
        service(&world, family, Protocol::Tcp).write(&mut dataplane.maps);
        let to = SocketAddr::new(cluster_ip(family), 80);
        both_answer(|| {
            let mut conversation = world
                .node1
                .machine
                .run(|| Conversation::open(to))
                .expect("connects");
            assert_eq!(
                world
                    .node1
                    .machine
                    .run(|| conversation.0.peer_addr())
                    .expect("peer"),
                to
            );
            conversation.ask().expect("answers").server
        });
    }
}

#[test]
fn udp_sockets_hear_from_the_service_that_they_asked_and_keep_their_backend() {
    let (world, mut dataplane) = world();
    for family in FAMILIES {
        service(&world, family, Protocol::Udp).write(&mut dataplane.maps);
        let to = SocketAddr::new(cluster_ip(family), 80);
        both_answer(|| {
            let (answer, from) = world.node1.machine.run(|| ask_udp(to)).expect("answers");
            assert_eq!(from, to);
            answer.server
        });
        world.node1.machine.run(|| {
            let socket = udp_socket(to).expect("a socket");
            let first = ask_udp_from(&socket, to).expect("answers").0.server;
            for _ in 0..20 {
                assert_eq!(ask_udp_from(&socket, to).expect("answers").0.server, first);
            }
        });
    }
}

#[test]
fn connected_udp_hears_from_the_service() {
    let (world, mut dataplane) = world();
    for family in FAMILIES {
        service(&world, family, Protocol::Udp).write(&mut dataplane.maps);
        let to = SocketAddr::new(cluster_ip(family), 80);
        world.node1.machine.run(|| {
            let socket = udp_socket(to).expect("a socket");
            socket.connect(to).expect("connects");
            socket.send(b"who?").expect("sends");
            let (_, from) =
                echo::uninterrupted(|| socket.recv_from(&mut [0; 64])).expect("answers");
            assert_eq!((from, socket.peer_addr().expect("peer")), (to, to));
        });
    }
}

#[test]
fn a_udp_socket_moves_when_its_backend_leaves_the_service() {
    let (world, mut dataplane) = world();
    for family in FAMILIES {
        let service = service(&world, family, Protocol::Udp);
        service.write(&mut dataplane.maps);
        let to = SocketAddr::new(cluster_ip(family), 80);
        let socket = world
            .node1
            .machine
            .run(|| udp_socket(to))
            .expect("a socket");
        let ask = || ask_udp_from(&socket, to).expect("answers").0.server;
        let (gone, other) = if ask() == "pod1" {
            (0, "pod2")
        } else {
            (1, "pod1")
        };
        let mut rest = service;
        rest.retire(&mut dataplane.maps, gone);
        rest.backends.remove(gone);
        let slots = FrontendKey::new(to.ip(), to.port(), Protocol::Udp);
        let left = 16 * rest.id + 1 - gone as u32;
        dataplane
            .maps
            .write_range(sluice_proxy::maps::Pool::Slots, 1000, &[left])
            .expect("slots");
        let value = Frontend {
            service_id: rest.id,
            internal: sluice_proxy::maps::Range {
                offset: 1000,
                len: 1,
            },
            ..Frontend::default()
        };
        dataplane
            .maps
            .put_frontend(&slots, &value)
            .expect("frontend");
        assert_eq!(ask(), other);
    }
}

#[test]
fn ipv4_mapped_addresses_reach_ipv4_services() {
    let (world, mut dataplane) = world();
    service(&world, Family::V4, Protocol::Tcp).write(&mut dataplane.maps);
    service(&world, Family::V4, Protocol::Udp).write(&mut dataplane.maps);
    let IpAddr::V4(ip) = cluster_ip(Family::V4) else {
        panic!("not IPv4")
    };
    let to = SocketAddr::new(ip.to_ipv6_mapped().into(), 80);
    both_answer(|| {
        let mut conversation = world
            .node1
            .machine
            .run(|| Conversation::open(to))
            .expect("connects");
        assert_eq!(conversation.0.peer_addr().expect("peer"), to);
        conversation.ask().expect("answers").server
    });
    both_answer(|| {
        let (answer, from) = world.node1.machine.run(|| ask_udp(to)).expect("answers");
        assert_eq!(from, to);
        answer.server
    });
}

#[test]
fn a_service_without_endpoints_refuses_at_once_and_so_does_an_undefined_port() {
    let (world, mut dataplane) = world();
    for family in FAMILIES {
        let (ip, id) = (cluster_ip(family), 7);
        Service::new(id, Protocol::Tcp)
            .frontend(ip, 80, frontend_flags::CLUSTER_IP)
            .write(&mut dataplane.maps);
        let whole = Frontend {
            flags: frontend_flags::ADDRESS,
            ..Frontend::default()
        };
        dataplane
            .maps
            .put_frontend(&FrontendKey::address(ip), &whole)
            .expect("frontend");
        for port in [80, 81] {
            let result = world
                .node1
                .machine
                .run(|| ask_tcp(SocketAddr::new(ip, port)));
            assert_eq!(
                result.expect_err("refused").kind(),
                ErrorKind::ConnectionRefused
            );
        }
        let sent = world.node1.machine.run(|| {
            let to = SocketAddr::new(ip, 81);
            udp_socket(to).expect("a socket").send_to(b"who?", to)
        });
        assert_eq!(
            sent.expect_err("refused").kind(),
            ErrorKind::ConnectionRefused
        );
    }
    let drops = dataplane.maps.drops().expect("drops");
    let count = |reason| {
        drops
            .iter()
            .find(|(r, _)| *r == reason)
            .map(|(_, c)| c.packets)
    };
    assert_eq!(count(DropReason::NoEndpoints), Some(2));
    assert_eq!(count(DropReason::NoSuchPort), Some(4));
    assert_eq!(
        dataplane.maps.service_counter(7).expect("counter").refused,
        2
    );
}

#[test]
fn node_ports_on_loopback_are_the_nodes_own() {
    let (world, mut dataplane) = world();
    let ip: IpAddr = "127.0.0.1".parse().expect("an address");
    let flags = frontend_flags::NODE_PORT | frontend_flags::HOST_ONLY;
    Service::new(1, Protocol::Tcp)
        .frontend(ip, 30080, flags)
        .backend(world.node1.pod_ip(Family::V4), PORT, true)
        .write(&mut dataplane.maps);
    let to = SocketAddr::new(ip, 30080);
    assert_eq!(
        world
            .node1
            .machine
            .run(|| ask_tcp(to))
            .expect("answers")
            .server,
        "pod1"
    );
    let other = support::machine::Machine::new("other");
    let in_a_pod = std::thread::scope(|scope| {
        let both = || {
            world
                .node1
                .machine
                .enter_and(|| other.enter_and(|| ask_tcp(to)))
        };
        scope.spawn(both).join().expect("a thread")
    });
    assert_eq!(
        in_a_pod.expect_err("no such port there").kind(),
        ErrorKind::ConnectionRefused
    );
}

#[test]
fn session_affinity_keeps_a_client_on_its_backend_until_the_backend_leaves() {
    let (world, mut dataplane) = world();
    for family in FAMILIES {
        let mut service = service(&world, family, Protocol::Tcp);
        service.affinity_millis = 60_000;
        service.write(&mut dataplane.maps);
        let to = SocketAddr::new(cluster_ip(family), 80);
        let ask = || {
            world
                .node1
                .machine
                .run(|| ask_tcp(to))
                .expect("answers")
                .server
        };
        let first = ask();
        assert!((0..20).all(|_| ask() == first));
        service.retire(&mut dataplane.maps, usize::from(first == "pod2"));
        // The range still holds it, so it may be drawn again; but it is not kept.
        let other = (0..100)
            .map(|_| ask())
            .find(|server| *server != first)
            .expect("another backend");
        assert!((0..20).all(|_| ask() == other));
    }
}
