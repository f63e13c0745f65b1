//! As much of an API server as the daemon uses: list and watch Nodes, patch a Node's status.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::response::Response;
use axum::routing::{get, patch};
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::sync::watch;

use super::support::Namespace;

#[derive(Default)]
struct Store {
    nodes: BTreeMap<String, Value>,
    /// The event with resourceVersion N is at N - 1.
    events: Vec<Value>,
    patches: Vec<(String, Value)>,
}

#[derive(Clone)]
struct Shared {
    store: Arc<Mutex<Store>>,
    changed: watch::Sender<usize>,
}

/// Served on loopback inside each node's namespace.
pub struct FakeApi {
    shared: Shared,
    runtime: Runtime,
}

impl FakeApi {
    pub fn new(nodes: &[Value]) -> Self {
        let shared = Shared {
            store: Arc::default(),
            changed: watch::channel(0).0,
        };
        let api = Self {
            shared,
            runtime: Runtime::new().unwrap(),
        };
        nodes.iter().for_each(|node| api.put(node.clone()));
        api
    }

    pub fn listen_in(&self, namespace: &Namespace) -> u16 {
        let listener = namespace.run(|| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
        let port = listener.local_addr().unwrap().port();
        listener.set_nonblocking(true).unwrap();
        let router = Router::new()
            .route("/api/v1/nodes", get(nodes))
            .route("/api/v1/nodes/{name}/status", patch(patch_status))
            .with_state(self.shared.clone());
        self.runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            axum::serve(listener, router).await.unwrap();
        });
        port
    }

    pub fn put(&self, node: Value) {
        self.event("MODIFIED", node);
    }

    pub fn delete(&self, node: Value) {
        self.event("DELETED", node);
    }

    fn event(&self, kind: &str, mut node: Value) {
        let mut store = self.shared.store.lock().unwrap();
        let version = store.events.len() + 1;
        node["metadata"]["resourceVersion"] = version.to_string().into();
        let name = node["metadata"]["name"].as_str().unwrap().to_owned();
        match kind {
            "DELETED" => drop(store.nodes.remove(&name)),
            _ => drop(store.nodes.insert(name, node.clone())),
        }
        store.events.push(json!({ "type": kind, "object": node }));
        self.shared.changed.send_replace(version);
    }

    /// The conditions that a daemon set.
    pub fn conditions(&self, node: &str) -> Vec<Value> {
        let store = self.shared.store.lock().unwrap();
        let patches = store.patches.iter().filter(|(name, _)| name == node);
        patches
            .flat_map(|(_, patch)| {
                patch["status"]["conditions"]
                    .as_array()
                    .cloned()
                    .unwrap_or_default()
            })
            .collect()
    }
}

async fn nodes(
    State(shared): State<Shared>,
    Query(query): Query<BTreeMap<String, String>>,
) -> Response {
    if query
        .get("watch")
        .is_some_and(|watch| watch == "true" || watch == "1")
    {
        let since = query
            .get("resourceVersion")
            .and_then(|version| version.parse().ok());
        return watch_nodes(shared, since.unwrap_or(0));
    }
    let store = shared.store.lock().unwrap();
    let list = json!({
        "apiVersion": "v1",
        "kind": "NodeList",
        "metadata": { "resourceVersion": store.events.len().to_string() },
        "items": store.nodes.values().collect::<Vec<_>>(),
    });
    Response::builder()
        .header("content-type", "application/json")
        .body(list.to_string().into())
        .unwrap()
}

fn watch_nodes(shared: Shared, since: usize) -> Response {
    let changed = shared.changed.subscribe();
    let lines = futures::stream::unfold(
        (shared, changed, since),
        |(shared, mut changed, since)| async move {
            changed.wait_for(|version| *version > since).await.ok()?;
            let line = format!("{}\n", shared.store.lock().unwrap().events[since]);
            Some((
                Ok::<Bytes, std::io::Error>(line.into()),
                (shared, changed, since + 1),
            ))
        },
    );
    Response::builder()
        .header("content-type", "application/json")
        .body(Body::from_stream(lines))
        .unwrap()
}

async fn patch_status(
    State(shared): State<Shared>,
    Path(name): Path<String>,
    body: Bytes,
) -> Result<Json<Value>, axum::http::StatusCode> {
    let patch: Value =
        serde_json::from_slice(&body).map_err(|_| axum::http::StatusCode::BAD_REQUEST)?;
    let mut store = shared.store.lock().unwrap();
    let node = store
        .nodes
        .get(&name)
        .cloned()
        .ok_or(axum::http::StatusCode::NOT_FOUND)?;
    store.patches.push((name, patch));
    Ok(Json(node))
}
