//! Deleting: at once, gracefully, with finalizers, in collections, and whole namespaces.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::support::{CONFIG_MAPS, Cluster, PODS, config_map, node, pod};

const REPLICA_SETS: &str = "/apis/apps/v1/namespaces/default/replicasets";

async fn bind(cluster: &Cluster, name: &str) {
    let binding = json!({
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"name": name},
        "target": {"apiVersion": "v1", "kind": "Node", "name": "n1"},
    });
    cluster
        .post(&format!("{PODS}/{name}/binding"), binding)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_with_what_was_deleted() {
    let cluster = Cluster::start().await;
    let made = cluster.post(CONFIG_MAPS, config_map("x")).await;
    let status = cluster.delete(&format!("{CONFIG_MAPS}/x"), json!({})).await;
    assert_eq!(
        (&status["kind"], &status["status"]),
        (&json!("Status"), &json!("Success"))
    );
    assert_eq!(status["details"]["uid"], made["metadata"]["uid"]);
    assert!(cluster.is_gone(&format!("{CONFIG_MAPS}/x")).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bound_pod_ends_gracefully_and_an_unbound_one_at_once() {
    let cluster = Cluster::start().await;
    cluster.post("/api/v1/nodes", node("n1")).await;
    cluster.post(PODS, pod("unbound")).await;
    cluster.delete(&format!("{PODS}/unbound"), json!({})).await;
    assert!(cluster.is_gone(&format!("{PODS}/unbound")).await);

    cluster.post(PODS, pod("bound")).await;
    bind(&cluster, "bound").await;
    let path = format!("{PODS}/bound");
    let marked = cluster.delete(&path, json!({})).await;
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 30);
    let again = cluster.delete(&path, json!({})).await;
    assert_eq!(
        again["metadata"], marked["metadata"],
        "a second request changes nothing"
    );
    let sooner = cluster
        .delete(&path, json!({"gracePeriodSeconds": 5}))
        .await;
    assert_eq!(sooner["metadata"]["deletionGracePeriodSeconds"], 5);
    cluster
        .delete(&path, json!({"gracePeriodSeconds": 0}))
        .await;
    assert!(cluster.is_gone(&path).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn finalizers_hold_an_object_until_the_last_is_gone() {
    let cluster = Cluster::start().await;
    let mut map = config_map("x");
    map["metadata"]["finalizers"] = json!(["example.com/a", "example.com/b"]);
    cluster.post(CONFIG_MAPS, map).await;
    let path = format!("{CONFIG_MAPS}/x");
    cluster.delete(&path, json!({})).await;
    let mut held = cluster.get(&path).await;
    assert!(held["metadata"]["deletionTimestamp"].is_string());
    held["metadata"]["finalizers"] = json!(["example.com/b"]);
    let mut held = cluster.put(&path, held).await;
    held["metadata"]["finalizers"] = json!([]);
    cluster.put(&path, held).await;
    assert!(cluster.is_gone(&path).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_leave_the_garbage_collectors_finalizers() {
    let cluster = Cluster::start().await;
    for (policy, finalizer) in [("Foreground", "foregroundDeletion"), ("Orphan", "orphan")] {
        let set = json!({
            "apiVersion": "apps/v1",
            "kind": "ReplicaSet",
            "metadata": {"name": "rs"},
            "spec": {
                "selector": {"matchLabels": {"a": "b"}},
                "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}},
            },
        });
        cluster.post(REPLICA_SETS, set).await;
        let path = format!("{REPLICA_SETS}/rs");
        let mut held = cluster
            .delete(&path, json!({"propagationPolicy": policy}))
            .await;
        assert_eq!(held["metadata"]["finalizers"], json!([finalizer]));
        held["metadata"]["finalizers"] = Value::Null;
        cluster.put(&path, held).await;
        assert!(cluster.is_gone(&path).await, "{policy}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn preconditions_are_checked() {
    let cluster = Cluster::start().await;
    let made = cluster.post(CONFIG_MAPS, config_map("x")).await;
    let path = format!("{CONFIG_MAPS}/x");
    let stale = json!({"preconditions": {"resourceVersion": "1"}});
    let (code, _) = cluster.send(Method::DELETE, &path, stale).await;
    assert_eq!(code, StatusCode::CONFLICT);
    let (uid, revision) = (
        &made["metadata"]["uid"],
        &made["metadata"]["resourceVersion"],
    );
    cluster
        .delete(
            &path,
            json!({"preconditions": {"uid": uid, "resourceVersion": revision}}),
        )
        .await;
    assert!(cluster.is_gone(&path).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_deletes_nothing() {
    let cluster = Cluster::start().await;
    cluster.post(CONFIG_MAPS, config_map("x")).await;
    cluster
        .delete(&format!("{CONFIG_MAPS}/x?dryRun=All"), json!({}))
        .await;
    cluster
        .delete(&format!("{CONFIG_MAPS}/x"), json!({"dryRun": ["All"]}))
        .await;
    cluster.get(&format!("{CONFIG_MAPS}/x")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collection_is_deleted_by_its_selector() {
    let cluster = Cluster::start().await;
    for name in ["a", "b", "c"] {
        cluster.post(PODS, pod(name)).await;
    }
    let gone = cluster
        .delete(&format!("{PODS}?labelSelector=app%20in%20(a,b)"), json!({}))
        .await;
    assert_eq!(
        (&gone["kind"], gone["items"].as_array().unwrap().len()),
        (&json!("PodList"), 2)
    );
    let left = cluster.get(PODS).await;
    assert_eq!(left["items"].as_array().unwrap().len(), 1);
    assert_eq!(left["items"][0]["metadata"]["name"], "c");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_waits_for_its_contents_and_takes_nothing_new() {
    let cluster = Cluster::start().await;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}});
    let made = cluster.post("/api/v1/namespaces", namespace).await;
    assert_eq!(made["spec"]["finalizers"], json!(["kubernetes"]));
    assert_eq!(
        made["metadata"]["labels"]["kubernetes.io/metadata.name"],
        "shop"
    );
    assert_eq!(made["status"]["phase"], "Active");
    let maps = "/api/v1/namespaces/shop/configmaps";
    cluster.post(maps, config_map("inside")).await;

    let path = "/api/v1/namespaces/shop";
    let mut marked = cluster.delete(path, json!({})).await;
    assert_eq!(marked["status"]["phase"], "Terminating");
    let (code, status) = cluster.send(Method::POST, maps, config_map("late")).await;
    assert_eq!(code, StatusCode::FORBIDDEN);
    assert_eq!(
        status["details"]["causes"][0]["reason"],
        "NamespaceTerminating"
    );
    let expected = r#"configmaps "late" is forbidden: unable to create new content in namespace shop because it is being terminated"#;
    assert_eq!(status["message"], expected);

    cluster.delete(&format!("{maps}/inside"), json!({})).await;
    marked["spec"]["finalizers"] = json!([]);
    cluster.put(&format!("{path}/finalize"), marked).await;
    assert!(cluster.is_gone(path).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_eviction_is_a_graceful_deletion() {
    let cluster = Cluster::start().await;
    cluster.post("/api/v1/nodes", node("n1")).await;
    cluster.post(PODS, pod("p")).await;
    bind(&cluster, "p").await;
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"},
        "deleteOptions": {"gracePeriodSeconds": 3}});
    cluster.post(&format!("{PODS}/p/eviction"), eviction).await;
    let marked = cluster.get(&format!("{PODS}/p")).await;
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 3);
}
