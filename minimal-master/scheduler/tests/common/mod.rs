//! Builders for nodes and pods.
#![allow(dead_code)]

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::{Value, json};
use sluice_scheduler::{node::NodeSpec, pod::PodInfo};

pub fn node(cpu: i64, memory: i64, pods: i64, labels: &Value, taints: &Value) -> NodeSpec {
    let node: Node = serde_json::from_value(json!({
        "metadata": {"name": "any", "labels": labels},
        "spec": {"taints": taints},
        "status": {"allocatable": {
            "cpu": format!("{cpu}m"), "memory": memory.to_string(), "pods": pods.to_string(),
        }},
    }))
    .unwrap();
    NodeSpec::new(&node).unwrap()
}

pub fn pod(uid: &str, labels: &Value, spec: &Value) -> Arc<PodInfo> {
    owned(uid, labels, spec, None)
}

pub fn owned(uid: &str, labels: &Value, spec: &Value, owner: Option<&str>) -> Arc<PodInfo> {
    let owners = owner.map(|uid| {
        json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "rs", "uid": uid, "controller": true}])
    });
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {
            "namespace": "ns", "name": uid, "uid": uid, "labels": labels, "ownerReferences": owners,
        },
        "spec": spec,
    }))
    .unwrap();
    Arc::new(PodInfo::new(&pod).unwrap())
}

pub fn requests(cpu: i64, memory: i64) -> Value {
    json!({"containers": [{"name": "c", "resources": {
        "requests": {"cpu": format!("{cpu}m"), "memory": memory.to_string()},
    }}]})
}
