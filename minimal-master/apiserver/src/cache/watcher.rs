//! A watcher's position in the changes of one resource. It holds no buffer: it reads the shared changes when it can.

use std::sync::Arc;

use sluice_store::Revision;
use tokio::sync::watch;

use super::{Cache, Change, Expired, Shard};

/// Changes handed out at once.
const BATCH: usize = 256;

pub(crate) struct Watcher {
    cache: Arc<Cache>,
    shard: Arc<Shard>,
    bell: watch::Receiver<Revision>,
    seen: Revision,
}

impl Watcher {
    /// Begins after a revision. Fails when changes after it are not kept any more.
    pub(crate) fn new(
        cache: Arc<Cache>,
        shard: Arc<Shard>,
        after: Revision,
    ) -> Result<Self, Expired> {
        shard.after(after, 0)?;
        let bell = shard.bell();
        Ok(Self {
            cache,
            shard,
            bell,
            seen: after,
        })
    }

    /// Waits for the next changes. Fails when this watcher was too slow and has missed some.
    /// May be dropped while it waits.
    pub(crate) async fn next(&mut self) -> Result<Vec<Arc<Change>>, Expired> {
        loop {
            // Marked as heard before looking, so that a ring in between is not missed.
            self.bell.borrow_and_update();
            let changes = self.shard.after(self.seen, BATCH)?;
            if let Some(last) = changes.last() {
                self.seen = last.revision;
                return Ok(changes);
            }
            if self.bell.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// The revision up to which nothing is left to hand out; `None` while there are changes to read.
    pub(crate) fn progress(&mut self) -> Option<Revision> {
        let revision = self.cache.revision();
        if !self.shard.after(self.seen, 1).ok()?.is_empty() {
            return None;
        }
        self.seen = self.seen.max(revision);
        Some(self.seen)
    }
}
