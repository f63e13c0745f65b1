//! Many clients at once.

use std::collections::HashSet;

use futures::future::join_all;
use http::Method;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::PostParams;
use serde_json::json;

use super::support::{CONFIG_MAPS, Cluster, SERVICES, config_map};

#[tokio::test(flavor = "multi_thread")]
async fn no_update_is_lost() {
    let cluster = Cluster::start().await;
    cluster.post(CONFIG_MAPS, config_map("counter")).await;
    let increment = async || {
        let api: Api<ConfigMap> = Api::default_namespaced(cluster.client.clone());
        for _ in 0..10 {
            loop {
                let mut map = api.get("counter").await.unwrap();
                let data = map.data.get_or_insert_default();
                let count: u32 = data.get("n").map_or(0, |n| n.parse().unwrap());
                data.insert("n".to_owned(), (count + 1).to_string());
                match api.replace("counter", &PostParams::default(), &map).await {
                    Ok(_) => break,
                    Err(kube::Error::Api(status)) if status.code == 409 => {}
                    Err(error) => panic!("{error}"),
                }
            }
        }
    };
    join_all((0..8).map(|_| increment())).await;
    assert_eq!(
        cluster.get(&format!("{CONFIG_MAPS}/counter")).await["data"]["n"],
        "80"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn patches_without_a_revision_never_conflict() {
    let cluster = Cluster::start().await;
    cluster.post(CONFIG_MAPS, config_map("shared")).await;
    let patch = async |n: usize| {
        let headers = [("content-type", "application/merge-patch+json")];
        let body = json!({"data": {format!("k{n}"): "v"}}).to_string();
        let path = format!("{CONFIG_MAPS}/shared");
        let (code, status) = cluster.request(Method::PATCH, &path, &headers, body).await;
        assert_eq!(code.as_u16(), 200, "{status}");
    };
    join_all((0..40).map(patch)).await;
    let data = cluster.get(&format!("{CONFIG_MAPS}/shared")).await["data"].clone();
    assert_eq!(data.as_object().unwrap().len(), 41);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_many_creates_a_name() {
    let cluster = Cluster::start().await;
    let create = async || {
        cluster
            .send(Method::POST, CONFIG_MAPS, config_map("one"))
            .await
            .0
            .as_u16()
    };
    let codes = join_all((0..20).map(|_| create())).await;
    assert_eq!(codes.iter().filter(|code| **code == 201).count(), 1);
    assert_eq!(codes.iter().filter(|code| **code == 409).count(), 19);
}

#[tokio::test(flavor = "multi_thread")]
async fn services_never_share_an_address_or_a_port() {
    let cluster = Cluster::start().await;
    let create = async |n: usize| {
        let service = json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": format!("s{n}")},
            "spec": {"type": "NodePort", "ipFamilyPolicy": "PreferDualStack", "ports": [{"port": 80}]},
        });
        let made = cluster.post(SERVICES, service).await;
        let spec = &made["spec"];
        let texts = [
            &spec["clusterIPs"][0],
            &spec["clusterIPs"][1],
            &spec["ports"][0]["nodePort"],
        ];
        texts.map(ToString::to_string)
    };
    let made = join_all((0..60).map(create)).await;
    let unique: HashSet<&String> = made.iter().flatten().collect();
    assert_eq!(unique.len(), 180);
}
