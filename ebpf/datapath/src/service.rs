//! Choosing a backend.

use sluice_common::{
    AffinityKey, AffinityValue, Backend, DropReason, Frontend, Range, Tuple, backend_flags,
    frontend_flags,
};

use crate::address::{Address, mix};
use crate::tables::Services;

/// A backend and its id.
#[derive(Clone, Copy, Debug)]
pub struct Chosen<'t> {
    /// Its id.
    pub id: u32,
    /// What it is.
    pub backend: &'t Backend,
}

/// A backend for traffic from outside: the client's affine one, else by consistent hashing, so that
/// any node of the cluster picks the same.
#[inline(always)]
pub fn choose_external<'t, A: Address, T: Services>(
    tables: &'t T,
    frontend: &Frontend,
    tuple: &Tuple<A>,
) -> Result<Chosen<'t>, DropReason> {
    let range = frontend.external;
    if range.len == 0 {
        return Err(nothing(frontend, frontend_flags::EXTERNAL_DROP));
    }
    let client = AffinityKey::address(tuple.src.to_v6(), frontend.service_id);
    if frontend.affinity != 0
        && let Some(kept) = kept(tables, frontend, &client, backend_flags::EXTERNAL)
    {
        return Ok(kept);
    }
    let chosen = fetch(tables, tables.maglev(pick(range, flow_hash(tuple))))?;
    if frontend.affinity != 0 {
        keep(tables, &client, chosen.id);
    }
    Ok(chosen)
}

/// A backend for traffic from the cluster itself: the client's affine one, else a random one. `netns`
/// gives the cookie of the client's network namespace.
#[inline(always)]
pub fn choose_internal<'t, T: Services>(
    tables: &'t T,
    frontend: &Frontend,
    netns: impl FnOnce() -> u64,
) -> Result<Chosen<'t>, DropReason> {
    let range = frontend.internal;
    if range.len == 0 {
        return Err(nothing(frontend, frontend_flags::INTERNAL_DROP));
    }
    if frontend.affinity == 0 {
        return fetch(tables, tables.slot(pick(range, tables.random())));
    }
    let client = AffinityKey::namespace(netns(), frontend.service_id);
    if let Some(kept) = kept(tables, frontend, &client, backend_flags::INTERNAL) {
        return Ok(kept);
    }
    let chosen = fetch(tables, tables.slot(pick(range, tables.random())))?;
    keep(tables, &client, chosen.id);
    Ok(chosen)
}

/// Whether the backend (still) is one of the service's for this kind of traffic.
#[inline(always)]
pub const fn is_eligible(backend: &Backend, service_id: u32, flag: u16) -> bool {
    backend.service_id == service_id && backend.flags & flag != 0
}

#[inline(always)]
const fn nothing(frontend: &Frontend, drop_flag: u32) -> DropReason {
    if frontend.flags & frontend_flags::ADDRESS != 0 {
        return DropReason::NoSuchPort;
    }
    if frontend.flags & drop_flag != 0 {
        DropReason::NoLocalEndpoints
    } else {
        DropReason::NoEndpoints
    }
}

/// An index of the range, evenly by `random` (a multiplication instead of a remainder).
#[inline(always)]
const fn pick(range: Range, random: u32) -> u32 {
    range
        .offset
        .wrapping_add(((random as u64 * range.len as u64) >> 32) as u32)
}

/// The same on every node: the destination address, which differs between node ports, is left out.
#[inline(always)]
fn flow_hash<A: Address>(tuple: &Tuple<A>) -> u32 {
    let ports = (tuple.sport.0 as u64) << 32 | (tuple.dport.0 as u64) << 16 | tuple.protocol as u64;
    (tuple.src.hash(mix(ports)) >> 32) as u32
}

#[inline(always)]
fn fetch<T: Services>(tables: &T, id: Option<u32>) -> Result<Chosen<'_>, DropReason> {
    let id = id.ok_or(DropReason::StaleBackend)?;
    match tables.backend(id) {
        Some(backend) if backend.service_id != 0 => Ok(Chosen { id, backend }),
        _ => Err(DropReason::StaleBackend),
    }
}

#[inline(always)]
fn kept<'t, T: Services>(
    tables: &'t T,
    frontend: &Frontend,
    client: &AffinityKey,
    flag: u16,
) -> Option<Chosen<'t>> {
    let value = tables.affinity(client)?;
    if tables.now().wrapping_sub(value.last_seen) > frontend.affinity {
        return None;
    }
    let (id, backend) = (value.backend_id, tables.backend(value.backend_id)?);
    if !is_eligible(backend, frontend.service_id, flag) {
        return None;
    }
    keep(tables, client, id);
    Some(Chosen { id, backend })
}

#[inline(always)]
fn keep<T: Services>(tables: &T, client: &AffinityKey, backend_id: u32) {
    tables.put_affinity(
        client,
        &AffinityValue {
            backend_id,
            last_seen: tables.now(),
        },
    );
}
