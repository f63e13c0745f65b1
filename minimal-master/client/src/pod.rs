//! Rules about pods that several loops share.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodCondition, PodTemplateSpec};

/// `status.phase`, `Pending` when unset.
pub fn phase(pod: &Pod) -> &str {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    phase.unwrap_or("Pending")
}

/// Succeeded or Failed: no container will run again.
pub fn is_terminal(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// Whether the pod counts as a replica: neither terminal nor being deleted.
pub fn is_active(pod: &Pod) -> bool {
    !is_terminal(pod) && pod.metadata.deletion_timestamp.is_none()
}

/// The node that the pod is bound to.
pub fn node_name(pod: &Pod) -> Option<&str> {
    let spec = pod.spec.as_ref()?;
    spec.node_name.as_deref().filter(|name| !name.is_empty())
}

/// One of the pod's conditions.
pub fn condition<'a>(pod: &'a Pod, type_: &str) -> Option<&'a PodCondition> {
    let status = pod.status.as_ref()?;
    status
        .conditions
        .iter()
        .flatten()
        .find(|c| c.type_ == type_)
}

/// Whether the Ready condition is True.
pub fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|c| c.status == "True")
}

/// How long until the pod counts as available: ready for `min_ready` without a break.
///
/// `None` when it is not ready, zero when it is available now.
pub fn available_in(pod: &Pod, min_ready: Duration, now: Timestamp) -> Option<Duration> {
    let ready = condition(pod, "Ready").filter(|c| c.status == "True")?;
    if min_ready.is_zero() {
        return Some(Duration::ZERO);
    }
    let since = ready.last_transition_time.as_ref()?.0;
    let ready_for = Duration::try_from(now.duration_since(since)).unwrap_or_default();
    Some(min_ready.saturating_sub(ready_for))
}

/// The pod that a template makes (metadata and spec only).
pub fn from_template(template: &PodTemplateSpec) -> Pod {
    let mut pod = Pod {
        spec: template.spec.clone(),
        ..Pod::default()
    };
    if let Some(meta) = &template.metadata {
        pod.metadata.labels = meta.labels.clone();
        pod.metadata.annotations = meta.annotations.clone();
        pod.metadata.finalizers = meta.finalizers.clone();
    }
    pod
}
