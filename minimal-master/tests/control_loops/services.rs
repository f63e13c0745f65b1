//! Endpoints follow pods.

use k8s_openapi::api::{
    core::v1::{Endpoints, Pod, Service},
    discovery::v1::EndpointSlice,
};
use kube::{Api, ResourceExt, api::ListParams};
use serde_json::json;

use crate::harness::{Master, eventually};

/// Ready and all addresses of the slices of one family.
pub async fn endpoints(master: &Master, service: &str, family: &str) -> (usize, usize) {
    let api: Api<EndpointSlice> = Api::namespaced(master.client.clone(), "default");
    let params = ListParams::default().labels(&format!("kubernetes.io/service-name={service}"));
    let slices = api.list(&params).await.unwrap().items;
    let all: Vec<_> = slices
        .iter()
        .filter(|slice| slice.address_type == family)
        .flat_map(|slice| slice.endpoints.iter().flatten())
        .collect();
    let ready = all
        .iter()
        .filter(|e| e.conditions.as_ref().and_then(|c| c.ready) == Some(true));
    (ready.count(), all.len())
}

pub async fn service(master: &Master, name: &str) -> Service {
    master
        .create(json!({"metadata": {"name": name}, "spec": {
            "ipFamilyPolicy": "RequireDualStack",
            "selector": {"app": name},
            "ports": [{"name": "http", "port": 80, "targetPort": "http"}],
        }}))
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoints_follow_readiness_in_both_families() {
    let master = Master::start().await;
    let _kubelets = master.nodes(2).await;
    service(&master, "web").await;
    eventually("an empty slice in each family", async || {
        let api: Api<EndpointSlice> = Api::namespaced(master.client.clone(), "default");
        let params = ListParams::default().labels("kubernetes.io/service-name=web");
        let slices = api.list(&params).await.unwrap().items;
        (slices.len() == 2).then_some(())
    })
    .await;
    master.deployment("web", 4, json!({})).await;
    let pods = master.ready_pods("web", 4).await;
    for family in ["IPv4", "IPv6"] {
        eventually("four ready endpoints", async || {
            (endpoints(&master, "web", family).await == (4, 4)).then_some(())
        })
        .await;
    }
    let one = pods[0].name_any();
    master
        .patch::<Pod>(&one, json!({"metadata": {"annotations": {"unready": "1"}}}))
        .await;
    for family in ["IPv4", "IPv6"] {
        eventually("three ready of four", async || {
            (endpoints(&master, "web", family).await == (3, 4)).then_some(())
        })
        .await;
    }
    let legacy: Api<Endpoints> = Api::namespaced(master.client.clone(), "default");
    eventually("Endpoints tell them apart", async || {
        let subset = legacy.get("web").await.ok()?.subsets?.into_iter().next()?;
        let counts = (subset.addresses?.len(), subset.not_ready_addresses?.len());
        (counts == (3, 1) && subset.ports?[0].port == 8080).then_some(())
    })
    .await;
    master
        .patch::<k8s_openapi::api::apps::v1::Deployment>("web", json!({"spec": {"replicas": 0}}))
        .await;
    eventually("no endpoint is left", async || {
        (endpoints(&master, "web", "IPv4").await == (0, 0)).then_some(())
    })
    .await;
    master.stop().await;
}
