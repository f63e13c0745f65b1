//! Puts the parts together: one runtime, one client, one manager of pods, and the loops around them.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cgroups::Cgroups;
use crate::cri::Runtime;
use crate::events::{ApiSink, Recorder};
use crate::logs;
use crate::metrics::Metrics;
use crate::node::{self, Identity, Registrar};
use crate::objects::KubeObjects;
use crate::pods::api::KubePodApi;
use crate::pods::fields::Placement;
use crate::pods::host::Host;
use crate::pods::manager::Manager;
use crate::pods::relist::{self, Relisted};
use crate::pods::sandbox::NodeDns;
use crate::pods::source;
use crate::server::{self, Authorizer, State};
use crate::volumes::PodDirs;

/// Everything that a kubelet is configured with, checked and with defaults filled in.
pub struct Options {
    /// Client of the API server.
    pub client: kube::Client,
    /// The container runtime.
    pub runtime: Arc<dyn Runtime>,
    /// The node.
    pub identity: Identity,
    /// Where the kubelet keeps its state.
    pub root_dir: PathBuf,
    /// Directory of pods' logs.
    pub logs: PathBuf,
    /// When logs are rotated.
    pub log_limits: logs::Limits,
    /// Pods' cgroups.
    pub cgroups: Cgroups,
    /// Resolver configuration for pods.
    pub dns: NodeDns,
    /// How the Node is kept.
    pub node: node::Settings,
    /// How the Lease is kept.
    pub lease: node::LeaseSettings,
    /// The authenticated server.
    pub secure: (TcpListener, rustls::ServerConfig),
    /// The read-only server.
    pub read_only: Option<TcpListener>,
}

/// Name under which container ids carry their runtime when it does not answer at the start.
const RUNTIME: &str = "containerd";

/// Runs a kubelet until `stop`. Pods are left as they are.
pub async fn run(options: Options, stop: CancellationToken) {
    let Options {
        client,
        runtime,
        identity,
        ..
    } = options;
    let runtime_name = runtime.version().await.map(|version| version.runtime_name);
    let identity = Arc::new(identity);
    let manager_cell: Arc<OnceLock<Arc<Manager>>> = Arc::default();
    let for_objects = Arc::clone(&manager_cell);
    let on_change = move |uids: &HashSet<String>| {
        if let Some(manager) = for_objects.get() {
            manager.objects_changed(uids);
        }
    };
    let host = Arc::new(Host {
        runtime: Arc::clone(&runtime),
        objects: KubeObjects::start(client.clone(), Arc::new(on_change), stop.clone()),
        api: Arc::new(KubePodApi::new(client.clone())),
        recorder: Recorder::new(ApiSink::start(client.clone(), &identity.name)),
        dirs: PodDirs::new(&options.root_dir),
        logs: options.logs,
        cgroups: Some(options.cgroups),
        dns: options.dns,
        placement: Placement {
            node_name: identity.name.clone(),
            host_ips: identity.ips.clone(),
            pod_ips: Vec::new(),
            allocatable: identity.allocatable(),
        },
        memory_capacity: identity.machine.memory,
        runtime_name: runtime_name.unwrap_or_else(|_| RUNTIME.into()),
        metrics: Arc::new(Metrics::new(&identity.name)),
    });
    let manager = Manager::new(host, stop.clone());
    let _ = manager_cell.set(Arc::clone(&manager));
    let relisted = Arc::new(Relisted::default());
    let state = Arc::new(State {
        manager: Arc::clone(&manager),
        relisted: Arc::clone(&relisted),
        node_name: identity.name.clone(),
    });

    let tasks = TaskTracker::new();
    let (reconnected, reconnects) = watch::channel(0);
    tasks.spawn(node::renew(
        client.clone(),
        options.lease,
        reconnected,
        stop.clone(),
    ));
    tasks.spawn(relist::run(
        Arc::clone(&manager),
        Arc::clone(&relisted),
        stop.clone(),
    ));
    let registrar = Registrar::new(
        client.clone(),
        Arc::clone(&runtime),
        relisted,
        Arc::clone(&identity),
        options.node,
    );
    tasks.spawn(registrar.run(stop.clone()));
    tasks.spawn(logs::rotate(runtime, options.log_limits, stop.clone()));
    let authorizer = Arc::new(Authorizer::new(client.clone(), &identity.name));
    let (listener, tls) = options.secure;
    tasks.spawn(server::serve_tls(
        listener,
        tls,
        authorizer,
        Arc::clone(&state),
        stop.clone(),
    ));
    if let Some(listener) = options.read_only {
        tasks.spawn(server::serve_read_only(listener, state, stop.clone()));
    }
    let name = identity.name.clone();
    tasks.spawn(async move { source::run(client, &name, manager, reconnects, stop).await });
    tasks.close();
    tasks.wait().await;
}

/// Opens a listener.
///
/// # Errors
/// Names the address.
pub async fn listen(address: SocketAddr) -> Result<TcpListener, String> {
    TcpListener::bind(address)
        .await
        .map_err(|error| format!("cannot listen on {address}: {error}"))
}
