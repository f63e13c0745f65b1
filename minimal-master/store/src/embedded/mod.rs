//! A durable store in one file of one process, on redb.
//!
//! Reads and watches come from memory; the file is only there to survive. One thread owns it: it takes every write that
//! waits, decides them in order, and makes them durable with one fsync, so many writers share its cost. A write
//! is visible, watched and acknowledged only after that.
//!
//! On disk, `objects` is the state at the compacted revision, and `log` holds every change after it. A write
//! is thus one insertion at the right edge of one tree; compaction folds the log's beginning into `objects`.

mod compactor;
mod journal;
mod record;
mod writer;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use crate::mvcc;
use crate::shared::Shared;
use crate::{KeyValue, ListQuery, Outcome, Page, Revision, Store, StoreError, Txn, WatchStream};
use journal::Journal;
use writer::Request;

/// How much history is kept for watchers that come back.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// History younger than this is kept (etcd's clients expect five minutes).
    pub keep_age: Duration,
    /// The newest so many revisions are kept whatever their age.
    pub keep_revisions: u64,
    /// No more revisions than this are kept, which bounds memory under a storm of writes.
    pub max_revisions: u64,
    /// How often history is looked at; zero turns automatic compaction off.
    pub compact_every: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            keep_age: Duration::from_secs(300),
            keep_revisions: 1_000,
            max_revisions: 100_000,
            compact_every: Duration::from_secs(15),
        }
    }
}

/// Writers that may wait for the thread before further ones are held back.
const QUEUE: usize = 4096;

/// The embedded store. Dropping it ends its thread after the writes that were already accepted.
#[derive(Debug)]
pub struct Embedded {
    shared: Arc<Shared>,
    requests: mpsc::Sender<Request>,
}

impl Embedded {
    /// Opens or creates the database file, and starts the writer and, inside a tokio runtime, the compactor.
    ///
    /// # Errors
    /// When the file can't be opened, is open in another process, or is of another format.
    pub fn open(path: impl AsRef<Path>, options: Options) -> Result<Self, StoreError> {
        let (journal, mvcc) = Journal::open(path.as_ref())?;
        let shared = Shared::new(mvcc);
        let (requests, queue) = mpsc::channel(QUEUE);
        writer::spawn(journal, shared.clone(), queue);
        if !options.compact_every.is_zero() {
            compactor::spawn(shared.clone(), requests.downgrade(), options);
        }
        Ok(Self { shared, requests })
    }

    async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<T>) -> Request,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.requests
            .send(request(reply))
            .await
            .map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)
    }
}

#[async_trait]
impl Store for Embedded {
    async fn revision(&self) -> Result<Revision, StoreError> {
        Ok(self.shared.read().revision())
    }

    async fn compacted_revision(&self) -> Result<Revision, StoreError> {
        Ok(self.shared.read().compacted())
    }

    async fn get(&self, key: &[u8]) -> Result<Option<KeyValue>, StoreError> {
        Ok(self.shared.read().get(key).cloned())
    }

    async fn list(&self, query: ListQuery) -> Result<Page, StoreError> {
        self.shared.read().list(&query)
    }

    async fn txn(&self, txn: Txn) -> Result<Outcome, StoreError> {
        mvcc::check_size(&txn)?;
        self.ask(|reply| Request::Txn(txn, reply)).await?
    }

    async fn watch(&self, prefix: Bytes, from: Revision) -> Result<WatchStream, StoreError> {
        self.shared.watch(prefix, from)
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        loop {
            let compacted = self.shared.read().compacted();
            if compacted >= revision.min(self.shared.read().revision()) {
                return Ok(());
            }
            let step = revision.min(compacted + compactor::STEP);
            self.ask(|reply| Request::Compact(step, reply)).await??;
        }
    }

    async fn close(&self) {
        let (closed, wait) = oneshot::channel();
        if self.requests.send(Request::Close(closed)).await.is_ok() {
            let _ = wait.await;
        }
    }
}
