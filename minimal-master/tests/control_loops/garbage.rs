//! What is deleted takes its dependents along, or leaves them, as asked.

use k8s_openapi::api::{
    apps::v1::{Deployment, ReplicaSet},
    core::v1::{ConfigMap, Namespace, Pod, ServiceAccount},
};
use kube::{
    Api,
    api::{DeleteParams, ListParams},
};
use serde_json::json;

use crate::harness::{Master, eventually, names};

async fn counts(master: &Master) -> (usize, usize, usize) {
    let deployments: Api<Deployment> = Api::namespaced(master.client.clone(), "default");
    let sets: Api<ReplicaSet> = Api::namespaced(master.client.clone(), "default");
    let pods: Api<Pod> = Api::namespaced(master.client.clone(), "default");
    let all = ListParams::default();
    (
        deployments.list(&all).await.unwrap().items.len(),
        sets.list(&all).await.unwrap().items.len(),
        pods.list(&all).await.unwrap().items.len(),
    )
}

async fn delete(master: &Master, params: DeleteParams) {
    let deployments: Api<Deployment> = Api::namespaced(master.client.clone(), "default");
    deployments.delete("web", &params).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn deletion_cascades_in_the_background_and_in_the_foreground() {
    let master = Master::start().await;
    let _kubelets = master.nodes(2).await;
    for params in [DeleteParams::background(), DeleteParams::foreground()] {
        master.deployment("web", 3, json!({})).await;
        master.ready_pods("web", 3).await;
        delete(&master, params).await;
        eventually("everything is gone", async || {
            (counts(&master).await == (0, 0, 0)).then_some(())
        })
        .await;
    }
    master.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn orphans_stay_and_are_adopted_by_the_next_owner() {
    let master = Master::start().await;
    let _kubelets = master.nodes(2).await;
    master.deployment("web", 3, json!({})).await;
    let before = names(&master.ready_pods("web", 3).await);
    delete(&master, DeleteParams::orphan()).await;
    eventually("only the deployment is gone", async || {
        (counts(&master).await == (0, 1, 3)).then_some(())
    })
    .await;
    let sets: Api<ReplicaSet> = Api::namespaced(master.client.clone(), "default");
    eventually("its set is nobody's", async || {
        let sets = sets.list(&ListParams::default()).await.unwrap().items;
        sets[0]
            .metadata
            .owner_references
            .as_ref()
            .is_none_or(Vec::is_empty)
            .then_some(())
    })
    .await;
    master.deployment("web", 3, json!({})).await;
    eventually("the set is adopted", async || {
        let sets = sets.list(&ListParams::default()).await.unwrap().items;
        let owned = sets[0]
            .metadata
            .owner_references
            .as_ref()
            .is_some_and(|o| o.len() == 1);
        (sets.len() == 1 && owned).then_some(())
    })
    .await;
    assert_eq!(
        names(&master.ready_pods("web", 3).await),
        before,
        "no pod was replaced"
    );
    master.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_goes_with_its_last_owner_only() {
    let master = Master::start().await;
    let api: Api<ConfigMap> = Api::namespaced(master.client.clone(), "default");
    let first: ConfigMap = master.create(json!({"metadata": {"name": "first"}})).await;
    let second: ConfigMap = master.create(json!({"metadata": {"name": "second"}})).await;
    let owner = |o: &ConfigMap| json!({"apiVersion": "v1", "kind": "ConfigMap", "name": o.metadata.name, "uid": o.metadata.uid});
    let owners = json!([owner(&first), owner(&second)]);
    master
        .create::<ConfigMap>(json!({"metadata": {"name": "child", "ownerReferences": owners}}))
        .await;
    api.delete("first", &DeleteParams::default()).await.unwrap();
    eventually("the lost reference is dropped", async || {
        let owners = api
            .get("child")
            .await
            .unwrap()
            .metadata
            .owner_references
            .unwrap_or_default();
        (owners.len() == 1 && owners[0].name == "second").then_some(())
    })
    .await;
    api.delete("second", &DeleteParams::default())
        .await
        .unwrap();
    eventually("the child is gone", async || {
        api.get_opt("child").await.unwrap().is_none().then_some(())
    })
    .await;
    // A reference to an owner that never was: dangling from the start.
    let ghost =
        json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "second", "uid": "no-such-uid"}]);
    master
        .create::<ConfigMap>(json!({"metadata": {"name": "stray", "ownerReferences": ghost}}))
        .await;
    eventually("the stray is gone", async || {
        api.get_opt("stray").await.unwrap().is_none().then_some(())
    })
    .await;
    master.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_namespace_takes_its_contents_along() {
    let master = Master::start().await;
    let _kubelets = master.nodes(2).await;
    master
        .create::<Namespace>(json!({"metadata": {"name": "team"}}))
        .await;
    let accounts: Api<ServiceAccount> = Api::namespaced(master.client.clone(), "team");
    eventually("the default service account", async || {
        accounts.get_opt("default").await.unwrap()
    })
    .await;
    master
        .create::<ConfigMap>(json!({"metadata": {"name": "a", "namespace": "team"}}))
        .await;
    let template = json!({"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let spec =
        json!({"replicas": 3, "selector": {"matchLabels": {"app": "x"}}, "template": template});
    master
        .create::<Deployment>(json!({"metadata": {"name": "x", "namespace": "team"}, "spec": spec}))
        .await;
    let pods: Api<Pod> = Api::namespaced(master.client.clone(), "team");
    eventually("its pods run", async || {
        let pods = pods.list(&ListParams::default()).await.unwrap().items;
        let ready = pods
            .iter()
            .filter(|p| sluice_client::pod::is_ready(p))
            .count();
        (ready == 3).then_some(())
    })
    .await;
    let namespaces: Api<Namespace> = Api::all(master.client.clone());
    namespaces
        .delete("team", &DeleteParams::default())
        .await
        .unwrap();
    eventually("the namespace is gone", async || {
        namespaces
            .get_opt("team")
            .await
            .unwrap()
            .is_none()
            .then_some(())
    })
    .await;
    assert!(
        pods.list(&ListParams::default())
            .await
            .unwrap()
            .items
            .is_empty()
    );
    master.stop().await;
}
