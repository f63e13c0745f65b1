//! What can go wrong in a store.

use std::path::PathBuf;
use std::sync::Arc;

use crate::Revision;

/// A store's failure. Only [`StoreError::Compacted`] and [`StoreError::FutureRevision`] are the caller's doing.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The history that was asked for is gone; list again and go on from there.
    #[error("revision {requested} has been compacted; the oldest kept revision is {compacted}")]
    Compacted {
        /// What was asked for.
        requested: Revision,
        /// What is the oldest.
        compacted: Revision,
    },
    /// The revision does not exist yet.
    #[error("revision {requested} is newer than the newest revision {current}")]
    FutureRevision {
        /// What was asked for.
        requested: Revision,
        /// What is the newest.
        current: Revision,
    },
    /// The value is too large to be stored.
    #[error("the value of {key} is {size} bytes, more than the limit of {limit} bytes")]
    TooLarge {
        /// Which key.
        key: String,
        /// Its value's size.
        size: usize,
        /// The limit.
        limit: usize,
    },
    /// The database file can't be opened.
    #[error("cannot open the database {path}: {source}")]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Arc<redb::Error>,
    },
    /// The database file is not what this version writes.
    #[error("the database is damaged or of another format: {0}")]
    Format(String),
    /// A write did not reach the disk. No later write is accepted until the store is opened again,
    /// because only a new read of the file tells what it holds.
    #[error("cannot write to the database: {0}")]
    Disk(Arc<redb::Error>),
    /// The store was closed, or an earlier disk error closed it.
    #[error("the store is closed")]
    Closed,
}

impl StoreError {
    pub(crate) fn disk(error: impl Into<redb::Error>) -> Self {
        Self::Disk(Arc::new(error.into()))
    }
}
