//! What can go wrong with a table.

use std::io;

/// A table's operation failed; nothing was changed. All are worth a retry.
#[derive(Debug, thiserror::Error)]
pub enum MapError {
    /// No room for another entry.
    #[error("map {map} is full (capacity {capacity}); raise it with the agent's capacity settings")]
    Full {
        /// The map's name.
        map: &'static str,
        /// Its number of entries.
        capacity: u32,
    },
    /// An index, id or range outside of the table.
    #[error("map {map} has no entry {index} (capacity {capacity})")]
    OutOfBounds {
        /// The map's name.
        map: &'static str,
        /// The first index that is not there.
        index: u64,
        /// Its number of entries.
        capacity: u32,
    },
    /// The map holds bytes that no version of the agent wrote.
    #[error("map {map} holds an entry that cannot be read: {what}")]
    Corrupt {
        /// The map's name.
        map: &'static str,
        /// What was found.
        what: String,
    },
    /// The kernel refused.
    #[error("cannot {operation} map {map}")]
    Kernel {
        /// The map's name.
        map: &'static str,
        /// What was tried.
        operation: &'static str,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// A failure on purpose, by [`super::faulty::Faulty`].
    #[error("injected failure of {operation}")]
    Injected {
        /// The operation that failed.
        operation: &'static str,
    },
}

impl MapError {
    /// Whether the table has no room: the object that did not fit should be named to the operator.
    pub const fn is_full(&self) -> bool {
        matches!(self, Self::Full { .. })
    }
}
