//! Connections and requests through each kind of load balancer, beside the pods' own addresses.
//!
//! Every case is a small network of its own, so that no rule set is on another case's way:
//!
//! ```text
//! inside:  client pod -- node -- server pod        the client asks a cluster IP
//! outside: client -- switch -- node, server        the client asks the node's port
//! ```
//!
//! The cases take turns within each round, so that what else happens on the machine meets all of them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;
use sluice_proxy::loader;

use crate::child::{self, Place, Running};
use crate::machine::{self, Machine};
use crate::progress::Progress;
use crate::rules;
use crate::stats::Rounds;
use crate::tables::{Dataplane, Entry, NODE_V4, Setup};
use crate::traffic::Mode;

/// Endpoints of each Service.
const ENDPOINTS: u8 = 10;
const SERVICE_PORT: u16 = 80;
const NODE_PORT: u16 = 30_080;
const CLIENT_POD: &str = "10.244.1.2";
const CLIENT_OUTSIDE: &str = "198.18.0.100";
const SERVER_NODE: &str = "198.18.0.12";

/// What stands between client and server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Balancer {
    /// Nothing: the client asks the pods themselves.
    Direct,
    /// Sluice.
    Sluice,
    /// nftables, as by kube-proxy.
    Nftables,
    /// iptables (legacy), as by kube-proxy.
    Iptables,
}

impl Balancer {
    /// For tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Sluice => "sluice",
            Self::Nftables => "nftables",
            Self::Iptables => "iptables",
        }
    }
}

/// Where the client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// A pod on the node.
    Inside,
    /// Another machine.
    Outside,
}

/// What a case showed, by round.
#[derive(Clone, Debug, Serialize)]
pub struct Case {
    pub side: Side,
    pub balancer: Balancer,
    pub services: u32,
    /// New connections per second, one request each.
    pub connections: Rounds,
    /// Requests per second on kept connections.
    pub requests: Rounds,
    pub p50_us: Rounds,
    pub p99_us: Rounds,
    /// Gigabits per second on one connection.
    pub gigabits: Rounds,
    pub errors: u64,
}

/// How long and how often.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    pub rounds: u32,
    pub time: Duration,
}

/// Measures one side with these numbers of Services.
pub fn measure(
    prefix: &str,
    side: Side,
    sizes: &[u32],
    effort: Effort,
    progress: &Progress,
) -> Result<Vec<Case>> {
    let mut stands = vec![Stand::new(prefix, side, Balancer::Direct, 0, 0)?];
    for balancer in [Balancer::Sluice, Balancer::Nftables, Balancer::Iptables] {
        for services in sizes {
            let number = stands.len();
            progress.step(&format!(
                "{side:?}: set up {balancer:?}, {services} Services"
            ));
            stands.push(Stand::new(prefix, side, balancer, *services, number)?);
        }
    }
    for round in 1..=effort.rounds {
        for stand in &mut stands {
            let Case {
                balancer, services, ..
            } = stand.case;
            progress.step(&format!(
                "{side:?}: round {round} of {}, {balancer:?}, {services} Services",
                effort.rounds
            ));
            stand.round(effort.time)?;
        }
    }
    Ok(stands.into_iter().map(|stand| stand.case).collect())
}

/// A network with its balancer and server.
struct Stand {
    case: Case,
    client: Place,
    targets: Vec<SocketAddr>,
    _server: Running,
    _dataplane: Option<Dataplane>,
}

impl Stand {
    fn new(
        prefix: &str,
        side: Side,
        balancer: Balancer,
        services: u32,
        number: usize,
    ) -> Result<Self> {
        // A port of its own for each case: no connection meets another case's leftovers.
        let port = 8000 + number as u16;
        let tag = format!(
            "{}{number}",
            if side == Side::Inside { "in" } else { "out" }
        );
        let network = Network::new(prefix, side, &tag)?;
        let server = child::serve(&network.server, SocketAddr::from(([0, 0, 0, 0], port)))?;
        let entries = entries(services, port, side == Side::Inside, balancer);
        let mut cgroup = None;
        let mut dataplane = None;
        match balancer {
            Balancer::Direct => {}
            Balancer::Nftables => rules::load_nftables(&network.node, &entries)?,
            Balancer::Iptables => rules::load_iptables(&network.node, &entries)?,
            Balancer::Sluice => {
                let group = machine::cgroup(prefix, &tag)?;
                dataplane = Some(sluice(prefix, side, &tag, &network, &group, &entries)?);
                cgroup = Some(group);
            }
        }
        let stand = Self {
            case: Case::new(side, balancer, services),
            client: child::place(&network.client, cgroup.as_deref()),
            targets: targets(side, balancer, services, port),
            _server: server,
            _dataplane: dataplane,
        };
        stand.warm_up()?;
        Ok(stand)
    }

    /// Neighbours are found, and every part has worked once.
    fn warm_up(&self) -> Result<()> {
        let time = Duration::from_millis(50);
        child::wait_for(self.case.balancer.name(), || {
            Ok(child::load(&self.client, Mode::Connect, &self.targets, time)?.rate > 0.0)
        })
    }

    fn round(&mut self, time: Duration) -> Result<()> {
        let case = &mut self.case;
        let load = |mode| child::load(&self.client, mode, &self.targets, time);
        let short = load(Mode::Connect)?;
        let kept = load(Mode::Request)?;
        ensure!(
            short.rate > 0.0 && kept.rate > 0.0,
            "no request of {} came through: {short:?}, {kept:?}",
            case.balancer.name()
        );
        case.connections.0.push(short.rate);
        case.requests.0.push(kept.rate);
        case.p50_us.0.push(kept.p50_us);
        case.p99_us.0.push(kept.p99_us);
        case.errors += short.errors + kept.errors;
        // Outside, segments are cut in software (XDP sees none that are bigger than the wire's).
        if case.side == Side::Inside {
            let bytes = load(Mode::Stream)?.rate;
            case.gigabits.0.push(bytes * 8.0 / 1e9);
        }
        Ok(())
    }
}

impl Case {
    fn new(side: Side, balancer: Balancer, services: u32) -> Self {
        Self {
            side,
            balancer,
            services,
            connections: Rounds::default(),
            requests: Rounds::default(),
            p50_us: Rounds::default(),
            p99_us: Rounds::default(),
            gigabits: Rounds::default(),
            errors: 0,
        }
    }

    /// The measurements that there are, for tables.
    pub fn measurements(&self) -> impl Iterator<Item = (&'static str, &Rounds)> {
        let all = [
            ("new connections/s", &self.connections),
            ("kept requests/s", &self.requests),
            ("kept p50 us", &self.p50_us),
            ("kept p99 us", &self.p99_us),
            ("TCP Gbit/s", &self.gigabits),
        ];
        all.into_iter().filter(|(_, rounds)| !rounds.0.is_empty())
    }
}

fn sluice(
    prefix: &str,
    side: Side,
    tag: &str,
    network: &Network,
    cgroup: &std::path::Path,
    entries: &[Entry],
) -> Result<Dataplane> {
    let pins: PathBuf = machine::pins(prefix, tag);
    let setup = Setup {
        pins: &pins,
        cgroup: (side == Side::Inside).then_some(cgroup),
        device: (side == Side::Outside).then_some("eth0"),
    };
    network.node.run(|| setup.start(entries))?
}

fn targets(side: Side, balancer: Balancer, services: u32, port: u16) -> Vec<SocketAddr> {
    match (balancer, side) {
        (Balancer::Direct, _) => endpoints().map(|ip| SocketAddr::new(ip, port)).collect(),
        (_, Side::Inside) => vec![SocketAddr::new(cluster_ip(services / 2), SERVICE_PORT)],
        (_, Side::Outside) => vec![SocketAddr::new(NODE_V4.into(), NODE_PORT)],
    }
}

fn endpoints() -> impl Iterator<Item = IpAddr> {
    (0..ENDPOINTS).map(|i| Ipv4Addr::new(10, 244, 2, 2 + i).into())
}

fn cluster_ip(i: u32) -> IpAddr {
    let [_, _, high, low] = (i + 1).to_be_bytes();
    Ipv4Addr::new(10, 96, high, low).into()
}

/// So many Services; that in the middle is the one that is asked for. The others' endpoints are nobody's; in
/// rule sets they have one each, since loading takes minutes else and no packet passes their chains.
fn entries(services: u32, port: u16, local: bool, balancer: Balancer) -> Vec<Entry> {
    let others = if balancer == Balancer::Sluice {
        ENDPOINTS
    } else {
        1
    };
    let entry = |i: u32| {
        let asked = i == services / 2;
        let nobody = (0..others).map(move |k| {
            let [_, high, middle, low] = (i * u32::from(ENDPOINTS) + u32::from(k)).to_be_bytes();
            IpAddr::from(Ipv4Addr::new(11, high, middle, low))
        });
        Entry {
            name: format!("service-{i}"),
            cluster_ip: cluster_ip(i),
            external_ips: Vec::new(),
            port: SERVICE_PORT,
            node_port: asked.then_some(NODE_PORT),
            endpoints: if asked {
                endpoints().collect()
            } else {
                nobody.collect()
            },
            target_port: port,
            local: asked && local,
        }
    };
    (0..services).map(entry).collect()
}

/// The machines of a case.
struct Network {
    client: Machine,
    node: Machine,
    server: Machine,
}

impl Network {
    fn new(prefix: &str, side: Side, tag: &str) -> Result<Self> {
        let network = Self {
            client: Machine::new(prefix, &format!("{tag}c"))?,
            node: Machine::new(prefix, &format!("{tag}n"))?,
            server: Machine::new(prefix, &format!("{tag}s"))?,
        };
        match side {
            Side::Inside => network.inside()?,
            Side::Outside => network.outside(&Machine::new(prefix, &format!("{tag}b"))?)?,
        }
        let ports = "1024 65535";
        network.client.sysctl("ipv4/ip_local_port_range", ports)?;
        // Else a port that is used again finds the last connection in TIME-WAIT.
        network.server.sysctl("ipv4/tcp_max_tw_buckets", "0")?;
        Ok(network)
    }

    fn inside(&self) -> Result<()> {
        self.node.cable("pod1", &self.client, "eth0")?;
        self.node.cable("pod2", &self.server, "eth0")?;
        self.client
            .ip(&format!("address add {CLIENT_POD}/32 dev eth0"))?;
        self.node
            .ip(&format!("route add {CLIENT_POD}/32 dev pod1"))?;
        for ip in endpoints() {
            self.server.ip(&format!("address add {ip}/32 dev eth0"))?;
            self.node.ip(&format!("route add {ip}/32 dev pod2"))?;
        }
        for link in ["pod1", "pod2"] {
            self.node
                .ip(&format!("address add 169.254.1.1/32 dev {link}"))?;
        }
        for pod in [&self.client, &self.server] {
            pod.ip("route add 169.254.1.1 dev eth0")?;
            pod.ip("route add default via 169.254.1.1 dev eth0")?;
        }
        Ok(())
    }

    fn outside(&self, switch: &Machine) -> Result<()> {
        switch.ip("link add br0 type bridge")?;
        switch.ip("link set br0 up")?;
        let node = NODE_V4.to_string();
        for (machine, port, ip) in [
            (&self.client, "port1", CLIENT_OUTSIDE),
            (&self.node, "port2", node.as_str()),
            (&self.server, "port3", SERVER_NODE),
        ] {
            plug_in(switch, machine, port, ip)?;
        }
        for ip in endpoints() {
            self.server.ip(&format!("address add {ip}/32 dev eth0"))?;
            for machine in [&self.client, &self.node] {
                machine.ip(&format!("route add {ip}/32 via {SERVER_NODE}"))?;
            }
        }
        Ok(())
    }
}

/// Cables that carry frames as a wire would: checksums are there, segments fit. What XDP sends out of a veth
/// arrives if the other end has an XDP program as well.
fn plug_in(switch: &Machine, machine: &Machine, port: &str, ip: &str) -> Result<()> {
    switch.cable(port, machine, "eth0")?;
    for (end, link) in [(switch, port), (machine, "eth0")] {
        end.command("ethtool", &format!("-K {link} tx off"), None)?;
    }
    switch.ip(&format!("link set {port} master br0"))?;
    let pin = PathBuf::from("/sys/fs/bpf").join(format!("{}-{port}", switch.name));
    switch
        .run(|| loader::attach_pass_all(port, &pin))?
        .with_context(|| format!("cannot attach to {port}"))?;
    machine.ip(&format!("address add {ip}/24 dev eth0"))
}
