//! Turns single results into verdicts: as many equal results in a row as the thresholds say.

use k8s_openapi::api::core::v1::Probe;

/// Counts results in a row.
#[derive(Clone, Debug)]
pub struct Counter {
    success_threshold: u32,
    failure_threshold: u32,
    last: Option<bool>,
    run: u32,
}

impl Counter {
    /// With the thresholds of `probe` (1 success, 3 failures when unset).
    pub fn new(probe: &Probe) -> Self {
        let threshold = |value: Option<i32>, default| {
            value
                .and_then(|v| u32::try_from(v).ok())
                .unwrap_or(default)
                .max(1)
        };
        Self {
            success_threshold: threshold(probe.success_threshold, 1),
            failure_threshold: threshold(probe.failure_threshold, 3),
            last: None,
            run: 0,
        }
    }

    /// Takes a result; `Some(verdict)` when enough have come in a row.
    pub fn push(&mut self, success: bool) -> Option<bool> {
        self.run = if self.last == Some(success) {
            self.run.saturating_add(1)
        } else {
            1
        };
        self.last = Some(success);
        let threshold = if success {
            self.success_threshold
        } else {
            self.failure_threshold
        };
        (self.run >= threshold).then_some(success)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdicts(success: i32, failure: i32, results: &str) -> String {
        let probe = Probe {
            success_threshold: Some(success),
            failure_threshold: Some(failure),
            ..Default::default()
        };
        let mut counter = Counter::new(&probe);
        let verdict = |result: char| match counter.push(result == '+') {
            Some(true) => '+',
            Some(false) => '-',
            None => '.',
        };
        results.chars().map(verdict).collect()
    }

    #[test]
    fn verdicts_need_results_in_a_row() {
        assert_eq!(verdicts(1, 3, "+--+---+"), "+..+..-+");
        assert_eq!(verdicts(2, 1, "+++-+"), ".++-.");
        assert_eq!(verdicts(1, 1, "-+-"), "-+-");
        assert_eq!(verdicts(0, 0, "-+"), "-+");
    }
}
