//! Nanoseconds per packet of the uplink's XDP program, by BPF_PROG_TEST_RUN.
//!
//! The kernel hands the rewritten packet to the next repetition. That is made use of: each Service's backends
//! are the next Service's external addresses, so that a packet walks from Service to Service, and every step
//! finds another frontend, another Maglev table and another flow. A first walk (SYN) opens a flow at each
//! step, a second one (ACK) follows the same flows. In the ring of local backends only the destination is
//! translated; in the other one source and destination are, and the route is looked up.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;

use crate::bpf;
use crate::frame::{ACK, RST, SYN, Segment};
use crate::machine::{self, Machine};
use crate::progress::Progress;
use crate::stats::middle_mean;
use crate::tables::{Entry, FLOWS, Setup, address};

/// Steps of a walk: fewer than the smallest ring has Services, and than a TTL has hops.
const STEPS: u32 = 40;
/// External addresses, and so backends, of each Service.
const WIDTH: u32 = 2;
const PORT: u16 = 80;

/// Networks (see [`address`]): of a Service without endpoints, of nobody, of a Service that is its own backend.
const REFUSED: u8 = 43;
const NOBODY: u8 = 44;
const OWN_BACKEND: u8 = 45;

/// Steps of a walk that follows the same flows again and again: more, so that its cold beginning matters less.
const LONG_WALK: u32 = 240;

/// Names of what walks measure, by ring.
const DNAT: [&str; 4] = [
    "DNAT, known, 240 flows",
    "DNAT, known, many flows",
    "DNAT, new, same Services",
    "DNAT, new, all Services",
];
const SNAT: [&str; 4] = [
    "SNAT, known, 240 flows",
    "SNAT, known, many flows",
    "SNAT, new, same Services",
    "SNAT, new, all Services",
];

const XDP_PASS: u32 = 2;
const XDP_TX: u32 = 3;
const XDP_REDIRECT: u32 = 4;

/// What was measured: nanoseconds net of the empty program, by path.
#[derive(Clone, Debug, Serialize)]
pub struct Measured {
    pub family: &'static str,
    pub services: u32,
    /// The empty program: in a walk, in long runs, and run once.
    pub empty_walk: f64,
    pub empty_long: f64,
    pub empty_once: f64,
    /// One insertion into an LRU table as large as that of flows, by a program that does nothing else; net.
    pub insertion: f64,
    pub net: BTreeMap<&'static str, f64>,
}

/// Sizes of programs.
#[derive(Clone, Debug, Serialize)]
pub struct Program {
    pub hook: String,
    pub instructions: u32,
    pub verified: u32,
    pub machine_code: u32,
}

/// All that this part found.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    pub measured: Vec<Measured>,
    pub programs: Vec<Program>,
}

/// Measures at each number of Services, in both families.
pub fn measure(prefix: &str, sizes: &[u32], rounds: u32, progress: &Progress) -> Result<Report> {
    let mut report = Report::default();
    for v6 in [false, true] {
        for services in sizes {
            let family = if v6 { "IPv6" } else { "IPv4" };
            progress.step(&format!("XDP, {family}, {services} Services"));
            let stand = Stand::new(prefix, v6, *services)?;
            report.measured.push(stand.measure(rounds)?);
            if report.programs.is_empty() {
                report.programs = stand.programs.clone();
            }
        }
    }
    Ok(report)
}

/// A node whose maps are full of Services, with nobody on it.
struct Stand {
    machine: Machine,
    prefix: String,
    v6: bool,
    services: u32,
    program: OwnedFd,
    empty: OwnedFd,
    inserting: OwnedFd,
    _links: [OwnedFd; 2],
    programs: Vec<Program>,
}

impl Drop for Stand {
    fn drop(&mut self) {
        machine::remove_all(&self.prefix);
    }
}

impl Stand {
    fn new(prefix: &str, v6: bool, services: u32) -> Result<Self> {
        // A prefix of its own: the stand is taken down before the next one is made.
        let prefix = format!("{prefix}-xdp");
        let machine = Machine::new(&prefix, "node")?;
        network(&machine)?;
        let pins = machine::pins(&prefix, "node");
        let setup = Setup {
            pins: &pins,
            cgroup: None,
            device: Some("up0"),
        };
        let entries = entries(v6, services);
        let dataplane = machine.run(|| setup.start(&entries))??;
        let attached = dataplane
            .attachments
            .iter()
            .find(|one| one.hook == "xdp-native");
        let program = bpf::program_by_id(attached.context("XDP is not attached")?.program)?;
        let programs = dataplane.attachments.iter().map(describe);
        let empty = bpf::empty_program().context("cannot load the empty program")?;
        let inserting =
            bpf::inserting_program(FLOWS).context("cannot load the inserting program")?;
        let attach = |program, device| {
            let link = machine.run(|| bpf::attach_xdp(program, device))?;
            link.with_context(|| format!("cannot attach to {device}"))
        };
        let links = [attach(&empty, "up1")?, attach(&inserting, "aside")?];
        Ok(Self {
            programs: programs.collect::<Result<_>>()?,
            machine,
            prefix,
            v6,
            services,
            program,
            empty,
            inserting,
            _links: links,
        })
    }

    fn measure(&self, rounds: u32) -> Result<Measured> {
        self.machine.run(|| self.measure_here(rounds))?
    }

    fn measure_here(&self, rounds: u32) -> Result<Measured> {
        let family = if self.v6 { "IPv6" } else { "IPv4" };
        let mut result = Measured {
            family,
            services: self.services,
            empty_walk: self.empty(rounds, STEPS)?,
            empty_long: self.empty(rounds, 10_000)?,
            empty_once: self.empty(rounds * 8, 1)?,
            insertion: self.insertion(rounds)?,
            net: BTreeMap::new(),
        };
        result.insertion -= result.empty_walk;
        for (ring, names) in [(Ring::Local, DNAT), (Ring::Remote, SNAT)] {
            for (name, nanos) in names.into_iter().zip(self.ring(ring, rounds)?) {
                result.net.insert(name, nanos - result.empty_walk);
            }
        }
        let reopened = self.reopened(rounds)? - result.empty_walk;
        result.net.insert("DNAT, new, reopened", reopened);
        let one = self.one_flow(rounds)?;
        result
            .net
            .insert("DNAT, known, one flow", one - result.empty_long);
        let other = self.long(rounds)?;
        result
            .net
            .insert("not a service", other - result.empty_long);
        let reject = self.once(rounds * 8)?;
        result
            .net
            .insert("no endpoints", reject - result.empty_once);
        Ok(result)
    }

    fn empty(&self, rounds: u32, repeat: u32) -> Result<f64> {
        let frame = self
            .segment(Ring::Local.first(self.v6, 0, self.services), 1, ACK)
            .frame();
        let one = |_| Ok(f64::from(bpf::run(&self.empty, &frame, repeat)?.nanos));
        Ok(middle_mean(
            &(0..rounds).map(one).collect::<Result<Vec<_>>>()?,
        ))
    }

    fn insertion(&self, rounds: u32) -> Result<f64> {
        let frame = self.segment(address(self.v6, NOBODY, 1), 1, ACK).frame();
        let one = |_| Ok(f64::from(bpf::run(&self.inserting, &frame, STEPS)?.nanos));
        Ok(middle_mean(
            &(0..rounds).map(one).collect::<Result<Vec<_>>>()?,
        ))
    }

    /// In the order of [`DNAT`] and [`SNAT`].
    fn ring(&self, ring: Ring, rounds: u32) -> Result<[f64; 4]> {
        // One source port a walk: no flow of an earlier walk is met again.
        let same = |round| (0, 1001 + round as u16);
        let all = |round| (round * STEPS, 20_000 + round as u16);
        let again = |_| (0, 1000);
        let new_same = self.walks(ring, rounds, STEPS, SYN, same)?;
        let new_all = self.walks(ring, rounds, STEPS, SYN, all)?;
        let known_many = self.walks(ring, rounds, STEPS, ACK, all)?;
        self.walks(ring, 1, LONG_WALK, SYN, again)?;
        let known_few = self.walks(ring, rounds, LONG_WALK, ACK, again)?;
        Ok([known_few, known_many, new_same, new_all])
    }

    /// Flows that are reset and opened again: a backend is chosen and both entries are written, but in memory
    /// that the caches know. What is new beyond that is paid for by cache misses of the flow table.
    fn reopened(&self, rounds: u32) -> Result<f64> {
        let mut all = Vec::new();
        for _ in 0..rounds {
            self.walks(Ring::Local, 1, STEPS, RST | ACK, |_| (0, 1001))?;
            all.push(self.walks(Ring::Local, 1, STEPS, SYN, |_| (0, 1001))?);
        }
        Ok(middle_mean(&all))
    }

    /// Nanoseconds a step, of walks that begin where `start` says: so many steps along the ring, from this
    /// source port.
    fn walks(
        &self,
        ring: Ring,
        rounds: u32,
        steps: u32,
        flags: u8,
        start: impl Fn(u32) -> (u32, u16),
    ) -> Result<f64> {
        let mut all = Vec::new();
        for round in 0..rounds {
            let (at, sport) = start(round);
            let segment = self.segment(ring.first(self.v6, at, self.services), sport, flags);
            let ran = bpf::run(&self.program, &segment.frame(), steps)?;
            self.check(ring, at + steps, &ran)?;
            all.push(f64::from(ran.nanos));
        }
        Ok(middle_mean(&all))
    }

    /// A Service whose only backend is its own address: the packet stays as it is, so that it can be
    /// repeated for long.
    fn one_flow(&self, rounds: u32) -> Result<f64> {
        let own = address(self.v6, OWN_BACKEND, 1);
        bpf::run(&self.program, &self.segment(own, 1000, SYN).frame(), 1)?;
        let frame = self.segment(own, 1000, ACK).frame();
        let mut all = Vec::new();
        for _ in 0..rounds {
            let ran = bpf::run(&self.program, &frame, 10_000)?;
            ensure!(
                ran.verdict == XDP_PASS && destination(&ran.frame) == own,
                "the flow to {own} strayed"
            );
            all.push(f64::from(ran.nanos));
        }
        Ok(middle_mean(&all))
    }

    /// A walk that strayed would have measured something else.
    fn check(&self, ring: Ring, end: u32, ran: &bpf::Ran) -> Result<()> {
        let verdict_fits = match ring {
            Ring::Local => ran.verdict == XDP_PASS,
            Ring::Remote => ran.verdict == XDP_TX || ran.verdict == XDP_REDIRECT,
        };
        let first = ring.place(end, self.services);
        let ends: Vec<_> = (0..WIDTH)
            .map(|k| address(self.v6, ring.network(), first + k))
            .collect();
        let reached = destination(&ran.frame);
        ensure!(
            verdict_fits && ends.contains(&reached),
            "a walk ended at {reached} with verdict {}, expected {ends:?}",
            ran.verdict
        );
        Ok(())
    }

    /// A packet to nobody: it stays as it is, so that it can be repeated for long.
    fn long(&self, rounds: u32) -> Result<f64> {
        let frame = self.segment(address(self.v6, NOBODY, 1), 1000, ACK).frame();
        let mut all = Vec::new();
        for _ in 0..rounds {
            let ran = bpf::run(&self.program, &frame, 10_000)?;
            ensure!(
                ran.verdict == XDP_PASS,
                "verdict {} for nobody",
                ran.verdict
            );
            all.push(f64::from(ran.nanos));
        }
        Ok(middle_mean(&all))
    }

    /// A refusal turns the packet round, so each runs once.
    fn once(&self, rounds: u32) -> Result<f64> {
        let frame = self
            .segment(address(self.v6, REFUSED, 1), 1000, SYN)
            .frame();
        let mut all = Vec::new();
        for _ in 0..rounds {
            let ran = bpf::run(&self.program, &frame, 1)?;
            ensure!(
                ran.verdict == XDP_TX,
                "verdict {} for a refusal",
                ran.verdict
            );
            all.push(f64::from(ran.nanos));
        }
        Ok(middle_mean(&all))
    }

    fn segment(&self, dst: IpAddr, sport: u16, flags: u8) -> Segment {
        let src: IpAddr = if self.v6 {
            Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 5).into()
        } else {
            Ipv4Addr::new(203, 0, 113, 5).into()
        };
        Segment {
            src,
            dst,
            sport,
            dport: PORT,
            flags,
        }
    }
}

/// Half of the Services each.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ring {
    Local,
    Remote,
}

impl Ring {
    const fn network(self) -> u8 {
        match self {
            Self::Local => 41,
            Self::Remote => 42,
        }
    }

    /// The address where a walk begins that many steps from the ring's beginning.
    fn first(self, v6: bool, at: u32, services: u32) -> IpAddr {
        address(v6, self.network(), self.place(at, services))
    }

    /// The number of that address in the ring's network.
    const fn place(self, at: u32, services: u32) -> u32 {
        at % (services / 2) * WIDTH
    }
}

/// Where a frame goes.
fn destination(frame: &[u8]) -> IpAddr {
    let v4 = frame[12..14] == [0x08, 0x00];
    if v4 {
        let bytes: [u8; 4] = frame[30..34].try_into().unwrap_or_default();
        bytes.into()
    } else {
        let bytes: [u8; 16] = frame[38..54].try_into().unwrap_or_default();
        bytes.into()
    }
}

fn describe(attachment: &sluice_proxy::loader::Attachment) -> Result<Program> {
    let size = bpf::size(&bpf::program_by_id(attachment.program)?)?;
    Ok(Program {
        hook: attachment.hook.clone(),
        instructions: size.instructions,
        verified: size.verified,
        machine_code: size.machine_code,
    })
}

/// An uplink whose only neighbour is known, and everything routed to it.
fn network(machine: &Machine) -> Result<()> {
    machine.ip("link add up0 type veth peer name up1")?;
    machine.ip("link add aside type veth peer name aside1")?;
    machine.ip("link set up0 up")?;
    machine.ip("link set up1 up")?;
    machine.ip("address add 198.18.0.11/24 dev up0")?;
    machine.ip("address add fd00:198:18::11/64 dev up0 nodad")?;
    for gateway in ["198.18.0.1", "fd00:198:18::1"] {
        machine.ip(&format!(
            "neighbour replace {gateway} lladdr 02:00:00:00:00:01 dev up0 nud permanent"
        ))?;
        machine.ip(&format!("route add default via {gateway} dev up0"))?;
    }
    Ok(())
}

fn entries(v6: bool, services: u32) -> Vec<Entry> {
    let ring = services / 2;
    let mut all: Vec<_> = [Ring::Local, Ring::Remote]
        .into_iter()
        .flat_map(|which| (0..ring).map(move |i| link(v6, which, i, ring)))
        .collect();
    let alone = |network: u8, endpoints| Entry {
        name: format!("alone-{network}"),
        cluster_ip: address(v6, 40, network.into()),
        external_ips: vec![address(v6, network, 1)],
        port: PORT,
        node_port: None,
        endpoints,
        target_port: PORT,
        local: true,
    };
    all.push(alone(REFUSED, Vec::new()));
    all.push(alone(OWN_BACKEND, vec![address(v6, OWN_BACKEND, 1)]));
    all
}

/// Service number `i` of a ring: its backends are the next one's addresses.
fn link(v6: bool, ring: Ring, i: u32, len: u32) -> Entry {
    let externals = |i: u32| {
        (0..WIDTH)
            .map(|k| address(v6, ring.network(), i * WIDTH + k))
            .collect()
    };
    Entry {
        name: format!("{}-{i}", ring.network()),
        cluster_ip: address(v6, 10 + ring.network(), i),
        external_ips: externals(i),
        port: PORT,
        node_port: None,
        endpoints: externals((i + 1) % len),
        target_port: PORT,
        local: ring == Ring::Local,
    }
}
