//! Taints and tolerations: which taint keeps which pod away.

use k8s_openapi::api::core::v1::{Taint, Toleration};

/// New pods are not scheduled here.
pub const NO_SCHEDULE: &str = "NoSchedule";
/// New pods are scheduled here only when no better node exists.
pub const PREFER_NO_SCHEDULE: &str = "PreferNoSchedule";
/// New pods are not scheduled here, and running ones are evicted.
pub const NO_EXECUTE: &str = "NoExecute";

/// Set while the node's Ready condition is False.
pub const NOT_READY: &str = "node.kubernetes.io/not-ready";
/// Set while the node's Ready condition is Unknown.
pub const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
/// Set while `spec.unschedulable` is true.
pub const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// Set while the node is short of memory.
pub const MEMORY_PRESSURE: &str = "node.kubernetes.io/memory-pressure";
/// Set while the node is short of disk space.
pub const DISK_PRESSURE: &str = "node.kubernetes.io/disk-pressure";
/// Set while the node is short of process ids.
pub const PID_PRESSURE: &str = "node.kubernetes.io/pid-pressure";
/// Set while the node's network is not set up.
pub const NETWORK_UNAVAILABLE: &str = "node.kubernetes.io/network-unavailable";
/// Set by an administrator who knows that the node is down for good (KEP-2268).
pub const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// Whether one toleration tolerates one taint: an empty effect or key stands for all.
pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let set = |field: &Option<String>| {
        field
            .as_deref()
            .filter(|s| !s.is_empty())
            .map(str::to_owned)
    };
    let effect = set(&toleration.effect);
    let key = set(&toleration.key);
    if effect.is_some_and(|effect| effect != taint.effect) {
        return false;
    }
    if key.as_ref().is_some_and(|key| *key != taint.key) {
        return false;
    }
    match toleration.operator.as_deref().unwrap_or("Equal") {
        "Exists" => true,
        // An empty key with Equal would match every key, which validation forbids.
        "" | "Equal" => {
            key.is_some()
                && toleration.value.as_deref().unwrap_or("") == taint.value.as_deref().unwrap_or("")
        }
        _ => false,
    }
}

/// Whether any of the tolerations tolerates the taint.
pub fn tolerated(tolerations: &[Toleration], taint: &Taint) -> bool {
    tolerations
        .iter()
        .any(|toleration| tolerates(toleration, taint))
}

/// Whether two taints are the same one: key and effect identify a taint on a node.
pub fn same(a: &Taint, b: &Taint) -> bool {
    a.key == b.key && a.effect == b.effect
}

/// A taint without value and time.
pub fn taint(key: &str, effect: &str) -> Taint {
    Taint {
        key: key.into(),
        effect: effect.into(),
        ..Taint::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn toleration(key: &str, operator: &str, value: &str, effect: &str) -> Toleration {
        let set = |s: &str| (!s.is_empty()).then(|| s.to_owned());
        Toleration {
            key: set(key),
            operator: set(operator),
            value: set(value),
            effect: set(effect),
            toleration_seconds: None,
        }
    }

    #[test]
    fn tolerations_match_by_key_value_and_effect() {
        let mut dedicated = taint("dedicated", NO_SCHEDULE);
        dedicated.value = Some("db".into());
        for (tolerates_it, toleration) in [
            (true, toleration("dedicated", "Equal", "db", NO_SCHEDULE)),
            (true, toleration("dedicated", "", "db", "")),
            (true, toleration("dedicated", "Exists", "", "")),
            (true, toleration("", "Exists", "", "")),
            (false, toleration("dedicated", "Equal", "web", "")),
            (false, toleration("dedicated", "Equal", "db", NO_EXECUTE)),
            (false, toleration("other", "Exists", "", "")),
            (false, toleration("", "Equal", "db", "")),
        ] {
            assert_eq!(
                tolerates(&toleration, &dedicated),
                tolerates_it,
                "{toleration:?}"
            );
        }
    }
}
