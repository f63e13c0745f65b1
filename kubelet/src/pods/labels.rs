//! Labels and annotations on sandboxes and containers. They are the kubelet's only memory: after a restart every
//! pod is recovered from them, so their names must never change (they are also those of other CRI clients, such
//! as `crictl`).

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::api::core::v1::{Container, Pod};

use super::spec;

/// Label: name of the pod.
pub const POD_NAME: &str = "io.kubernetes.pod.name";
/// Label: namespace of the pod.
pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
/// Label: uid of the pod.
pub const POD_UID: &str = "io.kubernetes.pod.uid";
/// Label: name of the container in the pod's spec.
pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";
/// Annotation: hash of the parts of the container's spec whose change restarts it.
pub const CONTAINER_HASH: &str = "io.kubernetes.container.hash";
/// Annotation: how often the container was restarted before this instance.
pub const RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
/// Annotation: where the container writes its termination message.
pub const TERMINATION_MESSAGE_PATH: &str = "io.kubernetes.container.terminationMessagePath";
/// Annotation: `File` or `FallbackToLogsOnError`.
pub const TERMINATION_MESSAGE_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
/// Annotation: the pod's grace period in seconds, for a pod that is gone from the API when it is killed.
pub const GRACE_PERIOD: &str = "io.kubernetes.pod.terminationGracePeriod";

/// The pod's own labels with those that identify it, for its sandbox.
pub fn sandbox_labels(pod: &Pod) -> HashMap<String, String> {
    let mut labels = to_hash_map(pod.metadata.labels.as_ref());
    labels.extend(identity(pod));
    labels
}

/// The pod's own annotations with its grace period, for its sandbox.
pub fn sandbox_annotations(pod: &Pod) -> HashMap<String, String> {
    let mut annotations = to_hash_map(pod.metadata.annotations.as_ref());
    annotations.insert(GRACE_PERIOD.into(), spec::grace_period(pod).to_string());
    annotations
}

/// Labels of a container.
pub fn container_labels(pod: &Pod, container: &Container) -> HashMap<String, String> {
    let mut labels = identity(pod);
    labels.insert(CONTAINER_NAME.into(), container.name.clone());
    labels
}

/// Annotations of a container that is about to be created.
pub fn container_annotations(
    pod: &Pod,
    container: &Container,
    restart_count: u32,
) -> HashMap<String, String> {
    let path = container
        .termination_message_path
        .as_deref()
        .unwrap_or(spec::DEFAULT_TERMINATION_MESSAGE_PATH);
    let policy = container
        .termination_message_policy
        .as_deref()
        .unwrap_or("File");
    HashMap::from([
        (CONTAINER_HASH.into(), container_hash(container)),
        (RESTART_COUNT.into(), restart_count.to_string()),
        (TERMINATION_MESSAGE_PATH.into(), path.to_owned()),
        (TERMINATION_MESSAGE_POLICY.into(), policy.to_owned()),
        (GRACE_PERIOD.into(), spec::grace_period(pod).to_string()),
    ])
}

/// Hash over what restarts a running container when it changes: name and image, as upstream since 1.31.
pub fn container_hash(container: &Container) -> String {
    let image = container.image.as_deref().unwrap_or_default();
    let text = format!("{}\0{image}", container.name);
    format!("{:016x}", fnv1a(text.as_bytes()))
}

/// FNV-1a: stable over builds and machines, unlike the standard library's hasher.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

fn identity(pod: &Pod) -> HashMap<String, String> {
    HashMap::from([
        (POD_NAME.into(), spec::name(pod).to_owned()),
        (POD_NAMESPACE.into(), spec::namespace(pod).to_owned()),
        (POD_UID.into(), spec::uid(pod).to_owned()),
    ])
}

fn to_hash_map(map: Option<&BTreeMap<String, String>>) -> HashMap<String, String> {
    map.into_iter()
        .flatten()
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}
