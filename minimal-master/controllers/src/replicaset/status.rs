//! What a ReplicaSet reports about its pods.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::{
    api::{
        apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus},
        core::v1::Pod,
    },
    apimachinery::pkg::apis::meta::v1::Time,
};
use serde_json::{Value, json};
use sluice_client::{labels, pod};

use super::min_ready;

/// Which kind of write failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Creating pods.
    Create,
    /// Deleting pods.
    Delete,
}

/// The status that these pods amount to.
pub fn compute(
    set: &ReplicaSet,
    owned: &[Arc<Pod>],
    failure: Option<(Failure, String)>,
    now: Timestamp,
) -> ReplicaSetStatus {
    let active: Vec<&Arc<Pod>> = owned.iter().filter(|p| pod::is_active(p)).collect();
    let count = |test: &dyn Fn(&Pod) -> bool| number(active.iter().filter(|p| test(p)).count());
    let template = set.spec.as_ref().and_then(|spec| spec.template.as_ref());
    let wanted = template
        .and_then(|t| t.metadata.as_ref()?.labels.clone())
        .unwrap_or_default();
    let labelled = |p: &Pod| {
        labels::matches_map(
            &wanted,
            p.metadata.labels.as_ref().unwrap_or(&Default::default()),
        )
    };
    let min_ready = min_ready(set);
    let available = |p: &Pod| pod::available_in(p, min_ready, now) == Some(Duration::ZERO);
    let going = owned
        .iter()
        .filter(|p| p.metadata.deletion_timestamp.is_some() && !pod::is_terminal(p));
    ReplicaSetStatus {
        replicas: number(active.len()).unwrap_or(0),
        fully_labeled_replicas: count(&labelled),
        ready_replicas: count(&pod::is_ready),
        available_replicas: count(&available),
        terminating_replicas: Some(number(going.count()).unwrap_or(0)),
        observed_generation: set.metadata.generation,
        conditions: conditions(set, failure, now),
    }
}

/// A merge patch that turns any status into this one.
pub fn patch(status: &ReplicaSetStatus) -> Value {
    json!({
        "replicas": status.replicas,
        "fullyLabeledReplicas": status.fully_labeled_replicas,
        "readyReplicas": status.ready_replicas,
        "availableReplicas": status.available_replicas,
        "terminatingReplicas": status.terminating_replicas,
        "observedGeneration": status.observed_generation,
        "conditions": status.conditions,
    })
}

/// When the next of the pods becomes available by time alone.
pub fn next_available(set: &ReplicaSet, owned: &[Arc<Pod>], now: Timestamp) -> Option<Duration> {
    let min_ready = min_ready(set);
    let waits = owned
        .iter()
        .filter_map(|p| pod::available_in(p, min_ready, now));
    waits.filter(|wait| !wait.is_zero()).min()
}

/// Zero is left out, as upstream's `omitempty` does.
fn number(count: usize) -> Option<i32> {
    i32::try_from(count).ok().filter(|count| *count > 0)
}

fn conditions(
    set: &ReplicaSet,
    failure: Option<(Failure, String)>,
    now: Timestamp,
) -> Option<Vec<ReplicaSetCondition>> {
    let known = set
        .status
        .as_ref()
        .and_then(|s| s.conditions.clone())
        .unwrap_or_default();
    let mut conditions: Vec<_> = known
        .iter()
        .filter(|c| c.type_ != "ReplicaFailure")
        .cloned()
        .collect();
    if let Some((failure, message)) = failure {
        let reason = match failure {
            Failure::Create => "FailedCreate",
            Failure::Delete => "FailedDelete",
        };
        let before = known
            .into_iter()
            .find(|c| c.type_ == "ReplicaFailure" && c.reason.as_deref() == Some(reason));
        conditions.push(before.unwrap_or(ReplicaSetCondition {
            type_: "ReplicaFailure".into(),
            status: "True".into(),
            reason: Some(reason.into()),
            message: Some(message),
            last_transition_time: Some(Time(now)),
        }));
    }
    (!conditions.is_empty()).then_some(conditions)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_and_available_differ_until_min_ready_seconds_are_over() {
        let set: ReplicaSet = serde_json::from_value(json!({
            "metadata": {"generation": 4},
            "spec": {"minReadySeconds": 10, "selector": {}},
        }))
        .unwrap();
        let pod = |since: &str| -> Arc<Pod> {
            Arc::new(
                serde_json::from_value(json!({"status": {"phase": "Running", "conditions": [
                    {"type": "Ready", "status": "True", "lastTransitionTime": since},
                ]}}))
                .unwrap(),
            )
        };
        let now = "2024-01-01T00:00:20Z".parse().unwrap();
        let pods = [pod("2024-01-01T00:00:00Z"), pod("2024-01-01T00:00:13Z")];
        let status = compute(&set, &pods, None, now);
        assert_eq!(
            (
                status.replicas,
                status.ready_replicas,
                status.available_replicas
            ),
            (2, Some(2), Some(1))
        );
        assert_eq!(status.observed_generation, Some(4));
        assert_eq!(
            next_available(&set, &pods, now),
            Some(Duration::from_secs(3))
        );
    }
}
