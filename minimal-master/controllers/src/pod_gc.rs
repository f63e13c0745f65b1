//! Pods that nobody else cleans up: on nodes that are gone, unscheduled but deleted, finished in masses.

use std::{collections::HashMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Node, Pod},
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
};
use serde_json::json;
use sluice_client::{ignore_not_found, pod as pods, taints};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::shared::Shared;

/// How often to look.
const PERIOD: Duration = Duration::from_secs(20);
/// A node must be unknown for this long before its pods are removed: caches may be behind each other.
const QUARANTINE: Duration = Duration::from_secs(40);

/// Why a pod is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    /// Its node doesn't exist.
    Orphaned,
    /// It is being deleted and its node is known to be down for good.
    OutOfService,
    /// It is being deleted and never had a node.
    Unscheduled,
    /// It has finished, and there are too many of those.
    Finished,
}

/// Runs until cancelled.
pub async fn run(shared: Arc<Shared>, stop: CancellationToken) {
    futures::join!(shared.nodes.synced(), shared.pods.synced());
    let mut missing = HashMap::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(PERIOD) => {}
        }
        let gone = lost_nodes(&shared, &mut missing).await;
        let (nodes, all) = (shared.nodes.list(), shared.pods.list());
        for (pod, reason) in victims(&all, &nodes, &gone, shared.options.terminated_pod_threshold) {
            if let Err(error) = remove(&shared, &pod, reason).await {
                tracing::warn!(pod = %pod.name_any(), %error, "pod not removed");
            }
        }
    }
}

/// Nodes that pods name, that have been unknown through the quarantine, and that the server doesn't know.
async fn lost_nodes(shared: &Shared, missing: &mut HashMap<String, Instant>) -> Vec<String> {
    let known: Vec<String> = shared
        .nodes
        .list()
        .iter()
        .map(|node| node.name_any())
        .collect();
    let pods = shared.pods.list();
    let named = pods.iter().filter_map(|pod| pods::node_name(pod));
    let unknown: Vec<&str> = named
        .filter(|name| !known.iter().any(|k| k == name))
        .collect();
    missing.retain(|name, _| unknown.contains(&name.as_str()));
    for name in unknown {
        missing.entry(name.to_owned()).or_insert_with(Instant::now);
    }
    let api: Api<Node> = Api::all(shared.client.clone());
    let mut gone = Vec::new();
    for (name, since) in missing.iter() {
        if since.elapsed() >= QUARANTINE && matches!(api.get_opt(name).await, Ok(None)) {
            gone.push(name.clone());
        }
    }
    gone
}

fn victims(
    pods: &[Arc<Pod>],
    nodes: &[Arc<Node>],
    gone: &[String],
    threshold: usize,
) -> Vec<(Arc<Pod>, Reason)> {
    let down = |name: &str| {
        let node = nodes.iter().find(|node| node.name_any() == name);
        node.and_then(|node| node.spec.as_ref()?.taints.as_ref())
            .is_some_and(|taints| taints.iter().any(|t| t.key == taints::OUT_OF_SERVICE))
    };
    let mut victims: Vec<(Arc<Pod>, Reason)> = Vec::new();
    for pod in pods {
        let deleting = pod.metadata.deletion_timestamp.is_some();
        let reason = match pods::node_name(pod) {
            Some(name) if gone.iter().any(|g| g == name) => Reason::Orphaned,
            Some(name) if deleting && down(name) => Reason::OutOfService,
            None if deleting => Reason::Unscheduled,
            _ => continue,
        };
        victims.push((pod.clone(), reason));
    }
    victims.extend(finished(pods, threshold));
    victims
}

fn finished(pods: &[Arc<Pod>], threshold: usize) -> Vec<(Arc<Pod>, Reason)> {
    let mut finished: Vec<_> = pods
        .iter()
        .filter(|pod| pods::is_terminal(pod))
        .cloned()
        .collect();
    if threshold == 0 || finished.len() <= threshold {
        return Vec::new();
    }
    finished.sort_by_key(|pod| pod.metadata.creation_timestamp.as_ref().map(|t| t.0));
    finished.truncate(finished.len() - threshold);
    finished
        .into_iter()
        .map(|pod| (pod, Reason::Finished))
        .collect()
}

async fn remove(shared: &Shared, pod: &Pod, reason: Reason) -> kube::Result<()> {
    tracing::info!(pod = %pod.name_any(), ?reason, "removing pod");
    let api: Api<Pod> =
        Api::namespaced(shared.client.clone(), &pod.namespace().unwrap_or_default());
    if matches!(reason, Reason::Orphaned | Reason::OutOfService) && !pods::is_terminal(pod) {
        let patch = json!({
            "metadata": {"uid": pod.metadata.uid},
            "status": {"phase": "Failed", "conditions": [{
                "type": "DisruptionTarget",
                "status": "True",
                "reason": "DeletionByPodGC",
                "message": "PodGC: node no longer exists",
                "lastTransitionTime": Time(Timestamp::now()),
            }]},
        });
        let params = PatchParams::default();
        ignore_not_found(
            api.patch_status(&pod.name_any(), &params, &Patch::Strategic(&patch))
                .await,
        )?;
    }
    // No kubelet will confirm: remove at once.
    let params = DeleteParams::default()
        .grace_period(0)
        .preconditions(Preconditions {
            uid: pod.uid(),
            resource_version: None,
        });
    ignore_not_found(api.delete(&pod.name_any(), &params).await)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, node: Option<&str>, phase: &str, deleting: bool, created: u8) -> Arc<Pod> {
        let pod = json!({
            "metadata": {"name": name, "creationTimestamp": format!("2024-01-01T00:00:{created:02}Z"),
                "deletionTimestamp": deleting.then_some("2024-01-01T01:00:00Z")},
            "spec": {"nodeName": node, "containers": []},
            "status": {"phase": phase},
        });
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    #[test]
    fn only_pods_that_nobody_else_removes_are_removed() {
        let down = json!({"metadata": {"name": "down"}, "spec": {"taints": [
            {"key": taints::OUT_OF_SERVICE, "effect": "NoExecute"},
        ]}});
        let nodes = [Arc::new(serde_json::from_value(down).unwrap())];
        let pods = [
            pod("orphan", Some("gone"), "Running", false, 1),
            pod("fine", Some("up"), "Running", false, 1),
            pod("terminating", Some("up"), "Running", true, 1),
            pod("stranded", Some("down"), "Running", true, 1),
            pod("never", None, "Pending", true, 1),
            pod("waiting", None, "Pending", false, 1),
        ];
        let victims = victims(&pods, &nodes, &["gone".into()], 0);
        let found: Vec<_> = victims.iter().map(|(p, r)| (p.name_any(), *r)).collect();
        assert_eq!(
            found,
            [
                ("orphan".into(), Reason::Orphaned),
                ("stranded".into(), Reason::OutOfService),
                ("never".into(), Reason::Unscheduled),
            ]
        );
    }

    #[test]
    fn of_too_many_finished_pods_the_oldest_go() {
        let pods: Vec<_> = (0..5)
            .map(|i| pod(&format!("p{i}"), Some("n"), "Succeeded", false, 9 - i))
            .collect();
        let victims = victims(&pods, &[], &[], 3);
        let names: Vec<_> = victims.iter().map(|(p, _)| p.name_any()).collect();
        assert_eq!(names, ["p4", "p3"]);
    }
}
