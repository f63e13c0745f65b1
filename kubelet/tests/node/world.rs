//! One node with its master: an API server, a containerd, and the kubelet between them.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use k8s_openapi::api::core::v1::{Event, Node, Pod};
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};
use sluice_apiserver::{Config, Pki, Server};
use sluice_kubelet::{cli, kubelet};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::containerd::{Containerd, unmount_below};
use crate::namespace;

/// Long enough for a slow machine; nothing waits that long when all is well.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// A kubelet that runs in this process.
pub struct Kubelet {
    stop: CancellationToken,
    task: JoinHandle<()>,
    /// Address of the authenticated server.
    pub secure: SocketAddr,
    /// Address of the read-only server.
    pub read_only: SocketAddr,
}

impl Kubelet {
    /// Stops it; pods go on.
    pub async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }
}

/// Everything that a test has. Fields are dropped in this order.
pub struct World {
    /// The runtime.
    pub containerd: Containerd,
    cgroups: Cgroups,
    /// An administrator.
    pub client: kube::Client,
    // Kept for as long as the test: the master ends with it.
    _server: Server,
    root: Mounts,
}

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    args: cli::Args,
}

/// Runs a test in a network namespace of its own with a fresh world.
pub fn run<F: Future<Output = ()>>(test: impl FnOnce(Arc<World>) -> F) {
    // Threads of the runtime are started by this one and so are in its namespace.
    namespace::enter();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let world = Arc::new(World::start().await);
        test(Arc::clone(&world)).await;
    });
}

impl World {
    async fn start() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let root = Mounts(tempfile::tempdir().unwrap());
        let config = Config {
            data_dir: root.path().join("master"),
            bind_address: Ipv4Addr::LOCALHOST.into(),
            secure_port: 0,
            advertise_address: Some(Ipv4Addr::LOCALHOST.into()),
            kubelet_certificate_authority: Some(root.path().join("master/pki/ca.crt")),
            ..Config::default()
        };
        let pki = Pki::open_or_create(&config.data_dir).unwrap();
        let server = Server::start(config).await.unwrap();
        let url = server.loopback().server.clone();
        write_credentials(&pki, &url, root.path());
        let kubeconfig = pki.kubeconfig("admin", &["system:masters"], &url).unwrap();
        let kubeconfig = Kubeconfig::from_yaml(&kubeconfig).unwrap();
        let config =
            kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
                .await
                .unwrap();
        let client = kube::Client::try_from(config).unwrap();
        let containerd = Containerd::start(root.path());
        Self {
            containerd,
            cgroups: Cgroups::new(),
            client,
            _server: server,
            root,
        }
    }

    /// Starts the kubelet; a second one takes over from the first.
    pub async fn kubelet(&self) -> Kubelet {
        let path = |name: &str| self.root.path().join(name).display().to_string();
        let endpoint = format!("unix://{}", self.containerd.socket().display());
        let (config, root, cert, key, ca) = (
            path("kubeconfig"),
            path("kubelet"),
            path("tls.crt"),
            path("tls.key"),
            path("master/pki/ca.crt"),
        );
        // A port that nothing uses now: the namespace is the test's own.
        let read_only = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let read_only_port = read_only.port().to_string();
        let arguments = [
            ["--kubeconfig", &config],
            ["--hostname-override", "node1"],
            ["--node-ip", "127.0.0.1"],
            ["--container-runtime-endpoint", &endpoint],
            ["--root-dir", &root],
            ["--cgroup-root", &self.cgroups.0],
            ["--address", "127.0.0.1"],
            ["--port", "0"],
            ["--read-only-port", &read_only_port],
            ["--tls-cert-file", &cert],
            ["--tls-private-key-file", &key],
            ["--client-ca-file", &ca],
            ["--node-status-update-frequency", "1s"],
            ["--node-lease-renew-interval", "1s"],
        ];
        let args =
            Command::parse_from(std::iter::once("kubelet").chain(arguments.into_iter().flatten()))
                .args;
        let options = cli::prepare(args).await.unwrap();
        let secure = options.secure.0.local_addr().unwrap();
        let stop = CancellationToken::new();
        let task = tokio::spawn(kubelet::run(options, stop.clone()));
        Kubelet {
            stop,
            task,
            secure,
            read_only,
        }
    }

    /// The kubelet's root directory.
    pub fn kubelet_root(&self) -> PathBuf {
        self.root.path().join("kubelet")
    }

    /// Certificate and key of an API server in one PEM, and the CA.
    pub fn credentials(&self) -> (String, String) {
        (self.read("apiserver.pem"), self.read("master/pki/ca.crt"))
    }

    /// The same, signed by a CA that nobody trusts.
    pub fn strangers_credentials(&self) -> (String, String) {
        (self.read("stranger.pem"), self.read("master/pki/ca.crt"))
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.root.path().join(name)).unwrap()
    }

    /// Pods of the namespace `default`.
    pub fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), "default")
    }

    /// Objects of the namespace `default`.
    pub fn objects<K>(&self) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), "default")
    }

    /// Creates an object.
    pub async fn create<K>(&self, object: Value) -> K
    where
        K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
            + serde::Serialize
            + serde::de::DeserializeOwned
            + Clone
            + std::fmt::Debug,
    {
        let object: K = serde_json::from_value(object).unwrap();
        self.objects::<K>()
            .create(&PostParams::default(), &object)
            .await
            .unwrap()
    }

    /// Creates a pod that is bound to the node.
    pub async fn pod(&self, name: &str, mut spec: Value) -> Pod {
        spec["nodeName"] = json!("node1");
        spec["tolerations"] = json!([{ "operator": "Exists" }]);
        self.create(json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name }, "spec": spec })).await
    }

    /// Waits until the pod is as wanted and returns it.
    pub async fn until(&self, name: &str, what: &str, wanted: impl Fn(&Pod) -> bool) -> Pod {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let pod = self.pods().get(name).await.unwrap();
            if wanted(&pod) {
                return pod;
            }
            if Instant::now() > deadline {
                panic!(
                    "{name} is not {what}: {:#?}\n{:#?}",
                    pod.status,
                    self.reasons(name).await
                );
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until the pod is gone.
    pub async fn gone(&self, name: &str) {
        let deadline = Instant::now() + DEADLINE;
        while let Some(pod) = self.pods().get_opt(name).await.unwrap() {
            assert!(
                Instant::now() < deadline,
                "{name} is still there: {:#?}",
                pod.status
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Deletes a pod.
    pub async fn delete(&self, name: &str, grace: u32) {
        self.pods()
            .delete(name, &DeleteParams::default().grace_period(grace))
            .await
            .unwrap();
    }

    /// Events of a pod, oldest first: reason and message.
    pub async fn reasons(&self, name: &str) -> Vec<(String, String)> {
        let events = self
            .objects::<Event>()
            .list(&ListParams::default())
            .await
            .unwrap();
        let mut own: Vec<_> = events
            .into_iter()
            .filter(|e| e.involved_object.name.as_deref() == Some(name))
            .collect();
        own.sort_by_key(|event| event.first_timestamp.clone());
        own.into_iter()
            .map(|e| (e.reason.unwrap_or_default(), e.message.unwrap_or_default()))
            .collect()
    }

    /// Waits until the pod has an event with this reason, and returns its message.
    pub async fn event(&self, name: &str, reason: &str) -> String {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let events = self.reasons(name).await;
            if let Some((_, message)) = events.iter().find(|(known, _)| known == reason) {
                return message.clone();
            }
            assert!(
                Instant::now() < deadline,
                "{name} has no event {reason}: {events:?}"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The log of a pod's container.
    pub async fn logs(&self, name: &str) -> String {
        self.pods().logs(name, &Default::default()).await.unwrap()
    }

    /// Waits until the node is ready.
    pub async fn node_ready(&self) -> Node {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let deadline = Instant::now() + DEADLINE;
        loop {
            let node = nodes.get_opt("node1").await.unwrap();
            let ready = |node: &Node| {
                let conditions = node
                    .status
                    .as_ref()
                    .and_then(|status| status.conditions.clone());
                conditions
                    .into_iter()
                    .flatten()
                    .any(|c| c.type_ == "Ready" && c.status == "True")
            };
            if let Some(node) = node.clone().filter(ready) {
                return node;
            }
            assert!(
                Instant::now() < deadline,
                "the node is not ready: {node:#?}"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Directories that pods' cgroups are in, one for each hierarchy that has them.
    pub fn cgroups(&self) -> Vec<PathBuf> {
        self.cgroups
            .directories()
            .into_iter()
            .map(|directory| directory.join("kubepods"))
            .collect()
    }
}

fn write_credentials(pki: &Pki, url: &str, root: &Path) {
    let write = |name: &str, text: &str| std::fs::write(root.join(name), text).unwrap();
    write(
        "kubeconfig",
        &pki.kubeconfig("system:node:node1", &["system:nodes"], url)
            .unwrap(),
    );
    let serving = pki
        .issue_serving("node1", &["127.0.0.1".into(), "node1".into()])
        .unwrap();
    write("tls.crt", &serving.cert_pem);
    write("tls.key", &serving.key_pem);
    let client = pki
        .issue_client("kube-apiserver-kubelet-client", &["system:masters"])
        .unwrap();
    write(
        "apiserver.pem",
        &format!("{}{}", client.cert_pem, client.key_pem),
    );
    let others = Pki::open_or_create(&root.join("others")).unwrap();
    let client = others
        .issue_client("kube-apiserver-kubelet-client", &["system:masters"])
        .unwrap();
    write(
        "stranger.pem",
        &format!("{}{}", client.cert_pem, client.key_pem),
    );
}

/// Whether the pod's condition is true.
pub fn has(pod: &Pod, condition: &str) -> bool {
    let conditions = pod
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref());
    conditions
        .into_iter()
        .flatten()
        .any(|known| known.type_ == condition && known.status == "True")
}

/// The pod's phase.
pub fn phase(pod: &Pod) -> &str {
    pod.status
        .as_ref()
        .and_then(|status| status.phase.as_deref())
        .unwrap_or_default()
}

/// A temporary directory that may have mounts in it.
struct Mounts(tempfile::TempDir);

impl Mounts {
    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Mounts {
    fn drop(&mut self) {
        unmount_below(self.path());
    }
}

/// A directory of the test's own in every cgroup hierarchy.
struct Cgroups(String);

impl Cgroups {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        Self(format!("/kubelet-test-{}-{number}", std::process::id()))
    }

    fn directories(&self) -> Vec<PathBuf> {
        let table = std::fs::read_to_string("/proc/self/mounts").unwrap();
        let mounts = table.lines().filter_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let (mount, kind) = (fields.next()?, fields.next()?);
            kind.starts_with("cgroup").then(|| PathBuf::from(mount))
        });
        mounts
            .map(|mount| mount.join(&self.0[1..]))
            .filter(|directory| directory.exists())
            .collect()
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while self
            .directories()
            .iter()
            .map(|directory| empty(directory))
            .sum::<usize>()
            > 0
        {
            if Instant::now() > deadline {
                eprintln!("processes are left in {}", self.0);
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Kills what runs in a cgroup and removes it; returns how many processes there were.
fn empty(directory: &Path) -> usize {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let children = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let below: usize = children.map(|entry| empty(&entry.path())).sum();
    let processes = std::fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
    let pids: Vec<i32> = processes
        .lines()
        .filter_map(|line| line.parse().ok())
        .collect();
    for pid in &pids {
        let _ = nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(*pid),
            nix::sys::signal::Signal::SIGKILL,
        );
    }
    let _ = std::fs::remove_dir(directory);
    below + pids.len()
}

/// Runs a test that also kills and restarts containerd.
pub fn run_mut(test: impl AsyncFnOnce(&mut World)) {
    namespace::enter();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async { test(&mut World::start().await).await });
}

/// Waits until `done`.
pub async fn eventually(what: &str, done: impl Fn() -> bool) {
    eventually_async(what, async || done()).await;
}

/// Waits until `done`.
pub async fn eventually_async(what: &str, done: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !done().await {
        assert!(Instant::now() < deadline, "not within {DEADLINE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
