//! The downward API: a pod's own fields as text, for environment variables and volumes.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Pod, ResourceFieldSelector};

use super::{resources, spec};

/// What the pod's object does not tell: where it runs.
#[derive(Clone, Debug, Default)]
pub struct Placement {
    /// Name of the node.
    pub node_name: String,
    /// The node's addresses, the primary one first.
    pub host_ips: Vec<String>,
    /// The pod's addresses, the primary one first.
    pub pod_ips: Vec<String>,
    /// Allocatable CPU of the node in thousandths, and memory in bytes.
    pub allocatable: (i64, i64),
}

/// Value of the field at `path` (a `fieldRef.fieldPath`).
///
/// # Errors
/// Says which paths exist, when `path` is none of them.
pub fn pod_field(pod: &Pod, placement: &Placement, path: &str) -> Result<String, String> {
    if let Some((map, key)) = subscript(path) {
        let map = match map {
            "metadata.annotations" => pod.metadata.annotations.as_ref(),
            "metadata.labels" => pod.metadata.labels.as_ref(),
            _ => return Err(unsupported(path)),
        };
        return Ok(map
            .and_then(|map| map.get(key))
            .cloned()
            .unwrap_or_default());
    }
    let first = |ips: &[String]| ips.first().cloned().unwrap_or_default();
    Ok(match path {
        "metadata.name" => spec::name(pod).into(),
        "metadata.namespace" => spec::namespace(pod).into(),
        "metadata.uid" => spec::uid(pod).into(),
        "metadata.annotations" => lines(pod.metadata.annotations.as_ref()),
        "metadata.labels" => lines(pod.metadata.labels.as_ref()),
        "spec.nodeName" => placement.node_name.clone(),
        "spec.serviceAccountName" => spec::spec(pod)
            .service_account_name
            .clone()
            .unwrap_or_default(),
        "status.hostIP" => first(&placement.host_ips),
        "status.hostIPs" => placement.host_ips.join(","),
        "status.podIP" => first(&placement.pod_ips),
        "status.podIPs" => placement.pod_ips.join(","),
        _ => return Err(unsupported(path)),
    })
}

fn unsupported(path: &str) -> String {
    format!("unsupported fieldPath: {path}")
}

/// Value of a `resourceFieldRef` of the container `name` (or of the one that the selector names).
///
/// # Errors
/// Says what is unknown: the container or the resource.
pub fn resource_field(
    pod: &Pod,
    name: &str,
    selector: &ResourceFieldSelector,
    placement: &Placement,
) -> Result<String, String> {
    let name = selector.container_name.as_deref().unwrap_or(name);
    let (container, _) =
        spec::container(pod, name).ok_or_else(|| format!("container {name} not found"))?;
    let value = resources::field(
        container,
        &selector.resource,
        selector.divisor.as_ref(),
        placement.allocatable,
    );
    value
        .map(|value| value.to_string())
        .ok_or_else(|| format!("unsupported container resource: {}", selector.resource))
}

/// Splits `metadata.labels['key']`.
fn subscript(path: &str) -> Option<(&str, &str)> {
    let (map, rest) = path.split_once("['")?;
    Some((map, rest.strip_suffix("']")?))
}

/// A map as the downward API writes it: `key="escaped value"`, a line each.
fn lines(map: Option<&BTreeMap<String, String>>) -> String {
    let lines: Vec<_> = map
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={value:?}"))
        .collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_of_a_pod() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": { "name": "p", "namespace": "n", "uid": "u", "labels": { "a": "1", "b": "x \"y\"" } },
            "spec": { "containers": [], "serviceAccountName": "sa" }
        }))
        .unwrap();
        let placement = Placement {
            node_name: "node".into(),
            host_ips: vec!["192.0.2.1".into(), "2001:db8::1".into()],
            pod_ips: vec!["10.0.0.2".into(), "fd00::2".into()],
            ..Default::default()
        };
        let cases = [
            ("metadata.name", "p"),
            ("metadata.namespace", "n"),
            ("metadata.uid", "u"),
            ("metadata.labels", "a=\"1\"\nb=\"x \\\"y\\\"\""),
            ("metadata.labels['a']", "1"),
            ("metadata.annotations['none']", ""),
            ("spec.nodeName", "node"),
            ("spec.serviceAccountName", "sa"),
            ("status.hostIP", "192.0.2.1"),
            ("status.hostIPs", "192.0.2.1,2001:db8::1"),
            ("status.podIP", "10.0.0.2"),
            ("status.podIPs", "10.0.0.2,fd00::2"),
        ];
        for (path, expected) in cases {
            assert_eq!(
                pod_field(&pod, &placement, path).unwrap(),
                expected,
                "{path}"
            );
        }
        assert!(
            pod_field(&pod, &placement, "spec.nope")
                .unwrap_err()
                .contains("spec.nope")
        );
    }
}
