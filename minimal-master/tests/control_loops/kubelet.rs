//! A kubelet without containers: heartbeats, and pods that run as soon as they are seen.

use std::{collections::BTreeMap, time::Duration};

use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::{
    api::{
        coordination::v1::Lease,
        core::v1::{Node, Pod},
    },
    apimachinery::pkg::apis::meta::v1::{MicroTime, Time},
};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams},
    runtime::{WatchStreamExt, watcher},
};
use serde_json::json;
use tokio_util::sync::{CancellationToken, DropGuard};

const HEARTBEAT: Duration = Duration::from_millis(500);

/// Lives until dropped or cut off.
pub struct Kubelet {
    pub name: String,
    client: Client,
    alive: Option<DropGuard>,
}

impl Kubelet {
    /// Registers a node and starts to serve it.
    pub async fn start(client: &Client, name: &str) -> Self {
        let mut kubelet = Self {
            name: name.into(),
            client: client.clone(),
            alive: None,
        };
        kubelet.register().await;
        kubelet.reconnect();
        kubelet
    }

    /// The node falls silent, as if its cable were pulled.
    pub fn cut_off(&mut self) {
        self.alive = None;
    }

    /// The node speaks again.
    pub fn reconnect(&mut self) {
        let stop = CancellationToken::new();
        self.alive = Some(stop.clone().drop_guard());
        let (client, name) = (self.client.clone(), self.name.clone());
        tokio::spawn(
            stop.clone()
                .run_until_cancelled_owned(heartbeats(client, name)),
        );
        let (client, name) = (self.client.clone(), self.name.clone());
        tokio::spawn(stop.run_until_cancelled_owned(serve_pods(client, name)));
    }

    async fn register(&self) {
        let resources = json!({"cpu": "4", "memory": "8Gi", "pods": "110"});
        let node: Node = serde_json::from_value(json!({
            "metadata": {"name": self.name, "labels": {"kubernetes.io/hostname": self.name}},
            "status": {"capacity": resources, "allocatable": resources, "conditions": [ready()]},
        }))
        .unwrap();
        let nodes: Api<Node> = Api::all(self.client.clone());
        nodes.create(&PostParams::default(), &node).await.unwrap();
    }
}

fn ready() -> serde_json::Value {
    let now = Time(Timestamp::now());
    json!({"type": "Ready", "status": "True", "reason": "KubeletReady", "lastHeartbeatTime": now,
        "lastTransitionTime": now})
}

async fn heartbeats(client: Client, name: String) {
    let leases: Api<Lease> = Api::namespaced(client.clone(), "kube-node-lease");
    let nodes: Api<Node> = Api::all(client);
    let status = json!({"status": {"conditions": [ready()]}});
    nodes
        .patch_status(&name, &PatchParams::default(), &Patch::Strategic(&status))
        .await
        .unwrap();
    let lease: Lease = serde_json::from_value(json!({
        "metadata": {"name": name}, "spec": {"holderIdentity": name, "leaseDurationSeconds": 40},
    }))
    .unwrap();
    // It is there already when the node reconnects.
    let _ = leases.create(&PostParams::default(), &lease).await;
    loop {
        let renewed = json!({"spec": {"renewTime": MicroTime(Timestamp::now())}});
        let _ = leases
            .patch(&name, &PatchParams::default(), &Patch::Merge(&renewed))
            .await;
        tokio::time::sleep(HEARTBEAT).await;
    }
}

async fn serve_pods(client: Client, node: String) {
    let config = watcher::Config::default().fields(&format!("spec.nodeName={node}"));
    let all: Api<Pod> = Api::all(client.clone());
    let mut events = std::pin::pin!(watcher(all, config).default_backoff().applied_objects());
    let mut addresses = BTreeMap::new();
    while let Some(event) = events.next().await {
        let Ok(pod) = event else { continue };
        let api: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace().unwrap());
        if pod.metadata.deletion_timestamp.is_some() {
            let params = DeleteParams::default().grace_period(0);
            let _ = api.delete(&pod.name_any(), &params).await;
            continue;
        }
        let next = addresses.len() + 1;
        let host = *addresses.entry(pod.uid().unwrap()).or_insert(next);
        if let Some(status) = status(&pod, &node, host) {
            let _ = api
                .patch_status(
                    &pod.name_any(),
                    &PatchParams::default(),
                    &Patch::Strategic(&status),
                )
                .await;
        }
    }
}

/// Running and ready, unless the pod says so already or asks to stay unready.
fn status(pod: &Pod, node: &str, host: usize) -> Option<serde_json::Value> {
    let wanted = !pod.annotations().contains_key("unready");
    let is = sluice_client::pod::is_ready(pod);
    if sluice_client::pod::phase(pod) == "Running" && wanted == is {
        return None;
    }
    let subnet = node.trim_start_matches('n');
    let (v4, v6) = (
        format!("10.244.{subnet}.{host}"),
        format!("fd00:10:244:{subnet}::{host:x}"),
    );
    let ready = if wanted { "True" } else { "False" };
    Some(json!({"metadata": {"uid": pod.metadata.uid}, "status": {
        "phase": "Running",
        "podIP": v4,
        "podIPs": [{"ip": v4}, {"ip": v6}],
        "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": Time(Timestamp::now())}],
    }}))
}
