//! Health, pods, metrics and statistics.

use std::sync::Arc;

use axum::Json;
use axum::extract::State as Extract;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::{Refusal, State};
use crate::cri::v1;
use crate::pods::labels;

/// `ok` while the runtime answers.
pub async fn healthz(Extract(state): Extract<Arc<State>>) -> Result<&'static str, Refusal> {
    state.relisted.check().map_err(Refusal::internal)?;
    Ok("ok")
}

/// All pods of the node as a PodList.
pub async fn pods(Extract(state): Extract<Arc<State>>) -> Json<Value> {
    Json(
        json!({ "kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": state.manager.pods() }),
    )
}

/// The Prometheus text format.
pub async fn metrics(Extract(state): Extract<Arc<State>>) -> Response {
    let text = state.manager.host().metrics.render(&state.manager.pods());
    (
        [(
            header::CONTENT_TYPE,
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
        )],
        text,
    )
        .into_response()
}

/// Usage of containers, by pod (the part of upstream's stats/v1alpha1 that CRI knows).
pub async fn summary(Extract(state): Extract<Arc<State>>) -> Result<Json<Value>, Refusal> {
    let runtime = Arc::clone(&state.manager.host().runtime);
    let stats = runtime
        .list_container_stats()
        .await
        .map_err(Refusal::internal)?;
    Ok(Json(
        json!({ "node": { "nodeName": state.node_name }, "pods": by_pod(&stats) }),
    ))
}

fn by_pod(stats: &[v1::ContainerStats]) -> Vec<Value> {
    let mut pods: std::collections::BTreeMap<&str, (Value, Vec<Value>)> =
        std::collections::BTreeMap::new();
    for item in stats {
        let Some(attributes) = &item.attributes else {
            continue;
        };
        let label = |key: &str| {
            attributes
                .labels
                .get(key)
                .map(String::as_str)
                .unwrap_or_default()
        };
        let pod = pods.entry(label(labels::POD_UID)).or_insert_with(|| {
            let reference = json!({ "name": label(labels::POD_NAME), "namespace": label(labels::POD_NAMESPACE),
                "uid": label(labels::POD_UID) });
            (reference, Vec::new())
        });
        pod.1.push(container(label(labels::CONTAINER_NAME), item));
    }
    pods.into_values()
        .map(|(reference, containers)| json!({ "podRef": reference, "containers": containers }))
        .collect()
}

fn container(name: &str, item: &v1::ContainerStats) -> Value {
    let number = |value: Option<v1::UInt64Value>| value.map(|value| value.value);
    let cpu = item.cpu.unwrap_or_default();
    let memory = item.memory.unwrap_or_default();
    json!({
        "name": name,
        "cpu": { "time": time(cpu.timestamp), "usageCoreNanoSeconds": number(cpu.usage_core_nano_seconds),
            "usageNanoCores": number(cpu.usage_nano_cores) },
        "memory": { "time": time(memory.timestamp), "workingSetBytes": number(memory.working_set_bytes),
            "usageBytes": number(memory.usage_bytes), "rssBytes": number(memory.rss_bytes) },
    })
}

fn time(nanoseconds: i64) -> String {
    (Timestamp::UNIX_EPOCH + SignedDuration::from_nanos(nanoseconds)).to_string()
}
