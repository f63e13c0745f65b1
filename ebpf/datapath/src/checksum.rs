//! The Internet checksum, changed rather than recomputed (RFC 1624).
//!
//! Sums are taken over words in memory order: a ones' complement sum does not care about byte order
//! as long as every word lies at an even offset, which addresses and ports do.

/// What a change of some words does to a checksum over them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Diff(u64);

impl Diff {
    /// No change.
    pub const NONE: Self = Self(0);

    /// Adds the change of a 32-bit word.
    #[inline(always)]
    pub const fn word(self, old: u32, new: u32) -> Self {
        Self(self.0 + (!old) as u64 + new as u64)
    }

    /// Adds the change of a 16-bit word.
    #[inline(always)]
    pub const fn half(self, old: u16, new: u16) -> Self {
        Self(self.0 + (!old) as u64 + new as u64)
    }

    /// Both changes.
    #[inline(always)]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    /// The checksum field after the change.
    #[inline(always)]
    pub const fn apply(self, checksum: u16) -> u16 {
        !fold((!checksum) as u64 + self.0)
    }

    /// As the 32-bit partial sum that the kernel's helpers take.
    #[inline(always)]
    pub const fn to_partial(self) -> u32 {
        let sum = (self.0 & 0xffff_ffff) + (self.0 >> 32);
        ((sum & 0xffff_ffff) + (sum >> 32)) as u32
    }
}

/// Folds a sum of words into 16 bits.
#[inline(always)]
pub const fn fold(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + ((sum >> 16) & 0xffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The textbook sum over bytes (RFC 1071), in memory order.
    fn checksum(words: &[u16]) -> u16 {
        let mut sum: u32 = words.iter().map(|w| u32::from(*w)).sum();
        while sum >> 16 != 0 {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    /// 0 and 0xffff are the same number in ones' complement.
    fn same(a: u16, b: u16) -> bool {
        a == b || (a | b == 0xffff && a & b == 0)
    }

    proptest! {
        #[test]
        fn a_changed_checksum_equals_the_recomputed_one(
            mut words in prop::collection::vec(any::<u16>(), 8..40),
            new_half: u16,
            new_word: [u16; 2],
        ) {
            let before = checksum(&words);
            let word = |w: [u16; 2]| u32::from(w[0]) | u32::from(w[1]) << 16;
            let diff = Diff::NONE
                .half(words[1], new_half)
                .word(word([words[4], words[5]]), word(new_word));
            words[1] = new_half;
            words[4..6].copy_from_slice(&new_word);
            prop_assert!(same(diff.apply(before), checksum(&words)));
        }

        #[test]
        fn the_partial_sum_says_the_same(old: u32, new: u32, half: u16, checksum: u16) {
            let diff = Diff::NONE.word(old, new).half(half, !half);
            let partial = u64::from(diff.to_partial());
            prop_assert!(same(!fold(u64::from(!checksum) + partial), diff.apply(checksum)));
        }

        #[test]
        fn folding_is_the_remainder_by_0xffff(sum: u64) {
            prop_assert!(same(fold(sum), (sum % 0xffff) as u16));
        }
    }
}
