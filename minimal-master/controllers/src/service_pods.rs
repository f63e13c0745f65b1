//! Which Services a pod's change concerns; shared by the two endpoint controllers.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, Service};
use kube::{Resource, ResourceExt};
use sluice_client::{Change, Informer, Key, WorkQueue, labels, pod as pods};

use crate::shared::{BY_NAMESPACE, Shared};

/// Enqueues the Services that a pod's change may concern.
pub fn wake_services(
    services: &Informer<Service>,
    queue: &WorkQueue<Key>,
    change: &Change<'_, Pod>,
) {
    if let (Some(old), Some(new)) = (change.old, change.new)
        && !concerns_endpoints(old, new)
    {
        return;
    }
    let namespace = change.latest().meta().namespace.clone().unwrap_or_default();
    for service in services.by_index(BY_NAMESPACE, &namespace) {
        if change.both().any(|pod| selects(&service, pod)) {
            queue.add(Key::of(&*service));
        }
    }
}

/// The pods that a Service selects; `None` when it has no selector, so its endpoints are somebody else's.
pub fn selected(shared: &Shared, service: &Service) -> Option<Vec<Arc<Pod>>> {
    selector(service)?;
    let namespace = service.namespace().unwrap_or_default();
    let mut pods = shared.pods.by_index(BY_NAMESPACE, &namespace);
    pods.retain(|pod| selects(service, pod));
    Some(pods)
}

fn selector(service: &Service) -> Option<&labels::Labels> {
    let spec = service.spec.as_ref()?;
    let external = spec.type_.as_deref() == Some("ExternalName");
    spec.selector
        .as_ref()
        .filter(|s| !s.is_empty() && !external)
}

fn selects(service: &Service, pod: &Pod) -> bool {
    selector(service).is_some_and(|selector| labels::matches_map(selector, pod.labels()))
}

/// Whether anything changed that endpoints show.
fn concerns_endpoints(old: &Pod, new: &Pod) -> bool {
    let facts = |pod: &Pod| {
        let status = pod.status.as_ref();
        (
            (
                pod.metadata.labels.clone(),
                pods::is_terminal(pod),
                pods::is_ready(pod),
            ),
            (
                pod.metadata.deletion_timestamp.is_some(),
                pods::node_name(pod).map(str::to_owned),
            ),
            (
                status.and_then(|s| s.pod_ip.clone()),
                status.and_then(|s| s.pod_ips.clone()),
            ),
        )
    };
    facts(old) != facts(new)
}
