//! Required and preferred affinity between pods, over domains of nodes.
//!
//! Counted once per decision: how many matching pods each domain holds. Nothing is counted for
//! pods without such terms while no pod in the cluster repels others, so ordinary pods pay nothing.

use std::collections::{HashMap, HashSet};

use crate::{
    cluster::Cluster,
    fit_error::Rejection,
    node::NodeSpec,
    pod::{PodInfo, PodTerm},
};

/// Matching pods per domain of one term.
type Domains<'a> = HashMap<&'a str, u32>;

/// What is known about pod affinity for one decision.
pub struct PodAffinity<'a> {
    pod: &'a PodInfo,
    /// Domains that pods already there close to this one: topology key and value.
    closed: HashSet<(&'a str, &'a str)>,
    wanted: Vec<(&'a PodTerm, Domains<'a>)>,
    unwanted: Vec<(&'a PodTerm, Domains<'a>)>,
    /// No pod matches yet but this one matches its own terms: the first of its group may go anywhere.
    first_of_group: bool,
}

impl<'a> PodAffinity<'a> {
    /// Counts for one pod.
    pub fn new(cluster: &'a Cluster, pod: &'a PodInfo) -> Self {
        let count = |terms: &'a [PodTerm]| -> Vec<_> {
            terms
                .iter()
                .map(|term| (term, domains(cluster, term)))
                .collect()
        };
        let wanted = count(&pod.affinity);
        let nothing_yet = wanted.iter().all(|(_, domains)| domains.is_empty());
        let own = pod
            .affinity
            .iter()
            .all(|term| cluster.term_matches(term, pod));
        Self {
            pod,
            closed: closed_domains(cluster, pod),
            wanted,
            unwanted: count(&pod.anti_affinity),
            first_of_group: nothing_yet && own,
        }
    }

    /// Why the node is no good, if so.
    pub fn check(&self, node: &NodeSpec) -> Option<Rejection> {
        if !self.pod.affinity.is_empty() && !self.wanted_here(node) {
            return Some(Rejection::Affinity);
        }
        let here = |(term, domains): &(&PodTerm, Domains)| occupied(node, term, domains);
        if self.unwanted.iter().any(here) {
            return Some(Rejection::AntiAffinity);
        }
        let closed =
            |(key, value): &(&str, &str)| node.labels.get(*key).is_some_and(|v| v == value);
        self.closed
            .iter()
            .any(closed)
            .then_some(Rejection::ExistingAntiAffinity)
    }

    fn wanted_here(&self, node: &NodeSpec) -> bool {
        let labelled =
            |(term, _): &(&PodTerm, Domains)| node.labels.contains_key(&term.topology_key);
        let here = |(term, domains): &(&PodTerm, Domains)| occupied(node, term, domains);
        self.wanted.iter().all(labelled) && (self.first_of_group || self.wanted.iter().all(here))
    }
}

fn occupied(node: &NodeSpec, term: &PodTerm, domains: &Domains) -> bool {
    let domain = node.labels.get(&term.topology_key);
    domain.is_some_and(|domain| domains.contains_key(domain.as_str()))
}

fn domains<'a>(cluster: &'a Cluster, term: &PodTerm) -> Domains<'a> {
    let mut domains = Domains::new();
    for (_, node, spec) in cluster.nodes() {
        let Some(domain) = spec.labels.get(&term.topology_key) else {
            continue;
        };
        let matching = node
            .pods
            .values()
            .filter(|pod| cluster.term_matches(term, pod));
        let count = u32::try_from(matching.count()).unwrap_or(u32::MAX);
        if count > 0 {
            *domains.entry(domain.as_str()).or_insert(0) += count;
        }
    }
    domains
}

fn closed_domains<'a>(cluster: &'a Cluster, pod: &PodInfo) -> HashSet<(&'a str, &'a str)> {
    let mut closed = HashSet::new();
    for (other, node) in cluster.repelling() {
        let Some(spec) = &node.spec else { continue };
        for term in &other.anti_affinity {
            if let Some(domain) = spec.labels.get(&term.topology_key)
                && cluster.term_matches(term, pod)
            {
                closed.insert((term.topology_key.as_str(), domain.as_str()));
            }
        }
    }
    closed
}

/// Preferred affinity: the sum of weights of matching pods in each node's domains, for the given nodes.
pub fn preference(cluster: &Cluster, pod: &PodInfo, slots: &[usize]) -> Vec<i64> {
    let mut sums = vec![0i64; slots.len()];
    for (weight, term) in &pod.preferred_pods {
        let domains = domains(cluster, term);
        for (sum, slot) in sums.iter_mut().zip(slots) {
            let labels = cluster.at(*slot).spec.as_ref().map(|spec| &spec.labels);
            let domain = labels.and_then(|labels| labels.get(&term.topology_key));
            let count = domain.and_then(|domain| domains.get(domain.as_str()));
            *sum += weight * i64::from(count.copied().unwrap_or(0));
        }
    }
    sums
}
