//! What the scheduler decides in small, named situations.

mod common;

use std::collections::BTreeMap;

use common::{node, owned, pod, requests};
use serde_json::{Value, json};
use sluice_scheduler::engine::{Decision, Engine};
use tokio::time::Instant;

const GIB: i64 = 1 << 30;

fn engine(seed: u64, nodes: &[(&str, Value, Value)]) -> Engine {
    let mut engine = Engine::new(seed);
    for (name, labels, taints) in nodes {
        engine.node(
            name,
            node(4000, 8 * GIB, 110, labels, taints),
            Instant::now(),
        );
    }
    engine
}

fn three(seed: u64) -> Engine {
    let plain = |name| (name, json!({"kubernetes.io/hostname": name}), json!([]));
    engine(seed, &[plain("n1"), plain("n2"), plain("n3")])
}

fn place(
    engine: &mut Engine,
    pod: std::sync::Arc<sluice_scheduler::pod::PodInfo>,
) -> Result<String, String> {
    let now = Instant::now();
    engine.pending(pod, now);
    match engine.step(now).expect("a pod is ready") {
        Decision::Bind { node, .. } => Ok(node),
        Decision::Unschedulable { error, .. } => Err(error.to_string()),
    }
}

#[test]
fn six_replicas_on_three_equal_nodes_are_two_each_with_any_seed() {
    for seed in 0..50 {
        let mut engine = three(seed);
        let mut count = BTreeMap::new();
        for i in 0..6 {
            let replica = owned(
                &format!("p{i}"),
                &json!({"app": "web"}),
                &requests(0, 0),
                Some("rs"),
            );
            *count
                .entry(place(&mut engine, replica).unwrap())
                .or_insert(0) += 1;
        }
        assert_eq!(
            count.into_values().collect::<Vec<_>>(),
            [2, 2, 2],
            "seed {seed}"
        );
    }
}

#[test]
fn replicas_are_spread_over_zones_first() {
    let zone = |name, zone| {
        (
            name,
            json!({"topology.kubernetes.io/zone": zone}),
            json!([]),
        )
    };
    for seed in 0..20 {
        let mut engine = engine(seed, &[zone("a1", "a"), zone("a2", "a"), zone("b1", "b")]);
        let mut nodes: Vec<String> = (0..2)
            .map(|i| {
                owned(
                    &format!("p{i}"),
                    &json!({}),
                    &requests(100, GIB),
                    Some("rs"),
                )
            })
            .map(|replica| place(&mut engine, replica).unwrap())
            .collect();
        nodes.sort();
        assert_eq!(nodes[1], "b1", "seed {seed}");
    }
}

#[test]
fn pods_of_one_service_without_an_owner_are_spread() {
    let mut engine = three(7);
    engine.set_service(
        "ns",
        "web",
        Some([("app".to_owned(), "web".to_owned())].into()),
    );
    let mut nodes: Vec<String> = (0..3)
        .map(|i| pod(&format!("p{i}"), &json!({"app": "web"}), &requests(0, 0)))
        .map(|p| place(&mut engine, p).unwrap())
        .collect();
    nodes.sort();
    assert_eq!(nodes, ["n1", "n2", "n3"]);
}

#[test]
fn equal_seeds_and_histories_give_equal_decisions() {
    let run = |seed| -> Vec<String> {
        let mut engine = three(seed);
        (0..30)
            .map(|i| pod(&format!("p{i}"), &json!({}), &requests(10, 1)))
            .map(|p| place(&mut engine, p).unwrap())
            .collect()
    };
    assert_eq!(run(42), run(42));
    assert!((0..10).any(|seed| run(seed) != run(42)));
}

#[test]
fn the_reasons_of_all_nodes_are_told() {
    let tainted = json!([{"key": "dedicated", "value": "db", "effect": "NoSchedule"}]);
    let mut engine = engine(
        1,
        &[
            ("n1", json!({}), json!([])),
            ("n2", json!({}), tainted.clone()),
            ("n3", json!({}), tainted),
        ],
    );
    let error = place(&mut engine, pod("p", &json!({}), &requests(5000, GIB))).unwrap_err();
    assert_eq!(
        error,
        "0/3 nodes are available: 1 Insufficient cpu, 2 node(s) had untolerated taint {dedicated: db}."
    );
    let nowhere = place(&mut Engine::new(0), pod("p", &json!({}), &requests(1, 1)));
    assert_eq!(nowhere.unwrap_err(), "no nodes available to schedule pods");
}

#[test]
fn a_freed_node_takes_the_pod_that_waited_for_it() {
    let now = Instant::now();
    let mut engine = engine(1, &[("n1", json!({}), json!([]))]);
    place(&mut engine, pod("big", &json!({}), &requests(3000, GIB))).unwrap();
    place(&mut engine, pod("late", &json!({}), &requests(3000, GIB))).unwrap_err();
    engine.gone("big", now);
    let later = engine.wake_at(now).expect("the pod is to be tried again");
    assert!(matches!(engine.step(later), Some(Decision::Bind { pod, .. }) if pod.uid == "late"));
}

#[test]
fn a_failed_binding_gives_back_the_nodes_share_and_is_tried_again() {
    let now = Instant::now();
    let mut engine = engine(1, &[("n1", json!({}), json!([]))]);
    place(&mut engine, pod("p", &json!({}), &requests(3000, GIB))).unwrap();
    engine.bind_failed("p", now);
    assert!(engine.cluster().node("n1").unwrap().pods.is_empty());
    let later = engine.wake_at(now).unwrap();
    assert!(matches!(engine.step(later), Some(Decision::Bind { pod, .. }) if pod.uid == "p"));
}

#[test]
fn required_anti_affinity_holds_in_both_directions() {
    let apart = json!({
        "containers": [],
        "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
            {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "db"}}},
        ]}},
    });
    let mut engine = three(3);
    let db = json!({"app": "db"});
    let mut nodes: Vec<_> = (0..3)
        .map(|i| place(&mut engine, pod(&format!("p{i}"), &db, &apart)).unwrap())
        .collect();
    nodes.sort();
    assert_eq!(nodes, ["n1", "n2", "n3"]);
    assert_eq!(
        place(&mut engine, pod("p4", &db, &apart)).unwrap_err(),
        "0/3 nodes are available: 3 node(s) didn't match pod anti-affinity rules."
    );
    assert_eq!(
        place(&mut engine, pod("p5", &db, &requests(1, 1))).unwrap_err(),
        "0/3 nodes are available: 3 node(s) didn't satisfy existing pods anti-affinity rules."
    );
}

#[test]
fn required_affinity_lets_the_first_of_a_group_in_and_keeps_the_rest_together() {
    let together = json!({
        "containers": [],
        "affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
            {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "db"}}},
        ]}},
    });
    let mut engine = three(5);
    let db = json!({"app": "db"});
    let first = place(&mut engine, pod("p0", &db, &together)).unwrap();
    for i in 1..5 {
        assert_eq!(
            place(&mut engine, pod(&format!("p{i}"), &db, &together)).unwrap(),
            first
        );
    }
    let mut empty = three(5);
    let stranger = place(&mut empty, pod("q", &json!({"app": "web"}), &together));
    assert_eq!(
        stranger.unwrap_err(),
        "0/3 nodes are available: 3 node(s) didn't match pod affinity rules."
    );
}

#[test]
fn a_preferred_taint_keeps_pods_away_only_while_others_have_room() {
    let soft = json!([{"key": "old", "effect": "PreferNoSchedule"}]);
    let mut engine = engine(
        1,
        &[("new", json!({}), json!([])), ("old", json!({}), soft)],
    );
    for i in 0..4 {
        let p = pod(&format!("p{i}"), &json!({}), &requests(1000, GIB));
        assert_eq!(place(&mut engine, p).unwrap(), "new");
    }
    let p = pod("p5", &json!({}), &requests(1000, GIB));
    assert_eq!(place(&mut engine, p).unwrap(), "old");
}
