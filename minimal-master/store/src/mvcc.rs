//! The versioned map in memory: every kept version of every key, and the log of events since compaction.
//!
//! Pure, without locks or I/O: both stores are this plus a way to make writes durable. All values live here, so that
//! reads never wait for a disk; `Bytes` shares them with the log and with every reader.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use crate::{
    Event, Expect, FIRST_REVISION, KeyValue, ListQuery, Outcome, Page, Revision, StoreError, Txn,
    WatchBatch, Write,
};

/// What a key held from one revision on; `None` after a deletion.
#[derive(Debug)]
struct Version {
    revision: Revision,
    value: Option<KeyValue>,
}

#[derive(Debug)]
pub(crate) struct Mvcc {
    /// Versions per key, oldest first; never an empty list.
    keys: BTreeMap<Bytes, Vec<Version>>,
    /// The event of revision `compacted + 1 + index`.
    log: VecDeque<Arc<Event>>,
    compacted: Revision,
}

impl Default for Mvcc {
    fn default() -> Self {
        Self::restore(FIRST_REVISION, Vec::new())
    }
}

impl Mvcc {
    /// The state at a compacted revision, before the log is applied to it.
    pub(crate) fn restore(compacted: Revision, objects: Vec<KeyValue>) -> Self {
        let keys = objects
            .into_iter()
            .map(|kv| {
                (
                    kv.key.clone(),
                    vec![Version {
                        revision: kv.mod_revision,
                        value: Some(kv),
                    }],
                )
            })
            .collect();
        Self {
            keys,
            log: VecDeque::new(),
            compacted,
        }
    }

    pub(crate) fn revision(&self) -> Revision {
        self.compacted + self.log.len() as u64
    }

    pub(crate) fn compacted(&self) -> Revision {
        self.compacted
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<&KeyValue> {
        self.keys.get(key)?.last()?.value.as_ref()
    }

    /// Adds the next event. Its revision must be the one that follows.
    pub(crate) fn apply(&mut self, event: Arc<Event>) {
        debug_assert_eq!(event.revision, self.revision() + 1, "revisions are dense");
        let version = Version {
            revision: event.revision,
            value: event.current.clone(),
        };
        self.keys
            .entry(event.key.clone())
            .or_default()
            .push(version);
        self.log.push_back(event);
    }

    pub(crate) fn list(&self, query: &ListQuery) -> Result<Page, StoreError> {
        let revision = query.revision.unwrap_or_else(|| self.revision());
        self.check_readable(revision)?;
        let limit = if query.limit == 0 {
            usize::MAX
        } else {
            query.limit
        };
        let mut page = Page {
            items: Vec::new(),
            revision,
            remaining: 0,
        };
        for kv in self
            .range(query)
            .filter_map(|versions| at(versions, revision))
        {
            if page.items.len() < limit {
                page.items.push(kv.clone());
            } else {
                page.remaining += 1;
            }
        }
        Ok(page)
    }

    fn range(&self, query: &ListQuery) -> impl Iterator<Item = &Vec<Version>> {
        let start = match &query.after {
            Some(after) if *after >= query.prefix => Bound::Excluded(after.clone()),
            _ => Bound::Included(query.prefix.clone()),
        };
        let prefix = query.prefix.clone();
        self.keys
            .range::<Bytes, _>((start, Bound::Unbounded))
            .take_while(move |(key, _)| key.starts_with(&prefix))
            .map(|(_, versions)| versions)
    }

    fn check_readable(&self, requested: Revision) -> Result<(), StoreError> {
        let current = self.revision();
        if requested > current {
            return Err(StoreError::FutureRevision { requested, current });
        }
        if requested < self.compacted {
            return Err(StoreError::Compacted {
                requested,
                compacted: self.compacted,
            });
        }
        Ok(())
    }

    /// At most `max` events from revision `from` on, and the revision up to which they are complete.
    /// `None` when there is nothing new.
    pub(crate) fn events(
        &self,
        prefix: &[u8],
        from: Revision,
        max: usize,
    ) -> Result<Option<WatchBatch>, StoreError> {
        if from <= self.compacted {
            return Err(StoreError::Compacted {
                requested: from,
                compacted: self.compacted,
            });
        }
        let start = (from - self.compacted - 1) as usize;
        if start >= self.log.len() {
            return Ok(None);
        }
        let end = self.log.len().min(start.saturating_add(max));
        let events = self
            .log
            .range(start..end)
            .filter(|event| event.key.starts_with(prefix))
            .cloned()
            .collect();
        let revision = self.compacted + end as u64;
        Ok(Some(WatchBatch { events, revision }))
    }

    /// The log's events up to and including `revision`, for the caller to fold away before [`Mvcc::compact`].
    pub(crate) fn log_until(&self, revision: Revision) -> impl Iterator<Item = &Arc<Event>> {
        self.log
            .iter()
            .take_while(move |event| event.revision <= revision)
    }

    /// Forgets versions that no revision from `revision` on can see. Costs as much as was written until then.
    pub(crate) fn compact(&mut self, revision: Revision) {
        while self
            .log
            .front()
            .is_some_and(|event| event.revision <= revision)
        {
            if let Some(event) = self.log.pop_front() {
                self.compacted = event.revision;
                self.prune(&event.key, revision);
            }
        }
    }

    fn prune(&mut self, key: &Bytes, revision: Revision) {
        let Some(versions) = self.keys.get_mut(key) else {
            return;
        };
        let visible = versions.partition_point(|version| version.revision <= revision);
        if visible == 0 {
            return;
        }
        let dead = versions[visible - 1].value.is_none();
        versions.drain(..if dead { visible } else { visible - 1 });
        if versions.is_empty() {
            self.keys.remove(key);
        }
    }
}

fn at(versions: &[Version], revision: Revision) -> Option<&KeyValue> {
    let visible = versions.partition_point(|version| version.revision <= revision);
    versions.get(visible.checked_sub(1)?)?.value.as_ref()
}

/// Decides a transaction against what its key holds: the event to commit, or the outcome if there is none.
pub(crate) fn decide(
    txn: Txn,
    current: Option<&KeyValue>,
    revision: Revision,
) -> Result<Event, Outcome> {
    let holds = match (txn.expect, current) {
        (Expect::Any, found) => found.is_some() || txn.write != Write::Delete,
        (Expect::Absent, found) => found.is_none() && txn.write != Write::Delete,
        (Expect::Revision(expected), found) => found.is_some_and(|kv| kv.mod_revision == expected),
    };
    if !holds {
        return Err(Outcome::Conflict {
            current: current.cloned(),
        });
    }
    let value = match txn.write {
        Write::Delete => None,
        Write::Put(value) => Some(KeyValue {
            key: txn.key.clone(),
            value,
            create_revision: current.map_or(revision, |kv| kv.create_revision),
            mod_revision: revision,
            version: current.map_or(0, |kv| kv.version) + 1,
        }),
    };
    Ok(Event {
        revision,
        key: txn.key,
        current: value,
        previous: current.cloned(),
    })
}

/// Refuses values that no store takes.
pub(crate) fn check_size(txn: &Txn) -> Result<(), StoreError> {
    match &txn.write {
        Write::Put(value) if value.len() > crate::MAX_VALUE_BYTES => Err(StoreError::TooLarge {
            key: String::from_utf8_lossy(&txn.key).into_owned(),
            size: value.len(),
            limit: crate::MAX_VALUE_BYTES,
        }),
        _ => Ok(()),
    }
}
