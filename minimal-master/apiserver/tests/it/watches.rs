//! Watches over HTTP.

use std::sync::Arc;

use futures::{AsyncBufReadExt, StreamExt, TryStreamExt};
use http::Method;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::runtime::{WatchStreamExt, watcher};
use serde_json::{Value, json};
use sluice_store::{Memory, Store};

use super::support::{CONFIG_MAPS, Cluster, DEADLINE, PODS, config_map, pod};

/// The lines of a watch.
pub struct Events {
    lines: std::pin::Pin<Box<dyn futures::Stream<Item = std::io::Result<String>> + Send>>,
}

impl Events {
    pub async fn open(cluster: &Cluster, path: &str) -> Self {
        Self::open_as(cluster, path, "application/json").await
    }

    pub async fn open_as(cluster: &Cluster, path: &str, accept: &str) -> Self {
        let request = http::Request::get(path)
            .header("accept", accept)
            .body(Vec::new())
            .unwrap();
        let lines = cluster
            .client
            .request_stream(request)
            .await
            .unwrap()
            .lines();
        Self {
            lines: Box::pin(lines),
        }
    }

    /// The next event; `None` when the watch has ended.
    pub async fn event(&mut self) -> Option<Value> {
        let line = tokio::time::timeout(DEADLINE, self.lines.next())
            .await
            .expect("an event comes");
        line.map(|line| serde_json::from_str(&line.unwrap()).unwrap())
    }

    /// The next event's type and its object's name.
    pub async fn next(&mut self) -> (String, String) {
        let event = self.event().await.expect("the watch goes on");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        (
            text(&event["type"]),
            text(&event["object"]["metadata"]["name"]),
        )
    }

    async fn expect(&mut self, expected: &[(&str, &str)]) {
        for (kind, name) in expected {
            assert_eq!(self.next().await, ((*kind).to_owned(), (*name).to_owned()));
        }
    }
}

async fn label(cluster: &Cluster, name: &str, value: &str) {
    let headers = [("content-type", "application/merge-patch+json")];
    let body = json!({"metadata": {"labels": {"app": value}}}).to_string();
    let (code, _) = cluster
        .request(Method::PATCH, &format!("{PODS}/{name}"), &headers, body)
        .await;
    assert_eq!(code.as_u16(), 200);
}

fn revision(object: &Value) -> String {
    object["metadata"]["resourceVersion"]
        .as_str()
        .unwrap()
        .to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn begins_with_the_state_or_after_a_revision() {
    let cluster = Cluster::start().await;
    let first = cluster.post(CONFIG_MAPS, config_map("a")).await;
    cluster.post(CONFIG_MAPS, config_map("b")).await;
    let mut from_state = Events::open(&cluster, &format!("{CONFIG_MAPS}?watch=true")).await;
    let after = format!(
        "{CONFIG_MAPS}?watch=true&resourceVersion={}",
        revision(&first)
    );
    let mut from_revision = Events::open(&cluster, &after).await;
    from_state.expect(&[("ADDED", "a"), ("ADDED", "b")]).await;
    from_revision.expect(&[("ADDED", "b")]).await;
    cluster.delete(&format!("{CONFIG_MAPS}/a"), json!({})).await;
    for events in [&mut from_state, &mut from_revision] {
        let event = events.event().await.unwrap();
        assert_eq!(
            (&event["type"], &event["object"]["data"]["a"]),
            (&json!("DELETED"), &json!("b"))
        );
        let deleted: u64 = revision(&event["object"]).parse().unwrap();
        assert!(deleted > revision(&first).parse().unwrap());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_selector_makes_objects_come_and_go() {
    let cluster = Cluster::start().await;
    cluster.post(PODS, pod("p")).await;
    let path = format!("{PODS}?watch=1&labelSelector=app%3Dyes");
    let mut events = Events::open(&cluster, &path).await;
    label(&cluster, "p", "yes").await;
    label(&cluster, "p", "no").await;
    label(&cluster, "p", "yes").await;
    cluster.delete(&format!("{PODS}/p"), json!({})).await;
    cluster.post(PODS, pod("yes")).await;
    let expected = [
        ("ADDED", "p"),
        ("DELETED", "p"),
        ("ADDED", "p"),
        ("DELETED", "p"),
        ("ADDED", "yes"),
    ];
    events.expect(&expected).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_namespace_is_watched_or_all() {
    let cluster = Cluster::start().await;
    let mut one = Events::open(&cluster, &format!("{CONFIG_MAPS}?watch=1")).await;
    let mut all = Events::open(&cluster, "/api/v1/configmaps?watch=1").await;
    cluster
        .post(
            "/api/v1/namespaces/kube-public/configmaps",
            config_map("other"),
        )
        .await;
    cluster.post(CONFIG_MAPS, config_map("own")).await;
    one.expect(&[("ADDED", "own")]).await;
    all.expect(&[("ADDED", "other"), ("ADDED", "own")]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_initial_state_ends_with_a_marked_bookmark() {
    let cluster = Cluster::start().await;
    cluster.post(CONFIG_MAPS, config_map("a")).await;
    let path = format!(
        "{CONFIG_MAPS}?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    );
    let mut events = Events::open(&cluster, &path).await;
    events.expect(&[("ADDED", "a")]).await;
    let bookmark = events.event().await.unwrap();
    assert_eq!(bookmark["type"], "BOOKMARK");
    let annotations = &bookmark["object"]["metadata"]["annotations"];
    assert_eq!(annotations["k8s.io/initial-events-end"], "true");
    let (code, _) = cluster
        .request(
            Method::GET,
            &format!("{CONFIG_MAPS}?watch=1&sendInitialEvents=true"),
            &[],
            "",
        )
        .await;
    assert_eq!(code.as_u16(), 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn ends_after_its_timeout_with_a_bookmark() {
    let cluster = Cluster::start().await;
    let path = format!("{CONFIG_MAPS}?watch=1&timeoutSeconds=1&allowWatchBookmarks=true");
    let mut events = Events::open(&cluster, &path).await;
    cluster.post(PODS, pod("elsewhere")).await;
    let newest = cluster.get(PODS).await;
    let bookmark = events.event().await.unwrap();
    assert_eq!(bookmark["type"], "BOOKMARK");
    let seen: u64 = revision(&bookmark["object"]).parse().unwrap();
    assert!(
        seen >= revision(&newest).parse().unwrap(),
        "bookmarks know of other resources' writes"
    );
    assert!(events.event().await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revision_that_is_compacted_is_an_error_event() {
    let store = Arc::new(Memory::default());
    let shared = store.clone();
    let first = Cluster::start_with(|config| config.store = Some(shared)).await;
    let old = first.post(CONFIG_MAPS, config_map("a")).await;
    first.post(CONFIG_MAPS, config_map("b")).await;
    first.server.shutdown().await;
    store
        .compact(store.revision().await.unwrap())
        .await
        .unwrap();
    let cluster = Cluster::start_with(|config| config.store = Some(store)).await;
    let path = format!("{CONFIG_MAPS}?watch=1&resourceVersion={}", revision(&old));
    let mut events = Events::open(&cluster, &path).await;
    let event = events.event().await.unwrap();
    assert_eq!(event["type"], "ERROR");
    assert_eq!(
        (&event["object"]["code"], &event["object"]["reason"]),
        (&json!(410), &json!("Expired"))
    );
    assert!(events.event().await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_watch_tells_its_columns_once() {
    let cluster = Cluster::start().await;
    cluster.post(PODS, pod("a")).await;
    let accept = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let mut events = Events::open_as(&cluster, &format!("{PODS}?watch=1"), accept).await;
    let first = events.event().await.unwrap();
    assert_eq!(first["object"]["rows"][0]["cells"][0], "a");
    assert!(first["object"]["columnDefinitions"].is_array());
    cluster.post(PODS, pod("b")).await;
    let second = events.event().await.unwrap();
    assert_eq!(second["object"]["rows"][0]["cells"][0], "b");
    assert!(second["object"]["columnDefinitions"].is_null());
}

#[tokio::test(flavor = "multi_thread")]
async fn kubes_watcher_sees_every_change_once() {
    let cluster = Cluster::start().await;
    let api: Api<ConfigMap> = Api::default_namespaced(cluster.client.clone());
    let stream = watcher(api, watcher::Config::default())
        .default_backoff()
        .applied_objects();
    let seen = stream
        .map_ok(|map| map.metadata.name.unwrap())
        .take(30)
        .try_collect::<Vec<_>>();
    let create = async {
        for n in 0..30 {
            cluster
                .post(CONFIG_MAPS, config_map(&format!("m{n:02}")))
                .await;
        }
    };
    let (seen, ()) = tokio::join!(tokio::time::timeout(DEADLINE, seen), create);
    let expected: Vec<String> = (0..30).map(|n| format!("m{n:02}")).collect();
    let mut seen = seen.unwrap().unwrap();
    seen.sort();
    assert_eq!(seen, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn watches_end_when_the_server_stops() {
    let cluster = Cluster::start().await;
    let mut events = Events::open(&cluster, &format!("{CONFIG_MAPS}?watch=1")).await;
    cluster.server.shutdown().await;
    assert!(events.event().await.is_none());
}
