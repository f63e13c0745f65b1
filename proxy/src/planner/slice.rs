//! An EndpointSlice, as far as it matters to routing.

use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::discovery::v1 as api;

use super::problem::{Problems, read};
use super::{Family, Fault, ObjectName, Problem};
use crate::maps::Protocol;

/// Names the Service that a slice belongs to.
pub const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";
/// When the change that the slice carries was made (RFC 3339): the start of programming latency.
const TRIGGER_ANNOTATION: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// The part of an EndpointSlice that routing depends on.
#[derive(Clone, Debug)]
pub struct EndpointSlice {
    /// The Service it belongs to.
    pub service: ObjectName,
    /// Its family.
    pub family: Family,
    /// Ports that every endpoint has.
    pub ports: Box<[SlicePort]>,
    /// Endpoints.
    pub endpoints: Box<[Endpoint]>,
    /// When the change was made, in milliseconds since 1970. No part of equality.
    pub triggered_ms: Option<i64>,
}

impl PartialEq for EndpointSlice {
    fn eq(&self, other: &Self) -> bool {
        self.service == other.service
            && self.family == other.family
            && self.ports == other.ports
            && self.endpoints == other.endpoints
    }
}

/// A port of a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlicePort {
    /// Name, which the Service's port name must equal.
    pub name: Arc<str>,
    /// Protocol.
    pub protocol: Protocol,
    /// Port on the endpoints.
    pub port: u16,
}

/// One endpoint: 32 bytes, since a node holds those of the whole cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Address.
    pub addr: IpAddr,
    /// Takes new connections (absent in the API: yes).
    pub ready: bool,
    /// Would take them if it were not terminating (absent: yes).
    pub serving: bool,
    /// Its pod is being deleted.
    pub terminating: bool,
    /// On this node.
    pub local: bool,
    /// Node hints are there, and whether this node is among them.
    pub node_hint: Option<bool>,
    /// The zones it is hinted for; shared by a slice's endpoints with the same ones.
    pub zone_hints: Option<Arc<[Box<str>]>>,
}

impl Endpoint {
    /// A ready endpoint elsewhere, without hints.
    pub const fn ready(addr: IpAddr) -> Self {
        Self {
            addr,
            ready: true,
            serving: true,
            terminating: false,
            local: false,
            node_hint: None,
            zone_hints: None,
        }
    }
}

impl EndpointSlice {
    /// Reads a slice as the node `node` sees it; `None` when it belongs to no Service or its address
    /// type is none that packets can go to. What cannot be used is left out and named.
    pub fn from_api(
        name: &ObjectName,
        slice: &api::EndpointSlice,
        node: &str,
    ) -> (Option<Self>, Vec<Problem>) {
        let mut problems = Problems::new("EndpointSlice", name.clone());
        let read = read_slice(name, slice, node, &mut problems);
        (read, problems.into_vec())
    }
}

fn read_slice(
    name: &ObjectName,
    slice: &api::EndpointSlice,
    node: &str,
    problems: &mut Problems,
) -> Option<EndpointSlice> {
    let service = slice.metadata.labels.as_ref()?.get(SERVICE_NAME_LABEL)?;
    let family = problems.take("addressType", family(&slice.address_type))?;
    Some(EndpointSlice {
        service: ObjectName::new(name.namespace(), service),
        family,
        ports: ports(slice, problems),
        endpoints: endpoints(slice, family, node, problems),
        triggered_ms: triggered_ms(slice),
    })
}

fn family(address_type: &str) -> Result<Family, Fault> {
    match address_type {
        "IPv4" => Ok(Family::V4),
        "IPv6" => Ok(Family::V6),
        other => Err(Fault::AddressType(other.to_owned())),
    }
}

fn ports(slice: &api::EndpointSlice, problems: &mut Problems) -> Box<[SlicePort]> {
    let read = |(i, port): (usize, &api::EndpointPort)| {
        // A port without a number stands for all ports, which no Service can ask for.
        let number = problems.take(format!("ports[{i}].port"), read::port(port.port?));
        let protocol = problems.take(
            format!("ports[{i}].protocol"),
            read::protocol(port.protocol.as_deref()),
        );
        Some(SlicePort {
            name: port.name.as_deref().unwrap_or_default().into(),
            protocol: protocol?,
            port: number?,
        })
    };
    slice
        .ports
        .iter()
        .flatten()
        .enumerate()
        .filter_map(read)
        .collect()
}

fn endpoints(
    slice: &api::EndpointSlice,
    family: Family,
    node: &str,
    problems: &mut Problems,
) -> Box<[Endpoint]> {
    let mut zones = SharedZones::default();
    let mut found = Vec::new();
    for (i, endpoint) in slice.endpoints.iter().flatten().enumerate() {
        // Only the first address counts: the API calls the others interchangeable.
        let Some(text) = endpoint.addresses.first() else {
            continue;
        };
        let addr = problems.take(
            format!("endpoints[{i}].addresses[0]"),
            read::address_of(text, family),
        );
        found.extend(addr.map(|addr| endpoint_from_api(addr, endpoint, node, &mut zones)));
    }
    found.into()
}

fn endpoint_from_api(
    addr: IpAddr,
    endpoint: &api::Endpoint,
    node: &str,
    zones: &mut SharedZones,
) -> Endpoint {
    let conditions = endpoint.conditions.clone().unwrap_or_default();
    let hints = endpoint.hints.as_ref();
    let for_nodes = hints
        .and_then(|hints| hints.for_nodes.as_ref())
        .filter(|nodes| !nodes.is_empty());
    let for_zones = hints
        .and_then(|hints| hints.for_zones.as_ref())
        .filter(|zones| !zones.is_empty());
    Endpoint {
        addr,
        ready: conditions.ready.unwrap_or(true),
        serving: conditions.serving.unwrap_or(true),
        terminating: conditions.terminating.unwrap_or(false),
        local: endpoint.node_name.as_deref() == Some(node),
        node_hint: for_nodes.map(|nodes| nodes.iter().any(|hint| hint.name == node)),
        zone_hints: for_zones.map(|hints| zones.share(hints)),
    }
}

fn triggered_ms(slice: &api::EndpointSlice) -> Option<i64> {
    let text = slice
        .metadata
        .annotations
        .as_ref()?
        .get(TRIGGER_ANNOTATION)?;
    let time: jiff::Timestamp = text.parse().ok()?;
    Some(time.as_millisecond())
}

/// The different zone lists of one slice; a cluster has a handful of zones.
#[derive(Default)]
struct SharedZones(Vec<Arc<[Box<str>]>>);

impl SharedZones {
    fn share(&mut self, hints: &[api::ForZone]) -> Arc<[Box<str>]> {
        let same = |list: &&Arc<[Box<str>]>| {
            list.iter()
                .map(AsRef::as_ref)
                .eq(hints.iter().map(|hint| hint.name.as_str()))
        };
        if let Some(list) = self.0.iter().find(same) {
            return list.clone();
        }
        let list: Arc<[Box<str>]> = hints.iter().map(|hint| hint.name.as_str().into()).collect();
        self.0.push(list.clone());
        list
    }
}
