//! Whatever happens in whatever order, no decision breaks a rule.
//!
//! The rules are checked by a second, naive bookkeeping that knows only what was decided and told.

mod common;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use common::{node, owned};
use proptest::prelude::*;
use serde_json::json;
use sluice_scheduler::{
    engine::{Decision, Engine},
    node::NodeSpec,
    pod::PodInfo,
};
use tokio::time::Instant;

#[derive(Clone, Debug)]
enum Step {
    Arrive {
        cpu: i64,
        memory: i64,
        port: Option<i32>,
        zone: Option<u8>,
        tolerant: bool,
        alone: bool,
        even: bool,
    },
    Decide,
    Accept(usize),
    Confirm(usize),
    Fail(usize),
    Delete(usize),
    Node {
        which: u8,
        cpu: i64,
        pods: i64,
        zone: u8,
        tainted: bool,
    },
    NodeGone(u8),
    Wait,
}

fn step() -> impl Strategy<Value = Step> {
    let port = proptest::option::weighted(0.2, 80..83);
    let zone = proptest::option::weighted(0.2, 0u8..3);
    let arrive = (
        0..8i64,
        0..8i64,
        port,
        zone,
        any::<bool>(),
        prop::bool::weighted(0.1),
        prop::bool::weighted(0.2),
    )
        .prop_map(
            |(cpu, memory, port, zone, tolerant, alone, even)| Step::Arrive {
                cpu: cpu * 100,
                memory: memory * 100,
                port,
                zone,
                tolerant,
                alone,
                even,
            },
        );
    let change = (0u8..5, 0..20i64, 0..6i64, 0u8..3, prop::bool::weighted(0.3)).prop_map(
        |(which, cpu, pods, zone, tainted)| Step::Node {
            which,
            cpu: cpu * 100,
            pods,
            zone,
            tainted,
        },
    );
    prop_oneof![
        6 => arrive,
        8 => Just(Step::Decide),
        3 => any::<usize>().prop_map(Step::Accept),
        2 => any::<usize>().prop_map(Step::Confirm),
        1 => any::<usize>().prop_map(Step::Fail),
        2 => any::<usize>().prop_map(Step::Delete),
        3 => change,
        1 => (0u8..5).prop_map(Step::NodeGone),
        1 => Just(Step::Wait),
    ]
}

#[derive(Default)]
struct Model {
    nodes: BTreeMap<String, NodeSpec>,
    pods: HashMap<String, Arc<PodInfo>>,
    /// Decided or confirmed.
    on: HashMap<String, String>,
    undecided: Vec<String>,
    unconfirmed: Vec<String>,
    /// The server took the binding; the watch hasn't said so.
    accepted: Vec<String>,
}

impl Model {
    fn others<'a>(&'a self, node: &'a str, but: &'a str) -> impl Iterator<Item = &'a Arc<PodInfo>> {
        self.on
            .iter()
            .filter(move |(uid, at)| *at == node && *uid != but)
            .map(|(uid, _)| &self.pods[uid])
    }

    /// What is wrong with running this pod on this node.
    fn fault(&self, pod: &PodInfo, name: &str) -> Option<String> {
        let Some(node) = self.nodes.get(name) else {
            return Some(format!("{name} does not exist"));
        };
        let others: Vec<_> = self.others(name, &pod.uid).collect();
        let cpu: i64 = others.iter().map(|p| p.requests.milli_cpu).sum();
        let memory: i64 = others.iter().map(|p| p.requests.memory).sum();
        let over = |asked: i64, taken: i64, all: i64| asked > 0 && asked + taken > all;
        let zone = &node.labels["zone"];
        let port = |p: &PodInfo| p.host_ports.first().map(|p| p.port);
        if others.len() as i64 >= node.max_pods {
            return Some("too many pods".into());
        }
        if over(pod.requests.milli_cpu, cpu, node.allocatable.milli_cpu)
            || over(pod.requests.memory, memory, node.allocatable.memory)
        {
            return Some("over-committed".into());
        }
        if pod
            .node_selector
            .get("zone")
            .is_some_and(|wanted| wanted != zone)
        {
            return Some("wrong zone".into());
        }
        if !node.taints.is_empty() && pod.tolerations.is_empty() {
            return Some("not tolerated".into());
        }
        if port(pod).is_some() && others.iter().any(|other| port(other) == port(pod)) {
            return Some("port taken".into());
        }
        let lonely = |p: &PodInfo| !p.anti_affinity.is_empty();
        if others.iter().any(|other| lonely(other) || lonely(pod)) {
            return Some("wanted to be alone".into());
        }
        (!pod.spread.is_empty() && self.skew(pod, zone) > 1).then(|| "uneven".into())
    }

    fn skew(&self, pod: &PodInfo, zone: &str) -> i64 {
        let allowed = |node: &NodeSpec| {
            let wanted = pod.node_selector.get("zone");
            wanted.is_none_or(|wanted| *wanted == node.labels["zone"])
        };
        let mut counts = BTreeMap::new();
        for (name, node) in self.nodes.iter().filter(|(_, node)| allowed(node)) {
            let even = self
                .others(name, &pod.uid)
                .filter(|p| p.labels.contains_key("even"));
            *counts.entry(node.labels["zone"].as_str()).or_insert(0) += even.count() as i64;
        }
        counts[zone] + 1 - counts.values().min().copied().unwrap_or(0)
    }
}

fn arrival(uid: &str, step: &Step) -> Arc<PodInfo> {
    let Step::Arrive {
        cpu,
        memory,
        port,
        zone,
        tolerant,
        alone,
        even,
    } = step
    else {
        unreachable!()
    };
    let selector = zone.map(|zone| json!({"zone": zone.to_string()}));
    let tolerations = tolerant.then(|| json!([{"operator": "Exists"}]));
    let ports = port.map(|port| json!([{"containerPort": 1, "hostPort": port}]));
    let affinity = alone.then(|| {
        json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
            {"topologyKey": "host", "labelSelector": {}},
        ]}})
    });
    let spread = even.then(|| {
        json!([{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": {"matchLabels": {"even": "1"}}}])
    });
    let labels = if *even {
        json!({"even": "1"})
    } else {
        json!({})
    };
    let spec = json!({
        "nodeSelector": selector, "tolerations": tolerations, "affinity": affinity,
        "topologySpreadConstraints": spread,
        "containers": [{"name": "c", "ports": ports, "resources": {
            "requests": {"cpu": format!("{cpu}m"), "memory": memory.to_string()},
        }}],
    });
    owned(uid, &labels, &spec, Some("owner"))
}

struct Run {
    engine: Engine,
    model: Model,
    now: Instant,
    arrivals: usize,
}

impl Run {
    fn apply(&mut self, step: &Step) -> Result<(), TestCaseError> {
        let now = self.now;
        match step {
            Step::Arrive { .. } => {
                self.arrivals += 1;
                let uid = format!("p{}", self.arrivals);
                let pod = arrival(&uid, step);
                self.model.pods.insert(uid.clone(), pod.clone());
                self.model.undecided.push(uid);
                self.engine.pending(pod, now);
            }
            Step::Decide => self.decide()?,
            Step::Accept(at) => {
                if let Some(uid) = pick(&self.model.unconfirmed, *at) {
                    // Messages from before the binding, late ones too, must not make the pod pending again.
                    let pod = self.model.pods[&uid].clone();
                    self.engine.pending(pod.clone(), now);
                    self.engine.bind_done(&uid);
                    self.engine.pending(pod, now);
                    self.model.unconfirmed.retain(|u| *u != uid);
                    self.model.accepted.push(uid);
                }
            }
            Step::Confirm(at) => {
                if let Some(uid) = pick(&self.model.accepted, *at) {
                    self.model.accepted.retain(|u| *u != uid);
                    let pod = self.model.pods[&uid].clone();
                    self.engine.bound(pod, &self.model.on[&uid], now);
                }
            }
            Step::Fail(at) => {
                if let Some(uid) = pick(&self.model.unconfirmed, *at) {
                    self.model.unconfirmed.retain(|u| *u != uid);
                    self.model.on.remove(&uid);
                    self.model.undecided.push(uid.clone());
                    self.engine.bind_failed(&uid, now);
                }
            }
            Step::Delete(at) => {
                let mut all: Vec<String> = self.model.pods.keys().cloned().collect();
                all.sort();
                if let Some(uid) = pick(&all, *at) {
                    self.model.pods.remove(&uid);
                    self.model.on.remove(&uid);
                    self.model.unconfirmed.retain(|u| *u != uid);
                    self.model.accepted.retain(|u| *u != uid);
                    self.model.undecided.retain(|u| *u != uid);
                    self.engine.gone(&uid, now);
                }
            }
            Step::Node {
                which,
                cpu,
                pods,
                zone,
                tainted,
            } => {
                let name = format!("n{which}");
                let taints = if *tainted {
                    json!([{"key": "t", "effect": "NoSchedule"}])
                } else {
                    json!([])
                };
                let labels = json!({"zone": zone.to_string(), "host": name});
                let spec = node(*cpu, *cpu, *pods, &labels, &taints);
                self.model.nodes.insert(name.clone(), spec.clone());
                self.engine.node(&name, spec, now);
            }
            Step::NodeGone(which) => {
                let name = format!("n{which}");
                self.model.nodes.remove(&name);
                self.engine.node_gone(&name, now);
            }
            Step::Wait => self.now += Duration::from_secs(11),
        }
        Ok(())
    }

    fn decide(&mut self) -> Result<(), TestCaseError> {
        match self.engine.step(self.now) {
            None => {}
            Some(Decision::Bind { pod, node }) => {
                prop_assert!(
                    self.model.undecided.contains(&pod.uid),
                    "{} decided twice",
                    pod.uid
                );
                let fault = self.model.fault(&pod, &node);
                prop_assert!(fault.is_none(), "{} on {}: {:?}", pod.uid, node, fault);
                self.model.undecided.retain(|u| *u != pod.uid);
                self.model.on.insert(pod.uid.clone(), node);
                self.model.unconfirmed.push(pod.uid.clone());
            }
            Some(Decision::Unschedulable { pod, error }) => {
                prop_assert!(self.model.undecided.contains(&pod.uid));
                prop_assert_eq!(error.nodes, self.model.nodes.len());
                for name in self.model.nodes.keys() {
                    prop_assert!(
                        self.model.fault(&pod, name).is_some(),
                        "{} fits {}: {}",
                        pod.uid,
                        name,
                        error
                    );
                }
            }
        }
        Ok(())
    }

    /// Incremental bookkeeping equals a fresh sum.
    fn check_sums(&self) -> Result<(), TestCaseError> {
        for (slot, node, _) in self.engine.cluster().nodes() {
            let pods: Vec<_> = self.model.others(&node.name, "").collect();
            let cpu: i64 = pods.iter().map(|p| p.requests.milli_cpu).sum();
            prop_assert_eq!(self.engine.cluster().at(slot).requested.milli_cpu, cpu);
            prop_assert_eq!(node.pods.len(), pods.len());
            prop_assert_eq!(node.count_of("owner") as usize, pods.len());
        }
        Ok(())
    }
}

fn pick(all: &[String], at: usize) -> Option<String> {
    (!all.is_empty()).then(|| all[at % all.len()].clone())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_decision_breaks_a_rule_and_no_fitting_node_is_overlooked(
        seed in any::<u64>(),
        steps in proptest::collection::vec(step(), 1..120),
    ) {
        let mut run = Run {
            engine: Engine::new(seed),
            model: Model::default(),
            now: Instant::now(),
            arrivals: 0,
        };
        for step in &steps {
            run.apply(step)?;
            run.check_sums()?;
        }
    }

    #[test]
    fn every_pod_that_fits_is_placed_in_the_end(
        seed in any::<u64>(),
        steps in proptest::collection::vec(step(), 1..80),
    ) {
        let mut run = Run {
            engine: Engine::new(seed),
            model: Model::default(),
            now: Instant::now(),
            arrivals: 0,
        };
        for step in &steps {
            run.apply(step)?;
        }
        // Nothing changes any more: after some rounds whoever still waits must fit nowhere.
        for _ in 0..200 {
            run.now += Duration::from_secs(11);
            while run.engine.wake_at(run.now).is_some_and(|at| at <= run.now) {
                run.decide()?;
            }
        }
        for uid in &run.model.undecided {
            for name in run.model.nodes.keys() {
                prop_assert!(run.model.fault(&run.model.pods[uid], name).is_some(), "{} waits but fits {}", uid, name);
            }
        }
    }
}
