//! Arrays of the kernel in this process's memory.

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering, fence};

use sluice_common::Plain;

/// A BPF array created with `BPF_F_MMAPABLE`: reads and writes are plain memory accesses that running
/// programs see at once, without a system call.
///
/// Elements are read and written word by word, so that one of a single word is never torn, and a
/// longer one may be: what that means is said where each type is defined.
#[derive(Debug)]
pub struct MappedArray<T> {
    base: NonNull<u8>,
    bytes: usize,
    len: u32,
    element: PhantomData<T>,
}

// SAFETY: the memory is the kernel's map, valid until unmapped in `drop`; access is by atomics.
unsafe impl<T: Send> Send for MappedArray<T> {}
// SAFETY: as above; writing takes `&mut self`, and other writers' words are read atomically.
unsafe impl<T: Sync> Sync for MappedArray<T> {}

impl<T: Plain> MappedArray<T> {
    /// The kernel pads every element to a multiple of 8 bytes.
    const STRIDE: usize = size_of::<T>().next_multiple_of(8);
    const WORDS: usize = size_of::<T>() / 4;

    /// Maps the array behind `fd`, which has `len` elements of `T`.
    pub fn map(fd: BorrowedFd<'_>, len: u32) -> io::Result<Self> {
        const { assert!(size_of::<T>().is_multiple_of(4) && align_of::<T>() <= 8) };
        let bytes = (Self::STRIDE * len as usize).next_multiple_of(page_size());
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new shared mapping at an address of the kernel's choice.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                protection,
                libc::MAP_SHARED,
                fd.as_raw_fd(),
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base =
            NonNull::new(base.cast()).ok_or_else(|| io::Error::other("mapped at address 0"))?;
        Ok(Self {
            base,
            bytes,
            len,
            element: PhantomData,
        })
    }

    /// Number of elements.
    pub const fn len(&self) -> u32 {
        self.len
    }

    /// The element at `index`.
    pub fn get(&self, index: u32) -> Option<T> {
        let words = self.words(index)?;
        let mut value = vec_of::<T>();
        for (to, from) in value.iter_mut().zip(words) {
            *to = from.load(Ordering::Relaxed);
        }
        // SAFETY: `value` has the words of a `T`, and any bit pattern is one.
        Some(unsafe { value.as_ptr().cast::<T>().read_unaligned() })
    }

    /// Writes the element at `index`; `None` when there is no such index. Programs that see a write
    /// which follows see this one.
    pub fn set(&mut self, index: u32, value: &T) -> Option<()> {
        for (to, from) in self.words(index)?.iter().zip(value.bytes().chunks_exact(4)) {
            to.store(
                u32::from_ne_bytes([from[0], from[1], from[2], from[3]]),
                Ordering::Relaxed,
            );
        }
        fence(Ordering::Release);
        Some(())
    }

    fn words(&self, index: u32) -> Option<&[AtomicU32]> {
        if index >= self.len {
            return None;
        }
        // SAFETY: in bounds; elements are aligned to 8 bytes; all access is atomic.
        let start = unsafe { self.base.add(index as usize * Self::STRIDE) };
        // SAFETY: as above, for the words of one element.
        Some(unsafe { std::slice::from_raw_parts(start.as_ptr().cast(), Self::WORDS) })
    }
}

impl<T> Drop for MappedArray<T> {
    fn drop(&mut self) {
        // SAFETY: mapped by `map` with this length; no reference outlives `self`.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.bytes) };
    }
}

/// Words enough for the largest element.
fn vec_of<T>() -> [u32; 16] {
    const { assert!(size_of::<T>() <= 64) };
    [0; 16]
}

fn page_size() -> usize {
    // SAFETY: takes and returns integers.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as usize }
}
