//! The master's only memory: MVCC revisions, watch and compaction over an embedded store, behind a small trait.
//!
//! The trait has the shape of etcd's data model, cut down to what an API server needs: one global revision, one key
//! per transaction, a precondition on the key's last revision, and a watch that starts at any revision that was not
//! compacted yet. So every revision belongs to exactly one event, which makes a watch a cursor over the log.

#![forbid(unsafe_code)]

mod embedded;
mod error;
mod memory;
mod mvcc;
mod shared;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;

pub use embedded::{Embedded, Options};
pub use error::StoreError;
pub use memory::Memory;

/// A point in the store's history. The first write gets 2, as in etcd, so that 0 and 1 never name a change.
pub type Revision = u64;

/// The revision of a store that was never written to.
pub const FIRST_REVISION: Revision = 1;

/// The largest value that a store accepts, in bytes (etcd's default request limit).
pub const MAX_VALUE_BYTES: usize = 1536 * 1024;

/// A key with its value at some revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    /// The full key, such as `/registry/pods/default/web-0`.
    pub key: Bytes,
    /// The value; opaque to the store.
    pub value: Bytes,
    /// The revision that created this life of the key.
    pub create_revision: Revision,
    /// The revision of the last change.
    pub mod_revision: Revision,
    /// Number of writes in this life of the key; 1 after creation.
    pub version: u64,
}

/// What must hold for a write to take place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Nothing; but a deletion still needs the key to exist.
    Any,
    /// The key does not exist.
    Absent,
    /// The key exists, and this revision wrote it last.
    Revision(Revision),
}

/// A change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// Sets the value.
    Put(Bytes),
    /// Removes the key.
    Delete,
}

/// One conditional write.
#[derive(Clone, Debug)]
pub struct Txn {
    /// The key to change.
    pub key: Bytes,
    /// The precondition.
    pub expect: Expect,
    /// The change.
    pub write: Write,
}

/// How a conditional write ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The write is durable, at this revision.
    Committed {
        /// The write's own revision.
        revision: Revision,
        /// What the key held before.
        previous: Option<KeyValue>,
    },
    /// The precondition did not hold; nothing changed.
    Conflict {
        /// What the key holds.
        current: Option<KeyValue>,
    },
}

/// One change, as watchers see it. A deletion has no `current`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The revision of the change.
    pub revision: Revision,
    /// The key that changed.
    pub key: Bytes,
    /// The value after the change.
    pub current: Option<KeyValue>,
    /// The value before the change.
    pub previous: Option<KeyValue>,
}

/// What a list returns.
#[derive(Clone, Debug, Default)]
pub struct ListQuery {
    /// Only keys that begin with this.
    pub prefix: Bytes,
    /// Only keys after this one (exclusive); continues an earlier page.
    pub after: Option<Bytes>,
    /// At most this many keys; 0 means all.
    pub limit: usize,
    /// The state at this revision; the newest when `None`.
    pub revision: Option<Revision>,
}

/// One page of a list, in the keys' byte order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The keys and their values.
    pub items: Vec<KeyValue>,
    /// The revision that the page is a snapshot of.
    pub revision: Revision,
    /// How many more keys follow after this page.
    pub remaining: usize,
}

/// Every event under the watched prefix up to and including `revision`, after the batch before.
/// A batch may be empty: it then says that nothing happened under the prefix up to `revision`.
#[derive(Clone, Debug)]
pub struct WatchBatch {
    /// The events, oldest first.
    pub events: Vec<Arc<Event>>,
    /// The watch has seen everything up to this revision.
    pub revision: Revision,
}

/// Batches of events; ends with an error when the watcher fell behind compaction.
pub type WatchStream = BoxStream<'static, Result<WatchBatch, StoreError>>;

/// A revisioned key-value store.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// The newest revision that is durable and visible.
    async fn revision(&self) -> Result<Revision, StoreError>;

    /// The oldest revision that can still be listed; a watch can start one after it.
    async fn compacted_revision(&self) -> Result<Revision, StoreError>;

    /// The newest value of a key.
    async fn get(&self, key: &[u8]) -> Result<Option<KeyValue>, StoreError>;

    /// Keys under a prefix at one revision.
    ///
    /// # Errors
    /// [`StoreError::Compacted`] when the revision's history is gone, [`StoreError::FutureRevision`] when it is yet to come.
    async fn list(&self, query: ListQuery) -> Result<Page, StoreError>;

    /// Writes one key if the precondition holds. A committed write survives any crash.
    async fn txn(&self, txn: Txn) -> Result<Outcome, StoreError>;

    /// Follows the changes under a prefix, beginning with revision `from` (inclusive).
    ///
    /// # Errors
    /// [`StoreError::Compacted`] when `from` is not above the compacted revision; later as the stream's last item
    /// when a slow watcher was overtaken by compaction.
    async fn watch(&self, prefix: Bytes, from: Revision) -> Result<WatchStream, StoreError>;

    /// Forgets the history up to and including `revision`; what is current stays.
    async fn compact(&self, revision: Revision) -> Result<(), StoreError>;

    /// Ends writing: returns when everything accepted is durable and the store can be opened again.
    async fn close(&self);
}
