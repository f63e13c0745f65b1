//! The planner's memory, and how events move it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use super::claims::{Claims, Rank};
use super::draft::{self, Draft};
use super::endpoints::{self, Merged};
use super::frontends::{self, NodePortAddresses, Wanted};
use super::policy::{self, Place};
use super::{
    EndpointSlice, Family, Fault, FrontendKind, Node, ObjectName, PortId, Problem, Service,
    ServicePlan, ServicePort,
};
use crate::maps::FrontendKey;

/// What does not change while the agent runs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Node ports are served on loopback too (`iptables.localhostNodePorts` of kube-proxy).
    pub loopback_node_ports: bool,
}

/// Plans the whole node, one Service at a time.
#[derive(Debug, Default)]
pub struct Planner {
    node: Node,
    node_ports: NodePortAddresses,
    services: HashMap<ObjectName, Entry>,
    /// Which Service a slice was last seen to belong to.
    slices: HashMap<ObjectName, ObjectName>,
    claims: Claims,
    problems: BTreeMap<(&'static str, ObjectName), Vec<Problem>>,
    fresh: Vec<Problem>,
    dirty: BTreeMap<ObjectName, Vec<i64>>,
}

#[derive(Debug, Default)]
struct Entry {
    service: Option<Service>,
    slices: BTreeMap<ObjectName, EndpointSlice>,
}

/// A Service that has to be written again.
#[derive(Clone, Debug)]
pub struct Change {
    /// What the maps should hold for it; nothing at all when it is gone.
    pub plan: ServicePlan,
    /// When the changes to its EndpointSlices were made, in milliseconds since 1970.
    pub triggered_ms: Vec<i64>,
}

impl Planner {
    /// A planner that knows of nothing yet.
    pub fn new(options: Options) -> Self {
        let mut planner = Self::default();
        planner.node_ports.loopback = options.loopback_node_ports;
        planner
    }

    /// Takes in a Service as it is now; `None` when a proxy has nothing to do with it any more.
    pub fn set_service(
        &mut self,
        name: &ObjectName,
        service: Option<Service>,
        problems: Vec<Problem>,
    ) {
        self.note("Service", name, problems);
        let entry = self.services.entry(name.clone()).or_default();
        if entry.service == service {
            self.forget_if_empty(name);
            return;
        }
        let old = std::mem::replace(&mut entry.service, service.clone());
        self.move_claims(name, old.as_ref(), service.as_ref());
        self.touch(name.clone());
        self.forget_if_empty(name);
    }

    /// Takes in a slice as it is now; `None` when it is gone or cannot be used.
    pub fn set_slice(
        &mut self,
        name: &ObjectName,
        slice: Option<EndpointSlice>,
        problems: Vec<Problem>,
    ) {
        self.note("EndpointSlice", name, problems);
        let service = slice.as_ref().map(|slice| slice.service.clone());
        if let Some(old) = self
            .slices
            .get(name)
            .filter(|old| Some(*old) != service.as_ref())
            .cloned()
        {
            self.drop_slice(name, &old);
        }
        if let (Some(slice), Some(service)) = (slice, service) {
            self.put_slice(name, service, slice);
        }
    }

    /// Takes in the own Node.
    pub fn set_node(&mut self, node: Node) {
        let moved = self.node.zone != node.zone;
        self.node = node;
        if moved {
            self.touch_all(|entry| entry.slices.values().any(has_hints));
        }
    }

    /// Takes in the addresses that node ports are served on.
    pub fn set_node_port_addresses(&mut self, mut addresses: Vec<IpAddr>) {
        addresses.sort_unstable();
        addresses.dedup();
        if self.node_ports.addresses == addresses {
            return;
        }
        let new = NodePortAddresses {
            addresses,
            loopback: self.node_ports.loopback,
        };
        let old = std::mem::replace(&mut self.node_ports, new);
        for name in self.with_node_ports() {
            let service = self
                .services
                .get(&name)
                .and_then(|entry| entry.service.clone());
            let Some(service) = service else { continue };
            let before = frontends::wanted(&service, &old);
            let after = frontends::wanted(&service, &self.node_ports);
            self.apply_claims(&name, service.created, service.created, &before, &after);
            self.touch(name);
        }
    }

    /// The own Node as last seen.
    pub const fn node(&self) -> &Node {
        &self.node
    }

    /// Names of all Services known.
    pub fn service_names(&self) -> BTreeSet<ObjectName> {
        let known = self
            .services
            .iter()
            .filter(|(_, entry)| entry.service.is_some());
        known.map(|(name, _)| name.clone()).collect()
    }

    /// Names of all slices known.
    pub fn slice_names(&self) -> BTreeSet<ObjectName> {
        self.slices.keys().cloned().collect()
    }

    /// What could not be read, by object.
    pub fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.problems.values().flatten()
    }

    /// Problems found since the last call: for the log.
    pub fn take_new_problems(&mut self) -> Vec<Problem> {
        std::mem::take(&mut self.fresh)
    }

    /// Services touched since the last drain.
    pub fn pending(&self) -> usize {
        self.dirty.len()
    }

    /// Plans every Service that was touched since the last call.
    pub fn drain(&mut self) -> Vec<Change> {
        let dirty = std::mem::take(&mut self.dirty);
        let plan = |(name, triggered_ms)| Change {
            plan: self.plan(&name),
            triggered_ms,
        };
        dirty.into_iter().map(plan).collect()
    }

    /// What the maps should hold for a Service.
    pub fn plan(&self, name: &ObjectName) -> ServicePlan {
        let mut plan = ServicePlan {
            service: name.clone(),
            ports: Vec::new(),
            addresses: Vec::new(),
            health_check: None,
            problems: Vec::new(),
        };
        let entry = self.services.get(name);
        if let Some((entry, service)) =
            entry.and_then(|entry| Some((entry, entry.service.as_ref()?)))
        {
            self.fill(&mut plan, entry, service);
        }
        plan
    }

    fn fill(&self, plan: &mut ServicePlan, entry: &Entry, service: &Service) {
        let owned = self.settle(service, plan);
        let has_cluster_ip = |ip: &IpAddr| {
            owned
                .iter()
                .any(|(key, (_, kind))| key.addr == *ip && *kind == FrontendKind::ClusterIp)
        };
        plan.addresses = service
            .cluster_ips
            .iter()
            .copied()
            .filter(has_cluster_ip)
            .collect();
        plan.health_check = draft::health_check(entry.slices.values(), service);
        for (i, port) in service.ports.iter().enumerate() {
            for family in Family::ALL {
                let mine = owned
                    .iter()
                    .filter(|(key, (of, _))| *of == i && Family::of(key.addr) == family);
                let frontends: Vec<_> = mine.map(|(key, (_, kind))| (*key, *kind)).collect();
                self.plan_port(plan, entry, service, port, family, &frontends);
            }
        }
        plan.ports.sort_unstable_by(|a, b| a.id.cmp(&b.id));
    }

    /// The keys that the Service may have; the others are named in the plan's problems.
    fn settle(&self, service: &Service, plan: &mut ServicePlan) -> Wanted {
        let mut owned = frontends::wanted(service, &self.node_ports);
        owned.retain(|key, (i, kind)| match self.claims.owner(key) {
            Some(owner) if *owner != plan.service => {
                plan.problems.push(Problem {
                    kind: "Service",
                    object: plan.service.clone(),
                    field: claimed_field(*kind, *i),
                    fault: Fault::Claimed {
                        key: *key,
                        owner: owner.clone(),
                    },
                });
                false
            }
            _ => true,
        });
        owned
    }

    fn plan_port(
        &self,
        plan: &mut ServicePlan,
        entry: &Entry,
        service: &Service,
        port: &ServicePort,
        family: Family,
        frontends: &[(FrontendKey, FrontendKind)],
    ) {
        if frontends.is_empty() {
            return;
        }
        let joined = endpoints::join(entry.slices.values(), family, &port.name, port.protocol);
        let merged: Vec<Merged<'_>> = joined.values().copied().collect();
        let members = policy::classify(
            &merged,
            Place {
                zone: &self.node.zone,
            },
        );
        let draft = Draft {
            service,
            joined: &joined,
            members: &members,
            exists: policy::exists_anywhere(&merged),
        };
        for (scope, frontends) in draft::scopes(service, frontends) {
            let id = PortId {
                service: plan.service.clone(),
                port: port.name.clone(),
                protocol: port.protocol,
                family,
                scope,
            };
            plan.ports.push(draft.finish(id, &frontends));
        }
    }

    fn move_claims(&mut self, name: &ObjectName, old: Option<&Service>, new: Option<&Service>) {
        let wanted = |service: Option<&Service>| {
            service.map_or_else(Wanted::new, |service| {
                frontends::wanted(service, &self.node_ports)
            })
        };
        let (before, after) = (wanted(old), wanted(new));
        let created = |service: Option<&Service>| service.map_or(0, |service| service.created);
        self.apply_claims(name, created(old), created(new), &before, &after);
    }

    /// Withdraws and files what differs; whoever gains or loses a key by it is planned again.
    fn apply_claims(
        &mut self,
        name: &ObjectName,
        old: i64,
        new: i64,
        before: &Wanted,
        after: &Wanted,
    ) {
        let same = |key, kind: FrontendKind, other: &Wanted| {
            old == new && other.get(key).is_some_and(|(_, found)| *found == kind)
        };
        let gone: Vec<_> = before
            .iter()
            .filter(|(key, (_, kind))| !same(key, *kind, after))
            .collect();
        let come: Vec<_> = after
            .iter()
            .filter(|(key, (_, kind))| !same(key, *kind, before))
            .collect();
        let mut touched: Vec<ObjectName> = gone
            .into_iter()
            .flat_map(|(key, _)| self.claims.remove(*key, name))
            .collect();
        for (key, (_, kind)) in come {
            let rank = Rank {
                kind: *kind,
                created: new,
                service: name.clone(),
            };
            touched.extend(self.claims.add(*key, rank));
        }
        touched.into_iter().for_each(|other| self.touch(other));
    }

    fn put_slice(&mut self, name: &ObjectName, service: ObjectName, slice: EndpointSlice) {
        let entry = self.services.entry(service.clone()).or_default();
        let triggered = slice.triggered_ms;
        let old = entry.slices.insert(name.clone(), slice);
        self.slices.insert(name.clone(), service.clone());
        if old.as_ref() == self.services[&service].slices.get(name) {
            return;
        }
        let fresh = triggered.filter(|_| old.is_none_or(|old| old.triggered_ms != triggered));
        self.dirty.entry(service).or_default().extend(fresh);
    }

    fn drop_slice(&mut self, name: &ObjectName, service: &ObjectName) {
        self.slices.remove(name);
        if let Some(entry) = self.services.get_mut(service) {
            entry.slices.remove(name);
            self.touch(service.clone());
            self.forget_if_empty(service);
        }
    }

    fn forget_if_empty(&mut self, name: &ObjectName) {
        let empty = |entry: &Entry| entry.service.is_none() && entry.slices.is_empty();
        if self.services.get(name).is_some_and(empty) {
            self.services.remove(name);
        }
    }

    fn note(&mut self, kind: &'static str, name: &ObjectName, problems: Vec<Problem>) {
        let key = (kind, name.clone());
        if problems.is_empty() {
            self.problems.remove(&key);
            return;
        }
        let known = self
            .problems
            .insert(key, problems.clone())
            .unwrap_or_default();
        self.fresh.extend(
            problems
                .into_iter()
                .filter(|problem| !known.contains(problem)),
        );
    }

    fn touch(&mut self, name: ObjectName) {
        self.dirty.entry(name).or_default();
    }

    fn touch_all(&mut self, test: impl Fn(&Entry) -> bool) {
        let hit = self.services.iter().filter(|(_, entry)| test(entry));
        let names: Vec<_> = hit.map(|(name, _)| name.clone()).collect();
        names.into_iter().for_each(|name| self.touch(name));
    }

    fn with_node_ports(&self) -> Vec<ObjectName> {
        let has = |entry: &Entry| {
            let ports = entry.service.iter().flat_map(|service| &service.ports);
            ports.into_iter().any(|port| port.node_port.is_some())
        };
        self.services
            .iter()
            .filter(|(_, entry)| has(entry))
            .map(|(name, _)| name.clone())
            .collect()
    }
}

fn has_hints(slice: &EndpointSlice) -> bool {
    slice
        .endpoints
        .iter()
        .any(|endpoint| endpoint.zone_hints.is_some())
}

fn claimed_field(kind: FrontendKind, port: usize) -> String {
    match kind {
        FrontendKind::ClusterIp => "spec.clusterIPs".to_owned(),
        FrontendKind::LoadBalancer => "status.loadBalancer.ingress".to_owned(),
        FrontendKind::ExternalIp => "spec.externalIPs".to_owned(),
        FrontendKind::NodePort | FrontendKind::LoopbackNodePort => {
            format!("spec.ports[{port}].nodePort")
        }
    }
}
