//! A work queue of keys: each key is worked on by one worker at a time, however often it is added.
//!
//! The rules are client-go's: a key added while it waits is merged, a key added while it is being
//! worked on waits until that is done, failures come back after an exponentially growing delay.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    hash::Hash,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

const BASE_DELAY: Duration = Duration::from_millis(5);
/// client-go waits up to 1000 s; a master this small can afford to look again sooner.
const MAX_DELAY: Duration = Duration::from_secs(30);

struct State<T> {
    ready: VecDeque<T>,
    /// Waiting or to be re-added once done: everything that still needs work.
    dirty: HashSet<T>,
    processing: HashSet<T>,
    delayed: BTreeMap<(Instant, u64), T>,
    due: HashMap<T, (Instant, u64)>,
    failures: HashMap<T, u32>,
    sequence: u64,
    closed: bool,
}

/// See the module's documentation.
pub struct WorkQueue<T> {
    state: Mutex<State<T>>,
    changed: Notify,
}

impl<T: Clone + Eq + Hash> Default for WorkQueue<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Clone + Eq + Hash> WorkQueue<T> {
    /// An empty queue.
    pub fn new() -> Self {
        Self {
            state: Mutex::new(State {
                ready: VecDeque::new(),
                dirty: HashSet::new(),
                processing: HashSet::new(),
                delayed: BTreeMap::new(),
                due: HashMap::new(),
                failures: HashMap::new(),
                sequence: 0,
                closed: false,
            }),
            changed: Notify::new(),
        }
    }

    /// Adds a key to be worked on as soon as a worker is free.
    pub fn add(&self, key: T) {
        let mut state = self.lock();
        if enqueue(&mut state, key) {
            self.changed.notify_one();
        }
    }

    /// Adds a key after a delay; of several delays for one key the earliest counts.
    pub fn add_after(&self, key: T, delay: Duration) {
        if delay.is_zero() {
            return self.add(key);
        }
        let mut state = self.lock();
        let at = Instant::now() + delay;
        if let Some(known) = state.due.get(&key).copied() {
            if known.0 <= at {
                return;
            }
            state.delayed.remove(&known);
        }
        state.sequence += 1;
        let slot = (at, state.sequence);
        state.due.insert(key.clone(), slot);
        state.delayed.insert(slot, key);
        self.changed.notify_one();
    }

    /// Adds a key that failed, after a delay that doubles with each failure since [`WorkQueue::forget`].
    pub fn add_rate_limited(&self, key: T) {
        let failures = {
            let mut state = self.lock();
            let failures = state.failures.entry(key.clone()).or_insert(0);
            *failures += 1;
            *failures
        };
        self.add_after(key, backoff(failures));
    }

    /// The key succeeded: its next failure starts from the shortest delay.
    pub fn forget(&self, key: &T) {
        self.lock().failures.remove(key);
    }

    /// The next key, or `None` once the queue is closed. Pair with [`WorkQueue::done`].
    pub async fn next(&self) -> Option<T> {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            // Register before looking, so that an addition in between is not missed.
            changed.as_mut().enable();
            let wake_at = {
                let mut state = self.lock();
                if state.closed {
                    return None;
                }
                let wake_at = release_due(&mut state);
                if let Some(key) = take(&mut state) {
                    if !state.ready.is_empty() {
                        self.changed.notify_one();
                    }
                    return Some(key);
                }
                wake_at
            };
            match wake_at {
                None => changed.await,
                Some(at) => tokio::select! {
                    () = changed => {}
                    () = tokio::time::sleep_until(at) => {}
                },
            }
        }
    }

    /// Ends the work on a key; it is queued again when it was added meanwhile.
    pub fn done(&self, key: &T) {
        let mut state = self.lock();
        state.processing.remove(key);
        if state.dirty.contains(key) {
            state.ready.push_back(key.clone());
            self.changed.notify_one();
        }
    }

    /// Wakes all workers with `None`.
    pub fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn enqueue<T: Clone + Eq + Hash>(state: &mut State<T>, key: T) -> bool {
    if !state.dirty.insert(key.clone()) || state.processing.contains(&key) {
        return false;
    }
    state.ready.push_back(key);
    true
}

fn take<T: Clone + Eq + Hash>(state: &mut State<T>) -> Option<T> {
    let key = state.ready.pop_front()?;
    state.dirty.remove(&key);
    state.processing.insert(key.clone());
    Some(key)
}

fn release_due<T: Clone + Eq + Hash>(state: &mut State<T>) -> Option<Instant> {
    let now = Instant::now();
    while let Some((&slot, _)) = state.delayed.first_key_value() {
        if slot.0 > now {
            return Some(slot.0);
        }
        if let Some(key) = state.delayed.remove(&slot) {
            state.due.remove(&key);
            enqueue(state, key);
        }
    }
    None
}

fn backoff(failures: u32) -> Duration {
    let factor = 1u32
        .checked_shl(failures.saturating_sub(1))
        .unwrap_or(u32::MAX);
    BASE_DELAY.saturating_mul(factor).min(MAX_DELAY)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap()
    }

    #[test]
    fn a_key_added_twice_is_handed_out_once() {
        runtime().block_on(async {
            let queue = WorkQueue::new();
            queue.add("a");
            queue.add("a");
            queue.add("b");
            assert_eq!(queue.next().await, Some("a"));
            assert_eq!(queue.next().await, Some("b"));
            let idle = tokio::time::timeout(Duration::from_secs(1), queue.next()).await;
            assert!(idle.is_err());
        });
    }

    #[test]
    fn a_key_added_during_its_work_comes_back_only_after_it_is_done() {
        runtime().block_on(async {
            let queue = WorkQueue::new();
            queue.add("a");
            let key = queue.next().await.unwrap();
            queue.add("a");
            let early = tokio::time::timeout(Duration::from_secs(1), queue.next()).await;
            assert!(early.is_err());
            queue.done(&key);
            assert_eq!(queue.next().await, Some("a"));
        });
    }

    #[test]
    fn of_two_delays_the_earlier_counts_and_only_once() {
        runtime().block_on(async {
            let queue = WorkQueue::new();
            let start = Instant::now();
            queue.add_after("a", Duration::from_secs(9));
            queue.add_after("a", Duration::from_secs(2));
            queue.add_after("a", Duration::from_secs(5));
            assert_eq!(queue.next().await, Some("a"));
            assert_eq!(start.elapsed().as_secs(), 2);
            queue.done(&"a");
            let again = tokio::time::timeout(Duration::from_secs(20), queue.next()).await;
            assert!(again.is_err());
        });
    }

    #[test]
    fn failures_wait_longer_each_time_until_forgotten() {
        assert_eq!(backoff(1), BASE_DELAY);
        assert_eq!(backoff(3), BASE_DELAY * 4);
        assert_eq!(backoff(200), MAX_DELAY);
    }

    #[test]
    fn closing_wakes_every_worker() {
        runtime().block_on(async {
            let queue = std::sync::Arc::new(WorkQueue::<u8>::new());
            let workers: Vec<_> = (0..3)
                .map(|_| {
                    let queue = queue.clone();
                    tokio::spawn(async move { queue.next().await })
                })
                .collect();
            tokio::task::yield_now().await;
            queue.close();
            for worker in workers {
                assert_eq!(worker.await.unwrap(), None);
            }
        });
    }
}
