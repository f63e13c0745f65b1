//! Lists: selectors, pages, revisions and forms.

use std::sync::Arc;

use http::{Method, StatusCode};
use serde_json::{Value, json};
use sluice_store::{Memory, Store};

use super::support::{CONFIG_MAPS, Cluster, PODS, config_map, pod};

fn names(list: &Value) -> Vec<&str> {
    let items = list["items"].as_array().unwrap();
    items
        .iter()
        .map(|item| item["metadata"]["name"].as_str().unwrap())
        .collect()
}

fn revision(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn selectors_select() {
    let cluster = Cluster::start().await;
    for name in ["a", "b", "c"] {
        cluster.post(PODS, pod(name)).await;
    }
    let cases: [(&str, &[&str]); 7] = [
        ("", &["a", "b", "c"]),
        ("?labelSelector=app%3Da", &["a"]),
        ("?labelSelector=app!%3Da", &["b", "c"]),
        ("?labelSelector=app%20notin%20(a,b)", &["c"]),
        ("?fieldSelector=metadata.name%3Db", &["b"]),
        ("?fieldSelector=spec.nodeName%3D", &["a", "b", "c"]),
        ("?fieldSelector=status.phase%3DRunning", &[]),
    ];
    for (query, expected) in cases {
        assert_eq!(
            names(&cluster.get(&format!("{PODS}{query}")).await),
            expected,
            "{query}"
        );
    }
    let everywhere = cluster
        .get("/api/v1/pods?fieldSelector=metadata.namespace%3Ddefault")
        .await;
    assert_eq!(names(&everywhere).len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_show_one_revision_whatever_happens_meanwhile() {
    let cluster = Cluster::start().await;
    for n in 0..7 {
        cluster
            .post(CONFIG_MAPS, config_map(&format!("m{n}")))
            .await;
    }
    let first = cluster.get(&format!("{CONFIG_MAPS}?limit=3")).await;
    assert_eq!(names(&first), ["m0", "m1", "m2"]);
    assert_eq!(first["metadata"]["remainingItemCount"], 4);
    cluster
        .delete(&format!("{CONFIG_MAPS}/m4"), json!({}))
        .await;
    cluster.post(CONFIG_MAPS, config_map("m33")).await;
    let token = first["metadata"]["continue"].as_str().unwrap();
    let second = cluster
        .get(&format!("{CONFIG_MAPS}?limit=3&continue={token}"))
        .await;
    assert_eq!(names(&second), ["m3", "m4", "m5"]);
    let token = second["metadata"]["continue"].as_str().unwrap();
    let third = cluster
        .get(&format!("{CONFIG_MAPS}?limit=3&continue={token}"))
        .await;
    assert_eq!(names(&third), ["m6"]);
    assert!(third["metadata"].get("continue").is_none());
    assert_eq!(revision(&first), revision(&third));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exact_revision_shows_the_past() {
    let cluster = Cluster::start().await;
    cluster.post(CONFIG_MAPS, config_map("a")).await;
    let past = cluster.get(CONFIG_MAPS).await;
    cluster.post(CONFIG_MAPS, config_map("b")).await;
    cluster.delete(&format!("{CONFIG_MAPS}/a"), json!({})).await;
    let at = revision(&past);
    let exact = format!("{CONFIG_MAPS}?resourceVersion={at}&resourceVersionMatch=Exact");
    assert_eq!(cluster.get(&exact).await, past);
    let newer = cluster
        .get(&format!("{CONFIG_MAPS}?resourceVersion={at}"))
        .await;
    assert_eq!(names(&newer), ["b"]);
    let any = cluster
        .get(&format!("{CONFIG_MAPS}?resourceVersion=0"))
        .await;
    assert!(revision(&any) >= at);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_shows_every_write_before_it() {
    let cluster = Cluster::start().await;
    for n in 0..50 {
        let made = cluster
            .post(CONFIG_MAPS, config_map(&format!("m{n}")))
            .await;
        let list = cluster.get(CONFIG_MAPS).await;
        assert_eq!(names(&list).len(), n + 1);
        assert!(revision(&list) >= revision(&made));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_compacted_is_gone_and_what_is_to_come_times_out() {
    let store = Arc::new(Memory::default());
    let shared = store.clone();
    let cluster = Cluster::start_with(|config| config.store = Some(shared)).await;
    for n in 0..4 {
        cluster
            .post(CONFIG_MAPS, config_map(&format!("m{n}")))
            .await;
    }
    let page = cluster.get(&format!("{CONFIG_MAPS}?limit=2")).await;
    cluster.post(CONFIG_MAPS, config_map("new")).await;
    store
        .compact(store.revision().await.unwrap())
        .await
        .unwrap();
    let token = page["metadata"]["continue"].as_str().unwrap();
    for query in [
        format!("continue={token}"),
        format!(
            "resourceVersion={}&resourceVersionMatch=Exact",
            revision(&page)
        ),
    ] {
        let path = format!("{CONFIG_MAPS}?{query}");
        let (code, status) = cluster.request(Method::GET, &path, &[], "").await;
        assert_eq!(
            (code.as_u16(), &status["reason"]),
            (410, &json!("Expired")),
            "{query}"
        );
    }
    let path = format!("{CONFIG_MAPS}?resourceVersion=1000000");
    let (code, status) = cluster.request(Method::GET, &path, &[], "").await;
    assert_eq!(code, StatusCode::GATEWAY_TIMEOUT);
    assert!(
        status["message"]
            .as_str()
            .unwrap()
            .contains("Too large resource version"),
        "{status}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_and_metadata_on_request() {
    let cluster = Cluster::start().await;
    cluster.post(PODS, pod("a")).await;
    let accept = [(
        "accept",
        "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
    )];
    let (_, table) = cluster.request(Method::GET, PODS, &accept, "").await;
    assert_eq!(
        (&table["kind"], &table["apiVersion"]),
        (&json!("Table"), &json!("meta.k8s.io/v1"))
    );
    assert_eq!(table["columnDefinitions"][0]["name"], "Name");
    assert_eq!(table["rows"][0]["cells"][0], "a");
    assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    let (_, one) = cluster
        .request(Method::GET, &format!("{PODS}/a"), &accept, "")
        .await;
    assert_eq!(
        (&one["kind"], one["rows"].as_array().unwrap().len()),
        (&json!("Table"), 1)
    );

    let accept = [(
        "accept",
        "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
    )];
    let (_, list) = cluster.request(Method::GET, PODS, &accept, "").await;
    assert_eq!(list["kind"], "PartialObjectMetadataList");
    assert_eq!(list["items"][0]["metadata"]["name"], "a");
    assert!(list["items"][0].get("spec").is_none());
}
