//! Events are forgotten an hour after they were last seen (upstream's --event-ttl).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use sluice_api::kinds;
use sluice_store::{Expect, Revision, Txn, Write};

use crate::app::App;
use crate::keys;

const TTL: Duration = Duration::from_secs(3600);
const EVERY: Duration = Duration::from_secs(60);

pub(crate) fn start(app: Arc<App>) {
    let stop = app.stopping.clone();
    tokio::spawn(stop.run_until_cancelled_owned(async move {
        // Which revision was the newest at what time: all that was not written since is as old as that.
        let mut marks = VecDeque::new();
        loop {
            tokio::time::sleep(EVERY).await;
            marks.push_back((Instant::now(), app.cache.revision()));
            if let Some(revision) = expired(&mut marks, Instant::now()) {
                remove(&app, revision).await;
            }
        }
    }));
}

/// The newest revision that is older than the limit.
fn expired(marks: &mut VecDeque<(Instant, Revision)>, now: Instant) -> Option<Revision> {
    let mut found = None;
    while let Some((_, revision)) = marks
        .front()
        .filter(|(at, _)| now.duration_since(*at) >= TTL)
    {
        found = Some(*revision);
        marks.pop_front();
    }
    found
}

async fn remove(app: &App, until: Revision) {
    let Ok(shard) = app.cache.shard(&kinds::EVENT) else {
        return;
    };
    let prefix: Bytes = keys::prefix(&kinds::EVENT, None);
    for entry in shard.snapshot(&prefix, 0).entries {
        if entry.revision > until {
            continue;
        }
        let expect = Expect::Revision(entry.revision);
        let txn = Txn {
            key: entry.key.clone(),
            expect,
            write: Write::Delete,
        };
        if let Err(error) = app.store.txn(txn).await {
            tracing::warn!(%error, "old events could not be removed");
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_written_for_an_hour_is_old() {
        let start = Instant::now();
        let mut marks = VecDeque::from([(start, 5), (start + Duration::from_secs(60), 9)]);
        assert_eq!(expired(&mut marks, start + Duration::from_secs(100)), None);
        assert_eq!(expired(&mut marks, start + TTL), Some(5));
        assert_eq!(
            expired(&mut marks, start + TTL + Duration::from_secs(60)),
            Some(9)
        );
        assert_eq!(expired(&mut marks, start + 2 * TTL), None);
    }
}
