//! A master without its process: API server, scheduler and controllers on a port of their own.

use std::{fmt::Debug, future::Future, time::Duration};

use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{ListParams, Patch, PatchParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use sluice_apiserver::{Config, Pki, Server};
use sluice_controllers::Options;
use sluice_store::Memory;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::kubelet::Kubelet;

/// Far longer than anything takes: only a hang runs into it.
const DEADLINE: Duration = Duration::from_secs(90);
/// Long enough for heartbeats to survive a busy machine.
pub const GRACE: Duration = Duration::from_secs(6);

/// See the module's documentation.
pub struct Master {
    pub client: Client,
    server: Option<Server>,
    stop: CancellationToken,
    loops: Vec<JoinHandle<()>>,
    _data: tempfile::TempDir,
}

impl Master {
    /// A master whose scheduler and controllers run.
    pub async fn start() -> Self {
        let mut master = Self::without_loops().await;
        let scheduler = sluice_scheduler::run(
            master.client.clone(),
            sluice_scheduler::Options::default(),
            master.stop.clone(),
        );
        let options = Options {
            cluster_cidrs: vec![
                "10.244.0.0/16".parse().unwrap(),
                "fd00:10:244::/56".parse().unwrap(),
            ],
            node_monitor_grace_period: GRACE,
            node_monitor_period: Duration::from_millis(500),
            ..Options::default()
        };
        let controllers =
            sluice_controllers::run(master.client.clone(), options, master.stop.clone());
        master.loops = vec![tokio::spawn(scheduler), tokio::spawn(controllers)];
        master
    }

    /// The API server alone.
    pub async fn without_loops() -> Self {
        // Another test of this process may have been first.
        let _ = tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
            .with_test_writer()
            .try_init();
        let _ = rustls::crypto::ring::default_provider().install_default();
        let data = tempfile::tempdir().unwrap();
        let server = Server::start(Config {
            data_dir: data.path().to_owned(),
            bind_address: "127.0.0.1".parse().unwrap(),
            secure_port: 0,
            service_cidrs: vec![
                "10.96.0.0/16".parse().unwrap(),
                "fd00:10:96::/112".parse().unwrap(),
            ],
            // Eviction after a second rather than five minutes.
            default_unreachable_toleration_seconds: 1,
            store: Some(std::sync::Arc::new(Memory::default())),
            ..Config::default()
        })
        .await
        .unwrap();
        let url = server.loopback().server.clone();
        let kubeconfig = Pki::open_or_create(data.path())
            .unwrap()
            .kubeconfig("test", &["system:masters"], &url)
            .unwrap();
        let kubeconfig = Kubeconfig::from_yaml(&kubeconfig).unwrap();
        let config =
            kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
                .await
                .unwrap();
        Self {
            client: Client::try_from(config).unwrap(),
            server: Some(server),
            stop: CancellationToken::new(),
            loops: Vec::new(),
            _data: data,
        }
    }

    /// Ends everything; a loop that panicked fails the test.
    pub async fn stop(mut self) {
        self.stop.cancel();
        for task in self.loops.drain(..) {
            task.await.unwrap();
        }
        if let Some(server) = self.server.take() {
            server.shutdown().await;
        }
    }

    /// Nodes n1, n2, ... with a kubelet each.
    pub async fn nodes(&self, count: usize) -> Vec<Kubelet> {
        let mut kubelets = Vec::new();
        for i in 1..=count {
            kubelets.push(Kubelet::start(&self.client, &format!("n{i}")).await);
        }
        kubelets
    }

    /// Creates an object in the namespace `default`, or a cluster-scoped one.
    pub async fn create<K>(&self, value: Value) -> K
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Serialize,
    {
        let namespace = value["metadata"]["namespace"]
            .as_str()
            .unwrap_or("default")
            .to_owned();
        let object: K = serde_json::from_value(value).unwrap();
        let url = K::url_path(&(), is_namespaced::<K>().then_some(namespace.as_str()));
        let body = serde_json::to_vec(&with_types(&object)).unwrap();
        let request = http_post(&url, body);
        self.client.request(request).await.unwrap()
    }

    /// A deployment's spec with one container.
    pub async fn deployment(&self, name: &str, replicas: i32, more: Value) -> Deployment {
        let mut spec = json!({
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "c", "image": "image:1",
                    "ports": [{"name": "http", "containerPort": 8080}]}]},
            },
        });
        merge(&mut spec, more);
        self.create(json!({"metadata": {"name": name}, "spec": spec}))
            .await
    }

    /// Merge-patches an object in `default`.
    pub async fn patch<K>(&self, name: &str, patch: Value) -> K
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + Debug
            + DeserializeOwned,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), "default");
        api.patch(name, &PatchParams::default(), &Patch::Merge(&patch))
            .await
            .unwrap()
    }

    /// Pods in `default` with `app=NAME` that are not being deleted.
    pub async fn pods(&self, app: &str) -> Vec<Pod> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), "default");
        let list = api
            .list(&ListParams::default().labels(&format!("app={app}")))
            .await
            .unwrap();
        let mut pods = list.items;
        pods.retain(|pod| pod.metadata.deletion_timestamp.is_none());
        pods
    }

    /// Waits until this many pods of an app run and are ready; returns them.
    pub async fn ready_pods(&self, app: &str, count: usize) -> Vec<Pod> {
        eventually(&format!("{count} ready pods of {app}"), async || {
            let pods = self.pods(app).await;
            let ready = pods
                .iter()
                .filter(|p| sluice_client::pod::is_ready(p))
                .count();
            (ready == count && pods.len() == count).then_some(pods)
        })
        .await
    }
}

/// How many pods each node has, sorted.
pub fn spread(pods: &[Pod]) -> Vec<(String, usize)> {
    let mut counts = std::collections::BTreeMap::new();
    for pod in pods {
        let node = sluice_client::pod::node_name(pod)
            .unwrap_or("none")
            .to_owned();
        *counts.entry(node).or_insert(0) += 1;
    }
    counts.into_iter().collect()
}

/// Polls until there is an answer; fails with `what` after a long time.
pub async fn eventually<T, F, Fut>(what: &str, mut attempt: F) -> T
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Option<T>>,
{
    let wait = async {
        loop {
            if let Some(value) = attempt().await {
                return value;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    match tokio::time::timeout(DEADLINE, wait).await {
        Ok(value) => value,
        Err(_) => panic!("not in {DEADLINE:?}: {what}"),
    }
}

pub fn merge(target: &mut Value, patch: Value) {
    match (target, patch) {
        (Value::Object(target), Value::Object(patch)) => {
            for (key, value) in patch {
                merge(target.entry(key).or_insert(Value::Null), value);
            }
        }
        (target, patch) => *target = patch,
    }
}

/// Names in a list of objects, sorted.
pub fn names<K: ResourceExt>(objects: &[K]) -> Vec<String> {
    let mut names: Vec<String> = objects.iter().map(|o| o.name_any()).collect();
    names.sort();
    names
}

fn is_namespaced<K: Resource<DynamicType = ()>>() -> bool {
    !matches!(K::kind(&()).as_ref(), "Node" | "Namespace")
}

fn with_types<K: Resource<DynamicType = ()> + Serialize>(object: &K) -> Value {
    let mut value = serde_json::to_value(object).unwrap();
    value["apiVersion"] = json!(K::api_version(&()));
    value["kind"] = json!(K::kind(&()));
    value
}

fn http_post(url: &str, body: Vec<u8>) -> http::Request<Vec<u8>> {
    http::Request::post(url)
        .header("Content-Type", "application/json")
        .body(body)
        .unwrap()
}
