//! The cells of a row, in the order of the kind's columns.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::{endpoints, node, pod, service};
use crate::duration;
use crate::json::{int_at, list, list_at, map, map_at, name, text, text_at};
use crate::selector::LabelSelector;
use crate::{Kind, convert};

/// The cells of an object's row.
pub(super) fn cells(kind: &Kind, object: &Value, now: Timestamp) -> Vec<Value> {
    match (kind.group, kind.kind) {
        ("", "Pod") => pod::cells(object, now),
        ("", "Node") => node::cells(object, now),
        ("", "Service") => service::cells(object, now),
        ("", "Namespace") => vec![
            json!(name(object)),
            json!(text_at(object, "/status/phase")),
            age(object, now),
        ],
        ("", "Secret") => vec![
            json!(name(object)),
            json!(text(object, "type")),
            json!(map(object, "data").len()),
            age(object, now),
        ],
        ("", "ConfigMap") => {
            let entries = map(object, "data").len() + map(object, "binaryData").len();
            vec![json!(name(object)), json!(entries), age(object, now)]
        }
        ("", "ServiceAccount") => {
            vec![
                json!(name(object)),
                json!(list(object, "secrets").len()),
                age(object, now),
            ]
        }
        ("", "Endpoints") => {
            vec![
                json!(name(object)),
                json!(endpoints::of_endpoints(object)),
                age(object, now),
            ]
        }
        ("", "Event") => event(object, now),
        (_, "Event") => {
            let mut core = object.clone();
            convert::to_storage(kind, &mut core);
            event(&core, now)
        }
        ("apps", "Deployment") => deployment(object, now),
        ("apps", "ReplicaSet") => replica_set(object, now),
        ("discovery.k8s.io", "EndpointSlice") => endpoints::slice(object, now),
        ("coordination.k8s.io", "Lease") => vec![
            json!(name(object)),
            json!(text_at(object, "/spec/holderIdentity")),
            age(object, now),
        ],
        _ => vec![json!(name(object)), age(object, now)],
    }
}

/// How old the object is.
pub(super) fn age(object: &Value, now: Timestamp) -> Value {
    json!(duration::since(
        text_at(object, "/metadata/creationTimestamp"),
        now
    ))
}

/// `text`, or `<none>` where it is empty.
pub(super) fn or_none(text: &str) -> &str {
    if text.is_empty() { "<none>" } else { text }
}

/// `key=value,..`, or `<none>`.
pub(super) fn labels(labels: &Map<String, Value>) -> String {
    let mut pairs: Vec<String> = labels
        .iter()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    pairs.sort_unstable();
    or_none(&pairs.join(",")).to_owned()
}

fn joined(items: &[Value], key: &str) -> String {
    items
        .iter()
        .map(|item| text(item, key))
        .collect::<Vec<_>>()
        .join(",")
}

fn deployment(object: &Value, now: Timestamp) -> Vec<Value> {
    let count = |pointer| int_at(object, pointer);
    let ready = format!(
        "{}/{}",
        count("/status/readyReplicas"),
        count("/spec/replicas")
    );
    let mut cells = vec![
        json!(name(object)),
        json!(ready),
        json!(count("/status/updatedReplicas")),
        json!(count("/status/availableReplicas")),
        age(object, now),
    ];
    cells.extend(template(object));
    cells
}

fn replica_set(object: &Value, now: Timestamp) -> Vec<Value> {
    let count = |pointer| json!(int_at(object, pointer));
    let mut cells = vec![
        json!(name(object)),
        count("/spec/replicas"),
        count("/status/replicas"),
        count("/status/readyReplicas"),
        age(object, now),
    ];
    cells.extend(template(object));
    cells
}

/// Containers, images and selector of a workload.
fn template(object: &Value) -> [Value; 3] {
    let containers = list_at(object, "/spec/template/spec/containers");
    let selector = match LabelSelector::from_object(&object["spec"]["selector"]) {
        Ok(selector) => or_none(&selector.to_string()).to_owned(),
        Err(_) => "<invalid>".to_owned(),
    };
    [
        json!(joined(containers, "name")),
        json!(joined(containers, "image")),
        json!(selector),
    ]
}

fn event(object: &Value, now: Timestamp) -> Vec<Value> {
    let event_time = text(object, "eventTime");
    let first = match text(object, "firstTimestamp") {
        "" => event_time,
        first => first,
    };
    let (last, count) = match object.get("series").filter(|series| series.is_object()) {
        Some(series) => (text(series, "lastObservedTime"), int_at(series, "/count")),
        None => {
            let last = text(object, "lastTimestamp");
            (
                if last.is_empty() { first } else { last },
                int_at(object, "/count").max(1),
            )
        }
    };
    vec![
        json!(duration::since(last, now)),
        json!(text(object, "type")),
        json!(text(object, "reason")),
        json!(event_target(map_at(object, "/involvedObject"))),
        json!(text_at(object, "/involvedObject/fieldPath")),
        json!(event_source(object)),
        json!(text(object, "message").trim()),
        json!(duration::since(first, now)),
        json!(count),
        json!(name(object)),
    ]
}

fn event_target(object: &Map<String, Value>) -> String {
    let field = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default();
    let kind = field("kind").to_lowercase();
    match field("name") {
        "" => kind,
        name => format!("{kind}/{name}"),
    }
}

fn event_source(object: &Value) -> String {
    let first_of = |a, b| match text_at(object, a) {
        "" => text(object, b),
        text => text,
    };
    let component = first_of("/source/component", "reportingComponent");
    match first_of("/source/host", "reportingInstance") {
        "" => component.to_owned(),
        host => format!("{component}, {host}"),
    }
}
