//! What the maps mean, in words, to be compared with what the plans mean.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use sluice_common::{frontend_flags, ticks_from_millis};

use crate::maglev;
use crate::maps::fake::FakeMaps;
use crate::maps::{FrontendKey, Pool, Range, Tables};
use crate::planner::{FrontendKind, PlannedBackend, PortPlan, ServicePlan};

/// Frontends with everything that a packet to them would meet; ids and offsets are left out.
pub type World = BTreeMap<FrontendKey, Seen>;

#[derive(Debug, PartialEq, Eq)]
pub struct Seen {
    flags: u32,
    affinity: u32,
    /// Backends with their eligibility and locality flags, as the slots name them.
    internal: Vec<(SocketAddr, u16)>,
    /// The whole Maglev table.
    external: Vec<(SocketAddr, u16)>,
    source_ranges: BTreeSet<String>,
}

pub fn seen(maps: &FakeMaps) -> World {
    let backends: BTreeMap<_, _> = maps.backends().unwrap().into_iter().collect();
    let ranges = maps.source_ranges().unwrap();
    let resolve = |pool, range: Range| {
        let ids = maps.read_range(pool, range).unwrap();
        let backend = |id| {
            let backend = backends[&id];
            (
                SocketAddr::new(backend.addr.to_ip(), backend.port.get()),
                backend.flags,
            )
        };
        ids.into_iter().map(backend).collect()
    };
    let of = |id| ranges.iter().filter(move |(of, _)| *of == id && id != 0);
    maps.frontends()
        .unwrap()
        .into_iter()
        .map(|(key, value)| {
            let seen = Seen {
                flags: value.flags,
                affinity: value.affinity,
                internal: resolve(Pool::Slots, value.internal),
                external: resolve(Pool::Maglev, value.external),
                source_ranges: of(value.service_id)
                    .map(|(_, network)| network.to_string())
                    .collect(),
            };
            (key, seen)
        })
        .collect()
}

pub fn wanted(plans: &[ServicePlan]) -> World {
    let mut world = World::new();
    for plan in plans {
        for addr in &plan.addresses {
            let flags = frontend_flags::ADDRESS | frontend_flags::CLUSTER_IP;
            let none = Seen {
                flags,
                affinity: 0,
                internal: vec![],
                external: vec![],
                source_ranges: BTreeSet::new(),
            };
            world.insert(FrontendKey::address(*addr), none);
        }
        for port in &plan.ports {
            for frontend in &port.frontends {
                world.insert(
                    frontend.key,
                    wanted_frontend(port, frontend.kind, frontend.source_ranges),
                );
            }
        }
    }
    world
}

fn wanted_frontend(port: &PortPlan, kind: FrontendKind, source_ranges: bool) -> Seen {
    use frontend_flags::{
        CLUSTER_IP, EXTERNAL, EXTERNAL_DROP, EXTERNAL_IP, EXTERNAL_LOCAL, HOST_ONLY, INTERNAL_DROP,
        NODE_PORT, SOURCE_RANGES,
    };
    let mut flags = match kind {
        FrontendKind::ClusterIp => CLUSTER_IP,
        FrontendKind::LoadBalancer | FrontendKind::ExternalIp => EXTERNAL | EXTERNAL_IP,
        FrontendKind::NodePort => EXTERNAL | NODE_PORT,
        FrontendKind::LoopbackNodePort => HOST_ONLY | NODE_PORT,
    };
    let outside = flags & EXTERNAL != 0;
    flags |= if port.internal_drop { INTERNAL_DROP } else { 0 };
    flags |= if outside && port.external_drop {
        EXTERNAL_DROP
    } else {
        0
    };
    flags |= if outside && port.external_local {
        EXTERNAL_LOCAL
    } else {
        0
    };
    flags |= if source_ranges { SOURCE_RANGES } else { 0 };
    let name = |b: &PlannedBackend| {
        let bits = u16::from(b.local) | u16::from(b.internal) << 1 | u16::from(b.external) << 2;
        (SocketAddr::new(b.addr, b.port), bits)
    };
    let external: Vec<_> = port.backends.iter().filter(|b| b.external).collect();
    let places: Vec<_> = external.iter().map(|b| (b.addr, b.port)).collect();
    let table = if outside {
        maglev::table(&places)
    } else {
        Vec::new()
    };
    Seen {
        flags,
        affinity: port
            .affinity
            .map_or(0, |timeout| ticks_from_millis(timeout.as_secs() * 1000)),
        internal: port
            .backends
            .iter()
            .filter(|b| b.internal)
            .map(name)
            .collect(),
        external: table
            .into_iter()
            .map(|i| name(external[i as usize]))
            .collect(),
        source_ranges: port.source_ranges.iter().map(ToString::to_string).collect(),
    }
}

/// Panics when the maps hold a backend that no frontend leads to.
pub fn assert_nothing_leaks(maps: &FakeMaps) {
    let frontends = maps.frontends().unwrap();
    let ranges = frontends.iter().flat_map(|(_, value)| {
        [
            (Pool::Slots, value.internal),
            (Pool::Maglev, value.external),
        ]
    });
    let used: BTreeSet<u32> = ranges
        .flat_map(|(pool, range)| maps.read_range(pool, range).unwrap())
        .collect();
    let held: BTreeSet<u32> = maps
        .backends()
        .unwrap()
        .into_iter()
        .map(|(id, _)| id)
        .collect();
    assert_eq!(held, used);
    let services: BTreeSet<u32> = frontends
        .iter()
        .map(|(_, value)| value.service_id)
        .collect();
    let guarded: BTreeSet<u32> = maps
        .source_ranges()
        .unwrap()
        .into_iter()
        .map(|(id, _)| id)
        .collect();
    assert!(
        guarded.is_subset(&services),
        "source ranges of {guarded:?}, services {services:?}"
    );
    let named: BTreeSet<u32> = maps
        .names()
        .unwrap()
        .into_iter()
        .map(|(id, _)| id)
        .collect();
    assert_eq!(named, services.into_iter().filter(|id| *id != 0).collect());
}
