//! The pure allocator: pools and owners in memory, no clock, no disk. Every change can be undone
//! exactly, newest first, which is what lets the durable allocator answer "the disk is full" with
//! nothing changed.

mod restore;
#[cfg(test)]
mod tests;

pub(super) use restore::Contradiction;

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use thiserror::Error;

use super::blocks::{Blocks, Slot};
use super::owner::Key;
use super::owners::{Owners, Slots};
use super::pool::{Freed, MAX_POOLS, Pool, PoolUsage, rested};

/// Why an address was not assigned. Nothing was changed.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Refusal {
    /// There is no pool to take from. Retryable: a node gets its pools when it is registered.
    #[error("no address pool is configured")]
    NoPool,
    /// Every address of the family is held, or rests. Retryable.
    #[error("no {family} address is free in {pools}: {used} used, {cooling} cooling down")]
    Exhausted {
        /// "IPv4" or "IPv6".
        family: &'static str,
        /// The pools that were tried.
        pools: String,
        /// Addresses held by owners.
        used: u64,
        /// Addresses that were freed less than a cool-down ago.
        cooling: u64,
    },
    /// A requested address is in no active pool.
    #[error("address {0} is in none of the active pools")]
    NotInPool(IpAddr),
    /// A requested address is held by another owner, or reserved, or cooling down.
    #[error("address {address} is {why}")]
    Unavailable {
        /// The address.
        address: IpAddr,
        /// "in use", "reserved" or "cooling down".
        why: &'static str,
    },
    /// More than one address of a family was requested.
    #[error("more than one {0} address was requested")]
    TooMany(&'static str),
    /// The owner holds other addresses than the requested ones.
    #[error("the owner already holds {0}")]
    Holds(IpAddr),
    /// 65,536 pools exist.
    #[error("more than {MAX_POOLS} pools")]
    TooManyPools,
    /// 2^32 addresses of this node were touched.
    #[error("more addresses were used than one allocator can tell apart")]
    TooManyAddresses,
}

/// Where a taken address came from, so that it can be put back.
#[derive(Clone, Copy, Debug)]
enum Origin {
    Fresh { cursor: u64 },
    Freed { position: usize, at: u32 },
}

#[derive(Clone, Copy, Debug)]
struct Taken {
    slot: Slot,
    origin: Origin,
}

/// What undoes one change.
#[derive(Debug)]
pub struct Undo(Change);

#[derive(Debug)]
enum Change {
    Assign { key: Key, taken: [Option<Taken>; 2] },
    Release { key: Key, slots: Slots },
    Pools { active: Vec<bool> },
}

/// An address as the disk knows it: a pool's number and the offset in it.
pub(super) type Place = (u16, u64);

/// All pools and owners. See the module's documentation.
#[derive(Debug, Default)]
pub struct State {
    pools: Vec<Pool>,
    blocks: Blocks,
    owners: Owners,
    reserved: Vec<IpNetwork>,
    /// Seconds.
    cool_down: u32,
}

const FAMILIES: [&str; 2] = ["IPv4", "IPv6"];

impl State {
    /// No pools. `reserved` is never handed out; a freed address rests for `cool_down` seconds.
    pub fn new(reserved: Vec<IpNetwork>, cool_down: u32) -> Self {
        Self {
            reserved,
            cool_down,
            ..Self::default()
        }
    }

    /// Makes exactly `cidrs` the active pools, in this order of preference within a family as far as
    /// they are new. Host bits are ignored. Returns `None` where that changes nothing.
    pub fn set_pools(&mut self, cidrs: &[IpNetwork]) -> Result<Option<Undo>, Refusal> {
        let wanted: Vec<IpNetwork> = cidrs.iter().map(truncate).collect();
        let known = |cidr: &IpNetwork| self.pools.iter().any(|pool| pool.cidr == *cidr);
        let new: Vec<IpNetwork> = wanted.iter().filter(|c| !known(c)).copied().collect();
        if self.pools.len() + new.len() > MAX_POOLS {
            return Err(Refusal::TooManyPools);
        }
        let active: Vec<bool> = self.pools.iter().map(|pool| pool.active).collect();
        for pool in &mut self.pools {
            pool.active = wanted.contains(&pool.cidr);
        }
        let changed =
            !new.is_empty() || self.pools.iter().zip(&active).any(|(p, a)| p.active != *a);
        for cidr in new {
            // A CIDR that is named twice is one pool.
            if self.pools.iter().all(|pool| pool.cidr != cidr) {
                self.pools.push(Pool::new(cidr, &self.reserved));
            }
        }
        Ok(changed.then_some(Undo(Change::Pools { active })))
    }

    /// CIDR and whether it is active, by number.
    pub(super) fn pools(&self) -> impl Iterator<Item = (IpNetwork, bool)> + '_ {
        self.pools.iter().map(|pool| (pool.cidr, pool.active))
    }

    /// Assigns one address of each family that has an active pool, or exactly `fixed`. `now` is in
    /// seconds since the Unix epoch and must not go backwards. An owner that has addresses keeps
    /// them: `None` says that nothing was changed.
    pub fn assign(
        &mut self,
        key: Key,
        fixed: &[IpAddr],
        now: u32,
    ) -> Result<Option<Undo>, Refusal> {
        if let Some(slots) = self.owners.get(key) {
            return self.check_held(slots, fixed).map(|()| None);
        }
        let mut taken = [None, None];
        for family in 0..2 {
            match self.take_family(family, fixed, now) {
                Ok(address) => taken[family] = address,
                Err(refusal) => {
                    self.put_back(taken);
                    return Err(refusal);
                }
            }
        }
        if taken.iter().all(Option::is_none) {
            return Err(Refusal::NoPool);
        }
        let slots = taken.map(|taken| taken.map_or(Slot::NONE, |taken: Taken| taken.slot));
        self.owners.insert(key, slots);
        Ok(Some(Undo(Change::Assign { key, taken })))
    }

    fn check_held(&self, slots: Slots, fixed: &[IpAddr]) -> Result<(), Refusal> {
        let held = self.addresses(slots);
        match held.first() {
            Some(&first) if !fixed.iter().all(|address| held.contains(address)) => {
                Err(Refusal::Holds(first))
            }
            _ => Ok(()),
        }
    }

    fn take_family(
        &mut self,
        family: usize,
        fixed: &[IpAddr],
        now: u32,
    ) -> Result<Option<Taken>, Refusal> {
        if fixed.is_empty() {
            return self.take_any(family, now);
        }
        let mut wanted = fixed.iter().filter(|a| usize::from(a.is_ipv6()) == family);
        match (wanted.next(), wanted.next()) {
            (None, _) => Ok(None),
            (Some(&address), None) => self.take_fixed(address, now).map(Some),
            (Some(_), Some(_)) => Err(Refusal::TooMany(FAMILIES[family])),
        }
    }

    fn take_any(&mut self, family: usize, now: u32) -> Result<Option<Taken>, Refusal> {
        let mut tried = false;
        for number in 0..self.pools.len() {
            let pool = &self.pools[number];
            if !pool.active || pool.family() != family {
                continue;
            }
            tried = true;
            if let Some(taken) = self.take_from(number, now)? {
                return Ok(Some(taken));
            }
        }
        match tried {
            true => Err(self.exhausted(family, now)),
            false => Ok(None),
        }
    }

    fn take_from(&mut self, number: usize, now: u32) -> Result<Option<Taken>, Refusal> {
        if self.pools[number].prefers_recycling()
            && let Some(taken) = self.take_freed(number, now)
        {
            return Ok(Some(taken));
        }
        match self.take_fresh(number)? {
            Some(taken) => Ok(Some(taken)),
            None => Ok(self.take_freed(number, now)),
        }
    }

    fn take_fresh(&mut self, number: usize) -> Result<Option<Taken>, Refusal> {
        let Some(offset) = self.next_fresh(number) else {
            return Ok(None);
        };
        let slot = self
            .blocks
            .slot(number as u16, offset)
            .ok_or(Refusal::TooManyAddresses)?;
        let pool = &mut self.pools[number];
        let origin = Origin::Fresh {
            cursor: pool.cursor,
        };
        pool.cursor = offset;
        self.occupy(slot);
        Ok(Some(Taken { slot, origin }))
    }

    fn next_fresh(&self, number: usize) -> Option<u64> {
        let pool = &self.pools[number];
        let mut from = pool.cursor;
        loop {
            let offset = self
                .blocks
                .next_untouched(number as u16, pool.skip_reserved(from)?)?;
            if !pool.is_reserved(offset) {
                return (offset <= pool.last()).then_some(offset);
            }
            from = offset;
        }
    }

    fn take_freed(&mut self, number: usize, now: u32) -> Option<Taken> {
        let pool = &self.pools[number];
        let oldest = |freed: &&Freed| !pool.is_reserved(self.blocks.place(freed.slot).1);
        let position = pool.freed.iter().position(|freed| oldest(&freed))?;
        let freed = pool.freed[position];
        rested(freed.at, now, self.cool_down).then(|| self.take_at(number, position, freed))
    }

    fn take_at(&mut self, number: usize, position: usize, freed: Freed) -> Taken {
        self.pools[number].freed.remove(position);
        self.occupy(freed.slot);
        let origin = Origin::Freed {
            position,
            at: freed.at,
        };
        Taken {
            slot: freed.slot,
            origin,
        }
    }

    fn take_fixed(&mut self, address: IpAddr, now: u32) -> Result<Taken, Refusal> {
        let refuse = |why| Err(Refusal::Unavailable { address, why });
        let (number, offset) = self.find(address).ok_or(Refusal::NotInPool(address))?;
        let slot = self
            .blocks
            .slot(number as u16, offset)
            .ok_or(Refusal::TooManyAddresses)?;
        let pool = &self.pools[number];
        if pool.is_reserved(offset) {
            return refuse("reserved");
        }
        if self.blocks.is_used(slot) {
            return refuse("in use");
        }
        let position = match self.blocks.is_touched(slot) {
            true => pool.freed.iter().position(|freed| freed.slot == slot),
            false => None,
        };
        let Some(position) = position else {
            let origin = Origin::Fresh {
                cursor: pool.cursor,
            };
            self.occupy(slot);
            return Ok(Taken { slot, origin });
        };
        let freed = pool.freed[position];
        match rested(freed.at, now, self.cool_down) {
            true => Ok(self.take_at(number, position, freed)),
            false => refuse("cooling down"),
        }
    }

    /// The active pool that holds an address.
    fn find(&self, address: IpAddr) -> Option<(usize, u64)> {
        let pools = self
            .pools
            .iter()
            .enumerate()
            .filter(|(_, pool)| pool.active);
        pools
            .filter_map(|(number, pool)| Some((number, pool.offset(address)?)))
            .next()
    }

    fn occupy(&mut self, slot: Slot) {
        debug_assert!(!self.blocks.is_used(slot), "handed out twice");
        self.blocks.set_used(slot, true);
        self.blocks.set_touched(slot, true);
        let pool = self.blocks.place(slot).0;
        self.pools[usize::from(pool)].used += 1;
    }

    fn vacate(&mut self, slot: Slot) -> usize {
        debug_assert!(self.blocks.is_used(slot), "freed twice");
        self.blocks.set_used(slot, false);
        let pool = usize::from(self.blocks.place(slot).0);
        self.pools[pool].used -= 1;
        pool
    }

    fn put_back(&mut self, taken: [Option<Taken>; 2]) {
        for Taken { slot, origin } in taken.into_iter().flatten().rev() {
            let number = self.vacate(slot);
            match origin {
                Origin::Fresh { cursor } => {
                    self.blocks.set_touched(slot, false);
                    self.pools[number].cursor = cursor;
                }
                Origin::Freed { position, at } => {
                    self.pools[number]
                        .freed
                        .insert(position, Freed { slot, at });
                }
            }
        }
    }

    /// Frees what an owner holds; `None` where it holds nothing.
    pub fn release(&mut self, key: Key, now: u32) -> Option<Undo> {
        let slots = self.owners.remove(key)?;
        for slot in present(slots) {
            let number = self.vacate(slot);
            self.pools[number].freed.push_back(Freed { slot, at: now });
        }
        Some(Undo(Change::Release { key, slots }))
    }

    /// Takes a change back. Changes must be undone newest first.
    pub fn undo(&mut self, undo: Undo) {
        match undo.0 {
            Change::Assign { key, taken } => {
                self.owners.remove(key);
                self.put_back(taken);
            }
            Change::Release { key, slots } => {
                for slot in present(slots).rev() {
                    let number = usize::from(self.blocks.place(slot).0);
                    self.pools[number].freed.pop_back();
                    self.occupy(slot);
                }
                self.owners.insert(key, slots);
            }
            Change::Pools { active } => {
                self.pools.truncate(active.len());
                for (pool, active) in self.pools.iter_mut().zip(active) {
                    pool.active = active;
                }
            }
        }
    }

    /// What an owner holds, IPv4 first; empty where it holds nothing.
    pub fn lookup(&self, key: Key) -> Vec<IpAddr> {
        self.owners
            .get(key)
            .map_or_else(Vec::new, |slots| self.addresses(slots))
    }

    fn addresses(&self, slots: Slots) -> Vec<IpAddr> {
        present(slots)
            .map(|slot| self.address(self.blocks.place(slot)))
            .collect()
    }

    /// The address at a place on disk.
    pub(super) fn address(&self, place: Place) -> IpAddr {
        self.pools[usize::from(place.0)].address(place.1)
    }

    pub(super) fn places(&self, key: Key) -> impl Iterator<Item = Place> + '_ {
        let slots = self.owners.get(key).unwrap_or([Slot::NONE; 2]);
        present(slots).map(|slot| self.blocks.place(slot))
    }

    /// Every freed address that waits, the oldest of each pool first.
    pub(super) fn freed(&self) -> impl Iterator<Item = (Place, u32)> + '_ {
        let all = self.pools.iter().flat_map(|pool| &pool.freed);
        all.map(|freed| (self.blocks.place(freed.slot), freed.at))
    }

    /// Every owner and what it holds.
    pub fn owners(&self) -> impl Iterator<Item = (Key, Vec<IpAddr>)> + '_ {
        self.owners
            .iter()
            .map(|(key, slots)| (key, self.addresses(slots)))
    }

    /// The number of owners.
    pub fn owner_count(&self) -> usize {
        self.owners.len()
    }

    /// How full each pool is.
    pub fn usage(&self, now: u32) -> Vec<PoolUsage> {
        let pools = self.pools.iter();
        pools.map(|pool| pool.usage(now, self.cool_down)).collect()
    }

    /// Whether an address has an owner.
    pub fn is_used(&self, address: IpAddr) -> bool {
        let mut pools = self.pools.iter().enumerate();
        pools.any(|(number, pool)| {
            let slot = pool
                .offset(address)
                .and_then(|offset| self.blocks.existing_slot(number as u16, offset));
            slot.is_some_and(|slot| self.blocks.is_used(slot))
        })
    }

    /// Bytes held on the heap, without those of waiting freed addresses.
    pub fn memory(&self) -> usize {
        self.blocks.memory() + self.owners.memory()
    }

    fn exhausted(&self, family: usize, now: u32) -> Refusal {
        let usages = self.usage(now);
        let full = usages
            .iter()
            .filter(|u| u.active && usize::from(u.cidr.is_ipv6()) == family);
        let cidrs: Vec<String> = full.clone().map(|usage| usage.cidr.to_string()).collect();
        Refusal::Exhausted {
            family: FAMILIES[family],
            pools: cidrs.join(", "),
            used: full.clone().map(|usage| usage.used).sum(),
            cooling: full.map(|usage| usage.cooling).sum(),
        }
    }
}

fn present(slots: Slots) -> impl DoubleEndedIterator<Item = Slot> {
    slots.into_iter().filter(|slot| *slot != Slot::NONE)
}

fn truncate(cidr: &IpNetwork) -> IpNetwork {
    IpNetwork::new(cidr.network(), cidr.prefix()).unwrap_or(*cidr)
}
