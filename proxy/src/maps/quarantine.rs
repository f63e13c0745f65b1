//! Things that are free, but not just yet.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Holds ids and ranges back until no program can still be reading them.
#[derive(Clone, Debug)]
pub struct Quarantine<T> {
    grace: Duration,
    held: VecDeque<(Instant, T)>,
}

impl<T> Quarantine<T> {
    /// Holds each thing for `grace`.
    pub const fn new(grace: Duration) -> Self {
        Self {
            grace,
            held: VecDeque::new(),
        }
    }

    /// Takes in something that went out of use at `now`; calls come in the order of time.
    pub fn push(&mut self, now: Instant, item: T) {
        self.held.push_back((now + self.grace, item));
    }

    /// What may be reused at `now`.
    pub fn pop_ready(&mut self, now: Instant) -> Option<T> {
        self.held.front().filter(|(ready, _)| *ready <= now)?;
        self.held.pop_front().map(|(_, item)| item)
    }

    /// When the next thing may be reused.
    pub fn next_ready(&self) -> Option<Instant> {
        self.held.front().map(|(ready, _)| *ready)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_leaves_before_its_time() {
        let start = Instant::now();
        let mut quarantine = Quarantine::new(Duration::from_secs(1));
        quarantine.push(start, "a");
        quarantine.push(start + Duration::from_secs(1), "b");
        assert_eq!(quarantine.pop_ready(start), None);
        assert_eq!(
            quarantine.pop_ready(start + Duration::from_secs(1)),
            Some("a")
        );
        assert_eq!(quarantine.pop_ready(start + Duration::from_secs(1)), None);
        assert_eq!(
            quarantine.next_ready(),
            Some(start + Duration::from_secs(2))
        );
    }
}
