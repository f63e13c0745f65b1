//! The database file: what is written for a group of changes, and how the map is read back.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use redb::{Builder, Database, ReadableDatabase, ReadableTable, TableDefinition};

use super::record;
use crate::mvcc::Mvcc;
use crate::{Event, FIRST_REVISION, KeyValue, Revision, StoreError};

const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
const OBJECTS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("objects");
const LOG: TableDefinition<u64, &[u8]> = TableDefinition::new("log");

const FORMAT: u64 = 1;
/// All reads come from memory, so the file needs few pages in memory.
const CACHE_BYTES: usize = 16 << 20;

pub(super) struct Journal {
    database: Database,
}

impl Journal {
    pub(super) fn open(path: &Path) -> Result<(Self, Mvcc), StoreError> {
        let database = Builder::new()
            .set_cache_size(CACHE_BYTES)
            .create(path)
            .map_err(|error| StoreError::Open {
                path: path.to_owned(),
                source: Arc::new(error.into()),
            })?;
        let journal = Self { database };
        journal.prepare()?;
        let mvcc = journal.load()?;
        Ok((journal, mvcc))
    }

    /// Creates the tables of a new file.
    fn prepare(&self) -> Result<(), StoreError> {
        let txn = self.database.begin_write().map_err(StoreError::disk)?;
        {
            let mut meta = txn.open_table(META).map_err(StoreError::disk)?;
            let format = meta
                .get("format")
                .map_err(StoreError::disk)?
                .map(|value| value.value());
            match format {
                Some(FORMAT) => return Ok(()),
                Some(other) => {
                    return Err(StoreError::Format(format!(
                        "format {other}, expected {FORMAT}"
                    )));
                }
                None => {}
            }
            meta.insert("format", FORMAT).map_err(StoreError::disk)?;
            meta.insert("compacted", FIRST_REVISION)
                .map_err(StoreError::disk)?;
            txn.open_table(OBJECTS).map_err(StoreError::disk)?;
            txn.open_table(LOG).map_err(StoreError::disk)?;
        }
        txn.commit().map_err(StoreError::disk)
    }

    fn load(&self) -> Result<Mvcc, StoreError> {
        let txn = self.database.begin_read().map_err(StoreError::disk)?;
        let meta = txn.open_table(META).map_err(StoreError::disk)?;
        let compacted = meta
            .get("compacted")
            .map_err(StoreError::disk)?
            .map_or(FIRST_REVISION, |value| value.value());
        let objects = txn.open_table(OBJECTS).map_err(StoreError::disk)?;
        let mut mvcc = Mvcc::restore(compacted, load_objects(&objects)?);
        for entry in txn
            .open_table(LOG)
            .map_err(StoreError::disk)?
            .iter()
            .map_err(StoreError::disk)?
        {
            let (revision, data) = entry.map_err(StoreError::disk)?;
            replay(
                &mut mvcc,
                revision.value(),
                Bytes::copy_from_slice(data.value()),
            )?;
        }
        Ok(mvcc)
    }

    /// Makes a group of changes durable: one commit, one fsync.
    pub(super) fn append(&self, events: &[Event]) -> Result<(), StoreError> {
        let txn = self.database.begin_write().map_err(StoreError::disk)?;
        {
            let mut log = txn.open_table(LOG).map_err(StoreError::disk)?;
            let mut buffer = BytesMut::new();
            for event in events {
                buffer.clear();
                record::encode_change(&event.key, event.current.as_ref(), &mut buffer);
                log.insert(event.revision, &buffer[..])
                    .map_err(StoreError::disk)?;
            }
        }
        txn.commit().map_err(StoreError::disk)
    }

    /// Folds the oldest changes into the objects. `revision` is the last of them.
    pub(super) fn fold(&self, events: &[Arc<Event>], revision: Revision) -> Result<(), StoreError> {
        let last: BTreeMap<&Bytes, &Arc<Event>> =
            events.iter().map(|event| (&event.key, event)).collect();
        let txn = self.database.begin_write().map_err(StoreError::disk)?;
        {
            let mut objects = txn.open_table(OBJECTS).map_err(StoreError::disk)?;
            let mut buffer = BytesMut::new();
            for (key, event) in last {
                match &event.current {
                    Some(kv) => {
                        buffer.clear();
                        record::encode_object(kv, &mut buffer);
                        objects
                            .insert(&key[..], &buffer[..])
                            .map_err(StoreError::disk)?;
                    }
                    None => drop(objects.remove(&key[..]).map_err(StoreError::disk)?),
                }
            }
            let mut log = txn.open_table(LOG).map_err(StoreError::disk)?;
            for event in events {
                log.remove(event.revision).map_err(StoreError::disk)?;
            }
            let mut meta = txn.open_table(META).map_err(StoreError::disk)?;
            meta.insert("compacted", revision)
                .map_err(StoreError::disk)?;
        }
        txn.commit().map_err(StoreError::disk)
    }
}

fn load_objects(
    table: &impl ReadableTable<&'static [u8], &'static [u8]>,
) -> Result<Vec<KeyValue>, StoreError> {
    let entries = table.iter().map_err(StoreError::disk)?;
    entries
        .map(|entry| {
            let (key, data) = entry.map_err(StoreError::disk)?;
            record::decode_object(
                Bytes::copy_from_slice(key.value()),
                Bytes::copy_from_slice(data.value()),
            )
        })
        .collect()
}

fn replay(mvcc: &mut Mvcc, revision: Revision, data: Bytes) -> Result<(), StoreError> {
    let expected = mvcc.revision() + 1;
    if revision != expected {
        return Err(StoreError::Format(format!(
            "the log goes on with revision {revision}, expected {expected}"
        )));
    }
    let (key, current) = record::decode_change(data)?;
    let previous = mvcc.get(&key).cloned();
    mvcc.apply(Arc::new(Event {
        revision,
        key,
        current,
        previous,
    }));
    Ok(())
}
