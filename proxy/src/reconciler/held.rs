//! The book: what the maps hold for one port of a Service.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use sluice_common::{Backend, Be16, Range, backend_flags};

use crate::maps::{FrontendKey, Pool};
use crate::planner::PlannedBackend;

/// Everything in the maps that has this port's service id.
#[derive(Debug)]
pub(super) struct Port {
    pub service_id: u32,
    pub backends: BTreeMap<(IpAddr, u16), HeldBackend>,
    /// More ids that hold one of these backends: a former agent died while they rested. They rest
    /// again once no range has them.
    pub strays: Vec<u32>,
    pub ranges: Vec<HeldRange>,
    /// Frontends written for this port. One may since belong to another port: its value tells.
    pub keys: BTreeSet<FrontendKey>,
    pub source_ranges: BTreeSet<IpNetwork>,
    /// Its id has its name.
    pub named: bool,
}

/// A backend as written.
#[derive(Clone, Copy, Debug)]
pub(super) struct HeldBackend {
    pub id: u32,
    pub flags: u16,
}

/// A range as written.
#[derive(Debug)]
pub(super) struct HeldRange {
    pub pool: Pool,
    pub range: Range,
    /// The ids in it: by address and port, or in their own order when it is not `canonical`.
    pub ids: Box<[u32]>,
    /// It is what this agent would write for these ids.
    pub canonical: bool,
}

impl Port {
    pub fn new(service_id: u32) -> Self {
        Self {
            service_id,
            backends: BTreeMap::new(),
            strays: Vec::new(),
            ranges: Vec::new(),
            keys: BTreeSet::new(),
            source_ranges: BTreeSet::new(),
            named: false,
        }
    }

    /// Ids of the planned backends that pass a test, in the plan's order (by address and port).
    pub fn ids(&self, backends: &[PlannedBackend], test: fn(&PlannedBackend) -> bool) -> Vec<u32> {
        let chosen = backends.iter().filter(|backend| test(backend));
        chosen
            .filter_map(|b| Some(self.backends.get(&(b.addr, b.port))?.id))
            .collect()
    }

    pub fn range_of(&self, pool: Pool, ids: &[u32]) -> Option<Range> {
        let same = |held: &&HeldRange| held.canonical && held.pool == pool && *held.ids == *ids;
        self.ranges.iter().find(same).map(|held| held.range)
    }

    /// For each backend id in any range: the eligibility that follows.
    pub fn eligibility(&self) -> BTreeMap<u32, u16> {
        let mut flags = BTreeMap::new();
        for held in &self.ranges {
            for id in &held.ids {
                *flags.entry(*id).or_default() |= eligible_by(held.pool);
            }
        }
        flags
    }

    pub fn is_empty(&self) -> bool {
        self.backends.is_empty()
            && self.strays.is_empty()
            && self.ranges.is_empty()
            && self.keys.is_empty()
            && self.source_ranges.is_empty()
    }
}

pub(super) const fn eligible_by(pool: Pool) -> u16 {
    match pool {
        Pool::Slots => backend_flags::INTERNAL,
        Pool::Maglev => backend_flags::EXTERNAL,
    }
}

/// The flags that a plan asks for.
pub(super) const fn planned_flags(backend: &PlannedBackend) -> u16 {
    let mut flags = 0;
    if backend.local {
        flags |= backend_flags::LOCAL;
    }
    if backend.internal {
        flags |= backend_flags::INTERNAL;
    }
    if backend.external {
        flags |= backend_flags::EXTERNAL;
    }
    flags
}

pub(super) fn backend_value((addr, port): (IpAddr, u16), service_id: u32, flags: u16) -> Backend {
    Backend {
        addr: addr.into(),
        service_id,
        port: Be16::new(port),
        flags,
        ..Backend::default()
    }
}
