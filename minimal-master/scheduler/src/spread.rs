//! Topology spread constraints (KEP-895): matching pods over domains, and the skew between them.

use std::collections::HashMap;

use crate::{
    cluster::Cluster,
    filter,
    fit_error::Rejection,
    node::{NodeInfo, NodeSpec},
    pod::{PodInfo, Spread, selects},
};

/// Matching pods per domain of each hard constraint, for one decision.
pub struct SpreadState<'a> {
    hard: Vec<(&'a Spread, Counts<'a>)>,
    pod: &'a PodInfo,
}

type Counts<'a> = HashMap<&'a str, i64>;

impl<'a> SpreadState<'a> {
    /// Counts for one pod.
    pub fn new(cluster: &'a Cluster, pod: &'a PodInfo) -> Self {
        let all: Vec<&Spread> = pod.spread.iter().filter(|c| c.hard).collect();
        let hard = all
            .iter()
            .map(|constraint| (*constraint, count(cluster, pod, constraint, &all)))
            .collect();
        Self { hard, pod }
    }

    /// Why the node is no good, if so.
    pub fn check(&self, node: &NodeSpec) -> Option<Rejection> {
        self.hard
            .iter()
            .find_map(|(constraint, counts)| self.check_one(constraint, counts, node))
    }

    fn check_one(
        &self,
        constraint: &Spread,
        counts: &Counts,
        node: &NodeSpec,
    ) -> Option<Rejection> {
        let Some(domain) = node.labels.get(&constraint.topology_key) else {
            return Some(Rejection::SpreadLabel);
        };
        let own = i64::from(selects(constraint.selector.as_ref(), &self.pod.labels));
        let here = counts.get(domain.as_str()).copied().unwrap_or(0);
        let skew = here + own - emptiest(constraint, counts);
        (skew > constraint.max_skew).then_some(Rejection::Spread)
    }
}

fn emptiest(constraint: &Spread, counts: &Counts) -> i64 {
    let domains = i64::try_from(counts.len()).unwrap_or(i64::MAX);
    if constraint.min_domains.is_some_and(|min| domains < min) {
        return 0;
    }
    counts.values().copied().min().unwrap_or(0)
}

fn count<'a>(
    cluster: &'a Cluster,
    pod: &PodInfo,
    constraint: &Spread,
    all: &[&Spread],
) -> Counts<'a> {
    let mut counts = Counts::new();
    for (_, node, spec) in cluster.nodes() {
        // Only nodes with every constraint's label are domains, as upstream has it.
        if !all
            .iter()
            .all(|c| spec.labels.contains_key(&c.topology_key))
            || !eligible(pod, constraint, node, spec)
        {
            continue;
        }
        if let Some(domain) = spec.labels.get(&constraint.topology_key) {
            *counts.entry(domain.as_str()).or_insert(0) += matching(node, pod, constraint);
        }
    }
    counts
}

fn eligible(pod: &PodInfo, constraint: &Spread, node: &NodeInfo, spec: &NodeSpec) -> bool {
    (!constraint.honor_affinity || filter::node_affinity(pod, node, spec).is_none())
        && (!constraint.honor_taints || filter::taints(pod, spec).is_none())
}

fn matching(node: &NodeInfo, pod: &PodInfo, constraint: &Spread) -> i64 {
    let counted = node.pods.values().filter(|other| {
        other.key.namespace == pod.key.namespace
            && selects(constraint.selector.as_ref(), &other.labels)
    });
    i64::try_from(counted.count()).unwrap_or(i64::MAX)
}

/// For `ScheduleAnyway`: matching pods in the domains of each of the given nodes; fewer is better.
pub fn crowding(cluster: &Cluster, pod: &PodInfo, slots: &[usize]) -> Vec<i64> {
    let soft: Vec<&Spread> = pod.spread.iter().filter(|c| !c.hard).collect();
    let mut sums = vec![0i64; slots.len()];
    for constraint in &soft {
        let counts = count(cluster, pod, constraint, &soft);
        let fullest = counts.values().copied().max().unwrap_or(0);
        for (sum, slot) in sums.iter_mut().zip(slots) {
            let spec = cluster.at(*slot).spec.as_ref();
            let domain = spec.and_then(|spec| spec.labels.get(&constraint.topology_key));
            // A node outside every domain is as bad as the fullest one.
            *sum += domain
                .and_then(|domain| counts.get(domain.as_str()).copied())
                .unwrap_or(fullest);
        }
    }
    sums
}
