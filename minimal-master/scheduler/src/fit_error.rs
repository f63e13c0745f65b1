//! Why a pod fits no node, in upstream's words: users and tools read them.

use std::{collections::BTreeMap, fmt};

/// What kind of change may help a rejected pod; a set of bits.
pub type Hints = u8;
/// Pods leaving, nodes growing.
pub const RESOURCES: Hints = 1;
/// Nodes' labels, names and `unschedulable`.
pub const NODE: Hints = 1 << 1;
/// Nodes' taints.
pub const TAINTS: Hints = 1 << 2;
/// Pods leaving a host port.
pub const PORTS: Hints = 1 << 3;
/// Other pods coming, leaving or changing labels.
pub const PODS: Hints = 1 << 4;
/// Anything at all.
pub const ANY: Hints = u8::MAX;

/// Why one node was rejected.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rejection {
    /// `spec.unschedulable`.
    Unschedulable,
    /// A NoSchedule or NoExecute taint that the pod doesn't tolerate.
    Taint {
        /// The taint's key.
        key: String,
        /// The taint's value.
        value: String,
    },
    /// Node selector or required node affinity.
    NodeAffinity,
    /// A host port is taken.
    Ports,
    /// The node takes no more pods.
    TooManyPods,
    /// Not enough of a resource.
    Insufficient(String),
    /// Skew would exceed a spread constraint.
    Spread,
    /// The node lacks a spread constraint's topology label.
    SpreadLabel,
    /// No pod that required affinity asks for is in the node's domain.
    Affinity,
    /// A pod that required anti-affinity forbids is in the node's domain.
    AntiAffinity,
    /// A pod in the node's domain forbids this one.
    ExistingAntiAffinity,
}

impl Rejection {
    /// Which changes may lift this rejection.
    pub fn hints(&self) -> Hints {
        match self {
            Self::Unschedulable | Self::NodeAffinity => NODE,
            Self::Taint { .. } => TAINTS,
            Self::Ports => PORTS,
            Self::TooManyPods | Self::Insufficient(_) => RESOURCES,
            Self::Spread | Self::SpreadLabel => PODS | NODE | TAINTS,
            Self::Affinity | Self::AntiAffinity | Self::ExistingAntiAffinity => PODS | NODE,
        }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unschedulable => f.write_str("node(s) were unschedulable"),
            Self::Taint { key, value } => {
                write!(f, "node(s) had untolerated taint {{{key}: {value}}}")
            }
            Self::NodeAffinity => f.write_str("node(s) didn't match Pod's node affinity/selector"),
            Self::Ports => {
                f.write_str("node(s) didn't have free ports for the requested pod ports")
            }
            Self::TooManyPods => f.write_str("Too many pods"),
            Self::Insufficient(resource) => write!(f, "Insufficient {resource}"),
            Self::Spread => f.write_str("node(s) didn't match pod topology spread constraints"),
            Self::SpreadLabel => f.write_str(
                "node(s) didn't match pod topology spread constraints (missing required label)",
            ),
            Self::Affinity => f.write_str("node(s) didn't match pod affinity rules"),
            Self::AntiAffinity => f.write_str("node(s) didn't match pod anti-affinity rules"),
            Self::ExistingAntiAffinity => {
                f.write_str("node(s) didn't satisfy existing pods anti-affinity rules")
            }
        }
    }
}

/// No node fits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FitError {
    /// How many nodes were looked at.
    pub nodes: usize,
    /// How many nodes each reason rejects; one node may have several.
    pub reasons: BTreeMap<Rejection, usize>,
}

impl FitError {
    /// Counts the reasons of one node.
    pub fn count(&mut self, rejections: Vec<Rejection>) {
        for rejection in rejections {
            *self.reasons.entry(rejection).or_insert(0) += 1;
        }
    }

    /// Which changes may help the pod.
    pub fn hints(&self) -> Hints {
        self.reasons.keys().fold(0, |hints, r| hints | r.hints())
    }
}

impl fmt::Display for FitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nodes == 0 {
            return f.write_str("no nodes available to schedule pods");
        }
        let reason = |(rejection, count): (&Rejection, &usize)| format!("{count} {rejection}");
        let mut reasons: Vec<String> = self.reasons.iter().map(reason).collect();
        reasons.sort();
        write!(
            f,
            "0/{} nodes are available: {}.",
            self.nodes,
            reasons.join(", ")
        )
    }
}

impl std::error::Error for FitError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_counts_reasons_in_upstreams_words() {
        let mut error = FitError {
            nodes: 3,
            ..FitError::default()
        };
        let taint = || Rejection::Taint {
            key: "node.kubernetes.io/not-ready".into(),
            value: String::new(),
        };
        error.count(vec![taint()]);
        error.count(vec![taint()]);
        error.count(vec![
            Rejection::Insufficient("cpu".into()),
            Rejection::TooManyPods,
        ]);
        assert_eq!(
            error.to_string(),
            "0/3 nodes are available: 1 Insufficient cpu, 1 Too many pods, \
             2 node(s) had untolerated taint {node.kubernetes.io/not-ready: }."
        );
        assert_eq!(error.hints(), RESOURCES | TAINTS);
        assert_eq!(
            FitError::default().to_string(),
            "no nodes available to schedule pods"
        );
    }
}
