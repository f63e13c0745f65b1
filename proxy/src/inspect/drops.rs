//! `sluice drops`.

use serde::Serialize;

use super::table;
use crate::maps::{MapError, Observe};

/// What was dropped or refused for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DropRow {
    /// The reason.
    pub reason: &'static str,
    /// Packets and system calls.
    pub packets: u64,
    /// Bytes of the packets.
    pub bytes: u64,
}

/// All reasons.
///
/// # Errors
/// When the map cannot be read.
pub fn list(maps: &impl Observe) -> Result<Vec<DropRow>, MapError> {
    let row = |(reason, counter): (crate::maps::DropReason, crate::maps::Counter)| DropRow {
        reason: reason.label(),
        packets: counter.packets,
        bytes: counter.bytes,
    };
    Ok(maps.drops()?.into_iter().map(row).collect())
}

/// Reasons as a table.
pub fn render(rows: &[DropRow]) -> String {
    let cells = |row: &DropRow| {
        vec![
            row.reason.to_owned(),
            row.packets.to_string(),
            row.bytes.to_string(),
        ]
    };
    table::render(
        &["REASON", "PACKETS", "BYTES"],
        &rows.iter().map(cells).collect::<Vec<_>>(),
    )
}
