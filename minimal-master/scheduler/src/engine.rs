//! The scheduler as a state machine: changes of the cluster in, decisions out. No network, no clock.

use std::{collections::HashMap, sync::Arc};

use tokio::time::Instant;

use crate::{
    cluster::Cluster,
    fit_error::{self, FitError, Hints},
    node::NodeSpec,
    pod::PodInfo,
    queue::{Attempt, Queue},
    select::Selector,
};

/// What the engine decided about one pod.
#[derive(Debug)]
pub enum Decision {
    /// Bind the pod; report with [`Engine::bind_failed`] if that fails.
    Bind {
        /// The pod.
        pod: Arc<PodInfo>,
        /// The node's name.
        node: String,
    },
    /// The pod fits nowhere and waits.
    Unschedulable {
        /// The pod.
        pod: Arc<PodInfo>,
        /// Why.
        error: FitError,
    },
}

/// See the module's documentation.
pub struct Engine {
    cluster: Cluster,
    queue: Queue,
    selector: Selector,
    /// Attempts whose binding is under way, by uid.
    binding: HashMap<String, Attempt>,
}

impl Engine {
    /// Equal seeds and equal histories give equal decisions.
    pub fn new(seed: u64) -> Self {
        Self {
            cluster: Cluster::default(),
            queue: Queue::default(),
            selector: Selector::new(seed),
            binding: HashMap::new(),
        }
    }

    /// The picture of the cluster.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// For changes that concern no pod's place: namespaces and Services.
    pub fn set_namespace(
        &mut self,
        name: &str,
        labels: Option<sluice_client::labels::Labels>,
        now: Instant,
    ) {
        self.cluster.set_namespace(name, labels);
        self.queue.wake(fit_error::PODS, now);
    }

    /// A Service's selector, `None` when it is gone.
    pub fn set_service(
        &mut self,
        namespace: &str,
        name: &str,
        selector: Option<sluice_client::labels::Labels>,
    ) {
        self.cluster.set_service(namespace, name, selector);
    }

    /// A pod without a node is there, or changed.
    pub fn pending(&mut self, pod: Arc<PodInfo>, now: Instant) {
        if let Some(attempt) = self.binding.get_mut(&pod.uid) {
            // Kept for the case that the binding fails.
            attempt.pod = pod;
        } else if !self.cluster.is_assumed(&pod.uid) {
            self.queue.add(pod, now);
        }
    }

    /// A pod is bound, by us or by somebody else, or changed.
    pub fn bound(&mut self, pod: Arc<PodInfo>, node: &str, now: Instant) {
        self.queue.remove(&pod.uid);
        self.binding.remove(&pod.uid);
        self.cluster.confirm(pod, node);
        self.queue.wake(fit_error::PODS, now);
    }

    /// A pod is gone or terminal: it takes nothing any more.
    pub fn gone(&mut self, uid: &str, now: Instant) {
        self.queue.remove(uid);
        self.binding.remove(uid);
        if self.cluster.remove_pod(uid).is_some() {
            self.queue.wake(freed(), now);
        }
    }

    /// A node is there, or changed.
    pub fn node(&mut self, name: &str, spec: NodeSpec, now: Instant) {
        let new = spec.clone();
        let change = match self.cluster.set_node(name, spec) {
            None => fit_error::ANY,
            Some(old) => difference(&old, &new),
        };
        if change != 0 {
            self.queue.wake(change, now);
        }
    }

    /// A node is gone.
    pub fn node_gone(&mut self, name: &str, now: Instant) {
        self.cluster.remove_node(name);
        // One domain less may make a spread constraint satisfiable.
        self.queue.wake(fit_error::PODS, now);
    }

    /// Decides about the next pod, if one is ready.
    pub fn step(&mut self, now: Instant) -> Option<Decision> {
        let attempt = self.queue.pop(now)?;
        let pod = attempt.pod.clone();
        match self.selector.select(&self.cluster, &pod) {
            Ok(slot) => {
                let node = self.cluster.at(slot).name.clone();
                self.cluster.assume(pod.clone(), &node);
                self.binding.insert(pod.uid.clone(), attempt);
                Some(Decision::Bind { pod, node })
            }
            Err(error) => {
                let hints = if error.nodes == 0 {
                    fit_error::ANY
                } else {
                    error.hints()
                };
                self.queue.park(attempt, hints, now);
                Some(Decision::Unschedulable { pod, error })
            }
        }
    }

    /// The server took the binding; the watch will confirm it.
    pub fn bind_done(&mut self, uid: &str) {
        self.binding.remove(uid);
    }

    /// The binding did not happen: the node's share is given back and the pod tried again later.
    pub fn bind_failed(&mut self, uid: &str, now: Instant) {
        let Some(attempt) = self.binding.remove(uid) else {
            return;
        };
        if self.cluster.is_assumed(uid) {
            self.cluster.remove_pod(uid);
            self.queue.retry(attempt, now);
            self.queue.wake(freed(), now);
        }
    }

    /// When the engine next has something to do by itself.
    pub fn wake_at(&self, now: Instant) -> Option<Instant> {
        if self.queue.has_ready() {
            return Some(now);
        }
        self.queue.wake_at()
    }

    /// Pods that wait.
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }
}

fn freed() -> Hints {
    fit_error::RESOURCES | fit_error::PORTS | fit_error::PODS
}

fn difference(old: &NodeSpec, new: &NodeSpec) -> Hints {
    let changed = |differs: bool, hints: Hints| if differs { hints } else { 0 };
    let capacity = old.allocatable != new.allocatable || old.max_pods != new.max_pods;
    changed(capacity, fit_error::RESOURCES)
        | changed(old.labels != new.labels, fit_error::NODE | fit_error::PODS)
        | changed(old.unschedulable != new.unschedulable, fit_error::NODE)
        | changed(old.taints != new.taints, fit_error::TAINTS)
}
