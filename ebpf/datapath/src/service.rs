//! Choosing a backend.

use sluice_common::{
    AffinityKey, AffinityValue, Backend, DropReason, Frontend, Range, Tuple, backend_flags,
    frontend_flags,
};

use crate::address::{Address, mix};
use crate::tables::Services;

/// A backend for traffic from outside: the client's affine one, else by consistent hashing, so that
/// any node of the cluster picks the same. Gives its id and leaves it in `backend`.
#[inline(always)]
pub fn choose_external<A: Address, T: Services>(
    tables: &T,
    frontend: &Frontend,
    tuple: &Tuple<A>,
    backend: &mut Backend,
) -> Result<u32, DropReason> {
    let range = frontend.external;
    if range.len == 0 {
        return Err(nothing(frontend, frontend_flags::EXTERNAL_DROP));
    }
    if frontend.affinity == 0 {
        return fetch(
            tables,
            tables.maglev(pick(range, flow_hash(tuple))),
            backend,
        );
    }
    let client = AffinityKey::address(tuple.src.to_v6(), frontend.service_id);
    if let Some(id) = kept(tables, frontend, &client, backend_flags::EXTERNAL, backend) {
        return Ok(id);
    }
    let id = fetch(
        tables,
        tables.maglev(pick(range, flow_hash(tuple))),
        backend,
    )?;
    keep(tables, &client, id);
    Ok(id)
}

/// A backend for traffic from the cluster itself: the client's affine one, else a random one. Gives
/// its id and leaves it in `backend`.
#[inline(always)]
pub fn choose_internal<T: Services>(
    tables: &T,
    frontend: &Frontend,
    netns: impl FnOnce() -> u64,
    backend: &mut Backend,
) -> Result<u32, DropReason> {
    let range = frontend.internal;
    if range.len == 0 {
        return Err(nothing(frontend, frontend_flags::INTERNAL_DROP));
    }
    if frontend.affinity == 0 {
        return fetch(tables, tables.slot(pick(range, tables.random())), backend);
    }
    let client = AffinityKey::namespace(netns(), frontend.service_id);
    if let Some(id) = kept(tables, frontend, &client, backend_flags::INTERNAL, backend) {
        return Ok(id);
    }
    let id = fetch(tables, tables.slot(pick(range, tables.random())), backend)?;
    keep(tables, &client, id);
    Ok(id)
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
fn fetch<T: Services>(
    tables: &T,
    id: Option<u32>,
    backend: &mut Backend,
) -> Result<u32, DropReason> {
    let id = id.ok_or(DropReason::StaleBackend)?;
    let found = tables.backend(id).ok_or(DropReason::StaleBackend)?;
    if found.service_id == 0 {
        return Err(DropReason::StaleBackend);
    }
    *backend = *found;
    Ok(id)
}

#[inline(always)]
fn kept<T: Services>(
    tables: &T,
    frontend: &Frontend,
    client: &AffinityKey,
    flag: u16,
    backend: &mut Backend,
) -> Option<u32> {
    let value = tables.affinity(client)?;
    if tables.now().wrapping_sub(value.last_seen) > frontend.affinity {
        return None;
    }
    let found = tables.backend(value.backend_id)?;
    if !is_eligible(found, frontend.service_id, flag) {
        return None;
    }
    *backend = *found;
    keep(tables, client, value.backend_id);
    Some(value.backend_id)
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
