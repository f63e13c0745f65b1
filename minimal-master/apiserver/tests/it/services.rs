//! Services as the API server completes them, and the one that leads to itself.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::support::{Cluster, SERVICES};

fn service(name: &str, spec: Value) -> Value {
    let mut spec = spec;
    spec["ports"] = json!([{"port": 80}]);
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec})
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_publishes_itself() {
    let cluster = Cluster::start().await;
    let service = cluster.get(&format!("{SERVICES}/kubernetes")).await;
    assert_eq!(service["spec"]["clusterIP"], "10.96.0.1");
    let port = cluster.server.local_addr().port();
    let endpoints = cluster
        .get("/api/v1/namespaces/default/endpoints/kubernetes")
        .await;
    assert_eq!(
        endpoints["subsets"][0]["addresses"][0]["ip"],
        "198.51.100.1"
    );
    assert_eq!(endpoints["subsets"][0]["ports"][0]["port"], port);
    let slice = cluster
        .get("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes")
        .await;
    assert_eq!(slice["endpoints"][0]["addresses"], json!(["198.51.100.1"]));
    assert_eq!(
        slice["metadata"]["labels"]["kubernetes.io/service-name"],
        "kubernetes"
    );
    for namespace in ["default", "kube-system", "kube-public", "kube-node-lease"] {
        cluster
            .get(&format!("/api/v1/namespaces/{namespace}"))
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_is_free_again_after_deletion() {
    let cluster = Cluster::start().await;
    let made = cluster
        .post(SERVICES, service("a", json!({"type": "NodePort"})))
        .await;
    let spec = &made["spec"];
    let again = json!({"type": "NodePort", "clusterIP": spec["clusterIP"]});
    let (code, status) = cluster
        .send(Method::POST, SERVICES, service("b", again.clone()))
        .await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(
        status["details"]["causes"][0]["field"],
        "spec.clusterIPs[0]"
    );
    cluster.delete(&format!("{SERVICES}/a"), json!({})).await;
    cluster.post(SERVICES, service("b", again)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_holds_no_address() {
    let cluster = Cluster::start().await;
    let wanted = service("a", json!({"clusterIP": "10.96.0.77"}));
    cluster
        .post(&format!("{SERVICES}?dryRun=All"), wanted.clone())
        .await;
    cluster.post(SERVICES, wanted).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dual_stack_services_get_both_families() {
    let cluster = Cluster::start().await;
    let made = cluster
        .post(
            SERVICES,
            service("a", json!({"ipFamilyPolicy": "RequireDualStack"})),
        )
        .await;
    let addresses = made["spec"]["clusterIPs"].as_array().unwrap();
    assert!(addresses[0].as_str().unwrap().starts_with("10.96."));
    assert!(addresses[1].as_str().unwrap().starts_with("fd00:10:96::"));
    assert_eq!(made["spec"]["ipFamilies"], json!(["IPv4", "IPv6"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_makes_and_changes_services() {
    let cluster = Cluster::start().await;
    cluster
        .ok("create deployment web --image=sluice.local/echo:1 --port=8080")
        .await;
    cluster
        .ok("expose deployment web --port=80 --type=NodePort")
        .await;
    let port = cluster
        .ok("get service web -o jsonpath={.spec.ports[0].nodePort}")
        .await;
    assert!(
        (30000..=32767).contains(&port.parse::<u16>().unwrap()),
        "{port}"
    );
    cluster
        .ok("create service clusterip plain --tcp=80:8080")
        .await;
    let patch = r#"{"spec":{"type":"ClusterIP"}}"#;
    cluster.ok(&format!("patch service web -p {patch}")).await;
    let out = cluster.ok("get services").await;
    assert!(
        out.contains("web") && out.contains("ClusterIP") && !out.contains("NodePort"),
        "{out}"
    );
}
