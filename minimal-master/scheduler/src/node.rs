//! A node as the scheduler sees it, with what its pods take kept incrementally.

use std::{collections::HashMap, sync::Arc};

use k8s_openapi::api::core::v1::{Node, Taint};
use sluice_client::{
    labels::Labels,
    quantity::{self, QuantityError},
};

use crate::{
    pod::{HostPort, PodInfo},
    resources::{Load, Resources},
};

/// What the Node object says; replaced as a whole when it changes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeSpec {
    /// The node's labels.
    pub labels: Labels,
    /// The node's taints.
    pub taints: Vec<Taint>,
    /// `spec.unschedulable`.
    pub unschedulable: bool,
    /// What pods may request in total.
    pub allocatable: Resources,
    /// How many pods the node takes.
    pub max_pods: i64,
}

impl NodeSpec {
    /// Reads a node. Fails when a quantity can't be read.
    pub fn new(node: &Node) -> Result<Self, QuantityError> {
        let spec = node.spec.as_ref();
        let allocatable = node.status.as_ref().and_then(|s| s.allocatable.as_ref());
        let max_pods = allocatable.and_then(|a| a.get("pods"));
        Ok(Self {
            labels: node.metadata.labels.clone().unwrap_or_default(),
            taints: spec.and_then(|s| s.taints.clone()).unwrap_or_default(),
            unschedulable: spec.and_then(|s| s.unschedulable).unwrap_or(false),
            allocatable: Resources::from_quantities(allocatable)?,
            max_pods: max_pods.map_or(Ok(0), quantity::value)?,
        })
    }

    /// The zone, by the well-known label.
    pub fn zone(&self) -> Option<&str> {
        let zone = self.labels.get("topology.kubernetes.io/zone")?;
        Some(zone.as_str())
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub struct NodeInfo {
    /// `metadata.name`.
    pub name: String,
    /// `None` while pods name the node but the Node object isn't known (yet, or any more).
    pub spec: Option<NodeSpec>,
    /// The sum of its pods' requests.
    pub requested: Resources,
    /// The sum of its pods' loads.
    pub load: Load,
    /// Its pods by uid, bound and assumed.
    pub pods: HashMap<String, Arc<PodInfo>>,
    ports: Vec<HostPort>,
    owners: HashMap<String, u32>,
}

impl NodeInfo {
    /// A node without pods.
    pub fn new(name: String, spec: Option<NodeSpec>) -> Self {
        Self {
            name,
            spec,
            requested: Resources::default(),
            load: Load::default(),
            pods: HashMap::new(),
            ports: Vec::new(),
            owners: HashMap::new(),
        }
    }

    /// Puts a pod on the node.
    pub fn add(&mut self, pod: Arc<PodInfo>) {
        self.requested.add(&pod.requests);
        self.load.milli_cpu += pod.load.milli_cpu;
        self.load.memory += pod.load.memory;
        self.ports.extend(pod.host_ports.iter().cloned());
        if let Some(owner) = &pod.owner {
            *self.owners.entry(owner.clone()).or_insert(0) += 1;
        }
        if let Some(replaced) = self.pods.insert(pod.uid.clone(), pod) {
            self.give_back(&replaced);
        }
    }

    /// Takes a pod off the node.
    pub fn remove(&mut self, uid: &str) -> Option<Arc<PodInfo>> {
        let pod = self.pods.remove(uid)?;
        self.give_back(&pod);
        Some(pod)
    }

    fn give_back(&mut self, pod: &PodInfo) {
        self.requested.subtract(&pod.requests);
        self.load.milli_cpu -= pod.load.milli_cpu;
        self.load.memory -= pod.load.memory;
        for port in &pod.host_ports {
            if let Some(at) = self.ports.iter().position(|p| p == port) {
                self.ports.swap_remove(at);
            }
        }
        if let Some(owner) = &pod.owner
            && let Some(count) = self.owners.get_mut(owner)
        {
            *count -= 1;
            if *count == 0 {
                self.owners.remove(owner);
            }
        }
    }

    /// How many pods of this owner are on the node.
    pub fn count_of(&self, owner: &str) -> u32 {
        self.owners.get(owner).copied().unwrap_or(0)
    }

    /// Whether a pod on the node has a conflicting host port.
    pub fn has_conflict(&self, port: &HostPort) -> bool {
        self.ports.iter().any(|taken| taken.conflicts(port))
    }
}
