//! Exponential back-off for container restarts and image pulls: 10 s doubling to 5 min, forgotten after 10 min
//! without use (upstream's `MaxContainerBackOff` and `flowcontrol.Backoff`).

use std::collections::HashMap;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

/// First delay.
const INITIAL: SignedDuration = SignedDuration::from_secs(10);
/// Longest delay.
const MAXIMUM: SignedDuration = SignedDuration::from_secs(300);
/// An entry that was not used for this long starts over.
const FORGOTTEN: SignedDuration = SignedDuration::from_secs(600);

#[derive(Clone, Copy, Debug)]
struct Entry {
    delay: SignedDuration,
    updated: Timestamp,
}

/// Delays by key (a container's name, or an image).
#[derive(Clone, Debug, Default)]
pub struct Backoff {
    entries: HashMap<String, Entry>,
}

impl Backoff {
    /// The delay in force for `key` and when it ends, counted from `since` (when the container ended); `None`
    /// when `key` may be tried at `now`.
    pub fn pending(
        &self,
        key: &str,
        since: Timestamp,
        now: Timestamp,
    ) -> Option<(SignedDuration, Timestamp)> {
        let entry = self
            .entries
            .get(key)
            .filter(|entry| !expired(entry, since))?;
        let until = since.checked_add(entry.delay).ok()?;
        (now < until).then_some((entry.delay, until))
    }

    /// Notes that `key` is tried again at `now`, after it ended at `since`: the next delay is longer.
    pub fn advance(&mut self, key: &str, since: Timestamp, now: Timestamp) {
        let known = self.entries.get(key).filter(|entry| !expired(entry, since));
        let delay = known.map_or(INITIAL, |entry| (entry.delay * 2).min(MAXIMUM));
        self.entries.insert(
            key.to_owned(),
            Entry {
                delay,
                updated: now,
            },
        );
    }

    /// Forgets `key`.
    pub fn reset(&mut self, key: &str) {
        self.entries.remove(key);
    }
}

/// A container that ran for ten minutes after its last restart starts over.
fn expired(entry: &Entry, since: Timestamp) -> bool {
    since.duration_since(entry.updated) > FORGOTTEN
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + seconds).unwrap()
    }

    /// Delays seen by a container that ends as soon as it is started.
    fn delays(crashes: usize) -> Vec<i64> {
        let mut backoff = Backoff::default();
        let mut now = at(0);
        let mut seen = Vec::new();
        for _ in 0..crashes {
            let ended = now;
            if let Some((delay, until)) = backoff.pending("c", ended, now) {
                seen.push(delay.as_secs());
                assert!(backoff.pending("c", ended, until).is_none());
                now = until;
            }
            backoff.advance("c", ended, now);
        }
        seen
    }

    #[test]
    fn the_first_restart_is_immediate_and_delays_double_to_five_minutes() {
        assert_eq!(delays(8), [10, 20, 40, 80, 160, 300, 300]);
    }

    #[test]
    fn ten_minutes_of_running_forget_the_crashes() {
        let mut backoff = Backoff::default();
        backoff.advance("c", at(0), at(0));
        backoff.advance("c", at(10), at(10));
        assert!(backoff.pending("c", at(100), at(101)).is_some());
        assert!(backoff.pending("c", at(611), at(611)).is_none());
        backoff.advance("c", at(611), at(611));
        assert_eq!(backoff.pending("c", at(612), at(612)).unwrap().0, INITIAL);
    }

    #[test]
    fn keys_do_not_share_delays() {
        let mut backoff = Backoff::default();
        backoff.advance("a", at(0), at(0));
        assert!(backoff.pending("b", at(0), at(0)).is_none());
        backoff.reset("a");
        assert!(backoff.pending("a", at(0), at(0)).is_none());
    }
}
