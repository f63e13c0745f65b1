//! Binding a pod to a node: what `pods/NAME/binding` does to the pod.

use jiff::Timestamp;
use serde_json::Value;

use crate::ApiError;

/// Sets the pod's node, adds the binding's annotations and sets the condition PodScheduled. 409 when the pod is bound
/// already or is being deleted, 422 for a binding without a node.
pub fn bind(pod: &mut Value, binding: &Value, now: Timestamp) -> Result<(), ApiError> {
    todo!("{pod} {binding} {now}")
}
