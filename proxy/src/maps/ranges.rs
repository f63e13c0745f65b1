//! Ranges of a shared array.

use std::collections::{BTreeMap, BTreeSet};

use sluice_common::Range;

/// Hands out ranges of an array, best fit first, and joins neighbours that come back. Every operation
/// is logarithmic in the number of holes.
#[derive(Clone, Debug)]
pub struct RangeAllocator {
    /// Holes by offset.
    by_offset: BTreeMap<u32, u32>,
    /// The same holes as (length, offset).
    by_len: BTreeSet<(u32, u32)>,
    capacity: u32,
    used: u32,
}

impl RangeAllocator {
    /// An array of `capacity` entries, all free.
    pub fn new(capacity: u32) -> Self {
        let mut ranges = Self {
            by_offset: BTreeMap::new(),
            by_len: BTreeSet::new(),
            capacity,
            used: 0,
        };
        ranges.insert_hole(0, capacity);
        ranges
    }

    /// A range of `len` entries, or `None` when no hole is that long. An empty range takes nothing.
    pub fn allocate(&mut self, len: u32) -> Option<Range> {
        if len == 0 {
            return Some(Range::default());
        }
        let &(hole_len, offset) = self.by_len.range((len, 0)..).next()?;
        self.remove_hole(offset, hole_len);
        self.insert_hole(offset + len, hole_len - len);
        self.used += len;
        Some(Range { offset, len })
    }

    /// Takes a range that the maps already use; `false` when part of it is taken or outside.
    pub fn reserve(&mut self, range: Range) -> bool {
        let Range { offset, len } = range;
        if len == 0 {
            return true;
        }
        let Some((&hole, &hole_len)) = self.by_offset.range(..=offset).next_back() else {
            return false;
        };
        let (end, hole_end) = (
            u64::from(offset) + u64::from(len),
            u64::from(hole) + u64::from(hole_len),
        );
        if end > hole_end {
            return false;
        }
        self.remove_hole(hole, hole_len);
        self.insert_hole(hole, offset - hole);
        self.insert_hole(offset + len, (hole_end - end) as u32);
        self.used += len;
        true
    }

    /// Gives a range back. It must have come from `allocate` or `reserve`.
    pub fn free(&mut self, range: Range) {
        let Range {
            mut offset,
            mut len,
        } = range;
        if len == 0 {
            return;
        }
        self.used -= len;
        if let Some((&before, &before_len)) = self.by_offset.range(..offset).next_back()
            && before + before_len == offset
        {
            self.remove_hole(before, before_len);
            (offset, len) = (before, len + before_len);
        }
        if let Some(&after_len) = self.by_offset.get(&(offset + len)) {
            self.remove_hole(offset + len, after_len);
            len += after_len;
        }
        self.insert_hole(offset, len);
    }

    /// Entries in use.
    pub const fn used(&self) -> u32 {
        self.used
    }

    /// Entries in all.
    pub const fn capacity(&self) -> u32 {
        self.capacity
    }

    fn insert_hole(&mut self, offset: u32, len: u32) {
        if len > 0 {
            self.by_offset.insert(offset, len);
            self.by_len.insert((len, offset));
        }
    }

    fn remove_hole(&mut self, offset: u32, len: u32) {
        self.by_offset.remove(&offset);
        self.by_len.remove(&(len, offset));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_freed_array_is_one_hole_again() {
        let mut ranges = RangeAllocator::new(100);
        let taken: Vec<_> = (0..10).map(|_| ranges.allocate(10).unwrap()).collect();
        assert_eq!(ranges.allocate(1), None);
        for range in taken.into_iter().rev() {
            ranges.free(range);
        }
        assert_eq!(
            ranges.allocate(100),
            Some(Range {
                offset: 0,
                len: 100
            })
        );
    }

    #[test]
    fn a_range_that_is_taken_or_outside_cannot_be_reserved() {
        let mut ranges = RangeAllocator::new(10);
        assert!(ranges.reserve(Range { offset: 2, len: 3 }));
        assert!(!ranges.reserve(Range { offset: 4, len: 1 }));
        assert!(!ranges.reserve(Range { offset: 1, len: 2 }));
        assert!(!ranges.reserve(Range { offset: 9, len: 2 }));
        assert!(!ranges.reserve(Range {
            offset: u32::MAX,
            len: u32::MAX
        }));
        assert!(ranges.reserve(Range { offset: 5, len: 5 }));
        assert_eq!(ranges.used(), 8);
    }

    proptest! {
        #[test]
        fn ranges_in_use_never_overlap_and_nothing_leaks(ops in prop::collection::vec((any::<bool>(), 0u32..20, any::<prop::sample::Index>()), 1..200)) {
            let mut ranges = RangeAllocator::new(256);
            let mut model = vec![false; 256];
            let mut held: Vec<Range> = Vec::new();
            for (allocate, len, pick) in ops {
                if allocate {
                    if let Some(range) = ranges.allocate(len) {
                        for cell in &mut model[range.offset as usize..(range.offset + range.len) as usize] {
                            prop_assert!(!*cell);
                            *cell = true;
                        }
                        held.push(range);
                    }
                } else if !held.is_empty() {
                    let range = held.swap_remove(pick.index(held.len()));
                    model[range.offset as usize..(range.offset + range.len) as usize].fill(false);
                    ranges.free(range);
                }
                prop_assert_eq!(ranges.used() as usize, model.iter().filter(|c| **c).count());
            }
            for range in held {
                ranges.free(range);
            }
            prop_assert_eq!(ranges.allocate(256), Some(Range { offset: 0, len: 256 }));
        }
    }
}
