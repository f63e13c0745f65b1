//! Time as the programs keep it.

/// One tick is `1 << TICK_SHIFT` nanoseconds (134 ms) of CLOCK_MONOTONIC: a shift instead of a
/// division for every packet, and a `u32` of them lasts 18 years of uptime.
pub const TICK_SHIFT: u32 = 27;

/// A point in time (ticks since boot) or a duration, in ticks.
pub type Ticks = u32;

/// Ticks in a duration, rounded up; saturates.
pub const fn ticks_from_millis(millis: u64) -> Ticks {
    let ticks = (millis as u128 * 1_000_000).div_ceil(1 << TICK_SHIFT);
    if ticks > Ticks::MAX as u128 {
        Ticks::MAX
    } else {
        ticks as Ticks
    }
}

/// The point in time that a CLOCK_MONOTONIC reading stands for.
#[inline(always)]
pub const fn ticks_from_nanos(nanos: u64) -> Ticks {
    (nanos >> TICK_SHIFT) as Ticks
}

/// Milliseconds in `ticks`.
pub const fn millis_from_ticks(ticks: Ticks) -> u64 {
    ((ticks as u64) << TICK_SHIFT) / 1_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_never_shortened() {
        for millis in [0, 1, 134, 135, 1000, 10_800_000] {
            assert!((ticks_from_millis(millis) as u64) << TICK_SHIFT >= millis * 1_000_000);
        }
        assert_eq!(ticks_from_millis(u64::MAX), Ticks::MAX);
    }
}
