//! The row of a Node.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::{age, or_none};
use crate::json::{flag, list_at, map_at, name, text, text_at};

pub(super) fn cells(node: &Value, now: Timestamp) -> Vec<Value> {
    let info = |field: &str| match text_at(node, &format!("/status/nodeInfo/{field}")) {
        "" => "<unknown>".to_owned(),
        value => value.to_owned(),
    };
    vec![
        json!(name(node)),
        json!(status(node)),
        json!(roles(node)),
        age(node, now),
        json!(text_at(node, "/status/nodeInfo/kubeletVersion")),
        json!(address(node, "InternalIP")),
        json!(address(node, "ExternalIP")),
        json!(info("osImage")),
        json!(info("kernelVersion")),
        json!(info("containerRuntimeVersion")),
    ]
}

fn status(node: &Value) -> String {
    let ready = list_at(node, "/status/conditions")
        .iter()
        .find(|c| text(c, "type") == "Ready");
    let mut status = match ready.map(|condition| text(condition, "status")) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }
    .to_owned();
    if flag(&node["spec"], "unschedulable") {
        status.push_str(",SchedulingDisabled");
    }
    status
}

fn roles(node: &Value) -> String {
    let mut roles: Vec<&str> = map_at(node, "/metadata/labels")
        .iter()
        .filter_map(
            |(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
                Some(role) => Some(role),
                None if key == "kubernetes.io/role" => value.as_str(),
                None => None,
            },
        )
        .filter(|role| !role.is_empty())
        .collect();
    roles.sort_unstable();
    roles.dedup();
    or_none(&roles.join(",")).to_owned()
}

fn address<'a>(node: &'a Value, ty: &str) -> &'a str {
    let addresses = list_at(node, "/status/addresses");
    let found = addresses.iter().find(|address| text(address, "type") == ty);
    or_none(found.map_or("", |address| text(address, "address")))
}
