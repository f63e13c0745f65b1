//! Which surplus pods go first (upstream's `ActivePodsWithRanks`).

use std::{cmp::Reverse, collections::HashMap, sync::Arc};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use sluice_client::pod;

const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// Sorts pods so that the ones whose loss hurts least come first.
pub fn for_deletion(
    mut pods: Vec<Arc<Pod>>,
    related: &[Arc<Pod>],
    now: Timestamp,
) -> Vec<Arc<Pod>> {
    let mut crowd: HashMap<&str, usize> = HashMap::new();
    for node in related
        .iter()
        .filter(|p| pod::is_active(p))
        .filter_map(|p| pod::node_name(p))
    {
        *crowd.entry(node).or_insert(0) += 1;
    }
    pods.sort_by_cached_key(|pod| order(pod, &crowd, now));
    pods
}

/// Smaller goes first: unassigned, pending, not ready, cheap, on a crowded node, ready for a short
/// time, restarted often, young.
fn order(pod: &Pod, crowd: &HashMap<&str, usize>, now: Timestamp) -> impl Ord + use<> {
    let node = pod::node_name(pod);
    let phase = match pod::phase(pod) {
        "Pending" => 0,
        "Unknown" => 1,
        _ => 2,
    };
    let mates = node.and_then(|node| crowd.get(node)).copied().unwrap_or(0);
    let ready = pod::is_ready(pod);
    let created = pod.metadata.creation_timestamp.as_ref().map(|t| t.0);
    (
        (node.is_some(), phase, ready, cost(pod)),
        (Reverse(mates), magnitude(ready_since(pod), now)),
        (Reverse(restarts(pod)), magnitude(created, now)),
        // Names only to make the order total.
        pod.metadata.name.clone(),
    )
}

fn cost(pod: &Pod) -> i32 {
    let annotations = pod.metadata.annotations.as_ref();
    let cost = annotations.and_then(|a| a.get(DELETION_COST));
    cost.and_then(|cost| cost.parse().ok()).unwrap_or(0)
}

fn ready_since(pod: &Pod) -> Option<Timestamp> {
    let ready = pod::condition(pod, "Ready").filter(|c| c.status == "True")?;
    ready.last_transition_time.as_ref().map(|t| t.0)
}

/// Ages that differ by less than a factor of two count as equal, so that a set isn't always emptied
/// from its newest end (KEP-2185).
fn magnitude(since: Option<Timestamp>, now: Timestamp) -> u32 {
    let seconds = since.map_or(0, |since| now.duration_since(since).as_secs().max(0));
    u64::try_from(seconds)
        .unwrap_or(0)
        .checked_ilog2()
        .map_or(0, |log| log + 1)
}

fn restarts(pod: &Pod) -> i32 {
    let statuses = pod
        .status
        .iter()
        .flat_map(|s| s.container_statuses.iter().flatten());
    statuses
        .map(|status| status.restart_count)
        .max()
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(name: &str, value: Value) -> Arc<Pod> {
        let mut pod: Pod = serde_json::from_value(value).unwrap();
        pod.metadata.name = Some(name.into());
        Arc::new(pod)
    }

    fn ready(node: &str, since: &str) -> Value {
        json!({"spec": {"nodeName": node, "containers": []}, "status": {"phase": "Running", "conditions": [
            {"type": "Ready", "status": "True", "lastTransitionTime": since},
        ]}})
    }

    fn order_of(pods: Vec<Arc<Pod>>) -> Vec<String> {
        let now: Timestamp = "2024-01-01T12:00:00Z".parse().unwrap();
        let related = pods.clone();
        for_deletion(pods, &related, now)
            .iter()
            .filter_map(|p| p.metadata.name.clone())
            .collect()
    }

    #[test]
    fn pods_that_serve_nothing_go_first() {
        let not_ready =
            json!({"spec": {"nodeName": "n", "containers": []}, "status": {"phase": "Running"}});
        let pending =
            json!({"spec": {"nodeName": "n", "containers": []}, "status": {"phase": "Pending"}});
        let order = order_of(vec![
            pod("ready", ready("m", "2024-01-01T00:00:00Z")),
            pod("not-ready", not_ready),
            pod("pending", pending),
            pod("unassigned", json!({})),
        ]);
        assert_eq!(order, ["unassigned", "pending", "not-ready", "ready"]);
    }

    #[test]
    fn of_ready_pods_those_on_crowded_nodes_and_the_newest_go_first() {
        let order = order_of(vec![
            pod("alone", ready("n1", "2024-01-01T11:59:00Z")),
            pod("paired-old", ready("n2", "2024-01-01T00:00:00Z")),
            pod("paired-new", ready("n2", "2024-01-01T11:59:00Z")),
        ]);
        assert_eq!(order, ["paired-new", "paired-old", "alone"]);
    }

    #[test]
    fn a_deletion_cost_outweighs_crowding() {
        let mut cheap = ready("n1", "2024-01-01T00:00:00Z");
        cheap["metadata"] = json!({"annotations": {DELETION_COST: "-5"}});
        let order = order_of(vec![
            pod("a", ready("n2", "2024-01-01T00:00:00Z")),
            pod("b", ready("n2", "2024-01-01T00:00:00Z")),
            pod("cheap", cheap),
        ]);
        assert_eq!(order[0], "cheap");
    }
}
