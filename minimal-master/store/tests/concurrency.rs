//! Many writers and watchers at once: no lost update, no event missed or seen twice, slow watchers told so.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use sluice_store::{
    Embedded, Expect, FIRST_REVISION, ListQuery, Memory, Options, Outcome, Store, StoreError, Txn,
    Write,
};

fn put(key: &str, value: impl Into<Bytes>, expect: Expect) -> Txn {
    let key = Bytes::copy_from_slice(key.as_bytes());
    Txn {
        key,
        expect,
        write: Write::Put(value.into()),
    }
}

fn embedded(dir: &tempfile::TempDir) -> Arc<dyn Store> {
    let options = Options {
        compact_every: Duration::ZERO,
        ..Options::default()
    };
    Arc::new(Embedded::open(dir.path().join("store.redb"), options).unwrap())
}

/// Adds one to a counter by compare-and-set until it succeeds.
async fn increment(store: &dyn Store) {
    loop {
        let current = store.get(b"/counter").await.unwrap();
        let (value, expect) = match &current {
            None => (1, Expect::Absent),
            Some(kv) => {
                let count: u64 = std::str::from_utf8(&kv.value).unwrap().parse().unwrap();
                (count + 1, Expect::Revision(kv.mod_revision))
            }
        };
        let written = store
            .txn(put("/counter", value.to_string(), expect))
            .await
            .unwrap();
        if matches!(written, Outcome::Committed { .. }) {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_update_is_lost_and_every_watcher_sees_each_change_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = embedded(&dir);
    let watchers: Vec<_> = (0..8)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut stream = store
                    .watch(Bytes::from_static(b"/counter"), 2)
                    .await
                    .unwrap();
                let mut seen = Vec::new();
                while seen.len() < 400 {
                    let batch = stream.next().await.unwrap().unwrap();
                    seen.extend(batch.events.iter().map(|event| {
                        let value = &event.current.as_ref().unwrap().value;
                        std::str::from_utf8(value).unwrap().parse::<u64>().unwrap()
                    }));
                }
                seen
            })
        })
        .collect();
    let writers: Vec<_> = (0..16)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                for _ in 0..25 {
                    increment(&*store).await;
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    let expected: Vec<u64> = (1..=400).collect();
    for watcher in watchers {
        assert_eq!(watcher.await.unwrap(), expected);
    }
}

#[tokio::test]
async fn a_watcher_that_compaction_overtakes_is_told() {
    let store = Memory::default();
    store.txn(put("/a", "1", Expect::Any)).await.unwrap();
    let mut slow = store.watch(Bytes::from_static(b"/"), 2).await.unwrap();
    for _ in 0..10 {
        store.txn(put("/a", "2", Expect::Any)).await.unwrap();
    }
    store.compact(8).await.unwrap();
    let error = slow.next().await.unwrap().unwrap_err();
    assert!(
        matches!(
            error,
            StoreError::Compacted {
                requested: 2,
                compacted: 8
            }
        ),
        "{error}"
    );
    assert!(slow.next().await.is_none());
}

#[tokio::test]
async fn a_quiet_watch_learns_how_far_the_store_is() {
    let store = Memory::default();
    let mut watch = store
        .watch(Bytes::from_static(b"/quiet/"), 2)
        .await
        .unwrap();
    store.txn(put("/loud/a", "1", Expect::Any)).await.unwrap();
    let batch = watch.next().await.unwrap().unwrap();
    assert_eq!(
        (batch.events.len(), batch.revision),
        (0, FIRST_REVISION + 1)
    );
}

#[tokio::test]
async fn what_is_too_large_is_refused_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let store = embedded(&dir);
    let large = vec![0; sluice_store::MAX_VALUE_BYTES + 1];
    let error = store
        .txn(put("/registry/big", large, Expect::Any))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("/registry/big"), "{error}");
    assert_eq!(store.revision().await.unwrap(), FIRST_REVISION);
}

#[tokio::test]
async fn a_file_that_is_open_or_foreign_is_refused_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let _open = embedded(&dir);
    let path = dir.path().join("store.redb");
    let error = Embedded::open(&path, Options::default())
        .unwrap_err()
        .to_string();
    assert!(error.contains("store.redb"), "{error}");
    let foreign = dir.path().join("foreign");
    std::fs::write(
        &foreign,
        "this is no database, though it is long enough to look like a header",
    )
    .unwrap();
    let error = Embedded::open(&foreign, Options::default())
        .unwrap_err()
        .to_string();
    assert!(error.contains("foreign"), "{error}");
}

#[tokio::test]
async fn history_is_compacted_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        keep_age: Duration::ZERO,
        keep_revisions: 10,
        max_revisions: 100,
        compact_every: Duration::from_millis(10),
    };
    let store = Embedded::open(dir.path().join("store.redb"), options).unwrap();
    for value in 0..50u8 {
        store
            .txn(put("/a", vec![value], Expect::Any))
            .await
            .unwrap();
    }
    let compacted = async {
        while store.compacted_revision().await.unwrap() < 41 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), compacted)
        .await
        .expect("history is compacted");
    assert_eq!(store.compacted_revision().await.unwrap(), 41);
    let page = store
        .list(ListQuery {
            revision: Some(41),
            ..ListQuery::default()
        })
        .await
        .unwrap();
    assert_eq!(&page.items[0].value[..], [39]);
}

#[tokio::test]
async fn a_closed_store_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let store = embedded(&dir);
    store.close().await;
    let error = store.txn(put("/a", "1", Expect::Any)).await.unwrap_err();
    assert!(matches!(error, StoreError::Closed), "{error}");
}
