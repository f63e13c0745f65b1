//! Scores: of the nodes that fit, which is best? Each score is 0 to 100; weights are upstream's.

use sluice_client::taints::{self, PREFER_NO_SCHEDULE};

use crate::{
    cluster::Cluster,
    node::{NodeInfo, NodeSpec},
    node_affinity,
    pod::PodInfo,
    pod_affinity, spread,
};

const MAX: i64 = 100;

const RESOURCES: i64 = 1;
const BALANCE: i64 = 1;
const NODE_AFFINITY: i64 = 2;
const POD_AFFINITY: i64 = 2;
const SPREADING: i64 = 2;
const TAINTS: i64 = 3;

/// Scores the nodes at these positions, in their order.
pub fn score(cluster: &Cluster, pod: &PodInfo, slots: &[usize]) -> Vec<i64> {
    let mut totals: Vec<i64> = slots
        .iter()
        .map(|slot| by_resources(pod, cluster.at(*slot)))
        .collect();
    if !pod.preferred_nodes.is_empty() {
        add(
            &mut totals,
            NODE_AFFINITY,
            &more_is_better(&preferred_nodes(cluster, pod, slots)),
        );
    }
    if !pod.preferred_pods.is_empty() {
        let sums = pod_affinity::preference(cluster, pod, slots);
        add(&mut totals, POD_AFFINITY, &between_extremes(&sums));
    }
    if pod.spread.iter().any(|constraint| !constraint.hard) {
        let crowding = spread::crowding(cluster, pod, slots);
        add(&mut totals, SPREADING, &less_is_better(&crowding));
    } else {
        add(&mut totals, SPREADING, &siblings(cluster, pod, slots));
    }
    let tainted = prefer_no_schedule(cluster, pod, slots);
    if tainted.iter().any(|count| *count > 0) {
        add(&mut totals, TAINTS, &less_is_better(&tainted));
    }
    totals
}

fn add(totals: &mut [i64], weight: i64, scores: &[i64]) {
    for (total, score) in totals.iter_mut().zip(scores) {
        *total += weight * score;
    }
}

fn by_resources(pod: &PodInfo, node: &NodeInfo) -> i64 {
    let Some(spec) = &node.spec else { return 0 };
    RESOURCES * least_allocated(pod, node, spec) + BALANCE * balance(pod, node, spec)
}

/// The share of CPU and memory that stays free, as a mean.
fn least_allocated(pod: &PodInfo, node: &NodeInfo, spec: &NodeSpec) -> i64 {
    let free = |wanted: i64, all: i64| {
        if all <= 0 || wanted > all {
            return 0;
        }
        (i128::from(all - wanted) * i128::from(MAX) / i128::from(all)) as i64
    };
    let cpu = free(
        node.load.milli_cpu + pod.load.milli_cpu,
        spec.allocatable.milli_cpu,
    );
    let memory = free(node.load.memory + pod.load.memory, spec.allocatable.memory);
    i64::midpoint(cpu, memory)
}

/// How alike the used shares of CPU and memory are: a node full of one and empty of the other is a waste.
fn balance(pod: &PodInfo, node: &NodeInfo, spec: &NodeSpec) -> i64 {
    let share = |wanted: i64, all: i64| {
        if all <= 0 {
            return 1.0;
        }
        (wanted as f64 / all as f64).min(1.0)
    };
    let cpu = share(
        node.requested.milli_cpu + pod.requests.milli_cpu,
        spec.allocatable.milli_cpu,
    );
    let memory = share(
        node.requested.memory + pod.requests.memory,
        spec.allocatable.memory,
    );
    // The standard deviation of two values is half their distance.
    ((1.0 - (cpu - memory).abs() / 2.0) * MAX as f64) as i64
}

fn preferred_nodes(cluster: &Cluster, pod: &PodInfo, slots: &[usize]) -> Vec<i64> {
    let sum = |slot: &usize| {
        let node = cluster.at(*slot);
        let Some(spec) = &node.spec else { return 0 };
        pod.preferred_nodes
            .iter()
            .filter(|(_, term)| node_affinity::matches(term, &spec.labels, &node.name))
            .map(|(weight, _)| weight)
            .sum()
    };
    slots.iter().map(sum).collect()
}

fn prefer_no_schedule(cluster: &Cluster, pod: &PodInfo, slots: &[usize]) -> Vec<i64> {
    let count = |slot: &usize| {
        let taints = cluster.at(*slot).spec.iter().flat_map(|spec| &spec.taints);
        let bad = taints
            .filter(|taint| taint.effect == PREFER_NO_SCHEDULE)
            .filter(|taint| !taints::tolerated(&pod.tolerations, taint));
        i64::try_from(bad.count()).unwrap_or(i64::MAX)
    };
    slots.iter().map(count).collect()
}

/// Spreads replicas of one owner, or pods of one Service, over nodes and, with twice the weight, over zones.
fn siblings(cluster: &Cluster, pod: &PodInfo, slots: &[usize]) -> Vec<i64> {
    let counts: Vec<i64> = match &pod.owner {
        Some(owner) => slots
            .iter()
            .map(|slot| i64::from(cluster.at(*slot).count_of(owner)))
            .collect(),
        None => service_mates(cluster, pod, slots),
    };
    let by_node = less_is_better(&counts);
    let zones: Vec<Option<&str>> = slots
        .iter()
        .map(|slot| cluster.at(*slot).spec.as_ref().and_then(NodeSpec::zone))
        .collect();
    if zones.iter().all(Option::is_none) {
        return by_node;
    }
    let by_zone = less_is_better(&zone_sums(&zones, &counts));
    let mix = |(node, zone): (&i64, &i64)| (node + 2 * zone) / 3;
    by_node.iter().zip(&by_zone).map(mix).collect()
}

fn service_mates(cluster: &Cluster, pod: &PodInfo, slots: &[usize]) -> Vec<i64> {
    let selectors: Vec<_> = cluster.services_of(pod).collect();
    if selectors.is_empty() {
        return vec![0; slots.len()];
    }
    let mate = |other: &PodInfo| {
        other.key.namespace == pod.key.namespace
            && selectors
                .iter()
                .all(|selector| sluice_client::labels::matches_map(selector, &other.labels))
    };
    let count = |slot: &usize| {
        let mates = cluster.at(*slot).pods.values().filter(|other| mate(other));
        i64::try_from(mates.count()).unwrap_or(i64::MAX)
    };
    slots.iter().map(count).collect()
}

fn zone_sums(zones: &[Option<&str>], counts: &[i64]) -> Vec<i64> {
    let mut sums = std::collections::HashMap::<Option<&str>, i64>::new();
    for (zone, count) in zones.iter().zip(counts) {
        *sums.entry(*zone).or_insert(0) += count;
    }
    zones.iter().map(|zone| sums[zone]).collect()
}

fn more_is_better(values: &[i64]) -> Vec<i64> {
    let max = values.iter().copied().max().unwrap_or(0);
    let scale = |value: &i64| if max > 0 { value * MAX / max } else { 0 };
    values.iter().map(scale).collect()
}

fn less_is_better(values: &[i64]) -> Vec<i64> {
    let max = values.iter().copied().max().unwrap_or(0);
    let scale = |value: &i64| {
        if max > 0 {
            (max - value) * MAX / max
        } else {
            MAX
        }
    };
    values.iter().map(scale).collect()
}

fn between_extremes(values: &[i64]) -> Vec<i64> {
    let min = values.iter().copied().min().unwrap_or(0);
    let max = values.iter().copied().max().unwrap_or(0);
    let scale = |value: &i64| {
        if max > min {
            (value - min) * MAX / (max - min)
        } else {
            0
        }
    };
    values.iter().map(scale).collect()
}
