//! The promise that a type is nothing but its bytes.

/// A type that any bytes of its size make a value of, and that has no padding.
///
/// # Safety
/// The type is `repr(C)` or `repr(transparent)`, has no padding (inside or at its end), no
/// references, and every bit pattern is a valid value.
pub unsafe trait Plain: Copy + 'static {
    /// The value's bytes, in memory order.
    fn bytes(&self) -> &[u8] {
        // SAFETY: `Plain` promises that all bytes are initialised (no padding).
        unsafe { core::slice::from_raw_parts((self as *const Self).cast(), size_of::<Self>()) }
    }

    /// The value that `bytes` spell, or `None` when the length is not this type's.
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != size_of::<Self>() {
            return None;
        }
        // SAFETY: the length was checked, the read is unaligned, and any bit pattern is valid.
        Some(unsafe { bytes.as_ptr().cast::<Self>().read_unaligned() })
    }

    /// All bytes zero.
    fn zeroed() -> Self {
        // SAFETY: any bit pattern is valid, so zero is.
        unsafe { core::mem::zeroed() }
    }
}

/// Implements [`Plain`] for integers and `repr(C)` types and asserts their size, which proves that no padding
/// was added when it equals the sum of the fields' sizes.
macro_rules! plain {
    ($($ty:ty = $size:literal),+ $(,)?) => {$(
        const _: () = assert!(size_of::<$ty>() == $size);
        // SAFETY: an integer, or repr(C) or transparent, made of integers and arrays of them; the size asserted
        // above is the sum of the fields' sizes.
        unsafe impl $crate::Plain for $ty {}
    )+};
}
pub(crate) use plain;

// SAFETY: an array has no padding that its elements have not.
unsafe impl<T: Plain, const N: usize> Plain for [T; N] {}

plain! {
    u8 = 1,
    u16 = 2,
    u32 = 4,
    u64 = 8,
    crate::Be16 = 2,
    crate::Ipv4 = 4,
    crate::Ipv6 = 16,
}
