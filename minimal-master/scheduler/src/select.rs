//! One decision: walk the nodes until enough fit, score those, take the best.

use rand::{Rng, rngs::SmallRng};

use crate::{cluster::Cluster, filter::Filters, fit_error::FitError, pod::PodInfo, score};

/// Below this number every node is looked at.
const LOOK_AT_ALL: usize = 100;

/// How many fitting nodes are enough (upstream's adaptive percentage: from 50% down to 5% at 5,600 nodes).
pub fn enough(nodes: usize) -> usize {
    if nodes < LOOK_AT_ALL {
        return nodes;
    }
    let percentage = 50usize.saturating_sub(nodes / 125).max(5);
    (nodes * percentage / 100).max(LOOK_AT_ALL)
}

/// Chooses nodes; remembers where it stopped so that in large clusters every node gets its turn.
pub struct Selector {
    next: usize,
    random: SmallRng,
}

impl Selector {
    /// Equal seeds and equal histories give equal decisions.
    pub fn new(seed: u64) -> Self {
        Self {
            next: 0,
            random: rand::SeedableRng::seed_from_u64(seed),
        }
    }

    /// The position of the best node, or why there is none.
    pub fn select(&mut self, cluster: &Cluster, pod: &PodInfo) -> Result<usize, FitError> {
        let fitting = self.fitting(cluster, pod)?;
        if let [only] = fitting[..] {
            return Ok(only);
        }
        let scores = score::score(cluster, pod, &fitting);
        Ok(self.best(&fitting, &scores))
    }

    fn fitting(&mut self, cluster: &Cluster, pod: &PodInfo) -> Result<Vec<usize>, FitError> {
        let filters = Filters::new(cluster, pod);
        let slots = cluster.slots();
        let enough = enough(slots);
        let mut error = FitError::default();
        let mut fitting = Vec::new();
        for step in 0..slots {
            let slot = (self.next + step) % slots;
            let node = cluster.at(slot);
            let Some(spec) = &node.spec else { continue };
            error.nodes += 1;
            let rejections = filters.check(node, spec);
            if !rejections.is_empty() {
                error.count(rejections);
                continue;
            }
            fitting.push(slot);
            if fitting.len() == enough {
                self.next = (slot + 1) % slots;
                break;
            }
        }
        if fitting.is_empty() {
            Err(error)
        } else {
            Ok(fitting)
        }
    }

    /// The best score; of several one by chance, so that equal nodes fill evenly.
    fn best(&mut self, slots: &[usize], scores: &[i64]) -> usize {
        let max = scores.iter().copied().max().unwrap_or(0);
        let mut chosen = slots[0];
        let mut seen = 0u32;
        for (slot, score) in slots.iter().zip(scores) {
            if *score == max {
                seen += 1;
                if self.random.random_range(0..seen) == 0 {
                    chosen = *slot;
                }
            }
        }
        chosen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_clusters_are_searched_whole_and_large_ones_in_part() {
        assert_eq!(enough(99), 99);
        assert_eq!(enough(100), 100);
        assert_eq!(enough(1000), 420);
        assert_eq!(enough(10_000), 500);
    }
}
