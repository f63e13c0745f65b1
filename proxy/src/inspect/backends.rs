//! `sluice backend list`.

use std::net::SocketAddr;

use serde::Serialize;
use sluice_common::backend_flags as flags;

use super::{name_of, names, table};
use crate::maps::{Backend, MapError, Observe, Tables};

/// A backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BackendRow {
    /// Its id.
    pub id: u32,
    /// The service it belongs to.
    pub service: String,
    /// Where it is.
    pub address: SocketAddr,
    /// On this node.
    pub local: bool,
    /// Takes traffic from the cluster.
    pub internal: bool,
    /// Takes traffic from outside.
    pub external: bool,
    /// New flows and connections.
    pub connections: u64,
    /// Translated packets.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// All backends, by service; only those of services whose name contains `service`, when given.
///
/// # Errors
/// When a map cannot be read.
pub fn list(
    maps: &(impl Tables + Observe),
    service: Option<&str>,
) -> Result<Vec<BackendRow>, MapError> {
    let names = names(maps)?;
    let mut rows = Vec::new();
    for (id, backend) in maps.backends()? {
        let name = name_of(&names, backend.service_id);
        if service.is_none_or(|wanted| name.contains(wanted)) {
            rows.push(row(maps, id, &backend, name)?);
        }
    }
    rows.sort_by(|a, b| (&a.service, a.address).cmp(&(&b.service, b.address)));
    Ok(rows)
}

fn row(
    maps: &impl Observe,
    id: u32,
    backend: &Backend,
    service: String,
) -> Result<BackendRow, MapError> {
    let counter = maps.backend_counter(id)?;
    Ok(BackendRow {
        id,
        service,
        address: SocketAddr::new(backend.addr.to_ip(), backend.port.get()),
        local: backend.flags & flags::LOCAL != 0,
        internal: backend.flags & flags::INTERNAL != 0,
        external: backend.flags & flags::EXTERNAL != 0,
        connections: counter.connections,
        packets: counter.packets,
        bytes: counter.bytes,
    })
}

/// Backends as a table.
pub fn render(rows: &[BackendRow]) -> String {
    let head = [
        "ID",
        "SERVICE",
        "ADDRESS",
        "NODE",
        "TAKES",
        "CONNECTIONS",
        "PACKETS",
        "BYTES",
    ];
    let cells = |row: &BackendRow| {
        vec![
            row.id.to_string(),
            row.service.clone(),
            row.address.to_string(),
            if row.local { "this" } else { "other" }.to_owned(),
            takes(row).to_owned(),
            row.connections.to_string(),
            row.packets.to_string(),
            row.bytes.to_string(),
        ]
    };
    table::render(&head, &rows.iter().map(cells).collect::<Vec<_>>())
}

const fn takes(row: &BackendRow) -> &'static str {
    match (row.internal, row.external) {
        (true, true) => "all",
        (true, false) => "inside",
        (false, true) => "outside",
        (false, false) => "nothing",
    }
}
