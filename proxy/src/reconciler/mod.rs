//! Makes the maps hold what the planner asks for.
//!
//! Idempotent: [`Reconciler::apply`] compares a Service's plan with what the maps are known to hold
//! and writes the difference; nothing when there is none. The book of what they hold changes only
//! after a write has succeeded, so a failure at any point leaves a true book and a later try goes on
//! from there. Two phases keep every moment consistent:
//!
//! 1. *expose*, for all Services of a batch: new backends, then new ranges, then each frontend by one
//!    atomic update;
//! 2. *retire*: frontends that are wanted no more, then ranges that no frontend points at, then
//!    backends that are in no range. Ids and ranges rest for [`GRACE`](crate::maps::GRACE) before they are used again.
//!
//! A restarted agent reads all of it back from the maps ([`Reconciler::restore`]): ids and ranges
//! stay, and what no Service claims goes only after the first full sync ([`Reconciler::prune`]).

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::time::Instant;

use sluice_common::{Frontend, frontend_flags, names};

use crate::maps::{FrontendKey, MapError, Tables};
use crate::planner::{ObjectName, PortId, ServicePlan};

mod expose;
mod held;
mod node;
mod pools;
mod purge;
mod restore;
mod retire;
mod retry;

pub use node::NodeTables;
pub use purge::{GoneBackend, purge};
pub use retry::{Failure, Retries};

use held::Port;
use pools::Pools;
use restore::Orphans;

#[cfg(test)]
mod tests;

/// Writes plans into tables.
#[derive(Debug)]
pub struct Reconciler<T> {
    tables: T,
    pools: Pools,
    /// Every frontend that the maps hold.
    frontends: HashMap<FrontendKey, Frontend>,
    /// How many of them are IPv4, IPv6.
    counts: [u32; 2],
    services: HashMap<ObjectName, Held>,
    /// Who has each address as a whole.
    addresses: HashMap<IpAddr, ObjectName>,
    /// What a former agent wrote and no plan has claimed yet.
    orphans: Orphans,
    retries: Retries,
    report: Report,
}

/// What the maps hold for one Service.
#[derive(Debug, Default)]
struct Held {
    ports: BTreeMap<PortId, Port>,
    addresses: Vec<IpAddr>,
}

/// What a call did, for logs and metrics.
#[derive(Debug, Default)]
pub struct Report {
    /// Services that could not be written, and why. They are tried again.
    pub failures: Vec<(ObjectName, MapError)>,
    /// UDP backends that left: their flows have to go too.
    pub gone: Vec<GoneBackend>,
    /// Ids of services that came into use, with their names, or went out of use.
    pub ids: Vec<(u32, Option<PortId>)>,
    /// Writes to the maps.
    pub writes: u64,
}

impl<T: Tables> Reconciler<T> {
    /// Writes what differs from these plans. Each plan stands for its whole Service.
    pub fn apply(&mut self, plans: &[ServicePlan], now: Instant) -> Report {
        self.release(now);
        let mut failed = Vec::new();
        for (i, plan) in plans.iter().enumerate() {
            failed.extend(self.expose(plan).err().map(|error| (i, error)));
        }
        for (i, plan) in plans.iter().enumerate() {
            let error = self.retire(plan, now).err();
            if failed.iter().all(|(other, _)| *other != i) {
                failed.extend(error.map(|error| (i, error)));
            }
        }
        self.settle(plans, failed, now);
        std::mem::take(&mut self.report)
    }

    /// Ids and ranges whose rest is over come back into use.
    fn release(&mut self, now: Instant) {
        self.report.writes += self.pools.release(&mut self.tables, now);
    }

    fn settle(&mut self, plans: &[ServicePlan], failed: Vec<(usize, MapError)>, now: Instant) {
        let mut errors: HashMap<usize, MapError> = failed.into_iter().collect();
        for (i, plan) in plans.iter().enumerate() {
            match errors.remove(&i) {
                None => self.retries.succeeded(&plan.service),
                Some(error) => {
                    self.retries.failed(&plan.service, &error, now);
                    self.report.failures.push((plan.service.clone(), error));
                }
            }
        }
    }

    /// Services whose last write failed and whose time has come: plan and apply them again.
    pub fn due(&self, now: Instant) -> Vec<ObjectName> {
        self.retries.due(now)
    }

    /// When there is something to do without an event: a retry, or an id's rest that ends.
    pub fn next_wake(&self) -> Option<Instant> {
        [self.retries.next_due(), self.pools.next_ready()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Services that are not as they should be.
    pub const fn retries(&self) -> &Retries {
        &self.retries
    }

    /// All services in the maps by id.
    pub fn services(&self) -> impl Iterator<Item = (u32, &PortId)> {
        let ports = self.services.values().flat_map(|held| &held.ports);
        ports.map(|(id, port)| (port.service_id, id))
    }

    /// The tables.
    pub const fn tables(&self) -> &T {
        &self.tables
    }

    /// The tables, to be changed by somebody else than the reconciler.
    pub const fn tables_mut(&mut self) -> &mut T {
        &mut self.tables
    }

    /// How much of each table is in use: name, used, capacity.
    pub fn usage(&self) -> Vec<(&'static str, u32, u32)> {
        let mut usage = self.pools.usage();
        let capacity = self.tables.capacity().frontends;
        usage.push((names::FRONTENDS_V4, self.counts[0], capacity));
        usage.push((names::FRONTENDS_V6, self.counts[1], capacity));
        usage
    }

    fn put_frontend(&mut self, key: FrontendKey, value: Frontend) -> Result<(), MapError> {
        if self.frontends.get(&key) == Some(&value) {
            return Ok(());
        }
        self.tables.put_frontend(&key, &value)?;
        self.report.writes += 1;
        self.remember(key, value);
        Ok(())
    }

    fn remember(&mut self, key: FrontendKey, value: Frontend) {
        if self.frontends.insert(key, value).is_none() {
            self.counts[usize::from(key.addr.is_ipv6())] += 1;
        }
    }

    fn delete_frontend(&mut self, key: &FrontendKey) -> Result<(), MapError> {
        self.tables.delete_frontend(key)?;
        self.report.writes += 1;
        if self.frontends.remove(key).is_some() {
            self.counts[usize::from(key.addr.is_ipv6())] -= 1;
        }
        Ok(())
    }
}

/// The value of an address as a whole.
fn whole_address() -> Frontend {
    Frontend {
        flags: frontend_flags::ADDRESS | frontend_flags::CLUSTER_IP,
        ..Frontend::default()
    }
}
