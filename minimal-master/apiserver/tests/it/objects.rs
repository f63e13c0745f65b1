//! Single objects: what the server sets, and what each kind of write may change.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::support::{CONFIG_MAPS, Cluster, PODS, config_map, node, pod};

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const JSON_PATCH: &str = "application/json-patch+json";

fn deployment(name: &str) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "a", "image": "i"}, {"name": "b", "image": "j"}]},
            },
        },
    })
}

async fn patch(cluster: &Cluster, path: &str, kind: &str, body: Value) -> Value {
    let headers = [("content-type", kind)];
    let (code, value) = cluster
        .request(Method::PATCH, path, &headers, body.to_string())
        .await;
    assert_eq!(code, StatusCode::OK, "{value}");
    value
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_object_gets_its_system_metadata() {
    let cluster = Cluster::start().await;
    let mut map = config_map("x");
    map["metadata"]["uid"] = json!("mine");
    map["metadata"]["creationTimestamp"] = json!("2001-01-01T00:00:00Z");
    map["metadata"]["managedFields"] = json!([]);
    let made = cluster.post(CONFIG_MAPS, map).await;
    let metadata = &made["metadata"];
    assert_eq!(metadata["uid"].as_str().unwrap().len(), 36);
    assert!(metadata["creationTimestamp"].as_str().unwrap() > "2026");
    assert_eq!(metadata["namespace"], "default");
    assert_eq!(
        (&made["kind"], &made["apiVersion"]),
        (&json!("ConfigMap"), &json!("v1"))
    );
    assert_eq!(cluster.get(&format!("{CONFIG_MAPS}/x")).await, made);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_generated_on_request() {
    let cluster = Cluster::start().await;
    let map =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "web-"}});
    let first = cluster.post(CONFIG_MAPS, map.clone()).await;
    let second = cluster.post(CONFIG_MAPS, map).await;
    let name = first["metadata"]["name"].as_str().unwrap();
    assert!(name.starts_with("web-") && name.len() == 9, "{name}");
    assert_ne!(first["metadata"]["name"], second["metadata"]["name"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_that_changes_nothing_is_not_written() {
    let cluster = Cluster::start().await;
    let made = cluster.post(DEPLOYMENTS, deployment("d")).await;
    assert_eq!(made["metadata"]["generation"], 1);
    let path = format!("{DEPLOYMENTS}/d");
    assert_eq!(cluster.put(&path, made.clone()).await, made);
    let patched = patch(&cluster, &path, MERGE, json!({"spec": {"replicas": 2}})).await;
    assert_eq!(patched, made);
    let changed = patch(&cluster, &path, MERGE, json!({"spec": {"replicas": 3}})).await;
    assert_eq!(changed["metadata"]["generation"], 2);
    assert_ne!(
        changed["metadata"]["resourceVersion"],
        made["metadata"]["resourceVersion"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn spec_and_status_are_written_apart() {
    let cluster = Cluster::start().await;
    let mut object = deployment("d");
    object["status"] = json!({"replicas": 9});
    let made = cluster.post(DEPLOYMENTS, object).await;
    assert_ne!(made["status"]["replicas"], 9);
    let path = format!("{DEPLOYMENTS}/d");

    let mut both = made.clone();
    both["spec"]["replicas"] = json!(7);
    both["status"] = json!({"observedGeneration": 1, "replicas": 2});
    let status = cluster.put(&format!("{path}/status"), both.clone()).await;
    assert_eq!(
        (&status["spec"]["replicas"], &status["status"]["replicas"]),
        (&json!(2), &json!(2))
    );
    assert_eq!(status["metadata"]["generation"], 1);

    both["metadata"]["resourceVersion"] = Value::Null;
    both["status"] = json!({"replicas": 5});
    let spec = cluster.put(&path, both).await;
    assert_eq!(
        (&spec["spec"]["replicas"], &spec["status"]["replicas"]),
        (&json!(7), &json!(2))
    );

    let patched = patch(
        &cluster,
        &format!("{path}/status"),
        STRATEGIC,
        json!({"status": {"replicas": 7}}),
    )
    .await;
    assert_eq!(patched["status"]["replicas"], 7);
    assert_eq!(cluster.get(&format!("{path}/status")).await, patched);
}

#[tokio::test(flavor = "multi_thread")]
async fn three_kinds_of_patches() {
    let cluster = Cluster::start().await;
    cluster.post(DEPLOYMENTS, deployment("d")).await;
    let path = format!("{DEPLOYMENTS}/d");
    let container =
        json!({"spec": {"template": {"spec": {"containers": [{"name": "b", "image": "k"}]}}}});
    let strategic = patch(&cluster, &path, STRATEGIC, container.clone()).await;
    let containers = &strategic["spec"]["template"]["spec"]["containers"];
    assert_eq!(containers.as_array().unwrap().len(), 2, "merged by name");
    assert_eq!(containers[1]["image"], "k");
    let merged = patch(&cluster, &path, MERGE, container).await;
    assert_eq!(
        merged["spec"]["template"]["spec"]["containers"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    let operations = json!([
        {"op": "test", "path": "/spec/replicas", "value": 2},
        {"op": "replace", "path": "/spec/replicas", "value": 4},
    ]);
    let patched = patch(&cluster, &path, JSON_PATCH, operations).await;
    assert_eq!(patched["spec"]["replicas"], 4);
    let stale = json!({"metadata": {"resourceVersion": "1"}, "spec": {"replicas": 1}});
    let headers = [("content-type", MERGE)];
    let (code, _) = cluster
        .request(Method::PATCH, &path, &headers, stale.to_string())
        .await;
    assert_eq!(code, StatusCode::CONFLICT);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_writes_nothing() {
    let cluster = Cluster::start().await;
    let made = cluster
        .post(&format!("{CONFIG_MAPS}?dryRun=All"), config_map("x"))
        .await;
    assert!(made["metadata"]["uid"].is_string());
    assert!(cluster.is_gone(&format!("{CONFIG_MAPS}/x")).await);
    let made = cluster.post(CONFIG_MAPS, config_map("x")).await;
    let path = format!("{CONFIG_MAPS}/x?dryRun=All");
    let patched = patch(&cluster, &path, MERGE, json!({"data": {"a": "c"}})).await;
    assert_eq!(patched["data"]["a"], "c");
    assert_eq!(cluster.get(&format!("{CONFIG_MAPS}/x")).await, made);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_scale_of_a_deployment() {
    let cluster = Cluster::start().await;
    cluster.post(DEPLOYMENTS, deployment("d")).await;
    let path = format!("{DEPLOYMENTS}/d/scale");
    let mut scale = cluster.get(&path).await;
    assert_eq!(
        (&scale["kind"], &scale["spec"]["replicas"]),
        (&json!("Scale"), &json!(2))
    );
    scale["spec"]["replicas"] = json!(5);
    cluster.put(&path, scale).await;
    let patched = patch(&cluster, &path, MERGE, json!({"spec": {"replicas": 6}})).await;
    assert_eq!(patched["spec"]["replicas"], 6);
    assert_eq!(
        cluster.get(&format!("{DEPLOYMENTS}/d")).await["spec"]["replicas"],
        6
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_is_bound_once() {
    let cluster = Cluster::start().await;
    cluster.post("/api/v1/nodes", node("n1")).await;
    let made = cluster.post(PODS, pod("p")).await;
    let spec = &made["spec"];
    assert_eq!(spec["serviceAccountName"], "default");
    assert_eq!(spec["tolerations"].as_array().unwrap().len(), 2);
    assert_eq!(
        (&spec["priority"], &made["status"]["phase"]),
        (&json!(0), &json!("Pending"))
    );
    let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n1"}});
    let path = format!("{PODS}/p/binding");
    cluster.post(&path, binding.clone()).await;
    let bound = cluster.get(&format!("{PODS}/p")).await;
    assert_eq!(bound["spec"]["nodeName"], "n1");
    let conditions = bound["status"]["conditions"].as_array().unwrap();
    assert!(
        conditions
            .iter()
            .any(|c| c["type"] == "PodScheduled" && c["status"] == "True")
    );
    let (code, status) = cluster.send(Method::POST, &path, binding).await;
    assert_eq!(code, StatusCode::CONFLICT, "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_creates_a_lease_that_is_missing() {
    let cluster = Cluster::start().await;
    let path = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n1";
    let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "n1"}, "spec": {"holderIdentity": "n1"}});
    let (code, made) = cluster.send(Method::PUT, path, lease).await;
    assert_eq!(code, StatusCode::CREATED, "{made}");
    assert_eq!(cluster.get(path).await["spec"]["holderIdentity"], "n1");
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_the_same_in_both_groups() {
    let cluster = Cluster::start().await;
    let event = json!({
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": "e"},
        "eventTime": "2026-01-01T00:00:00.000000Z",
        "reportingController": "test",
        "reportingInstance": "test-1",
        "action": "Testing",
        "reason": "Tested",
        "type": "Normal",
        "note": "hello",
        "regarding": {"kind": "Pod", "namespace": "default", "name": "p"},
    });
    let new = "/apis/events.k8s.io/v1/namespaces/default/events";
    cluster.post(new, event).await;
    let old = cluster.get("/api/v1/namespaces/default/events/e").await;
    assert_eq!(
        (&old["message"], &old["involvedObject"]["name"]),
        (&json!("hello"), &json!("p"))
    );
    let listed = cluster.get(new).await;
    assert_eq!(listed["items"][0]["note"], "hello");
    assert_eq!(listed["items"][0]["apiVersion"], "events.k8s.io/v1");
    let selected = "/api/v1/namespaces/default/events?fieldSelector=involvedObject.name%3Dp";
    assert_eq!(
        cluster.get(selected).await["items"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn yaml_is_read_too() {
    let cluster = Cluster::start().await;
    let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: y\ndata:\n  a: \"1\"\n";
    let headers = [("content-type", "application/yaml")];
    let (code, made) = cluster
        .request(Method::POST, CONFIG_MAPS, &headers, yaml)
        .await;
    assert_eq!(code, StatusCode::CREATED, "{made}");
    assert_eq!(made["data"]["a"], "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_measured() {
    let cluster = Cluster::start().await;
    cluster.post(CONFIG_MAPS, config_map("x")).await;
    let (code, text) = cluster.request(Method::GET, "/metrics", &[], "").await;
    let text = text.as_str().unwrap();
    assert_eq!(code, StatusCode::OK);
    assert!(
        text.contains("apiserver_request_duration_seconds_bucket{"),
        "{text}"
    );
    assert!(text.contains(r#"resource="configmaps""#), "{text}");
    assert!(text.contains("apiserver_longrunning_requests 0"), "{text}");
    let watch = super::watches::Events::open(&cluster, &format!("{CONFIG_MAPS}?watch=1")).await;
    let (_, text) = cluster.request(Method::GET, "/metrics", &[], "").await;
    assert!(
        text.as_str()
            .unwrap()
            .contains("apiserver_longrunning_requests 1"),
        "{text}"
    );
    drop(watch);
}
