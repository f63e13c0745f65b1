//! The objects of one resource and their recent changes.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;
use sluice_store::{Event, KeyValue, Revision};
use tokio::sync::watch;

use super::digest::Fields;
use super::entry::{Action, Change, Entry};

/// Changes kept per resource for watchers that resume or are slow.
const KEPT: usize = 16_384;

/// A watcher's position is older than the oldest kept change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Expired {
    pub(crate) requested: Revision,
    pub(crate) oldest: Revision,
}

/// A consistent view of a resource.
pub(crate) struct Snapshot {
    pub(crate) revision: Revision,
    pub(crate) entries: Vec<Arc<Entry>>,
}

pub(crate) struct Shard {
    fields: Fields,
    state: RwLock<State>,
    bell: watch::Sender<Revision>,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<Bytes, Arc<Entry>>,
    /// Every change above `floor`, oldest first.
    changes: VecDeque<Arc<Change>>,
    floor: Revision,
}

impl State {
    fn last(&self) -> Revision {
        self.changes
            .back()
            .map_or(self.floor, |change| change.revision)
    }
}

impl Shard {
    pub(super) fn new(fields: Fields) -> Self {
        Self {
            fields,
            state: RwLock::default(),
            bell: watch::Sender::new(0),
        }
    }

    // Nothing panics half-way through a change, so a poisoned state is still whole.
    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Empties the shard; watchers from before the revision have to start anew.
    pub(super) fn reset(&self, floor: Revision) {
        *self.write() = State {
            floor,
            ..State::default()
        };
        self.bell.send_replace(floor);
    }

    pub(super) fn load(&self, kv: &KeyValue) {
        let entry = Entry::new(kv, &self.fields);
        self.write().objects.insert(entry.key.clone(), entry);
    }

    pub(super) fn apply(&self, event: &Event) {
        let new = event
            .current
            .as_ref()
            .map(|kv| Entry::new(kv, &self.fields));
        let mut state = self.write();
        let old = state.objects.get(&event.key).cloned();
        let change = match (new, old) {
            (Some(new), old) => {
                state.objects.insert(new.key.clone(), new.clone());
                let action = if old.is_some() {
                    Action::Modified
                } else {
                    Action::Added
                };
                Change::new(action, new, old)
            }
            (None, Some(old)) => {
                state.objects.remove(&event.key);
                Change::new(Action::Deleted, old.at(event.revision), Some(old))
            }
            (None, None) => return,
        };
        state.changes.push_back(change);
        if state.changes.len() > KEPT
            && let Some(oldest) = state.changes.pop_front()
        {
            state.floor = oldest.revision;
        }
        drop(state);
        self.bell.send_replace(event.revision);
    }

    /// The objects under a prefix, and the revision of this view: the cache's, or that of the last change here when
    /// that is newer. The caller reads the cache's revision before.
    pub(crate) fn snapshot(&self, prefix: &Bytes, cache_revision: Revision) -> Snapshot {
        let state = self.read();
        let range = (Bound::Included(prefix.clone()), Bound::Unbounded);
        let entries = state
            .objects
            .range::<Bytes, _>(range)
            .take_while(|(key, _)| key.starts_with(prefix))
            .map(|(_, entry)| entry.clone())
            .collect();
        Snapshot {
            revision: cache_revision.max(state.last()),
            entries,
        }
    }

    pub(crate) fn get(&self, key: &Bytes) -> Option<Arc<Entry>> {
        self.read().objects.get(key).cloned()
    }

    /// At most `max` changes after a revision, oldest first.
    pub(super) fn after(
        &self,
        revision: Revision,
        max: usize,
    ) -> Result<Vec<Arc<Change>>, Expired> {
        let state = self.read();
        if revision < state.floor {
            return Err(Expired {
                requested: revision,
                oldest: state.floor,
            });
        }
        let start = state
            .changes
            .partition_point(|change| change.revision <= revision);
        Ok(state.changes.range(start..).take(max).cloned().collect())
    }

    pub(super) fn bell(&self) -> watch::Receiver<Revision> {
        self.bell.subscribe()
    }
}
