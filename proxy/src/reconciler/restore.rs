//! A restarted agent: what the maps hold, read back before anything is written.
//!
//! A service found in the maps is an orphan until a plan has its name, or one of its frontends' keys;
//! then the port takes over its id, backends and ranges, so that flows, affinity and counters go on. What is still an orphan after the first full sync belongs to nobody and is pruned.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::Instant;

use sluice_common::{Backend, Frontend, Range, backend_flags, frontend_flags};

use super::expose::maglev_entries;
use super::held::{HeldBackend, HeldRange, Port};
use super::pools::{Pools, Resting};
use super::{Reconciler, Report, Retries};
use crate::maps::{FrontendKey, MapError, Pool, Protocol, Tables};
use crate::planner::PortId;

/// The flags of a backend that new connections may go to.
const ELIGIBLE: u16 = backend_flags::INTERNAL | backend_flags::EXTERNAL;

/// Services in the maps that no plan has claimed.
#[derive(Debug, Default)]
pub(super) struct Orphans {
    ports: BTreeMap<u32, Port>,
    by_name: HashMap<String, u32>,
    /// Backends without a service.
    strays: Vec<u32>,
}

impl Orphans {
    /// The service with this port's name, or else the first of `ids`, that is still an orphan.
    pub fn adopt(&mut self, name: &PortId, mut ids: impl Iterator<Item = u32>) -> Option<Port> {
        if self.ports.is_empty() {
            return None;
        }
        let by_name = self.by_name.remove(&name.to_string());
        if let Some(port) = by_name.and_then(|id| self.ports.remove(&id)) {
            return Some(port);
        }
        let mut port = ids.find_map(|id| self.ports.remove(&id))?;
        port.named = false;
        Some(port)
    }

    fn port(&mut self, service_id: u32) -> &mut Port {
        self.ports
            .entry(service_id)
            .or_insert_with(|| Port::new(service_id))
    }
}

impl<T: Tables> Reconciler<T> {
    /// Takes over tables as they are. Nothing is written.
    ///
    /// # Errors
    /// When a table cannot be read.
    pub fn restore(tables: T) -> Result<Self, MapError> {
        let mut this = Self {
            pools: Pools::new(tables.capacity()),
            frontends: HashMap::new(),
            counts: [0; 2],
            services: HashMap::new(),
            addresses: HashMap::new(),
            orphans: Orphans::default(),
            retries: Retries::default(),
            report: Report::default(),
            tables,
        };
        for (key, value) in this.tables.frontends()? {
            this.remember(key, value);
        }
        this.find_backends()?;
        this.find_ranges()?;
        for (service_id, network) in this.tables.source_ranges()? {
            this.orphans.port(service_id).source_ranges.insert(network);
        }
        for (service_id, name) in this.tables.names()? {
            this.orphans.port(service_id).named = true;
            this.orphans.by_name.insert(name, service_id);
        }
        let ids: Vec<u32> = this.orphans.ports.keys().copied().collect();
        ids.into_iter()
            .for_each(|id| _ = this.pools.services.reserve(id));
        Ok(this)
    }

    fn find_backends(&mut self) -> Result<(), MapError> {
        for (
            id,
            Backend {
                addr,
                service_id,
                port,
                flags,
                ..
            },
        ) in self.tables.backends()?
        {
            if !self.pools.backends.reserve(id) {
                continue;
            }
            if service_id == 0 {
                self.orphans.strays.push(id);
                continue;
            }
            let place = (addr.to_ip(), port.get());
            let found = HeldBackend { id, flags };
            keep_one(self.orphans.port(service_id), place, found);
        }
        Ok(())
    }

    fn find_ranges(&mut self) -> Result<(), MapError> {
        let mut frontends: Vec<_> = self
            .frontends
            .iter()
            .map(|(key, value)| (*key, *value))
            .collect();
        frontends.sort_unstable_by_key(|(key, _)| *key);
        for (key, value) in frontends {
            if value.service_id == 0 {
                continue;
            }
            self.orphans.port(value.service_id).keys.insert(key);
            self.find_range(value.service_id, Pool::Slots, value.internal)?;
            self.find_range(value.service_id, Pool::Maglev, value.external)?;
        }
        Ok(())
    }

    /// A range that overlaps one already found is left to whoever was first: the frontend gets a
    /// range of its own when it is planned.
    fn find_range(&mut self, service_id: u32, pool: Pool, range: Range) -> Result<(), MapError> {
        let known = self
            .orphans
            .port(service_id)
            .ranges
            .iter()
            .any(|held| (held.pool, held.range) == (pool, range));
        if range.len == 0 || known || !self.pools.reserve_range(pool, range) {
            return Ok(());
        }
        let entries = self.tables.read_range(pool, range)?;
        let port = self.orphans.port(service_id);
        let held = made_from(port, pool, range, entries);
        port.ranges.push(held);
        Ok(())
    }

    /// Removes what no plan has claimed. To be called after the first full sync; again when it fails.
    ///
    /// # Errors
    /// The first write that failed; what was done stays done.
    pub fn prune(&mut self, now: Instant) -> Result<Report, MapError> {
        while let Some((id, mut port)) = self.orphans.ports.pop_first() {
            // The protocol is lost with the keys; a search for flows of a TCP backend finds nothing
            // that may not go.
            let udp = port.keys.iter().any(|key| key.protocol == Protocol::Udp);
            let protocol = if udp { Protocol::Udp } else { Protocol::Tcp };
            let retired = self.retire_port(protocol, None, &mut port, now);
            if let Err(error) = retired.and_then(|()| self.drop_service_id(&mut port, now)) {
                self.orphans.ports.insert(id, port);
                return Err(error);
            }
        }
        for id in std::mem::take(&mut self.orphans.strays) {
            self.pools.rest(now, Resting::Backend(id));
        }
        self.prune_frontends()?;
        Ok(std::mem::take(&mut self.report))
    }

    /// Whole addresses and frontends without a service that no plan has claimed.
    fn prune_frontends(&mut self) -> Result<(), MapError> {
        let unclaimed = |(key, value): (&FrontendKey, &Frontend)| {
            let address = value.flags & frontend_flags::ADDRESS != 0;
            let claimed = address
                && *key == FrontendKey::address(key.addr)
                && self.addresses.contains_key(&key.addr);
            (value.service_id == 0 && !claimed).then_some(*key)
        };
        let gone: Vec<_> = self.frontends.iter().filter_map(unclaimed).collect();
        gone.iter().try_for_each(|key| self.delete_frontend(key))
    }
}

/// Of two ids for one backend the one that is eligible is in use; the other one was at rest when its
/// agent died.
fn keep_one(port: &mut Port, place: (IpAddr, u16), found: HeldBackend) {
    let eligible = |held: &HeldBackend| held.flags & ELIGIBLE != 0;
    match port.backends.get_mut(&place) {
        None => _ = port.backends.insert(place, found),
        Some(known) if !eligible(known) && eligible(&found) => {
            port.strays.push(std::mem::replace(known, found).id);
        }
        Some(_) => port.strays.push(found.id),
    }
}

/// A range by what it was made from, as far as that can be told.
fn made_from(port: &Port, pool: Pool, range: Range, entries: Vec<u32>) -> HeldRange {
    let used: BTreeSet<u32> = entries.iter().copied().collect();
    let in_use = port
        .backends
        .iter()
        .filter(|(_, held)| used.contains(&held.id));
    let (places, ids): (Vec<(IpAddr, u16)>, Vec<u32>) =
        in_use.map(|(place, held)| (*place, held.id)).unzip();
    let expected = match pool {
        Pool::Slots => ids.clone(),
        Pool::Maglev => maglev_entries(places.into_iter(), &ids),
    };
    let canonical = entries == expected;
    HeldRange {
        pool,
        range,
        ids: if canonical {
            ids.into()
        } else {
            used.into_iter().collect()
        },
        canonical,
    }
}
