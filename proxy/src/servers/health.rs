//! Whether the agent keeps up with the cluster.
//!
//! As kube-proxy sees it: healthy while it starts and while nothing is pending, unhealthy when a
//! change has been waiting for longer than [`TIMEOUT`]. "Eligible" says whether load balancers should
//! send new connections to this node (KEP-3836).

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;

/// How long a change may wait (kube-proxy: twice its sync period).
pub const TIMEOUT: Duration = Duration::from_secs(60);

/// The agent's health; shared with the servers.
#[derive(Debug, Default)]
pub struct Health {
    state: Mutex<State>,
}

#[derive(Clone, Debug, Default)]
struct State {
    pending_since: Option<Instant>,
    last_updated: Option<Timestamp>,
    synced: bool,
    leaving: bool,
}

/// A look at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Changes are written in time.
    pub healthy: bool,
    /// The node should get traffic from load balancers.
    pub eligible: bool,
    /// Everything has been written once.
    pub synced: bool,
    /// When the maps were last known to be up to date.
    pub last_updated: Timestamp,
    /// Now.
    pub current_time: Timestamp,
}

impl Health {
    /// A change has come in.
    pub fn queued(&self, now: Instant) {
        self.change(|state| _ = state.pending_since.get_or_insert(now));
    }

    /// All changes have been written.
    pub fn updated(&self, at: Timestamp) {
        self.change(|state| {
            state.pending_since = None;
            state.last_updated = Some(at);
            state.synced = true;
        });
    }

    /// Whether the node is about to go.
    pub fn set_leaving(&self, leaving: bool) {
        self.change(|state| state.leaving = leaving);
    }

    /// Judges.
    pub fn verdict(&self, now: Instant, at: Timestamp) -> Verdict {
        let state = self
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let waiting = state
            .pending_since
            .map(|since| now.saturating_duration_since(since));
        Verdict {
            healthy: waiting.is_none_or(|waiting| waiting < TIMEOUT),
            eligible: !state.leaving,
            synced: state.synced,
            last_updated: if waiting.is_none() {
                at
            } else {
                state.last_updated.unwrap_or(Timestamp::UNIX_EPOCH)
            },
            current_time: at,
        }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_that_waits_too_long_is_ill_health_until_it_is_written() {
        let (health, start, at) = (Health::default(), Instant::now(), Timestamp::UNIX_EPOCH);
        assert!(health.verdict(start, at).healthy, "starting up");
        health.queued(start);
        health.queued(start + TIMEOUT / 2);
        assert!(health.verdict(start + TIMEOUT / 2, at).healthy);
        assert!(!health.verdict(start + TIMEOUT, at).healthy);
        health.updated(at);
        assert!(health.verdict(start + 2 * TIMEOUT, at).healthy);
    }
}
