//! Which kubelet runs a pod, where it is, and which container is meant.

use serde_json::Value;
use sluice_api::{ApiError, kinds};

use crate::app::App;
use crate::object;
use crate::rest::{At, Call};

const DEFAULT_PORT: u16 = 10250;

/// A kubelet's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Location {
    pub(super) node: String,
    pub(super) host: String,
    pub(super) port: u16,
}

pub(super) async fn pod(call: &Call) -> Result<Value, ApiError> {
    let at = At {
        kind: &kinds::POD,
        namespace: &call.target.namespace,
        name: &call.target.name,
    };
    Ok(call.app.existing(at).await?.value)
}

pub(super) async fn kubelet(app: &App, pod: &Value) -> Result<Location, ApiError> {
    let name = object::name(pod);
    let node = pod["spec"]["nodeName"]
        .as_str()
        .filter(|node| !node.is_empty());
    let node = node.ok_or_else(|| {
        ApiError::bad_request(format!("pod {name} does not have a host assigned"))
    })?;
    let at = At {
        kind: &kinds::NODE,
        namespace: "",
        name: node,
    };
    location(&app.existing(at).await?.value)
}

/// Internal addresses first, as upstream prefers them unless told otherwise.
fn location(node: &Value) -> Result<Location, ApiError> {
    let name = object::name(node);
    let addresses = node["status"]["addresses"].as_array();
    let of_type = |wanted: &str| {
        let mut found = addresses
            .into_iter()
            .flatten()
            .filter(|address| address["type"] == wanted);
        found.find_map(|address| address["address"].as_str())
    };
    let host = ["InternalIP", "ExternalIP", "Hostname"]
        .into_iter()
        .find_map(of_type);
    let host = host
        .ok_or_else(|| ApiError::service_unavailable(format!("node {name} has no address yet")))?;
    let port = node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"].as_u64();
    let port = port
        .and_then(|port| u16::try_from(port).ok())
        .filter(|port| *port > 0);
    Ok(Location {
        node: name.to_owned(),
        host: host.to_owned(),
        port: port.unwrap_or(DEFAULT_PORT),
    })
}

/// The container that was asked for, or the only one there is.
pub(super) fn container(pod: &Value, wanted: Option<&str>) -> Result<String, ApiError> {
    let names = |field: &str| -> Vec<String> {
        let list = pod["spec"][field].as_array().into_iter().flatten();
        list.filter_map(|container| container["name"].as_str().map(str::to_owned))
            .collect()
    };
    let (containers, init) = (names("containers"), names("initContainers"));
    let pod_name = object::name(pod);
    match (wanted, &containers[..]) {
        (Some(wanted), _) => {
            let known = [containers.clone(), init, names("ephemeralContainers")].concat();
            known
                .into_iter()
                .find(|name| name == wanted)
                .ok_or_else(|| {
                    ApiError::bad_request(format!(
                        "container {wanted} is not valid for pod {pod_name}"
                    ))
                })
        }
        (None, [only]) => Ok(only.clone()),
        (None, _) => {
            let mut message = format!(
                "a container name must be specified for pod {pod_name}, choose one of: [{}]",
                containers.join(" ")
            );
            if !init.is_empty() {
                message.push_str(&format!(
                    " or one of the init containers: [{}]",
                    init.join(" ")
                ));
            }
            Err(ApiError::bad_request(message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_internal_address_and_the_kubelets_port_are_taken() {
        let node = json!({"metadata": {"name": "n"}, "status": {
            "addresses": [{"type": "Hostname", "address": "n"}, {"type": "InternalIP", "address": "198.18.0.11"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 10251}},
        }});
        let location = location(&node).unwrap();
        assert_eq!(
            (location.host.as_str(), location.port),
            ("198.18.0.11", 10251)
        );
    }

    #[test]
    fn a_container_must_be_named_where_there_are_several() {
        let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a"}, {"name": "b"}]}});
        assert_eq!(container(&pod, Some("b")).unwrap(), "b");
        let error = container(&pod, None).unwrap_err();
        assert!(
            error.code == 400 && error.message.contains("[a b]"),
            "{error}"
        );
        assert!(
            container(&pod, Some("c"))
                .unwrap_err()
                .message
                .contains("not valid")
        );
    }
}
