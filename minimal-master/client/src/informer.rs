//! A cached watch: the newest known objects of one kind, and handlers that see every change.
//!
//! `kube::runtime::reflector` keeps a cache too, but its readers learn only the new object.
//! Controllers need the old one as well (a pod that stopped matching a Service must wake that
//! Service), indices (pods by node), and the guarantee that the cache is written before a handler
//! runs, which expectations rely on.

use std::{
    collections::{HashMap, HashSet},
    fmt::Debug,
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use futures::StreamExt;
use kube::{
    Api, Resource,
    runtime::{WatchStreamExt, watcher},
};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::Key;

/// What happened to one object: at least one side is present.
#[derive(Debug)]
pub struct Change<'a, K> {
    /// The object as it was known before; `None` when it is new.
    pub old: Option<&'a Arc<K>>,
    /// The object as it is now; `None` when it was deleted.
    pub new: Option<&'a Arc<K>>,
}

impl<K> Change<'_, K> {
    /// The newest known state, also of a deleted object.
    pub fn latest(&self) -> &Arc<K> {
        self.new
            .or(self.old)
            .expect("a change has at least one side")
    }

    /// Both known states: what was true of the object before or is now.
    pub fn both(&self) -> impl Iterator<Item = &Arc<K>> {
        self.old.into_iter().chain(self.new)
    }
}

type Handler<K> = Box<dyn Fn(&Change<'_, K>) + Send + Sync>;
type IndexFn<K> = fn(&K) -> Vec<String>;

struct Index<K> {
    values: IndexFn<K>,
    keys: HashMap<String, HashSet<Key>>,
}

struct State<K> {
    objects: HashMap<Key, Arc<K>>,
    indices: HashMap<&'static str, Index<K>>,
}

impl<K> State<K> {
    fn put(&mut self, key: Key, object: Arc<K>) -> Option<Arc<K>> {
        let old = self.remove(&key);
        for index in self.indices.values_mut() {
            for value in (index.values)(&object) {
                index.keys.entry(value).or_default().insert(key.clone());
            }
        }
        self.objects.insert(key, object);
        old
    }

    fn remove(&mut self, key: &Key) -> Option<Arc<K>> {
        let old = self.objects.remove(key)?;
        for index in self.indices.values_mut() {
            for value in (index.values)(&old) {
                if let Some(keys) = index.keys.get_mut(&value) {
                    keys.remove(key);
                    if keys.is_empty() {
                        index.keys.remove(&value);
                    }
                }
            }
        }
        Some(old)
    }
}

/// A cache of one kind's objects that follows the server.
pub struct Informer<K> {
    state: RwLock<State<K>>,
    handlers: RwLock<Vec<Handler<K>>>,
    synced: watch::Sender<bool>,
    buffer: Mutex<HashMap<Key, Arc<K>>>,
}

impl<K> Default for Informer<K> {
    fn default() -> Self {
        Self {
            state: RwLock::new(State {
                objects: HashMap::new(),
                indices: HashMap::new(),
            }),
            handlers: RwLock::new(Vec::new()),
            synced: watch::Sender::new(false),
            buffer: Mutex::new(HashMap::new()),
        }
    }
}

impl<K: Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static> Informer<K> {
    /// An empty cache; nothing is watched until [`Informer::run`].
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an index, to be read with [`Informer::by_index`]. Call before [`Informer::run`].
    #[must_use]
    pub fn with_index(self, name: &'static str, values: IndexFn<K>) -> Self {
        self.write_state().indices.insert(
            name,
            Index {
                values,
                keys: HashMap::new(),
            },
        );
        self
    }

    /// Adds a handler, called after the cache was written. Handlers must be quick: they run on the watch's task.
    ///
    /// What is known already is told at once, so that it doesn't matter whether the watch or its user
    /// started first. A change that happens at that very moment may be told twice.
    pub fn on_change(&self, handler: impl Fn(&Change<'_, K>) + Send + Sync + 'static) {
        let mut handlers = self
            .handlers
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        for object in self.list() {
            handler(&Change {
                old: None,
                new: Some(&object),
            });
        }
        handlers.push(Box::new(handler));
    }

    /// One object, if known.
    pub fn get(&self, key: &Key) -> Option<Arc<K>> {
        self.read_state().objects.get(key).cloned()
    }

    /// All known objects, in no order.
    pub fn list(&self) -> Vec<Arc<K>> {
        self.read_state().objects.values().cloned().collect()
    }

    /// The objects with this value in the named index, in no order.
    pub fn by_index(&self, name: &str, value: &str) -> Vec<Arc<K>> {
        let state = self.read_state();
        let keys = state
            .indices
            .get(name)
            .and_then(|index| index.keys.get(value));
        keys.into_iter()
            .flatten()
            .filter_map(|key| state.objects.get(key).cloned())
            .collect()
    }

    /// Resolves once the first list is in the cache and its handlers have run.
    pub async fn synced(&self) {
        let mut synced = self.synced.subscribe();
        // The sender lives as long as `self`, so waiting can't fail.
        let _ = synced.wait_for(|done| *done).await;
    }

    /// Follows the server until cancelled. Errors are logged and retried with back-off.
    pub async fn run(
        self: Arc<Self>,
        api: Api<K>,
        config: watcher::Config,
        stop: CancellationToken,
    ) {
        let mut events = std::pin::pin!(watcher(api, config).default_backoff());
        loop {
            let event = tokio::select! {
                () = stop.cancelled() => return,
                event = events.next() => event,
            };
            match event {
                Some(Ok(event)) => self.apply(event),
                Some(Err(error)) => {
                    tracing::warn!(kind = std::any::type_name::<K>(), %error, "watch failed, retrying");
                }
                None => return,
            }
        }
    }

    /// Takes in one watch event. Public so that tests can play the server.
    pub fn apply(&self, event: watcher::Event<K>) {
        match event {
            watcher::Event::Apply(object) => self.upsert(Arc::new(object)),
            watcher::Event::Delete(object) => {
                self.delete(&Key::of(&object), Some(Arc::new(object)))
            }
            watcher::Event::Init => self.lock_buffer().clear(),
            watcher::Event::InitApply(object) => {
                self.lock_buffer()
                    .insert(Key::of(&object), Arc::new(object));
            }
            watcher::Event::InitDone => self.replace(),
        }
    }

    fn replace(&self) {
        let fresh = std::mem::take(&mut *self.lock_buffer());
        let gone: Vec<Key> = {
            let state = self.read_state();
            let gone = |key: &&Key| !fresh.contains_key(*key);
            state.objects.keys().filter(gone).cloned().collect()
        };
        for key in gone {
            self.delete(&key, None);
        }
        for (key, object) in fresh {
            let known = self.get(&key);
            let same = |old: Arc<K>| old.meta().resource_version == object.meta().resource_version;
            if !known.is_some_and(same) {
                self.upsert(object);
            }
        }
        self.synced.send_replace(true);
    }

    fn upsert(&self, object: Arc<K>) {
        let key = Key::of(&*object);
        // A new uid under a known name means that the deletion was missed: tell both.
        let known = self.get(&key);
        if known.is_some_and(|old| old.meta().uid != object.meta().uid) {
            self.delete(&key, None);
        }
        let old = self.write_state().put(key, object.clone());
        self.notify(&Change {
            old: old.as_ref(),
            new: Some(&object),
        });
    }

    fn delete(&self, key: &Key, last: Option<Arc<K>>) {
        let old = self.write_state().remove(key);
        if let Some(object) = last.or(old) {
            self.notify(&Change {
                old: Some(&object),
                new: None,
            });
        }
    }

    fn notify(&self, change: &Change<'_, K>) {
        let handlers = self.handlers.read().unwrap_or_else(PoisonError::into_inner);
        for handler in &*handlers {
            handler(change);
        }
    }

    fn read_state(&self) -> std::sync::RwLockReadGuard<'_, State<K>> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_state(&self) -> std::sync::RwLockWriteGuard<'_, State<K>> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_buffer(&self) -> std::sync::MutexGuard<'_, HashMap<Key, Arc<K>>> {
        self.buffer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::runtime::watcher::Event;

    use super::*;

    fn object(name: &str, uid: &str, version: &str) -> ConfigMap {
        let mut object = ConfigMap::default();
        object.metadata.namespace = Some("ns".into());
        object.metadata.name = Some(name.into());
        object.metadata.uid = Some(uid.into());
        object.metadata.resource_version = Some(version.into());
        object
    }

    fn recording() -> (Informer<ConfigMap>, Arc<Mutex<Vec<String>>>) {
        let informer = Informer::new().with_index("uid", |c: &ConfigMap| {
            c.metadata.uid.clone().into_iter().collect()
        });
        let log = Arc::new(Mutex::new(Vec::new()));
        let sink = log.clone();
        informer.on_change(move |change| {
            let version = |o: Option<&Arc<ConfigMap>>| {
                o.map_or("-".into(), |o| o.metadata.resource_version.clone().unwrap())
            };
            let line = format!("{}>{}", version(change.old), version(change.new));
            sink.lock().unwrap().push(line);
        });
        (informer, log)
    }

    fn relist(informer: &Informer<ConfigMap>, objects: Vec<ConfigMap>) {
        informer.apply(Event::Init);
        for object in objects {
            informer.apply(Event::InitApply(object));
        }
        informer.apply(Event::InitDone);
    }

    #[test]
    fn a_relist_reports_only_what_changed() {
        let (informer, log) = recording();
        relist(
            &informer,
            vec![object("a", "1", "1"), object("b", "2", "2")],
        );
        log.lock().unwrap().clear();
        relist(
            &informer,
            vec![object("a", "1", "1"), object("c", "3", "3")],
        );
        assert_eq!(*log.lock().unwrap(), ["2>-", "->3"]);
    }

    #[test]
    fn a_name_reused_under_a_new_uid_is_a_deletion_and_a_creation() {
        let (informer, log) = recording();
        relist(&informer, vec![object("a", "1", "1")]);
        log.lock().unwrap().clear();
        informer.apply(Event::Apply(object("a", "2", "5")));
        assert_eq!(*log.lock().unwrap(), ["1>-", "->5"]);
        assert!(informer.by_index("uid", "1").is_empty());
        assert_eq!(informer.by_index("uid", "2").len(), 1);
    }

    #[test]
    fn a_handler_that_comes_late_is_told_what_is_known() {
        let informer = Informer::<ConfigMap>::new();
        informer.apply(Event::Apply(object("a", "1", "1")));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let sink = seen.clone();
        informer.on_change(move |change| {
            let name = change.new.unwrap().metadata.name.clone();
            sink.lock()
                .unwrap()
                .push((change.old.is_some(), name.unwrap()));
        });
        assert_eq!(*seen.lock().unwrap(), [(false, "a".to_owned())]);
    }

    #[test]
    fn a_deleted_object_leaves_cache_and_index() {
        let (informer, _) = recording();
        informer.apply(Event::Apply(object("a", "1", "1")));
        informer.apply(Event::Delete(object("a", "1", "2")));
        assert!(informer.list().is_empty());
        assert!(informer.by_index("uid", "1").is_empty());
    }
}
