//! Garbage collection by owner references: what has lost all its owners is deleted.
//!
//! Watches the metadata of every kind, keeps the graph of owners and dependents, and works on one
//! object at a time. The graph only says where to look: before anything is deleted, the object and
//! its owners are read from the server, because a cache that is behind must not cost data.

mod graph;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
    time::Duration,
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{
    Api, Client,
    api::{DeleteParams, DynamicObject, Patch, PatchParams, Preconditions},
    core::{ApiResource, DynamicResourceScope, PartialObjectMeta},
    runtime::watcher,
};
use serde_json::json;
use sluice_client::{
    Change, Informer, WorkQueue, ignore_not_found, is_conflict,
    worker::{self, Outcome},
};
use tokio_util::sync::CancellationToken;

use crate::{discovery, shared::Shared};
use graph::{Graph, Object, OwnerState, Verdict};

const WORKERS: usize = 8;
/// How often new kinds are looked for.
const DISCOVERY_PERIOD: Duration = Duration::from_secs(30);
/// Events own nothing, are owned by nothing, and are many.
const IGNORED_KINDS: [&str; 1] = ["Event"];

type Metadata = PartialObjectMeta<DynamicObject>;

#[derive(Clone)]
struct Kind {
    resource: ApiResource,
    namespaced: bool,
}

struct Collector {
    client: Client,
    graph: Mutex<Graph>,
    queue: Arc<WorkQueue<String>>,
    /// By group and kind: owner references name any version.
    kinds: RwLock<HashMap<(String, String), Kind>>,
}

/// Runs until cancelled.
pub async fn run(shared: Arc<Shared>, stop: CancellationToken) {
    let collector = Arc::new(Collector {
        client: shared.client.clone(),
        graph: Mutex::default(),
        queue: Arc::default(),
        kinds: RwLock::default(),
    });
    let watch = collector.clone().watch_kinds(stop.clone());
    let queue = collector.queue.clone();
    let work = worker::run("garbage-collector", queue, WORKERS, stop, |uid| {
        collector.collect(uid)
    });
    futures::join!(watch, work);
}

impl Collector {
    async fn watch_kinds(self: Arc<Self>, stop: CancellationToken) {
        loop {
            match discovery::discover(&self.client).await {
                Ok(found) => self.add_kinds(found, &stop).await,
                Err(error) => tracing::warn!(%error, "kinds not discovered"),
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(DISCOVERY_PERIOD) => {}
            }
        }
    }

    /// Starts watching kinds that are new.
    async fn add_kinds(self: &Arc<Self>, found: Vec<discovery::Found>, stop: &CancellationToken) {
        let mut started = Vec::new();
        for kind in found.into_iter().filter(discovery::Found::is_collectable) {
            let resource = kind.resource.clone();
            let key = (resource.group.clone(), resource.kind.clone());
            let known = self
                .kinds
                .read()
                .unwrap_or_else(PoisonError::into_inner)
                .contains_key(&key);
            if known || IGNORED_KINDS.contains(&resource.kind.as_str()) {
                continue;
            }
            started.push(self.watch(&resource, stop));
            let namespaced = kind.is_namespaced();
            self.kinds
                .write()
                .unwrap_or_else(PoisonError::into_inner)
                .insert(
                    key,
                    Kind {
                        resource,
                        namespaced,
                    },
                );
        }
        futures::future::join_all(started.iter().map(|informer| informer.synced())).await;
    }

    fn watch(
        self: &Arc<Self>,
        resource: &ApiResource,
        stop: &CancellationToken,
    ) -> Arc<Informer<Metadata>> {
        let informer = Arc::new(Informer::<Metadata>::new());
        let (collector, kind) = (
            self.clone(),
            (resource.group.clone(), resource.kind.clone()),
        );
        informer.on_change(move |change| collector.changed(&kind, change));
        let api = Api::all_with(self.client.clone(), resource);
        let run = informer
            .clone()
            .run(api, watcher::Config::default(), stop.clone());
        tokio::spawn(run);
        informer
    }

    fn changed(&self, kind: &(String, String), change: &Change<'_, Metadata>) {
        let object = Object::new(kind.clone(), &change.latest().metadata);
        let affected = if change.new.is_some() {
            self.graph().upsert(object)
        } else {
            self.graph().remove(&object.uid)
        };
        affected.into_iter().for_each(|uid| self.queue.add(uid));
    }

    async fn collect(&self, uid: String) -> kube::Result<Outcome> {
        let Some(known) = self.graph().get(&uid).cloned() else {
            return Ok(Outcome::Done);
        };
        if !known.needs_look() {
            return Ok(Outcome::Done);
        }
        let Some(live) = self.read(&known).await? else {
            return Ok(Outcome::Done);
        };
        let mut owners = Vec::new();
        for reference in &live.owners {
            owners.push((reference.clone(), self.owner_state(&live, reference).await?));
        }
        let verdict = self.graph().judge(&live, &owners);
        let result = self.carry_out(&live, verdict).await;
        match result {
            // Changed since it was read: its event brings it back, but don't rely on that.
            Err(error) if is_conflict(&error) => Ok(Outcome::After(Duration::from_millis(100))),
            other => other,
        }
    }

    async fn carry_out(&self, object: &Object, verdict: Verdict) -> kube::Result<Outcome> {
        tracing::debug!(object = %object.name, ?verdict, "garbage collection");
        match verdict {
            Verdict::Keep => {}
            Verdict::Wait(dependents) => {
                dependents.into_iter().for_each(|uid| self.queue.add(uid));
            }
            Verdict::Delete(params) => {
                self.delete(object, params).await?;
            }
            Verdict::DropReferences(uids) => self.drop_references(object, &uids).await?,
            Verdict::RemoveFinalizer(finalizer) => self.remove_finalizer(object, finalizer).await?,
            Verdict::Orphan(dependents) => {
                for uid in dependents {
                    let dependent = self.graph().get(&uid).cloned();
                    if let Some(dependent) = dependent {
                        self.drop_references(&dependent, std::slice::from_ref(&object.uid))
                            .await?;
                    }
                }
                self.remove_finalizer(object, graph::ORPHAN).await?;
            }
        }
        Ok(Outcome::Done)
    }

    /// The object as the server has it; `None` when it, with this uid, is gone.
    async fn read(&self, known: &Object) -> kube::Result<Option<Object>> {
        let Some(api) = self.api(&known.kind, known.namespace.as_deref()) else {
            return Ok(None);
        };
        let live = api.get_opt(&known.name).await?;
        let live = live.map(|live| Object::new(known.kind.clone(), &live.metadata));
        Ok(live.filter(|live| live.uid == known.uid))
    }

    async fn owner_state(
        &self,
        object: &Object,
        reference: &OwnerReference,
    ) -> kube::Result<OwnerState> {
        let group = reference
            .api_version
            .split_once('/')
            .map_or("", |(group, _)| group);
        let kind = (group.to_owned(), reference.kind.clone());
        let namespaced = {
            let kinds = self.kinds.read().unwrap_or_else(PoisonError::into_inner);
            kinds.get(&kind).map(|kind| kind.namespaced)
        };
        // An owner of a kind that we don't know may exist: its dependents are kept.
        let Some(namespaced) = namespaced else {
            return Ok(OwnerState::Solid);
        };
        let namespace = if namespaced {
            object.namespace.as_deref()
        } else {
            None
        };
        if namespaced && namespace.is_none() {
            // A cluster-scoped object can't be owned by a namespaced one; upstream keeps it.
            return Ok(OwnerState::Solid);
        }
        let Some(api) = self.api(&kind, namespace) else {
            return Ok(OwnerState::Solid);
        };
        let live = api.get_opt(&reference.name).await?;
        let live = live.map(|live| Object::new(kind, &live.metadata));
        Ok(match live.filter(|live| live.uid == reference.uid) {
            None => OwnerState::Absent,
            Some(owner) if owner.is_foreground() => OwnerState::Waiting,
            Some(_) => OwnerState::Solid,
        })
    }

    async fn delete(&self, object: &Object, params: DeleteParams) -> kube::Result<()> {
        let Some(kind) = self.kind(&object.kind) else {
            return Ok(());
        };
        let api: Api<DynamicObject> = scoped(&self.client, &kind, object.namespace.as_deref());
        // The resourceVersion: its owners must still be the ones that were judged.
        let params = params.preconditions(Preconditions {
            uid: Some(object.uid.clone()),
            resource_version: object.resource_version.clone(),
        });
        ignore_not_found(api.delete(&object.name, &params).await)?;
        Ok(())
    }

    async fn drop_references(&self, object: &Object, uids: &[String]) -> kube::Result<()> {
        let Some(live) = self.read(object).await? else {
            return Ok(());
        };
        let left: Vec<_> = live
            .owners
            .iter()
            .filter(|o| !uids.contains(&o.uid))
            .collect();
        if left.len() == live.owners.len() {
            return Ok(());
        }
        let patch = json!({"metadata": {
            "uid": live.uid, "resourceVersion": live.resource_version, "ownerReferences": left,
        }});
        self.patch(&live, &patch).await
    }

    async fn remove_finalizer(&self, object: &Object, finalizer: &str) -> kube::Result<()> {
        let left: Vec<_> = object
            .finalizers
            .iter()
            .filter(|f| *f != finalizer)
            .collect();
        let patch = json!({"metadata": {
            "uid": object.uid, "resourceVersion": object.resource_version, "finalizers": left,
        }});
        self.patch(object, &patch).await
    }

    async fn patch(&self, object: &Object, patch: &serde_json::Value) -> kube::Result<()> {
        let Some(api) = self.api(&object.kind, object.namespace.as_deref()) else {
            return Ok(());
        };
        // A merge patch: strategic ones are not defined for every kind.
        let patched = api
            .patch(&object.name, &PatchParams::default(), &Patch::Merge(patch))
            .await;
        ignore_not_found(patched)?;
        Ok(())
    }

    fn api(&self, kind: &(String, String), namespace: Option<&str>) -> Option<Api<Metadata>> {
        Some(scoped(&self.client, &self.kind(kind)?, namespace))
    }

    fn kind(&self, kind: &(String, String)) -> Option<Kind> {
        let kinds = self.kinds.read().unwrap_or_else(PoisonError::into_inner);
        kinds.get(kind).cloned()
    }

    fn graph(&self) -> MutexGuard<'_, Graph> {
        self.graph.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn scoped<K>(client: &Client, kind: &Kind, namespace: Option<&str>) -> Api<K>
where
    K: kube::Resource<DynamicType = ApiResource, Scope = DynamicResourceScope>,
{
    match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &kind.resource),
        None => Api::all_with(client.clone(), &kind.resource),
    }
}
