//! Fills the real maps as the agent does: Services and EndpointSlices through the planner and the reconciler.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use sluice_common::{Config, Timeouts, config_flags, ticks_from_millis};
use sluice_proxy::loader::{self, Attachment, Options, XdpMode};
use sluice_proxy::maps::kernel::KernelMaps;
use sluice_proxy::maps::{Capacity, Protocol};
use sluice_proxy::planner::{self, Endpoint, EndpointSlice, Family, ObjectName, Planner, Service};
use sluice_proxy::reconciler::{NodeTables, Reconciler};

/// The node's own addresses.
pub const NODE_V4: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 11);
pub const NODE_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x198, 0x18, 0, 0, 0, 0, 0x11);

/// Entries of the flow tables: what a node with 8 GiB gets.
pub const FLOWS: u32 = 1 << 19;

/// A Service with one TCP port, and where its endpoints are.
#[derive(Clone, Debug)]
pub struct Entry {
    pub name: String,
    pub cluster_ip: IpAddr,
    pub external_ips: Vec<IpAddr>,
    pub port: u16,
    pub node_port: Option<u16>,
    pub endpoints: Vec<IpAddr>,
    pub target_port: u16,
    /// Whether the endpoints are on this node.
    pub local: bool,
}

/// A node's dataplane with tables in it.
pub struct Dataplane {
    pub attachments: Vec<Attachment>,
    // The tables live by their pins; the book of them dies with this.
    _reconciler: Reconciler<KernelMaps>,
}

/// What is to be set up; to be called in the node's namespace.
pub struct Setup<'a> {
    pub pins: &'a Path,
    pub cgroup: Option<&'a Path>,
    pub device: Option<&'a str>,
}

impl Setup<'_> {
    /// Loads the dataplane, attaches it, and writes these Services.
    pub fn start(&self, entries: &[Entry]) -> Result<Dataplane> {
        let options = Options {
            bpf_root: self.pins.to_owned(),
            cgroup: self.cgroup.map(Path::to_owned),
            devices: self.device.map(str::to_owned).into_iter().collect(),
            xdp_mode: XdpMode::Native,
            capacity: capacity(entries),
        };
        let dataplane = loader::start(&options).context("cannot set the dataplane up")?;
        let mut reconciler = Reconciler::restore(dataplane.maps).context("cannot read the maps")?;
        node_tables()?
            .apply(reconciler.tables_mut())
            .context("cannot configure the node")?;
        write(&mut reconciler, entries)?;
        Ok(Dataplane {
            attachments: dataplane.attachments,
            _reconciler: reconciler,
        })
    }
}

/// Room for these Services, and flows for all that the bench opens.
fn capacity(entries: &[Entry]) -> Capacity {
    let services = entries.len() as u32 + 1;
    let backends: usize = entries.iter().map(|entry| entry.endpoints.len()).sum();
    let tables: u32 = entries
        .iter()
        .map(|entry| sluice_proxy::maglev::table_size(entry.endpoints.len()))
        .sum();
    let frontends: usize = entries
        .iter()
        .map(|entry| 3 + entry.external_ips.len())
        .sum();
    let room = |used: u32| (used + used / 4 + 4096).next_power_of_two();
    Capacity {
        frontends: room(frontends as u32),
        services: room(services),
        backends: room(backends as u32),
        counted_backends: room(backends as u32),
        slots: room(backends as u32),
        maglev: room(tables),
        flows: FLOWS,
        ..Capacity::default()
    }
}

fn node_tables() -> Result<NodeTables> {
    let config = Config {
        netns_cookie: loader::netns_cookie().context("cannot name this namespace")?,
        flags: config_flags::MASQUERADE,
        node_v4: NODE_V4.into(),
        node_v6: NODE_V6.into(),
        snat_port_min: 61_000,
        snat_port_max: 65_535,
        // The agent's defaults.
        timeouts: Timeouts {
            tcp_new: ticks_from_millis(60_000),
            tcp_established: ticks_from_millis(86_400_000),
            tcp_closing: ticks_from_millis(10_000),
            other_new: ticks_from_millis(30_000),
            other_established: ticks_from_millis(120_000),
        },
    };
    Ok(NodeTables {
        config,
        ..NodeTables::default()
    })
}

fn write(reconciler: &mut Reconciler<KernelMaps>, entries: &[Entry]) -> Result<()> {
    let mut planner = Planner::new(planner::Options::default());
    planner.set_node_port_addresses(vec![NODE_V4.into(), NODE_V6.into()]);
    for entry in entries {
        let name = ObjectName::new("bench", &entry.name);
        planner.set_service(&name, Some(service(entry)), Vec::new());
        let slice = slice(entry, name.clone());
        planner.set_slice(&name, Some(slice), Vec::new());
    }
    let plans: Vec<_> = planner.drain().into_iter().map(|one| one.plan).collect();
    let report = reconciler.apply(&plans, Instant::now());
    if let Some((name, error)) = report.failures.into_iter().next() {
        return Err(error).with_context(|| format!("cannot write {name}"));
    }
    ensure!(
        plans.len() == entries.len(),
        "only {} of {} Services were planned",
        plans.len(),
        entries.len()
    );
    Ok(())
}

fn service(entry: &Entry) -> Service {
    Service {
        created: 0,
        cluster_ips: vec![entry.cluster_ip],
        external_ips: entry.external_ips.clone(),
        load_balancer_ips: Vec::new(),
        source_ranges: Vec::new(),
        ports: vec![planner::ServicePort {
            name: Arc::from(""),
            protocol: Protocol::Tcp,
            port: entry.port,
            node_port: entry.node_port,
        }],
        internal_local: false,
        external_local: false,
        affinity: None,
        health_check_node_port: None,
    }
}

fn slice(entry: &Entry, service: ObjectName) -> EndpointSlice {
    let endpoint = |addr: &IpAddr| Endpoint {
        local: entry.local,
        ..Endpoint::ready(*addr)
    };
    EndpointSlice {
        service,
        family: Family::of(entry.cluster_ip),
        ports: Box::new([planner::SlicePort {
            name: Arc::from(""),
            protocol: Protocol::Tcp,
            port: entry.target_port,
        }]),
        endpoints: entry.endpoints.iter().map(endpoint).collect(),
        triggered_ms: None,
    }
}

/// Address number `index` of a network of 2^24 addresses that has nothing but this bench's Services.
pub fn address(v6: bool, network: u8, index: u32) -> IpAddr {
    let [_, a, b, c] = index.to_be_bytes();
    if v6 {
        let (high, low) = (u16::from(a), u16::from_be_bytes([b, c]));
        Ipv6Addr::new(0xfd00, 0xbe, network.into(), 0, 0, 0, high, low).into()
    } else {
        Ipv4Addr::new(network, a, b, c).into()
    }
}
