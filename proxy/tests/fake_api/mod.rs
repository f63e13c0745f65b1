//! An API server that serves lists and watches of three kinds, and can be told to fail.
//!
//! It is here so that the agent's tests need no other part of the project, and so that an outage or a
//! compaction happens exactly when a test wants it.
#![allow(dead_code, reason = "each test binary uses a part")]

use std::collections::{BTreeMap, HashMap};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard};

use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use futures::StreamExt;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio_stream::wrappers::UnboundedReceiverStream;

/// A running server; ends when dropped.
pub struct FakeApi {
    pub addr: SocketAddr,
    shared: Arc<Shared>,
    runtime: Runtime,
}

struct Shared {
    state: Mutex<World>,
    /// The revision, or 0 when all connections should break.
    revision: watch::Sender<u64>,
}

#[derive(Default)]
struct World {
    revision: u64,
    /// Watches from before this revision are refused.
    compacted: u64,
    down: bool,
    objects: BTreeMap<(String, String), Value>,
    log: Vec<Change>,
    /// Lists served, by plural.
    lists: HashMap<String, u32>,
    selectors: HashMap<String, String>,
}

#[derive(Clone)]
struct Change {
    revision: u64,
    plural: String,
    deleted: bool,
    object: Value,
}

impl FakeApi {
    /// Serves on a socket that was bound in the network namespace where the agent will be.
    pub fn serve(listener: TcpListener) -> Self {
        let addr = listener.local_addr().expect("a bound socket");
        listener.set_nonblocking(true).expect("non-blocking");
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            revision: watch::Sender::new(0),
        });
        let runtime = Runtime::new().expect("a runtime");
        let router = Router::new()
            .route("/api/v1/{plural}", get(core))
            .route("/api/v1/nodes/{name}", get(node))
            .route("/apis/discovery.k8s.io/v1/{plural}", get(core))
            .with_state(shared.clone());
        let guard = runtime.enter();
        let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
        drop(guard);
        runtime.spawn(async move { axum::serve(listener, router).await });
        Self {
            addr,
            shared,
            runtime,
        }
    }

    /// Adds or replaces an object.
    pub fn put(&self, mut object: Value) {
        let mut world = self.world();
        world.revision += 1;
        object["metadata"]["resourceVersion"] = json!(world.revision.to_string());
        let key = key(&object);
        world.objects.insert(key.clone(), object.clone());
        let revision = world.revision;
        world.log.push(Change {
            revision,
            plural: key.0,
            deleted: false,
            object,
        });
        drop(world);
        self.shared.revision.send_replace(revision);
    }

    /// Removes an object.
    pub fn delete(&self, object: &Value) {
        let mut world = self.world();
        world.revision += 1;
        let revision = world.revision;
        let key = key(object);
        let mut object = world.objects.remove(&key).expect("an object that is there");
        object["metadata"]["resourceVersion"] = json!(revision.to_string());
        world.log.push(Change {
            revision,
            plural: key.0,
            deleted: true,
            object,
        });
        drop(world);
        self.shared.revision.send_replace(revision);
    }

    /// Breaks every connection and refuses new requests, until [`Self::recover`].
    pub fn fail(&self) {
        self.world().down = true;
        self.shared.revision.send_replace(0);
    }

    /// Serves again.
    pub fn recover(&self) {
        let mut world = self.world();
        world.down = false;
        let revision = world.revision;
        drop(world);
        self.shared.revision.send_replace(revision);
    }

    /// Forgets history: a watch can no longer go on from where it was.
    pub fn compact(&self) {
        let mut world = self.world();
        world.compacted = world.revision;
        world.log.clear();
    }

    /// How often a kind has been listed.
    pub fn lists(&self, plural: &str) -> u32 {
        self.world().lists.get(plural).copied().unwrap_or_default()
    }

    /// The selectors that a kind was last asked for with.
    pub fn selectors(&self, plural: &str) -> String {
        self.world()
            .selectors
            .get(plural)
            .cloned()
            .unwrap_or_default()
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.shared.world()
    }
}

impl Shared {
    fn world(&self) -> MutexGuard<'_, World> {
        self.state.lock().expect("no test thread panicked with it")
    }
}

fn key(object: &Value) -> (String, String) {
    let plural = match object["kind"].as_str() {
        Some("Service") => "services",
        Some("EndpointSlice") => "endpointslices",
        Some("Node") => "nodes",
        kind => panic!("{kind:?} is not served"),
    };
    let meta = &object["metadata"];
    let text = |field: &str| meta[field].as_str().unwrap_or_default();
    (
        plural.to_owned(),
        format!("{}/{}", text("namespace"), text("name")),
    )
}

async fn node(State(shared): State<Arc<Shared>>, Path(name): Path<String>) -> Response {
    let world = shared.world();
    if world.down {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    match world.objects.get(&("nodes".to_owned(), format!("/{name}"))) {
        Some(object) => Json(object.clone()).into_response(),
        None => (StatusCode::NOT_FOUND, Json(status(404, "NotFound"))).into_response(),
    }
}

async fn core(
    State(shared): State<Arc<Shared>>,
    Path(plural): Path<String>,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    if shared.world().down {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let get = |name: &str| query.get(name).cloned().unwrap_or_default();
    let selectors = get("labelSelector") + &get("fieldSelector");
    if get("watch") == "true" || get("watch") == "1" {
        let from = get("resourceVersion").parse().unwrap_or_default();
        return follow(&shared, plural, selectors, from);
    }
    list(&shared, plural, selectors)
}

fn list(shared: &Shared, plural: String, selectors: String) -> Response {
    let mut world = shared.world();
    *world.lists.entry(plural.clone()).or_default() += 1;
    let of_kind = world
        .objects
        .iter()
        .filter(|((kind, _), _)| *kind == plural);
    let items: Vec<_> = of_kind
        .map(|(_, object)| object.clone())
        .filter(|object| selected(object, &selectors))
        .collect();
    world.selectors.insert(plural, selectors);
    let revision = world.revision.to_string();
    Json(json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": revision}, "items": items})).into_response()
}

/// Changes after `from`, one JSON document a line, for as long as the client listens and the server is up.
fn follow(shared: &Arc<Shared>, plural: String, selectors: String, from: u64) -> Response {
    let (lines, receiver) = tokio::sync::mpsc::unbounded_channel::<Bytes>();
    let shared = shared.clone();
    tokio::spawn(async move {
        let mut revisions = shared.revision.subscribe();
        let mut at = from;
        loop {
            for line in shared.changes(&plural, &selectors, &mut at) {
                if lines.send(line).is_err() {
                    return;
                }
            }
            if shared.world().down || lines.is_closed() {
                return;
            }
            tokio::select! {
                changed = revisions.changed() => if changed.is_err() { return },
                () = lines.closed() => return,
            }
        }
    });
    let stream = UnboundedReceiverStream::new(receiver).map(Ok::<_, std::io::Error>);
    Body::from_stream(stream).into_response()
}

impl Shared {
    fn changes(&self, plural: &str, selectors: &str, at: &mut u64) -> Vec<Bytes> {
        let world = self.world();
        if *at < world.compacted {
            *at = world.revision;
            return vec![line("ERROR", &status(410, "Expired"))];
        }
        let after = *at;
        *at = world.revision;
        let news = world
            .log
            .iter()
            .filter(|change| change.revision > after && change.plural == plural);
        news.map(|change| {
            let gone = change.deleted || !selected(&change.object, selectors);
            line(if gone { "DELETED" } else { "MODIFIED" }, &change.object)
        })
        .collect()
    }
}

fn line(kind: &str, object: &Value) -> Bytes {
    Bytes::from(json!({"type": kind, "object": object}).to_string() + "\n")
}

fn status(code: u16, reason: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": reason})
}

/// Knows `!label` and `metadata.name=`, which is what the agent asks with.
fn selected(object: &Value, selectors: &str) -> bool {
    selectors.split(',').all(|selector| {
        if let Some(label) = selector.strip_prefix('!') {
            return object["metadata"]["labels"].get(label).is_none();
        }
        match selector.strip_prefix("metadata.name=") {
            Some(name) => object["metadata"]["name"] == name,
            None => selector.is_empty(),
        }
    })
}
