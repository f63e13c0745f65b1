//! Services whose last write failed, and when to try again.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::maps::MapError;
use crate::planner::ObjectName;

const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(30);

/// Failures by Service.
#[derive(Debug, Default)]
pub struct Retries {
    failing: HashMap<ObjectName, Failure>,
}

/// Why a Service is not as it should be.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The last error, in words.
    pub error: String,
    /// Whether a table was full.
    pub full: bool,
    /// How often in a row.
    pub attempts: u32,
    due: Instant,
}

impl Retries {
    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&ObjectName, &Failure)> {
        self.failing.iter()
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.failing.len()
    }

    /// Whether all is as it should be.
    pub fn is_empty(&self) -> bool {
        self.failing.is_empty()
    }

    pub(super) fn succeeded(&mut self, service: &ObjectName) {
        self.failing.remove(service);
    }

    pub(super) fn failed(&mut self, service: &ObjectName, error: &MapError, now: Instant) {
        let attempts = self
            .failing
            .get(service)
            .map_or(0, |failure| failure.attempts)
            + 1;
        let failure = Failure {
            error: crate::chain(error),
            full: error.is_full(),
            attempts,
            due: now + delay(attempts),
        };
        self.failing.insert(service.clone(), failure);
    }

    pub(super) fn due(&self, now: Instant) -> Vec<ObjectName> {
        let due = self
            .failing
            .iter()
            .filter(|(_, failure)| failure.due <= now);
        let mut names: Vec<_> = due.map(|(name, _)| name.clone()).collect();
        names.sort_unstable();
        names
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        self.failing.values().map(|failure| failure.due).min()
    }
}

/// Doubles with each attempt.
fn delay(attempts: u32) -> Duration {
    let factor = 1_u32
        .checked_shl(attempts.saturating_sub(1))
        .unwrap_or(u32::MAX);
    FIRST_DELAY.saturating_mul(factor).min(LONGEST_DELAY)
}
