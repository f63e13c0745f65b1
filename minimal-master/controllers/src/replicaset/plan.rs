//! How many pods to create, or which to delete.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::{apps::v1::ReplicaSet, core::v1::Pod};
use sluice_client::pod;

use super::rank;

/// At most this many pods are created or deleted in one go.
const BURST: usize = 500;

/// What to do about the number of pods.
#[derive(Debug, PartialEq)]
pub enum Plan {
    /// The number is right.
    Nothing,
    /// This many are missing.
    Create(usize),
    /// These are too many.
    Delete(Vec<Arc<Pod>>),
}

/// Compares the pods that the set owns with what it asks for. `related` are all pods of its siblings and itself.
pub fn plan(set: &ReplicaSet, owned: &[Arc<Pod>], related: &[Arc<Pod>], now: Timestamp) -> Plan {
    let replicas = set
        .spec
        .as_ref()
        .and_then(|spec| spec.replicas)
        .unwrap_or(1);
    let wanted = usize::try_from(replicas).unwrap_or(0);
    let active: Vec<Arc<Pod>> = owned
        .iter()
        .filter(|p| pod::is_active(p))
        .cloned()
        .collect();
    if active.len() < wanted {
        return Plan::Create((wanted - active.len()).min(BURST));
    }
    let surplus = (active.len() - wanted).min(BURST);
    if surplus == 0 {
        return Plan::Nothing;
    }
    let mut ranked = rank::for_deletion(active, related, now);
    ranked.truncate(surplus);
    Plan::Delete(ranked)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn set(replicas: i32) -> ReplicaSet {
        serde_json::from_value(json!({"spec": {"replicas": replicas, "selector": {}}})).unwrap()
    }

    fn pods(count: usize, phase: &str) -> Vec<Arc<Pod>> {
        let pod = |i| json!({"metadata": {"name": format!("p{i}"), "uid": format!("u{i}")}, "status": {"phase": phase}});
        (0..count)
            .map(|i| Arc::new(serde_json::from_value(pod(i)).unwrap()))
            .collect()
    }

    #[test]
    fn missing_pods_are_created_and_surplus_ones_deleted() {
        let now = Timestamp::UNIX_EPOCH;
        assert_eq!(
            plan(&set(3), &pods(1, "Running"), &[], now),
            Plan::Create(2)
        );
        assert_eq!(plan(&set(2), &pods(2, "Running"), &[], now), Plan::Nothing);
        assert!(
            matches!(plan(&set(0), &pods(2, "Running"), &[], now), Plan::Delete(v) if v.len() == 2)
        );
        assert_eq!(plan(&set(10_000), &[], &[], now), Plan::Create(BURST));
    }

    #[test]
    fn finished_pods_are_replaced() {
        let now = Timestamp::UNIX_EPOCH;
        assert_eq!(plan(&set(2), &pods(2, "Failed"), &[], now), Plan::Create(2));
    }
}
