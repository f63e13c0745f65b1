//! Everything that is stored, decoded far enough to be listed, watched and selected, with recent changes per resource.
//!
//! One task follows the whole store and keeps this up to date; lists and watches are answered from here. The revision of
//! the cache is global: once it is at N, every resource shows every change up to N.

mod digest;
mod entry;
mod shard;
mod watcher;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use sluice_api::{ApiError, Kind, kinds};
use sluice_store::{Event, ListQuery, Revision, Store, StoreError};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub(crate) use entry::{Action, Change, Entry, line};
pub(crate) use shard::{Expired, Shard, Snapshot};
pub(crate) use watcher::Watcher;

use crate::keys;

/// How long a reader waits for the cache to reach a revision (upstream's limit).
const WAIT: Duration = Duration::from_secs(3);
/// Pause before the store is followed again after a failure.
const RETRY: Duration = Duration::from_millis(200);

pub(crate) struct Cache {
    shards: HashMap<(&'static str, &'static str), Arc<Shard>>,
    revision: watch::Sender<Revision>,
}

impl Cache {
    /// Loads the store and goes on following it until `stop`.
    pub(crate) async fn start(
        store: Arc<dyn Store>,
        stop: CancellationToken,
    ) -> Result<Arc<Self>, StoreError> {
        let shards = kinds::all()
            .iter()
            .map(|kind| (kind.storage, Arc::new(Shard::new(digest::selectable(kind)))))
            .collect();
        let cache = Arc::new(Self {
            shards,
            revision: watch::Sender::new(0),
        });
        let from = cache.load(&*store).await?;
        let follower = cache.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = follower.follow(store, from) => {}
                () = stop.cancelled() => {}
            }
        });
        Ok(cache)
    }

    /// Where a kind's objects are.
    pub(crate) fn shard(&self, kind: &Kind) -> Result<&Arc<Shard>, ApiError> {
        self.shards
            .get(&kind.storage)
            .ok_or_else(|| ApiError::internal(format_args!("{} is not stored", kind.kind)))
    }

    pub(crate) fn revision(&self) -> Revision {
        *self.revision.borrow()
    }

    /// Waits until every change up to `revision` shows. 504 when it takes too long, such as for a revision to come.
    pub(crate) async fn wait(&self, revision: Revision) -> Result<(), ApiError> {
        let mut seen = self.revision.subscribe();
        let reached = seen.wait_for(|seen| *seen >= revision);
        match tokio::time::timeout(WAIT, reached).await {
            Ok(_) => Ok(()),
            Err(_) => Err(ApiError::timeout(
                format_args!(
                    "Too large resource version: {revision}, current: {}",
                    self.revision()
                ),
                1,
            )),
        }
    }

    /// The state as of the oldest kept revision, so that the history that follows fills the shards' changes:
    /// watchers can resume across a restart.
    async fn load(&self, store: &dyn Store) -> Result<Revision, StoreError> {
        let oldest = store.compacted_revision().await?;
        let prefix = Bytes::from_static(keys::ROOT);
        let query = ListQuery {
            prefix,
            revision: Some(oldest),
            ..ListQuery::default()
        };
        let page = store.list(query).await?;
        self.shards
            .values()
            .for_each(|shard| shard.reset(page.revision));
        for kv in &page.items {
            if let Some(shard) = self.of_key(&kv.key) {
                shard.load(kv);
            }
        }
        self.revision.send_replace(page.revision);
        Ok(page.revision)
    }

    async fn follow(&self, store: Arc<dyn Store>, mut from: Revision) {
        loop {
            let error = match store.watch(Bytes::from_static(keys::ROOT), from + 1).await {
                Ok(mut batches) => loop {
                    match batches.next().await {
                        Some(Ok(batch)) => {
                            batch.events.iter().for_each(|event| self.apply(event));
                            from = batch.revision;
                            self.revision.send_replace(from);
                        }
                        Some(Err(error)) => break error,
                        None => break StoreError::Closed,
                    }
                },
                Err(error) => error,
            };
            tracing::warn!(%error, "the watch cache lost the store and reads it anew");
            tokio::time::sleep(RETRY).await;
            match self.load(&*store).await {
                Ok(revision) => from = revision,
                Err(error) => tracing::error!(%error, "the watch cache cannot read the store"),
            }
        }
    }

    fn apply(&self, event: &Event) {
        if let Some(shard) = self.of_key(&event.key) {
            shard.apply(event);
        }
    }

    fn of_key(&self, key: &[u8]) -> Option<&Arc<Shard>> {
        let (group, plural) = keys::resource(key)?;
        self.shards
            .iter()
            .find(|(id, _)| **id == (group, plural))
            .map(|(_, shard)| shard)
    }
}
