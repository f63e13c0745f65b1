//! The versioned map behind a lock, with a bell that rings for watchers.
//!
//! A watcher is a cursor into the shared log: it owns no buffer, so a slow one costs nothing and can't lose events
//! unnoticed. It either catches up, or compaction overtakes it and it is told so.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;
use futures::StreamExt;
use tokio::sync::watch;

use crate::mvcc::Mvcc;
use crate::{Event, Revision, StoreError, WatchBatch, WatchStream};

/// How many log entries a watcher looks at while it holds the lock.
const BATCH: usize = 1024;

#[derive(Debug)]
pub(crate) struct Shared {
    mvcc: RwLock<Mvcc>,
    bell: watch::Sender<Revision>,
}

impl Shared {
    pub(crate) fn new(mvcc: Mvcc) -> Arc<Self> {
        let bell = watch::Sender::new(mvcc.revision());
        Arc::new(Self {
            mvcc: RwLock::new(mvcc),
            bell,
        })
    }

    // No code panics while it holds the lock half-way through a change, so a poisoned map is still whole.
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Mvcc> {
        self.mvcc.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Mvcc> {
        self.mvcc.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes events visible to readers, then wakes the watchers.
    pub(crate) fn publish(&self, events: Vec<Event>) {
        let revision = {
            let mut mvcc = self.write();
            events
                .into_iter()
                .for_each(|event| mvcc.apply(Arc::new(event)));
            mvcc.revision()
        };
        self.bell.send_replace(revision);
    }

    /// Runs one decision and its publication under the lock, for stores whose writes need no disk.
    pub(crate) fn update<T>(&self, change: impl FnOnce(&mut Mvcc) -> T) -> T {
        let (result, revision) = {
            let mut mvcc = self.write();
            (change(&mut mvcc), mvcc.revision())
        };
        self.bell
            .send_if_modified(|seen| std::mem::replace(seen, revision) != revision);
        result
    }

    pub(crate) fn watch(
        self: &Arc<Self>,
        prefix: Bytes,
        from: Revision,
    ) -> Result<WatchStream, StoreError> {
        self.read().events(&prefix, from, 0)?;
        let cursor = Cursor {
            shared: self.clone(),
            bell: self.bell.subscribe(),
            prefix,
            next: from,
            failed: false,
        };
        Ok(futures::stream::unfold(cursor, Cursor::step).boxed())
    }
}

struct Cursor {
    shared: Arc<Shared>,
    bell: watch::Receiver<Revision>,
    prefix: Bytes,
    next: Revision,
    failed: bool,
}

impl Cursor {
    async fn step(mut self) -> Option<(Result<WatchBatch, StoreError>, Self)> {
        if self.failed {
            return None;
        }
        loop {
            // Seen before the log is read: a ring in between is not missed.
            self.bell.borrow_and_update();
            let found = self.shared.read().events(&self.prefix, self.next, BATCH);
            match found {
                Ok(Some(batch)) => {
                    self.next = batch.revision + 1;
                    return Some((Ok(batch), self));
                }
                Ok(None) => self.bell.changed().await.ok()?,
                Err(error) => {
                    self.failed = true;
                    return Some((Err(error), self));
                }
            }
        }
    }
}
