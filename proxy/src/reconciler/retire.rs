//! Phase two: everything that a plan no longer has, in the order that never leaves a pointer dangling.

use std::collections::BTreeSet;
use std::time::Instant;

use sluice_common::{Range, backend_flags};

use super::held::{self, Port};
use super::pools::Resting;
use super::purge::GoneBackend;
use super::{Held, Reconciler};
use crate::maps::{FrontendKey, MapError, Pool, Protocol, Tables};
use crate::planner::{ObjectName, PortId, PortPlan, ServicePlan};

impl<T: Tables> Reconciler<T> {
    pub(super) fn retire(&mut self, plan: &ServicePlan, now: Instant) -> Result<(), MapError> {
        let Some(mut held) = self.services.remove(&plan.service) else {
            return Ok(());
        };
        let result = self
            .retire_ports(plan, &mut held, now)
            .and_then(|()| self.retire_addresses(plan, &mut held));
        if !held.ports.is_empty() || !held.addresses.is_empty() {
            self.services.insert(plan.service.clone(), held);
        }
        result
    }

    fn retire_ports(
        &mut self,
        plan: &ServicePlan,
        held: &mut Held,
        now: Instant,
    ) -> Result<(), MapError> {
        let ids: Vec<PortId> = held.ports.keys().cloned().collect();
        for id in ids {
            let wanted = plan.ports.iter().find(|port| port.id == id);
            let Some(port) = held.ports.get_mut(&id) else {
                continue;
            };
            self.retire_port(id.protocol, wanted, port, now)?;
            if wanted.is_none() && port.is_empty() {
                self.drop_service_id(port, now)?;
                held.ports.remove(&id);
            }
        }
        Ok(())
    }

    pub(super) fn drop_service_id(
        &mut self,
        port: &mut Port,
        now: Instant,
    ) -> Result<(), MapError> {
        if port.named {
            self.tables.delete_name(port.service_id)?;
            self.report.writes += 1;
            port.named = false;
        }
        self.pools.rest(now, Resting::Service(port.service_id));
        self.report.ids.push((port.service_id, None));
        Ok(())
    }

    /// Brings a port down to its plan; to nothing without one.
    pub(super) fn retire_port(
        &mut self,
        protocol: Protocol,
        plan: Option<&PortPlan>,
        port: &mut Port,
        now: Instant,
    ) -> Result<(), MapError> {
        self.retire_frontends(plan, port)?;
        self.retire_ranges(port, now);
        self.retire_source_ranges(plan, port)?;
        self.retire_strays(port, now);
        self.retire_backends(protocol, plan, port, now)
    }

    fn retire_strays(&mut self, port: &mut Port, now: Instant) {
        if port.strays.is_empty() {
            return;
        }
        let in_use = port.eligibility();
        let pools = &mut self.pools;
        port.strays.retain(|id| {
            let keep = in_use.contains_key(id);
            if !keep {
                pools.rest(now, Resting::Backend(*id));
            }
            keep
        });
    }

    fn retire_frontends(
        &mut self,
        plan: Option<&PortPlan>,
        port: &mut Port,
    ) -> Result<(), MapError> {
        let frontends = plan.map_or(&[][..], |plan| &plan.frontends);
        let wanted: BTreeSet<_> = frontends.iter().map(|frontend| frontend.key).collect();
        let gone: Vec<_> = port.keys.difference(&wanted).copied().collect();
        for key in gone {
            // Another port may have taken the key over.
            if self
                .frontends
                .get(&key)
                .is_some_and(|value| value.service_id == port.service_id)
            {
                self.delete_frontend(&key)?;
            }
            port.keys.remove(&key);
        }
        Ok(())
    }

    /// Gives up ranges that no frontend points at.
    fn retire_ranges(&mut self, port: &mut Port, now: Instant) {
        let mine = port.keys.iter().filter_map(|key| self.frontends.get(key));
        let mine = mine.filter(|value| value.service_id == port.service_id);
        let used: BTreeSet<(Pool, Range)> = mine
            .flat_map(|value| {
                [
                    (Pool::Slots, value.internal),
                    (Pool::Maglev, value.external),
                ]
            })
            .collect();
        let pools = &mut self.pools;
        port.ranges.retain(|held| {
            let keep = used.contains(&(held.pool, held.range));
            if !keep {
                pools.rest(now, Resting::Range(held.pool, held.range));
            }
            keep
        });
    }

    fn retire_source_ranges(
        &mut self,
        plan: Option<&PortPlan>,
        port: &mut Port,
    ) -> Result<(), MapError> {
        let wanted = |network: &_| plan.is_some_and(|plan| plan.source_ranges.contains(network));
        let gone: Vec<_> = port
            .source_ranges
            .iter()
            .copied()
            .filter(|network| !wanted(network))
            .collect();
        for network in gone {
            self.tables.delete_source_range(port.service_id, network)?;
            self.report.writes += 1;
            port.source_ranges.remove(&network);
        }
        Ok(())
    }

    /// Takes eligibility from backends that are in no range any more, and gives up those that the
    /// plan does not have.
    fn retire_backends(
        &mut self,
        protocol: Protocol,
        plan: Option<&PortPlan>,
        port: &mut Port,
        now: Instant,
    ) -> Result<(), MapError> {
        let planned = plan.map_or(&[][..], |plan| &plan.backends);
        let eligible = port.eligibility();
        let places: Vec<_> = port.backends.keys().copied().collect();
        for place in places {
            let Some(&known) = port.backends.get(&place) else {
                continue;
            };
            let in_plan = planned
                .binary_search_by(|b| (b.addr, b.port).cmp(&place))
                .ok();
            let local = in_plan.map_or(known.flags & backend_flags::LOCAL, |i| {
                held::planned_flags(&planned[i]) & backend_flags::LOCAL
            });
            let bits = eligible.get(&known.id).copied().unwrap_or_default();
            let flags = local | bits;
            if flags != known.flags {
                let value = held::backend_value(place, port.service_id, flags);
                self.tables.put_backend(known.id, &value)?;
                self.report.writes += 1;
                port.backends.insert(
                    place,
                    held::HeldBackend {
                        id: known.id,
                        flags,
                    },
                );
            }
            if in_plan.is_none() && bits == 0 {
                port.backends.remove(&place);
                self.pools.rest(now, Resting::Backend(known.id));
                if protocol == Protocol::Udp {
                    self.report.gone.push(GoneBackend {
                        id: known.id,
                        addr: place.0,
                        port: place.1,
                    });
                }
            }
        }
        Ok(())
    }

    fn retire_addresses(&mut self, plan: &ServicePlan, held: &mut Held) -> Result<(), MapError> {
        let wanted = |addr: &_| plan.addresses.contains(addr);
        let gone: Vec<_> = held
            .addresses
            .iter()
            .copied()
            .filter(|addr| !wanted(addr))
            .collect();
        for addr in gone {
            if self.owns_address(&plan.service, &addr) {
                self.delete_frontend(&FrontendKey::address(addr))?;
                self.addresses.remove(&addr);
            }
            held.addresses.retain(|other| *other != addr);
        }
        Ok(())
    }

    fn owns_address(&self, service: &ObjectName, addr: &std::net::IpAddr) -> bool {
        self.addresses.get(addr) == Some(service)
    }
}
