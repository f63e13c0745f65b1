//! Packets of services and of pods, through the whole of the uplink's logic.

mod support;

use std::cell::RefCell;
use std::net::IpAddr;

use proptest::prelude::*;
use sluice_common::{
    Backend, Be16, DropReason, Frontend, FrontendKey, Ipv4, Ipv6, Plain, Range, backend_flags,
    cidr_flags, frontend_flags,
};
use sluice_datapath::parse::Network;
use sluice_datapath::uplink::{Route, Verdict, egress, ingress};
use sluice_datapath::work::Work;
use support::Frame;
use support::build::{Spec, read};
use support::world::{Node, Side};

const TCP: u8 = 6;
const UDP: u8 = 17;
const SYN: u8 = 2;

/// The addresses of a family's players.
#[derive(Clone, Copy)]
struct Players {
    client: &'static str,
    node: &'static str,
    pod: &'static str,
    outside: &'static str,
}

const V4: Players = Players {
    client: "203.0.113.5",
    node: "198.18.0.11",
    pod: "10.244.1.2",
    outside: "192.0.2.9",
};
const V6: Players = Players {
    client: "2001:db8::5",
    node: "fd00::1",
    pod: "fd00:10:244::2",
    outside: "2001:db8::9",
};

fn work<A: Plain>() -> Work<A> {
    // SAFETY: made of Plain types only, of which all zero is a value.
    unsafe { std::mem::zeroed() }
}

fn is_v4(frame: &Frame) -> bool {
    frame.0.get(12..14) == Some(&[0x08, 0x00])
}

thread_local! {
    /// Working memory outlives a packet, as it does in the kernel.
    static WORK_V4: RefCell<Work<Ipv4>> = RefCell::new(work());
    static WORK_V6: RefCell<Work<Ipv6>> = RefCell::new(work());
}

fn enter(node: &Node, frame: &mut Frame) -> Verdict {
    if is_v4(frame) {
        WORK_V4.with_borrow_mut(|work| ingress(frame, node, work))
    } else {
        WORK_V6.with_borrow_mut(|work| ingress(frame, node, work))
    }
}

fn leave(node: &Node, frame: &mut Frame) -> Verdict {
    if is_v4(frame) {
        WORK_V4.with_borrow_mut(|work| egress(frame, node, work))
    } else {
        WORK_V6.with_borrow_mut(|work| egress(frame, node, work))
    }
}

/// Adds a service at `addr`:`port` with one backend at `pod`:8080 on this node or elsewhere.
fn serve<A: Side + Network + From<A>>(node: &mut Node, addr: A, pod: Ipv6, port: u16, local: bool) {
    let id = node.maglev.len() as u32 + 1;
    let flags = backend_flags::EXTERNAL | if local { backend_flags::LOCAL } else { 0 };
    let backend = Backend {
        addr: pod,
        service_id: id,
        port: Be16::new(8080),
        flags,
        reserved: [0; 2],
    };
    node.backends.insert(id, backend);
    node.maglev.push(id);
    for protocol in [TCP, UDP] {
        let value = Frontend {
            service_id: id,
            flags: frontend_flags::EXTERNAL,
            external: Range {
                offset: id - 1,
                len: 1,
            },
            ..Frontend::default()
        };
        A::of_mut(node)
            .frontends
            .insert(FrontendKey::new(addr, Be16::new(port), protocol), value);
    }
}

fn world(players: Players, local: bool) -> Node {
    let mut node = Node::new();
    let pod: IpAddr = players.pod.parse().unwrap();
    match players.node.parse().unwrap() {
        IpAddr::V4(ip) => serve(&mut node, Ipv4::from(ip), pod.into(), 30080, local),
        IpAddr::V6(ip) => serve(&mut node, Ipv6::from(ip), pod.into(), 30080, local),
    }
    node
}

fn request(players: Players, protocol: u8, sport: u16) -> Spec {
    Spec {
        tcp_flags: SYN,
        ..Spec::new(protocol, (players.client, sport), (players.node, 30080))
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn a_local_backend_sees_its_client_and_its_answer_comes_from_the_service() {
    for (players, protocol) in [(V4, TCP), (V4, UDP), (V6, TCP), (V6, UDP)] {
        let node = world(players, true);
        let mut frame = request(players, protocol, 1234).frame();
        assert_eq!(enter(&node, &mut frame), Verdict::Pass);
        let there = read(&frame);
        assert_eq!((there.src, there.sport), (ip(players.client), 1234));
        assert_eq!(
            (there.dst, there.dport, there.ttl),
            (ip(players.pod), 8080, 64)
        );
        let mut answer = there.answer().frame();
        assert_eq!(leave(&node, &mut answer), Verdict::Pass);
        let back = read(&answer);
        assert_eq!((back.src, back.sport), (ip(players.node), 30080));
        assert_eq!((back.dst, back.dport), (ip(players.client), 1234));
    }
}

#[test]
fn a_backend_elsewhere_sees_the_node_and_both_ways_are_routed() {
    for (players, protocol) in [(V4, TCP), (V4, UDP), (V6, TCP), (V6, UDP)] {
        let node = world(players, false);
        let mut frame = request(players, protocol, 1234).frame();
        assert_eq!(enter(&node, &mut frame), Verdict::Send(2));
        let there = read(&frame);
        assert_eq!(
            (there.src, there.dst, there.dport),
            (ip(players.node), ip(players.pod), 8080)
        );
        assert_eq!(there.ttl, 63);
        assert!((61000..=61999).contains(&there.sport));
        assert_eq!(frame.0[..12], [4, 0, 5, 0, 6, 0, 1, 0, 2, 0, 3, 0]);
        let mut answer = there.answer().frame();
        assert_eq!(enter(&node, &mut answer), Verdict::Send(2));
        let back = read(&answer);
        assert_eq!((back.src, back.sport), (ip(players.node), 30080));
        assert_eq!(
            (back.dst, back.dport, back.ttl),
            (ip(players.client), 1234, 62)
        );
    }
}

#[test]
fn without_a_neighbour_the_packet_stays_as_it_came() {
    let mut node = world(V4, false);
    node.route = Route::Unresolved;
    let before = request(V4, TCP, 1234).frame();
    let mut frame = before.clone();
    assert_eq!(enter(&node, &mut frame), Verdict::Unresolved);
    assert_eq!(frame, before);
    node.route = Route::Resolve(3);
    assert_eq!(enter(&node, &mut frame), Verdict::Resolve(3));
    assert_eq!(read(&frame).dst, ip(V4.pod));
    assert_eq!(node.connections.get(), 1);
}

#[test]
fn flows_to_one_backend_never_share_a_source_port_and_run_out_cleanly() {
    let mut node = world(V4, false);
    node.config.snat_port_max = node.config.snat_port_min + 99;
    let mut seen = std::collections::HashSet::new();
    for sport in 1..=100 {
        let mut frame = request(V4, UDP, sport).frame();
        if enter(&node, &mut frame) == Verdict::Send(2) {
            assert!(seen.insert(read(&frame).sport), "a port was given twice");
        }
    }
    assert!(
        seen.len() >= 90,
        "only {} of 100 ports were found",
        seen.len()
    );
    let mut frames = (101..=200).map(|sport| request(V4, UDP, sport).frame());
    assert!(frames.any(|mut frame| enter(&node, &mut frame) == Verdict::Drop));
    assert_eq!(node.drops.borrow().last(), Some(&DropReason::NoSourcePort));
    node.now.set(node.now.get() + 11);
    let mut frame = request(V4, UDP, 300).frame();
    assert_eq!(
        enter(&node, &mut frame),
        Verdict::Send(2),
        "idle flows give their ports back"
    );
}

/// A TCP connection through the node: handshake, then FIN from both ends. The answers' tuple.
fn connect_and_close(node: &Node, sport: u16, server_first: bool) -> Option<Spec> {
    let packet = |flags| Spec {
        tcp_flags: flags,
        ..request(V4, TCP, sport)
    };
    let mut syn = packet(SYN).frame();
    if enter(node, &mut syn) != Verdict::Send(2) {
        return None;
    }
    let answer = read(&syn).answer();
    let reply = |flags| {
        Spec {
            tcp_flags: flags,
            ..answer.clone()
        }
        .frame()
    };
    assert_eq!(enter(node, &mut reply(0x12)), Verdict::Send(2));
    let mut ends = [packet(0x11).frame(), reply(0x11)];
    if server_first {
        ends.reverse();
    }
    for mut fin in ends {
        assert_eq!(enter(node, &mut fin), Verdict::Send(2));
    }
    Some(answer)
}

#[test]
fn closed_connections_give_their_ports_back_at_once_and_waiting_ones_when_there_is_no_other() {
    for server_first in [false, true] {
        let mut node = world(V4, false);
        node.config.snat_port_max = node.config.snat_port_min + 99;
        node.config.timeouts.tcp_closing = 900;
        for connection in 0..5000u32 {
            if connection % 20 == 0 {
                node.now.set(node.now.get() + 1);
            }
            let sport = 1 + (connection % 60_000) as u16;
            assert!(
                connect_and_close(&node, sport, server_first).is_some(),
                "connection {connection}"
            );
        }
        assert!(node.drops.borrow().is_empty());
        assert!(
            node.v4.flows.borrow().len() <= 2 * 100,
            "former flows leave nothing behind"
        );
    }
}

#[test]
fn waiting_ports_rest_while_others_are_free() {
    let node = world(V4, false);
    let mut last = std::collections::HashMap::new();
    for connection in 0..2000u16 {
        node.now.set(node.now.get() + 3);
        let answer = connect_and_close(&node, 1 + connection, true).expect("a port");
        if let Some(before) = last.insert(answer.dport, connection) {
            assert!(
                connection - before >= 900,
                "port {} rested for {}",
                answer.dport,
                connection - before
            );
        }
    }
}

#[test]
fn a_live_connection_keeps_its_port_and_a_repeated_syn_gets_another() {
    let mut node = world(V4, false);
    node.config.snat_port_max = node.config.snat_port_min;
    let mut syn = request(V4, TCP, 1).frame();
    assert_eq!(enter(&node, &mut syn), Verdict::Send(2));
    node.now.set(node.now.get() + 5);
    assert_eq!(
        enter(&node, &mut request(V4, TCP, 2).frame()),
        Verdict::Drop
    );
    node.config.snat_port_max += 1;
    node.now.set(node.now.get() + 3);
    let mut again = request(V4, TCP, 1).frame();
    assert_eq!(enter(&node, &mut again), Verdict::Send(2));
    assert_ne!(read(&again).sport, read(&syn).sport);
    // The server may have been slow only: its answer to the first SYN must not reach the client too.
    let mut late = read(&syn).answer().frame();
    assert_eq!(enter(&node, &mut late), Verdict::Pass);
    let mut answer = read(&again).answer().frame();
    assert_eq!(enter(&node, &mut answer), Verdict::Send(2));
}

#[test]
fn a_forgotten_answer_entry_is_made_again_by_the_next_packet_of_a_later_tick() {
    let node = world(V4, false);
    let mut frame = request(V4, UDP, 1234).frame();
    enter(&node, &mut frame);
    let answer = read(&frame).answer();
    node.v4
        .flows
        .borrow_mut()
        .retain(|key, _| key.dst != node.config.node_v4 || key.dport == Be16::new(30080));
    assert_eq!(node.v4.flows.borrow().len(), 1);
    node.now.set(node.now.get() + 1);
    enter(&node, &mut request(V4, UDP, 1234).frame());
    assert_eq!(enter(&node, &mut answer.frame()), Verdict::Send(2));
}

#[test]
fn datagrams_move_when_their_backend_leaves_and_connections_do_not() {
    for (protocol, moves) in [(UDP, true), (TCP, false)] {
        let mut node = world(V4, false);
        enter(&node, &mut request(V4, protocol, 1234).frame());
        let other: IpAddr = "10.244.9.9".parse().unwrap();
        let record = node.backends[&1];
        node.backends.insert(1, Backend { flags: 0, ..record });
        node.backends.insert(
            5,
            Backend {
                addr: other.into(),
                ..record
            },
        );
        node.maglev[0] = 5;
        let mut frame = Spec {
            tcp_flags: 0x10,
            ..request(V4, protocol, 1234)
        }
        .frame();
        assert_eq!(enter(&node, &mut frame), Verdict::Send(2));
        assert_eq!(read(&frame).dst == other, moves);
    }
}

#[test]
fn a_new_connection_on_a_closing_tuple_chooses_anew() {
    let mut node = world(V4, true);
    enter(&node, &mut request(V4, TCP, 1234).frame());
    enter(
        &node,
        &mut Spec {
            tcp_flags: 0x11,
            ..request(V4, TCP, 1234)
        }
        .frame(),
    );
    let other: IpAddr = "10.244.9.9".parse().unwrap();
    let record = node.backends[&1];
    node.backends.insert(
        5,
        Backend {
            addr: other.into(),
            ..record
        },
    );
    node.maglev[0] = 5;
    let mut last_ack = Spec {
        tcp_flags: 0x10,
        ..request(V4, TCP, 1234)
    }
    .frame();
    enter(&node, &mut last_ack);
    assert_eq!(read(&last_ack).dst, ip(V4.pod));
    let mut again = request(V4, TCP, 1234).frame();
    enter(&node, &mut again);
    assert_eq!(read(&again).dst, other);
}

#[test]
fn a_service_without_backends_answers_with_a_reset_or_an_error() {
    for players in [V4, V6] {
        let mut node = world(players, true);
        for frontend in node
            .v4
            .frontends
            .values_mut()
            .chain(node.v6.frontends.values_mut())
        {
            frontend.external.len = 0;
        }
        let sent = request(players, TCP, 1234);
        let mut frame = sent.frame();
        assert_eq!(enter(&node, &mut frame), Verdict::Reply);
        let reset = read(&frame);
        assert_eq!(
            (reset.src, reset.sport, reset.tcp_flags),
            (ip(players.node), 30080, 0x14)
        );
        assert_eq!(
            (reset.dst, reset.dport, reset.payload.len()),
            (ip(players.client), 1234, 0)
        );
        let header = frame.0.len() - 20;
        let acknowledged = 1 + 1 + sent.payload.len() as u32;
        assert_eq!(frame.0[header + 8..header + 12], acknowledged.to_be_bytes());

        let before = request(players, UDP, 1234).frame();
        let mut frame = before.clone();
        assert_eq!(enter(&node, &mut frame), Verdict::Reply);
        let error = read(&frame);
        assert_eq!(
            (error.src, error.dst),
            (ip(players.node), ip(players.client))
        );
        let quoted = if players.node == V4.node { 28 } else { 48 };
        assert_eq!(frame.0[frame.0.len() - quoted..], before.0[14..14 + quoted]);
    }
}

#[test]
fn pods_leave_with_the_nodes_address_and_answers_find_them() {
    for (players, protocols) in [(V4, [TCP, UDP, 1]), (V6, [TCP, UDP, 58])] {
        let mut node = Node::new();
        match ip(players.pod) {
            IpAddr::V4(pod) => drop(
                node.v4
                    .cidrs
                    .insert(pod.into(), cidr_flags::MASQUERADE_SOURCE),
            ),
            IpAddr::V6(pod) => drop(
                node.v6
                    .cidrs
                    .insert(pod.into(), cidr_flags::MASQUERADE_SOURCE),
            ),
        }
        for protocol in protocols {
            let dport = if matches!(protocol, 1 | 58) { 0 } else { 53 };
            let mut sent = Spec::new(protocol, (players.pod, 777), (players.outside, dport));
            sent.tcp_flags = SYN;
            let mut frame = sent.frame();
            assert_eq!(leave(&node, &mut frame), Verdict::Pass);
            let there = read(&frame);
            assert_eq!(
                (there.src, there.dst, there.dport),
                (ip(players.node), ip(players.outside), dport)
            );
            assert!(there.sport >= 61000);
            let mut answer = there.answer().frame();
            assert_eq!(enter(&node, &mut answer), Verdict::Pass);
            let back = read(&answer);
            assert_eq!((back.dst, back.dport), (ip(players.pod), 777));
        }
        let mut answering = Spec::new(TCP, (players.pod, 8080), (players.client, 9)).frame();
        let before = answering.clone();
        assert_eq!(leave(&node, &mut answering), Verdict::Pass);
        assert_eq!(answering, before, "an answer keeps the pod's own address");
    }
}

#[test]
fn a_full_flow_table_is_counted_and_leaves_nothing_half_made() {
    let mut node = world(V4, false);
    node.room = 1;
    assert_eq!(
        enter(&node, &mut request(V4, UDP, 1).frame()),
        Verdict::Drop
    );
    assert_eq!(*node.drops.borrow(), [DropReason::FlowTableFull]);
    assert!(node.v4.flows.borrow().is_empty());
}

proptest! {
    #[test]
    fn what_is_translated_is_translated_back(
        sport in 1u16..,
        payload in prop::collection::vec(any::<u8>(), 0..100),
        options in 0u8..10,
        v6: bool,
        tcp: bool,
        local: bool,
    ) {
        let players = if v6 { V6 } else { V4 };
        let node = world(players, local);
        let protocol = if tcp { TCP } else { UDP };
        let sent = Spec { payload: payload.clone(), options, ..request(players, protocol, sport) };
        let mut frame = sent.frame();
        enter(&node, &mut frame);
        let mut answer = Spec { options, ..read(&frame).answer() }.frame();
        if local { leave(&node, &mut answer) } else { enter(&node, &mut answer) };
        let back = read(&answer);
        prop_assert_eq!((back.src, back.sport), (sent.dst, sent.dport));
        prop_assert_eq!((back.dst, back.dport), (sent.src, sent.sport));
        prop_assert_eq!(back.payload, payload);
    }

    #[test]
    fn garbage_never_panics_and_never_leaves_rewritten_by_half(
        ethertype in prop_oneof![Just([0x08, 0x00]), Just([0x86, 0xdd]), any::<[u8; 2]>()],
        mut bytes in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        if bytes.len() >= 14 {
            bytes[12..14].copy_from_slice(&ethertype);
        }
        let node = world(V4, false);
        let before = Frame(bytes);
        let mut frame = before.clone();
        if enter(&node, &mut frame) == Verdict::Pass {
            prop_assert_eq!(&frame, &before);
        }
        leave(&node, &mut frame);
    }

    #[test]
    fn damaged_packets_never_panic(
        v6: bool,
        tcp: bool,
        cut in any::<prop::sample::Index>(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
    ) {
        let players = if v6 { V6 } else { V4 };
        let mut frame = request(players, if tcp { TCP } else { UDP }, 1234).frame();
        for (at, byte) in damage {
            let at = at.index(frame.0.len());
            frame.0[at] = byte;
        }
        frame.0.truncate(cut.index(frame.0.len() + 1));
        for local in [true, false] {
            let node = world(players, local);
            enter(&node, &mut frame.clone());
            leave(&node, &mut frame.clone());
        }
    }
}
