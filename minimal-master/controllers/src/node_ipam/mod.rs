//! Gives every node its own pod CIDRs, one of each family, and takes them back when the node is gone.

mod cidr_set;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use ipnetwork::IpNetwork;
use k8s_openapi::api::core::v1::Node;
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::json;
use sluice_client::{
    Key, WorkQueue, events, ignore_not_found,
    worker::{self, Outcome},
};
use tokio_util::sync::CancellationToken;

use crate::{Options, shared::Shared};
use cidr_set::CidrSet;

/// How long to wait before a node without a free CIDR is looked at again.
const EXHAUSTED_RETRY: Duration = Duration::from_secs(30);

struct Allocator {
    sets: Vec<CidrSet>,
    by_node: HashMap<String, Vec<IpNetwork>>,
}

/// Runs until cancelled; ends at once when no cluster CIDR is configured.
pub async fn run(shared: Arc<Shared>, stop: CancellationToken) {
    let sets = match sets(&shared.options) {
        Ok(sets) if sets.is_empty() => return,
        Ok(sets) => sets,
        Err(error) => {
            tracing::error!(%error, "no pod CIDRs are handed out");
            return;
        }
    };
    let allocator = Mutex::new(Allocator {
        sets,
        by_node: HashMap::new(),
    });
    let queue = Arc::new(WorkQueue::new());
    let wake = queue.clone();
    shared
        .nodes
        .on_change(move |change| wake.add(Key::of(&**change.latest())));
    shared.nodes.synced().await;
    // What nodes have already is taken before anything is handed out.
    for node in shared.nodes.list() {
        lock(&allocator).occupy(&node);
    }
    // One worker: what is handed out depends on all nodes.
    let run = |key| reconcile(&shared, &allocator, key);
    worker::run("node-ipam", queue, 1, stop, run).await;
}

fn sets(options: &Options) -> Result<Vec<CidrSet>, cidr_set::CidrError> {
    let prefix = |cidr: &IpNetwork| match cidr {
        IpNetwork::V4(_) => options.node_cidr_mask_size_ipv4,
        IpNetwork::V6(_) => options.node_cidr_mask_size_ipv6,
    };
    let cidrs = options.cluster_cidrs.iter();
    cidrs
        .map(|cidr| CidrSet::new(*cidr, prefix(cidr)))
        .collect()
}

fn lock(allocator: &Mutex<Allocator>) -> MutexGuard<'_, Allocator> {
    allocator.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn reconcile(
    shared: &Shared,
    allocator: &Mutex<Allocator>,
    key: Key,
) -> kube::Result<Outcome> {
    let Some(node) = shared.nodes.get(&key) else {
        lock(allocator).free(&key.name);
        return Ok(Outcome::Done);
    };
    if !pod_cidrs(&node).is_empty() {
        lock(allocator).occupy(&node);
        return Ok(Outcome::Done);
    }
    let Some(cidrs) = lock(allocator).allocate(&key.name) else {
        let message = format!("Node {} status is now: CIDRNotAvailable", key.name);
        let about = events::reference(&*node);
        shared
            .recorder
            .record(about, events::WARNING, "CIDRNotAvailable", message);
        return Ok(Outcome::After(EXHAUSTED_RETRY));
    };
    let texts: Vec<String> = cidrs.iter().map(ToString::to_string).collect();
    let patch = json!({
        // The uid: a node of the same name that was made anew is another node.
        "metadata": {"uid": node.metadata.uid},
        "spec": {"podCIDR": texts[0], "podCIDRs": texts},
    });
    let api: Api<Node> = Api::all(shared.client.clone());
    let patched = api
        .patch(
            &key.name,
            &PatchParams::default(),
            &Patch::Strategic(&patch),
        )
        .await;
    // On failure the CIDRs stay with the node's name: the write may have happened after all.
    ignore_not_found(patched)?;
    tracing::info!(node = %key.name, cidrs = ?texts, "pod CIDRs assigned");
    Ok(Outcome::Done)
}

fn pod_cidrs(node: &Node) -> Vec<IpNetwork> {
    let Some(spec) = &node.spec else {
        return Vec::new();
    };
    let many = spec.pod_cidrs.iter().flatten();
    let one = spec.pod_cidr.iter().filter(|_| spec.pod_cidrs.is_none());
    many.chain(one)
        .filter_map(|text| text.parse().ok())
        .collect()
}

impl Allocator {
    /// Takes what the node has; what it was given before and doesn't have goes back.
    fn occupy(&mut self, node: &Node) {
        let (name, cidrs) = (node.name_any(), pod_cidrs(node));
        if cidrs.is_empty() || self.by_node.get(&name) == Some(&cidrs) {
            return;
        }
        self.free(&name);
        for cidr in &cidrs {
            if !self.sets.iter_mut().any(|set| set.occupy(*cidr)) {
                tracing::warn!(node = %name, %cidr, "pod CIDR is outside of the cluster's or taken by another node");
            }
        }
        self.by_node.insert(name, cidrs);
    }

    /// One CIDR of each family, or none at all; the same ones when asked again.
    fn allocate(&mut self, name: &str) -> Option<Vec<IpNetwork>> {
        if let Some(known) = self.by_node.get(name) {
            return Some(known.clone());
        }
        let mut cidrs = Vec::new();
        for at in 0..self.sets.len() {
            match self.sets[at].allocate() {
                Some(cidr) => cidrs.push(cidr),
                None => {
                    self.give_back(&cidrs);
                    return None;
                }
            }
        }
        self.by_node.insert(name.to_owned(), cidrs.clone());
        Some(cidrs)
    }

    fn free(&mut self, name: &str) {
        if let Some(cidrs) = self.by_node.remove(name) {
            self.give_back(&cidrs);
        }
    }

    fn give_back(&mut self, cidrs: &[IpNetwork]) {
        // Two nodes that were both told the same CIDR by somebody else: it stays taken for the other.
        let shared = |cidr: &IpNetwork| self.by_node.values().any(|others| others.contains(cidr));
        let free: Vec<IpNetwork> = cidrs.iter().filter(|cidr| !shared(cidr)).copied().collect();
        for cidr in free {
            self.sets.iter_mut().for_each(|set| set.free(cidr));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashSet};

    use proptest::prelude::*;

    use super::*;

    fn allocator() -> Allocator {
        let options = Options {
            cluster_cidrs: vec![
                "10.244.0.0/20".parse().unwrap(),
                "fd00:10:244::/56".parse().unwrap(),
            ],
            ..Options::default()
        };
        Allocator {
            sets: sets(&options).unwrap(),
            by_node: HashMap::new(),
        }
    }

    fn node(name: &str, cidrs: &[&str]) -> Node {
        serde_json::from_value(json!({"metadata": {"name": name}, "spec": {"podCIDRs": cidrs}}))
            .unwrap()
    }

    #[test]
    fn a_cidr_that_a_node_has_already_is_not_given_to_another() {
        let mut allocator = allocator();
        allocator.occupy(&node("old", &["10.244.0.0/24", "fd00:10:244::/64"]));
        let cidrs = allocator.allocate("new").unwrap();
        assert_eq!(cidrs[0].to_string(), "10.244.1.0/24");
        assert_eq!(cidrs[1].to_string(), "fd00:10:244:1::/64");
        assert_eq!(allocator.allocate("new").unwrap(), cidrs);
    }

    #[test]
    fn when_one_family_is_exhausted_nothing_of_the_other_is_lost() {
        let mut allocator = allocator();
        (0..16).for_each(|i| assert!(allocator.allocate(&format!("n{i}")).is_some()));
        assert!(allocator.allocate("late").is_none());
        allocator.free("n3");
        let cidrs = allocator.allocate("late").unwrap();
        assert_eq!(cidrs[0].to_string(), "10.244.3.0/24");
    }

    proptest! {
        #[test]
        fn no_two_nodes_ever_hold_one_cidr(steps in proptest::collection::vec((any::<bool>(), 0u8..24), 1..200)) {
            let mut allocator = allocator();
            let mut model: BTreeMap<u8, Vec<IpNetwork>> = BTreeMap::new();
            for (add, which) in steps {
                let name = format!("n{which}");
                if add {
                    match allocator.allocate(&name) {
                        Some(cidrs) => { model.insert(which, cidrs); }
                        None => prop_assert_eq!(model.len(), 16),
                    }
                } else {
                    allocator.free(&name);
                    model.remove(&which);
                }
                let held: Vec<_> = model.values().flatten().collect();
                let distinct: HashSet<_> = held.iter().collect();
                prop_assert_eq!(held.len(), distinct.len());
            }
        }
    }
}
