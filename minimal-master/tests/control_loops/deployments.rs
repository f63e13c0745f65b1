//! Rollouts, rollbacks and scaling.

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use kube::{
    Api,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::json;

use crate::harness::{Master, eventually};

async fn complete(master: &Master, name: &str, replicas: i32) -> Deployment {
    let api: Api<Deployment> = Api::namespaced(master.client.clone(), "default");
    eventually(&format!("rollout of {name} completes"), async || {
        let deployment = api.get(name).await.unwrap();
        let status = deployment.status.clone().unwrap_or_default();
        let observed = status.observed_generation >= deployment.metadata.generation;
        let all = [
            status.replicas,
            status.updated_replicas,
            status.available_replicas,
        ];
        let all = all.iter().all(|count| count.unwrap_or(0) == replicas);
        (observed && all).then_some(deployment)
    })
    .await
}

async fn sets(master: &Master) -> Vec<ReplicaSet> {
    let api: Api<ReplicaSet> = Api::namespaced(master.client.clone(), "default");
    api.list(&ListParams::default()).await.unwrap().items
}

async fn set_image(master: &Master, image: &str) {
    let patch =
        json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": image}]}}}});
    let api: Api<Deployment> = Api::namespaced(master.client.clone(), "default");
    api.patch("web", &PatchParams::default(), &Patch::Strategic(&patch))
        .await
        .unwrap();
}

fn revision(deployment: &Deployment) -> &str {
    &deployment.metadata.annotations.as_ref().unwrap()["deployment.kubernetes.io/revision"]
}

fn progress(deployment: &Deployment) -> String {
    let conditions = deployment
        .status
        .as_ref()
        .unwrap()
        .conditions
        .as_ref()
        .unwrap();
    let progressing = conditions
        .iter()
        .find(|c| c.type_ == "Progressing")
        .unwrap();
    progressing.reason.clone().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_update_never_goes_below_its_limit_and_can_be_rolled_back() {
    let master = Master::start().await;
    let _kubelets = master.nodes(3).await;
    master.deployment("web", 6, json!({})).await;
    let first = complete(&master, "web", 6).await;
    assert_eq!(revision(&first), "1");
    assert_eq!(sets(&master).await.len(), 1);

    set_image(&master, "image:2").await;
    let api: Api<Deployment> = Api::namespaced(master.client.clone(), "default");
    let second = eventually("the update completes", async || {
        // 25% of 6 may be unavailable: one.
        let ready = master
            .pods("web")
            .await
            .iter()
            .filter(|p| sluice_client::pod::is_ready(p))
            .count();
        assert!(ready >= 5, "only {ready} ready during the rollout");
        let deployment = api.get("web").await.unwrap();
        let status = deployment.status.clone().unwrap_or_default();
        let done = status.observed_generation >= deployment.metadata.generation
            && status.updated_replicas == Some(6)
            && status.replicas == Some(6)
            && status.available_replicas == Some(6);
        (done && progress(&deployment) == "NewReplicaSetAvailable").then_some(deployment)
    })
    .await;
    assert_eq!(revision(&second), "2");
    assert_eq!(sets(&master).await.len(), 2);

    // What `kubectl rollout undo` does: the old template again.
    set_image(&master, "image:1").await;
    let third = complete(&master, "web", 6).await;
    assert_eq!(revision(&third), "3");
    assert_eq!(
        sets(&master).await.len(),
        2,
        "the old ReplicaSet is used again"
    );
    master.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_scales_pauses_and_recreates() {
    let master = Master::start().await;
    let _kubelets = master.nodes(2).await;
    master
        .deployment("web", 1, json!({"strategy": {"type": "Recreate"}}))
        .await;
    complete(&master, "web", 1).await;
    master
        .patch::<Deployment>("web", json!({"spec": {"replicas": 4}}))
        .await;
    complete(&master, "web", 4).await;
    master
        .patch::<Deployment>("web", json!({"spec": {"paused": true}}))
        .await;
    set_image(&master, "image:2").await;
    master
        .patch::<Deployment>("web", json!({"spec": {"replicas": 2}}))
        .await;
    let api: Api<Deployment> = Api::namespaced(master.client.clone(), "default");
    eventually("the paused deployment is scaled", async || {
        let deployment = api.get("web").await.unwrap();
        let scaled = deployment
            .status
            .as_ref()
            .is_some_and(|s| s.replicas == Some(2));
        (scaled && progress(&deployment) == "DeploymentPaused").then_some(())
    })
    .await;
    assert_eq!(sets(&master).await.len(), 1, "no rollout while paused");
    master
        .patch::<Deployment>("web", json!({"spec": {"paused": false}}))
        .await;
    complete(&master, "web", 2).await;
    let pods = master.ready_pods("web", 2).await;
    let images: Vec<_> = pods
        .iter()
        .map(|p| {
            p.spec.as_ref().unwrap().containers[0]
                .image
                .clone()
                .unwrap()
        })
        .collect();
    assert_eq!(images, ["image:2", "image:2"]);
    master.stop().await;
}
