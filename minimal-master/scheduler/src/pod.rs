//! A pod as the scheduler sees it: everything a decision needs, computed once.

use k8s_openapi::{
    api::core::v1::{
        Affinity, Container, NodeSelectorTerm, Pod, PodAffinityTerm, PodSpec, Toleration,
        TopologySpreadConstraint,
    },
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};
use sluice_client::{
    Key,
    labels::{self, Labels},
    owner,
    quantity::QuantityError,
};

use crate::resources::{self, Load, Resources};

/// A port that the pod wants on its node's own address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// The address; `0.0.0.0` for all.
    pub ip: String,
    /// The port number.
    pub port: i32,
}

impl HostPort {
    /// Whether both can't be on one node: same protocol and port, and overlapping addresses.
    pub fn conflicts(&self, other: &Self) -> bool {
        self.port == other.port
            && self.protocol == other.protocol
            && (self.ip == other.ip || self.is_wildcard() || other.is_wildcard())
    }

    fn is_wildcard(&self) -> bool {
        matches!(self.ip.as_str(), "0.0.0.0" | "::")
    }
}

/// "Pods that match this, seen over domains of this topology key".
#[derive(Clone, Debug, PartialEq)]
pub struct PodTerm {
    /// Which pods; `None` matches no pod.
    pub selector: Option<LabelSelector>,
    /// In which namespaces, by name.
    pub namespaces: Vec<String>,
    /// And in which by label; an empty selector means all.
    pub namespace_selector: Option<LabelSelector>,
    /// The node label whose values are the domains.
    pub topology_key: String,
}

/// One topology spread constraint.
#[derive(Clone, Debug, PartialEq)]
pub struct Spread {
    /// The largest allowed difference to the emptiest domain.
    pub max_skew: i64,
    /// The node label whose values are the domains.
    pub topology_key: String,
    /// `DoNotSchedule` rather than `ScheduleAnyway`.
    pub hard: bool,
    /// Which pods are counted; `None` counts none.
    pub selector: Option<LabelSelector>,
    /// With fewer domains than this the emptiest counts as having none.
    pub min_domains: Option<i64>,
    /// Only nodes that the pod's node affinity allows are domains (default).
    pub honor_affinity: bool,
    /// Only nodes whose taints the pod tolerates are domains.
    pub honor_taints: bool,
}

/// See the module's documentation.
#[derive(Clone, Debug, PartialEq)]
pub struct PodInfo {
    /// Namespace and name.
    pub key: Key,
    /// `metadata.uid`: identifies the pod through its whole life.
    pub uid: String,
    /// The pod's labels.
    pub labels: Labels,
    /// Higher is scheduled earlier.
    pub priority: i32,
    /// Requested in total.
    pub requests: Resources,
    /// As counted by the scores.
    pub load: Load,
    /// Ports on the node.
    pub host_ports: Vec<HostPort>,
    /// `spec.nodeSelector`.
    pub node_selector: Labels,
    /// Required node affinity: alternatives.
    pub required_nodes: Option<Vec<NodeSelectorTerm>>,
    /// Preferred node affinity with weights.
    pub preferred_nodes: Vec<(i64, NodeSelectorTerm)>,
    /// Taints that don't keep the pod away.
    pub tolerations: Vec<Toleration>,
    /// Required: such pods must be in the domain.
    pub affinity: Vec<PodTerm>,
    /// Required: no such pod may be in the domain.
    pub anti_affinity: Vec<PodTerm>,
    /// Preferred, with weights; negative for anti-affinity.
    pub preferred_pods: Vec<(i64, PodTerm)>,
    /// Topology spread constraints.
    pub spread: Vec<Spread>,
    /// The uid of the controlling owner: replicas of one owner are spread.
    pub owner: Option<String>,
}

impl PodInfo {
    /// Reads a pod. Fails when a quantity can't be read, which API servers don't let in.
    pub fn new(pod: &Pod) -> Result<Self, QuantityError> {
        let default_spec = PodSpec::default();
        let spec = pod.spec.as_ref().unwrap_or(&default_spec);
        let labels = pod.metadata.labels.clone().unwrap_or_default();
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let requests = resources::pod_requests(spec)?;
        let affinity = spec.affinity.as_ref();
        let (required_nodes, preferred_nodes) = node_terms(affinity);
        let (required, forbidden, preferred_pods) = pod_terms(affinity, namespace, &labels);
        Ok(Self {
            key: Key::of(pod),
            uid: pod.metadata.uid.clone().unwrap_or_default(),
            priority: spec.priority.unwrap_or(0),
            load: resources::pod_load(spec, &requests),
            requests,
            host_ports: host_ports(spec),
            node_selector: spec.node_selector.clone().unwrap_or_default(),
            required_nodes,
            preferred_nodes,
            tolerations: spec.tolerations.clone().unwrap_or_default(),
            affinity: required,
            anti_affinity: forbidden,
            preferred_pods,
            spread: spread(spec, &labels),
            owner: owner::controller_uid(&pod.metadata).map(Into::into),
            labels,
        })
    }
}

fn host_ports(spec: &PodSpec) -> Vec<HostPort> {
    let sidecars = spec
        .init_containers
        .iter()
        .flatten()
        .filter(|c| c.restart_policy.as_deref() == Some("Always"));
    spec.containers
        .iter()
        .chain(sidecars)
        .flat_map(|container| container_ports(container, spec.host_network == Some(true)))
        .collect()
}

fn container_ports(container: &Container, host_network: bool) -> impl Iterator<Item = HostPort> {
    let ports = container.ports.iter().flatten();
    ports.filter_map(move |port| {
        // With host networking a container port is a host port, also before defaulting says so.
        let implied = host_network.then_some(port.container_port);
        let number = port.host_port.filter(|p| *p > 0).or(implied)?;
        Some(HostPort {
            protocol: port.protocol.clone().unwrap_or_else(|| "TCP".into()),
            ip: port
                .host_ip
                .clone()
                .filter(|ip| !ip.is_empty())
                .unwrap_or_else(|| "0.0.0.0".into()),
            port: number,
        })
    })
}

type NodeTerms = (Option<Vec<NodeSelectorTerm>>, Vec<(i64, NodeSelectorTerm)>);

fn node_terms(affinity: Option<&Affinity>) -> NodeTerms {
    let Some(affinity) = affinity.and_then(|a| a.node_affinity.as_ref()) else {
        return (None, Vec::new());
    };
    let required = affinity
        .required_during_scheduling_ignored_during_execution
        .as_ref()
        .map(|selector| selector.node_selector_terms.clone());
    let preferred = affinity
        .preferred_during_scheduling_ignored_during_execution
        .iter()
        .flatten()
        .map(|term| (i64::from(term.weight), term.preference.clone()))
        .collect();
    (required, preferred)
}

type PodTerms = (Vec<PodTerm>, Vec<PodTerm>, Vec<(i64, PodTerm)>);

fn pod_terms(affinity: Option<&Affinity>, namespace: &str, labels: &Labels) -> PodTerms {
    let term = |term: &PodAffinityTerm| pod_term(term, namespace, labels);
    let together = affinity.and_then(|a| a.pod_affinity.as_ref());
    let apart = affinity.and_then(|a| a.pod_anti_affinity.as_ref());
    let required = together.and_then(|a| {
        a.required_during_scheduling_ignored_during_execution
            .as_ref()
    });
    let forbidden = apart.and_then(|a| {
        a.required_during_scheduling_ignored_during_execution
            .as_ref()
    });
    let liked = together.and_then(|a| {
        a.preferred_during_scheduling_ignored_during_execution
            .as_ref()
    });
    let disliked = apart.and_then(|a| {
        a.preferred_during_scheduling_ignored_during_execution
            .as_ref()
    });
    let liked = liked
        .into_iter()
        .flatten()
        .map(|t| (i64::from(t.weight), term(&t.pod_affinity_term)));
    let disliked = disliked
        .into_iter()
        .flatten()
        .map(|t| (-i64::from(t.weight), term(&t.pod_affinity_term)));
    (
        required.into_iter().flatten().map(term).collect(),
        forbidden.into_iter().flatten().map(term).collect(),
        liked.chain(disliked).collect(),
    )
}

fn pod_term(term: &PodAffinityTerm, namespace: &str, labels: &Labels) -> PodTerm {
    let mut namespaces = term.namespaces.clone().unwrap_or_default();
    if namespaces.is_empty() && term.namespace_selector.is_none() {
        namespaces.push(namespace.to_owned());
    }
    let mut selector = term.label_selector.clone();
    add_label_keys(
        &mut selector,
        term.match_label_keys.as_deref(),
        "In",
        labels,
    );
    add_label_keys(
        &mut selector,
        term.mismatch_label_keys.as_deref(),
        "NotIn",
        labels,
    );
    PodTerm {
        selector,
        namespaces,
        namespace_selector: term.namespace_selector.clone(),
        topology_key: term.topology_key.clone(),
    }
}

fn spread(spec: &PodSpec, labels: &Labels) -> Vec<Spread> {
    let constraints = spec.topology_spread_constraints.iter().flatten();
    constraints.map(|c| spread_constraint(c, labels)).collect()
}

fn spread_constraint(constraint: &TopologySpreadConstraint, labels: &Labels) -> Spread {
    let mut selector = constraint.label_selector.clone();
    add_label_keys(
        &mut selector,
        constraint.match_label_keys.as_deref(),
        "In",
        labels,
    );
    Spread {
        max_skew: i64::from(constraint.max_skew),
        topology_key: constraint.topology_key.clone(),
        hard: constraint.when_unsatisfiable == "DoNotSchedule",
        selector,
        min_domains: constraint.min_domains.map(i64::from),
        honor_affinity: constraint.node_affinity_policy.as_deref() != Some("Ignore"),
        honor_taints: constraint.node_taints_policy.as_deref() == Some("Honor"),
    }
}

/// `matchLabelKeys` and `mismatchLabelKeys` (KEP-3243, KEP-3633): the pod's own values join the selector.
fn add_label_keys(
    selector: &mut Option<LabelSelector>,
    keys: Option<&[String]>,
    operator: &str,
    labels: &Labels,
) {
    let Some(selector) = selector else { return };
    for key in keys.unwrap_or_default() {
        if let Some(value) = labels.get(key) {
            let requirement =
                k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelectorRequirement {
                    key: key.clone(),
                    operator: operator.into(),
                    values: Some(vec![value.clone()]),
                };
            let expressions = selector.match_expressions.get_or_insert_default();
            if !expressions.contains(&requirement) {
                expressions.push(requirement);
            }
        }
    }
}

/// Whether an optional selector selects; none selects nothing.
pub fn selects(selector: Option<&LabelSelector>, labels: &Labels) -> bool {
    selector.is_some_and(|selector| labels::matches(selector, labels))
}
