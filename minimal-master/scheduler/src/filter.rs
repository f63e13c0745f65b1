//! Filters: may this pod run on this node? In upstream's order; the first that says no ends the question.

use sluice_client::taints::{self, NO_EXECUTE, NO_SCHEDULE};

use crate::{
    cluster::Cluster,
    fit_error::Rejection,
    node::{NodeInfo, NodeSpec},
    node_affinity,
    pod::PodInfo,
    pod_affinity::PodAffinity,
    spread::SpreadState,
};

/// What all filters need to know for one decision.
pub struct Filters<'a> {
    pod: &'a PodInfo,
    affinity: PodAffinity<'a>,
    spread: SpreadState<'a>,
}

impl<'a> Filters<'a> {
    /// Prepares the filters for one pod.
    pub fn new(cluster: &'a Cluster, pod: &'a PodInfo) -> Self {
        Self {
            pod,
            affinity: PodAffinity::new(cluster, pod),
            spread: SpreadState::new(cluster, pod),
        }
    }

    /// Why the node is no good; empty when it fits.
    pub fn check(&self, node: &NodeInfo, spec: &NodeSpec) -> Vec<Rejection> {
        let first = unschedulable(self.pod, spec)
            .or_else(|| taints(self.pod, spec))
            .or_else(|| node_affinity(self.pod, node, spec))
            .or_else(|| ports(self.pod, node));
        if let Some(rejection) = first {
            return vec![rejection];
        }
        let short = resources(self.pod, node, spec);
        if !short.is_empty() {
            return short;
        }
        let last = self
            .spread
            .check(spec)
            .or_else(|| self.affinity.check(spec));
        last.into_iter().collect()
    }
}

/// `spec.unschedulable`, unless the pod tolerates the taint of that name.
pub fn unschedulable(pod: &PodInfo, node: &NodeSpec) -> Option<Rejection> {
    let taint = || taints::taint(taints::UNSCHEDULABLE, NO_SCHEDULE);
    (node.unschedulable && !taints::tolerated(&pod.tolerations, &taint()))
        .then_some(Rejection::Unschedulable)
}

/// Taints with the effects NoSchedule and NoExecute.
pub fn taints(pod: &PodInfo, node: &NodeSpec) -> Option<Rejection> {
    node.taints
        .iter()
        .filter(|taint| matches!(taint.effect.as_str(), NO_SCHEDULE | NO_EXECUTE))
        .find(|taint| !taints::tolerated(&pod.tolerations, taint))
        .map(|taint| Rejection::Taint {
            key: taint.key.clone(),
            value: taint.value.clone().unwrap_or_default(),
        })
}

/// Node selector and required node affinity.
pub fn node_affinity(pod: &PodInfo, node: &NodeInfo, spec: &NodeSpec) -> Option<Rejection> {
    let selected = sluice_client::labels::matches_map(&pod.node_selector, &spec.labels);
    let required = pod.required_nodes.as_ref();
    let matches = |terms: &Vec<_>| node_affinity::matches_any(terms, &spec.labels, &node.name);
    (!selected || !required.is_none_or(matches)).then_some(Rejection::NodeAffinity)
}

/// Host ports.
pub fn ports(pod: &PodInfo, node: &NodeInfo) -> Option<Rejection> {
    let taken = pod.host_ports.iter().any(|port| node.has_conflict(port));
    taken.then_some(Rejection::Ports)
}

/// Resources: every one that is short, so that the user learns all of them at once.
pub fn resources(pod: &PodInfo, node: &NodeInfo, spec: &NodeSpec) -> Vec<Rejection> {
    let mut short = Vec::new();
    if i64::try_from(node.pods.len()).unwrap_or(i64::MAX) >= spec.max_pods {
        short.push(Rejection::TooManyPods);
    }
    let (asked, taken, all) = (&pod.requests, &node.requested, &spec.allocatable);
    let mut check = |name: &str, asked: i64, taken: i64, all: i64| {
        // A pod that asks for none of it is not turned away by a node that is over-committed.
        if asked > 0 && asked > all.saturating_sub(taken) {
            short.push(Rejection::Insufficient(name.to_owned()));
        }
    };
    check("cpu", asked.milli_cpu, taken.milli_cpu, all.milli_cpu);
    check("memory", asked.memory, taken.memory, all.memory);
    check(
        "ephemeral-storage",
        asked.ephemeral_storage,
        taken.ephemeral_storage,
        all.ephemeral_storage,
    );
    for (name, asked) in &asked.extended {
        let of =
            |map: &std::collections::BTreeMap<String, i64>| map.get(name).copied().unwrap_or(0);
        check(name, *asked, of(&taken.extended), of(&all.extended));
    }
    short
}
