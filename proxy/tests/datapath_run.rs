//! The programs in the kernel, packet by packet (`BPF_PROG_TEST_RUN`): they do what the same logic does
//! on the host, and how long they take.

mod support;

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use sluice_common::frontend_flags;
use sluice_proxy::loader::{self, Dataplane, XdpMode};
use sluice_proxy::maps::Protocol;
use support::machine::Machine;
use support::packet::{Packet, SYN, TCP, UDP};
use support::tables::{Service, configure_as};
use support::{Pins, options};

const XDP_PASS: u32 = 2;
const XDP_TX: u32 = 3;

/// A dataplane on one end of a cable, and its XDP program.
struct Bench {
    _machine: Machine,
    _pins: Pins,
    dataplane: Dataplane,
    program: OwnedFd,
}

fn bench(what: &str) -> Bench {
    let (pins, machine) = (Pins::new(what), Machine::new(what));
    machine.ip("link add up0 type veth peer name up1");
    let options = loader::Options {
        devices: vec!["up0".to_owned()],
        xdp_mode: XdpMode::Native,
        ..options(&pins)
    };
    let mut dataplane = machine.run(|| support::start(&options));
    configure_as(&mut dataplane.maps, NODE_V4, NODE_V6);
    let xdp = dataplane
        .attachments
        .iter()
        .find(|a| a.hook == "xdp-native")
        .expect("an XDP program");
    let program = program_by_id(xdp.program).expect("the program");
    Bench {
        _machine: machine,
        _pins: pins,
        dataplane,
        program,
    }
}

const NODE_V4: &str = "198.18.0.11";
const NODE_V6: &str = "fd00:198:18::11";

/// Client, node, pod.
fn players(v6: bool) -> [IpAddr; 3] {
    let texts = if v6 {
        ["2001:db8::5", NODE_V6, "fd00:10:244::2"]
    } else {
        ["203.0.113.5", NODE_V4, "10.244.1.2"]
    };
    texts.map(|text| text.parse().expect("an address"))
}

fn serve(bench: &mut Bench, v6: bool, with_backend: bool) {
    let [_, node, pod] = players(v6);
    for (id, protocol) in [(1, Protocol::Tcp), (2, Protocol::Udp)] {
        let service = Service::new(id + 2 * u32::from(v6), protocol).frontend(
            node,
            30080,
            frontend_flags::EXTERNAL,
        );
        let service = if with_backend {
            service.backend(pod, 8080, true)
        } else {
            service
        };
        service.write(&mut bench.dataplane.maps);
    }
}

fn request(v6: bool, protocol: u8, sport: u16) -> Packet {
    let [client, node, _] = players(v6);
    Packet {
        src: client,
        dst: node,
        sport,
        dport: 30080,
        protocol,
        tcp_flags: SYN,
        payload: b"hello".to_vec(),
    }
}

#[repr(C)]
#[derive(Default)]
struct TestRun {
    program: u32,
    result: u32,
    size_in: u32,
    size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    rest: [u64; 6],
}

/// Runs the program on a frame: its verdict, the frame afterwards, nanoseconds per run.
fn run(program: &OwnedFd, frame: &[u8], repeat: u32) -> io::Result<(u32, Vec<u8>, u32)> {
    let mut out = vec![0; frame.len() + 256];
    let mut attr = TestRun {
        program: program.as_raw_fd() as u32,
        size_in: frame.len() as u32,
        size_out: out.len() as u32,
        data_in: frame.as_ptr() as u64,
        data_out: out.as_mut_ptr() as u64,
        repeat,
        ..TestRun::default()
    };
    bpf(10, &mut attr)?;
    out.truncate(attr.size_out as usize);
    Ok((attr.result, out, attr.duration))
}

fn program_by_id(id: u32) -> io::Result<OwnedFd> {
    let mut attr = [id, 0, 0];
    let fd = bpf(13, &mut attr)?;
    // SAFETY: just made, and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn bpf<T>(command: i32, attr: &mut T) -> io::Result<i32> {
    // SAFETY: `attr` is a live structure of this size, whose addresses are of live buffers.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attr as *mut T, size_of::<T>()) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result as i32)
    }
}

#[test]
fn packets_to_a_backend_here_are_translated_with_right_checksums() {
    let mut bench = bench("run");
    for v6 in [false, true] {
        serve(&mut bench, v6, true);
        for protocol in [TCP, UDP] {
            let sent = request(v6, protocol, 1234);
            for _ in 0..2 {
                let (verdict, frame, _) = run(&bench.program, &sent.frame(), 1).expect("runs");
                let [client, _, pod] = players(v6);
                let there = Packet::read(&frame);
                assert_eq!((verdict, there.src, there.dst), (XDP_PASS, client, pod));
                assert_eq!(
                    (there.sport, there.dport, &there.payload),
                    (1234, 8080, &sent.payload)
                );
            }
        }
    }
}

#[test]
fn refusals_are_built_with_right_checksums() {
    let mut bench = bench("refuse");
    for v6 in [false, true] {
        serve(&mut bench, v6, false);
        let [client, node, _] = players(v6);
        for protocol in [TCP, UDP] {
            let (verdict, frame, _) =
                run(&bench.program, &request(v6, protocol, 1234).frame(), 1).expect("runs");
            let answer = Packet::read(&frame);
            assert_eq!((verdict, answer.src, answer.dst), (XDP_TX, node, client));
            assert_eq!(answer.protocol == TCP, protocol == TCP);
        }
    }
}

#[test]
fn hostile_frames_pass_unchanged() {
    let mut bench = bench("hostile");
    serve(&mut bench, false, true);
    let good = request(false, TCP, 1234).frame();
    let mut seed = 1u64;
    let mut random = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (seed >> 33) as usize
    };
    for _ in 0..20_000 {
        let mut frame = good.clone();
        // Not the addresses and ports: then it would be no hostile frame, but nobody's.
        for _ in 0..1 + random() % 4 {
            let at = 14 + random() % 12;
            frame[at] = random() as u8;
        }
        frame.truncate(14 + random() % (frame.len() - 13));
        let (verdict, after, _) = run(&bench.program, &frame, 1).expect("runs");
        let translated = after.get(30..34) == Some(&[10, 244, 1, 2]);
        assert!(
            verdict == XDP_PASS && (after == frame || translated),
            "{frame:02x?} became {after:02x?}"
        );
    }
}

/// `cargo test --release -p sluice-proxy --test datapath_run -- --ignored --nocapture`
///
/// The kernel does not put a packet back between repeats, so the backend here is the frontend itself:
/// what is translated stays as it is, and the next round finds the same flow. Flows that are new run once
/// each, against an empty program's single runs.
#[test]
#[ignore = "a measurement"]
fn nanoseconds_per_packet() {
    let mut bench = bench("bench");
    let arp = [vec![0xff; 12], vec![0x08, 0x06], vec![0; 46]].concat();
    let (empty, empty_once) = (repeated(&bench, &arp), once(&bench, || arp.clone()));
    println!("empty: {empty} ns repeated, {empty_once} ns once; the rest is net of it");
    for (name, v6) in [("IPv4", false), ("IPv6", true)] {
        let [_, node, _] = players(v6);
        Service::new(10 + u32::from(v6), Protocol::Tcp)
            .frontend(node, 30080, frontend_flags::EXTERNAL)
            .backend(node, 30080, true)
            .write(&mut bench.dataplane.maps);
        let known = Packet {
            tcp_flags: 0x10,
            ..request(v6, TCP, 1234)
        };
        println!(
            "{name} TCP, flow known: {} ns",
            repeated(&bench, &known.frame()) - empty
        );
        let other = Packet { dport: 9, ..known };
        println!(
            "{name} TCP, no service: {} ns",
            repeated(&bench, &other.frame()) - empty
        );
        let mut sport = 2000;
        let new = || {
            sport += 1;
            request(v6, TCP, sport).frame()
        };
        println!(
            "{name} TCP, flow new: {} ns",
            once(&bench, new) - empty_once
        );
    }
}

/// The best of some long runs: what others do on the machine only ever adds.
fn repeated(bench: &Bench, frame: &[u8]) -> i64 {
    let one = |_| i64::from(run(&bench.program, frame, 200_000).expect("runs").2);
    (0..10).map(one).min().expect("a run")
}

/// The median of single runs.
fn once(bench: &Bench, mut frame: impl FnMut() -> Vec<u8>) -> i64 {
    let one = |_| i64::from(run(&bench.program, &frame(), 1).expect("runs").2);
    let mut times: Vec<_> = (0..4_000).map(one).collect();
    times.sort_unstable();
    times[times.len() / 2]
}
