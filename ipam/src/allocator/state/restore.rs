//! Building a state from what was written: no rule is asked, but what cannot have happened is an error.

use ipnetwork::IpNetwork;
use thiserror::Error;

use super::super::blocks::Slot;
use super::super::owner::Key;
use super::super::pool::{Freed, Pool};
use super::{Place, State};

/// Records that contradict each other: the files were damaged or edited.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("contradiction: {0}")]
pub(in crate::allocator) struct Contradiction(pub(in super::super) &'static str);

impl State {
    /// Applies an assignment that was read from disk.
    pub(in crate::allocator) fn restore_owner(
        &mut self,
        key: Key,
        places: &[Place],
    ) -> Result<(), Contradiction> {
        if self.owners.get(key).is_some() {
            return Err(Contradiction("an owner is assigned addresses twice"));
        }
        let mut slots = [Slot::NONE; 2];
        for &place in places {
            let slot = self.restore_slot(place)?;
            if self.blocks.is_used(slot) {
                return Err(Contradiction("an address is held twice"));
            }
            if self.blocks.is_touched(slot) {
                self.forget_freed(slot);
            }
            self.occupy(slot);
            let family = self.pools[usize::from(place.0)].family();
            if std::mem::replace(&mut slots[family], slot) != Slot::NONE {
                return Err(Contradiction("an owner holds two addresses of a family"));
            }
        }
        self.owners.insert(key, slots);
        Ok(())
    }

    /// Applies a waiting freed address that was read from a snapshot.
    pub(in crate::allocator) fn restore_freed(
        &mut self,
        place: Place,
        at: u32,
    ) -> Result<(), Contradiction> {
        let slot = self.restore_slot(place)?;
        if self.blocks.is_touched(slot) {
            return Err(Contradiction("a freed address is also held"));
        }
        self.blocks.set_touched(slot, true);
        self.pools[usize::from(place.0)]
            .freed
            .push_back(Freed { slot, at });
        Ok(())
    }

    /// Applies a pool that was read from disk, by number.
    pub(in crate::allocator) fn restore_pool(
        &mut self,
        number: u16,
        cidr: IpNetwork,
        active: bool,
    ) -> Result<(), Contradiction> {
        let at = usize::from(number);
        if at == self.pools.len() {
            self.pools.push(Pool::new(cidr, &self.reserved));
        }
        match self.pools.get_mut(at) {
            Some(pool) if pool.cidr == cidr => pool.active = active,
            _ => return Err(Contradiction("a pool's number changed")),
        }
        Ok(())
    }

    fn restore_slot(&mut self, place: Place) -> Result<Slot, Contradiction> {
        match self.pools.get(usize::from(place.0)) {
            Some(pool) if place.1 <= pool.last() => {}
            _ => return Err(Contradiction("an address is outside of its pool")),
        }
        let slot = self.blocks.slot(place.0, place.1);
        slot.ok_or(Contradiction(
            "more addresses than one allocator can tell apart",
        ))
    }

    /// Nearly always the oldest, so this is quick.
    fn forget_freed(&mut self, slot: Slot) {
        let number = self.blocks.place(slot).0;
        let freed = &mut self.pools[usize::from(number)].freed;
        if let Some(position) = freed.iter().position(|freed| freed.slot == slot) {
            freed.remove(position);
        }
    }

    /// Freed addresses may carry a time that a clock, set back since, has yet to reach: let their
    /// rest begin now instead of waiting for that time.
    pub(in crate::allocator) fn forget_future(&mut self, now: u32) {
        for freed in self.pools.iter_mut().flat_map(|pool| &mut pool.freed) {
            freed.at = freed.at.min(now);
        }
    }
}
