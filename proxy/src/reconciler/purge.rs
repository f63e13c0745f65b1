//! Flows of UDP backends that are gone.
//!
//! A UDP client that keeps its port would go on sending to a backend that no longer exists, since a
//! known flow is not balanced again. kube-proxy deletes the conntrack entries of such endpoints; this
//! deletes the flow table's. Affinity needs no purge: programs honour it only while the backend is
//! eligible.

use std::collections::HashMap;
use std::net::IpAddr;

use sluice_common::{Flow, flow_flags, proto};

use crate::maps::{FlowEntry, MapError, Observe};

/// A backend that left its service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GoneBackend {
    /// Its id, which rests for a while before another one gets it.
    pub id: u32,
    /// Its address.
    pub addr: IpAddr,
    /// Its port.
    pub port: u16,
}

/// Deletes the UDP flows of these backends, both directions. Reads the whole flow table once.
/// Returns how many entries went.
///
/// # Errors
/// When the table cannot be read, or an entry not deleted.
pub fn purge(flows: &(impl Observe + ?Sized), gone: &[GoneBackend]) -> Result<usize, MapError> {
    if gone.is_empty() {
        return Ok(0);
    }
    let by_id: HashMap<u32, &GoneBackend> =
        gone.iter().map(|backend| (backend.id, backend)).collect();
    let is_gone = |entry: &FlowEntry| {
        let backend = by_id.get(&entry.flow.backend_id);
        backend.is_some_and(|backend| leads_to(entry, backend))
    };
    let udp = |entry: &FlowEntry| entry.key.protocol == u32::from(proto::UDP);
    let entries: Vec<_> = flows
        .flows()?
        .into_iter()
        .filter(|entry| udp(entry) && is_gone(entry))
        .collect();
    entries
        .iter()
        .try_for_each(|entry| flows.delete_flow(&entry.key))?;
    Ok(entries.len())
}

/// The id alone could already be another backend's.
fn leads_to(entry: &FlowEntry, backend: &GoneBackend) -> bool {
    let Flow {
        dst, dport, flags, ..
    } = entry.flow;
    let place = if flags & flow_flags::REVERSE == 0 {
        (dst, dport.get())
    } else {
        (entry.key.src, entry.key.sport.get())
    };
    place == (backend.addr, backend.port)
}
