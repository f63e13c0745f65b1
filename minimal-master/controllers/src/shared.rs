//! What all controllers share: the client, the caches and the event recorder.

use std::{fmt::Debug, sync::Arc};

use k8s_openapi::api::{
    apps::v1::{Deployment, ReplicaSet},
    coordination::v1::Lease,
    core::v1::{Endpoints, Namespace, Node, Pod, Service, ServiceAccount},
    discovery::v1::EndpointSlice,
};
use kube::{Api, Client, Resource, runtime::watcher};
use serde::de::DeserializeOwned;
use sluice_client::{Informer, events::Recorder, owner, pod};
use tokio_util::sync::CancellationToken;

use crate::Options;

/// Index of pods by node name.
pub const BY_NODE: &str = "node";
/// Index by namespace.
pub const BY_NAMESPACE: &str = "namespace";
/// Index by the uid of the controlling owner.
pub const BY_CONTROLLER: &str = "controller";
/// Index of EndpointSlices by `namespace/service`.
pub const BY_SERVICE: &str = "service";
/// The label that ties an EndpointSlice to its Service.
pub const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";
/// Where kubelets keep their heartbeats.
pub const NODE_LEASES: &str = "kube-node-lease";

/// See the module's documentation.
pub struct Shared {
    pub client: Client,
    pub options: Options,
    pub recorder: Recorder,
    pub deployments: Arc<Informer<Deployment>>,
    pub endpoints: Arc<Informer<Endpoints>>,
    pub leases: Arc<Informer<Lease>>,
    pub namespaces: Arc<Informer<Namespace>>,
    pub nodes: Arc<Informer<Node>>,
    pub pods: Arc<Informer<Pod>>,
    pub replicasets: Arc<Informer<ReplicaSet>>,
    pub service_accounts: Arc<Informer<ServiceAccount>>,
    pub services: Arc<Informer<Service>>,
    pub slices: Arc<Informer<EndpointSlice>>,
}

impl Shared {
    /// Empty caches; controllers add their handlers before [`Shared::start`].
    pub fn new(client: Client, options: Options, stop: &CancellationToken) -> Arc<Self> {
        let recorder = Recorder::start(client.clone(), "controller-manager", stop.clone());
        Arc::new(Self {
            client,
            options,
            recorder,
            deployments: Arc::new(Informer::new().with_index(BY_NAMESPACE, namespace_of)),
            endpoints: Arc::default(),
            leases: Arc::default(),
            namespaces: Arc::default(),
            nodes: Arc::default(),
            pods: Arc::new(
                Informer::new()
                    .with_index(BY_NAMESPACE, namespace_of)
                    .with_index(BY_CONTROLLER, controller_of)
                    .with_index(BY_NODE, |p: &Pod| {
                        pod::node_name(p).map(Into::into).into_iter().collect()
                    }),
            ),
            replicasets: Arc::new(
                Informer::new()
                    .with_index(BY_NAMESPACE, namespace_of)
                    .with_index(BY_CONTROLLER, controller_of),
            ),
            service_accounts: Arc::default(),
            services: Arc::new(Informer::new().with_index(BY_NAMESPACE, namespace_of)),
            slices: Arc::new(Informer::new().with_index(BY_SERVICE, service_of)),
        })
    }

    /// Starts all watches.
    pub fn start(&self, stop: &CancellationToken) {
        self.watch(&self.deployments, stop);
        self.watch(&self.endpoints, stop);
        self.watch(&self.namespaces, stop);
        self.watch(&self.nodes, stop);
        self.watch(&self.pods, stop);
        self.watch(&self.replicasets, stop);
        self.watch(&self.service_accounts, stop);
        self.watch(&self.services, stop);
        self.watch(&self.slices, stop);
        let leases = Api::namespaced(self.client.clone(), NODE_LEASES);
        let config = watcher::Config::default();
        tokio::spawn(self.leases.clone().run(leases, config, stop.clone()));
    }

    fn watch<K>(&self, informer: &Arc<Informer<K>>, stop: &CancellationToken)
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    {
        let api = Api::all(self.client.clone());
        tokio::spawn(
            informer
                .clone()
                .run(api, watcher::Config::default(), stop.clone()),
        );
    }
}

fn namespace_of<K: Resource>(object: &K) -> Vec<String> {
    object.meta().namespace.clone().into_iter().collect()
}

fn controller_of<K: Resource>(object: &K) -> Vec<String> {
    let uid = owner::controller_uid(object.meta());
    uid.map(Into::into).into_iter().collect()
}

fn service_of(slice: &EndpointSlice) -> Vec<String> {
    let service = slice
        .metadata
        .labels
        .as_ref()
        .and_then(|l| l.get(SERVICE_NAME_LABEL));
    let namespace = slice.metadata.namespace.as_deref().unwrap_or_default();
    service
        .map(|name| format!("{namespace}/{name}"))
        .into_iter()
        .collect()
}
