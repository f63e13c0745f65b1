//! Dense ids for services and backends.

use std::collections::BTreeSet;

/// Hands out the lowest free id, from 1 up to a capacity: arrays are indexed by ids, so low ids keep
/// the agent's pages few.
#[derive(Clone, Debug)]
pub struct IdAllocator {
    /// One more than the highest id.
    capacity: u32,
    /// Ids from here on were never used.
    fresh: u32,
    /// Free ids below `fresh`.
    free: BTreeSet<u32>,
}

impl IdAllocator {
    /// Ids from 1 to `capacity - 1`, all free.
    pub const fn new(capacity: u32) -> Self {
        Self {
            capacity,
            fresh: 1,
            free: BTreeSet::new(),
        }
    }

    /// The lowest free id, or `None` when there is none.
    pub fn allocate(&mut self) -> Option<u32> {
        if let Some(id) = self.free.pop_first() {
            return Some(id);
        }
        let id = self.fresh;
        (id < self.capacity).then(|| self.fresh += 1)?;
        Some(id)
    }

    /// Takes an id that the maps already hold; `false` when it is taken or out of range.
    pub fn reserve(&mut self, id: u32) -> bool {
        if id == 0 || id >= self.capacity {
            return false;
        }
        if id < self.fresh {
            return self.free.remove(&id);
        }
        self.free.extend(self.fresh..id);
        self.fresh = id + 1;
        true
    }

    /// Gives an id back; one that is not taken is left alone.
    pub fn free(&mut self, id: u32) {
        if id == 0 || id >= self.fresh {
            return;
        }
        self.free.insert(id);
        while self.fresh > 1 && self.free.remove(&(self.fresh - 1)) {
            self.fresh -= 1;
        }
    }

    /// How many ids are taken.
    pub fn used(&self) -> u32 {
        self.fresh - 1 - self.free.len() as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_start_at_one_and_the_lowest_free_one_comes_first() {
        let mut ids = IdAllocator::new(4);
        assert_eq!(
            [ids.allocate(), ids.allocate(), ids.allocate()],
            [Some(1), Some(2), Some(3)]
        );
        assert_eq!(ids.allocate(), None);
        ids.free(2);
        ids.free(2);
        assert_eq!(ids.used(), 2);
        assert_eq!(ids.allocate(), Some(2));
    }

    #[test]
    fn reserved_ids_are_not_handed_out() {
        let mut ids = IdAllocator::new(10);
        assert!(ids.reserve(3));
        assert!(!ids.reserve(3));
        assert!(!ids.reserve(0));
        assert!(!ids.reserve(10));
        assert_eq!(
            [ids.allocate(), ids.allocate(), ids.allocate()],
            [Some(1), Some(2), Some(4)]
        );
        assert_eq!(ids.used(), 4);
    }
}
