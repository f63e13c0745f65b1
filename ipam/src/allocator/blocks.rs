//! Two bits an address, in blocks of 256 that exist only where an address was ever used: a /12 costs
//! 320 KiB when all of it was touched, a /64 costs nothing until then.

use hashbrown::HashMap;
use std::hash::BuildHasherDefault;

const BLOCK_BITS: u32 = 8;
const WORDS: usize = 4;

/// A touched address: its block's index in the upper 24 bits, its place in the block in the lower 8.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Slot(pub(super) u32);

impl Slot {
    /// No address.
    pub(super) const NONE: Slot = Slot(u32::MAX);

    fn block(self) -> usize {
        (self.0 >> BLOCK_BITS) as usize
    }

    fn word(self) -> usize {
        (self.0 as usize >> 6) & (WORDS - 1)
    }

    fn mask(self) -> u64 {
        1 << (self.0 & 63)
    }
}

#[derive(Debug)]
struct Block {
    pool: u16,
    number: u64,
    used: [u64; WORDS],
    /// Used now, or freed and in its pool's queue.
    touched: [u64; WORDS],
}

/// Every block of every pool.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    blocks: Vec<Block>,
    index: HashMap<(u16, u64), u32, BuildHasherDefault<Multiply>>,
}

impl Blocks {
    /// The slot of an address, whose block is made when missing. `None` once 2^32 - 256 addresses
    /// were touched, the most that a slot can tell apart.
    pub(super) fn slot(&mut self, pool: u16, offset: u64) -> Option<Slot> {
        let number = offset >> BLOCK_BITS;
        let index = match self.index.get(&(pool, number)) {
            Some(&index) => index,
            None => self.add(pool, number)?,
        };
        Some(Slot(index << BLOCK_BITS | (offset as u32 & 0xff)))
    }

    /// The slot of an address in a block that exists.
    pub(super) fn existing_slot(&self, pool: u16, offset: u64) -> Option<Slot> {
        let index = self.index.get(&(pool, offset >> BLOCK_BITS))?;
        Some(Slot(index << BLOCK_BITS | (offset as u32 & 0xff)))
    }

    fn add(&mut self, pool: u16, number: u64) -> Option<u32> {
        let index = u32::try_from(self.blocks.len()).ok()?;
        if index >= (1 << (32 - BLOCK_BITS)) - 1 {
            return None;
        }
        self.blocks.push(Block {
            pool,
            number,
            used: [0; WORDS],
            touched: [0; WORDS],
        });
        self.index.insert((pool, number), index);
        Some(index)
    }

    /// The pool and the offset in it.
    pub(super) fn place(&self, slot: Slot) -> (u16, u64) {
        let block = &self.blocks[slot.block()];
        let offset = block.number << BLOCK_BITS | u64::from(slot.0 & 0xff);
        (block.pool, offset)
    }

    pub(super) fn is_used(&self, slot: Slot) -> bool {
        self.blocks[slot.block()].used[slot.word()] & slot.mask() != 0
    }

    pub(super) fn is_touched(&self, slot: Slot) -> bool {
        self.blocks[slot.block()].touched[slot.word()] & slot.mask() != 0
    }

    pub(super) fn set_used(&mut self, slot: Slot, used: bool) {
        set(&mut self.blocks[slot.block()].used[slot.word()], slot, used);
    }

    pub(super) fn set_touched(&mut self, slot: Slot, touched: bool) {
        let block = &mut self.blocks[slot.block()];
        set(&mut block.touched[slot.word()], slot, touched);
    }

    /// The first untouched offset at or after `from`. It may lie past the pool's end: the caller
    /// knows its size. `None` past 2^64.
    pub(super) fn next_untouched(&self, pool: u16, from: u64) -> Option<u64> {
        let mut offset = from;
        loop {
            let Some(&index) = self.index.get(&(pool, offset >> BLOCK_BITS)) else {
                return Some(offset);
            };
            let block = &self.blocks[index as usize];
            if let Some(bit) = first_zero(&block.touched, offset as u32 & 0xff) {
                return Some(offset & !0xff | u64::from(bit));
            }
            offset = (offset | 0xff).checked_add(1)?;
        }
    }

    /// Bytes held on the heap.
    pub(super) fn memory(&self) -> usize {
        self.blocks.capacity() * size_of::<Block>() + self.index.allocation_size()
    }
}

fn set(word: &mut u64, slot: Slot, on: bool) {
    match on {
        true => *word |= slot.mask(),
        false => *word &= !slot.mask(),
    }
}

fn first_zero(words: &[u64; WORDS], from: u32) -> Option<u32> {
    let first = (from >> 6) as usize;
    (first..WORDS).find_map(|index| {
        let below = if index == first {
            (1u64 << (from & 63)) - 1
        } else {
            0
        };
        let free = !(words[index] | below);
        (free != 0).then(|| index as u32 * 64 + free.trailing_zeros())
    })
}

/// A hasher for small integers that nobody outside chooses.
#[derive(Default)]
pub(super) struct Multiply(u64);

impl std::hash::Hasher for Multiply {
    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.write_u64(byte.into()));
    }

    fn write_u16(&mut self, value: u16) {
        self.write_u64(value.into());
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = (self.0.rotate_left(5) ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn untouched_offsets_are_found_across_blocks() {
        let mut blocks = Blocks::default();
        for offset in 0..600 {
            let slot = blocks.slot(0, offset).unwrap();
            blocks.set_touched(slot, true);
        }
        assert_eq!(blocks.next_untouched(0, 0), Some(600));
        assert_eq!(blocks.next_untouched(0, 601), Some(601));
        let slot = blocks.slot(0, 300).unwrap();
        blocks.set_touched(slot, false);
        assert_eq!(blocks.next_untouched(0, 5), Some(300));
        assert_eq!(blocks.next_untouched(0, 300), Some(300));
        assert_eq!(blocks.next_untouched(1, 0), Some(0));
    }

    #[test]
    fn the_last_offset_of_a_slash_64_has_a_slot_and_no_successor() {
        let mut blocks = Blocks::default();
        let last = blocks.slot(3, u64::MAX).unwrap();
        assert_eq!(blocks.place(last), (3, u64::MAX));
        blocks.set_touched(last, true);
        assert_eq!(blocks.next_untouched(3, u64::MAX), None);
    }
}
