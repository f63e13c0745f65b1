//! `sluice flow list`.

use std::net::{IpAddr, SocketAddr};

use serde::Serialize;
use sluice_common::{Ticks, Tuple, flow_flags as flags, millis_from_ticks, proto};

use super::{name_of, names, table};
use crate::maps::{FlowEntry, MapError, Observe, Tables};

/// One direction of a translated flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FlowRow {
    /// Protocol.
    pub protocol: String,
    /// Source of packets as they arrive.
    pub source: SocketAddr,
    /// Their destination.
    pub destination: SocketAddr,
    /// Source of packets as they leave.
    pub new_source: SocketAddr,
    /// Their destination.
    pub new_destination: SocketAddr,
    /// `forward`, `reply`, or `masquerade` and its `masquerade-reply`.
    pub direction: &'static str,
    /// `new`, `established` or `closing`.
    pub state: &'static str,
    /// The service; empty for masqueraded flows.
    pub service: String,
    /// The backend's id; 0 for masqueraded flows.
    pub backend: u32,
    /// Seconds since the first packet.
    pub age_seconds: u64,
    /// Seconds since the last packet of this direction.
    pub idle_seconds: u64,
}

/// All flow entries at the time `now` (ticks since boot), by arriving tuple.
///
/// # Errors
/// When a map cannot be read.
pub fn list(maps: &(impl Tables + Observe), now: Ticks) -> Result<Vec<FlowRow>, MapError> {
    let names = names(maps)?;
    let mut entries = maps.flows()?;
    entries.sort_unstable_by_key(|entry| entry.key);
    let service = |id| {
        if id == 0 {
            String::new()
        } else {
            name_of(&names, id)
        }
    };
    Ok(entries
        .iter()
        .map(|entry| row(entry, service(entry.flow.service_id), now))
        .collect())
}

fn row(entry: &FlowEntry, service: String, now: Ticks) -> FlowRow {
    let flow = &entry.flow;
    let (source, destination) = ends(&entry.key);
    let (new_source, new_destination) = ends(&flow.translated(entry.key.protocol));
    let since = |then: Ticks| millis_from_ticks(now.saturating_sub(then)) / 1000;
    FlowRow {
        protocol: protocol(entry.key.protocol),
        source,
        destination,
        new_source,
        new_destination,
        direction: direction(flow.flags),
        state: flow.state().label(),
        service,
        backend: flow.backend_id,
        age_seconds: since(flow.created),
        idle_seconds: since(flow.last_seen),
    }
}

const fn ends(tuple: &Tuple<IpAddr>) -> (SocketAddr, SocketAddr) {
    (
        SocketAddr::new(tuple.src, tuple.sport.get()),
        SocketAddr::new(tuple.dst, tuple.dport.get()),
    )
}

const fn direction(bits: u16) -> &'static str {
    match (bits & flags::MASQUERADE != 0, bits & flags::REVERSE != 0) {
        (false, false) => "forward",
        (false, true) => "reply",
        (true, false) => "masquerade",
        (true, true) => "masquerade-reply",
    }
}

fn protocol(number: u32) -> String {
    match u8::try_from(number) {
        Ok(proto::TCP) => "TCP".to_owned(),
        Ok(proto::UDP) => "UDP".to_owned(),
        Ok(proto::SCTP) => "SCTP".to_owned(),
        Ok(proto::ICMP) => "ICMP".to_owned(),
        _ => number.to_string(),
    }
}

/// Flows as a table.
pub fn render(rows: &[FlowRow]) -> String {
    let head = [
        "PROTOCOL",
        "SOURCE",
        "DESTINATION",
        "NEW SOURCE",
        "NEW DESTINATION",
        "DIRECTION",
        "STATE",
        "AGE",
        "IDLE",
        "SERVICE",
    ];
    let cells = |row: &FlowRow| {
        vec![
            row.protocol.clone(),
            row.source.to_string(),
            row.destination.to_string(),
            row.new_source.to_string(),
            row.new_destination.to_string(),
            row.direction.to_owned(),
            row.state.to_owned(),
            format!("{}s", row.age_seconds),
            format!("{}s", row.idle_seconds),
            row.service.clone(),
        ]
    };
    table::render(&head, &rows.iter().map(cells).collect::<Vec<_>>())
}
