//! The tables in memory, for tests: same capacities, same errors, and a watch over the laws.

use std::collections::BTreeMap;

use ipnetwork::IpNetwork;
use sluice_common::{Plain, names};

use super::{Backend, Capacity, Config, Frontend, FrontendKey, MapError, Pool, Range, Tables};

/// Tables in memory. Beside keeping entries it records every write that would have exposed a
/// half-written service to the programs: see [`FakeMaps::violations`].
#[derive(Clone, Debug)]
pub struct FakeMaps {
    capacity: Capacity,
    frontends: BTreeMap<FrontendKey, Frontend>,
    backends: BTreeMap<u32, Backend>,
    slots: BTreeMap<u32, u32>,
    maglev: BTreeMap<u32, u32>,
    cidrs: BTreeMap<IpNetwork, u32>,
    source_ranges: BTreeMap<(u32, IpNetwork), ()>,
    names: BTreeMap<u32, String>,
    config: Config,
    writes: u64,
    violations: Vec<String>,
}

impl FakeMaps {
    /// Empty tables of these sizes.
    pub fn new(capacity: Capacity) -> Self {
        Self {
            capacity,
            frontends: BTreeMap::new(),
            backends: BTreeMap::new(),
            slots: BTreeMap::new(),
            maglev: BTreeMap::new(),
            cidrs: BTreeMap::new(),
            source_ranges: BTreeMap::new(),
            names: BTreeMap::new(),
            config: Config::zeroed(),
            writes: 0,
            violations: Vec::new(),
        }
    }

    /// Writes so far (each put, delete or range counts one): the measure of a sync's cost.
    pub const fn writes(&self) -> u64 {
        self.writes
    }

    /// Writes that broke a law: a frontend that points at a backend not in use or of another
    /// service, or a range or backend rewritten while a frontend pointed at it.
    pub fn violations(&self) -> &[String] {
        &self.violations
    }

    /// The frontends by key.
    pub const fn frontend_map(&self) -> &BTreeMap<FrontendKey, Frontend> {
        &self.frontends
    }

    fn pool(&self, pool: Pool) -> (&BTreeMap<u32, u32>, u32, &'static str) {
        match pool {
            Pool::Slots => (&self.slots, self.capacity.slots, names::SLOTS),
            Pool::Maglev => (&self.maglev, self.capacity.maglev, names::MAGLEV),
        }
    }

    fn check_range(&self, pool: Pool, offset: u32, len: usize) -> Result<(), MapError> {
        let (_, capacity, map) = self.pool(pool);
        let end = u64::from(offset) + len as u64;
        if end > u64::from(capacity) {
            return Err(MapError::OutOfBounds {
                map,
                index: end - 1,
                capacity,
            });
        }
        Ok(())
    }

    fn ids(&self, pool: Pool, range: Range) -> Vec<u32> {
        let (entries, ..) = self.pool(pool);
        (range.offset..range.offset + range.len)
            .map(|i| entries.get(&i).copied().unwrap_or(0))
            .collect()
    }

    fn watch_frontend(&mut self, key: &FrontendKey, value: &Frontend) {
        for (pool, range) in [
            (Pool::Slots, value.internal),
            (Pool::Maglev, value.external),
        ] {
            for id in self.ids(pool, range) {
                let service = self.backends.get(&id).map(|b| b.service_id);
                if service != Some(value.service_id) {
                    self.violations.push(format!(
                        "{key} of service {} points at backend {id} of {service:?}",
                        value.service_id
                    ));
                }
            }
        }
    }

    fn watch_range(&mut self, pool: Pool, offset: u32, ids: &[u32]) {
        for (key, value) in &self.frontends {
            let live = match pool {
                Pool::Slots => value.internal,
                Pool::Maglev => value.external,
            };
            let overlaps = live.len > 0
                && offset < live.offset + live.len
                && live.offset < offset + ids.len() as u32;
            if overlaps {
                self.violations.push(format!(
                    "{pool:?} {live:?} rewritten while {key} points at it"
                ));
            }
        }
    }

    fn watch_backend(&mut self, id: u32, new: &Backend) {
        let Some(old) = self.backends.get(&id).copied() else {
            return;
        };
        if (old.addr, old.port, old.service_id) == (new.addr, new.port, new.service_id) {
            return;
        }
        let used = self.frontends.iter().find(|(_, value)| {
            self.ids(Pool::Slots, value.internal).contains(&id)
                || self.ids(Pool::Maglev, value.external).contains(&id)
        });
        if let Some((key, _)) = used {
            self.violations
                .push(format!("backend {id} changed while {key} points at it"));
        }
    }
}

fn full(map: &'static str, capacity: u32) -> MapError {
    MapError::Full { map, capacity }
}

fn check_index(map: &'static str, index: u32, capacity: u32) -> Result<(), MapError> {
    if index == 0 || index >= capacity {
        return Err(MapError::OutOfBounds {
            map,
            index: index.into(),
            capacity,
        });
    }
    Ok(())
}

impl Tables for FakeMaps {
    fn capacity(&self) -> Capacity {
        self.capacity
    }

    fn frontends(&self) -> Result<Vec<(FrontendKey, Frontend)>, MapError> {
        Ok(self.frontends.iter().map(|(k, v)| (*k, *v)).collect())
    }

    fn put_frontend(&mut self, key: &FrontendKey, value: &Frontend) -> Result<(), MapError> {
        let family = self
            .frontends
            .keys()
            .filter(|k| k.addr.is_ipv4() == key.addr.is_ipv4())
            .count();
        if !self.frontends.contains_key(key) && family >= self.capacity.frontends as usize {
            let map = if key.addr.is_ipv4() {
                names::FRONTENDS_V4
            } else {
                names::FRONTENDS_V6
            };
            return Err(full(map, self.capacity.frontends));
        }
        self.watch_frontend(key, value);
        self.frontends.insert(*key, *value);
        self.writes += 1;
        Ok(())
    }

    fn delete_frontend(&mut self, key: &FrontendKey) -> Result<(), MapError> {
        self.frontends.remove(key);
        self.writes += 1;
        Ok(())
    }

    fn backends(&self) -> Result<Vec<(u32, Backend)>, MapError> {
        Ok(self.backends.iter().map(|(id, b)| (*id, *b)).collect())
    }

    fn put_backend(&mut self, id: u32, value: &Backend) -> Result<(), MapError> {
        check_index(names::BACKENDS, id, self.capacity.backends)?;
        self.watch_backend(id, value);
        if *value == Backend::default() {
            self.backends.remove(&id);
        } else {
            self.backends.insert(id, *value);
        }
        self.writes += 1;
        Ok(())
    }

    fn read_range(&self, pool: Pool, range: Range) -> Result<Vec<u32>, MapError> {
        self.check_range(pool, range.offset, range.len as usize)?;
        Ok(self.ids(pool, range))
    }

    fn write_range(&mut self, pool: Pool, offset: u32, ids: &[u32]) -> Result<(), MapError> {
        self.check_range(pool, offset, ids.len())?;
        self.watch_range(pool, offset, ids);
        let entries = match pool {
            Pool::Slots => &mut self.slots,
            Pool::Maglev => &mut self.maglev,
        };
        entries.extend((offset..).zip(ids.iter().copied()));
        self.writes += 1;
        Ok(())
    }

    fn cidrs(&self) -> Result<Vec<(IpNetwork, u32)>, MapError> {
        Ok(self.cidrs.iter().map(|(n, f)| (*n, *f)).collect())
    }

    fn put_cidr(&mut self, network: IpNetwork, flags: u32) -> Result<(), MapError> {
        self.cidrs.insert(network, flags);
        self.writes += 1;
        Ok(())
    }

    fn delete_cidr(&mut self, network: IpNetwork) -> Result<(), MapError> {
        self.cidrs.remove(&network);
        self.writes += 1;
        Ok(())
    }

    fn source_ranges(&self) -> Result<Vec<(u32, IpNetwork)>, MapError> {
        Ok(self.source_ranges.keys().copied().collect())
    }

    fn put_source_range(&mut self, service_id: u32, network: IpNetwork) -> Result<(), MapError> {
        self.source_ranges.insert((service_id, network), ());
        self.writes += 1;
        Ok(())
    }

    fn delete_source_range(&mut self, service_id: u32, network: IpNetwork) -> Result<(), MapError> {
        self.source_ranges.remove(&(service_id, network));
        self.writes += 1;
        Ok(())
    }

    fn config(&self) -> Result<Config, MapError> {
        Ok(self.config)
    }

    fn put_config(&mut self, config: &Config) -> Result<(), MapError> {
        self.config = *config;
        self.writes += 1;
        Ok(())
    }

    fn reset_service_counter(&mut self, service_id: u32) -> Result<(), MapError> {
        check_index(names::SERVICE_COUNTERS, service_id, self.capacity.services)
    }

    fn reset_backend_counter(&mut self, backend_id: u32) -> Result<(), MapError> {
        check_index(names::BACKEND_COUNTERS, backend_id, self.capacity.backends)
    }

    fn names(&self) -> Result<Vec<(u32, String)>, MapError> {
        Ok(self
            .names
            .iter()
            .map(|(id, name)| (*id, name.clone()))
            .collect())
    }

    fn put_name(&mut self, service_id: u32, name: &str) -> Result<(), MapError> {
        check_index(names::NAMES, service_id, self.capacity.services)?;
        self.names.insert(service_id, name.to_owned());
        self.writes += 1;
        Ok(())
    }

    fn delete_name(&mut self, service_id: u32) -> Result<(), MapError> {
        self.names.remove(&service_id);
        self.writes += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::Protocol;
    use super::*;

    fn key(port: u16) -> FrontendKey {
        FrontendKey::new("10.96.0.1".parse().unwrap(), port, Protocol::Tcp)
    }

    fn frontend(service_id: u32, internal: Range) -> Frontend {
        Frontend {
            service_id,
            internal,
            ..Frontend::default()
        }
    }

    #[test]
    fn a_frontend_before_its_backends_is_noticed() {
        let mut maps = FakeMaps::new(Capacity::default());
        maps.write_range(Pool::Slots, 4, &[1]).unwrap();
        maps.put_frontend(&key(80), &frontend(1, Range { offset: 4, len: 1 }))
            .unwrap();
        assert_eq!(maps.violations().len(), 1);
    }

    #[test]
    fn the_right_order_is_no_violation_and_rewriting_a_live_range_is() {
        let mut maps = FakeMaps::new(Capacity::default());
        maps.put_backend(
            1,
            &Backend {
                service_id: 1,
                ..Backend::default()
            },
        )
        .unwrap();
        maps.write_range(Pool::Slots, 4, &[1]).unwrap();
        maps.put_frontend(&key(80), &frontend(1, Range { offset: 4, len: 1 }))
            .unwrap();
        assert!(maps.violations().is_empty());
        maps.write_range(Pool::Slots, 3, &[1, 1]).unwrap();
        maps.put_backend(1, &Backend::default()).unwrap();
        assert_eq!(maps.violations().len(), 2);
    }

    #[test]
    fn a_full_table_says_so_and_still_takes_updates() {
        let mut maps = FakeMaps::new(Capacity {
            frontends: 1,
            ..Capacity::default()
        });
        maps.put_frontend(&key(80), &Frontend::default()).unwrap();
        assert!(
            maps.put_frontend(&key(81), &Frontend::default())
                .unwrap_err()
                .is_full()
        );
        maps.put_frontend(&key(80), &frontend(2, Range::default()))
            .unwrap();
    }
}
