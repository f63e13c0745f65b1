//! What a server that stops and starts again still knows.

use http::{Method, StatusCode};
use serde_json::json;

use super::support::{CONFIG_MAPS, Cluster, SERVICES, config_map};
use super::watches::Events;

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_and_watchers_resume() {
    let first = Cluster::start_with(|_| {}).await;
    let before = first.post(CONFIG_MAPS, config_map("before")).await;
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}});
    let service = first.post(SERVICES, service).await;
    first.post(CONFIG_MAPS, config_map("after")).await;
    let kubeconfig = std::fs::read_to_string(first.kubeconfig()).unwrap();
    let directory = first.directory.clone();
    first.server.shutdown().await;

    let second = Cluster::start_in(directory, |_| {}).await;
    assert_eq!(second.get(&format!("{CONFIG_MAPS}/before")).await, before);
    let revision = before["metadata"]["resourceVersion"].as_str().unwrap();
    let mut events = Events::open(
        &second,
        &format!("{CONFIG_MAPS}?watch=1&resourceVersion={revision}"),
    )
    .await;
    assert_eq!(
        events.next().await,
        ("ADDED".to_owned(), "after".to_owned())
    );

    let taken = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "t"},
        "spec": {"clusterIP": service["spec"]["clusterIP"], "ports": [{"port": 80}]}});
    let (code, status) = second.send(Method::POST, SERVICES, taken).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY, "{status}");

    // The old kubeconfig's certificate is still good: only the port is another.
    let kubeconfig = kubeconfig
        .lines()
        .map(|line| match line.trim_start().starts_with("server:") {
            true => format!("    server: {}", second.url()),
            false => line.to_owned(),
        })
        .collect::<Vec<_>>()
        .join("\n");
    let client = super::support::client_of(&kubeconfig).await;
    client.apiserver_version().await.unwrap();
    second.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_in_use_is_refused() {
    let first = Cluster::start_with(|_| {}).await;
    let error = sluice_apiserver::Server::start(super::support::config(first.directory.path()));
    let error = error
        .await
        .err()
        .expect("the store is open already")
        .to_string();
    assert!(error.contains("store.redb"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn inherited_sockets_are_served_too() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let cluster = Cluster::start_with(|config| {
        config.store = Some(super::support::memory());
        config.inherited = vec![listener];
    })
    .await;
    let url = format!("https://{address}");
    let client = super::support::client(cluster.directory.path(), &url, "admin").await;
    client.apiserver_version().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_servers_new_address_is_published() {
    let store = super::support::memory();
    let shared = store.clone();
    let first = Cluster::start_with(|config| config.store = Some(shared)).await;
    first.server.shutdown().await;
    let second = Cluster::start_with(|config| {
        config.store = Some(store);
        config.advertise_address = Some("2001:db8::1".parse().unwrap());
    })
    .await;
    let slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes";
    let slice = second.get(slices).await;
    assert_eq!(slice["addressType"], "IPv6");
    assert_eq!(slice["endpoints"][0]["addresses"], json!(["2001:db8::1"]));
    let endpoints = second
        .get("/api/v1/namespaces/default/endpoints/kubernetes")
        .await;
    assert_eq!(endpoints["subsets"][0]["addresses"][0]["ip"], "2001:db8::1");
}
