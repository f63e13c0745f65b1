//! Ids and ranges: which are free, which are in use, which rest.

use std::time::Instant;

use sluice_common::{Backend, Range, names};

use crate::maps::{
    Capacity, GRACE, IdAllocator, MapError, Pool, Quarantine, RangeAllocator, Tables,
};

/// The allocators of everything that has a number.
#[derive(Debug)]
pub(super) struct Pools {
    capacity: Capacity,
    pub services: IdAllocator,
    pub backends: IdAllocator,
    slots: RangeAllocator,
    maglev: RangeAllocator,
    resting: Quarantine<Resting>,
}

/// Something out of use that a program may still be reading.
#[derive(Clone, Copy, Debug)]
pub(super) enum Resting {
    Service(u32),
    Backend(u32),
    Range(Pool, Range),
}

impl Pools {
    pub fn new(capacity: Capacity) -> Self {
        Self {
            capacity,
            services: IdAllocator::new(capacity.services),
            backends: IdAllocator::new(capacity.backends),
            slots: RangeAllocator::new(capacity.slots),
            maglev: RangeAllocator::new(capacity.maglev),
            resting: Quarantine::new(GRACE),
        }
    }

    /// An id for a new service, its counters at zero.
    pub fn service_id<T: Tables>(&mut self, tables: &mut T) -> Result<u32, MapError> {
        let id = self.services.allocate().ok_or(MapError::Full {
            map: names::SERVICE_COUNTERS,
            capacity: self.capacity.services,
        })?;
        tables
            .reset_service_counter(id)
            .inspect_err(|_| self.services.free(id))?;
        Ok(id)
    }

    /// An id for a new backend, its counters at zero.
    pub fn backend_id<T: Tables>(&mut self, tables: &mut T) -> Result<u32, MapError> {
        let id = self.backends.allocate().ok_or(MapError::Full {
            map: names::BACKENDS,
            capacity: self.capacity.backends,
        })?;
        tables
            .reset_backend_counter(id)
            .inspect_err(|_| self.backends.free(id))?;
        Ok(id)
    }

    /// A fresh range with these entries.
    pub fn write_range<T: Tables>(
        &mut self,
        tables: &mut T,
        pool: Pool,
        entries: &[u32],
    ) -> Result<Range, MapError> {
        let (map, capacity) = match pool {
            Pool::Slots => (names::SLOTS, self.capacity.slots),
            Pool::Maglev => (names::MAGLEV, self.capacity.maglev),
        };
        let full = || MapError::Full { map, capacity };
        let len = u32::try_from(entries.len()).map_err(|_| full())?;
        let range = self.ranges(pool).allocate(len).ok_or_else(full)?;
        let written = tables.write_range(pool, range.offset, entries);
        written.inspect_err(|_| self.ranges(pool).free(range))?;
        Ok(range)
    }

    pub fn reserve_range(&mut self, pool: Pool, range: Range) -> bool {
        self.ranges(pool).reserve(range)
    }

    pub fn rest(&mut self, now: Instant, item: Resting) {
        self.resting.push(now, item);
    }

    pub fn next_ready(&self) -> Option<Instant> {
        self.resting.next_ready()
    }

    /// Frees what has rested long enough. Returns the number of writes.
    pub fn release<T: Tables>(&mut self, tables: &mut T, now: Instant) -> u64 {
        let mut writes = 0;
        let mut failed = Vec::new();
        while let Some(item) = self.resting.pop_ready(now) {
            match item {
                Resting::Service(id) => self.services.free(id),
                Resting::Range(pool, range) => self.ranges(pool).free(range),
                Resting::Backend(id) if tables.put_backend(id, &Backend::default()).is_ok() => {
                    writes += 1;
                    self.backends.free(id);
                }
                Resting::Backend(_) => failed.push(item),
            }
        }
        // An id whose entry could not be wiped rests once more.
        failed
            .into_iter()
            .for_each(|item| self.resting.push(now, item));
        writes
    }

    /// How much of each table is in use: name, used, capacity.
    pub fn usage(&self) -> Vec<(&'static str, u32, u32)> {
        vec![
            (
                names::SERVICE_COUNTERS,
                self.services.used(),
                self.capacity.services,
            ),
            (
                names::BACKENDS,
                self.backends.used(),
                self.capacity.backends,
            ),
            (names::SLOTS, self.slots.used(), self.capacity.slots),
            (names::MAGLEV, self.maglev.used(), self.capacity.maglev),
        ]
    }

    const fn ranges(&mut self, pool: Pool) -> &mut RangeAllocator {
        match pool {
            Pool::Slots => &mut self.slots,
            Pool::Maglev => &mut self.maglev,
        }
    }
}
