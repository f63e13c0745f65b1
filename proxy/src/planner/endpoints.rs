//! The endpoints of one port of one Service: its slices joined, duplicates merged.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::{Endpoint, EndpointSlice, Family};
use crate::maps::Protocol;

/// Endpoints by address and port on the endpoint.
pub(super) type Endpoints<'a> = BTreeMap<(IpAddr, u16), Merged<'a>>;

/// An endpoint that one or more slices name.
#[derive(Clone, Copy, Debug)]
pub struct Merged<'a> {
    /// The entry that counts.
    pub endpoint: &'a Endpoint,
    /// On this node, by any of the slices.
    pub local: bool,
}

/// All endpoints with a port of this name and protocol. A port with another name is no match, even if
/// its number is the same (kube-proxy's rule).
pub(super) fn join<'a>(
    slices: impl Iterator<Item = &'a EndpointSlice>,
    family: Family,
    port_name: &str,
    protocol: Protocol,
) -> Endpoints<'a> {
    let mut found = Endpoints::new();
    for slice in slices.filter(|slice| slice.family == family) {
        let named =
            |port: &&super::SlicePort| *port.name == *port_name && port.protocol == protocol;
        for port in slice.ports.iter().filter(named) {
            for endpoint in &slice.endpoints {
                let new = Merged {
                    endpoint,
                    local: endpoint.local,
                };
                found
                    .entry((endpoint.addr, port.port))
                    .and_modify(|old| *old = merge(*old, new))
                    .or_insert(new);
            }
        }
    }
    found
}

/// While a pod moves from one slice to another, both name it and may disagree. The better state wins,
/// whatever the slices' order; being local wins as kube-proxy has it.
fn merge<'a>(a: Merged<'a>, b: Merged<'a>) -> Merged<'a> {
    let rank = |e: &'a Endpoint| {
        (
            e.ready,
            e.serving,
            !e.terminating,
            e.local,
            e.node_hint,
            e.zone_hints.as_deref(),
        )
    };
    let endpoint = if rank(a.endpoint) >= rank(b.endpoint) {
        a.endpoint
    } else {
        b.endpoint
    };
    Merged {
        endpoint,
        local: a.local || b.local,
    }
}
