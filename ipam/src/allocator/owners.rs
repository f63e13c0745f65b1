//! The table of owners: 20 bytes each in chunks that never move, and 5 bytes of index.

use hashbrown::HashTable;

use super::blocks::Slot;
use super::owner::Key;

const CHUNK: usize = 1024;

/// The addresses of one owner, one for each family at most: IPv4 first.
pub(super) type Slots = [Slot; 2];

#[derive(Clone, Copy, Debug)]
struct Entry {
    key: Key,
    slots: Slots,
}

/// A map from key to slots.
#[derive(Debug, Default)]
pub(super) struct Owners {
    chunks: Vec<Box<[Entry; CHUNK]>>,
    length: u32,
    vacant: Vec<u32>,
    index: HashTable<u32>,
}

impl Owners {
    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    pub(super) fn get(&self, key: Key) -> Option<Slots> {
        let found = self
            .index
            .find(key.bits(), |&at| self.entry(at).key == key)?;
        Some(self.entry(*found).slots)
    }

    /// Adds an owner that is not in the table.
    pub(super) fn insert(&mut self, key: Key, slots: Slots) {
        debug_assert!(self.get(key).is_none());
        let at = self.vacant.pop().unwrap_or_else(|| self.grow());
        self.chunks[at as usize / CHUNK][at as usize % CHUNK] = Entry { key, slots };
        let chunks = &self.chunks;
        self.index.insert_unique(key.bits(), at, |&at| {
            chunks[at as usize / CHUNK][at as usize % CHUNK].key.bits()
        });
    }

    pub(super) fn remove(&mut self, key: Key) -> Option<Slots> {
        let chunks = &self.chunks;
        let same = |&at: &u32| chunks[at as usize / CHUNK][at as usize % CHUNK].key == key;
        let found = self.index.find_entry(key.bits(), same).ok()?;
        let (at, _) = found.remove();
        self.vacant.push(at);
        Some(self.entry(at).slots)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Key, Slots)> + '_ {
        self.index.iter().map(|&at| {
            let entry = self.entry(at);
            (entry.key, entry.slots)
        })
    }

    fn entry(&self, at: u32) -> &Entry {
        &self.chunks[at as usize / CHUNK][at as usize % CHUNK]
    }

    fn grow(&mut self) -> u32 {
        let at = self.length;
        if at as usize == self.chunks.len() * CHUNK {
            let empty = Entry {
                key: Key::default(),
                slots: [Slot::NONE; 2],
            };
            self.chunks.push(Box::new([empty; CHUNK]));
        }
        self.length += 1;
        at
    }

    /// Bytes held on the heap.
    pub(super) fn memory(&self) -> usize {
        self.chunks.len() * size_of::<[Entry; CHUNK]>()
            + self.vacant.capacity() * size_of::<u32>()
            + self.index.allocation_size()
    }
}

#[cfg(test)]
mod tests {
    use super::super::owner::Owner;
    use super::*;

    #[test]
    fn places_of_removed_owners_are_used_again() {
        let mut owners = Owners::default();
        let key = |n: u32| Owner::new(n.to_string(), "eth0").key();
        for n in 0..3000 {
            owners.insert(key(n), [Slot(n), Slot::NONE]);
        }
        for n in 0..3000 {
            assert_eq!(owners.remove(key(n)), Some([Slot(n), Slot::NONE]));
            assert_eq!(owners.remove(key(n)), None);
        }
        for n in 3000..6000 {
            owners.insert(key(n), [Slot(n), Slot::NONE]);
        }
        assert_eq!(owners.length, 3000);
        assert_eq!(owners.get(key(4711)), Some([Slot(4711), Slot::NONE]));
        assert_eq!(owners.iter().count(), 3000);
    }
}
