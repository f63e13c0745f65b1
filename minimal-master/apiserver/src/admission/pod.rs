//! What upstream's admission plugins ServiceAccount, DefaultTolerationSeconds and Priority do to new pods.

use serde_json::{Value, json};
use sluice_api::ApiError;

use crate::app::App;
use crate::rest::At;

/// Classes that always exist. The kind PriorityClass is not served.
const CLASSES: [(&str, i64); 2] = [
    ("system-cluster-critical", 2_000_000_000),
    ("system-node-critical", 2_000_001_000),
];

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";

pub(super) fn complete(app: &App, at: At<'_>, pod: &mut Value) -> Result<(), ApiError> {
    let spec = &mut pod["spec"];
    set_service_account(spec);
    set_priority(at, spec)?;
    let seconds = &app.tolerations;
    tolerate(spec, NOT_READY, seconds.not_ready);
    tolerate(spec, UNREACHABLE, seconds.unreachable);
    Ok(())
}

fn set_service_account(spec: &mut Value) {
    let given = |field: &str| spec[field].as_str().filter(|name| !name.is_empty());
    let name = given("serviceAccountName")
        .or(given("serviceAccount"))
        .unwrap_or("default");
    let name = json!(name);
    spec["serviceAccountName"] = name.clone();
    // The field's old name, which upstream still fills.
    spec["serviceAccount"] = name;
}

fn set_priority(at: At<'_>, spec: &mut Value) -> Result<(), ApiError> {
    let class = spec["priorityClassName"].as_str().unwrap_or_default();
    let priority = match CLASSES.iter().find(|(name, _)| *name == class) {
        Some((_, priority)) => *priority,
        None if class.is_empty() => 0,
        None => {
            let why = format!("no PriorityClass with name {class} was found");
            return Err(ApiError::forbidden(at.kind, at.name, why));
        }
    };
    spec["priority"] = json!(priority);
    if spec["preemptionPolicy"].is_null() {
        spec["preemptionPolicy"] = json!("PreemptLowerPriority");
    }
    Ok(())
}

/// Lets a pod stay for a while on a node that fails, unless the pod says itself what to do then.
fn tolerate(spec: &mut Value, key: &str, seconds: i64) {
    let tolerations = spec["tolerations"].as_array().cloned().unwrap_or_default();
    if tolerations.iter().any(|toleration| covers(toleration, key)) {
        return;
    }
    let mut tolerations = tolerations;
    tolerations.push(json!({
        "key": key,
        "operator": "Exists",
        "effect": "NoExecute",
        "tolerationSeconds": seconds,
    }));
    spec["tolerations"] = Value::Array(tolerations);
}

fn covers(toleration: &Value, key: &str) -> bool {
    let text = |field: &str| toleration[field].as_str().unwrap_or_default();
    (text("key").is_empty() || text("key") == key) && matches!(text("effect"), "" | "NoExecute")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_tolerate_failing_nodes_for_a_while() {
        let mut spec = json!({});
        tolerate(&mut spec, NOT_READY, 300);
        tolerate(&mut spec, NOT_READY, 300);
        let expected = json!([{"key": NOT_READY, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}]);
        assert_eq!(spec["tolerations"], expected);
    }

    #[test]
    fn the_pods_own_toleration_counts() {
        for own in [
            json!({"operator": "Exists"}),
            json!({"key": NOT_READY, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5}),
        ] {
            let mut spec = json!({"tolerations": [own]});
            tolerate(&mut spec, NOT_READY, 300);
            assert_eq!(spec["tolerations"], json!([own]));
        }
        let mut other = json!({"tolerations": [{"key": NOT_READY, "effect": "NoSchedule"}]});
        tolerate(&mut other, NOT_READY, 300);
        assert_eq!(other["tolerations"].as_array().unwrap().len(), 2);
    }
}
