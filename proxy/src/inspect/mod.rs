//! What the dataplane holds, read straight from the pinned maps: it needs no agent and asks nobody.

use std::collections::BTreeMap;

use crate::maps::{Frontend, MapError, Pool, Range, Tables};

pub mod backends;
pub mod cli;
pub mod drops;
pub mod flows;
pub mod services;
mod table;

/// Names of services by id; a service without one is shown by its number.
fn names(tables: &impl Tables) -> Result<BTreeMap<u32, String>, MapError> {
    Ok(tables.names()?.into_iter().collect())
}

fn name_of(names: &BTreeMap<u32, String>, id: u32) -> String {
    names.get(&id).cloned().unwrap_or_else(|| format!("#{id}"))
}

/// The different backends of a range. A list that moves while it is read may name some twice or miss
/// some: it is a look, not a lock.
fn distinct(tables: &impl Tables, pool: Pool, range: Range) -> Result<Vec<u32>, MapError> {
    let mut ids = if range.len == 0 {
        Vec::new()
    } else {
        tables.read_range(pool, range)?
    };
    ids.sort_unstable();
    ids.dedup();
    Ok(ids)
}

/// Backends that a frontend leads to: for traffic from inside, and from outside.
fn led_to(tables: &impl Tables, frontend: &Frontend) -> Result<(Vec<u32>, Vec<u32>), MapError> {
    Ok((
        distinct(tables, Pool::Slots, frontend.internal)?,
        distinct(tables, Pool::Maglev, frontend.external)?,
    ))
}

#[cfg(test)]
mod tests;
