//! The master's only memory: MVCC revisions, watch and compaction over an embedded store, behind a small trait.
