//! What this kubelet counts about itself, in the Prometheus text format and under upstream's names.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use k8s_openapi::jiff::Timestamp;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::pods::spec;

/// Buckets of pod start times, in seconds.
const POD_START: [f64; 10] = [0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0, 300.0];
/// Buckets of list times, in seconds.
const RELIST: [f64; 8] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0];

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct StateLabel {
    container_state: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct NodeLabel {
    node: String,
}

/// All metrics of the process.
pub struct Metrics {
    registry: Registry,
    running_pods: Gauge,
    running_containers: Family<StateLabel, Gauge>,
    pod_start: Histogram,
    relist: Histogram,
    status_writes: Counter,
    started: Mutex<HashSet<String>>,
}

impl Metrics {
    /// Metrics of the kubelet of `node`.
    pub fn new(node: &str) -> Self {
        let metrics = Self {
            registry: Registry::with_prefix("kubelet"),
            running_pods: Gauge::default(),
            running_containers: Family::default(),
            pod_start: Histogram::new(POD_START),
            relist: Histogram::new(RELIST),
            status_writes: Counter::default(),
            started: Mutex::default(),
        };
        metrics.registered(node)
    }

    fn registered(mut self, node: &str) -> Self {
        let name = Family::<NodeLabel, Gauge>::default();
        name.get_or_create(&NodeLabel {
            node: node.to_owned(),
        })
        .set(1);
        let registry = &mut self.registry;
        registry.register("node_name", "The node's name", name);
        registry.register(
            "running_pods",
            "Pods that have a running container",
            self.running_pods.clone(),
        );
        registry.register(
            "running_containers",
            "Containers by state",
            self.running_containers.clone(),
        );
        registry.register(
            "pod_start_duration_seconds",
            "Time from a pod's creation to its first ready status",
            self.pod_start.clone(),
        );
        registry.register(
            "pleg_relist_duration_seconds",
            "Time that a list of containers takes",
            self.relist.clone(),
        );
        registry.register(
            "pod_statuses",
            "Pod statuses that were generated",
            self.status_writes.clone(),
        );
        self
    }

    /// A list of containers took this long.
    pub fn relisted(&self, took: Duration) {
        self.relist.observe(took.as_secs_f64());
    }

    /// A status was made; the first ready one of a pod ends its start.
    pub fn pod_status(&self, pod: &Pod, status: &PodStatus) {
        self.status_writes.inc();
        let ready = status
            .conditions
            .iter()
            .flatten()
            .any(|c| c.type_ == "Ready" && c.status == "True");
        let mut started = self.started.lock().unwrap_or_else(PoisonError::into_inner);
        let uid = spec::uid(pod);
        if spec::is_deleting(pod) {
            started.remove(uid);
        } else if ready && started.insert(uid.to_owned()) {
            self.observe_start(pod);
        }
    }

    fn observe_start(&self, pod: &Pod) {
        // Not of pods that were running before this kubelet.
        let known = pod
            .status
            .as_ref()
            .and_then(|status| status.conditions.as_ref());
        let was_ready = known
            .into_iter()
            .flatten()
            .any(|c| c.type_ == "Ready" && c.status == "True");
        if let Some(created) = pod
            .metadata
            .creation_timestamp
            .as_ref()
            .filter(|_| !was_ready)
        {
            self.pod_start.observe(
                Timestamp::now()
                    .duration_since(created.0)
                    .as_secs_f64()
                    .max(0.0),
            );
        }
    }

    /// The metrics as text, with gauges counted over `pods`.
    pub fn render(&self, pods: &[Pod]) -> String {
        let statuses = |pod: &Pod| {
            pod.status
                .as_ref()
                .and_then(|s| s.container_statuses.clone())
                .unwrap_or_default()
        };
        let states: Vec<_> = pods
            .iter()
            .flat_map(statuses)
            .filter_map(|status| status.state)
            .collect();
        let count = |test: fn(&k8s_openapi::api::core::v1::ContainerState) -> bool| {
            i64::try_from(states.iter().filter(|state| test(state)).count()).unwrap_or(i64::MAX)
        };
        let set = |container_state, number| {
            self.running_containers
                .get_or_create(&StateLabel { container_state })
                .set(number);
        };
        set("running", count(|state| state.running.is_some()));
        set("exited", count(|state| state.terminated.is_some()));
        set("waiting", count(|state| state.waiting.is_some()));
        let runs = |pod: &&Pod| {
            statuses(pod)
                .iter()
                .any(|s| s.state.as_ref().is_some_and(|s| s.running.is_some()))
        };
        self.running_pods
            .set(i64::try_from(pods.iter().filter(runs).count()).unwrap_or(i64::MAX));
        let mut text = String::new();
        // Writing to a String can't fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn running_pods_and_containers_are_counted() {
        let pod: Pod = serde_json::from_value(json!({ "metadata": {}, "status": { "containerStatuses": [
            { "name": "a", "image": "", "imageID": "", "ready": true, "restartCount": 0, "state": { "running": {} } },
            { "name": "b", "image": "", "imageID": "", "ready": true, "restartCount": 0, "state": { "waiting": {} } },
        ] } }))
        .unwrap();
        let text = Metrics::new("node1").render(&[pod, Pod::default()]);
        assert!(text.contains("kubelet_running_pods 1"), "{text}");
        assert!(
            text.contains("kubelet_running_containers{container_state=\"waiting\"} 1"),
            "{text}"
        );
        assert!(
            text.contains("kubelet_node_name{node=\"node1\"} 1"),
            "{text}"
        );
    }
}
