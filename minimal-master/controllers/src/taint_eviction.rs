//! Evicts pods from nodes with NoExecute taints, at once or when their toleration runs out.

use std::{sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::core::v1::{Node, Pod, Taint, Toleration},
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
};
use serde_json::json;
use sluice_client::{
    Key, WorkQueue, events, ignore_not_found, pod as pods,
    taints::{self, NO_EXECUTE},
    worker::{self, Outcome},
};
use tokio_util::sync::CancellationToken;

use crate::shared::{BY_NODE, Shared};

const WORKERS: usize = 4;

/// Runs until cancelled.
pub async fn run(shared: Arc<Shared>, stop: CancellationToken) {
    let queue = Arc::new(WorkQueue::new());
    let wake = queue.clone();
    shared.pods.on_change(move |change| {
        let node =
            |pod: Option<&Arc<Pod>>| pod.and_then(|pod| pods::node_name(pod).map(str::to_owned));
        let tolerations =
            |pod: Option<&Arc<Pod>>| pod.and_then(|pod| pod.spec.as_ref()?.tolerations.clone());
        if node(change.old) != node(change.new)
            || tolerations(change.old) != tolerations(change.new)
        {
            wake.add(Key::of(&**change.latest()));
        }
    });
    let (wake, pods) = (queue.clone(), shared.pods.clone());
    shared.nodes.on_change(move |change| {
        let taints =
            |node: Option<&Arc<Node>>| node.map(|node| no_execute(node)).unwrap_or_default();
        if taints(change.old) != taints(change.new) {
            let on_node = pods.by_index(BY_NODE, &change.latest().name_any());
            on_node.iter().for_each(|pod| wake.add(Key::of(&**pod)));
        }
    });
    futures::join!(shared.nodes.synced(), shared.pods.synced());
    let run = |key| reconcile(shared.clone(), key);
    worker::run("taint-eviction", queue, WORKERS, stop, run).await;
}

async fn reconcile(shared: Arc<Shared>, key: Key) -> kube::Result<Outcome> {
    let Some(pod) = shared
        .pods
        .get(&key)
        .filter(|p| p.metadata.deletion_timestamp.is_none())
    else {
        return Ok(Outcome::Done);
    };
    let node = pods::node_name(&pod).and_then(|name| shared.nodes.get(&Key::cluster(name)));
    let Some(node) = node else {
        return Ok(Outcome::Done);
    };
    let now = Timestamp::now();
    match evict_in(&pod, &no_execute(&node), now) {
        None => Ok(Outcome::Done),
        Some(wait) if wait.is_zero() => {
            evict(&shared, &pod, now).await?;
            Ok(Outcome::Done)
        }
        Some(wait) => Ok(Outcome::After(wait)),
    }
}

fn no_execute(node: &Node) -> Vec<Taint> {
    let taints = node
        .spec
        .iter()
        .flat_map(|spec| spec.taints.iter().flatten());
    taints
        .filter(|taint| taint.effect == NO_EXECUTE)
        .cloned()
        .collect()
}

/// How long the pod may stay; `None` means for ever.
///
/// Counted from when the taint was added, so that a restart of the master changes nothing.
fn evict_in(pod: &Pod, taints: &[Taint], now: Timestamp) -> Option<Duration> {
    let tolerations = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.tolerations.as_deref())
        .unwrap_or_default();
    let waits = taints
        .iter()
        .filter_map(|taint| allowance(tolerations, taint, now));
    waits.min()
}

/// What is left of the pod's leave to stay under one taint. Of several tolerations the shortest counts.
fn allowance(tolerations: &[Toleration], taint: &Taint, now: Timestamp) -> Option<Duration> {
    let matching: Vec<_> = tolerations
        .iter()
        .filter(|t| taints::tolerates(t, taint))
        .collect();
    if matching.is_empty() {
        return Some(Duration::ZERO);
    }
    let seconds = matching.iter().filter_map(|t| t.toleration_seconds).min()?;
    let since = taint.time_added.as_ref().map_or(now, |t| t.0);
    let left = SignedDuration::from_secs(seconds) - now.duration_since(since);
    Some(Duration::try_from(left).unwrap_or(Duration::ZERO))
}

async fn evict(shared: &Shared, pod: &Pod, now: Timestamp) -> kube::Result<()> {
    let api: Api<Pod> =
        Api::namespaced(shared.client.clone(), &pod.namespace().unwrap_or_default());
    let patch = json!({
        "metadata": {"uid": pod.metadata.uid},
        "status": {"conditions": [{
            "type": "DisruptionTarget",
            "status": "True",
            "reason": "DeletionByTaintManager",
            "message": "Taint manager: deleting due to NoExecute taint",
            "lastTransitionTime": Time(now),
        }]},
    });
    let patched = api
        .patch_status(
            &pod.name_any(),
            &PatchParams::default(),
            &Patch::Strategic(&patch),
        )
        .await;
    ignore_not_found(patched)?;
    let params = DeleteParams::default().preconditions(Preconditions {
        uid: pod.uid(),
        resource_version: None,
    });
    if ignore_not_found(api.delete(&pod.name_any(), &params).await)?.is_some() {
        let message = format!("Marking for deletion Pod {}", Key::of(pod));
        let about = events::reference(pod);
        shared
            .recorder
            .record(about, events::NORMAL, "TaintManagerEviction", message);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn pod(tolerations: Value) -> Pod {
        serde_json::from_value(json!({"spec": {"containers": [], "tolerations": tolerations}}))
            .unwrap()
    }

    fn taint(key: &str, added: &str) -> Taint {
        serde_json::from_value(json!({"key": key, "effect": NO_EXECUTE, "timeAdded": added}))
            .unwrap()
    }

    fn left(tolerations: Value, taints: &[Taint]) -> Option<u64> {
        let now = "2024-01-01T00:01:00Z".parse().unwrap();
        evict_in(&pod(tolerations), taints, now).map(|d| d.as_secs())
    }

    #[test]
    fn leave_to_stay_runs_from_the_taints_own_time() {
        let taints = [taint("gone", "2024-01-01T00:00:00Z")];
        let tolerate = |seconds: Value| json!([{"key": "gone", "operator": "Exists", "tolerationSeconds": seconds}]);
        assert_eq!(left(tolerate(json!(300)), &taints), Some(240));
        assert_eq!(left(tolerate(json!(30)), &taints), Some(0));
        assert_eq!(left(tolerate(json!(null)), &taints), None);
        assert_eq!(left(json!([]), &taints), Some(0));
        assert_eq!(left(json!([]), &[]), None);
    }

    #[test]
    fn of_several_taints_and_tolerations_the_shortest_leave_counts() {
        let taints = [
            taint("a", "2024-01-01T00:01:00Z"),
            taint("b", "2024-01-01T00:01:00Z"),
        ];
        let tolerations = json!([
            {"operator": "Exists", "tolerationSeconds": 100},
            {"key": "b", "operator": "Exists", "tolerationSeconds": 20},
        ]);
        assert_eq!(left(tolerations, &taints), Some(20));
    }
}
