//! Nodes come, fall silent and come back.

use std::collections::HashSet;

use k8s_openapi::api::core::v1::Node;
use kube::{Api, api::ListParams};
use serde_json::json;

use crate::{
    harness::{Master, eventually, spread},
    services,
};

#[tokio::test(flavor = "multi_thread")]
async fn every_node_gets_pod_cidrs_of_its_own_in_both_families() {
    let master = Master::start().await;
    let _kubelets = master.nodes(5).await;
    let nodes: Api<Node> = Api::all(master.client.clone());
    let cidrs = eventually("all nodes have two pod CIDRs", async || {
        let nodes = nodes.list(&ListParams::default()).await.unwrap().items;
        let cidrs: Vec<_> = nodes
            .iter()
            .filter_map(|n| n.spec.as_ref()?.pod_cidrs.clone())
            .flatten()
            .collect();
        (cidrs.len() == 10).then_some(cidrs)
    })
    .await;
    assert_eq!(cidrs.iter().collect::<HashSet<_>>().len(), 10, "{cidrs:?}");
    assert!(
        cidrs.contains(&"10.244.0.0/24".to_owned())
            && cidrs.contains(&"fd00:10:244::/64".to_owned())
    );
    master.stop().await;
}

fn taints(node: &Node) -> Vec<String> {
    let taints = node.spec.iter().flat_map(|s| s.taints.iter().flatten());
    taints.map(|t| format!("{}:{}", t.key, t.effect)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_nodes_pods_leave_the_endpoints_are_replaced_and_the_node_recovers() {
    let master = Master::start().await;
    let mut kubelets = master.nodes(3).await;
    services::service(&master, "web").await;
    master.deployment("web", 6, json!({})).await;
    master.ready_pods("web", 6).await;
    eventually("six ready endpoints", async || {
        (services::endpoints(&master, "web", "IPv4").await == (6, 6)).then_some(())
    })
    .await;

    kubelets[0].cut_off();
    let nodes: Api<Node> = Api::all(master.client.clone());
    let lost = eventually("the node is unreachable", async || {
        let node = nodes.get("n1").await.unwrap();
        let no_execute = "node.kubernetes.io/unreachable:NoExecute".to_owned();
        taints(&node).contains(&no_execute).then_some(node)
    })
    .await;
    let conditions = lost.status.as_ref().unwrap().conditions.clone().unwrap();
    let ready = conditions.iter().find(|c| c.type_ == "Ready").unwrap();
    assert_eq!(
        (ready.status.as_str(), ready.reason.as_deref()),
        ("Unknown", Some("NodeStatusUnknown"))
    );

    let pods = master.ready_pods("web", 6).await;
    assert_eq!(spread(&pods), [("n2".into(), 3), ("n3".into(), 3)]);
    eventually("six ready endpoints on the other nodes", async || {
        (services::endpoints(&master, "web", "IPv4").await.0 == 6).then_some(())
    })
    .await;

    kubelets[0].reconnect();
    eventually(
        "the node is free of taints and of its old pods",
        async || {
            let node = nodes.get("n1").await.unwrap();
            let (ready, all) = services::endpoints(&master, "web", "IPv4").await;
            (taints(&node).is_empty() && ready == 6 && all == 6).then_some(())
        },
    )
    .await;
    master.stop().await;
}
