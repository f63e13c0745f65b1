//! How packet logic reaches a packet's bytes.

use sluice_common::Plain;

use crate::checksum::Diff;

/// A packet, starting with its Ethernet header. Offsets count from there.
///
/// The implementations are XDP's direct access, the kernel's `sk_buff`, and a byte slice in tests.
pub trait Packet {
    /// Reads a value at `offset`, or `None` when the packet ends before.
    fn load<T: Plain>(&self, offset: usize) -> Option<T>;

    /// Writes a value at `offset`, or `None` when the packet ends before.
    fn store<T: Plain>(&mut self, offset: usize, value: T) -> Option<()>;

    /// Brings a transport checksum at `offset` up to date after a change of the pseudo-header's
    /// words (addresses) and of words that the checksum covers itself (ports).
    ///
    /// Apart from [`Packet::store`] because an `sk_buff` may carry a checksum that is yet to be
    /// completed by the device.
    fn fix_checksum(&mut self, offset: usize, change: ChecksumChange) -> Option<()>;

    /// Length on the wire, in bytes.
    fn wire_len(&self) -> u32;
}

/// What changed under a transport checksum.
#[derive(Clone, Copy, Debug)]
pub struct ChecksumChange {
    /// The change of the pseudo-header.
    pub pseudo: Diff,
    /// The change of the transport header.
    pub header: Diff,
    /// UDP: a zero checksum means that there is none (RFC 768); IPv4 only, but IPv6 has no zero.
    pub zero_is_none: bool,
    /// The pseudo-header is IPv6's.
    pub ipv6: bool,
}

impl ChecksumChange {
    /// The checksum field after the change, when it is complete.
    #[inline(always)]
    pub const fn apply(&self, old: u16) -> u16 {
        if self.zero_is_none && old == 0 {
            return 0;
        }
        let new = self.pseudo.and(self.header).apply(old);
        if self.zero_is_none && new == 0 {
            0xffff
        } else {
            new
        }
    }
}

/// Reads a value from packet memory, which is aligned to nothing, word by word.
///
/// One unaligned read of the whole would do the same; but LLVM makes a copy of single bytes of it for
/// the BPF target, where a word may be read at any address.
///
/// # Safety
/// `from` points at readable bytes of a `T`'s size.
#[inline(always)]
pub unsafe fn read<T: Plain>(from: *const u8) -> T {
    let mut value = core::mem::MaybeUninit::<T>::uninit();
    // SAFETY: the bytes are readable by the caller's promise, and all of `value` is written.
    unsafe {
        copy_words::<T>(from, value.as_mut_ptr().cast());
        value.assume_init()
    }
}

/// Writes a value to packet memory, word by word.
///
/// # Safety
/// `to` points at writable bytes of a `T`'s size.
#[inline(always)]
pub unsafe fn write<T: Plain>(to: *mut u8, value: &T) {
    // SAFETY: the bytes are writable by the caller's promise, and a `T` has no padding.
    unsafe { copy_words::<T>((value as *const T).cast(), to) }
}

/// Copies a `T` in units no larger than its fields need, so that the compiler can keep each in a
/// register.
///
/// # Safety
/// A `T`'s size is readable at `from` and writable at `to`, and they do not overlap.
#[inline(always)]
unsafe fn copy_words<T>(from: *const u8, to: *mut u8) {
    let len = size_of::<T>();
    let mut at = 0;
    // SAFETY: `at` plus what is copied never exceeds `len`.
    unsafe {
        while align_of::<T>() >= 4 && at + 4 <= len {
            to.add(at)
                .cast::<u32>()
                .write_unaligned(from.add(at).cast::<u32>().read_unaligned());
            at += 4;
        }
        while align_of::<T>() >= 2 && at + 2 <= len {
            to.add(at)
                .cast::<u16>()
                .write_unaligned(from.add(at).cast::<u16>().read_unaligned());
            at += 2;
        }
        while at < len {
            to.add(at).write(from.add(at).read());
            at += 1;
        }
    }
}
