//! A store without durability, for tests.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::mvcc::{self, Mvcc};
use crate::shared::Shared;
use crate::{KeyValue, ListQuery, Outcome, Page, Revision, Store, StoreError, Txn, WatchStream};

/// Keeps everything in memory and forgets it when dropped.
#[derive(Debug)]
pub struct Memory {
    shared: Arc<Shared>,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            shared: Shared::new(Mvcc::default()),
        }
    }
}

#[async_trait]
impl Store for Memory {
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
        Ok(self.shared.update(|mvcc| {
            let current = mvcc.get(&txn.key).cloned();
            match mvcc::decide(txn, current.as_ref(), mvcc.revision() + 1) {
                Ok(event) => {
                    let committed = Outcome::Committed {
                        revision: event.revision,
                        previous: current,
                    };
                    mvcc.apply(Arc::new(event));
                    committed
                }
                Err(conflict) => conflict,
            }
        }))
    }

    async fn watch(&self, prefix: Bytes, from: Revision) -> Result<WatchStream, StoreError> {
        self.shared.watch(prefix, from)
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        self.shared.update(|mvcc| mvcc.compact(revision));
        Ok(())
    }

    async fn close(&self) {}
}
