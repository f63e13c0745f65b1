//! Heartbeats, and what is said of a node that has none.
//!
//! A heartbeat is a change of the node's Lease or of its Ready condition. Only *that* it changed
//! counts, seen by our own clock: the clocks of nodes are not trusted.

use jiff::Timestamp;
use k8s_openapi::{
    api::{
        coordination::v1::Lease,
        core::v1::{Node, NodeCondition},
    },
    apimachinery::pkg::apis::meta::v1::{MicroTime, Time},
};
use tokio::time::Instant;

/// Conditions that the kubelet keeps up to date.
const KUBELET_CONDITIONS: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

/// The state of a node's Ready condition; a missing one counts as False.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ready {
    /// The kubelet says that it is ready.
    True,
    /// The kubelet says that it is not, or says nothing about it.
    False,
    /// The kubelet fell silent.
    Unknown,
}

/// Reads the Ready condition.
pub fn ready(node: &Node) -> Ready {
    match condition(node, "Ready").map(|c| c.status.as_str()) {
        Some("True") => Ready::True,
        Some("Unknown") => Ready::Unknown,
        _ => Ready::False,
    }
}

/// One of a node's conditions.
pub fn condition<'a>(node: &'a Node, type_: &str) -> Option<&'a NodeCondition> {
    let conditions = node.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|c| c.type_ == type_)
}

/// What changes with every sign of life.
#[derive(Clone, Debug, PartialEq)]
pub struct Heartbeat {
    lease: Option<MicroTime>,
    condition: Option<Time>,
}

impl Heartbeat {
    /// The heartbeat of a node as the caches show it.
    pub fn of(node: &Node, lease: Option<&Lease>) -> Self {
        Self {
            lease: lease.and_then(|l| l.spec.as_ref()?.renew_time.clone()),
            condition: condition(node, "Ready").and_then(|c| c.last_heartbeat_time.clone()),
        }
    }
}

/// The newest heartbeat and when it was first seen.
#[derive(Debug)]
pub struct Seen {
    heartbeat: Heartbeat,
    at: Instant,
}

impl Seen {
    /// A node that is seen for the first time has the whole grace period before it.
    pub fn new(heartbeat: Heartbeat, now: Instant) -> Self {
        Self { heartbeat, at: now }
    }

    /// Takes in the heartbeat as it is now; returns when it was first seen.
    pub fn update(&mut self, heartbeat: Heartbeat, now: Instant) -> Instant {
        if self.heartbeat != heartbeat {
            *self = Self::new(heartbeat, now);
        }
        self.at
    }
}

/// The conditions of a silent node, in upstream's words.
pub fn unknown_conditions(node: &Node, now: Timestamp) -> Vec<NodeCondition> {
    KUBELET_CONDITIONS
        .iter()
        .map(|type_| match condition(node, type_) {
            Some(known) => NodeCondition {
                status: "Unknown".into(),
                reason: Some("NodeStatusUnknown".into()),
                message: Some("Kubelet stopped posting node status.".into()),
                last_transition_time: if known.status == "Unknown" {
                    known.last_transition_time.clone()
                } else {
                    Some(Time(now))
                },
                ..known.clone()
            },
            None => NodeCondition {
                type_: (*type_).into(),
                status: "Unknown".into(),
                reason: Some("NodeStatusNeverUpdated".into()),
                message: Some("Kubelet never posted node status.".into()),
                last_transition_time: Some(Time(now)),
                last_heartbeat_time: node.metadata.creation_timestamp.clone(),
            },
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    fn node(heartbeat: &str) -> Node {
        serde_json::from_value(json!({"status": {"conditions": [
            {"type": "Ready", "status": "True", "reason": "KubeletReady", "lastHeartbeatTime": heartbeat},
        ]}}))
        .unwrap()
    }

    fn lease(renewed: &str) -> Lease {
        serde_json::from_value(json!({"spec": {"renewTime": renewed}})).unwrap()
    }

    #[test]
    fn either_kind_of_heartbeat_restarts_the_grace_period() {
        let start = Instant::now();
        let later = |seconds| start + Duration::from_secs(seconds);
        let old = node("2024-01-01T00:00:00Z");
        let first = Heartbeat::of(&old, Some(&lease("2024-01-01T00:00:00.000000Z")));
        let mut seen = Seen::new(first.clone(), start);
        assert_eq!(seen.update(first, later(5)), start);
        let renewed = Heartbeat::of(&old, Some(&lease("2024-01-01T00:00:10.000000Z")));
        assert_eq!(seen.update(renewed.clone(), later(10)), later(10));
        let posted = Heartbeat::of(
            &node("2024-01-01T00:01:00Z"),
            Some(&lease("2024-01-01T00:00:10.000000Z")),
        );
        assert_eq!(seen.update(posted, later(20)), later(20));
    }

    #[test]
    fn a_silent_nodes_conditions_become_unknown_and_keep_their_last_heartbeat() {
        let now = "2024-01-01T01:00:00Z".parse().unwrap();
        let conditions = unknown_conditions(&node("2024-01-01T00:00:00Z"), now);
        assert_eq!(conditions.len(), 4);
        assert!(conditions.iter().all(|c| c.status == "Unknown"));
        assert_eq!(conditions[0].reason.as_deref(), Some("NodeStatusUnknown"));
        assert_eq!(
            conditions[0].last_heartbeat_time.as_ref().unwrap().0,
            "2024-01-01T00:00:00Z".parse().unwrap()
        );
        assert_eq!(
            conditions[1].reason.as_deref(),
            Some("NodeStatusNeverUpdated")
        );
    }
}
