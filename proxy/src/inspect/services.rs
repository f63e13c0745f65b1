//! `sluice service list`.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::Serialize;
use sluice_common::{frontend_flags as flags, millis_from_ticks};

use super::{led_to, name_of, names, table};
use crate::maps::{Frontend, FrontendKey, MapError, Observe, Tables};

/// A frontend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceRow {
    /// `namespace/name:port/protocol/family`.
    pub service: String,
    /// Address and port that clients send to.
    pub frontend: SocketAddr,
    /// Protocol.
    pub protocol: String,
    /// Cluster IP, node port, ...
    pub kind: &'static str,
    /// What else holds for it.
    pub options: Vec<&'static str>,
    /// How long ClientIP affinity lasts; 0: there is none.
    pub affinity_seconds: u64,
    /// Backends for traffic from the cluster.
    pub internal: Vec<SocketAddr>,
    /// Backends for traffic from outside.
    pub external: Vec<SocketAddr>,
    /// New flows and connections, of all of the service's frontends.
    pub connections: u64,
    /// Translated packets, of all of the service's frontends.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Refused or dropped.
    pub refused: u64,
}

/// All frontends, by service.
///
/// # Errors
/// When a map cannot be read.
pub fn list(maps: &(impl Tables + Observe)) -> Result<Vec<ServiceRow>, MapError> {
    let names = names(maps)?;
    let backends = maps.backends()?.into_iter();
    let backends: BTreeMap<u32, SocketAddr> = backends
        .map(|(id, backend)| {
            (
                id,
                SocketAddr::new(backend.addr.to_ip(), backend.port.get()),
            )
        })
        .collect();
    let frontends = maps.frontends()?.into_iter();
    let mut frontends: Vec<_> = frontends
        .filter(|(_, value)| value.flags & flags::ADDRESS == 0)
        .collect();
    frontends.sort_unstable_by_key(|(key, _)| *key);
    let row = |(key, value)| row(maps, &names, &backends, key, &value);
    let mut rows = frontends
        .into_iter()
        .map(row)
        .collect::<Result<Vec<_>, _>>()?;
    rows.sort_by(|a, b| a.service.cmp(&b.service));
    Ok(rows)
}

fn row(
    maps: &(impl Tables + Observe),
    names: &BTreeMap<u32, String>,
    backends: &BTreeMap<u32, SocketAddr>,
    key: FrontendKey,
    value: &Frontend,
) -> Result<ServiceRow, MapError> {
    let (internal, external) = led_to(maps, value)?;
    let counter = maps.service_counter(value.service_id)?;
    let places = |ids: Vec<u32>| {
        ids.iter()
            .filter_map(|id| backends.get(id).copied())
            .collect()
    };
    Ok(ServiceRow {
        service: name_of(names, value.service_id),
        frontend: SocketAddr::new(key.addr, key.port),
        protocol: key.protocol.to_string(),
        kind: kind(value.flags),
        options: options(value.flags),
        affinity_seconds: millis_from_ticks(value.affinity) / 1000,
        internal: places(internal),
        external: places(external),
        connections: counter.connections,
        packets: counter.packets,
        bytes: counter.bytes,
        refused: counter.refused,
    })
}

const fn kind(bits: u32) -> &'static str {
    match bits {
        bits if bits & flags::CLUSTER_IP != 0 => "ClusterIP",
        bits if bits & flags::NODE_PORT != 0 => "NodePort",
        bits if bits & flags::EXTERNAL_IP != 0 => "ExternalIP",
        bits if bits & flags::HOST_PORT != 0 => "HostPort",
        _ => "unknown",
    }
}

fn options(bits: u32) -> Vec<&'static str> {
    let all = [
        (flags::EXTERNAL_LOCAL, "external-local"),
        (flags::HOST_ONLY, "host-only"),
        (flags::SOURCE_RANGES, "source-ranges"),
        (flags::INTERNAL_DROP, "internal-drop"),
        (flags::EXTERNAL_DROP, "external-drop"),
    ];
    all.into_iter()
        .filter(|(bit, _)| bits & bit != 0)
        .map(|(_, name)| name)
        .collect()
}

/// Frontends as a table.
pub fn render(rows: &[ServiceRow]) -> String {
    let head = [
        "SERVICE",
        "FRONTEND",
        "KIND",
        "BACKENDS",
        "OUTSIDE",
        "AFFINITY",
        "CONNECTIONS",
        "PACKETS",
        "BYTES",
        "REFUSED",
        "OPTIONS",
    ];
    let external = |row: &ServiceRow| {
        matches!(row.kind, "NodePort" | "ExternalIP" | "HostPort")
            && !row.options.contains(&"host-only")
    };
    let cells = |row: &ServiceRow| {
        vec![
            row.service.clone(),
            format!("{}/{}", row.frontend, row.protocol),
            row.kind.to_owned(),
            row.internal.len().to_string(),
            if external(row) {
                row.external.len().to_string()
            } else {
                "-".to_owned()
            },
            if row.affinity_seconds > 0 {
                format!("{}s", row.affinity_seconds)
            } else {
                "-".to_owned()
            },
            row.connections.to_string(),
            row.packets.to_string(),
            row.bytes.to_string(),
            row.refused.to_string(),
            row.options.join(","),
        ]
    };
    table::render(&head, &rows.iter().map(cells).collect::<Vec<_>>())
}
