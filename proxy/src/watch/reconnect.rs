//! How long to wait before a watch is tried again.

use std::time::Duration;

use kube::runtime::utils::Backoff;
use rand::Rng;

const FIRST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(10);

/// Doubles up to [`LONGEST`], less a random part, so that the nodes of a cluster do not all come back
/// to a restarted API server at once.
#[derive(Debug)]
pub struct Reconnect {
    next: Duration,
}

impl Default for Reconnect {
    fn default() -> Self {
        Self { next: FIRST }
    }
}

impl Iterator for Reconnect {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let wait = self.next;
        self.next = (wait * 2).min(LONGEST);
        Some(wait.mul_f64(rand::rng().random_range(0.5..=1.0)))
    }
}

impl Backoff for Reconnect {
    fn reset(&mut self) {
        self.next = FIRST;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_limit_and_start_over_after_success() {
        let mut reconnect = Reconnect::default();
        let waits: Vec<_> = reconnect.by_ref().take(20).collect();
        assert!(
            waits[0] <= FIRST
                && waits[19] > LONGEST / 3
                && waits.iter().all(|wait| *wait <= LONGEST)
        );
        reconnect.reset();
        assert!(reconnect.next().is_some_and(|wait| wait <= FIRST));
    }
}
