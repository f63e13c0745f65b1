//! Nodes that fall silent: their conditions become Unknown, they are tainted, and their pods stop
//! counting as ready, so that no load balancer sends them traffic. All of it is undone when the
//! node speaks again.

mod health;
mod taint;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use jiff::Timestamp;
use k8s_openapi::{
    api::{
        coordination::v1::Lease,
        core::v1::{Node, Pod},
    },
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::json;
use sluice_client::{
    Key, WorkQueue, events, ignore_not_found, pod as pods,
    worker::{self, Outcome},
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::shared::{BY_NODE, NODE_LEASES, Shared};
use health::{Heartbeat, Seen};
pub use health::{Ready, ready};

const WORKERS: usize = 2;

struct Controller {
    shared: Arc<Shared>,
    queue: Arc<WorkQueue<Key>>,
    seen: Mutex<HashMap<String, Seen>>,
}

/// Runs until cancelled.
pub async fn run(shared: Arc<Shared>, stop: CancellationToken) {
    let controller = Controller {
        shared: shared.clone(),
        queue: Arc::default(),
        seen: Mutex::default(),
    };
    let queue = controller.queue.clone();
    let nodes = shared.nodes.clone();
    shared.nodes.on_change(move |change| {
        queue.add(Key::of(&**change.latest()));
        let ready = |node: Option<&Arc<Node>>| node.map(|node| ready(node));
        if ready(change.old) != ready(change.new) {
            // Whether pods are evicted at all depends on the other nodes, too.
            nodes
                .list()
                .iter()
                .for_each(|node| queue.add(Key::of(&**node)));
        }
    });
    let queue = controller.queue.clone();
    shared
        .leases
        .on_change(move |change| queue.add(Key::cluster(change.latest().name_any())));
    futures::join!(
        shared.nodes.synced(),
        shared.leases.synced(),
        shared.pods.synced()
    );
    let queue = controller.queue.clone();
    worker::run("node-lifecycle", queue, WORKERS, stop, |key| {
        controller.reconcile(key)
    })
    .await;
}

impl Controller {
    async fn reconcile(&self, key: Key) -> kube::Result<Outcome> {
        let Some(node) = self.shared.nodes.get(&key) else {
            self.seen().remove(&key.name);
            return Ok(Outcome::Done);
        };
        let lease = self
            .shared
            .leases
            .get(&Key::new(NODE_LEASES, key.name.clone()));
        let now = Instant::now();
        let silent_at = self.observe(&node, lease.as_deref(), now)
            + self.shared.options.node_monitor_grace_period;
        if now >= silent_at && ready(&node) != Ready::Unknown {
            self.mark_unknown(&node).await?;
            // The change of the node comes back as an event; taints follow then.
            return Ok(Outcome::Done);
        }
        let ready = ready(&node);
        self.sync_taints(&node).await?;
        if ready == Ready::Unknown {
            self.mark_pods_not_ready(&node).await?;
        }
        let period = self.shared.options.node_monitor_period;
        let until = silent_at.saturating_duration_since(now);
        // A silent node is only looked at again in case its pods changed.
        let wait = if until.is_zero() {
            period
        } else {
            until.min(period)
        };
        Ok(Outcome::After(wait))
    }

    /// Notes the newest heartbeat; returns when it was first seen, by our own clock.
    fn observe(&self, node: &Node, lease: Option<&Lease>, now: Instant) -> Instant {
        let heartbeat = Heartbeat::of(node, lease);
        let mut seen = self.seen();
        let known = seen
            .entry(node.name_any())
            .or_insert_with(|| Seen::new(heartbeat.clone(), now));
        known.update(heartbeat, now)
    }

    async fn mark_unknown(&self, node: &Node) -> kube::Result<()> {
        tracing::info!(node = %node.name_any(), "no heartbeat within the grace period");
        let patch = json!({
            // A heartbeat that arrives in between must win.
            "metadata": {"resourceVersion": node.metadata.resource_version},
            "status": {"conditions": health::unknown_conditions(node, Timestamp::now())},
        });
        let patched = self
            .nodes()
            .patch_status(
                &node.name_any(),
                &PatchParams::default(),
                &Patch::Strategic(&patch),
            )
            .await;
        ignore_not_found(patched)?;
        let message = format!("Node {} status is now: NodeNotReady", node.name_any());
        let about = events::reference(node);
        self.shared
            .recorder
            .record(about, events::NORMAL, "NodeNotReady", message);
        Ok(())
    }

    async fn sync_taints(&self, node: &Node) -> kube::Result<()> {
        let all = self.shared.nodes.list();
        // When every node seems lost it is more likely that we are: evict nobody (upstream's full disruption).
        let evict = all.iter().any(|node| ready(node) == Ready::True);
        let Some(taints) = taint::desired(node, evict, Timestamp::now()) else {
            return Ok(());
        };
        let patch = json!({
            "metadata": {"resourceVersion": node.metadata.resource_version},
            "spec": {"taints": taints},
        });
        let patched = self
            .nodes()
            .patch(
                &node.name_any(),
                &PatchParams::default(),
                &Patch::Merge(&patch),
            )
            .await;
        ignore_not_found(patched)?;
        Ok(())
    }

    async fn mark_pods_not_ready(&self, node: &Node) -> kube::Result<()> {
        let on_node = self.shared.pods.by_index(BY_NODE, &node.name_any());
        let ready = on_node.iter().filter(|pod| pods::is_ready(pod));
        let writes = ready.map(|pod| self.mark_pod_not_ready(pod));
        futures::future::join_all(writes)
            .await
            .into_iter()
            .collect()
    }

    async fn mark_pod_not_ready(&self, pod: &Pod) -> kube::Result<()> {
        let patch = json!({
            "metadata": {"uid": pod.metadata.uid},
            "status": {"conditions": [{
                "type": "Ready", "status": "False", "lastTransitionTime": Time(Timestamp::now()),
            }]},
        });
        let api: Api<Pod> = Api::namespaced(
            self.shared.client.clone(),
            &pod.namespace().unwrap_or_default(),
        );
        let patched = api
            .patch_status(
                &pod.name_any(),
                &PatchParams::default(),
                &Patch::Strategic(&patch),
            )
            .await;
        if ignore_not_found(patched)?.is_some() {
            let about = events::reference(pod);
            let message = "Node is not ready".to_owned();
            self.shared
                .recorder
                .record(about, events::WARNING, "NodeNotReady", message);
        }
        Ok(())
    }

    fn nodes(&self) -> Api<Node> {
        Api::all(self.shared.client.clone())
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, HashMap<String, Seen>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
