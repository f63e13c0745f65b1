//! Both stores against a slow model that keeps a full copy of the state at every revision.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use proptest::prelude::*;
use sluice_store::{
    Embedded, Event, Expect, FIRST_REVISION, KeyValue, ListQuery, Memory, Options, Outcome,
    Revision, Store, StoreError, Txn, Write,
};

const KEYS: [&str; 5] = ["/a/1", "/a/2", "/b/1", "/b/10", "/c"];
const PREFIXES: [&str; 4] = ["/", "/a/", "/b/1", "/none"];

#[derive(Clone, Debug)]
enum Step {
    Put { key: usize, value: u8, expect: u8 },
    Delete { key: usize, expect: u8 },
    Compact { back: u64 },
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..KEYS.len(), any::<u8>(), 0u8..4)
            .prop_map(|(key, value, expect)| Step::Put { key, value, expect }),
        3 => (0..KEYS.len(), 0u8..4).prop_map(|(key, expect)| Step::Delete { key, expect }),
        1 => (0u64..6).prop_map(|back| Step::Compact { back }),
        1 => Just(Step::Reopen),
    ]
}

type State = BTreeMap<Bytes, KeyValue>;

/// The state after every revision, and the event of every revision.
struct Model {
    states: Vec<State>,
    events: Vec<Event>,
    compacted: Revision,
}

impl Model {
    fn new() -> Self {
        Self {
            states: vec![State::new()],
            events: Vec::new(),
            compacted: FIRST_REVISION,
        }
    }

    fn revision(&self) -> Revision {
        FIRST_REVISION + self.events.len() as u64
    }

    fn at(&self, revision: Revision) -> &State {
        &self.states[(revision - FIRST_REVISION) as usize]
    }

    fn expect(&self, key: &Bytes, choice: u8) -> Expect {
        let current = self.at(self.revision()).get(key);
        match choice {
            0 => Expect::Any,
            1 => Expect::Absent,
            2 => Expect::Revision(current.map_or(1, |kv| kv.mod_revision)),
            _ => Expect::Revision(self.revision() + 1),
        }
    }

    fn txn(&mut self, txn: &Txn) -> Outcome {
        let mut state = self.at(self.revision()).clone();
        let previous = state.get(&txn.key).cloned();
        let holds = match txn.expect {
            Expect::Any => true,
            Expect::Absent => previous.is_none(),
            Expect::Revision(revision) => {
                previous.as_ref().map(|kv| kv.mod_revision) == Some(revision)
            }
        };
        if !holds || (txn.write == Write::Delete && previous.is_none()) {
            return Outcome::Conflict { current: previous };
        }
        let revision = self.revision() + 1;
        let current = match &txn.write {
            Write::Delete => None,
            Write::Put(value) => Some(KeyValue {
                key: txn.key.clone(),
                value: value.clone(),
                create_revision: previous.as_ref().map_or(revision, |kv| kv.create_revision),
                mod_revision: revision,
                version: previous.as_ref().map_or(1, |kv| kv.version + 1),
            }),
        };
        match &current {
            Some(kv) => drop(state.insert(txn.key.clone(), kv.clone())),
            None => drop(state.remove(&txn.key)),
        }
        self.states.push(state);
        let previous_kv = previous.clone();
        self.events.push(Event {
            revision,
            key: txn.key.clone(),
            current,
            previous,
        });
        Outcome::Committed {
            revision,
            previous: previous_kv,
        }
    }
}

fn options() -> Options {
    Options {
        compact_every: std::time::Duration::ZERO,
        ..Options::default()
    }
}

fn transaction(model: &Model, key: usize, expect: u8, write: Write) -> Txn {
    let key = Bytes::from_static(KEYS[key].as_bytes());
    let expect = model.expect(&key, expect);
    Txn { key, expect, write }
}

async fn check(store: &dyn Store, model: &Model) {
    assert_eq!(store.revision().await.unwrap(), model.revision());
    assert_eq!(store.compacted_revision().await.unwrap(), model.compacted);
    for key in KEYS {
        let expected = model.at(model.revision()).get(key.as_bytes()).cloned();
        assert_eq!(store.get(key.as_bytes()).await.unwrap(), expected);
    }
    for prefix in PREFIXES {
        for revision in model.compacted..=model.revision() {
            check_list(store, model, prefix, revision).await;
        }
        for from in model.compacted + 1..=model.revision() {
            check_watch(store, model, prefix, from).await;
        }
    }
    let gone = store.watch(Bytes::new(), model.compacted).await.err();
    assert!(
        matches!(gone, Some(StoreError::Compacted { .. })),
        "{gone:?}"
    );
    if model.compacted > FIRST_REVISION {
        let revision = Some(model.compacted - 1);
        let gone = store
            .list(ListQuery {
                revision,
                ..ListQuery::default()
            })
            .await;
        assert!(
            matches!(gone, Err(StoreError::Compacted { .. })),
            "{gone:?}"
        );
    }
    let revision = Some(model.revision() + 1);
    let future = store
        .list(ListQuery {
            revision,
            ..ListQuery::default()
        })
        .await;
    assert!(
        matches!(future, Err(StoreError::FutureRevision { .. })),
        "{future:?}"
    );
}

/// A list in pages of two holds every key once, in order, with the right remainders.
async fn check_list(store: &dyn Store, model: &Model, prefix: &str, revision: Revision) {
    let expected: Vec<KeyValue> = model
        .at(revision)
        .values()
        .filter(|kv| kv.key.starts_with(prefix.as_bytes()))
        .cloned()
        .collect();
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let query = ListQuery {
            prefix: Bytes::copy_from_slice(prefix.as_bytes()),
            after: after.clone(),
            limit: 2,
            revision: Some(revision),
        };
        let page = store.list(query).await.unwrap();
        assert_eq!(page.revision, revision);
        found.extend(page.items);
        assert_eq!(page.remaining, expected.len() - found.len());
        if page.remaining == 0 {
            break;
        }
        after = found.last().map(|kv: &KeyValue| kv.key.clone());
    }
    assert_eq!(found, expected, "{prefix} at {revision}");
}

async fn check_watch(store: &dyn Store, model: &Model, prefix: &str, from: Revision) {
    let expected: Vec<&Event> = model
        .events
        .iter()
        .filter(|event| event.revision >= from && event.key.starts_with(prefix.as_bytes()))
        .collect();
    let mut stream = store
        .watch(Bytes::copy_from_slice(prefix.as_bytes()), from)
        .await
        .unwrap();
    let mut found: Vec<Arc<Event>> = Vec::new();
    loop {
        let batch = stream.next().await.unwrap().unwrap();
        found.extend(batch.events);
        if batch.revision == model.revision() {
            break;
        }
    }
    let found: Vec<&Event> = found.iter().map(|event| &**event).collect();
    assert_eq!(found, expected, "{prefix} from {from}");
}

async fn run(
    steps: Vec<Step>,
    mut store: Box<dyn Store>,
    reopen: impl AsyncFn(Box<dyn Store>) -> Box<dyn Store>,
) {
    let mut model = Model::new();
    for step in steps {
        match step {
            Step::Put { key, value, expect } => {
                let txn = transaction(&model, key, expect, Write::Put(Bytes::from(vec![value])));
                let expected = model.txn(&txn);
                assert_eq!(store.txn(txn).await.unwrap(), expected);
            }
            Step::Delete { key, expect } => {
                let txn = transaction(&model, key, expect, Write::Delete);
                let expected = model.txn(&txn);
                assert_eq!(store.txn(txn).await.unwrap(), expected);
            }
            Step::Compact { back } => {
                let revision = model.revision().saturating_sub(back).max(FIRST_REVISION);
                store.compact(revision).await.unwrap();
                model.compacted = model.compacted.max(revision);
            }
            Step::Reopen => store = reopen(store).await,
        }
    }
    check(&*store, &model).await;
    let store = reopen(store).await;
    check(&*store, &model).await;
    store.close().await;
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn memory_is_the_model(steps in proptest::collection::vec(step(), 1..60)) {
        runtime().block_on(run(steps, Box::new(Memory::default()), async |store| store));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn embedded_is_the_model_across_reopening(steps in proptest::collection::vec(step(), 1..40)) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.redb");
        runtime().block_on(async {
            let store = Box::new(Embedded::open(&path, options()).unwrap());
            run(steps, store, async |store: Box<dyn Store>| {
                store.close().await;
                drop(store);
                Box::new(Embedded::open(&path, options()).unwrap()) as Box<dyn Store>
            })
            .await;
        });
    }
}
