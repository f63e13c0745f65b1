//! Latencies in buckets whose width grows with the value: 1/64 relative error, a fixed 30 kB per thread,
//! and merging is addition, so that threads need not share anything while they measure.

use std::time::Duration;

const SUB_BITS: u32 = 6;
const SUB: u64 = 1 << SUB_BITS;
const BUCKETS: usize = ((64 - SUB_BITS as usize) + 1) * SUB as usize;

/// Counts of durations in microseconds.
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
    max: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            counts: vec![0; BUCKETS],
            total: 0,
            max: 0,
        }
    }
}

impl Histogram {
    /// Counts one duration.
    pub fn record(&mut self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.counts[bucket(micros)] += 1;
        self.total += 1;
        self.max = self.max.max(micros);
    }

    /// Adds another thread's counts.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        self.total += other.total;
        self.max = self.max.max(other.max);
    }

    /// The smallest bucket bound below or at which at least `permille` thousandths of the values lie, in microseconds.
    pub fn quantile(&self, permille: u64) -> u64 {
        let rank = (self.total * permille).div_ceil(1000).max(1);
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return upper_bound(index).min(self.max);
            }
        }
        self.max
    }

    /// The largest value, in microseconds.
    pub fn max(&self) -> u64 {
        self.max
    }
}

fn bucket(value: u64) -> usize {
    let magnitude = (u64::BITS - value.leading_zeros()).saturating_sub(SUB_BITS + 1);
    (u64::from(magnitude) * SUB + (value >> magnitude)) as usize
}

fn upper_bound(index: usize) -> u64 {
    let index = index as u64;
    if index < 2 * SUB {
        return index;
    }
    let magnitude = index / SUB - 1;
    let mantissa = index - magnitude * SUB;
    (mantissa << magnitude) + ((1 << magnitude) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_within_its_bucket() {
        for value in (0..10_000).chain([1 << 20, (1 << 40) + 12345]) {
            let bound = upper_bound(bucket(value));
            assert!(bound >= value, "{value} is above its bound {bound}");
            assert!(
                bound <= value + value / SUB,
                "{bound} is too far above {value}"
            );
        }
    }

    #[test]
    fn quantiles_of_a_uniform_range() {
        let mut low = Histogram::default();
        let mut high = Histogram::default();
        (1..=500).for_each(|value| low.record(Duration::from_micros(value)));
        (501..=1000).for_each(|value| high.record(Duration::from_micros(value)));
        low.merge(&high);
        assert!((500..=508).contains(&low.quantile(500)));
        assert!((990..=1000).contains(&low.quantile(990)));
        assert_eq!(low.quantile(1000), 1000);
        assert_eq!(low.max(), 1000);
    }

    #[test]
    fn nothing_recorded_is_zero() {
        assert_eq!(Histogram::default().quantile(990), 0);
    }
}
