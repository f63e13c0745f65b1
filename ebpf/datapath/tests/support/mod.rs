//! A packet that is a byte vector, tables that are hash maps, and a builder of packets.
#![allow(dead_code, reason = "each test binary uses a part")]

pub mod build;
pub mod world;

use sluice_common::Plain;
use sluice_datapath::packet::{ChecksumChange, Packet};
use sluice_datapath::reject::Resize;

/// A frame in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame(pub Vec<u8>);

impl Packet for Frame {
    fn load<T: Plain>(&self, offset: usize) -> Option<T> {
        T::from_bytes(self.0.get(offset..offset.checked_add(size_of::<T>())?)?)
    }

    fn store<T: Plain>(&mut self, offset: usize, value: T) -> Option<()> {
        let end = offset.checked_add(size_of::<T>())?;
        self.0.get_mut(offset..end)?.copy_from_slice(value.bytes());
        Some(())
    }

    fn fix_checksum(&mut self, offset: usize, change: ChecksumChange) -> Option<()> {
        let old: u16 = self.load(offset)?;
        self.store(offset, change.apply(old))
    }

    fn wire_len(&self) -> u32 {
        self.0.len() as u32
    }
}

impl Resize for Frame {
    const ANSWERS: bool = true;

    fn grow_head(&mut self, bytes: usize) -> Option<()> {
        self.0.splice(0..0, std::iter::repeat_n(0, bytes));
        Some(())
    }

    fn truncate(&mut self, len: usize) -> Option<()> {
        self.0.resize(len, 0);
        Some(())
    }
}
