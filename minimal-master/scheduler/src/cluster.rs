//! The scheduler's picture of the cluster: nodes, the pods on them, Services and namespaces.

use std::{collections::HashMap, sync::Arc};

use sluice_client::labels::{self, Labels};

use crate::{
    node::{NodeInfo, NodeSpec},
    pod::{PodInfo, PodTerm, selects},
};

struct Placed {
    pod: Arc<PodInfo>,
    node: String,
    /// Decided here, but the server hasn't confirmed it yet.
    assumed: bool,
}

/// See the module's documentation.
#[derive(Default)]
pub struct Cluster {
    nodes: Vec<NodeInfo>,
    slots: HashMap<String, usize>,
    placed: HashMap<String, Placed>,
    /// Pods on nodes that have required anti-affinity: they restrict every other pod.
    repelling: HashMap<String, Arc<PodInfo>>,
    namespaces: HashMap<String, Labels>,
    /// Selectors of Services, by namespace and Service name.
    services: HashMap<String, HashMap<String, Labels>>,
}

impl Cluster {
    /// All nodes whose Node object is known, with their position.
    pub fn nodes(&self) -> impl Iterator<Item = (usize, &NodeInfo, &NodeSpec)> {
        let known = |(at, node): (usize, &'_ NodeInfo)| node.spec.is_some().then_some(at);
        let positions = self.nodes.iter().enumerate().filter_map(known);
        positions.filter_map(|at| Some((at, &self.nodes[at], self.nodes[at].spec.as_ref()?)))
    }

    /// How many nodes there are whose Node object is known.
    pub fn node_count(&self) -> usize {
        self.nodes().count()
    }

    /// Positions of nodes, known or not: for walking in a circle.
    pub fn slots(&self) -> usize {
        self.nodes.len()
    }

    /// The node at a position.
    pub fn at(&self, slot: usize) -> &NodeInfo {
        &self.nodes[slot]
    }

    /// A node by name.
    pub fn node(&self, name: &str) -> Option<&NodeInfo> {
        self.slots.get(name).map(|slot| &self.nodes[*slot])
    }

    /// Pods on nodes with required anti-affinity, and the node each is on.
    pub fn repelling(&self) -> impl Iterator<Item = (&Arc<PodInfo>, &NodeInfo)> {
        self.repelling.values().filter_map(|pod| {
            let placed = self.placed.get(&pod.uid)?;
            Some((pod, self.node(&placed.node)?))
        })
    }

    /// Takes in a new or changed node; returns what it was before.
    pub fn set_node(&mut self, name: &str, spec: NodeSpec) -> Option<NodeSpec> {
        let slot = self.slot(name);
        self.nodes[slot].spec.replace(spec)
    }

    /// Takes in that a node is gone. Its pods stay known until they are deleted.
    pub fn remove_node(&mut self, name: &str) {
        if let Some(slot) = self.slots.get(name).copied() {
            self.nodes[slot].spec = None;
            self.drop_if_unused(slot);
        }
    }

    /// Counts a decided pod on its node before the server confirms it.
    pub fn assume(&mut self, pod: Arc<PodInfo>, node: &str) {
        self.place(pod, node, true);
    }

    /// Takes in a pod that the server says is bound.
    pub fn confirm(&mut self, pod: Arc<PodInfo>, node: &str) {
        self.place(pod, node, false);
    }

    /// Whether the pod is decided but not confirmed.
    pub fn is_assumed(&self, uid: &str) -> bool {
        self.placed.get(uid).is_some_and(|placed| placed.assumed)
    }

    /// The node that a pod is on, assumed or confirmed.
    pub fn node_of(&self, uid: &str) -> Option<&str> {
        self.placed.get(uid).map(|placed| placed.node.as_str())
    }

    /// Takes a pod off its node: deleted, terminal, or its binding failed.
    pub fn remove_pod(&mut self, uid: &str) -> Option<Arc<PodInfo>> {
        let placed = self.placed.remove(uid)?;
        self.repelling.remove(uid);
        if let Some(slot) = self.slots.get(&placed.node).copied() {
            self.nodes[slot].remove(uid);
            self.drop_if_unused(slot);
        }
        Some(placed.pod)
    }

    /// Takes in a namespace's labels; `None` when it is gone.
    pub fn set_namespace(&mut self, name: &str, labels: Option<Labels>) {
        match labels {
            Some(labels) => self.namespaces.insert(name.to_owned(), labels),
            None => self.namespaces.remove(name),
        };
    }

    /// Takes in a Service's selector; `None` when it is gone or selects nothing.
    pub fn set_service(&mut self, namespace: &str, name: &str, selector: Option<Labels>) {
        let services = self.services.entry(namespace.to_owned()).or_default();
        match selector {
            Some(selector) => services.insert(name.to_owned(), selector),
            None => services.remove(name),
        };
    }

    /// The selectors of the Services that select this pod.
    pub fn services_of<'a>(&'a self, pod: &'a PodInfo) -> impl Iterator<Item = &'a Labels> {
        let services = self.services.get(&pod.key.namespace).into_iter().flatten();
        services
            .map(|(_, selector)| selector)
            .filter(|selector| labels::matches_map(selector, &pod.labels))
    }

    /// Whether a term of some pod means this pod.
    pub fn term_matches(&self, term: &PodTerm, pod: &PodInfo) -> bool {
        self.term_covers_namespace(term, &pod.key.namespace)
            && selects(term.selector.as_ref(), &pod.labels)
    }

    fn term_covers_namespace(&self, term: &PodTerm, namespace: &str) -> bool {
        if term.namespaces.iter().any(|name| name == namespace) {
            return true;
        }
        let Some(selector) = &term.namespace_selector else {
            return false;
        };
        let none = Labels::new();
        let labels = self.namespaces.get(namespace).unwrap_or(&none);
        labels::matches(selector, labels)
    }

    fn place(&mut self, pod: Arc<PodInfo>, node: &str, assumed: bool) {
        self.remove_pod(&pod.uid);
        let slot = self.slot(node);
        self.nodes[slot].add(pod.clone());
        if !pod.anti_affinity.is_empty() {
            self.repelling.insert(pod.uid.clone(), pod.clone());
        }
        let node = node.to_owned();
        self.placed
            .insert(pod.uid.clone(), Placed { pod, node, assumed });
    }

    fn slot(&mut self, name: &str) -> usize {
        if let Some(slot) = self.slots.get(name) {
            return *slot;
        }
        self.nodes.push(NodeInfo::new(name.to_owned(), None));
        self.slots.insert(name.to_owned(), self.nodes.len() - 1);
        self.nodes.len() - 1
    }

    fn drop_if_unused(&mut self, slot: usize) {
        let node = &self.nodes[slot];
        if node.spec.is_some() || !node.pods.is_empty() {
            return;
        }
        let removed = self.nodes.swap_remove(slot);
        self.slots.remove(&removed.name);
        if let Some(moved) = self.nodes.get(slot) {
            self.slots.insert(moved.name.clone(), slot);
        }
    }
}
