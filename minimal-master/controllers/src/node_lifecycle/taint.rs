//! The taints that follow from a node's conditions.

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Node, Taint},
    apimachinery::pkg::apis::meta::v1::Time,
};
use sluice_client::taints::{
    self, DISK_PRESSURE, MEMORY_PRESSURE, NETWORK_UNAVAILABLE, NO_EXECUTE, NO_SCHEDULE, NOT_READY,
    PID_PRESSURE, UNREACHABLE, UNSCHEDULABLE,
};

use super::health::{Ready, condition, ready};

/// All taints that this controller adds and removes; others are an administrator's.
const OURS: [(&str, &str); 9] = [
    (NOT_READY, NO_SCHEDULE),
    (NOT_READY, NO_EXECUTE),
    (UNREACHABLE, NO_SCHEDULE),
    (UNREACHABLE, NO_EXECUTE),
    (MEMORY_PRESSURE, NO_SCHEDULE),
    (DISK_PRESSURE, NO_SCHEDULE),
    (PID_PRESSURE, NO_SCHEDULE),
    (NETWORK_UNAVAILABLE, NO_SCHEDULE),
    (UNSCHEDULABLE, NO_SCHEDULE),
];

/// The node's whole list of taints, if it has to change. `evict` allows NoExecute.
pub fn desired(node: &Node, evict: bool, now: Timestamp) -> Option<Vec<Taint>> {
    let current = node
        .spec
        .as_ref()
        .and_then(|s| s.taints.clone())
        .unwrap_or_default();
    let wanted = wanted(node, evict);
    let is = |taint: &Taint, key: &str, effect: &str| taint.key == key && taint.effect == effect;
    let keep = |taint: &Taint| {
        let ours = OURS.iter().any(|(key, effect)| is(taint, key, effect));
        !ours || wanted.iter().any(|(key, effect)| is(taint, key, effect))
    };
    let mut taints: Vec<Taint> = current
        .iter()
        .filter(|taint| keep(taint))
        .cloned()
        .collect();
    for (key, effect) in wanted {
        if !taints.iter().any(|taint| is(taint, key, effect)) {
            taints.push(Taint {
                time_added: Some(Time(now)),
                ..taints::taint(key, effect)
            });
        }
    }
    (taints != current).then_some(taints)
}

fn wanted(node: &Node, evict: bool) -> Vec<(&'static str, &'static str)> {
    let mut wanted = Vec::new();
    let lost = match ready(node) {
        Ready::True => None,
        Ready::False => Some(NOT_READY),
        Ready::Unknown => Some(UNREACHABLE),
    };
    if let Some(key) = lost {
        wanted.push((key, NO_SCHEDULE));
        if evict {
            wanted.push((key, NO_EXECUTE));
        }
    }
    for (type_, key) in [
        ("MemoryPressure", MEMORY_PRESSURE),
        ("DiskPressure", DISK_PRESSURE),
        ("PIDPressure", PID_PRESSURE),
        ("NetworkUnavailable", NETWORK_UNAVAILABLE),
    ] {
        if condition(node, type_).is_some_and(|c| c.status == "True") {
            wanted.push((key, NO_SCHEDULE));
        }
    }
    if node.spec.as_ref().and_then(|s| s.unschedulable) == Some(true) {
        wanted.push((UNSCHEDULABLE, NO_SCHEDULE));
    }
    wanted
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn node(ready: &str, taints: Value) -> Node {
        serde_json::from_value(json!({
            "spec": {"taints": taints},
            "status": {"conditions": [{"type": "Ready", "status": ready}]},
        }))
        .unwrap()
    }

    fn keys(taints: Option<Vec<Taint>>) -> Option<Vec<String>> {
        taints.map(|taints| {
            taints
                .iter()
                .map(|t| format!("{}:{}", t.key, t.effect))
                .collect()
        })
    }

    #[test]
    fn a_lost_node_is_tainted_and_a_recovered_one_freed_of_our_taints_only() {
        let now = Timestamp::UNIX_EPOCH;
        let own = json!([{"key": "dedicated", "effect": "NoSchedule"}]);
        let lost = desired(&node("Unknown", own.clone()), true, now);
        assert_eq!(
            keys(lost.clone()).unwrap(),
            [
                "dedicated:NoSchedule",
                "node.kubernetes.io/unreachable:NoSchedule",
                "node.kubernetes.io/unreachable:NoExecute",
            ]
        );
        let recovered = desired(&node("True", json!(lost)), true, now);
        assert_eq!(keys(recovered).unwrap(), ["dedicated:NoSchedule"]);
        assert_eq!(desired(&node("True", own), true, now), None);
    }

    #[test]
    fn a_taint_that_is_right_keeps_its_time_and_nothing_is_written() {
        let early = Timestamp::UNIX_EPOCH;
        let taints = desired(&node("False", json!([])), true, early);
        let later = "2024-01-01T00:00:00Z".parse().unwrap();
        assert_eq!(desired(&node("False", json!(taints)), true, later), None);
    }

    #[test]
    fn without_leave_to_evict_there_is_no_no_execute() {
        let taints = desired(&node("Unknown", json!([])), false, Timestamp::UNIX_EPOCH);
        assert_eq!(
            keys(taints).unwrap(),
            ["node.kubernetes.io/unreachable:NoSchedule"]
        );
    }
}
