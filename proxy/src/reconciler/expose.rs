//! Phase one: everything that a plan adds, in the order that never shows half a service.

use std::net::IpAddr;

use sluice_common::{Frontend, Range, frontend_flags, ticks_from_millis};

use super::held::{self, HeldBackend, HeldRange, Port};
use super::{Held, Reconciler, whole_address};
use crate::maglev;
use crate::maps::{FrontendKey, MapError, Pool, Tables};
use crate::planner::{FrontendKind, PlannedBackend, PlannedFrontend, PortPlan, ServicePlan};

impl<T: Tables> Reconciler<T> {
    pub(super) fn expose(&mut self, plan: &ServicePlan) -> Result<(), MapError> {
        if plan.ports.is_empty() && plan.addresses.is_empty() {
            return Ok(());
        }
        // Taken out of the book while it is worked on, and put back whatever happens. A port that
        // fails does not keep the others waiting.
        let mut held = self.services.remove(&plan.service).unwrap_or_default();
        let mut result = Ok(());
        for port in &plan.ports {
            result = result.and(self.expose_held(port, &mut held));
        }
        result = result.and(self.expose_addresses(plan, &mut held.addresses));
        self.services.insert(plan.service.clone(), held);
        result
    }

    fn expose_held(&mut self, plan: &PortPlan, held: &mut Held) -> Result<(), MapError> {
        let mut port = match held.ports.remove(&plan.id) {
            Some(port) => port,
            None => self.hold(plan)?,
        };
        let result = self.expose_port(plan, &mut port);
        held.ports.insert(plan.id.clone(), port);
        result
    }

    /// What a former agent wrote for this port, or a fresh service id.
    fn hold(&mut self, plan: &PortPlan) -> Result<Port, MapError> {
        let keys = plan.frontends.iter().map(|frontend| &frontend.key);
        let ids = keys.filter_map(|key| Some(self.frontends.get(key)?.service_id));
        let port = match self.orphans.adopt(&plan.id, ids) {
            Some(port) => port,
            None => Port::new(self.pools.service_id(&mut self.tables)?),
        };
        self.report
            .ids
            .push((port.service_id, Some(plan.id.clone())));
        Ok(port)
    }

    fn expose_port(&mut self, plan: &PortPlan, port: &mut Port) -> Result<(), MapError> {
        if !port.named {
            self.tables
                .put_name(port.service_id, &plan.id.to_string())?;
            self.report.writes += 1;
            port.named = true;
        }
        for backend in &plan.backends {
            self.expose_backend(backend, port)?;
        }
        let internal = self.expose_range(plan, port, Pool::Slots, |backend| backend.internal)?;
        let external = self.expose_range(plan, port, Pool::Maglev, |backend| backend.external)?;
        self.expose_source_ranges(plan, port)?;
        for frontend in &plan.frontends {
            let value = frontend_value(plan, frontend, port.service_id, internal, external);
            self.put_frontend(frontend.key, value)?;
            port.keys.insert(frontend.key);
        }
        Ok(())
    }

    fn expose_source_ranges(&mut self, plan: &PortPlan, port: &mut Port) -> Result<(), MapError> {
        for network in &plan.source_ranges {
            if !port.source_ranges.contains(network) {
                self.tables.put_source_range(port.service_id, *network)?;
                self.report.writes += 1;
                port.source_ranges.insert(*network);
            }
        }
        Ok(())
    }

    /// Flags are only added here: a frontend may still point at a range in which they count.
    fn expose_backend(
        &mut self,
        backend: &PlannedBackend,
        port: &mut Port,
    ) -> Result<(), MapError> {
        let place = (backend.addr, backend.port);
        let planned = held::planned_flags(backend);
        let known = port.backends.get(&place).copied();
        let (id, flags) = match known {
            Some(known) if known.flags | planned == known.flags => return Ok(()),
            Some(known) => (known.id, known.flags | planned),
            None => (self.pools.backend_id(&mut self.tables)?, planned),
        };
        let value = held::backend_value(place, port.service_id, flags);
        if let Err(error) = self.tables.put_backend(id, &value) {
            if known.is_none() {
                self.pools.backends.free(id);
            }
            return Err(error);
        }
        self.report.writes += 1;
        port.backends.insert(place, HeldBackend { id, flags });
        Ok(())
    }

    fn expose_range(
        &mut self,
        plan: &PortPlan,
        port: &mut Port,
        pool: Pool,
        test: fn(&PlannedBackend) -> bool,
    ) -> Result<Range, MapError> {
        let ids = port.ids(&plan.backends, test);
        if ids.is_empty() {
            return Ok(Range::default());
        }
        if let Some(range) = port.range_of(pool, &ids) {
            return Ok(range);
        }
        let range = match pool {
            Pool::Slots => self.pools.write_range(&mut self.tables, pool, &ids)?,
            Pool::Maglev => {
                let places = plan.backends.iter().filter(|backend| test(backend));
                let entries = maglev_entries(places.map(|b| (b.addr, b.port)), &ids);
                self.pools.write_range(&mut self.tables, pool, &entries)?
            }
        };
        self.report.writes += 1;
        port.ranges.push(HeldRange {
            pool,
            range,
            ids: ids.into(),
            canonical: true,
        });
        Ok(range)
    }

    fn expose_addresses(
        &mut self,
        plan: &ServicePlan,
        mine: &mut Vec<IpAddr>,
    ) -> Result<(), MapError> {
        for addr in &plan.addresses {
            self.put_frontend(FrontendKey::address(*addr), whole_address())?;
            self.addresses.insert(*addr, plan.service.clone());
            if !mine.contains(addr) {
                mine.push(*addr);
            }
        }
        Ok(())
    }
}

/// A Maglev table over backends (by ascending place) as their ids.
pub(super) fn maglev_entries(places: impl Iterator<Item = (IpAddr, u16)>, ids: &[u32]) -> Vec<u32> {
    let mut entries = maglev::table(&places.collect::<Vec<_>>());
    for entry in &mut entries {
        *entry = ids[*entry as usize];
    }
    entries
}

fn frontend_value(
    plan: &PortPlan,
    frontend: &PlannedFrontend,
    service_id: u32,
    internal: Range,
    external: Range,
) -> Frontend {
    let affinity = plan
        .affinity
        .map_or(0, |timeout| ticks_from_millis(timeout.as_secs() * 1000));
    Frontend {
        service_id,
        flags: frontend_flags_of(plan, frontend),
        affinity,
        reserved: 0,
        internal,
        external: if frontend.kind.external() {
            external
        } else {
            Range::default()
        },
    }
}

fn frontend_flags_of(plan: &PortPlan, frontend: &PlannedFrontend) -> u32 {
    let outside = frontend.kind.external();
    let flags = [
        (outside, frontend_flags::EXTERNAL),
        (plan.internal_drop, frontend_flags::INTERNAL_DROP),
        (outside && plan.external_drop, frontend_flags::EXTERNAL_DROP),
        (
            outside && plan.external_local,
            frontend_flags::EXTERNAL_LOCAL,
        ),
        (frontend.source_ranges, frontend_flags::SOURCE_RANGES),
    ];
    let kind = match frontend.kind {
        FrontendKind::ClusterIp => frontend_flags::CLUSTER_IP,
        FrontendKind::LoadBalancer | FrontendKind::ExternalIp => frontend_flags::EXTERNAL_IP,
        FrontendKind::NodePort => frontend_flags::NODE_PORT,
        FrontendKind::LoopbackNodePort => frontend_flags::NODE_PORT | frontend_flags::HOST_ONLY,
    };
    flags
        .into_iter()
        .filter(|(set, _)| *set)
        .fold(kind, |all, (_, flag)| all | flag)
}
