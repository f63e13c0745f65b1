//! Cluster IPs and node ports: which are in use, and what a Service gets.
//!
//! What is in use is what the stored Services hold, read once at start. A write reserves what it needs before it reaches
//! the store and gives it back when it fails, so no two Services ever hold one address or port, however many
//! are written at once. What a Service gives up is free only after that was written.

mod families;
mod pool;
mod ports;

use std::collections::HashSet;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ipnetwork::IpNetwork;
use serde_json::{Value, json};
use sluice_api::field::Path;
use sluice_api::{ApiError, FieldError, Kind};

use crate::object;
pub(crate) use pool::first_address;
use pool::{Owner, Pools, Problem};

const SPEC: Path<'static> = Path::root("spec");

/// Something of which each Service has its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Resource {
    Address(IpAddr),
    NodePort(u16),
}

/// The allocator.
pub(crate) struct Services {
    pools: Mutex<Pools>,
}

impl Services {
    pub(crate) fn new(cidrs: &[IpNetwork], ports: RangeInclusive<u16>) -> Self {
        Self {
            pools: Mutex::new(Pools::new(cidrs, ports)),
        }
    }

    fn pools(&self) -> MutexGuard<'_, Pools> {
        // Every step leaves the pools whole.
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what a stored Service holds out of the pools. Says what is held twice or out of range.
    pub(crate) fn adopt(&self, service: &Value) -> Vec<String> {
        let owner = owner(service);
        let mut pools = self.pools();
        let held = resources(service);
        held.into_iter()
            .filter_map(|resource| pools.take(resource, &owner).err())
            .map(|problem| format!("{}: {problem}", object::name(service)))
            .collect()
    }

    /// Gives back what a removed Service held.
    pub(crate) fn release(&self, kind: &Kind, service: &Value) {
        if !is_service(kind) {
            return;
        }
        let owner = owner(service);
        let mut pools = self.pools();
        resources(service)
            .into_iter()
            .for_each(|resource| pools.give_back(resource, &owner));
    }

    /// Fills in addresses and ports of a new Service.
    pub(crate) fn reserve_create(
        &self,
        kind: &Kind,
        service: &mut Value,
    ) -> Result<Reserved<'_>, ApiError> {
        match is_service(kind) {
            true => self.reserve(kind, service, None),
            false => Ok(Reserved::nothing(self)),
        }
    }

    /// Fills in what a changed Service needs beyond what it has.
    pub(crate) fn reserve_update(
        &self,
        kind: &Kind,
        service: &mut Value,
        old: &Value,
    ) -> Result<Reserved<'_>, ApiError> {
        if !is_service(kind) || service["spec"] == old["spec"] {
            return Ok(Reserved::nothing(self));
        }
        keep_allocated(service, old);
        self.reserve(kind, service, Some(old))
    }

    fn reserve(
        &self,
        kind: &Kind,
        service: &mut Value,
        old: Option<&Value>,
    ) -> Result<Reserved<'_>, ApiError> {
        let mut reserved = Reserved::nothing(self);
        reserved.owner = owner(service);
        let result = {
            let mut pools = self.pools();
            let mut draft = Draft {
                pools: &mut pools,
                owner: &reserved.owner,
                added: &mut reserved.added,
            };
            fill(&mut draft, service)
        };
        if let Err(error) = result {
            return Err(error.about(kind, object::name(service)));
        }
        let kept: HashSet<Resource> = resources(service).into_iter().collect();
        let before = old.map(resources).unwrap_or_default();
        reserved.freed = before
            .into_iter()
            .filter(|resource| !kept.contains(resource))
            .collect();
        Ok(reserved)
    }
}

/// What a write has reserved. Given back when dropped, unless the write took place.
pub(crate) struct Reserved<'a> {
    services: &'a Services,
    owner: Owner,
    added: Vec<Resource>,
    freed: Vec<Resource>,
}

impl<'a> Reserved<'a> {
    fn nothing(services: &'a Services) -> Self {
        Self {
            services,
            owner: Owner::default(),
            added: Vec::new(),
            freed: Vec::new(),
        }
    }

    /// The write is in the store: what it reserved is held, what the Service had before and gave up is free.
    pub(crate) fn commit(mut self) {
        self.added.clear();
        let freed = std::mem::take(&mut self.freed);
        self.give_back(freed);
    }

    fn give_back(&self, resources: Vec<Resource>) {
        if resources.is_empty() {
            return;
        }
        let mut pools = self.services.pools();
        resources
            .into_iter()
            .for_each(|resource| pools.give_back(resource, &self.owner));
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        let added = std::mem::take(&mut self.added);
        self.give_back(added);
    }
}

/// A Service while it is filled in: what is taken for it is noted.
struct Draft<'a> {
    pools: &'a mut Pools,
    owner: &'a Owner,
    added: &'a mut Vec<Resource>,
}

impl Draft<'_> {
    fn take(&mut self, resource: Resource) -> Result<(), Problem> {
        if self.pools.take(resource, self.owner)? {
            self.added.push(resource);
        }
        Ok(())
    }

    fn draw_address(&mut self, v6: bool) -> Result<IpAddr, Problem> {
        let address = self.pools.draw_address(v6, self.owner)?;
        self.added.push(Resource::Address(address));
        Ok(address)
    }

    fn draw_port(&mut self) -> Result<u16, Problem> {
        let port = self.pools.draw_port(self.owner)?;
        self.added.push(Resource::NodePort(port));
        Ok(port)
    }
}

/// Why a Service can't be filled in.
enum Refusal {
    Field(FieldError),
    Full(Problem),
}

impl Refusal {
    fn about(self, kind: &Kind, name: &str) -> ApiError {
        match self {
            Refusal::Field(error) => ApiError::invalid(kind, name, vec![error]),
            Refusal::Full(problem) => ApiError::internal(problem),
        }
    }
}

impl From<FieldError> for Refusal {
    fn from(error: FieldError) -> Self {
        Refusal::Field(error)
    }
}

fn fill(draft: &mut Draft<'_>, service: &mut Value) -> Result<(), Refusal> {
    families::fill(draft, &mut service["spec"])?;
    ports::fill(draft, &mut service["spec"])
}

fn is_service(kind: &Kind) -> bool {
    kind.storage == ("", "services")
}

fn owner(service: &Value) -> Owner {
    object::uid(service).to_owned()
}

fn service_type(spec: &Value) -> &str {
    spec["type"].as_str().unwrap_or("ClusterIP")
}

fn is_headless(spec: &Value) -> bool {
    spec["clusterIP"] == "None" || spec["clusterIPs"][0] == "None"
}

/// Everything that a Service holds.
fn resources(service: &Value) -> Vec<Resource> {
    let spec = &service["spec"];
    let mut addresses: Vec<IpAddr> = object::strings(&spec["clusterIPs"])
        .iter()
        .chain(object::strings(&json!([spec["clusterIP"]])).iter())
        .filter_map(|text| text.parse().ok())
        .collect();
    addresses.dedup();
    let ports = spec["ports"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|port| &port["nodePort"]);
    let ports = ports.chain([&spec["healthCheckNodePort"]]);
    let ports = ports
        .filter_map(|port| u16::try_from(port.as_u64()?).ok())
        .filter(|port| *port > 0);
    let mut seen = HashSet::new();
    addresses
        .into_iter()
        .map(Resource::Address)
        .chain(ports.map(Resource::NodePort))
        .filter(|resource| seen.insert(*resource))
        .collect()
}

/// What a client may leave out of an update without losing it (upstream's patchAllocatedValues), and what
/// goes with a change of type.
fn keep_allocated(service: &mut Value, old: &Value) {
    let old = &old["spec"];
    let spec = &mut service["spec"];
    let had_address = service_type(old) != "ExternalName";
    if service_type(spec) != "ExternalName" && had_address {
        if is_missing(&spec["clusterIP"]) && is_missing(&spec["clusterIPs"]) {
            copy(spec, old, "clusterIP");
            copy(spec, old, "clusterIPs");
        }
        for field in ["ipFamilies", "ipFamilyPolicy"] {
            if is_missing(&spec[field]) {
                copy(spec, old, field);
            }
        }
    }
    if service_type(spec) == "ExternalName" && had_address {
        families::clear(spec, Some(old));
    }
    ports::keep_allocated(spec, old);
}

fn is_missing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        _ => false,
    }
}

fn copy(spec: &mut Value, old: &Value, field: &str) {
    if let (Some(fields), Some(value)) = (spec.as_object_mut(), old.get(field)) {
        fields.insert(field.to_owned(), value.clone());
    }
}

fn remove(spec: &mut Value, field: &str) {
    if let Some(fields) = spec.as_object_mut() {
        fields.remove(field);
    }
}

#[cfg(test)]
mod tests;
