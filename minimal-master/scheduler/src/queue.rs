//! Pods that wait for a node: ready to try, waiting out a back-off, or parked until something changes.
//!
//! A pod that fits nowhere is parked together with the kinds of change that may help it. Such a
//! change moves it back, through a back-off that grows with each attempt (1 s to 10 s), so that a
//! busy cluster doesn't retry hopeless pods without end. Time is an argument: the queue has no clock.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

use crate::{fit_error::Hints, pod::PodInfo};

const FIRST_BACKOFF: Duration = Duration::from_secs(1);
const LAST_BACKOFF: Duration = Duration::from_secs(10);
/// Parked pods are tried again after this time even if nothing that seemed to matter changed.
const MAX_PARKED: Duration = Duration::from_secs(300);

/// Higher priority first, then first come, first served.
type Rank = (Reverse<i32>, u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Active(Rank),
    Backoff(Instant),
    Parked { since: Instant, hints: Hints },
}

struct Entry {
    pod: Arc<PodInfo>,
    attempts: u32,
    arrival: u64,
    last_attempt: Option<Instant>,
    place: Place,
}

/// See the module's documentation.
#[derive(Default)]
pub struct Queue {
    entries: HashMap<String, Entry>,
    active: BTreeSet<(Rank, String)>,
    backoff: BTreeSet<(Instant, String)>,
    parked: BTreeSet<(Instant, String)>,
    arrivals: u64,
}

/// A pod that was taken out for an attempt; keep it for [`Queue::park`] and [`Queue::retry`].
#[derive(Debug)]
pub struct Attempt {
    /// The pod.
    pub pod: Arc<PodInfo>,
    attempts: u32,
    arrival: u64,
}

impl Queue {
    /// Adds a pod, or takes in its newer version: a change of the pod itself may help, so it is tried soon.
    pub fn add(&mut self, pod: Arc<PodInfo>, now: Instant) {
        if let Some(known) = self.entries.get_mut(&pod.uid) {
            let changed = *known.pod != *pod;
            known.pod = pod.clone();
            if changed {
                self.revive(&pod.uid, now);
            }
            return;
        }
        self.arrivals += 1;
        let arrival = self.arrivals;
        let place = Place::Active((Reverse(pod.priority), arrival));
        self.put(pod, 0, arrival, None, place);
    }

    /// Forgets a pod: bound or deleted.
    pub fn remove(&mut self, uid: &str) {
        if let Some(entry) = self.entries.remove(uid) {
            self.unlink(uid, entry.place);
        }
    }

    /// The next pod to try, if any is ready.
    pub fn pop(&mut self, now: Instant) -> Option<Attempt> {
        self.release(now);
        let (_, uid) = self.active.pop_first()?;
        let entry = self.entries.remove(&uid)?;
        Some(Attempt {
            pod: entry.pod,
            attempts: entry.attempts + 1,
            arrival: entry.arrival,
        })
    }

    /// The pod fits nowhere: parks it until a change that may help.
    pub fn park(&mut self, attempt: Attempt, hints: Hints, now: Instant) {
        let place = Place::Parked { since: now, hints };
        self.put(
            attempt.pod,
            attempt.attempts,
            attempt.arrival,
            Some(now),
            place,
        );
    }

    /// The attempt failed for a reason that passes by itself: tries again after the back-off.
    pub fn retry(&mut self, attempt: Attempt, now: Instant) {
        let place = Place::Backoff(now + backoff(attempt.attempts));
        self.put(
            attempt.pod,
            attempt.attempts,
            attempt.arrival,
            Some(now),
            place,
        );
    }

    /// Something changed: pods that it may help are tried again.
    pub fn wake(&mut self, change: Hints, now: Instant) {
        let helped: Vec<String> = self
            .parked
            .iter()
            .filter(|(_, uid)| {
                self.entries
                    .get(uid)
                    .is_some_and(|entry| entry.is_helped_by(change))
            })
            .map(|(_, uid)| uid.clone())
            .collect();
        for uid in helped {
            self.revive(&uid, now);
        }
    }

    /// When the queue next has something to do by itself.
    pub fn wake_at(&self) -> Option<Instant> {
        let backoff = self.backoff.first().map(|(at, _)| *at);
        let parked = self.parked.first().map(|(since, _)| *since + MAX_PARKED);
        backoff.into_iter().chain(parked).min()
    }

    /// Whether a pod is ready to try.
    pub fn has_ready(&self) -> bool {
        !self.active.is_empty()
    }

    /// Pods in the queue, wherever they wait.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no pod waits.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn release(&mut self, now: Instant) {
        while let Some((at, uid)) = self.backoff.first().cloned() {
            if at > now {
                break;
            }
            self.activate(&uid);
        }
        while let Some((since, uid)) = self.parked.first().cloned() {
            if since + MAX_PARKED > now {
                break;
            }
            self.activate(&uid);
        }
    }

    fn activate(&mut self, uid: &str) {
        if let Some(entry) = self.entries.get(uid) {
            let rank = (Reverse(entry.pod.priority), entry.arrival);
            self.relink(uid, Place::Active(rank));
        }
    }

    /// Moves a parked pod to where it may be tried again: at once, or when its back-off is over.
    fn revive(&mut self, uid: &str, now: Instant) {
        let Some(entry) = self.entries.get(uid) else {
            return;
        };
        if !matches!(entry.place, Place::Parked { .. }) {
            return;
        }
        let ready = entry
            .last_attempt
            .map_or(now, |at| at + backoff(entry.attempts));
        if ready <= now {
            self.activate(uid);
        } else {
            self.relink(uid, Place::Backoff(ready));
        }
    }

    fn put(
        &mut self,
        pod: Arc<PodInfo>,
        attempts: u32,
        arrival: u64,
        last_attempt: Option<Instant>,
        place: Place,
    ) {
        let uid = pod.uid.clone();
        self.remove(&uid);
        self.entries.insert(
            uid.clone(),
            Entry {
                pod,
                attempts,
                arrival,
                last_attempt,
                place,
            },
        );
        self.link(uid, place);
    }

    fn relink(&mut self, uid: &str, place: Place) {
        let Some(entry) = self.entries.get_mut(uid) else {
            return;
        };
        let old = std::mem::replace(&mut entry.place, place);
        self.unlink(uid, old);
        self.link(uid.to_owned(), place);
    }

    fn link(&mut self, uid: String, place: Place) {
        match place {
            Place::Active(rank) => self.active.insert((rank, uid)),
            Place::Backoff(at) => self.backoff.insert((at, uid)),
            Place::Parked { since, .. } => self.parked.insert((since, uid)),
        };
    }

    fn unlink(&mut self, uid: &str, place: Place) {
        match place {
            Place::Active(rank) => self.active.remove(&(rank, uid.to_owned())),
            Place::Backoff(at) => self.backoff.remove(&(at, uid.to_owned())),
            Place::Parked { since, .. } => self.parked.remove(&(since, uid.to_owned())),
        };
    }
}

impl Entry {
    fn is_helped_by(&self, change: Hints) -> bool {
        matches!(self.place, Place::Parked { hints, .. } if hints & change != 0)
    }
}

fn backoff(attempts: u32) -> Duration {
    let factor = 1u32
        .checked_shl(attempts.saturating_sub(1))
        .unwrap_or(u32::MAX);
    FIRST_BACKOFF.saturating_mul(factor).min(LAST_BACKOFF)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::json;

    use super::*;
    use crate::fit_error::{NODE, RESOURCES};

    fn pod(uid: &str, priority: i32) -> Arc<PodInfo> {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"namespace": "ns", "name": uid, "uid": uid},
            "spec": {"priority": priority, "containers": []},
        }))
        .unwrap();
        Arc::new(PodInfo::new(&pod).unwrap())
    }

    fn uid(attempt: Option<Attempt>) -> Option<String> {
        attempt.map(|a| a.pod.uid.clone())
    }

    #[test]
    fn higher_priority_goes_first_then_the_earlier() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        for (name, priority) in [("low", 0), ("high-1", 9), ("high-2", 9)] {
            queue.add(pod(name, priority), now);
        }
        let order: Vec<_> = (0..3).filter_map(|_| uid(queue.pop(now))).collect();
        assert_eq!(order, ["high-1", "high-2", "low"]);
    }

    #[test]
    fn a_parked_pod_wakes_only_by_a_change_that_may_help_and_after_its_backoff() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.add(pod("a", 0), now);
        let attempt = queue.pop(now).unwrap();
        queue.park(attempt, RESOURCES, now);
        queue.wake(NODE, now);
        assert!(queue.pop(now + Duration::from_secs(20)).is_none());
        queue.wake(RESOURCES, now);
        assert!(queue.pop(now).is_none());
        assert_eq!(queue.wake_at(), Some(now + FIRST_BACKOFF));
        assert_eq!(uid(queue.pop(now + FIRST_BACKOFF)), Some("a".into()));
    }

    #[test]
    fn a_parked_pod_is_tried_again_after_five_minutes() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.add(pod("a", 0), now);
        let attempt = queue.pop(now).unwrap();
        queue.park(attempt, RESOURCES, now);
        assert!(
            queue
                .pop(now + MAX_PARKED - Duration::from_secs(1))
                .is_none()
        );
        assert_eq!(uid(queue.pop(now + MAX_PARKED)), Some("a".into()));
    }

    #[test]
    fn a_removed_pod_never_comes_back() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.add(pod("a", 0), now);
        queue.remove("a");
        assert!(queue.pop(now).is_none());
        assert!(queue.is_empty());
        assert!(queue.active.is_empty());
    }
}
