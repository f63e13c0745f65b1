//! Binding a pod to a node: what `pods/NAME/binding` does to the pod.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::field::Path;
use crate::json::{list_at, map_at, name, object_mut, text_at};
use crate::{ApiError, FieldError, kinds};

/// Sets the pod's node, adds the binding's annotations and sets the condition PodScheduled. 409 when the pod is bound
/// already or is being deleted, 422 for a binding without a node.
pub fn bind(pod: &mut Value, binding: &Value, now: Timestamp) -> Result<(), ApiError> {
    let node = check_binding(binding)?.to_owned();
    check_pod(pod)?;
    pod["spec"]["nodeName"] = json!(node);
    let annotations = map_at(binding, "/metadata/annotations").clone();
    if !annotations.is_empty()
        && let Some(metadata) = object_mut(pod, "metadata")
        && let Value::Object(existing) = metadata.entry("annotations").or_insert(json!({}))
    {
        existing.extend(annotations);
    }
    set_scheduled(pod, now);
    Ok(())
}

fn check_binding(binding: &Value) -> Result<&str, ApiError> {
    let target = Path::root("target");
    let mut errors = Vec::new();
    let kind = text_at(binding, "/target/kind");
    if !kind.is_empty() && kind != "Node" {
        errors.push(FieldError::not_supported(
            &target.child("kind"),
            &json!(kind),
            &["Node", "<empty>"],
        ));
    }
    let node = text_at(binding, "/target/name");
    if node.is_empty() {
        errors.push(FieldError::required(&target.child("name"), ""));
    }
    match errors.is_empty() {
        true => Ok(node),
        false => Err(ApiError::invalid(&kinds::BINDING, name(binding), errors)),
    }
}

fn check_pod(pod: &Value) -> Result<(), ApiError> {
    let pod_name = name(pod);
    let refuse = |why: String| Err(ApiError::conflict_because(&kinds::POD, pod_name, why));
    if pod["metadata"]
        .get("deletionTimestamp")
        .is_some_and(|t| !t.is_null())
    {
        return refuse(format!(
            "pod {pod_name} is being deleted, cannot be assigned to a host"
        ));
    }
    let node = text_at(pod, "/spec/nodeName");
    if !node.is_empty() {
        return refuse(format!(
            "pod {pod_name} is already assigned to node {node:?}"
        ));
    }
    if !list_at(pod, "/spec/schedulingGates").is_empty() {
        return refuse(format!(
            "pod {pod_name} has non-empty .spec.schedulingGates"
        ));
    }
    Ok(())
}

fn set_scheduled(pod: &mut Value, now: Timestamp) {
    let condition = json!({
        "type": "PodScheduled",
        "status": "True",
        "lastProbeTime": null,
        "lastTransitionTime": now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
    });
    let Some(status) = object_mut(pod, "status") else {
        return;
    };
    let Value::Array(conditions) = status.entry("conditions").or_insert(json!([])) else {
        return;
    };
    match conditions.iter_mut().find(|c| c["type"] == "PodScheduled") {
        Some(existing) => *existing = condition,
        None => conditions.push(condition),
    }
}
