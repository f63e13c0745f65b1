//! Medians and spreads of rounds, and percentiles of single measurements.

use serde::Serialize;

/// Some rounds of the same measurement.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Rounds(pub Vec<f64>);

impl Rounds {
    /// The middle one; 0 of none.
    pub fn median(&self) -> f64 {
        percentile(&self.0, 50.0)
    }

    /// Half of the way from the least to the most, as a share of the median.
    pub fn spread(&self) -> f64 {
        let least = self.0.iter().copied().fold(f64::INFINITY, f64::min);
        let most = self.0.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        match self.median() {
            median if median > 0.0 => (most - least) / 2.0 / median,
            _ => 0.0,
        }
    }
}

/// The value that `percent` of all are at most; 0 of none.
pub fn percentile(values: &[f64], percent: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = (percent / 100.0 * sorted.len() as f64).ceil() as usize;
    sorted
        .get(at.saturating_sub(1))
        .copied()
        .unwrap_or_default()
}

/// The mean of the middle half: as steady as the median, finer than the whole nanoseconds that the kernel
/// tells.
pub fn middle_mean(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let quarter = sorted.len() / 4;
    let middle = &sorted[quarter..sorted.len() - quarter];
    middle.iter().sum::<f64>() / middle.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let values: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(percentile(&values, 50.0), 50.0);
        assert_eq!(percentile(&values, 99.0), 99.0);
        assert_eq!(percentile(&values, 100.0), 100.0);
        assert_eq!(percentile(&[], 50.0), 0.0);
    }

    #[test]
    fn outliers_do_not_move_the_middle() {
        assert_eq!(middle_mean(&[1.0, 2.0, 2.0, 1000.0]), 2.0);
        let rounds = Rounds(vec![90.0, 100.0, 110.0]);
        assert_eq!((rounds.median(), rounds.spread()), (100.0, 0.1));
    }
}
