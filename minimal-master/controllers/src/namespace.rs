//! Namespaces that are being deleted: their contents go first, then the `kubernetes` finalizer.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, DynamicObject, ListParams, PostParams},
    core::PartialObjectMeta,
};
use sluice_client::{
    Key, WorkQueue, ignore_not_found,
    worker::{self, Outcome},
};
use tokio_util::sync::CancellationToken;

use crate::{
    discovery::{self, Found},
    shared::Shared,
};

const FINALIZER: &str = "kubernetes";
const WORKERS: usize = 2;
/// Contents with a grace period or finalizers leave by themselves; how soon to look again.
const RETRY: Duration = Duration::from_millis(500);

/// Runs until cancelled.
pub async fn run(shared: Arc<Shared>, stop: CancellationToken) {
    let queue = Arc::new(WorkQueue::new());
    let wake = queue.clone();
    shared.namespaces.on_change(move |change| {
        if change
            .new
            .is_some_and(|n| n.metadata.deletion_timestamp.is_some())
        {
            wake.add(Key::of(&**change.latest()));
        }
    });
    let (wake, namespaces) = (queue.clone(), shared.namespaces.clone());
    // Pods are what a namespace usually waits for.
    shared.pods.on_change(move |change| {
        let key = Key::cluster(change.latest().namespace().unwrap_or_default());
        let going = |n: Arc<Namespace>| n.metadata.deletion_timestamp.is_some();
        if change.new.is_none() && namespaces.get(&key).is_some_and(going) {
            wake.add(key);
        }
    });
    shared.namespaces.synced().await;
    let run = |key| reconcile(shared.clone(), key);
    worker::run("namespace", queue, WORKERS, stop, run).await;
}

async fn reconcile(shared: Arc<Shared>, key: Key) -> kube::Result<Outcome> {
    let api: Api<Namespace> = Api::all(shared.client.clone());
    // The server's own word: finalizing is not undone.
    let Some(namespace) = api.get_opt(&key.name).await? else {
        return Ok(Outcome::Done);
    };
    let finalizers = namespace
        .spec
        .as_ref()
        .and_then(|s| s.finalizers.clone())
        .unwrap_or_default();
    if namespace.metadata.deletion_timestamp.is_none() || !finalizers.iter().any(|f| f == FINALIZER)
    {
        return Ok(Outcome::Done);
    }
    let left = delete_contents(&shared.client, &key.name).await?;
    if left > 0 {
        tracing::debug!(namespace = %key.name, left, "namespace still has contents");
        return Ok(Outcome::After(RETRY));
    }
    finalize(&shared.client, namespace).await?;
    Ok(Outcome::Done)
}

/// Deletes everything in the namespace; returns how many objects are still there.
async fn delete_contents(client: &Client, namespace: &str) -> kube::Result<usize> {
    let kinds = discovery::discover(client).await?;
    let kinds = kinds
        .iter()
        .filter(|kind| kind.is_namespaced() && kind.is_deletable());
    let left = kinds.map(|kind| delete_kind(client, namespace, kind));
    let left: kube::Result<Vec<usize>> =
        futures::future::join_all(left).await.into_iter().collect();
    Ok(left?.into_iter().sum())
}

async fn delete_kind(client: &Client, namespace: &str, kind: &Found) -> kube::Result<usize> {
    let api: Api<PartialObjectMeta<DynamicObject>> =
        Api::namespaced_with(client.clone(), namespace, &kind.resource);
    let objects: Api<DynamicObject> =
        Api::namespaced_with(client.clone(), namespace, &kind.resource);
    let list = list(&api).await?;
    for object in list
        .iter()
        .filter(|o| o.metadata.deletion_timestamp.is_none())
    {
        let deleted = objects
            .delete(&object.name_any(), &DeleteParams::background())
            .await;
        ignore_not_found(deleted)?;
    }
    if list.is_empty() {
        return Ok(0);
    }
    Ok(self::list(&api).await?.len())
}

async fn list(
    api: &Api<PartialObjectMeta<DynamicObject>>,
) -> kube::Result<Vec<PartialObjectMeta<DynamicObject>>> {
    let listed = ignore_not_found(api.list(&ListParams::default()).await)?;
    Ok(listed.map(|list| list.items).unwrap_or_default())
}

async fn finalize(client: &Client, mut namespace: Namespace) -> kube::Result<()> {
    if let Some(finalizers) = namespace.spec.as_mut().and_then(|s| s.finalizers.as_mut()) {
        finalizers.retain(|f| f != FINALIZER);
    }
    let api: Api<Namespace> = Api::all(client.clone());
    let name = namespace.name_any();
    let replaced = api
        .replace_subresource("finalize", &name, &PostParams::default(), &namespace)
        .await;
    ignore_not_found(replaced)?;
    Ok(())
}
