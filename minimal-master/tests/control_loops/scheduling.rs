//! Pods find their nodes.

use k8s_openapi::api::core::v1::{Event, Pod};
use kube::{Api, api::ListParams};
use serde_json::json;

use crate::{
    harness::{Master, eventually, spread},
    kubelet::Kubelet,
};

#[tokio::test(flavor = "multi_thread")]
async fn six_replicas_on_three_nodes_are_two_each() {
    let master = Master::start().await;
    let _kubelets = master.nodes(3).await;
    master.deployment("web", 6, json!({})).await;
    let pods = master.ready_pods("web", 6).await;
    assert_eq!(
        spread(&pods),
        [("n1".into(), 2), ("n2".into(), 2), ("n3".into(), 2)]
    );
    let scheduled = eventually("a Scheduled event for each pod", async || {
        let events: Api<Event> = Api::namespaced(master.client.clone(), "default");
        let events = events.list(&ListParams::default()).await.unwrap().items;
        let scheduled: Vec<_> = events
            .into_iter()
            .filter(|e| e.reason.as_deref() == Some("Scheduled"))
            .collect();
        (scheduled.len() == 6).then_some(scheduled)
    })
    .await;
    let message = scheduled[0].message.clone().unwrap();
    assert!(
        message.starts_with("Successfully assigned default/web-"),
        "{message}"
    );
    let condition = sluice_client::pod::condition(&pods[0], "PodScheduled").unwrap();
    assert_eq!(condition.status, "True");
    master.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_fits_nowhere_says_why_and_starts_when_a_node_comes() {
    let master = Master::start().await;
    let _n1 = Kubelet::start(&master.client, "n1").await;
    let requests = json!({"template": {"spec": {"containers": [
        {"name": "c", "image": "i", "resources": {"requests": {"cpu": "3"}}},
    ]}}});
    master.deployment("big", 2, requests).await;
    let waiting: Pod = eventually("one pod says that it doesn't fit", async || {
        let pods = master.pods("big").await;
        pods.into_iter().find(|pod| {
            let condition = sluice_client::pod::condition(pod, "PodScheduled");
            condition.is_some_and(|c| {
                c.status == "False" && c.reason.as_deref() == Some("Unschedulable")
            })
        })
    })
    .await;
    let condition = sluice_client::pod::condition(&waiting, "PodScheduled").unwrap();
    assert_eq!(
        condition.message.as_deref(),
        Some("0/1 nodes are available: 1 Insufficient cpu.")
    );
    let _n2 = Kubelet::start(&master.client, "n2").await;
    let pods = master.ready_pods("big", 2).await;
    assert_eq!(spread(&pods), [("n1".into(), 1), ("n2".into(), 1)]);
    master.stop().await;
}
